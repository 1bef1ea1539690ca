"""One host's stream: the agent's messages in, the controller's messages out.

States: `new` until a hello is accepted, then `live`, then `over` (superseded, refused, or the connection is gone). A
message of another session than the stream's own is refused, which ends the stream.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Any, Protocol, assert_never

from sdn.controller.outbox import Outbox
from sdn.model.codec import encode_msgpack
from sdn.model.errors import HawseError, Kind, conflict, invalid, unavailable
from sdn.model.ids import HostId
from sdn.model.stream import (
    Answer,
    AttachRequest,
    Credentials,
    DetachRequest,
    Down,
    Facts,
    Failed,
    Hello,
    PeersRequest,
    ProbeOrder,
    Problem,
    Query,
    Refused,
    Report,
    Up,
    up_decoder,
)


class Desk(Protocol):
    """Who handles what an agent says. Errors of a request become Failed, all others Refused."""

    async def hello(self, stream: HostStream, message: Hello) -> None:
        """Begin (or refuse) a session."""

    async def facts(self, stream: HostStream, message: Facts) -> None:
        """What changed about the host."""

    async def attach(self, stream: HostStream, message: AttachRequest) -> None:
        """Allocate an endpoint and answer."""

    async def detach(self, stream: HostStream, message: DetachRequest) -> None:
        """Release endpoints and answer."""

    async def peers(self, stream: HostStream, message: PeersRequest) -> None:
        """Have other hosts answer this one's probes; the reply comes later."""

    async def report(self, stream: HostStream, message: Report) -> None:
        """How far the host is."""

    async def catch_up(self, stream: HostStream) -> None:
        """Refill the box of a stream that lags."""

    def over(self, stream: HostStream) -> None:
        """The conversation is over."""


class Phase(enum.Enum):
    """Where a conversation is."""

    NEW = "new"
    LIVE = "live"
    OVER = "over"


class HostStream:
    """A conversation with one agent. Transport: one task calls `receive`, one calls `outgoing`, then `closed`."""

    def __init__(
        self, host: HostId, desk: Desk, lag_transactions: int, ended: Callable[[HostStream], None], number: int = 0
    ) -> None:
        """`ended` is called once, when the conversation is over. `number` rises from one connection to the next."""
        self.host = host
        self.number = number
        self.session = 0
        self.phase = Phase.NEW
        self.box = Outbox(lag_transactions)
        self._desk = desk
        self._ended = ended
        self._wake = asyncio.Event()
        self._queries: dict[int, asyncio.Future[Any]] = {}
        self._query = 0

    # --- the transport's side ---

    async def receive(self, message: bytes) -> None:
        """Handle one whole message of the agent. A message that is not understood ends the stream with Refused."""
        if self.phase is Phase.OVER:
            return
        try:
            await self._handle(up_decoder.msgpack(message))
        except HawseError as error:
            self.refuse(error)

    async def outgoing(self) -> bytes | None:
        """The next message for the agent; waits for one. None: the conversation is over, close the connection."""
        while True:
            self._wake.clear()
            if self.box.lagging and self.phase is Phase.LIVE:
                await self._desk.catch_up(self)
            elif len(self.box):
                return self.box.take()
            elif self.phase is Phase.OVER:
                return None
            else:
                await self._wake.wait()

    def ready(self) -> bytes | None:
        """The next message for the agent if one is there without waiting."""
        return self.box.take() if len(self.box) and not self.box.lagging else None

    def closed(self) -> None:
        """The connection is gone. Calling it twice is fine."""
        if self.phase is not Phase.OVER:
            self.box = Outbox(1)  # nobody will take what waits
            self._end()

    def _end(self) -> None:
        self.phase = Phase.OVER
        for query in self._queries.values():
            if not query.done():
                query.set_exception(unavailable("the host disconnected before it answered", "try again"))
        self._queries.clear()
        self._desk.over(self)
        self._ended(self)
        self._wake.set()

    # --- the core's side ---

    def begin(self, session: int) -> None:
        """The hello is accepted."""
        self.session = session
        self.phase = Phase.LIVE

    def wake(self) -> None:
        """There is something in the box."""
        self._wake.set()

    def reply(self, message: Down) -> None:
        """Send a reply, after what is in the box; nothing once the conversation is over."""
        if self.phase is not Phase.OVER:
            self.box.reply(encode_msgpack(message))
            self._wake.set()

    def refuse(self, error: HawseError) -> None:
        """End the conversation: the agent is told why, after nothing else."""
        if self.phase is Phase.OVER:
            return
        self.box = Outbox(1)
        self.box.reply(encode_msgpack(Refused(problem=problem_of(error))))
        self._end()

    async def query(self, what: str, timeout_s: float, probe: ProbeOrder | None = None) -> Any:
        """Ask the agent. Raises: UNAVAILABLE; what the agent answered with."""
        return await self.ask(lambda number: Query(request=number, what=what, probe=probe), timeout_s)

    async def ask(self, make: Callable[[int], Query | Credentials], timeout_s: float) -> Any:
        """Send what `make(request)` builds, and wait for its Answer. Raises: as `query`."""
        if self.phase is Phase.OVER:
            raise unavailable("the host disconnected before it was asked", "try again")
        self._query += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queries[self._query] = answer
        number = self._query
        self.reply(make(number))
        try:
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            raise unavailable(
                f"the host did not answer within {timeout_s:g} s", "try again", seconds=timeout_s
            ) from None
        finally:
            self._queries.pop(number, None)

    # --- messages ---

    async def _handle(self, message: Up) -> None:
        if isinstance(message, Hello):
            if self.phase is not Phase.NEW:
                raise invalid("a second hello on one stream", "open a new one")
            await self._desk.hello(self, message)
            return
        if self.phase is Phase.NEW:
            raise invalid("the first message must be a hello", "")
        if isinstance(message, Answer):
            self._answer(message)
            return
        if message.session != self.session:
            raise conflict(
                f"a message of session {message.session}; this is session {self.session}",
                "say hello again",
                session=self.session,
            )
        match message:
            case AttachRequest() | DetachRequest() | PeersRequest():
                await self._request(message)
            case Report():
                await self._desk.report(self, message)
            case Facts():
                await self._desk.facts(self, message)
            case _:
                assert_never(message)

    async def _request(self, message: AttachRequest | DetachRequest | PeersRequest) -> None:
        try:
            match message:
                case AttachRequest():
                    await self._desk.attach(self, message)
                case DetachRequest():
                    await self._desk.detach(self, message)
                case PeersRequest():
                    await self._desk.peers(self, message)
                case _:
                    assert_never(message)
        except HawseError as error:
            self.reply(Failed(request=message.request, problem=problem_of(error)))

    def _answer(self, message: Answer) -> None:
        waiting = self._queries.get(message.request)
        if waiting is None or waiting.done():  # too late: nobody waits for it any more
            return
        if message.problem is None:
            waiting.set_result(message.value)
        else:
            waiting.set_exception(error_of(message.problem))


def problem_of(error: HawseError) -> Problem:
    """An error as it travels."""
    return Problem(kind=error.kind.value, message=error.message, hint=error.hint, facts=error.facts)


def error_of(problem: Problem) -> HawseError:
    """An error that has travelled; a kind that is not known (a newer agent's) is INTERNAL."""
    kind = Kind(problem.kind) if problem.kind in set(Kind) else Kind.INTERNAL
    return HawseError(kind, problem.message, hint=problem.hint, facts=problem.facts)
