"""Both ends of a session against each other, in any pieces; and one end against everything that is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdn.model.errors import HawseError, Kind
from sdn.openflow.bundle import BundleControl, Verb
from sdn.openflow.errors import Error, RefusedError
from sdn.openflow.events import Answered, Complaint, Ended, Failed, Opened, Unasked, Update
from sdn.openflow.framing import ProtocolError, Type, framed
from sdn.openflow.messages import (
    EchoReply,
    EchoRequest,
    Experimenter,
    Hello,
    PacketOut,
    Plain,
    Role,
    RoleReply,
    RoleRequest,
    encode,
    output,
)
from sdn.openflow.multipart import MORE, MultipartReply, MultipartRequest, Part, ports_of
from sdn.openflow.notices import FlowRemoved, PacketIn, Port, PortChange, PortStatus
from sdn.openflow.parsing import parse
from sdn.openflow.requests import Limits
from sdn.openflow.session import End, Session, State
from tests.unit.openflow_pair import Pair, failure, opened
from tests.unit.openflow_switch import FEATURES, ModelSwitch, mod

PORTS = [Port(number, f"02:00:00:00:00:{number:02x}", f"p{number}") for number in range(1, 6)]
NOTICES = [
    PacketIn(b"frame", 1, 0, 7, bytes.fromhex("8000000400000003"), total_bytes=5),
    FlowRemoved(7, 100, 2, 0, 1, 2, 0, 0, 5, 6, bytes.fromhex("8000000400000003")),
    PortStatus(PortChange.ADDED, PORTS[0]),
    Experimenter(0x2320, 30, b"x"),
]
cuts = st.lists(st.integers(0, 1 << 16), max_size=12)
messages = st.tuples(st.sampled_from(Type), st.integers(0, 9), st.binary(max_size=60))


@settings(max_examples=60)
@given(cuts)
def test_everything_in_any_pieces(places) -> None:
    pair = Pair(ModelSwitch(ports=PORTS, refused_at_add={"b"}), places=places)
    assert pair.events == [Opened(FEATURES)]
    assert pair.complaints == [Opened(FEATURES)]
    session = pair.controller
    asked = [
        session.ask(Plain(Type.BARRIER_REQUEST), 0.0),
        session.ask(EchoRequest(b"hey"), 0.0),
        session.ask(MultipartRequest(Part.PORT_DESCRIPTION), 0.0),
        session.ask(RoleRequest(Role.MASTER, 5), 0.0),
        session.bundle([[mod("a")], [mod("b"), mod("c")], [mod("d")]], 0.0),
    ]
    session.post([mod("e"), mod("f")])
    session.send(PacketOut(b"out", output(3)))
    for notice in NOTICES:
        pair.switch.send(notice)
    events = pair.run()
    answers = {event.xid: event.answer for event in events if isinstance(event, Answered)}
    assert set(answers) == set(asked)
    assert answers[asked[0]] == Plain(Type.BARRIER_REPLY)
    assert answers[asked[1]] == EchoReply(b"hey")
    assert ports_of(answers[asked[2]]) == PORTS
    assert len(answers[asked[2]]) == len(PORTS)
    assert answers[asked[3]] == RoleReply(Role.MASTER, 5)
    assert [verdict and (verdict.message, verdict.text) for verdict in answers[asked[4]]] == [
        None,
        (0, "BAD_MATCH BAD_PREREQ"),
        None,
    ]
    assert [event for event in events if not isinstance(event, Answered)] == NOTICES
    assert pair.model.done == ["e", "f", "a", "d"]
    assert [frame.frame for frame in pair.model.frames] == [b"out"]


def test_an_error_is_matched_by_its_xid_and_by_what_it_sends_back() -> None:
    session = opened()
    first, second = session.ask(EchoRequest(b"1"), 0.0), session.ask(Plain(Type.BARRIER_REQUEST), 0.0)
    sent = encode(Plain(Type.BARRIER_REQUEST), second)
    error = failure(session.receive(encode(Error(1, 1), first), 0.0))
    assert isinstance(error, RefusedError)
    assert error.message == "the switch refuses ECHO_REQUEST: BAD_REQUEST BAD_TYPE"
    assert "BARRIER_REQUEST" in failure(session.receive(encode(Error(1, 6, sent), 0), 0.0)).message
    assert session.receive(encode(Error(1, 6, sent), 77), 0.0) == [Complaint(77, Error(1, 6, sent))]


def test_another_version_is_refused_at_both_ends_and_both_are_named() -> None:
    session: Any = Session(End.CONTROLLER, now=0.0, peer="tcp:192.0.2.1:1")
    list(session.take())
    (event,) = session.receive(framed(Type.HELLO, 3, Hello(6, (1, 6)).body(), version=6), 0.0)
    assert event.error.kind is Kind.CONFLICT
    assert event.error.message == "tcp:192.0.2.1:1 speaks OpenFlow 1.0, 1.5, and Hawse 1.3"
    assert "protocols=OpenFlow13" in event.error.hint
    refusal = b"".join(session.take())
    assert parse(refusal).text == "HELLO_FAILED INCOMPATIBLE (Hawse speaks OpenFlow 1.3, not 1.0, 1.5)"
    other: Any = Session(End.CONTROLLER, now=0.0, peer="the switch")
    (event,) = other.receive(refusal[:1].replace(b"\4", b"\1") + refusal[1:], 0.0)
    assert "refuses OpenFlow 1.3: HELLO_FAILED INCOMPATIBLE (Hawse" in event.error.message


@pytest.mark.parametrize("hello", [Hello(4, None), Hello(5, None), Hello(6, (1, 4, 6)), Hello(4, (4,))])
def test_a_version_in_common_is_enough(hello) -> None:
    session: Any = Session(End.CONTROLLER, now=0.0)
    frame = framed(Type.HELLO, 1, hello.body(), version=hello.version)
    assert session.receive(frame + encode(FEATURES, 2), 0.0) == [Opened(FEATURES)]


GARBAGE = {
    "no OpenFlow": (b"SSH-2.0-OpenSSH_9.2\r\n", "version"),
    "TLS": (bytes.fromhex("16030100c8010000c4"), "version"),
    "another version amid it": (framed(Type.BARRIER_REPLY, 1, b"", version=5), "version"),
    "an unknown type": (bytes([4, 40, 0, 8, 0, 0, 0, 0]), "type"),
    "too short a length": (bytes([4, 20, 0, 4, 0, 0, 0, 0]), "length"),
    "a second hello": (encode(Hello(), 1), "type"),
    "a request of a switch": (encode(Plain(Type.BARRIER_REQUEST), 1), "type"),
    "a truncated body": (framed(Type.PORT_STATUS, 0, bytes(10)), "desc"),
    "a barrier with a body": (framed(Type.BARRIER_REPLY, 1, b"x"), "length"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_breaks_the_protocol_ends_the_session_and_every_request(name) -> None:
    data, field = GARBAGE[name]
    session = opened()
    xid = session.ask(EchoRequest(), 0.0)
    list(session.take())
    failed, ended = session.receive(data, 0.0)
    assert isinstance(ended.error, ProtocolError)
    assert failed == Failed(xid, ended.error)
    assert ended.error.field == field
    assert ended.error.message.startswith("the switch breaks the protocol: ")
    assert parse(b"".join(session.take())).type == 1  # it is told
    assert session.state is State.ENDED
    assert session.receive(data, 0.0) == session.tick(99.0) == session.close() == []
    assert session.due() is None
    with pytest.raises(HawseError, match="not open"):
        session.ask(EchoRequest(), 0.0)


@settings(max_examples=200)
@given(st.binary(max_size=300), st.booleans(), st.sampled_from(End))
def test_no_bytes_whatever_are_a_crash(data, is_open, end) -> None:
    session: Any = Session(end, now=0.0, own=FEATURES)
    prefix = encode(Hello(), 1) + (encode(FEATURES, 2) if end is End.CONTROLLER else b"")
    session.receive(prefix if is_open else b"", 0.0)
    events = session.receive(data, 0.0)
    assert (session.state is State.ENDED) == any(isinstance(event, Ended) for event in events)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from(Type), st.integers(0, 9), st.binary(max_size=60)), max_size=6),
    st.sampled_from(End),
)
def test_no_messages_whatever_are_a_crash(sent, end) -> None:
    session: Any = Session(end, now=0.0, own=FEATURES)
    session.receive(encode(Hello(), 1) + (encode(FEATURES, 2) if end is End.CONTROLLER else b""), 0.0)
    session.ask(Plain(Type.BARRIER_REQUEST), 0.0)
    session.bundle([[mod("a")], [mod("b")]], 0.0)
    for message_type, xid, body in sent:
        session.receive(framed(message_type, xid, body), 0.0)
    session.tick(1e9)
    assert session.due() is None or session.state is State.OPEN


def test_an_answer_to_another_question_breaks_the_protocol() -> None:
    session = opened()
    xid = session.ask(Plain(Type.BARRIER_REQUEST), 0.0)
    _, ended = session.receive(encode(EchoReply(), xid), 0.0)
    assert f"ECHO_REPLY: xid, at byte 4, is {xid}, of a BARRIER_REQUEST" in ended.error.message


def test_an_answer_to_nothing_is_told_and_does_no_harm() -> None:
    session = opened()
    control = BundleControl(9, Verb.COMMITTED).message()
    assert session.receive(encode(Plain(Type.BARRIER_REPLY), 99), 0.0) == [Unasked(99, Type.BARRIER_REPLY)]
    assert session.receive(encode(control, 99), 0.0) == [Unasked(99, Type.EXPERIMENTER)]
    assert session.receive(encode(MultipartReply(Part.EXPERIMENTER, b"news"), 0), 0.0) == [Update(0xFFFF, b"news")]
    assert session.state is State.OPEN


def test_who_never_answers_is_given_up_in_time() -> None:
    session = opened(limits=Limits(request_s=2.0))
    barrier = session.ask(Plain(Type.BARRIER_REQUEST), 0.0)
    echo = session.ask(EchoRequest(), 0.0, timeout_s=1.0)
    bundle = session.bundle([[mod(str(number)) for number in range(5000)]], 0.0)
    assert session.due() == 1.0
    assert session.tick(0.9) == []
    (event,) = session.tick(1.0)
    assert (event.xid, event.error.message) == (echo, "the switch has not answered ECHO_REQUEST in 1 s")
    (event,) = session.tick(session.due())
    assert (event.xid, event.error.kind) == (barrier, Kind.UNAVAILABLE)
    (event,) = session.tick(session.due())
    assert (event.xid, event.error.message) == (bundle, "the switch has not answered a bundle of 5000 messages in 3 s")
    assert session.receive(encode(Plain(Type.BARRIER_REPLY), barrier), 3.0) == [Unasked(barrier, Type.BARRIER_REPLY)]


def test_a_handshake_has_its_time() -> None:
    session: Any = Session(End.CONTROLLER, now=10.0, peer="the switch", limits=Limits(handshake_s=2.0))
    assert session.due() == 12.0
    assert session.tick(11.9) == []
    (event,) = session.tick(12.0)
    assert event.error.message == "the switch has not answered the hello in 2 s"
    session = Session(End.CONTROLLER, now=10.0, peer="the switch", limits=Limits(handshake_s=2.0))
    session.receive(encode(Hello(), 1), 11.0)
    (event,) = session.tick(12.0)
    assert event.error.message == "the switch has not answered the question what it is in 2 s"


def test_a_silent_peer_is_asked_and_then_dead() -> None:
    session = opened(limits=Limits(idle_s=5.0, echo_s=3.0))
    assert session.due() == 5.0
    assert session.tick(4.9) == []
    assert list(session.take()) == []
    assert session.tick(5.0) == []
    assert parse(b"".join(session.take())) == EchoRequest()
    assert session.due() == 8.0
    assert session.receive(encode(EchoReply(), 0), 7.0) == []
    assert session.due() == 12.0
    session.tick(12.0)
    (event,) = session.tick(15.0)
    assert event.error.message == "the switch has said nothing for 8.0 s, nor answers an echo"


def test_an_echo_is_answered_with_what_it_says() -> None:
    session = opened()
    assert session.receive(encode(EchoRequest(b"abc"), 1234), 0.0) == []
    assert list(session.take()) == [encode(EchoReply(b"abc"), 1234)]
    assert session.answered_bytes == 11


def test_parts_are_of_one_answer_and_have_a_bound() -> None:
    session = opened(limits=Limits(multipart_bytes=100))
    xid = session.ask(MultipartRequest(Part.FLOW), 0.0)
    assert session.receive(encode(MultipartReply(Part.FLOW, bytes(40), MORE), xid), 0.0) == []
    error = failure(session.receive(encode(MultipartReply(Part.FLOW, bytes(60), MORE), xid), 0.0))
    assert (error.kind, error.message) == (
        Kind.EXHAUSTED,
        "the switch answers with more than the 100 bytes that are read of it",
    )
    xid = session.ask(MultipartRequest(Part.FLOW), 0.0)
    events: list[Any] = []
    while not events:  # empty parts without end
        events = session.receive(encode(MultipartReply(Part.FLOW, b"", MORE), xid), 0.0)
    assert failure(events).kind is Kind.EXHAUSTED
    xid = session.ask(MultipartRequest(Part.FLOW), 0.0)
    _, ended = session.receive(encode(MultipartReply(Part.TABLE), xid), 0.0)
    assert ended.error.field == "multipart.type"


def test_requests_are_bounded() -> None:
    session = opened(limits=Limits(requests=2))
    session.ask(EchoRequest(), 0.0)
    session.bundle([[mod("a")]], 0.0)
    for call in (lambda: session.ask(EchoRequest(), 0.0), lambda: session.bundle([[mod("a")]], 0.0)):
        with pytest.raises(HawseError, match="has 2 requests to answer first"):
            call()


def test_closing_fails_what_is_waited_for() -> None:
    session = opened()
    xid = session.ask(EchoRequest(), 0.0)
    failed, ended = session.close()
    assert (failed.xid, failed.error.message) == (xid, "the connection to the switch was closed")
    assert ended == Ended(None)


def test_xids_come_round_without_zero() -> None:
    session = opened()
    session._next_xid = 0xFFFFFFFE
    assert session.ask(EchoRequest(), 0.0) == 0xFFFFFFFE
    assert session.ask(EchoRequest(), 0.0) == 1


def test_events_before_the_handshakes_end_are_nobodys() -> None:
    session: Any = Session(End.CONTROLLER, now=0.0)
    early = encode(PortStatus(PortChange.ADDED, PORTS[0]), 0) + encode(EchoRequest(b"?"), 5)
    assert session.receive(encode(Hello(), 1) + early + encode(FEATURES, 2), 0.0) == [Opened(FEATURES)]
    assert encode(EchoReply(b"?"), 5) in list(session.take())


def test_a_switch_that_does_not_say_what_it_is_is_named() -> None:
    session: Any = Session(End.CONTROLLER, now=0.0, peer="the switch")
    (event,) = session.receive(encode(Hello(), 1) + encode(Error(1, 5), 2), 0.0)
    assert event.error.message == "the switch does not say what it is: BAD_REQUEST EPERM"
