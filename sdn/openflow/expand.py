"""Objects to flows. `flows_of` is what they read like; `adds_of` and `changes_of` are their bytes, by templates.

What an object expands to depends on its key, its value and the numbers of ports alone, so it costs the same whatever
else there is. Ports: name -> number, with the tunnel's under `objects.TUNNEL`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from sdn.model.address import address_bytes, link_local, mac_bytes
from sdn.openflow import cookies
from sdn.openflow.fields import Field
from sdn.openflow.flow import IN_PORT, Action, Flow, Output
from sdn.openflow.match import (
    ARP,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    arp_op,
    arp_sha,
    arp_spa,
    arp_tpa,
    eth_dst,
    eth_src,
    eth_type,
    icmpv4_code,
    icmpv4_type,
    icmpv6_code,
    icmpv6_type,
    in_port,
    ip_frag,
    ip_proto,
    ip_ttl,
    ipv4_dst,
    ipv4_src,
    ipv6_dst,
    ipv6_src,
    match,
    move,
    nd_sll,
    nd_target,
    nd_tll,
    put,
    term,
    tun_id,
    tun_ipv4_dst,
    tun_ipv4_src,
    tun_ipv6_dst,
    tun_ipv6_src,
)
from sdn.openflow.objects import (
    TUNNEL,
    Damaged,
    Gateway,
    Member,
    Neighbour,
    NetworkFlows,
    Speaker,
    Station,
    gateway_mac,
)
from sdn.openflow.pipeline import WITH_OPTION
from sdn.openflow.removal import identity, ours, remove
from sdn.openflow.tables import ANSWERER, CAUSE, TENANT, TUNNELLED, UNSPECIFIED, Table, because_of
from sdn.openflow.template import Kind, Template
from sdn.reconcile.datapath import Key, Object

Ports = Mapping[str, int]

COUNTED: Final = tuple(cause for cause in cookies.CAUSES if cause not in ("unknown-port", "malformed-tunnel"))
"""The causes that a network has counters of; the others are known before the network is."""

_REQUEST: Final = 1
_ECHO_REQUEST4, _ECHO_REPLY4, _ECHO_REQUEST6, _ECHO_REPLY6 = 8, 0, 128, 129
_TTL: Final = 64


def _network(vni: int, mac: str, tenant: int, tunnel: int) -> list[Flow]:
    mine = cookies.of_network(vni)
    foreign = match(in_port(tunnel), tun_id(vni))
    gateway = match(tun_id(vni), eth_dst(mac))
    return [
        Flow(Table.CLASSIFY, 10, foreign, (because_of("foreign-vtep"),), Table.DROP, mine),
        Flow(Table.ANSWER, 30, gateway, (put(term(TENANT, tenant)),), Table.GATEWAY, mine),
        *(
            Flow(
                Table.DROP,
                10,
                match(term(CAUSE, cookies.CAUSES.index(cause)), tun_id(vni)),
                cookie=cookies.of_drop(cause, vni),
            )
            for cause in COUNTED
        ),
    ]


def _member4(vni: int, vtep: str, tunnel: int) -> Flow:
    came = match(in_port(tunnel), tun_id(vni), tun_ipv4_src(vtep))
    return Flow(Table.CLASSIFY, 20, came, (put(term(TUNNELLED, 1)),), Table.CONNTRACK, cookies.of_network(vni))


def _member6(vni: int, vtep: str, tunnel: int) -> Flow:
    came = match(in_port(tunnel), tun_id(vni), tun_ipv6_src(vtep))
    return Flow(Table.CLASSIFY, 20, came, (put(term(TUNNELLED, 1)),), Table.CONNTRACK, cookies.of_network(vni))


def _answerer(mac: str) -> Action:
    return put(term(ANSWERER, int(mac.replace(":", ""), 16)))


def _gateway4(vni: int, mac: str, address: str, tenant: int) -> list[Flow]:
    mine, network, ip = cookies.of_network(vni), tun_id(vni), eth_type(IPV4)
    back = (
        move(Field.ETH_SRC, Field.ETH_DST),
        put(eth_src(mac)),
        move(Field.IPV4_SRC, Field.IPV4_DST),
        put(ipv4_src(address)),
        put(ip_ttl(_TTL)),
    )
    asked = match(network, eth_type(ARP), arp_op(_REQUEST), arp_tpa(address))
    echo = match(network, ip, ipv4_dst(address), ip_proto(ICMP), icmpv4_type(_ECHO_REQUEST4), icmpv4_code(0))
    more = match(network, ip, ipv4_dst(address), ip_proto(ICMP), ip_frag("later"))
    elsewhere = match(term(TENANT, tenant), ip, ipv4_dst(address))
    replied = (*back, put(icmpv4_type(_ECHO_REPLY4)), Output(IN_PORT))
    return [
        Flow(Table.ANSWER, 40, asked, (_answerer(mac),), Table.REPLY, mine),
        Flow(Table.GATEWAY, 30, echo, replied, cookie=mine),
        Flow(Table.GATEWAY, 30, more, (*back, Output(IN_PORT)), cookie=mine),
        Flow(Table.GATEWAY, 20, match(network, ip, ipv4_dst(address)), cookie=mine),
        Flow(Table.GATEWAY, 10, elsewhere, (because_of("not-here"),), Table.DROP, mine),
    ]


def _gateway6(vni: int, mac: str, address: str, tenant: int) -> list[Flow]:
    mine, network, ip, icmp = cookies.of_network(vni), tun_id(vni), eth_type(IPV6), ip_proto(ICMPV6)
    back = (
        move(Field.ETH_SRC, Field.ETH_DST),
        put(eth_src(mac)),
        move(Field.IPV6_SRC, Field.IPV6_DST),
        put(ipv6_src(address)),
        put(ip_ttl(_TTL)),
    )
    asked = match(network, ip, icmp, icmpv6_type(NEIGHBOUR_SOLICITATION), icmpv6_code(0), nd_target(address))
    echo = match(network, ip, ipv6_dst(address), icmp, icmpv6_type(_ECHO_REQUEST6), icmpv6_code(0))
    more = match(network, ip, ipv6_dst(address), ip_frag("later"))
    elsewhere = match(term(TENANT, tenant), ip, ipv6_dst(address))
    replied = (*back, put(icmpv6_type(_ECHO_REPLY6)), Output(IN_PORT))
    return [
        Flow(Table.ANSWER, 40, asked, (_answerer(mac),), Table.REPLY, mine),
        Flow(Table.GATEWAY, 30, echo, replied, cookie=mine),
        Flow(Table.GATEWAY, 30, more, (*back, Output(IN_PORT)), cookie=mine),
        Flow(Table.GATEWAY, 20, match(network, ip, ipv6_dst(address)), cookie=mine),
        Flow(Table.GATEWAY, 10, elsewhere, (because_of("not-here"),), Table.DROP, mine),
    ]


def _speaker(port: int, vni: int, mac: str, cookie: int) -> list[Flow]:
    here, ip, icmp, code = in_port(port), eth_type(IPV6), ip_proto(ICMPV6), icmpv6_code(0)
    probe = match(here, eth_type(ARP), arp_op(_REQUEST), arp_spa(UNSPECIFIED), arp_sha(mac))
    solicit = match(here, ip, icmp, icmpv6_type(NEIGHBOUR_SOLICITATION), code, nd_sll(mac))
    advertise = match(here, ip, icmp, icmpv6_type(NEIGHBOUR_ADVERTISEMENT), code, nd_tll(mac))
    return [
        Flow(Table.CLASSIFY, 20, match(here), (put(tun_id(vni)),), Table.SOURCE, cookie),
        Flow(Table.SOURCE, 20, match(here, eth_src(mac)), (), Table.SHAPE, cookie),
        Flow(Table.ADDRESS, 15, probe, (because_of("dad"),), Table.DROP, cookie),
        Flow(Table.OPTION, 20, solicit, (WITH_OPTION,), Table.LENGTH, cookie),
        Flow(Table.OPTION, 20, advertise, (WITH_OPTION,), Table.LENGTH, cookie),
    ]


def _speaks4(port: int, mac: str, address: str, cookie: int) -> list[Flow]:
    here = in_port(port)
    return [
        Flow(Table.ADDRESS, 20, match(here, eth_type(IPV4), ipv4_src(address)), (), Table.CONTENT, cookie),
        Flow(Table.ADDRESS, 20, match(here, eth_type(ARP), arp_spa(address), arp_sha(mac)), (), Table.CONTENT, cookie),
        Flow(
            Table.CONTENT, 50, match(here, eth_type(ARP), arp_tpa(address)), (because_of("dad"),), Table.DROP, cookie
        ),
    ]  # fmt: skip


def _speaks6(port: int, address: str, cookie: int) -> list[Flow]:
    here, ip, icmp, code = in_port(port), eth_type(IPV6), ip_proto(ICMPV6), icmpv6_code(0)
    own = nd_target(address)
    solicit = match(here, ip, icmp, icmpv6_type(NEIGHBOUR_SOLICITATION), code, own)
    advertise = match(here, ip, icmp, icmpv6_type(NEIGHBOUR_ADVERTISEMENT), code, own)
    return [
        Flow(Table.ADDRESS, 20, match(here, ip, ipv6_src(address)), (), Table.CONTENT, cookie),
        Flow(Table.CONTENT, 50, solicit, (because_of("dad"),), Table.DROP, cookie),
        Flow(Table.CONTENT, 50, advertise, (), Table.OPTION, cookie),
    ]


def _here(vni: int, mac: str, port: int, cookie: int) -> list[Flow]:
    """What is for a port of this switch is asked of it itself: it passes the answers."""
    station = match(tun_id(vni), eth_dst(mac))
    return [
        Flow(Table.ANSWER, 50, station, (), Table.FORWARD, cookie),
        Flow(Table.FORWARD, 10, station, (Output(port),), cookie=cookie),
    ]


def _there(vni: int, mac: str, way: Action, tunnel: int, cookie: int) -> Flow:
    station = match(tun_id(vni), eth_dst(mac), term(TUNNELLED, 0))
    return Flow(Table.FORWARD, 10, station, (way, Output(tunnel)), cookie=cookie)


def _there4(vni: int, mac: str, vtep: str, tunnel: int, cookie: int) -> Flow:
    return _there(vni, mac, put(tun_ipv4_dst(vtep)), tunnel, cookie)


def _there6(vni: int, mac: str, vtep: str, tunnel: int, cookie: int) -> Flow:
    return _there(vni, mac, put(tun_ipv6_dst(vtep)), tunnel, cookie)


def _neighbour4(vni: int, address: str, mac: str, cookie: int) -> Flow:
    asked = match(tun_id(vni), eth_type(ARP), arp_op(_REQUEST), arp_tpa(address))
    return Flow(Table.ANSWER, 20, asked, (_answerer(mac),), Table.REPLY, cookie)


def _neighbour6(vni: int, address: str, mac: str, cookie: int) -> Flow:
    solicit = (icmpv6_type(NEIGHBOUR_SOLICITATION), icmpv6_code(0), nd_target(address))
    asked = match(tun_id(vni), eth_type(IPV6), ip_proto(ICMPV6), *solicit)
    return Flow(Table.ANSWER, 20, asked, (_answerer(mac),), Table.REPLY, cookie)


NETWORK: Final = Template(_network, vni=Kind.VNI, mac=Kind.MAC, tenant=Kind.PORT, tunnel=Kind.PORT)
MEMBER4: Final = Template(_member4, vni=Kind.VNI, vtep=Kind.IPV4, tunnel=Kind.PORT)
MEMBER6: Final = Template(_member6, vni=Kind.VNI, vtep=Kind.IPV6, tunnel=Kind.PORT)
GATEWAY4: Final = Template(_gateway4, vni=Kind.VNI, mac=Kind.MAC, address=Kind.IPV4, tenant=Kind.PORT)
GATEWAY6: Final = Template(_gateway6, vni=Kind.VNI, mac=Kind.MAC, address=Kind.IPV6, tenant=Kind.PORT)
SPEAKER: Final = Template(_speaker, port=Kind.PORT, vni=Kind.VNI, mac=Kind.MAC, cookie=Kind.COOKIE)
SPEAKS4: Final = Template(_speaks4, port=Kind.PORT, mac=Kind.MAC, address=Kind.IPV4, cookie=Kind.COOKIE)
SPEAKS6: Final = Template(_speaks6, port=Kind.PORT, address=Kind.IPV6, cookie=Kind.COOKIE)
HERE: Final = Template(_here, vni=Kind.VNI, mac=Kind.MAC, port=Kind.PORT, cookie=Kind.COOKIE)
THERE4: Final = Template(
    _there4, vni=Kind.VNI, mac=Kind.MAC, vtep=Kind.IPV4, tunnel=Kind.PORT, cookie=Kind.COOKIE
)  # fmt: skip
THERE6: Final = Template(
    _there6, vni=Kind.VNI, mac=Kind.MAC, vtep=Kind.IPV6, tunnel=Kind.PORT, cookie=Kind.COOKIE
)  # fmt: skip
NEIGHBOUR4: Final = Template(_neighbour4, vni=Kind.VNI, address=Kind.IPV4, mac=Kind.MAC, cookie=Kind.COOKIE)
NEIGHBOUR6: Final = Template(_neighbour6, vni=Kind.VNI, address=Kind.IPV6, mac=Kind.MAC, cookie=Kind.COOKIE)

Part = tuple[Template, tuple[bytes, ...]]
"""Some flows of an object: a template, and what goes into its holes."""


def parts_of(key: Key, value: Object, ports: Ports) -> list[Part]:
    """What an object consists of. Raises: KeyError for a port without a number."""
    return _PARTS[type(value)](key, value, ports)


def _neighbour_parts(key: Key, value: Neighbour, _: Ports) -> list[Part]:
    address = address_bytes(key[2])
    template = NEIGHBOUR4 if len(address) == 4 else NEIGHBOUR6
    return [(template, (_vni(key[1]), address, _mac(value.mac), value.cookie.to_bytes(8, "big")))]


def _station_parts(key: Key, value: Station, ports: Ports) -> list[Part]:
    vni, mac, cookie = _vni(key[1]), _mac(key[2]), value.cookie.to_bytes(8, "big")
    if value.port:
        return [(HERE, (vni, mac, _port(ports, value.port), cookie))]
    vtep = _vtep(value.vtep)
    return [(THERE4 if len(vtep) == 4 else THERE6, (vni, mac, vtep, _port(ports, TUNNEL), cookie))]


def _speaker_parts(key: Key, value: Speaker, ports: Ports) -> list[Part]:
    port, mac, cookie = _port(ports, key[1]), _mac(value.mac), value.cookie.to_bytes(8, "big")
    parts: list[Part] = [(SPEAKER, (port, value.vni.to_bytes(3, "big"), mac, cookie))]
    for text in (*value.addresses, link_local(value.mac)):
        address = address_bytes(text)
        parts.append(
            (SPEAKS4, (port, mac, address, cookie)) if len(address) == 4 else (SPEAKS6, (port, address, cookie))
        )
    return parts


def _member_parts(key: Key, _: Member, ports: Ports) -> list[Part]:
    vtep = _vtep(key[2])
    return [(MEMBER4 if len(vtep) == 4 else MEMBER6, (_vni(key[1]), vtep, _port(ports, TUNNEL)))]


def _gateway_parts(key: Key, value: Gateway, _: Ports) -> list[Part]:
    address = address_bytes(key[2])
    template = GATEWAY4 if len(address) == 4 else GATEWAY6
    return [(template, (_vni(key[1]), _mac(value.mac), address, value.tenant.to_bytes(4, "big")))]


def _network_parts(key: Key, value: NetworkFlows, ports: Ports) -> list[Part]:
    mac = mac_bytes(gateway_mac(int(key[1])))
    return [(NETWORK, (_vni(key[1]), mac, value.tenant.to_bytes(4, "big"), _port(ports, TUNNEL)))]


_PARTS: Final[Mapping[type, Callable[[Key, Any, Ports], list[Part]]]] = {
    Neighbour: _neighbour_parts,
    Station: _station_parts,
    Speaker: _speaker_parts,
    Member: _member_parts,
    Gateway: _gateway_parts,
    NetworkFlows: _network_parts,
}

_mac = functools.lru_cache(1024)(mac_bytes)  # an endpoint's objects follow each other
_vtep = functools.lru_cache(1024)(address_bytes)


@functools.lru_cache(1024)
def _vni(text: str) -> bytes:
    return int(text).to_bytes(3, "big")


def _port(ports: Ports, name: str) -> bytes:
    return ports[name].to_bytes(4, "big")


def flows_of(key: Key, value: Object, ports: Ports) -> list[Flow]:
    """The flows of an object. Raises: KeyError for a port without a number."""
    return [flow for template, values in parts_of(key, value, ports) for flow in template.flows(*values)]


def adds_of(key: Key, value: Object, ports: Ports) -> list[bytes]:
    """The flow-mods that add them. Raises: KeyError for a port without a number."""
    parts = _PARTS[type(value)](key, value, ports)
    if len(parts) == 1:
        template, values = parts[0]
        return template.add(*values)
    return [message for template, values in parts for message in template.add(*values)]


def deletes_of(key: Key, value: Object, ports: Ports) -> list[bytes]:
    """The flow-mods that delete them, and only where they are ours. Raises: KeyError for a port without a number."""
    if isinstance(value, Damaged):
        return [remove(*each) for each in value.found]
    parts = parts_of(key, value, ports)
    return [ours(message) for template, values in parts for message in template.delete(*values)]


def changes_of(key: Key, before: Object | None, after: Object | None, ports: Ports) -> list[bytes]:
    """The flow-mods that make one value of an object of another; None: there is none. What is equal is left alone.

    `ports` has the numbers that were in use before as well as those after. Raises: KeyError for a port without one.
    """
    if after is None:
        return [] if before is None else deletes_of(key, before, ports)
    wanted = adds_of(key, after, ports)
    if before is None:
        return wanted
    kept = set(map(identity, wanted))
    gone = [message for message in deletes_of(key, before, ports) if identity(message) not in kept]
    there = set() if isinstance(before, Damaged) else set(adds_of(key, before, ports))
    return [*gone, *(message for message in wanted if message not in there)]
