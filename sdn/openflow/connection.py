"""OpenFlow over asyncio: a session on a unix socket, TCP or TLS, with a future for each request.

One event loop owns a connection; a program with threads hands calls over with `run_coroutine_threadsafe`. Nothing
waits without a bound: each request has a time, after which it fails with UNAVAILABLE. Events are handed to a function
as they arrive; nothing of them is queued, so nothing grows. What is to be sent waits here while the peer does not read:
requests are bounded in number, posts by `MOST_UNSENT`; and of a peer that asks but does not read, nothing is read.
"""

from __future__ import annotations

import asyncio
import collections
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from sdn.model.errors import HawseError, exhausted, unavailable
from sdn.openflow.address import Address
from sdn.openflow.errors import Refusal
from sdn.openflow.events import Answered, Ended, Event, Failed, Opened
from sdn.openflow.framing import Type
from sdn.openflow.messages import Features, Message, PacketOut, Plain, output
from sdn.openflow.multipart import (
    ALL_TABLES,
    Aggregate,
    Description,
    MultipartRequest,
    Part,
    aggregate_of,
    description_of,
    flows_request,
    ports_of,
)
from sdn.openflow.notices import Port
from sdn.openflow.requests import Limits
from sdn.openflow.session import End, Session

Receiver = Callable[[Event], None]
_HIGH_WATER_BYTES: Final = 256 << 10
_MOST_ANSWERS_BYTES: Final = 256 << 10
_WRITE_BYTES: Final = 64 << 10
_FLUSH_S: Final = 1.0
"""What is written has so long to leave when a connection is closed."""


class Connection(asyncio.Protocol):
    """One end of a connection: made by `connect`, or, where switches connect to, given to asyncio as their protocol.

    Every coroutine raises HawseError: UNAVAILABLE when the switch is gone or does not answer in `timeout_s` (by default
    what `Limits` says), RefusedError when it refuses.
    """

    MOST_UNSENT: Final = 16 << 20
    """Bytes of posts and packet-outs that may wait for a slow reader."""

    def __init__(
        self,
        end: End = End.CONTROLLER,
        *,
        peer: str = "",
        limits: Limits | None = None,
        own: Features | None = None,
        opened: Callable[[Connection], Receiver | None] | None = None,
        ended: Callable[[Connection, HawseError | None], None] | None = None,
        events: Receiver | None = None,
    ) -> None:
        """`opened` is called after the handshake, and may say who gets the events; `ended` whenever it is over."""
        self.peer = peer
        """Where it is, as a person writes it: `unix:/run/openvswitch/hwint.mgmt`, `tcp:192.0.2.1:6653`."""
        self.error: HawseError | None = None
        """Why it ended; None: it has not, or `close` was called."""
        self._loop = asyncio.get_running_loop()
        self._end_of, self._own, self._limits = end, own, limits or Limits()
        self._opened, self._ended, self._events = opened, ended, events
        self._session: Session | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._unsent: collections.deque[bytes] = collections.deque()
        self._unsent_bytes = 0
        self._answered_mark = 0
        self._deaf = False
        self._writable = asyncio.Event()
        self._closed = asyncio.Event()
        self._writable.set()

    @property
    def features(self) -> Features:
        """What the switch says of itself: datapath_id, tables, buffers, capabilities."""
        features = self._live().features
        assert features is not None, "used before its handshake was done"
        return features

    # -- what its user asks for

    async def request(self, message: Message, timeout_s: float | None = None) -> Any:
        """Ask something (a value of `messages`), and wait for the value that answers it."""
        await self._room(timeout_s)
        return await self._answer(self._live().ask(message, self._loop.time(), timeout_s))

    async def barrier(self, timeout_s: float | None = None) -> None:
        """Wait until everything sent before has been done."""
        await self.request(Plain(Type.BARRIER_REQUEST), timeout_s)

    async def bundle(self, groups: Sequence[Sequence[bytes]], timeout_s: float | None = None) -> list[Refusal | None]:
        """Have groups of encoded messages (flow-mods; whatever xid) done at once; a verdict for each group.

        A group of which a message is refused is left out as a whole, the others are done without it. `Refusal.text`
        says what the switch's error was, `Refusal.message` which of the group's messages. If an error is raised, what
        was done is not known. Without `timeout_s` a bundle has 2 s and a second for each 5000 messages.
        """
        if not any(groups):
            return [None] * len(groups)
        await self._room(timeout_s)
        verdicts: list[Refusal | None] = await self._answer(
            self._live().bundle(groups, self._loop.time(), timeout_s),
        )
        return verdicts

    async def multipart(self, request: MultipartRequest, timeout_s: float | None = None) -> list[bytes]:
        """Ask for a multipart reply; the bodies of its parts, each a whole number of entries."""
        bodies: list[bytes] = await self.request(request, timeout_s)
        return bodies

    async def flow_stats(
        self, cookie: int = 0, cookie_mask: int = 0, table: int = ALL_TABLES, timeout_s: float | None = None
    ) -> list[bytes]:
        """The flows with that cookie, where the mask has bits: bodies of ofp_flow_stats, for `decode`."""
        request = flows_request(table=table, cookie=cookie, cookie_mask=cookie_mask)
        return await self.multipart(request, timeout_s)

    async def aggregate(self, cookie: int = 0, cookie_mask: int = 0, timeout_s: float | None = None) -> Aggregate:
        """Packets, bytes and number of the flows with that cookie."""
        request = flows_request(Part.AGGREGATE, cookie=cookie, cookie_mask=cookie_mask)
        return aggregate_of(await self.multipart(request, timeout_s))

    async def port_desc(self, timeout_s: float | None = None) -> list[Port]:
        """The ports: number, name, mac, config, state."""
        return ports_of(await self.multipart(MultipartRequest(Part.PORT_DESCRIPTION), timeout_s))

    async def description(self, timeout_s: float | None = None) -> Description:
        """Maker, hardware, software, serial number and name."""
        return description_of(await self.multipart(MultipartRequest(Part.DESCRIPTION), timeout_s))

    def post(self, *messages: bytes) -> None:
        """Send encoded messages that nothing answers (their xid is replaced); an error becomes an event (Complaint)."""
        self._bound_unsent()
        self._live().post(messages)
        self._pump()

    def send(self, message: Message, xid: int | None = None) -> None:
        """Send a value that nothing answers (SET_CONFIG, an extension; of a switch's end: an answer, an event)."""
        self._bound_unsent()
        self._live().send(message, xid)
        self._pump()

    def packet_out(self, port: int, frame: bytes) -> None:
        """Send a frame out of a port. An error becomes an event (Complaint)."""
        self.send(PacketOut(frame, output(port)))

    def close(self, error: HawseError | None = None) -> None:
        """End it in order: what is written is sent, every waiting request fails. Twice is fine. `error`: why."""
        if self._session is not None:
            self._dispatch(self._session.close(error))

    async def wait_closed(self) -> None:
        """Wait until it is closed, by whomever."""
        await self._closed.wait()

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: it is connected (and TLS is up)."""
        transport = cast(asyncio.Transport, transport)  # uvloop's own is one by its methods alone
        self._transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        self.peer = self.peer or _name_of(transport)
        self._session = Session(self._end_of, now=self._loop.time(), peer=self.peer, limits=self._limits, own=self._own)
        self._pump()
        self._schedule()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have come."""
        session = self._live()
        self._dispatch(session.receive(data, self._loop.time()))
        self._pump()
        owed = session.answered_bytes - self._answered_mark
        if owed > _MOST_ANSWERS_BYTES and self._transport is not None and not self._deaf:
            self._deaf = True  # until what it asked for has left
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """asyncio: the peer sends no more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is over."""
        self._transport = None
        self.close(unavailable(f"{self.peer} has closed the connection{f': {exc}' if exc else ''}"))
        self._closed.set()

    def pause_writing(self) -> None:
        """asyncio: the peer does not read as fast as is written."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """asyncio: there is room again."""
        self._writable.set()
        self._pump()

    # -- within

    def _live(self) -> Session:
        assert self._session is not None, "used before it was connected"
        return self._session

    async def _room(self, timeout_s: float | None) -> None:
        """Wait until the peer reads."""
        if self._writable.is_set():
            return
        within_s = self._limits.request_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(within_s):
                await self._writable.wait()
        except TimeoutError:
            raise unavailable(f"{self.peer} has not read what it was sent in {within_s:g} s") from None

    def _answer(self, xid: int) -> asyncio.Future[Any]:
        future = self._waiting[xid] = self._loop.create_future()
        future.add_done_callback(lambda _: self._waiting.pop(xid, None))
        self._pump()
        self._schedule()
        return future

    def _bound_unsent(self) -> None:
        if self._unsent_bytes > self.MOST_UNSENT:
            raise exhausted(f"{self.peer} does not read: {self._unsent_bytes} bytes wait for it")

    def _pump(self) -> None:
        """Write what there is, as long as the peer reads."""
        if self._session is None or self._transport is None:
            return
        gathered, size = [], 0
        for chunk in self._session.take():
            gathered.append(chunk)
            size += len(chunk)
            if size >= _WRITE_BYTES:
                self._write(b"".join(gathered))
                gathered, size = [], 0
        if gathered:
            self._write(b"".join(gathered))
        while self._unsent and self._writable.is_set():
            chunk = self._unsent.popleft()
            self._unsent_bytes -= len(chunk)
            self._transport.write(chunk)
        if self._writable.is_set():
            self._answered_mark = self._session.answered_bytes
            if self._deaf:
                self._deaf = False
                self._transport.resume_reading()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and self._writable.is_set() and not self._unsent:
            self._transport.write(data)
        else:
            self._unsent.append(data)
            self._unsent_bytes += len(data)

    def _dispatch(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Answered(xid, answer):
                    if (future := self._waiting.get(xid)) is not None and not future.done():
                        future.set_result(answer)
                case Failed(xid, error):
                    if (future := self._waiting.get(xid)) is not None and not future.done():
                        future.set_exception(error)
                case Opened():
                    self._events = (self._opened and self._opened(self)) or self._events
                case Ended(error):
                    self._finish(error)
                case _:
                    if self._events is not None:
                        self._events(event)
        self._schedule()

    def _schedule(self) -> None:
        """Have `_tick` called when the session wants it; a timer that is too early does no harm."""
        due = self._live().due()
        if due is None:
            if self._timer is not None:
                self._timer.cancel()
        elif self._timer is None or self._timer.cancelled() or self._timer.when() > due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._dispatch(self._live().tick(self._loop.time()))
        self._pump()

    def _finish(self, error: HawseError | None) -> None:
        self.error = error
        if self._transport is not None:
            self._pump()
            for chunk in self._unsent:
                self._transport.write(chunk)
            self._transport.close()
            self._loop.call_later(_FLUSH_S, self._transport.abort)
        self._unsent.clear()
        self._unsent_bytes, self._deaf = 0, False
        self._writable.set()  # whoever waits for room is told that it is over
        if self._ended is not None:
            self._ended(self, error)
        events, self._events = self._events, None
        if events is not None:
            events(Ended(error))


def _name_of(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return "a client of a unix socket"
    return str(Address("ssl" if transport.get_extra_info("ssl_object") else "tcp", name[0], name[1]))


async def connect(
    address: str,
    *,
    events: Receiver,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = 2.0,
    limits: Limits | None = None,
) -> Connection:
    """Connect to a switch (`unix:/path`, `tcp:host:port`, `ssl:host:port`), handshake included.

    `events` is called in the loop with PacketIn, FlowRemoved, PortStatus, Experimenter, Complaint, Unasked, Update, and
    as the last thing, once, Ended (whose `error` says why, None after `close`). It must not block.
    Raises: HawseError, UNAVAILABLE (nobody there, no answer), CONFLICT (it speaks another version), INVALID (address).
    """
    loop = asyncio.get_running_loop()
    handshake: asyncio.Future[None] = loop.create_future()

    def opened(_: Connection) -> Receiver:
        if not handshake.done():
            handshake.set_result(None)
        return events

    def ended(connection: Connection, error: HawseError | None) -> None:
        if not handshake.done():
            handshake.set_exception(error or unavailable(f"the connection to {connection.peer} was closed"))

    def factory() -> Connection:
        made.append(Connection(peer=address, limits=limits, opened=opened, ended=ended))
        return made[-1]

    made: list[Connection] = []
    place = Address.parse(address)
    try:
        async with asyncio.timeout(timeout_s):
            if place.path:
                await loop.create_unix_connection(factory, place.path)
            else:
                await loop.create_connection(factory, place.host, place.port, ssl=place.context(tls))
            await handshake
    except TimeoutError:
        raise unavailable(f"no switch answers at {address} in {timeout_s:g} s") from None
    except OSError as error:
        raise unavailable(f"no switch is reached at {address}: {error.strerror or error}") from None
    finally:
        if handshake.cancel() or handshake.cancelled() or handshake.exception() is not None:
            for connection in made:
                connection.close()
    return made[-1]
