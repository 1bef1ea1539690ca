"""Messages as bytes and values, against os-ken: what ours are to it, and its to ours; and those that are wrong."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from os_ken.ofproto import ofproto_parser, ofproto_v1_3, ofproto_v1_3_parser

from sdn.model.errors import HawseError, Kind
from sdn.openflow import bundle, multipart
from sdn.openflow.bundle import BundleAdd, BundleControl, Verb
from sdn.openflow.errors import Error
from sdn.openflow.framing import HEADER_BYTES, ProtocolError, Type
from sdn.openflow.messages import (
    Configuration,
    EchoReply,
    EchoRequest,
    Experimenter,
    Features,
    Hello,
    PacketOut,
    Plain,
    Role,
    RoleReply,
    RoleRequest,
    encode,
    output,
    with_xid,
)
from sdn.openflow.multipart import MultipartReply, MultipartRequest, Part
from sdn.openflow.notices import FlowRemoved, PacketIn, Port, PortChange, PortStatus
from sdn.openflow.parsing import parse

OSKEN = ofproto_v1_3_parser
SWITCH = SimpleNamespace(ofproto=ofproto_v1_3, ofproto_parser=ofproto_v1_3_parser, id=1)
XID = 0x01020304

bits8, bits16, bits32, bits64 = (st.integers(0, (1 << width) - 1) for width in (8, 16, 32, 64))
some_bytes = st.binary(max_size=80)
macs = st.binary(min_size=6, max_size=6).map(lambda mac: mac.hex(":"))
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.", max_size=15)
ports = st.builds(Port, bits32, macs, names, *[bits32] * 8)
in_ports = bits32.map(lambda port: bytes.fromhex("80000004") + port.to_bytes(4, "big"))
"""OXM fields of a match by in_port."""


def by_os_ken(frame: bytes) -> Any:
    """What os-ken makes of a message."""
    return ofproto_parser.msg(SWITCH, *ofproto_parser.header(frame), frame)


def of_os_ken(message: Any) -> bytes:
    """What os-ken would send."""
    message.set_xid(XID)
    message.serialize()
    return bytes(message.buf)


def _os_ken_match(fields: bytes) -> Any:
    return OSKEN.OFPMatch(in_port=int.from_bytes(fields[4:], "big"))


BOTH_SEND = {
    "barrier": st.just((Plain(Type.BARRIER_REQUEST), lambda: OSKEN.OFPBarrierRequest(SWITCH))),
    "features": st.just((Plain(Type.FEATURES_REQUEST), lambda: OSKEN.OFPFeaturesRequest(SWITCH))),
    "get config": st.just((Plain(Type.GET_CONFIG_REQUEST), lambda: OSKEN.OFPGetConfigRequest(SWITCH))),
    "echo": some_bytes.map(lambda data: (EchoRequest(data), lambda: OSKEN.OFPEchoRequest(SWITCH, data))),
    "echo reply": some_bytes.map(lambda data: (EchoReply(data), lambda: OSKEN.OFPEchoReply(SWITCH, data))),
    "error": st.tuples(st.integers(0, 0xFFFE), bits16, some_bytes).map(
        lambda parts: (Error(*parts), lambda: OSKEN.OFPErrorMsg(SWITCH, *parts))
    ),
    "an experimenter's error": st.tuples(bits16, bits32, some_bytes).map(
        lambda parts: (
            Error(0xFFFF, parts[0], parts[2], parts[1]),
            lambda: OSKEN.OFPErrorMsg(SWITCH, 0xFFFF, data=parts[2], exp_type=parts[0], experimenter=parts[1]),
        )
    ),
    "set config": st.tuples(bits16, bits16).map(
        lambda parts: (Configuration(*parts), lambda: OSKEN.OFPSetConfig(SWITCH, *parts))
    ),
    "packet-out": st.tuples(bits32, bits32, st.lists(bits32, min_size=1, max_size=3), some_bytes).map(
        lambda parts: (
            PacketOut(parts[3], b"".join(map(output, parts[2])), parts[0]),
            lambda: OSKEN.OFPPacketOut(
                SWITCH, 0xFFFFFFFF, parts[0], [OSKEN.OFPActionOutput(port, 0) for port in parts[2]], parts[3]
            ),
        )
    ),
    "role": st.tuples(st.sampled_from(Role), bits64).map(
        lambda parts: (RoleRequest(*parts), lambda: OSKEN.OFPRoleRequest(SWITCH, *parts))
    ),
    "experimenter": st.tuples(bits32, bits32, some_bytes).map(
        lambda parts: (Experimenter(*parts), lambda: OSKEN.OFPExperimenter(SWITCH, *parts))
    ),
    "bundle control": st.tuples(bits32, st.sampled_from(Verb), bits16).map(
        lambda parts: (BundleControl(*parts).message(), lambda: OSKEN.ONFBundleCtrlMsg(SWITCH, *parts, []))
    ),
    "flows": st.tuples(bits8, bits64, bits64).map(
        lambda parts: (
            multipart.flows_request(table=parts[0], cookie=parts[1], cookie_mask=parts[2]),
            lambda: OSKEN.OFPFlowStatsRequest(
                SWITCH, 0, parts[0], 0xFFFFFFFF, 0xFFFFFFFF, parts[1], parts[2], OSKEN.OFPMatch()
            ),
        )
    ),
    "aggregate": st.tuples(bits8, bits64, bits64).map(
        lambda parts: (
            multipart.flows_request(Part.AGGREGATE, table=parts[0], cookie=parts[1], cookie_mask=parts[2]),
            lambda: OSKEN.OFPAggregateStatsRequest(
                SWITCH, 0, parts[0], 0xFFFFFFFF, 0xFFFFFFFF, parts[1], parts[2], OSKEN.OFPMatch()
            ),
        )
    ),
    "tables": st.just((MultipartRequest(Part.TABLE), lambda: OSKEN.OFPTableStatsRequest(SWITCH, 0))),
    "ports": st.just((MultipartRequest(Part.PORT_DESCRIPTION), lambda: OSKEN.OFPPortDescStatsRequest(SWITCH, 0))),
    "description": st.just((MultipartRequest(Part.DESCRIPTION), lambda: OSKEN.OFPDescStatsRequest(SWITCH, 0))),
}
"""Messages that os-ken sends, too: (our value, what makes os-ken's)."""


@pytest.mark.parametrize("kind", BOTH_SEND)
def test_what_is_sent_is_what_os_ken_would_send(kind) -> None:
    @settings(max_examples=25)
    @given(BOTH_SEND[kind])
    def check(pair) -> None:
        ours, theirs = pair
        assert encode(ours, XID) == of_os_ken(theirs())

    check()


@settings(max_examples=50)
@given(bits32, bits16, st.binary(min_size=8, max_size=60))
def test_an_added_message_is_what_os_ken_would_add(number, flags, body) -> None:
    inner = OSKEN.OFPEchoRequest(SWITCH, body)
    theirs = of_os_ken(OSKEN.ONFBundleAddMsg(SWITCH, number, 3, inner, []))
    ours = b"".join(bundle.adds(number, [encode(EchoRequest(body), 99)], XID))
    assert ours == theirs
    assert parse(ours) == BundleAdd(number, encode(EchoRequest(body), XID), 3)


@settings(max_examples=50)
@given(st.sets(st.integers(0, 30)))  # os-ken passes bit 31 over, and never ends after a bitmap that has padding
def test_hello_says_to_os_ken_what_it_says(versions) -> None:
    hello = by_os_ken(encode(Hello(4, tuple(sorted(versions))), XID))
    assert [element.versions for element in hello.elements] == [sorted(versions)]
    assert by_os_ken(encode(Hello(4, None), XID)).elements == []


@settings(max_examples=50)
@given(st.tuples(bits64, bits32, bits8, bits8, bits32))
def test_features_are_to_os_ken_what_they_are(numbers) -> None:
    read = by_os_ken(encode(Features(*numbers), XID))
    assert (read.datapath_id, read.n_buffers, read.n_tables, read.auxiliary_id, read.capabilities) == numbers


@settings(max_examples=50)
@given(st.builds(PacketIn, some_bytes, bits8, bits8, bits64, in_ports, bits32))
def test_a_packet_in_is_to_os_ken_what_it_is(ours) -> None:
    theirs = by_os_ken(encode(ours, XID))
    assert (theirs.data, theirs.reason, theirs.table_id, theirs.cookie) == (
        ours.frame,
        ours.reason,
        ours.table,
        ours.cookie,
    )
    assert (theirs.match["in_port"], theirs.buffer_id) == (ours.in_port, ours.buffer_id)


@settings(max_examples=50)
@given(
    st.builds(FlowRemoved, bits64, bits16, bits8, bits8, bits32, bits32, bits16, bits16, bits64, bits64, match=in_ports)
)
def test_a_removed_flow_is_to_os_ken_what_it_is(ours) -> None:
    theirs = by_os_ken(encode(ours, XID))
    names = ["cookie", "priority", "reason", "table_id", "duration_sec", "duration_nsec", "idle_timeout"]
    names += ["hard_timeout", "packet_count", "byte_count"]
    assert [getattr(theirs, name) for name in names] == list(dataclasses.astuple(ours))[:-1]
    assert theirs.match["in_port"] == int.from_bytes(ours.match[4:], "big")


@settings(max_examples=50)
@given(st.builds(PortStatus, st.sampled_from(PortChange), ports))
def test_a_changed_port_is_to_os_ken_what_it_is(ours) -> None:
    theirs = by_os_ken(encode(ours, XID))
    assert theirs.reason == ours.change
    _expect_port(theirs.desc, ours.port)


def _expect_port(theirs: Any, ours: Port) -> None:
    names = ["port_no", "hw_addr", "name", "config", "state", "curr", "advertised", "supported", "peer"]
    read = [getattr(theirs, name) for name in [*names, "curr_speed", "max_speed"]]
    read[2] = read[2].decode()
    assert read == list(dataclasses.astuple(ours))


@settings(max_examples=50)
@given(st.lists(ports, max_size=4))
def test_ports_are_to_os_ken_what_they_are(ours) -> None:
    data = b"".join(port.encode() for port in ours)
    theirs = by_os_ken(encode(MultipartReply(Part.PORT_DESCRIPTION, data), XID))
    assert len(theirs.body) == len(ours)
    for one, other in zip(theirs.body, ours, strict=True):
        _expect_port(one, other)
    assert multipart.ports_of([data, b""]) == ours


@settings(max_examples=30)
@given(st.sampled_from(Role), bits64, bits16, bits16)
def test_role_and_configuration_are_to_os_ken_what_they_are(role, generation, flags, miss) -> None:
    read = by_os_ken(encode(RoleReply(role, generation), XID))
    assert (read.role, read.generation_id) == (role, generation)
    reply = by_os_ken(encode(Plain(Type.GET_CONFIG_REPLY, Configuration(flags, miss).body()), XID))
    assert (reply.flags, reply.miss_send_len) == (flags, miss)


def test_counts_of_tables_and_flows_are_read() -> None:
    table = bytes.fromhex("03000000 00000007 0000000000000009 0000000000000005")
    theirs = by_os_ken(encode(MultipartReply(Part.TABLE, table * 2), XID)).body
    assert [
        multipart.TableStats(one.table_id, one.active_count, one.lookup_count, one.matched_count) for one in theirs
    ] == (multipart.tables_of([table, table]))
    sums = bytes.fromhex("0000000000000009 0000000000000380 00000004 00000000")
    assert multipart.aggregate_of([sums]) == multipart.Aggregate(packets=9, bytes=0x380, flows=4)


def test_a_description_is_read() -> None:
    texts = [b"Nicira, Inc.", b"Open vSwitch", b"3.1.0", b"None", b"\xff?"]
    data = b"".join(text.ljust(size, b"\0") for text, size in zip(texts, (256, 256, 256, 32, 256), strict=True))
    assert multipart.description_of([data]).software == "3.1.0"
    assert multipart.description_of([data]).datapath == "\\xff?"


VALUES = st.one_of(
    st.builds(Hello, bits8, st.none() | st.sets(st.integers(0, 70), min_size=1).map(lambda v: tuple(sorted(v)))),
    st.builds(Error, st.integers(0, 0xFFFE), bits16, some_bytes),
    st.builds(Error, st.just(0xFFFF), bits16, some_bytes, bits32),
    st.builds(EchoRequest, some_bytes),
    st.builds(EchoReply, some_bytes),
    st.builds(Features, bits64, bits32, bits8, bits8, bits32),
    st.builds(Configuration, bits16, bits16),
    st.builds(PacketIn, some_bytes, bits8, bits8, bits64, in_ports, bits32).map(
        lambda one: dataclasses.replace(one, total_bytes=len(one.frame))
    ),
    st.builds(
        FlowRemoved, bits64, bits16, bits8, bits8, bits32, bits32, bits16, bits16, bits64, bits64, match=in_ports
    ),
    st.builds(PortStatus, st.sampled_from(PortChange), ports),
    st.builds(PacketOut, some_bytes, st.binary(max_size=3).map(lambda seed: output(len(seed)) * len(seed)), bits32),
    st.builds(RoleRequest, st.sampled_from(Role), bits64),
    st.builds(RoleReply, st.sampled_from(Role), bits64),
    st.builds(MultipartRequest, st.sampled_from(Part), some_bytes, bits16),
    st.builds(MultipartReply, st.sampled_from(Part), some_bytes, bits16),
    st.builds(Experimenter, st.just(7), bits32, some_bytes),
    st.builds(Plain, st.sampled_from([Type.FLOW_MOD, Type.GROUP_MOD, Type.METER_MOD]), some_bytes),
    st.sampled_from([Plain(Type.BARRIER_REQUEST), Plain(Type.BARRIER_REPLY), Plain(Type.FEATURES_REQUEST)]),
)


@settings(max_examples=300)
@given(VALUES)
def test_what_is_encoded_is_parsed_to_the_same(value) -> None:
    frame = encode(value, XID)
    if isinstance(value, Hello):
        frame = bytes([value.version]) + frame[1:]
    assert parse(frame) == value


@settings(max_examples=300)
@given(VALUES, st.data())
def test_a_truncated_message_is_a_protocol_error_that_names_itself_or_a_shorter_message(value, data) -> None:
    frame = encode(value, XID)
    size = data.draw(st.integers(HEADER_BYTES, len(frame)))
    cut = frame[:2] + size.to_bytes(2, "big") + frame[4:size]
    parsed, error = _parsed(cut)
    if error is None:
        assert parsed.message_type is value.message_type
        return
    assert error.message_type.startswith(value.message_type.name)
    assert error.field
    assert 0 <= error.offset <= len(frame)
    assert error.message.startswith(f"{error.message_type}: {error.field}, at byte {error.offset}, ")


def _parsed(frame: bytes) -> tuple[Any, ProtocolError | None]:
    try:
        return parse(frame), None
    except ProtocolError as error:
        return None, error


@settings(max_examples=300)
@given(st.sampled_from(Type), st.binary(max_size=120), bits32)
def test_no_bytes_are_a_crash(message_type, body, xid) -> None:
    parsed, error = _parsed(encode(Plain(message_type, body), xid))
    assert (parsed is None) == (error is not None)


@pytest.mark.parametrize(
    ("message_type", "body", "field", "offset"),
    [
        (Type.FEATURES_REPLY, "00000000000000010000", "buffers", 16),
        (Type.FEATURES_REPLY, "00" * 25, "length", 2),
        (Type.BARRIER_REPLY, "00", "length", 2),
        (Type.ERROR, "0005", "code", 10),
        (Type.ERROR, "ffff 08fc 4f4e", "experimenter", 12),
        (Type.PACKET_IN, "ff" * 16 + "0000 0004", "match.type", 24),
        (Type.PACKET_IN, "ff" * 16 + "0001 0003", "match.length", 26),
        (Type.PACKET_IN, "ff" * 16 + "0001 0040", "match.length", 26),
        (Type.PACKET_IN, "ff" * 16 + "0001 0004 00000000 00", "data", 32),
        (Type.FLOW_REMOVED, "00" * 40 + "0001 0004 00000000 00", "length", 2),
        (Type.PORT_STATUS, "03" + "00" * 71, "reason", 8),
        (Type.PORT_STATUS, "00" * 20, "desc", 16),
        (Type.ROLE_REPLY, "00000004" + "00" * 12, "role", 8),
        (Type.MULTIPART_REPLY, "0001", "flags", 10),
        (Type.HELLO, "0001 0003", "element.length", 10),
        (Type.HELLO, "0001 0010 00000010", "element.length", 10),
        (Type.HELLO, "0001", "element.length", 10),
        (Type.PACKET_OUT, "00" * 8 + "0010" + "00" * 6, "actions_len", 16),
        (Type.EXPERIMENTER, "4f4e4600 000008fc 00000001 0008 0000", "type", 20),
        (Type.EXPERIMENTER, "4f4e4600 000008fc 0000", "bundle_id", 16),
        (Type.EXPERIMENTER, "4f4e4600 000008fd 00000001 0000 0000 040e0010 00000000", "message", 24),
    ],
)
def test_what_is_wrong_is_named(message_type, body, field, offset) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(encode(Plain(message_type, bytes.fromhex(body)), XID))
    assert (caught.value.field, caught.value.offset) == (field, offset)
    assert caught.value.kind is Kind.UNAVAILABLE


def test_a_part_with_half_an_entry_is_refused() -> None:
    with pytest.raises(ProtocolError, match="MULTIPART_REPLY: port, at byte 80, is cut off: 10 of 64 bytes"):
        multipart.ports_of([bytes(64 + 10)])
    with pytest.raises(ProtocolError, match="description, at byte 16, has 8 bytes, not 1056"):
        multipart.description_of([bytes(8)])
    with pytest.raises(ProtocolError, match="aggregate"):
        multipart.aggregate_of([])


def test_a_ports_name_that_is_no_text_is_shown() -> None:
    port = Port(1, "02:00:00:00:00:01", "x")
    assert Port.decode(port.encode().replace(b"x", b"\xff"), 0).name == "\\xff"


def test_another_xid_changes_nothing_else() -> None:
    frame = encode(EchoRequest(b"abc"), 5)
    assert with_xid(frame, 0xFFFFFFFF) == encode(EchoRequest(b"abc"), 0xFFFFFFFF)


def test_a_message_that_is_too_long_is_not_sent() -> None:
    assert len(encode(EchoRequest(bytes(65527)), 1)) == 65535
    with pytest.raises(HawseError, match="ECHO_REQUEST of 65536 bytes"):
        encode(EchoRequest(bytes(65528)), 1)


def test_versions_without_a_bitmap_are_all_up_to_the_headers() -> None:
    assert [version for version in range(8) if Hello(5, None).speaks(version)] == [0, 1, 2, 3, 4, 5]
    assert [version for version in range(8) if Hello(6, (1, 4)).speaks(version)] == [1, 4]


def test_the_types_are_all_there() -> None:
    assert list(Type) == list(range(30))
    assert all(getattr(ofproto_v1_3, f"OFPT_{one.name}") == one for one in Type)
