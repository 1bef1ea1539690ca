"""A session: hello, features, echo, requests and answers, bundles, events. Bytes in, bytes and events out; no I/O.

States
    HELLO      hellos have been sent; nothing else may come
    FEATURES   (controller's end) the switch has been asked what it is
    OPEN       everything
    ENDED      nothing any more; `Ended` was the last event

What may come in which state is a table (`_TABLES`): anything else is a protocol error, which ends the session. Time is
given with every call; `due` says when `tick` wants to be called. Requests are matched to answers by xid, errors by xid
or by the xid of the message that they send back. The switch's end exists for tests: it answers hello, features and echo
by itself and hands the rest on as `Asked`.

Source: OpenFlow 1.3.5, section 6.3 (channel), 6.4 (synchronising).
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from sdn.model.errors import HawseError, Kind, unavailable
from sdn.openflow.bundle import BundleControl, BundleRun
from sdn.openflow.errors import BAD_REQUEST, HELLO_FAILED, INCOMPATIBLE, Error, RefusedError
from sdn.openflow.events import Asked, Complaint, Ended, Event, Opened, Update
from sdn.openflow.framing import HEADER_BYTES, VERSION, Framer, ProtocolError, Type, type_name, version_name
from sdn.openflow.messages import EchoReply, EchoRequest, Features, Hello, Message, Plain, encode, with_xid
from sdn.openflow.multipart import MultipartReply
from sdn.openflow.parsing import parse
from sdn.openflow.requests import ANSWERS, Limits, Requests


class End(enum.Enum):
    """Which end of the connection this is."""

    CONTROLLER = "controller"
    SWITCH = "switch"


class State(enum.Enum):
    """How far it is."""

    HELLO = "hello"
    FEATURES = "features"
    OPEN = "open"
    ENDED = "ended"


class Session:
    """One end of a connection. Each call that returns events may also have made `outgoing` grow."""

    def __init__(
        self, end: End, *, now: float, peer: str = "the peer", limits: Limits | None = None, own: Features | None = None
    ) -> None:
        """`peer`: whom errors name. `own`: what the switch's end says of itself."""
        self.end = end
        self.state = State.HELLO
        self.peer = peer
        self.features: Features | None = own
        self.answered_bytes = 0
        """How much of what was sent are answers to echoes: what a peer can make this end send as fast as it likes."""
        self._limits = limits or Limits()
        self._framer = Framer()
        self._outgoing: list[Iterable[bytes]] = []
        self._requests = Requests(self._limits, peer)
        self._next_xid = 1
        self._next_bundle = 1
        self._heard = now
        self._probe_deadline: float | None = None
        self._handshake_deadline: float | None = now + self._limits.handshake_s
        self._send(Hello())

    # -- what its user asks for

    def take(self) -> Iterator[bytes]:
        """What is to be sent now, in order, in chunks, some of which are made as they are taken: take them all."""
        taken, self._outgoing = self._outgoing, []
        return itertools.chain.from_iterable(taken)

    def ask(self, message: Message, now: float, timeout_s: float | None = None) -> int:
        """Send a request; its xid comes back with Answered or Failed. Raises: not open, or too many outstanding."""
        self._require_open()
        xid = self._xids(1)
        self._requests.add(xid, message, now, timeout_s)
        self._send(message, xid)
        return xid

    def bundle(self, groups: Sequence[Sequence[bytes]], now: float, timeout_s: float | None = None) -> int:
        """Have groups of messages (some at least) done at once: see `bundle`. The verdicts come as Answered."""
        self._require_open()
        run = BundleRun(groups, self._xids, self._numbers)
        assert run.messages, "a bundle of nothing would never end"
        xid = self._xids(1)
        self._requests.add_run(xid, run, now, timeout_s)
        self._outgoing += run.send()
        return xid

    def post(self, messages: Sequence[bytes]) -> None:
        """Send encoded messages that nothing answers; their xids are replaced."""
        self._require_open()
        first = self._xids(len(messages))
        self._outgoing.append([with_xid(message, xid) for xid, message in enumerate(messages, first)])

    def send(self, message: Message, xid: int | None = None) -> int:
        """Send what nothing answers; at the switch's end an answer (with the question's xid) or an event."""
        self._require_open()
        xid = self._xids(1) if xid is None else xid
        self._send(message, xid)
        return xid

    def close(self, error: HawseError | None = None) -> list[Event]:
        """End it: every request fails. `error`: why, where it is not this end's wish (the connection was lost)."""
        return self._end(error)

    # -- time

    def due(self) -> float | None:
        """When `tick` wants to be called. None: never again."""
        if self.state is State.ENDED:
            return None
        if self._handshake_deadline is not None:
            return self._handshake_deadline
        probe = self._heard + self._limits.idle_s if self._probe_deadline is None else self._probe_deadline
        late = self._requests.due()
        return probe if late is None else min(probe, late)

    def tick(self, now: float) -> list[Event]:
        """Whatever time has brought."""
        if self.state is State.ENDED:
            return []
        if self._handshake_deadline is not None:
            if now < self._handshake_deadline:
                return []
            what = "hello" if self.state is State.HELLO else "question what it is"
            return self._end(unavailable(f"{self.peer} has not answered the {what} in {self._limits.handshake_s:g} s"))
        if self._probe_deadline is not None and now >= self._probe_deadline:
            return self._end(
                unavailable(f"{self.peer} has said nothing for {now - self._heard:.1f} s, nor answers an echo")
            )
        if self._probe_deadline is None and now >= self._heard + self._limits.idle_s:
            self._probe_deadline = now + self._limits.echo_s
            self._send(EchoRequest(), 0)
        return self._requests.expired(now)

    # -- what comes

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Bytes from the peer, in any pieces."""
        if self.state is State.ENDED:
            return []
        self._heard, self._probe_deadline = now, None
        events: list[Event] = []
        try:
            for frame in self._framer.feed(data):
                handler = _TABLES[self.end, self.state].get(Type(frame[1]))
                if handler is None:
                    why = f"may not be sent to a {self.end.value} in state {self.state.value}"
                    raise ProtocolError(type_name(frame[1]), "type", 1, why)
                events += handler(self, frame, int.from_bytes(frame[4:8], "big"))
                if self._over():
                    break
        except ProtocolError as error:
            self._send(Error(BAD_REQUEST, 0, error.message.encode()[:64]), 0)
            events += self._end(error.of(self.peer))
        return events

    def _hello(self, frame: bytes, xid: int) -> list[Event]:
        hello = Hello.parse(frame)
        if not hello.speaks(VERSION):
            versions = hello.versions if hello.versions is not None else range(1, hello.version + 1)
            theirs = ", ".join(version_name(version) for version in versions) or "no version at all"
            text = f"Hawse speaks OpenFlow {version_name(VERSION)}, not {theirs}"
            self._send(Error(HELLO_FAILED, INCOMPATIBLE, text.encode()), xid)
            return self._end(_other_version(self.peer, f"speaks OpenFlow {theirs}, and Hawse {version_name(VERSION)}"))
        self._framer.negotiated = True
        if self.end is End.SWITCH:
            assert self.features is not None, "a switch's end needs to know what it is"
            return self._open(self.features)
        self.state = State.FEATURES
        self._send(Plain(Type.FEATURES_REQUEST))
        return []

    def _open(self, features: Features) -> list[Event]:
        self.state, self.features, self._handshake_deadline = State.OPEN, features, None
        return [Opened(features)]

    def _hello_refused(self, frame: bytes, _xid: int) -> list[Event]:
        return self._end(
            _other_version(self.peer, f"refuses OpenFlow {version_name(VERSION)}: {Error.parse(frame).text}")
        )

    def _features_refused(self, frame: bytes, _xid: int) -> list[Event]:
        error = Error.parse(frame)
        return self._end(RefusedError(error, f"{self.peer} does not say what it is: {error.text}"))

    def _features(self, frame: bytes, _xid: int) -> list[Event]:
        return self._open(Features.parse(frame))

    def _early(self, _frame: bytes, _xid: int) -> list[Event]:
        return []  # an event before anybody could want it: whoever opens a session reads everything first

    def _echo(self, frame: bytes, xid: int) -> list[Event]:
        self._send(EchoReply(frame[HEADER_BYTES:]), xid)
        self.answered_bytes += len(frame)
        return []

    def _answer(self, frame: bytes, xid: int) -> list[Event]:
        answer_type = Type(frame[1])
        if answer_type is Type.ECHO_REPLY and xid == 0:
            return []  # to the probe of `tick`: that something came is all that matters
        answer = parse(frame)
        if isinstance(answer, MultipartReply) and xid == 0:
            return [Update(answer.part, answer.data)]
        chunks, events = self._requests.answered(xid, answer_type, answer)
        self._outgoing += chunks
        return events

    def _error(self, frame: bytes, xid: int) -> list[Event]:
        error = Error.parse(frame)
        events = self._requests.refused(xid, error)
        return [Complaint(xid, error)] if events is None else events

    def _experimenter(self, frame: bytes, xid: int) -> list[Event]:
        message = parse(frame)
        return self._requests.controlled(xid, message) if isinstance(message, BundleControl) else [message]

    def _event(self, frame: bytes, _xid: int) -> list[Event]:
        return [parse(frame)]

    def _features_asked(self, _frame: bytes, xid: int) -> list[Event]:
        assert self.features is not None
        self._send(self.features, xid)
        return []

    def _asked(self, frame: bytes, xid: int) -> list[Event]:
        return [Asked(xid, parse(frame))]

    # -- what all of it needs

    def _over(self) -> bool:
        return self.state is State.ENDED

    def _end(self, error: HawseError | None) -> list[Event]:
        if self.state is State.ENDED:
            return []
        self.state = State.ENDED
        why = error or unavailable(f"the connection to {self.peer} was closed")
        return [*self._requests.fail(why), Ended(error)]

    def _require_open(self) -> None:
        if self.state is not State.OPEN:
            raise unavailable(f"the connection to {self.peer} is not open")

    def _xids(self, count: int) -> int:
        """The first of so many in a row. 0 is nobody's: updates and probes have it."""
        if self._next_xid + count > 0xFFFFFFFF:
            self._next_xid = 1
        first = self._next_xid
        self._next_xid += count
        return first

    def _numbers(self, count: int) -> int:
        first = self._next_bundle
        self._next_bundle = (first + count) % 0xFFFF0000
        return first

    def _send(self, message: Message, xid: int | None = None) -> None:
        self._outgoing.append([encode(message, self._xids(1) if xid is None else xid)])


def _other_version(peer: str, what: str) -> HawseError:
    return HawseError(
        Kind.CONFLICT, f"{peer} {what}", hint="on Open vSwitch: 'ovs-vsctl set bridge BRIDGE protocols=OpenFlow13'"
    )


_Handler = Callable[[Session, bytes, int], list[Event]]
_EVENTS: Final = (Type.PACKET_IN, Type.FLOW_REMOVED, Type.PORT_STATUS)
_REQUESTS: Final = (
    *(Type.GET_CONFIG_REQUEST, Type.SET_CONFIG, Type.PACKET_OUT, Type.FLOW_MOD, Type.GROUP_MOD, Type.PORT_MOD),
    *(Type.TABLE_MOD, Type.METER_MOD, Type.MULTIPART_REQUEST, Type.BARRIER_REQUEST, Type.QUEUE_GET_CONFIG_REQUEST),
    *(Type.ROLE_REQUEST, Type.GET_ASYNC_REQUEST, Type.SET_ASYNC, Type.EXPERIMENTER),
)
_HELLOS: Final[dict[Type, _Handler]] = {Type.HELLO: Session._hello, Type.ERROR: Session._hello_refused}
_TABLES: Final[dict[tuple[End, State], dict[Type, _Handler]]] = {
    (End.CONTROLLER, State.HELLO): _HELLOS,
    (End.SWITCH, State.HELLO): _HELLOS,
    (End.CONTROLLER, State.FEATURES): {
        Type.FEATURES_REPLY: Session._features,
        Type.ERROR: Session._features_refused,
        Type.ECHO_REQUEST: Session._echo,
        **dict.fromkeys((*_EVENTS, Type.EXPERIMENTER), Session._early),
    },
    (End.CONTROLLER, State.OPEN): {
        Type.ECHO_REQUEST: Session._echo,
        Type.ERROR: Session._error,
        Type.EXPERIMENTER: Session._experimenter,
        **dict.fromkeys(ANSWERS.values(), Session._answer),
        **dict.fromkeys(_EVENTS, Session._event),
    },
    (End.SWITCH, State.OPEN): {
        Type.ECHO_REQUEST: Session._echo,
        Type.ECHO_REPLY: Session._answer,
        Type.ERROR: Session._error,
        Type.FEATURES_REQUEST: Session._features_asked,
        **dict.fromkeys(_REQUESTS, Session._asked),
    },
}
