"""Plans for switches without an agent: they are hosts, and what is bound to their ports are endpoints of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address

import msgspec

from sdn.controller import keys
from sdn.controller.labels import parse_labels
from sdn.controller.plan import Draft, Plan, nothing
from sdn.controller.plan_endpoints import IFNAME_CHARACTERS_MAX, Attachment, attach
from sdn.controller.plan_hosts import UNDERLAY_MTU_MAX_BYTES, begin_forgetting, parse_vteps
from sdn.controller.plan_join import check_alone
from sdn.controller.plan_release import release
from sdn.controller.references import missing
from sdn.controller.specs import BindSpec, SwitchSpec
from sdn.controller.state import State
from sdn.model.address import parse_address, parse_mac
from sdn.model.errors import HawseError, conflict, invalid, not_found
from sdn.model.ids import EndpointId, HostId, parse_name
from sdn.model.resources import (
    MTU_DEFAULT_BYTES,
    MTU_MIN_BYTES,
    Datapath,
    Endpoint,
    Host,
    Switch,
    underlay_overhead_bytes,
)
from sdn.model.resources import TUNNEL_PORT_DEFAULT as TUNNEL

DATAPATH_ID_DIGITS = 16
PORT_NUMBER_MAX = 0xFEFF
"""Of Open vSwitch, whatever version of OpenFlow (ovs-ofctl(8))."""
SHOWN = 5
"""Of what is bound, by name, where a switch cannot be removed."""
LOCAL = "LOCAL"
CLIENT = "switch"
"""Of what is bound to a switch's port: nobody attached it."""


def add_switch(state: State, spec: SwitchSpec, id_: HostId, actor: str) -> Plan[Host]:
    """A new one. Raises: INVALID; CONFLICT where its name, VTEP or datapath id is another's."""
    name = parse_name(spec.name, "switch")
    vtep4, vtep6 = parse_vteps(spec.vtep4, spec.vtep6)
    if vtep4 is None and vtep6 is None:
        raise invalid(f"switch {name} has no VTEP", "say which address its tunnels have: --vtep ADDRESS (or --vtep6)")
    for vtep in filter(None, (vtep4, vtep6)):
        _check_underlay(vtep)
    least = MTU_MIN_BYTES + underlay_overhead_bytes(vtep4, vtep6)
    if not least <= spec.mtu_bytes <= UNDERLAY_MTU_MAX_BYTES:
        hint = f"leave it out for {MTU_DEFAULT_BYTES}, or give {least} to {UNDERLAY_MTU_MAX_BYTES}"
        raise invalid(f"an underlay MTU of {spec.mtu_bytes} cannot be", hint)
    switch = Switch(
        host=id_,
        datapath_id=parse_datapath_id(spec.datapath_id),
        tunnel_port=parse_port(spec.tunnel_port),
    )
    host = Host(
        id=id_,
        name=name,
        incarnation=incarnation_of(switch),
        vtep4=vtep4,
        vtep6=vtep6,
        mtu_bytes=spec.mtu_bytes,
        datapath=Datapath.OPENFLOW,
        labels=parse_labels(spec.labels),
    )
    _check_new(state, switch)
    check_alone(state, host, by_itself=False)
    draft = Draft(state, actor)
    draft.create(keys.host(id_), host)
    draft.create(keys.host_name(host.name), id_)
    draft.create(keys.switch(id_), switch)
    draft.create(keys.datapath(switch.datapath_id), id_)
    draft.happen("host.created", id=id_, name=host.name, vtep4=vtep4, vtep6=vtep6, datapath_id=switch.datapath_id)
    return draft.plan(host)


def _check_underlay(vtep: str) -> None:
    """Raises: INVALID for an address to which no other host can send."""
    address = ip_address(vtep)
    nobodys = address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local
    if nobodys or address == IPv4Address("255.255.255.255"):
        raise invalid(f"{vtep} is no address for tunnels: other hosts cannot send to it", "give its underlay address")


def _check_new(state: State, switch: Switch) -> None:
    known = state.datapaths.get(switch.datapath_id)
    if known is not None:
        name = state.hosts[known].name
        raise conflict(
            f"the datapath id {switch.datapath_id} is switch {name}'s already",
            f"if that switch is gone: hawse switch rm {name}; to give one another id: "
            "ovs-vsctl set bridge BRIDGE other_config:datapath-id=16-HEX-DIGITS",
            datapath_id=switch.datapath_id,
            switch=name,
        )


def resolve_switch(state: State, reference: str) -> tuple[Host, Switch]:
    """By name or id. Raises: NOT_FOUND, with the nearest name; INVALID for a host with an agent."""
    id_ = state.names.hosts.get(reference, HostId(reference))
    if id_ not in state.hosts:
        raise missing("switch", reference, (state.hosts[switch].name for switch in state.switches))
    if id_ not in state.switches:
        name = state.hosts[id_].name
        raise invalid(f"{name} is a host with an agent, not a switch", f"see: hawse host inspect {name}", host=name)
    return state.hosts[id_], state.switches[id_]


def incarnation_of(switch: Switch) -> str:
    """Of its host, always: what is bound to ports outlives every restart."""
    return f"switch:{switch.datapath_id}"


def parse_datapath_id(text: str) -> str:
    """16 hex digits in lower case, of those with or without `0x`, colons, dashes or the quotes of ovs-vsctl.

    Raises: INVALID.
    """
    digits = text.strip().strip('"').lower().removeprefix("0x").replace(":", "").replace("-", "")
    if len(digits) != DATAPATH_ID_DIGITS or digits.strip("0123456789abcdef") or not digits.strip("0"):
        raise invalid(
            f"{text[:64]!r} is not a datapath id",
            f"it has {DATAPATH_ID_DIGITS} hex digits: 'ovs-vsctl get bridge BRIDGE datapath_id' shows it",
            datapath_id=text[:64],
        )
    return digits


def parse_port(text: str) -> str:
    """A port's name, or its number in canonical text. Raises: INVALID."""
    if text == LOCAL:
        hint = "give the bridge's own name: 'ovs-ofctl -O OpenFlow13 show BRIDGE' lists it"
        raise invalid(f"{LOCAL} is how OpenFlow calls the bridge's own port, not its name", hint, port=text)
    if text.isascii() and text.isdecimal():
        number = int(text[:10])
        if not 0 < number <= PORT_NUMBER_MAX:
            raise invalid(f"{text[:32]} is not a port's number", f"it is 1 to {PORT_NUMBER_MAX}", port=text[:32])
        return str(number)
    if (
        not text
        or len(text) > IFNAME_CHARACTERS_MAX
        or not text.isprintable()
        or text[0] == "-"
        or set(text) & {"/", " "}
    ):
        raise invalid(
            f"{text[:32]!r} is not a port of a switch",
            "give its name or its number: 'ovs-ofctl -O OpenFlow13 show BRIDGE' lists both",
            port=text[:32],
        )
    return text


# --- ports ---


def parse_bind(spec: BindSpec) -> Attachment:
    """What is wished for a port. Raises: INVALID."""
    port = parse_port(spec.port)
    name = parse_name(spec.name, "endpoint") if spec.name else ""
    return Attachment(
        key=(name or port, port),
        sandbox=0,
        network=spec.network,
        addresses=tuple(map(parse_address, spec.addresses)),
        mac=parse_mac(spec.mac) if spec.mac else "",
        name=name,
        aliases=(),
        labels=parse_labels(spec.labels),
        client=CLIENT,
        scope="",
    )


def bind(
    state: State,
    host: Host,
    wished: Attachment,
    id_: EndpointId,
    actor: str,
    number_of: Callable[[str], int | None] = lambda _: None,
) -> Plan[Endpoint]:
    """The endpoint on a port: the one that is bound there, if it is as wished, or a new one.

    `number_of`: of a port by its name or number, as far as the switch has told.
    Raises: as `plan_endpoints.attach`; CONFLICT where something else is bound there, and for the tunnel's port.
    """
    switch, (_, port) = state.switches[host.id], wished.key
    number = number_of(port)
    if port in (switch.tunnel_port, TUNNEL) or (number is not None and number == number_of(switch.tunnel_port)):
        raise conflict(f"port {port} of switch {host.name} is its tunnel", "bind another port", port=port)
    bound = state.bound.get((host.id, port))
    if bound is None:
        if number is not None:
            _check_free(state, host, port, number, number_of)
        return attach(state, host, wished, id_, actor)
    older = state.endpoints[bound]
    _check_same(state, host, wished, older)
    return attach(state, host, dataclasses.replace(wished, key=(older.container, port)), id_, actor)


def _check_free(state: State, host: Host, port: str, number: int, number_of: Callable[[str], int | None]) -> None:
    """Raises: CONFLICT where the port is bound under its other name."""
    for endpoint in state.endpoints_of(host=host.id):
        if number_of(endpoint.ifname) == number:
            raise conflict(
                f"port {port} of switch {host.name} is its port {endpoint.ifname}, which is bound already",
                f"unbind it first: hawse switch unbind {host.name} {endpoint.ifname}",
                endpoint=endpoint.id,
            )


def _check_same(state: State, host: Host, wished: Attachment, older: Endpoint) -> None:
    """Who binds again with another wish must not believe that it was granted. Raises: CONFLICT, NOT_FOUND."""
    network, port = state.resolve_network(wished.network), older.ifname
    has = {interface.partition("/")[0] for interface in older.addresses}
    wishes = [] if network.id == older.network else [f"of network {network.name}"]
    wishes += [address for address in wished.addresses if address not in has]
    wishes += [wish for wish, is_ in ((wished.mac, older.mac), (wished.name, older.name)) if wish and wish != is_]
    if wishes:
        is_so = [*older.addresses, older.mac, *([older.name] if older.name else [])]
        raise conflict(
            f"port {port} of switch {host.name} is bound to network {state.networks[older.network].name} already, "
            f"as {', '.join(is_so)}: it cannot become {', '.join(wishes)}",
            f"unbind it first: hawse switch unbind {host.name} {port}",
            endpoint=older.id,
            wishes=wishes,
        )


def unbind(state: State, host: Host, port: str, actor: str) -> Plan[Endpoint]:
    """Release what is bound to a port. Raises: NOT_FOUND where nothing is."""
    bound = state.bound.get((host.id, parse_port(port)))
    if bound is None:
        raise not_bound(state, host, port)
    endpoint = state.endpoints[bound]
    draft = Draft(state, actor)
    release(draft, state, endpoint, f"unbound by {actor}")
    return draft.plan(endpoint)


def not_bound(state: State, host: Host, port: str) -> HawseError:
    """The NOT_FOUND error, with what is bound."""
    ports = sorted(endpoint.ifname for endpoint in state.endpoints_of(host=host.id))
    hint = f"bound are: {', '.join(ports[:SHOWN])}{', …' if len(ports) > SHOWN else ''}" if ports else "none is"
    return not_found(f"nothing is bound to port {port[:32]!r} of switch {host.name}", hint, switch=host.name)


# --- the end, and credentials ---


def begin_removing(state: State, host: Host, force: bool, actor: str) -> Plan[Host]:
    """As plan_hosts.begin_forgetting. Raises: CONFLICT while something is bound, unless `force`."""
    bound = [] if force else list(state.endpoints_of(host=host.id))
    if bound:
        names = [f"{endpoint.ifname} ({endpoint.name or endpoint.addresses[0]})" for endpoint in bound[:SHOWN]]
        raise conflict(
            f"{len(bound)} ports of switch {host.name} are bound: {', '.join(names)}{', …' * (len(bound) > SHOWN)}",
            f"unbind them first, or release them with it: hawse switch rm --force {host.name}",
            switch=host.name,
            bound=len(bound),
        )
    return begin_forgetting(state, host, False, True, actor)


def set_certificate(state: State, host: Host, fingerprint: str, authority: str, actor: str) -> Plan[Switch]:
    """Only who shows the certificate with this fingerprint is the switch from now on; `authority` has signed it."""
    changed = msgspec.structs.replace(state.switches[host.id], certificate=fingerprint, authority=authority)
    if changed == state.switches[host.id]:
        return nothing(changed, state.revision_of("switch", host.id))
    draft = Draft(state, actor)
    draft.unchanged("switch", host.id)
    draft.unchanged("host", host.id)
    draft.put(keys.switch(host.id), changed)
    draft.happen("host.certificate", id=host.id, name=host.name)
    return draft.plan(changed)
