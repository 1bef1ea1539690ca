"""Terms of readable values, and matches of terms: canonical, and with everything that a switch demands of them.

    match(tun_id(5), eth_type(ARP), arp_op(1), arp_tpa("10.0.0.1"))
    put(eth_src("0a:f2:0a:01:00:04"))             SetField
    move(Field.ETH_SRC, Field.ETH_DST)            Move

A MAC, an IPv4 or an IPv6 address may have a mask after a slash: another address, or a prefix length.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from typing import Final

from sdn.openflow.fields import Field, Form
from sdn.openflow.flow import Flow, Move, SetField, Term

IPV4: Final = 0x0800
ARP: Final = 0x0806
IPV6: Final = 0x86DD
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
SCTP: Final = 132
ICMPV6: Final = 58
NEIGHBOUR_SOLICITATION: Final = 135
NEIGHBOUR_ADVERTISEMENT: Final = 136

VLAN_PRESENT: Final = 0x1000
_FRAGMENTS: Final = {"no": (0, 3), "first": (1, 3), "later": (3, 3), "yes": (1, 1), "not_later": (0, 2)}


def _needs() -> dict[Field, tuple[tuple[Field, tuple[int, ...]], ...]]:
    """What a field demands: that others are matched, each with one of some values (none: any)."""
    v4, v6 = (Field.ETH_TYPE, (IPV4,)), (Field.ETH_TYPE, (IPV6,))
    icmpv6 = (Field.IP_PROTO, (ICMPV6,))
    solicitation = (Field.ICMPV6_TYPE, (NEIGHBOUR_SOLICITATION,))
    advertisement = (Field.ICMPV6_TYPE, (NEIGHBOUR_ADVERTISEMENT,))
    either = (Field.ICMPV6_TYPE, (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT))
    table = {
        "IPV4_SRC IPV4_DST": (v4,),
        "IPV6_SRC IPV6_DST IPV6_LABEL": (v6,),
        "IP_FRAG IP_DSCP IP_ECN IP_TTL IP_PROTO": ((Field.ETH_TYPE, (IPV4, IPV6)),),
        "TCP_SRC TCP_DST": ((Field.IP_PROTO, (TCP,)),),
        "UDP_SRC UDP_DST": ((Field.IP_PROTO, (UDP,)),),
        "SCTP_SRC SCTP_DST": ((Field.IP_PROTO, (SCTP,)),),
        "ICMPV4_TYPE ICMPV4_CODE": (v4, (Field.IP_PROTO, (ICMP,))),
        "ICMPV6_TYPE ICMPV6_CODE": (v6, icmpv6),
        "ND_TARGET ND_RESERVED ND_OPTIONS_TYPE": (either,),
        "ND_SLL": (solicitation,),
        "ND_TLL": (advertisement,),
        "ARP_OP ARP_SPA ARP_TPA ARP_SHA ARP_THA": ((Field.ETH_TYPE, (ARP,)),),
        "VLAN_PCP": ((Field.VLAN_VID, ()),),
    }
    return {Field[name]: needs for names, needs in table.items() for name in names.split()}


NEEDS: Final = _needs()
"""What a field demands of others; what those demand themselves is not repeated."""


def term(field: Field, value: int | str | bytes, mask: int | str | bytes | None = None) -> Term:
    """Any field's. Numbers, text in the field's form (with `/mask`), or bytes as they are on the wire.

    Raises ValueError where the value does not fit.
    """
    if isinstance(value, str) and "/" in value:
        assert mask is None
        value, _, mask = value.partition("/")
    known, bits = _value(field, value), None if mask is None else _mask(field, mask)
    if bits is None or bits == field.all_bits:
        return Term(field, known)
    return Term(field, _and(known, bits), bits)


@functools.lru_cache(4096)
def _value(field: Field, value: int | str | bytes) -> bytes:
    if isinstance(value, str):
        match field.form:
            case Form.MAC:
                value = bytes.fromhex(value.replace(":", ""))
            case Form.IPV4:
                value = ipaddress.IPv4Address(value).packed
            case Form.IPV6:
                value = ipaddress.IPv6Address(value).packed
            case _:
                value = int(value, 0)
    if isinstance(value, int):
        if not 0 <= value < 1 << field.bits:
            raise ValueError(f"{value} is no value of {field.text}, which has {field.bits} bits")
        return value.to_bytes(field.size, "big")
    if len(value) != field.size:
        raise ValueError(f"{value.hex()} is no value of {field.text}, which has {field.size} bytes")
    return value


def _mask(field: Field, mask: int | str | bytes) -> bytes:
    if isinstance(mask, str) and mask.isdigit() and field.form in (Form.IPV4, Form.IPV6):
        length = int(mask)
        mask = (1 << field.bits) - (1 << field.bits - length)
    return _value(field, mask)


def _and(value: bytes, mask: bytes) -> bytes:
    return (int.from_bytes(value, "big") & int.from_bytes(mask, "big")).to_bytes(len(value), "big")


def _named(field: Field) -> Callable[..., Term]:
    def make(value: int | str | bytes, mask: int | str | bytes | None = None) -> Term:
        return term(field, value, mask)

    make.__name__ = make.__qualname__ = field.name.lower()
    make.__doc__ = f"A term of {field.text}."
    return make


in_port = _named(Field.IN_PORT)
eth_src = _named(Field.ETH_SRC)
eth_dst = _named(Field.ETH_DST)
eth_type = _named(Field.ETH_TYPE)
ipv4_src = _named(Field.IPV4_SRC)
ipv4_dst = _named(Field.IPV4_DST)
ipv6_src = _named(Field.IPV6_SRC)
ipv6_dst = _named(Field.IPV6_DST)
ip_ttl = _named(Field.IP_TTL)
ip_proto = _named(Field.IP_PROTO)
tcp_src = _named(Field.TCP_SRC)
tcp_dst = _named(Field.TCP_DST)
udp_src = _named(Field.UDP_SRC)
udp_dst = _named(Field.UDP_DST)
icmpv4_type = _named(Field.ICMPV4_TYPE)
icmpv4_code = _named(Field.ICMPV4_CODE)
icmpv6_type = _named(Field.ICMPV6_TYPE)
icmpv6_code = _named(Field.ICMPV6_CODE)
nd_reserved = _named(Field.ND_RESERVED)
nd_target = _named(Field.ND_TARGET)
nd_options_type = _named(Field.ND_OPTIONS_TYPE)
nd_sll = _named(Field.ND_SLL)
nd_tll = _named(Field.ND_TLL)
arp_op = _named(Field.ARP_OP)
arp_spa = _named(Field.ARP_SPA)
arp_tpa = _named(Field.ARP_TPA)
arp_sha = _named(Field.ARP_SHA)
arp_tha = _named(Field.ARP_THA)
tun_id = _named(Field.TUN_ID)
tun_ipv4_src = _named(Field.TUN_IPV4_SRC)
tun_ipv4_dst = _named(Field.TUN_IPV4_DST)
tun_ipv6_src = _named(Field.TUN_IPV6_SRC)
tun_ipv6_dst = _named(Field.TUN_IPV6_DST)
ct_state = _named(Field.CT_STATE)
ct_zone = _named(Field.CT_ZONE)
metadata = _named(Field.METADATA)


def vlan_vid(vid: int) -> Term:
    """Tagged, with this VLAN."""
    return term(Field.VLAN_VID, VLAN_PRESENT | vid)


def vlan_none() -> Term:
    """Not tagged."""
    return term(Field.VLAN_VID, 0)


def vlan_any() -> Term:
    """Tagged, whatever the VLAN."""
    return term(Field.VLAN_VID, VLAN_PRESENT, VLAN_PRESENT)


def ip_frag(which: str) -> Term:
    """Fragments: `no`, `yes`, `first`, `later` or `not_later`, as ovs-fields(7) has them."""
    return term(Field.IP_FRAG, *_FRAGMENTS[which])


def reg(number: int, value: int, mask: int | None = None) -> Term:
    """One of eight registers."""
    return term(Field[f"REG{number}"], value, mask)


def match(*terms: Term) -> tuple[Term, ...]:
    """The terms in canonical order.

    Raises ValueError where a field comes twice or lacks what it needs, as a switch would refuse it.
    """
    ordered = tuple(sorted(terms, key=lambda each: each.field.place))
    known = {each.field: each for each in ordered}
    if len(known) < len(ordered):
        raise ValueError(f"a field is matched twice: {', '.join(each.field.text for each in ordered)}")
    for field in known:
        _demand(known, field, "matched")
    return ordered


def _demand(known: dict[Field, Term], field: Field, what: str) -> None:
    for other, values in NEEDS.get(field, ()):
        found = known.get(other)
        if found is None or found.mask is not None or (values and int.from_bytes(found.value, "big") not in values):
            wanted = " or ".join(f"{value:#x}" for value in values) or "anything"
            raise ValueError(f"{field.text} cannot be {what} where {other.text} is not matched to be {wanted}")


def put(value: Term) -> SetField:
    """What sets the field to the term's value."""
    assert value.mask is None
    return SetField(value.field, value.value)


def move(source: Field, target: Field) -> Move:
    """What copies as many bits as both have."""
    return Move(source, target, min(source.bits, target.bits))


def check(flow: Flow) -> Flow:
    """The flow itself. Raises ValueError where its match is not canonical, or an action sets what it does not match."""
    if match(*flow.match) != flow.match:
        raise ValueError("the match is not in the canonical order")
    known = {each.field: each for each in flow.match}
    for action in flow.actions:
        if isinstance(action, SetField):
            _demand(known, action.field, "set")
        elif isinstance(action, Move):
            _demand(known, action.source, "copied")
            _demand(known, action.target, "set")
    return flow
