"""Every topology with all of its hosts on Open vSwitch: the same verdicts, and gone without a trace."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from sdn.model.errors import HawseError, Kind
from tests.e2e.test_lab import (
    COMMAND,
    PATIENCE_S,
    SHIPPED,
    checked,
    directory_of,
    hawse,
    members_of,
    name,
    tiny,
    traces,
)
from topologies import vswitch

__all__ = ["name", "tiny"]  # fixtures

pytestmark = pytest.mark.root


@pytest.mark.openflow
@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: str(path.stem))
def test_a_shipped_topology_is_proved_on_openflow(file: Path, name: str) -> None:
    hawse("lab", "up", "--datapath", "openflow", str(file), "--name", name)
    directory = directory_of(name)
    members = members_of(directory)
    report = checked(name)
    assert report["ok"], report
    hawse("lab", "down", name)
    assert traces(directory, members) == []


@pytest.mark.openflow
def test_the_demo_says_the_same() -> None:
    demo = subprocess.run(
        [*COMMAND, "lab", "demo", "--datapath", "openflow"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout
    assert "36 paths proved, 54 proved shut, 10 lies died with a name; all as expected" in demo.stdout


def test_a_host_s_open_vswitch_is_shown_entered_and_ended(name: str, tiny: Path) -> None:
    hawse("lab", "up", "--datapath", "openflow", str(tiny), "--name", name)
    directory = directory_of(name)
    daemons = {d["daemon"]: d["state"] for d in json.loads(hawse("lab", "ps", name, "-o", "json").stdout)["daemons"]}
    assert {daemons[daemon] for daemon in ("agent", "ovsdb-server", "ovs-vswitchd")} == {"running"}
    shown = hawse("lab", "exec", "--lab", name, "h1", "--", "ovs-vsctl", "list-br").stdout.split()
    assert "hwint" in shown
    record = directory.read()
    assert record is not None
    os.kill(record.processes["h1+ovs-vswitchd"].pid, 9)
    members = members_of(directory)
    hawse("lab", "down", name)
    assert traces(directory, members) == []


def test_without_open_vswitch_a_lab_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vswitch, "SYSTEM_PATH", "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(HawseError) as caught:
        vswitch.require(["h1"])
    assert caught.value.kind is Kind.UNAVAILABLE
    assert "apt-get install openvswitch-switch" in caught.value.hint
    vswitch.require([])  # who needs none is not asked for it
    with pytest.raises(HawseError) as too_long:
        vswitch.require(["h" * 57])
    assert too_long.value.kind is Kind.INVALID
