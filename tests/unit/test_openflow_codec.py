"""Flows to bytes and back. os-ken is the oracle of what is sent; what Open vSwitch tells is in tests/conformance."""

from __future__ import annotations

import ipaddress
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from os_ken.ofproto import ofproto_v1_3, ofproto_v1_3_parser

from sdn.openflow import encode
from sdn.openflow.decode import Entry, Unknown, decode_entries, entry_of, flow_of
from sdn.openflow.fields import MOVE_HEADER, Field, Form
from sdn.openflow.flow import (
    CONTROLLER,
    IN_PORT,
    Action,
    CheckLarger,
    Flow,
    Move,
    Output,
    Resubmit,
    SetField,
    Term,
    Track,
)
from sdn.openflow.match import ARP, IPV4, arp_op, arp_tpa, eth_type, in_port, match, move, put, tun_id
from tests.unit.openflow_strategies import flows

_OTHER_NAMES = {
    "TUN_ID": "tunnel_id",
    "ND_TARGET": "ipv6_nd_target",
    "ND_SLL": "ipv6_nd_sll",
    "ND_TLL": "ipv6_nd_tll",
    "IP_TTL": "nw_ttl",
    "IPV6_LABEL": "ipv6_flabel",
}
_NAMES = {field: _OTHER_NAMES.get(field.name, field.name.lower()) for field in Field}
_KNOWN = [field for field in Field if not field.name.startswith("ND_")] + [Field.ND_TARGET, Field.ND_SLL, Field.ND_TLL]
"""All fields but the two that os-ken has never heard of."""

_BY_OXM = {
    ofproto_v1_3.oxm_serialize_header(ofproto_v1_3.oxm_from_user_header(each.name), buf, 0) and bytes(buf): each.name
    for each in ofproto_v1_3.oxm_types
    if isinstance(each.num, int)
    for buf in [bytearray()]
}


class _Switch:
    ofproto = ofproto_v1_3
    ofproto_parser = ofproto_v1_3_parser


def _user(field: Field, value: bytes):
    match field.form:
        case Form.MAC:
            return value.hex(":")
        case Form.IPV4 | Form.IPV6:
            return str(ipaddress.ip_address(value))
    return int.from_bytes(value, "big")


def _term(term: Term):
    value = _user(term.field, term.value)
    return (_NAMES[term.field], value if term.mask is None else (value, _user(term.field, term.mask)))


def _action(action: Action):
    parser = ofproto_v1_3_parser
    if isinstance(action, Output):
        return parser.OFPActionOutput(action.port, 0xFFFF if action.port == CONTROLLER else 0)
    if isinstance(action, SetField):
        return parser.OFPActionSetField(**{_NAMES[action.field]: _user(action.field, action.value)})
    if isinstance(action, Move):
        source, target = (_BY_OXM[struct.pack("!I", MOVE_HEADER[field])] for field in (action.source, action.target))
        return parser.NXActionRegMove(src_field=source, dst_field=target, n_bits=action.bits)
    if isinstance(action, Track):
        return parser.NXActionCT(0, "", 0, action.table, 0, [])
    if isinstance(action, CheckLarger):  # unknown to os-ken; ovs-ofctl has told it
        vendor = parser.OFPActionExperimenterUnknown(0x2320)
        vendor.data = struct.pack("!HHHI6x", 49, action.size, 0, MOVE_HEADER[action.target])
        return vendor
    assert isinstance(action, Resubmit)
    return parser.NXActionResubmitTable(in_port=0xFFF8, table_id=action.table)


def _by_os_ken(flow: Flow, command: int) -> bytes:
    parser = ofproto_v1_3_parser
    instructions = []
    if flow.actions:
        instructions.append(parser.OFPInstructionActions(4, [_action(action) for action in flow.actions]))
    if flow.goto is not None:
        instructions.append(parser.OFPInstructionGotoTable(flow.goto))
    message = parser.OFPFlowMod(
        _Switch(),
        cookie=flow.cookie,
        table_id=flow.table,
        command=command,
        priority=flow.priority,
        out_port=ofproto_v1_3.OFPP_ANY,
        out_group=ofproto_v1_3.OFPG_ANY,
        match=parser.OFPMatch(_ordered_fields=[_term(term) for term in flow.match]),
        instructions=[] if command == encode.DELETE_STRICT else instructions,
    )
    message.set_xid(0)
    message.serialize()
    return bytes(message.buf)


@settings(max_examples=60, deadline=None)
@given(flows(_KNOWN))
def test_what_is_sent_is_what_os_ken_would_send(flow: Flow) -> None:
    assert encode.encode_add(flow) == _by_os_ken(flow, encode.ADD)
    assert encode.encode_modify(flow) == _by_os_ken(flow, encode.MODIFY_STRICT)
    assert encode.encode_delete(flow) == _by_os_ken(flow, encode.DELETE_STRICT)


def _told(flow_mod: bytes, packets: int = 0, octets: int = 0) -> bytes:
    """What flow statistics say of a flow that was added; written down from OpenFlow 1.3.5, section 7.3.5.2."""
    cookie, (table,), (priority,) = flow_mod[8:16], flow_mod[24:25], struct.unpack("!H", flow_mod[30:32])
    rest = flow_mod[48:]
    head = struct.pack("!HBxIIHHHH4x8sQQ", 48 + len(rest), table, 7, 9, priority, 0, 0, 0, cookie, packets, octets)
    return head + rest


@settings(max_examples=60, deadline=None)
@given(st.lists(flows(list(Field)), max_size=2))
def test_a_flow_comes_back_as_it_was_sent(some: list[Flow]) -> None:
    sent = [encode.encode_add(flow) for flow in some]
    entries = decode_entries(b"".join(_told(message, 3, 180) for message in sent))
    back = [flow for flow in map(flow_of, entries) if isinstance(flow, Flow)]
    assert back == some
    assert [encode.encode_add(flow) for flow in back] == sent  # tuples of other kinds with equal numbers are equal
    assert [entry._replace(packets=0, bytes=0) for entry in entries] == [entry_of(message) for message in sent]
    assert [(entry.packets, entry.bytes) for entry in entries] == [(3, 180)] * len(some)


ANSWER = Flow(
    5,
    100,
    match(tun_id(7), eth_type(ARP), arp_op(1), arp_tpa("10.0.0.1")),
    (move(Field.ETH_SRC, Field.ETH_DST), put(arp_op(2)), Output(IN_PORT)),
    None,
    9,
)


def test_what_is_cut_short_or_does_not_add_up_says_so() -> None:
    whole = _told(encode.encode_add(ANSWER))
    for length in range(1, len(whole)):
        with pytest.raises(ValueError, match="flow statistics"):
            decode_entries(whole[:length])
    for claimed in (0, 7, 47, 56, 65535):
        with pytest.raises(ValueError, match="flow statistics"):
            decode_entries(struct.pack("!H", claimed) + whole[2:] + whole)
    for claimed in (0, 3, 999):
        with pytest.raises(ValueError, match="does not add up"):
            decode_entries(whole[:50] + struct.pack("!H", claimed) + whole[52:])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_nonsense_inside_an_entry_is_unknown_not_an_error(data: st.DataObject) -> None:
    entry = entry_of(encode.encode_add(ANSWER))
    part = data.draw(st.sampled_from(["match", "instructions"]))
    old = getattr(entry, part)
    at = data.draw(st.integers(0, len(old) - 1))
    changed = entry._replace(**{part: old[:at] + bytes([data.draw(st.integers(0, 255))]) + old[at + 1 :]})
    assert isinstance(flow_of(changed), Flow | Unknown)


def test_a_foreign_flow_is_told_in_os_kens_words() -> None:
    parser = ofproto_v1_3_parser
    group = bytearray()
    parser.OFPInstructionActions(4, [parser.OFPActionGroup(77)]).serialize(group, 0)
    unknown = flow_of(Entry(3, 5, 1, 0, 0, encode.encode_match(match(eth_type(IPV4))), bytes(group)))
    assert isinstance(unknown, Unknown)
    assert (unknown.table, unknown.priority, unknown.cookie) == (3, 5, 1)
    assert "eth_type" in unknown.text
    assert "group_id=77" in unknown.text


def test_without_os_ken_a_foreign_flow_is_bytes_and_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "os_ken.ofproto", None)
    group = bytes.fromhex("0004001000000000") + bytes.fromhex("001600080000004d")
    unknown = flow_of(Entry(3, 5, 1, 0, 0, encode.encode_match(()), group))
    assert isinstance(unknown, Unknown)
    assert group.hex() in unknown.text
    assert "pip install hawse[openflow]" in unknown.text


def test_what_nobody_knows_is_told_as_bytes() -> None:
    unknown = flow_of(
        Entry(3, 5, 1, 0, 0, bytes.fromhex("0001000a7fff0202abcd000000000000"), bytes.fromhex("ffff0004"))
    )
    assert isinstance(unknown, Unknown)
    assert "abcd" in unknown.text


def test_deleting_by_cookie_names_bits() -> None:
    message = encode.encode_delete_all(0x4857 << 48, 0xFFFF << 48)
    decoded = ofproto_v1_3_parser.OFPFlowMod.parser(_Switch(), 4, 14, len(message), 0, bytearray(message))
    assert (decoded.command, decoded.table_id, decoded.cookie, decoded.cookie_mask) == (
        encode.DELETE,
        0xFF,
        0x4857 << 48,
        0xFFFF << 48,
    )
    assert decoded.out_port == decoded.out_group == 0xFFFFFFFF


def test_a_flow_is_one_of_three_things_when_it_has_no_actions() -> None:
    assert encode.encode_instructions((), None) == b""
    assert encode.encode_instructions((), 3) == bytes.fromhex("0001000803000000")
    assert encode.encode_add(Flow(0, 0, match(in_port(1))))[48:] == bytes.fromhex("0001000c8000000400000001") + bytes(4)
