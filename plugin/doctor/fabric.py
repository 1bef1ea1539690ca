"""The daemons: who runs here, in which version, whether the stream is up, what could not be wired."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path

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

ASK_S = 4.0
"""The agent bounds its own asking by three seconds."""
FAILURES_SHOWN = 5
_STA_UNSYNC = 0x40
_TIMEX_STATUS_AT = 40
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


def ask_agent(root: Root, hosts: Iterable[str]) -> AgentFacts:
    """Ask the agent of this root, which has the others answer probes. Raises: NOT_FOUND for an unknown host."""
    configuration: Configuration | None = None
    with contextlib.suppress(HawseError):
        configuration = read_configuration(root.agent_file)
    joined = configuration is not None or _exists(root.agent_file) or _exists(root.agent_socket)
    try:
        said = request(
            root.agent_socket,
            {"verb": "EXAMINE", "client": "doctor", "probe": True, "hosts": list(hosts)},
            timeout_s=ASK_S,
        )
        return AgentFacts(_result.json(msgspec.json.encode(said)), "", False, True, configuration)
    except HawseError as error:
        return AgentFacts(None, error.message, error.kind is Kind.DENIED, joined, configuration)


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
            text = "this machine is of no fabric: the machine alone was examined"
            return [unknown("agent", text, "hawse up     # or: hawse join ADDRESS TOKEN")]
        follows = "nothing is attached or repaired here; what is wired goes on"
        return [problem("agent", facts.away, follows, "hawse up     # or: systemctl start hawse-agent; hawse agent")]
    result = facts.result
    if result.away:
        follows = "nothing new is attached here; what is wired goes on"
        return [problem("agent", f"its stream is down: {result.away}", follows, result.away_hint or "see its log")]
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


def judge_probe_problem(result: ExamineResult, named: bool) -> list[Finding]:
    """Why no probes could be prepared. `named`: certain hosts were asked for."""
    if not result.probe_problem or result.away:
        return []
    if named:
        return [problem("path", result.probe_problem, "no path was probed", "hawse host ls")]
    return [unknown("path", f"no path was probed: {result.probe_problem}", "hawse doctor     # again in a second")]


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


def clock_synchronised() -> bool | None:
    """Whether the kernel's clock is synchronised (by NTP or the like); None: it does not say."""
    timex = ctypes.create_string_buffer(256)  # all zero: read only
    if ctypes.sizeof(ctypes.c_long) != 8 or ctypes.CDLL(None).adjtimex(timex) < 0:
        return None
    return not int.from_bytes(timex.raw[_TIMEX_STATUS_AT : _TIMEX_STATUS_AT + 4], "little") & _STA_UNSYNC
