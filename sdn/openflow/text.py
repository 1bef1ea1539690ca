"""Flows in the language of ovs-ofctl(8), which takes the same text: for people who know it, and for sentences."""

from __future__ import annotations

import ipaddress
from typing import Final

from sdn.openflow.fields import Field, Form
from sdn.openflow.flow import CONTROLLER, IN_PORT, LOCAL, Action, CheckLarger, Flow, Move, Output, SetField, Term, Track

_PORTS: Final = {IN_PORT: "IN_PORT", LOCAL: "LOCAL", CONTROLLER: "CONTROLLER:65535"}
_ETHERTYPES: Final = {0x0800: "ip", 0x0806: "arp", 0x86DD: "ipv6"}
_PROTOCOLS: Final = {
    ("ip", 1): "icmp",
    ("ip", 6): "tcp",
    ("ip", 17): "udp",
    ("ip", 132): "sctp",
    ("ipv6", 6): "tcp6",
    ("ipv6", 17): "udp6",
    ("ipv6", 58): "icmp6",
    ("ipv6", 132): "sctp6",
}
_FRAGMENTS: Final = {(0, 3): "no", (1, 3): "first", (3, 3): "later", (1, 1): "yes", (0, 2): "not_later"}


def flow_text(flow: Flow) -> str:
    """`cookie=…,table=…,priority=…,…,actions=…`."""
    parts = [f"cookie={flow.cookie:#x}", f"table={flow.table}", f"priority={flow.priority}"]
    parts += [text] if (text := match_text(flow.match)) else []
    return ",".join(parts) + f",actions={actions_text(flow)}"


def match_text(terms: tuple[Term, ...]) -> str:
    """`in_port=7,arp,arp_tpa=10.0.0.1`; "" for all packets. Where protocols have names, they come by them."""
    known = {term.field: term for term in terms}
    family = _ETHERTYPES.get(_number(known, Field.ETH_TYPE))
    protocol = _PROTOCOLS.get((family or "", _number(known, Field.IP_PROTO)))
    parts = []
    for term in terms:
        if term.field is Field.ETH_TYPE and family:
            parts.append(protocol or family)
        elif term.field is not Field.IP_PROTO or not protocol:
            parts.append(term_text(term))
    return ",".join(parts)


def _number(known: dict[Field, Term], field: Field) -> int:
    term = known.get(field)
    return -1 if term is None or term.mask is not None else int.from_bytes(term.value, "big")


def term_text(term: Term) -> str:
    """`field=value` or `field=value/mask`."""
    if term.field is Field.IP_FRAG and (which := _FRAGMENTS.get((term.value[0], (term.mask or b"\3")[0]))):
        return f"ip_frag={which}"
    text = f"{term.field.text}={value_text(term.field, term.value)}"
    return text if term.mask is None else f"{text}/{_mask_text(term.field, term.mask)}"


def value_text(field: Field, value: bytes) -> str:
    """A value in the field's form."""
    match field.form:
        case Form.MAC:
            return value.hex(":")
        case Form.IPV4 | Form.IPV6:
            return str(ipaddress.ip_address(value))
        case Form.PORT:
            return port_text(int.from_bytes(value, "big"))
        case Form.HEX:
            return f"{int.from_bytes(value, 'big'):#x}"
        case _:
            return str(int.from_bytes(value, "big"))


def _mask_text(field: Field, mask: bytes) -> str:
    if field.form in (Form.MAC, Form.IPV4, Form.IPV6):
        return value_text(field, mask)
    return f"{int.from_bytes(mask, 'big'):#x}"


def port_text(port: int) -> str:
    """A port's number, or its name where it is none of the switch's own."""
    return _PORTS.get(port, str(port)).partition(":")[0]


def actions_text(flow: Flow) -> str:
    """The actions and the table that follows; `drop` where there is neither."""
    parts = [action_text(action) for action in flow.actions]
    parts += [] if flow.goto is None else [f"goto_table:{flow.goto}"]
    return ",".join(parts) or "drop"


def action_text(action: Action) -> str:
    """One action."""
    if isinstance(action, Output):
        return _PORTS.get(action.port) or f"output:{action.port}"
    if isinstance(action, SetField):
        return f"set_field:{value_text(action.field, action.value)}->{action.field.text}"
    if isinstance(action, Move):
        return f"move:{_bits_text(action.source, action.bits)}->{_bits_text(action.target, action.bits)}"
    if isinstance(action, CheckLarger):
        return f"check_pkt_larger({action.size})->{action.target.text}[0]"
    if isinstance(action, Track):
        return f"ct(table={action.table})"
    return f"resubmit(,{action.table})"


def _bits_text(field: Field, bits: int) -> str:
    return f"{field.text}[]" if bits == field.bits else f"{field.text}[0..{bits - 1}]"
