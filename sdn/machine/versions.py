"""Which version of Hawse each part of it runs: a daemon that was not restarted after an upgrade is the old one."""

from __future__ import annotations

from typing import Any, NamedTuple

from sdn.client.client import Client
from sdn.machine.record import Place
from sdn.model.errors import HawseError, Kind
from sdn.model.version import VERSION
from sdn.service.contract_client import request

ASK_S = 5.0
HERE = "here"
SWITCH = "switch"
"""Without an agent: it has a version of its own."""


class Part(NamedTuple):
    """`where`: a host's name, `here`, or a controller's address; `problem`: why there is no version."""

    part: str
    where: str
    version: str
    problem: str = ""


def versions(place: Place, client: Client) -> list[Part]:
    """Of the command, the controller, every host's agent, and this machine's daemons."""
    here = _agent(place)
    fleet = _fleet(client)
    known = {part.where for part in fleet if part.part == "agent"}
    own = [part for part in here if part.where not in known]
    return [Part("client", HERE, VERSION), *fleet, *own, *_runtime(place)]


def _fleet(client: Client) -> list[Part]:
    try:
        status = client.get("/v1/status", timeout_s=ASK_S).body
    except HawseError as error:
        return [Part("controller", client.url, "", error.message)]
    parts = [Part("controller", client.url, str(status.get("version") or "unknown"))]
    try:
        hosts = sorted(client.items("/v1/hosts"), key=lambda host: str(host["name"]))
    except HawseError as error:
        if error.kind is Kind.DENIED:  # a tenant's user: hosts are not theirs to see
            return parts
        return [Part("controller", client.url, "", error.message)]
    return parts + [Part(_kind(host), str(host["name"]), str(host.get("version") or "unknown")) for host in hosts]


def _kind(host: dict[str, Any]) -> str:
    return SWITCH if host.get("datapath") == SWITCH else "agent"


def _agent(place: Place) -> list[Part]:
    if not place.root.agent_socket.exists():
        return []
    try:
        found = request(place.root.agent_socket, {"verb": "EXAMINE", "client": "cli"}, timeout_s=ASK_S)
    except HawseError as error:
        return [Part("agent", HERE, "", error.message)]
    return [Part("agent", str(found["name"]), str(found["version"]))]


def _runtime(place: Place) -> list[Part]:
    if not place.root.runtime_socket.exists():
        return []
    try:
        found: dict[str, Any] = request(place.root.runtime_socket, {"verb": "STATUS"}, timeout_s=ASK_S)
    except HawseError as error:
        return [Part("runtime", HERE, "", error.message)]
    parts = [Part("runtime", HERE, str(found["version"]))]
    if found.get("supervisor_pid"):
        parts.append(Part("supervisor", HERE, str(found.get("supervisor_version") or "unknown")))
    return parts


def differing(parts: list[Part]) -> list[Part]:
    """Those that do not run what this command is of; who is away or has not said it yet does not count."""
    return [part for part in parts if part.part != SWITCH and part.version not in ("", "unknown", VERSION)]
