"""The daemons: who runs here, in which version, whether the stream is up, what could not be wired."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from plugin.agent.configuration import Configuration, read_configuration
from plugin.doctor.finding import Finding, ok, problem, unknown, warning
from sdn.model.codec import Decoder
from sdn.model.contract import ExamineResult, Probed
from sdn.model.errors import HawseError, Kind
from sdn.model.version import VERSION
from sdn.service.contract_client import request
from sdn.service.pid_file import running_pid
from sdn.service.roots import Root
from sdn.service.trust import IDENTITY_PATH

ASK_S = 2.0
"""The agent bounds its own asking of the controller by less."""
FAILURES_SHOWN = 5
"""struct timex: modes, offset, freq, maxerror, esterror, status (adjtimex(2)), with padding on 64 bits."""
_result: Decoder[ExamineResult] = Decoder(ExamineResult, "the agent's answer")


@dataclasses.dataclass(frozen=True, slots=True)
class AgentFacts:
    """`result`: what the agent said; None: `away` says why it did not. `joined`: this machine is of a fabric."""

    result: ExamineResult | None
    away: str
    denied: bool
    joined: bool
    configuration: Configuration | None


def ask_agent(root: Root) -> AgentFacts:
    """Ask the agent of this root how the host is."""
    configuration: Configuration | None = None
    with contextlib.suppress(HawseError):
        configuration = read_configuration(root.agent_file)
    joined = configuration is not None or _exists(root.agent_file) or _exists(root.agent_socket)
    try:
        return AgentFacts(_examine(root, {}), "", False, True, configuration)
    except HawseError as error:
        return AgentFacts(None, error.message, error.kind is Kind.DENIED, joined, configuration)


def ask_peers(root: Root, hosts: Iterable[str]) -> tuple[Probed | None, str]:
    """Have the other hosts answer probes: who does, or why it could not be had."""
    try:
        result = _examine(root, {"probe": True, "hosts": list(hosts)})
        return result.probed, result.probe_problem
    except HawseError as error:
        return None, error.message


def _examine(root: Root, fields: dict[str, Any]) -> ExamineResult:
    said = request(root.agent_socket, {"verb": "EXAMINE", "client": "doctor", **fields}, timeout_s=ASK_S)
    return _result.json(msgspec.json.encode(said))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a directory that is not ours to look into
        return False


def judge_agent(facts: AgentFacts) -> list[Finding]:
    """Whether it runs, and whether the controller has it."""
    if facts.result is None:
        if facts.denied:
            return [unknown("agent", f"not asked: {facts.away}", "run it as root")]
        if not facts.joined:
            text = "no agent was set up here: the machine alone was examined"
            return [unknown("agent", text, "hawse up     # or: hawse join ADDRESS TOKEN")]
        follows = "nothing is attached or repaired here; what is wired goes on"
        return [problem("agent", facts.away, follows, "hawse up     # or: systemctl start hawse-agent; hawse agent")]
    result = facts.result
    if result.away:
        follows = "nothing new is attached here; what is wired goes on"
        hint = result.away_hint if result.away_hint not in ("", "try again") else "see `controller` for why"
        return [problem("agent", f"its stream is down: {result.away}", follows, f"{hint}; it tries again by itself")]
    text = f"host {result.name}, connected (session {result.session}, revision {result.revision})"
    return [ok("agent", text, session=result.session, revision=result.revision)]


def judge_failures(result: ExamineResult) -> list[Finding]:
    """What is not wired as it should be."""
    if not result.failures:
        count = len(result.networks)
        return [ok("wiring", f"{count} network{'s' if count != 1 else ''}, nothing has failed")]
    shown = sorted(result.failures.items())
    findings = [
        problem(
            "wiring", f"{unit}: {sentence}", "packets to or from it may be lost",
            f"hawse host inspect {result.name}     # it is tried again by itself once the cause is gone",
            unit=unit,
        )
        for unit, sentence in shown[:FAILURES_SHOWN]
    ]  # fmt: skip
    if len(shown) > FAILURES_SHOWN:
        text = f"{len(shown) - FAILURES_SHOWN} more units failed"
        findings.append(problem("wiring", text, "", f"hawse host inspect {result.name}"))
    return findings


def judge_probe_problem(why: str, named: bool) -> list[Finding]:
    """Why no probes could be prepared. `named`: certain hosts were asked for."""
    if named:
        return [problem("path", why, "no path was probed", "hawse host ls")]
    return [unknown("path", f"no path was probed: {why}", "hawse doctor     # again in a second")]


# Versions -------------------------------------------------------------------------------------------------------------


def read_versions(root: Root) -> dict[str, str]:
    """Of this command and of the runtime, where it answers."""
    versions = {"hawse": VERSION}
    with contextlib.suppress(HawseError):
        said = request(root.runtime_socket, {"verb": "STATUS"}, timeout_s=ASK_S)
        versions["runtime"] = str(said.get("version", ""))
        for part in ("supervisor", "keeper"):
            if said.get(f"{part}_version"):
                versions[part] = str(said[f"{part}_version"])
    return versions


def judge_versions(versions: dict[str, str], probed: Probed | None) -> list[Finding]:
    """Whether all parts are of one version."""
    found = {part: version for part, version in versions.items() if version}
    found |= {f"agent of {peer.name}": peer.version for peer in (probed.peers if probed else ()) if peer.version}
    if len(set(found.values())) <= 1:
        return [ok("versions", f"{', '.join(versions)}: {VERSION}", versions=found)]
    shown = ", ".join(f"{part} {version}" for part, version in sorted(found.items()))
    return [
        warning(
            "versions", f"they differ: {shown}",
            "newer features fail on the older ones, in sentences",
            "install the same version everywhere, then restart: controller first, then agents and runtimes",
            versions=found,
        )
    ]  # fmt: skip


# The controller of this machine --------------------------------------------------------------------------------------


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ASK_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ASK_S)
        self.sock.connect(os.fspath(self._path))


@dataclasses.dataclass(frozen=True, slots=True)
class LocalController:
    """A controller whose process runs in this root; `away`: why it did not answer (empty: it did)."""

    pid: int
    version: str
    away: str


def read_local_controller(root: Root) -> LocalController | None:
    """Ask it on its own socket; None: none runs here."""
    pid = running_pid(root, "controller")
    if pid is None:
        return None
    connection = _UnixConnection(root.controller_socket)
    try:
        connection.request("GET", IDENTITY_PATH)
        return LocalController(pid, str(json.loads(connection.getresponse().read()).get("version", "")), "")
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        return LocalController(pid, "", str(error) or type(error).__name__)
    finally:
        connection.close()


def judge_local_controller(facts: LocalController | None) -> list[Finding]:
    """Whether the controller here answers."""
    if facts is None:
        return []
    if facts.away:
        return [
            problem(
                "controller", f"the controller here (process {facts.pid}) does not answer: {facts.away}",
                "nothing can be decided", "look at its log; then end it and start it again: hawse down; hawse up",
            )
        ]  # fmt: skip
    return [ok("controller", f"one runs here (process {facts.pid}) and answers")]


def controller_ports(root: Root, proc: Path = Path("/proc")) -> list[int]:
    """The TCP ports that a controller of this root listens on for other machines; none where it does not run."""
    pid = running_pid(root, "controller")
    if pid is None:
        return []
    inodes: set[str] = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(proc / str(pid) / "fd"):
            with contextlib.suppress(OSError):
                if found := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry.path)):
                    inodes.add(found[1])
    listed = ""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            listed += (proc / str(pid) / "net" / name).read_text()
    return listening_ports(listed, inodes)


def listening_ports(listed: str, inodes: set[str]) -> list[int]:
    """The ports of these sockets, of /proc/net/tcp, but for those on 127.0.0.1 and ::1."""
    ports: set[int] = set()
    for line in listed.splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[3] == "0A" and fields[9] in inodes:
            address, _, port = fields[1].partition(":")
            if address not in ("0100007F", "00000000000000000000000001000000"):
                ports.add(int(port, 16))
    return sorted(ports)
