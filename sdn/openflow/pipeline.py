"""The flows that belong to nobody: what every switch of ours has, whatever its networks. See `tables` for the walk.

Their cookie says the version, which follows from what they are; `changes` makes a switch have these and no others.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

from sdn.openflow import cookies
from sdn.openflow.cookies import CAUSES
from sdn.openflow.decode import Entry, entry_of
from sdn.openflow.encode import encode_add
from sdn.openflow.fields import Field
from sdn.openflow.flow import IN_PORT, LOCAL, Action, CheckLarger, Flow, Output, Term, Track
from sdn.openflow.match import (
    ARP,
    ICMPV6,
    IPV4,
    IPV6,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    TCP,
    UDP,
    arp_op,
    eth_dst,
    eth_type,
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
    nd_options_type,
    nd_reserved,
    nd_sll,
    nd_target,
    nd_tll,
    put,
    tcp_dst,
    tcp_src,
    term,
    udp_dst,
    udp_src,
    vlan_any,
)
from sdn.openflow.removal import remove
from sdn.openflow.tables import ANSWERER, CAUSE, SPARE, TOO_LONG, TUNNELLED, UNSPECIFIED, Table, because_of

GROUP: Final = "01:00:00:00:00:00/01:00:00:00:00:00"
"""Every broadcast and multicast MAC."""
BARE: Final = CheckLarger(78, TOO_LONG)
"""Neighbour discovery without an option: 14 bytes of Ethernet, 40 of IPv6, 24 of its own."""
WITH_OPTION: Final = CheckLarger(86, TOO_LONG)
"""With one link-layer address."""

_REQUEST, _REPLY = 1, 2
_ROUTER_ADVERTISEMENT, _REDIRECT = 134, 137
_RESERVED = 255
_SOLICITED_OVERRIDE = 0x60000000


def _ip4(*more: Term) -> tuple[Term, ...]:
    return match(eth_type(IPV4), *more)


def _ip6(*more: Term) -> tuple[Term, ...]:
    return match(eth_type(IPV6), *more)


def _icmp6(kind: int, *more: Term) -> tuple[Term, ...]:
    return match(eth_type(IPV6), ip_proto(ICMPV6), icmpv6_type(kind), *more)


def _arp(*more: Term) -> tuple[Term, ...]:
    return match(eth_type(ARP), *more)


def _refuse(table: Table, priority: int, terms: tuple[Term, ...], cause: str) -> Flow:
    return Flow(table, priority, terms, (because_of(cause),), Table.DROP)


def _pass(table: Table, priority: int, terms: tuple[Term, ...], to: Table, *actions: Action) -> Flow:
    return Flow(table, priority, terms, actions, to)


def _classify(tunnel: int) -> Iterator[Flow]:
    yield Flow(Table.CLASSIFY, 5, match(in_port(tunnel)))  # tunnels of nobody's VNI
    yield Flow(Table.CLASSIFY, 5, match(in_port(LOCAL)))  # what the host itself says on the bridge's device
    yield _refuse(Table.CLASSIFY, 0, (), "unknown-port")


def _source() -> Iterator[Flow]:
    yield _refuse(Table.SOURCE, 0, (), "mac-spoof")


def _shape() -> Iterator[Flow]:
    shape = Table.SHAPE
    yield _refuse(shape, 50, match(vlan_any()), "protocol")
    # The switch reads nothing of a header that is malformed or of a packet longer than its frame: all is zero.
    yield _refuse(shape, 40, _ip4(ip_proto(0), ip_ttl(0), ipv4_src(UNSPECIFIED), ipv4_dst(UNSPECIFIED)), "protocol")
    yield _refuse(shape, 40, _ip6(ip_proto(0), ip_ttl(0), ipv6_src("::"), ipv6_dst("::")), "protocol")
    for terms in (_ip4(), _ip6(), _arp(arp_op(_REQUEST)), _arp(arp_op(_REPLY))):
        yield _pass(shape, 10, terms, Table.ADDRESS)
    yield _refuse(shape, 0, (), "protocol")


def _address() -> Iterator[Flow]:
    address, group = Table.ADDRESS, eth_dst(GROUP)
    unspecified = _ip6(group, ipv6_src("::"), ip_proto(ICMPV6), icmpv6_type(NEIGHBOUR_SOLICITATION))
    yield _refuse(address, 14, unspecified, "dad")
    yield _refuse(address, 12, _ip4(group, ipv4_src(UNSPECIFIED)), "multicast")
    yield _refuse(address, 12, _ip6(group, ipv6_src("::")), "multicast")
    for terms, cause in ((_ip4(), "ip4-spoof"), (_ip6(), "ip6-spoof"), (_arp(), "arp-spoof")):
        yield _refuse(address, 10, terms, cause)


def _content() -> Iterator[Flow]:
    content, first, group = Table.CONTENT, ip_frag("first"), eth_dst(GROUP)
    for kind in (_ROUTER_ADVERTISEMENT, _REDIRECT):
        yield _refuse(content, 60, _icmp6(kind), "router-advert")
    for kind in (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT):  # never in fragments (RFC 6980)
        yield _refuse(content, 55, _icmp6(kind, first), "nd-spoof")
    # First fragments that end before what they claim to hold (RFC 7112).
    yield _refuse(content, 55, _icmp6(0, icmpv6_code(0), first), "protocol")
    yield _refuse(content, 55, _ip6(ip_proto(TCP), tcp_src(0), tcp_dst(0), first), "protocol")
    yield _refuse(content, 55, _ip6(ip_proto(UDP), udp_src(0), udp_dst(0), first), "protocol")
    # 50: speakers' own addresses
    yield _refuse(content, 45, _icmp6(NEIGHBOUR_SOLICITATION, icmpv6_code(0), nd_target("::")), "nd-spoof")  # cut short
    yield _pass(content, 40, _icmp6(NEIGHBOUR_SOLICITATION), Table.OPTION)
    yield _refuse(content, 40, _icmp6(NEIGHBOUR_ADVERTISEMENT), "nd-spoof")
    yield _refuse(content, 30, _ip4(ip_proto(UDP), udp_dst(68)), "dhcp-server")
    yield _refuse(content, 30, _ip6(ip_proto(UDP), udp_dst(546)), "dhcp-server")
    for terms in (_ip4(group), _ip6(group), _arp(group, arp_op(_REPLY))):
        yield _refuse(content, 25, terms, "multicast")
    yield _refuse(content, 20, _ip4(ip_proto(_RESERVED)), "protocol")
    yield _refuse(content, 20, _ip6(ip_proto(_RESERVED)), "protocol")
    yield _refuse(content, 20, _ip6(ip_proto(0)), "protocol")  # an extension header that is cut short
    yield _pass(content, 0, (), Table.CONNTRACK)


def _option() -> Iterator[Flow]:
    option, code = Table.OPTION, icmpv6_code(0)
    yield _refuse(option, 30, _icmp6(NEIGHBOUR_ADVERTISEMENT, eth_dst(GROUP)), "multicast")
    none = "00:00:00:00:00:00"
    yield _pass(option, 20, _icmp6(NEIGHBOUR_SOLICITATION, code, nd_sll(none)), Table.LENGTH, BARE)
    yield _pass(option, 20, _icmp6(NEIGHBOUR_ADVERTISEMENT, code, nd_tll(none)), Table.LENGTH, BARE)
    yield _refuse(option, 0, (), "nd-spoof")
    # Open vSwitch counts both outcomes of a comparison, whichever it was: what is too long comes to DROP as a frame of
    # its own, so that the others do not count there.
    too_long = match(eth_type(IPV6), term(TOO_LONG, 1, 1))
    yield Flow(Table.LENGTH, 10, too_long, (because_of("nd-spoof"), Track(Table.DROP)))
    yield _pass(Table.LENGTH, 0, (), Table.CONNTRACK)


def _policy() -> Iterator[Flow]:
    yield _pass(Table.CONNTRACK, 0, (), Table.POLICY)
    yield _pass(Table.POLICY, 10, match(term(TUNNELLED, 1)), Table.FORWARD)
    yield _pass(Table.POLICY, 0, (), Table.ANSWER)


def _answer() -> Iterator[Flow]:
    """No question leaves the host, nor does an answer that nobody waits for."""
    yield Flow(Table.ANSWER, 10, _arp())
    yield Flow(Table.ANSWER, 10, _icmp6(NEIGHBOUR_SOLICITATION))
    yield _pass(Table.ANSWER, 0, (), Table.FORWARD)


def _reply() -> Iterator[Flow]:
    back = (move(Field.ETH_SRC, Field.ETH_DST), move(ANSWERER, Field.ETH_SRC))
    arp = (
        *back,
        put(arp_op(_REPLY)),
        move(Field.ARP_SHA, Field.ARP_THA),
        move(ANSWERER, Field.ARP_SHA),
        move(Field.ARP_SPA, SPARE),
        move(Field.ARP_TPA, Field.ARP_SPA),
        move(SPARE, Field.ARP_TPA),
        Output(IN_PORT),
    )
    advertisement = (
        *back,
        move(Field.IPV6_SRC, Field.IPV6_DST),
        move(Field.ND_TARGET, Field.IPV6_SRC),
        put(ip_ttl(255)),
        put(nd_reserved(_SOLICITED_OVERRIDE)),
    )
    advertise = put(icmpv6_type(NEIGHBOUR_ADVERTISEMENT))
    asked, silent = icmpv6_code(0), nd_sll("00:00:00:00:00:00")
    reply, solicit = Table.REPLY, NEIGHBOUR_SOLICITATION
    yield Flow(reply, 20, _arp(arp_op(_REQUEST)), arp)
    with_mac = (*advertisement, put(nd_options_type(2)), advertise)
    yield _pass(reply, 20, _icmp6(solicit, asked), Table.ADVERTISE, *with_mac)
    # A question without the asker's MAC has no room for an answer's: who may ask so knows it (RFC 4861, section 4.3).
    yield Flow(reply, 30, _icmp6(solicit, asked, silent), (*advertisement, advertise, Output(IN_PORT)))
    answered = _icmp6(NEIGHBOUR_ADVERTISEMENT, icmpv6_code(0))
    yield Flow(Table.ADVERTISE, 20, answered, (move(ANSWERER, Field.ND_TLL), Output(IN_PORT)))


def _gateway() -> Iterator[Flow]:
    gateway = Table.GATEWAY
    yield Flow(gateway, 15, _arp())
    solicited = _icmp6(NEIGHBOUR_SOLICITATION, ipv6_dst("ff02::1:ff00:0/104"))
    yield Flow(gateway, 9, solicited)
    for address in (UNSPECIFIED, "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255"):
        yield _refuse(gateway, 8, _ip4(ipv4_dst(address)), "not-here")
    for address in ("::1", "ff00::/8"):
        yield _refuse(gateway, 8, _ip6(ipv6_dst(address)), "not-here")
    yield _refuse(gateway, 0, (), "no-router")


def _end() -> Iterator[Flow]:
    yield Flow(Table.FORWARD, 0, ())
    nobody = match(term(CAUSE, CAUSES.index("unknown-port")))
    yield Flow(Table.DROP, 10, nobody, cookie=cookies.of_drop("unknown-port", 0))
    yield Flow(Table.DROP, 0, ())


@functools.lru_cache(64)
def pipeline(tunnel: int) -> tuple[Flow, ...]:
    """All of them, for a switch whose tunnels go by this port."""
    stages = (_source, _shape, _address, _content, _option, _policy, _answer, _reply, _gateway, _end)
    flows = [*_classify(tunnel), *(flow for stage in stages for flow in stage())]
    digest = hashlib.blake2s(b"".join(map(encode_add, flows)), digest_size=5).digest()
    cookie = cookies.make(cookies.Kind.PIPELINE, int.from_bytes(digest, "big"))
    return tuple(flow if flow.cookie else flow._replace(cookie=cookie) for flow in flows)


@functools.lru_cache(64)
def entries(tunnel: int) -> dict[tuple[int, int, bytes], Entry]:
    """The same as a switch tells them, by what identifies them there."""
    told = [entry_of(encode_add(flow)) for flow in pipeline(tunnel)]
    return {(entry.table, entry.priority, entry.match): entry for entry in told}


def changes(found: Iterable[Entry], tunnel: int) -> list[bytes]:
    """The flow-mods that make a switch with these entries have the pipeline as it should be; none: it has."""
    wanted = entries(tunnel)
    there: set[tuple[int, int, bytes]] = set()
    deletions: list[bytes] = []
    for entry in found:
        identity = (entry.table, entry.priority, entry.match)
        expected = wanted.get(identity)
        if expected is not None:
            if (entry.cookie, entry.instructions) == (expected.cookie, expected.instructions):
                there.add(identity)
        elif cookies.is_ours(entry.cookie) and cookies.split(entry.cookie)[0] == cookies.Kind.PIPELINE:
            deletions.append(remove(*identity))
    missing = [flow for flow, identity in zip(pipeline(tunnel), wanted, strict=True) if identity not in there]
    return [*deletions, *map(encode_add, missing)]
