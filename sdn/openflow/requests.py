"""What has been asked and not yet answered: bounded in number, in time and in what an answer may weigh."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sdn.model.errors import HawseError, exhausted, unavailable
from sdn.openflow.bundle import BundleControl, BundleRun
from sdn.openflow.errors import Error, RefusedError
from sdn.openflow.events import Answered, Event, Failed, Unasked
from sdn.openflow.framing import HEADER_BYTES, ProtocolError, Type
from sdn.openflow.messages import Message
from sdn.openflow.multipart import MORE, MultipartReply, MultipartRequest

ANSWERS: Final = {
    Type.ECHO_REQUEST: Type.ECHO_REPLY,
    Type.FEATURES_REQUEST: Type.FEATURES_REPLY,
    Type.GET_CONFIG_REQUEST: Type.GET_CONFIG_REPLY,
    Type.MULTIPART_REQUEST: Type.MULTIPART_REPLY,
    Type.BARRIER_REQUEST: Type.BARRIER_REPLY,
    Type.ROLE_REQUEST: Type.ROLE_REPLY,
    Type.QUEUE_GET_CONFIG_REQUEST: Type.QUEUE_GET_CONFIG_REPLY,
    Type.GET_ASYNC_REQUEST: Type.GET_ASYNC_REPLY,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a session."""

    handshake_s: float = 2.0
    request_s: float = 2.0
    idle_s: float = 5.0  # of silence, then an echo is asked for
    echo_s: float = 5.0  # for anything at all to come, then the peer is dead
    requests: int = 256  # outstanding ones
    multipart_bytes: int = 64 << 20  # of all answers that are being collected
    messages_per_s: int = 5000  # what a busy switch does of a bundle's messages, for the bundle's time


@dataclasses.dataclass(slots=True)
class _Request:
    asked: Type
    deadline: float
    within_s: float
    part: int
    bodies: list[bytes] = dataclasses.field(default_factory=list)
    size: int = 0


@dataclasses.dataclass(slots=True)
class _Run:
    xid: int  # what its user knows it by; those on the wire are the run's own
    run: BundleRun
    deadline: float
    within_s: float


class Requests:
    """The outstanding ones of a session, by xid."""

    def __init__(self, limits: Limits, peer: str) -> None:
        self._limits = limits
        self._peer = peer
        self._plain: dict[int, _Request] = {}
        self._runs: dict[int, _Run] = {}

    def add(self, xid: int, message: Message, now: float, timeout_s: float | None) -> None:
        """A message that is being sent. Raises: too many are outstanding."""
        assert message.message_type in ANSWERS, "nothing answers it: it is to be sent, not asked"
        self._admit()
        within_s = self._limits.request_s if timeout_s is None else timeout_s
        part = message.part if isinstance(message, MultipartRequest) else 0
        self._plain[xid] = _Request(message.message_type, now + within_s, within_s, part)

    def add_run(self, xid: int, run: BundleRun, now: float, timeout_s: float | None) -> None:
        """A bundle that is being sent. Raises: too many are outstanding."""
        self._admit()
        usual_s = self._limits.request_s + run.messages / self._limits.messages_per_s
        within_s = usual_s if timeout_s is None else timeout_s
        self._runs[xid] = _Run(xid, run, now + within_s, within_s)

    def _admit(self) -> None:
        if len(self._plain) + len(self._runs) >= self._limits.requests:
            raise exhausted(f"{self._peer} has {self._limits.requests} requests to answer first")

    def answered(self, xid: int, answer_type: Type, answer: Any) -> tuple[Sequence[Iterable[bytes]], list[Event]]:
        """An answer has come: (what to send next of a bundle, events). Raises: ProtocolError, it is to another."""
        request = self._plain.get(xid)
        if request is None:
            run = self._run_of(xid)
            if run is not None and answer_type is Type.BARRIER_REPLY and run.run.awaits(xid):
                return self._advance(run, xid)
            return (), [Unasked(xid, answer_type)]
        if ANSWERS[request.asked] is not answer_type:
            raise ProtocolError(answer_type.name, "xid", 4, f"is {xid}, of a {request.asked.name}")
        if isinstance(answer, MultipartReply):
            return (), self._collect(xid, request, answer)
        del self._plain[xid]
        return (), [Answered(xid, answer)]

    def _advance(self, run: _Run, xid: int) -> tuple[Sequence[Iterable[bytes]], list[Event]]:
        if chunks := run.run.barrier(xid):
            return chunks, []
        del self._runs[run.xid]
        return (), [Failed(run.xid, run.run.error) if run.run.error else Answered(run.xid, run.run.verdicts)]

    def _collect(self, xid: int, request: _Request, reply: MultipartReply) -> list[Event]:
        if reply.part != request.part:
            why = f"is {reply.part}, but {request.part} was asked for"
            raise ProtocolError("MULTIPART_REPLY", "multipart.type", HEADER_BYTES, why)
        request.bodies.append(reply.data)
        request.size += HEADER_BYTES + len(reply.data)  # empty parts, too, come to an end
        most = self._limits.multipart_bytes
        if sum(one.size for one in self._plain.values()) > most:
            del self._plain[xid]
            return [Failed(xid, exhausted(f"{self._peer} answers with more than the {most} bytes that are read of it"))]
        if reply.flags & MORE:
            return []
        del self._plain[xid]
        return [Answered(xid, request.bodies)]

    def controlled(self, xid: int, answer: BundleControl) -> list[Event]:
        """A bundle's OPEN, CLOSE, COMMIT or DISCARD has been answered."""
        run = self._run_of(xid)
        if run is None:
            return [Unasked(xid, Type.EXPERIMENTER)]
        run.run.control(xid, answer)
        return []

    def refused(self, xid: int, error: Error) -> list[Event] | None:
        """An error has come. None: nothing outstanding is meant, neither by its xid nor by what it sends back."""
        for candidate in (xid, error.refused_xid):
            if candidate is None:
                continue
            if request := self._plain.pop(candidate, None):
                what = f"{self._peer} refuses {request.asked.name}: {error.text}"
                return [Failed(candidate, RefusedError(error, what))]
            if run := self._run_of(candidate):
                run.run.refused(candidate, error)
                return []
        return None

    def due(self) -> float | None:
        """When the first of them is late."""
        deadlines = [*(one.deadline for one in self._plain.values()), *(one.deadline for one in self._runs.values())]
        return min(deadlines, default=None)

    def expired(self, now: float) -> list[Event]:
        """Those that are late; they are forgotten."""
        late = [(xid, one.asked.name, one.within_s) for xid, one in self._plain.items() if now >= one.deadline]
        late += [
            (xid, f"a bundle of {one.run.messages} messages", one.within_s)
            for xid, one in self._runs.items()
            if now >= one.deadline
        ]
        events: list[Event] = []
        for xid, what, within_s in late:
            self._plain.pop(xid, None)
            self._runs.pop(xid, None)
            events.append(Failed(xid, unavailable(f"{self._peer} has not answered {what} in {within_s:g} s")))
        return events

    def fail(self, error: HawseError) -> list[Event]:
        """All of them."""
        events: list[Event] = [Failed(xid, error) for xid in [*self._plain, *self._runs]]
        self._plain.clear()
        self._runs.clear()
        return events

    def _run_of(self, xid: int) -> _Run | None:
        return next((run for run in self._runs.values() if run.run.owns(xid)), None)
