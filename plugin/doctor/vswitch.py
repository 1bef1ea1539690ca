"""The Open vSwitch that carries this host's networks, where one does: whether its two daemons are there."""

from __future__ import annotations

import socket
from pathlib import Path

from plugin.agent.predecessor import Predecessor
from plugin.doctor.finding import Finding, ok, problem, unknown
from plugin.kernel import unixctl
from sdn.model.errors import HawseError
from sdn.model.resources import Datapath
from sdn.service.roots import Root

CHECK = "vswitch"
TIMEOUT_S = 1.0
SILENT = "no packet of any container passes here"
REMEDY = ("systemctl status openvswitch-switch", "systemctl restart openvswitch-switch")


def judge_vswitch(root: Root) -> list[Finding]:
    """Nothing of a host that the kernel's bridges wire."""
    try:
        choice = Predecessor(root).read()
    except OSError as error:
        return [unknown(CHECK, f"{root.wired_file} cannot be read: {error.strerror}", "sudo hawse doctor")]
    if choice is None or choice.kind is not Datapath.OPENFLOW:
        return []
    from plugin.datapath.openflow.switch import DATABASE  # with all of OpenFlow, which other hosts need not load

    database = choice.ovsdb or DATABASE
    try:
        _reach(database)
    except PermissionError as error:
        return [unknown(CHECK, f"{database} cannot be asked: {error.strerror}", "sudo hawse doctor")]
    except OSError as error:
        found = f"Open vSwitch's database does not answer at {database}: {error.strerror or error}"
        return [problem(CHECK, found, "nothing is attached here; what is wired goes on", *REMEDY)]
    try:
        _reach(unixctl.find(database.parent))
    except HawseError as error:
        return [problem(CHECK, error.message, SILENT, *REMEDY)]
    except OSError as error:
        found = f"ovs-vswitchd does not answer in {database.parent}: {error.strerror or error}"
        return [problem(CHECK, found, SILENT, *REMEDY)]
    return [ok(CHECK, f"ovs-vswitchd runs, and its database answers at {database}")]


def _reach(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect(str(path))
