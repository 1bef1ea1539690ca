"""The session: the conversation with the controller, over one channel after another.

Everything that goes up passes one outbox and one sender, so its order is the order of the calls. A report is not
queued: it is due, and made when the sender comes to it, so that a batch of transactions that arrived together costs one
report of the last; the sender runs as soon as the receiver has nothing more to take.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, assert_never

from plugin.agent.channel import Channel, Clock, Dial, sleep, wait_bounded
from sdn.model.codec import encode_msgpack
from sdn.model.errors import HawseError, Kind, exhausted, unavailable
from sdn.model.stream import (
    Answer,
    Attached,
    Credentials,
    Delta,
    Detached,
    Down,
    Drop,
    Failed,
    Hello,
    Peers,
    Problem,
    Query,
    Refused,
    Report,
    Settled,
    Sync,
    Up,
    Welcome,
    down_decoder,
)
from sdn.service.log import get_logger

REPORT_AFTER_ANSWER_S = 0.001
"""Who waits on another host for this report waits no longer than that."""
WELCOME_S = 10.0
"""A controller that accepts a connection and says nothing is as good as away."""
BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 5.0
"""A controller that was restarted is back within a second; 1000 hosts every 5 s are 200 dials a second, at worst."""
BACKOFF_DENIED_S = 5.0
"""Somebody has to do something first, on one side or the other."""
REQUESTS_MAX = 1000
"""In flight: a controller that takes requests and answers none must not fill the memory."""


class Peer(Protocol):
    """What the session serves: the agent's core. Nothing here awaits but `answer`."""

    def hello(self, fresh: bool) -> Hello:
        """This host now; `fresh`: naming no topic."""

    def welcomed(self, welcome: Welcome) -> None:
        """A channel is up. What is sent now goes before all else."""

    def take(self, message: Delta | Drop | Sync) -> bool:
        """The state; whether a report is due. Raises: HawseError when it does not fit: all must be sent anew."""

    def report(self, session: int) -> Report:
        """How far this host is."""

    async def answer(self, query: Query) -> Any:
        """The value of an answer. Raises: HawseError."""

    async def keep(self, credentials: Credentials) -> None:
        """Hold them; when this returns they are on the disk. Raises: HawseError."""

    def met(self) -> None:
        """The first snapshot has been taken, or the controller could not be reached."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pending:
    """A request's reply, and for an attachment what follows it. Both fail UNAVAILABLE when the channel ends."""

    reply: asyncio.Future[Any]
    settled: asyncio.Future[Settled]


class Session:
    """Call `run` once, in a task; the rest from the same loop."""

    def __init__(self, dial: Dial, peer: Peer, clock: Clock, random: Callable[[], float]) -> None:
        self._dial = dial
        self._peer = peer
        self._clock = clock
        self._random = random
        self._log = get_logger("stream")
        self._fresh = False
        self._reason = ""
        self._number = 0
        self._live = False
        self._synced = False
        self._requests = 0
        self._pending: dict[int, Pending] = {}
        self._outbox: collections.deque[Up] = collections.deque()
        self._report_due = False
        self._wake = asyncio.Event()
        self._queries: set[asyncio.Task[None]] = set()
        self._channel: Channel | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._away = unavailable("the controller has not been reached yet", "try again in a moment")

    @property
    def live(self) -> bool:
        """Whether the controller has welcomed this host on a channel that is up."""
        return self._live

    @property
    def number(self) -> int:
        """The session's number, for what is said outside of a request."""
        return self._number

    @property
    def away(self) -> HawseError:
        """Why the controller is not there, as an error to pass on."""
        return HawseError(self._away.kind, self._away.message, hint=self._away.hint, facts=self._away.facts)

    def request(self, make: Callable[[int, int], Up]) -> Pending:
        """Send a request that `make(session, request)` builds. Raises: UNAVAILABLE at once when away."""
        if not self._live:
            raise self.away
        if len(self._pending) >= REQUESTS_MAX:
            raise exhausted(f"{REQUESTS_MAX} requests to the controller are open already", "try again")
        self._requests += 1
        loop = asyncio.get_running_loop()
        pending = Pending(loop.create_future(), loop.create_future())
        self._pending[self._requests] = pending
        self.send(make(self._number, self._requests))
        return pending

    def forget(self, pending: Pending) -> None:
        """Nobody waits for it any more."""
        for number, other in self._pending.items():
            if other is pending:
                del self._pending[number]
                return

    def send(self, message: Up) -> None:
        """Say something; lost when the channel is down."""
        if self._live:
            self._outbox.append(message)
            self._wake.set()

    def report(self) -> None:
        """Make a report due. Who waits here for an answer gets it first: a report costs as much as an answer.

        Before the snapshot of a session that did not resume there is none: the revision known here may be that of a
        store which was set back since, and lie ahead of what this host has applied of the new one.
        """
        if not self._synced:
            return
        self._report_due = True
        if self._pending:
            self._clock.call_later(REPORT_AFTER_ANSWER_S, self._wake.set)
        else:
            self._wake.set()

    def end_channel(self) -> None:
        """End the channel that there is, if any, as if it had broken: the next hello says what is true by then."""
        if self._channel is not None:
            closing = asyncio.create_task(self._channel.close())  # the receiver learns of it
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def run(self) -> None:
        """Converse for ever; ends only by being cancelled."""
        failures = 0
        while True:
            try:
                channel = await self._dial()
            except HawseError as error:
                self._lost(error)
            else:
                self._channel = channel
                try:
                    if await self._converse(channel):
                        failures = 0
                finally:
                    self._channel = None
                    await channel.close()
                    await asyncio.gather(*self._closing)
            failures += 1
            await sleep(self._clock, self._backoff_s(failures))

    def _backoff_s(self, failures: int) -> float:
        longest = min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 10))
        if self._away.kind is Kind.DENIED:
            longest = BACKOFF_DENIED_S
        return longest * (0.5 + self._random() / 2)

    async def _converse(self, channel: Channel) -> bool:
        """One channel, from hello to its end; whether the controller welcomed us."""
        try:
            await self._greet(channel)
        except (HawseError, OSError) as error:
            self._lost(error)
            return False
        sender = asyncio.create_task(self._send_all(channel))
        reason: Exception = unavailable("the connection to the controller ended", "try again in a moment")
        try:
            await self._receive_all(channel)
        except HawseError as error:
            # What came does not fit what is here, or we were refused: the next hello asks for everything.
            self._fresh = True
            reason = error
        except OSError as error:
            reason = error
        finally:
            sender.cancel()
            await asyncio.gather(sender, *self._end_queries(), return_exceptions=True)
            self._lost(reason)
        return True

    async def _greet(self, channel: Channel) -> None:
        await channel.send(encode_msgpack(self._peer.hello(self._fresh)))
        receiving = asyncio.ensure_future(channel.receive())
        try:
            if not await wait_bounded(self._clock, receiving, WELCOME_S):
                raise unavailable(f"the controller did not answer the hello within {WELCOME_S:g} s", "look at its log")
        finally:
            receiving.cancel()
        data = receiving.result()
        if data is None:
            raise unavailable("the controller closed the connection at the hello", "look at its log")
        match down_decoder.msgpack(data):
            case Welcome() as welcome:
                self._welcome(welcome)
            case Refused() as refused:
                raise _error(refused.problem)
            case other:
                raise HawseError(Kind.INTERNAL, f"the controller answered the hello with {type(other).__name__}")

    def _welcome(self, welcome: Welcome) -> None:
        self._log.info(
            "welcomed", host=welcome.name, session=welcome.session, revision=welcome.revision, resumed=welcome.resumed
        )
        self._fresh = False
        self._reason = ""
        self._number = welcome.session
        self._synced = welcome.resumed
        self._outbox.clear()
        self._live = True
        self._peer.welcomed(welcome)

    async def _receive_all(self, channel: Channel) -> None:
        while (data := await channel.receive()) is not None:
            self._take(down_decoder.msgpack(data))

    def _take(self, message: Down) -> None:
        match message:
            case Delta() | Drop():
                self._peer.take(message)
            case Sync():
                due = self._peer.take(message) or not self._synced
                self._synced = True
                if due:
                    self.report()
                self._peer.met()
            case Attached() | Detached() | Failed() | Peers():
                self._reply(message)
            case Settled():
                pending = self._pending.pop(message.request, None)
                if pending is not None and not pending.settled.done():
                    pending.settled.set_result(message)
            case Query() | Credentials():
                task = asyncio.create_task(self._answer(message))
                self._queries.add(task)
                task.add_done_callback(self._queries.discard)
            case Refused():
                raise _error(message.problem)
            case Welcome():
                raise HawseError(Kind.INTERNAL, "the controller welcomed this host twice on one connection")
            case _:
                assert_never(message)

    def _reply(self, message: Attached | Detached | Failed | Peers) -> None:
        # An attachment's Settled is still to come.
        attached = isinstance(message, Attached)
        pending = self._pending.get(message.request) if attached else self._pending.pop(message.request, None)
        if pending is None or pending.reply.done():
            return
        if isinstance(message, Failed):
            _fail(pending, _error(message.problem))
        else:
            pending.reply.set_result(message)

    async def _answer(self, query: Query | Credentials) -> None:
        try:
            if isinstance(query, Query):
                answer = Answer(request=query.request, value=await self._peer.answer(query))
            else:
                await self._peer.keep(query)
                answer = Answer(request=query.request)
        except HawseError as error:
            problem = Problem(kind=error.kind.value, message=error.message, hint=error.hint, facts=error.facts)
            answer = Answer(request=query.request, problem=problem)
        self.send(answer)

    def _end_queries(self) -> list[asyncio.Task[None]]:
        for task in self._queries:
            task.cancel()
        return list(self._queries)

    async def _send_all(self, channel: Channel) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._outbox or self._report_due:
                    if self._outbox:
                        message = self._outbox.popleft()
                    else:
                        self._report_due = False
                        message = self._peer.report(self._number)
                    await channel.send(encode_msgpack(message))
        except OSError:
            await channel.close()  # the receiver learns of it, and ends the conversation

    def _lost(self, error: Exception) -> None:
        self._live = False
        self._report_due = False
        self._outbox.clear()
        if not isinstance(error, HawseError):
            error = unavailable(f"the connection to the controller broke: {error}", "try again in a moment")
        if error.message != self._reason:  # said once, however often it is tried
            self._reason = error.message
            self._log.warning("no controller", reason=error.message, hint=error.hint)
        if error.kind in (Kind.UNAVAILABLE, Kind.INTERNAL):
            sentence = f"the controller is away: {error.message}"
            self._away = HawseError(Kind.UNAVAILABLE, sentence, hint="try again", facts=error.facts)
        else:
            sentence = f"the controller refuses this host: {error.message}"
            self._away = HawseError(Kind.DENIED, sentence, hint=error.hint, facts=error.facts)
        pending, self._pending = self._pending, {}
        for one in pending.values():
            _fail(one, self.away)
        self._peer.met()


def _error(problem: Problem) -> HawseError:
    try:
        kind = Kind(problem.kind)
    except ValueError:  # a newer controller's
        kind = Kind.INTERNAL
    return HawseError(kind, problem.message, hint=problem.hint, facts=problem.facts)


def _fail(pending: Pending, error: HawseError) -> None:
    for future in (pending.reply, pending.settled):
        if not future.done():
            future.set_exception(error)
            future.exception()  # who does not wait for it has not lost anything
