"""Whom a person means: one container by many words, and where a packet is to go. Pure; within one tenant where said."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from sdn.controller.references import DEFAULT_TENANT, missing
from sdn.controller.state import State
from sdn.model.address import parse_address, parse_mac
from sdn.model.errors import HawseError, conflict, invalid
from sdn.model.ids import EndpointId, TenantId, is_id
from sdn.model.resources import Endpoint

_MAC = re.compile(r"[0-9A-Fa-f]{1,2}([:-][0-9A-Fa-f]{1,2}){5}")
PORT_MAX = 65535


@dataclasses.dataclass(frozen=True, slots=True)
class Destination:
    """Exactly one of: the endpoints of a container, an address, a MAC."""

    endpoints: tuple[Endpoint, ...] = ()
    address: str = ""
    mac: str = ""


def find_destination(state: State, reference: str, within: TenantId | None) -> Destination:
    """What a packet is for. Raises: as `find_container`."""
    if _MAC.fullmatch(reference):
        return Destination(mac=parse_mac(reference))
    try:
        return Destination(address=parse_address(reference))
    except HawseError:
        return Destination(endpoints=find_container(state, reference, within))


def find_container(state: State, reference: str, within: TenantId | None) -> tuple[Endpoint, ...]:
    """The endpoints of one container: by id, name, `tenant/name`, its container's name, `HOST:container`, SWITCH:PORT.

    A reference that names one interface means that one. Raises: NOT_FOUND, with the nearest name; CONFLICT where
    several are meant.
    """
    known = [endpoint for endpoint in state.endpoints.values() if within in (None, endpoint.tenant)]
    if is_id(reference):
        found = state.endpoints.get(EndpointId(reference))
        if found is not None and within in (None, found.tenant):
            return (found,)
    host, colon, container = reference.partition(":")
    if colon:
        on = state.names.host(host, {endpoint.host for endpoint in known} if within else state.hosts)
        candidates = [each for each in known if each.host == on and container in (each.container, each.name)]
    else:
        candidates = _named(state, reference, known, within)
    if not candidates:
        raise missing("endpoint or container", reference, {_names(state, each)[0] for each in known})
    places = {(each.host, each.container) for each in candidates}
    if len(places) > 1:
        spelled = sorted(f"{state.hosts[place].name}:{name}" for place, name in places)
        raise conflict(
            f"{reference} may be {len(places)} containers",
            f"say which: {', '.join(spelled[:5])}",
            reference=reference,
            candidates=spelled,
        )
    return tuple(sorted(candidates, key=lambda each: (each.ifname, each.id)))


def _named(state: State, reference: str, known: Iterable[Endpoint], within: TenantId | None) -> list[Endpoint]:
    """By name or container's name; a name, which is unique in its tenant, goes before a container's."""
    tenant, slash, name = reference.rpartition("/")
    owner = state.resolve_tenant(tenant, within).id if slash else None
    found = [each for each in known if owner in (None, each.tenant) and name in (each.name, each.container)]
    named = {(each.host, each.container) for each in found if each.name == name}
    return [each for each in found if (each.host, each.container) in named] if len(named) == 1 else found


def _names(state: State, endpoint: Endpoint) -> tuple[str, ...]:
    """What an endpoint may be called, the best first."""
    tenant = state.tenants[endpoint.tenant].name
    if endpoint.host in state.switches and not endpoint.name:  # what hangs on a port is called after it
        return (f"{state.hosts[endpoint.host].name}:{endpoint.container}",)
    name = endpoint.name or endpoint.container
    best = name if tenant == DEFAULT_TENANT else f"{tenant}/{name}"
    return (best, endpoint.container) if endpoint.container != name else (best,)


def spelled(state: State, endpoint: Endpoint) -> str:
    """An endpoint as one would type it."""
    return _names(state, endpoint)[0]


def parse_protocol(text: str) -> str:
    """`tcp/80`, `udp/53`, `tcp`, `udp`, `icmp` or "" (any). Raises: INVALID."""
    kind, slash, port = text.lower().partition("/")
    whole = not slash or (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) <= PORT_MAX)
    if text and (kind not in ("tcp", "udp", "icmp") or not whole or (kind == "icmp" and slash)):
        raise invalid(f"{text!r} is not a protocol", "write tcp/80, udp/53 or icmp", protocol=text)
    return f"{kind}/{int(port)}" if slash else kind
