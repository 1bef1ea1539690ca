"""The gate before the TCP listeners: accepts, has each connection's stages bounded in time, and ends who must go.

A connection's stages: *silent* (nothing came yet: it costs a descriptor and 1 KB), *handshake* (its first byte was that
of TLS; anything else is closed without a word), *asking* (HTTP's headers, then its request), *proven* (a credential was
good: `proved`). Only the last has no end. Who is not proven has one request: the connection closes with its answer.

The `Guest` stands between TLS and HTTP until then, and afterwards hands on what comes at no cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web

from sdn.controller.acceptor import Acceptor
from sdn.controller.governor import Governor, Limits
from sdn.controller.metrics import Metrics
from sdn.controller.principal import Principal
from sdn.controller.problem import RefusedError
from sdn.controller.quiet_log import QuietLog
from sdn.controller.throttle import source_of

GREETING_S = 10.0
"""For the first byte."""
HANDSHAKE_S = 10.0
HEADERS_S = 10.0
"""For the headers, from the end of the handshake."""
REQUEST_S = 30.0
"""For the rest of the only request of somebody who proves nothing, its answer included."""
TLS_SHUTDOWN_S = 1.0
HEADER_BYTES_MAX = 16 << 10
"""Of a first request, all headers together; the HTTP library bounds each, and how many."""
UNPROVEN_BYTES_MAX = 64 << 10
"""After the headers; then nothing more is read until a credential is found good. A token's word is far below."""
HANDSHAKES_AT_ONCE, HANDSHAKE_PAUSE_S = 4, 0.005
"""A handshake costs us a millisecond: so many are begun, then others have their turn. Half of our time at the most."""
READER_GONE_MS = 60_000
"""Who takes nothing of what we send for so long is cut off by the kernel (TCP_USER_TIMEOUT, tcp(7))."""
TLS_HANDSHAKE = 0x16
"""A record's type (RFC 8446, section 5.1): what a client of TLS says first."""
HEADERS_END = b"\r\n\r\n"


class Gate:
    """One for all TCP listeners of a controller."""

    def __init__(self, context: ssl.SSLContext, limits: Limits, metrics: Metrics, log: Any) -> None:
        self.context = context
        self.loop = asyncio.get_running_loop()
        self.guests: Governor[Guest] = Governor(limits)
        self.http: Callable[[], asyncio.Protocol]
        self._counted = metrics.connections
        self._log = QuietLog(log)
        self._acceptors: list[Acceptor] = []
        self._open: set[Guest] = set()
        self._ready: dict[str, dict[Guest, None]] = {}
        """By source, those whose handshake can begin: one of each in turn."""
        self._credit = HANDSHAKES_AT_ONCE
        self._pause: asyncio.TimerHandle | None = None
        metrics.connections_open = self._numbers

    def listen(self, listener: socket.socket, http: Callable[[], asyncio.Protocol]) -> None:
        """Accept from a socket that listens already; `http` makes a connection's protocol."""
        self.http = http
        self._acceptors.append(Acceptor(listener, self._arrived, self._no_room))

    async def close(self) -> None:
        """Accept no more, and end who has proved nothing. The others are HTTP's."""
        for acceptor in self._acceptors:
            acceptor.close()
        if self._pause is not None:
            self._pause.cancel()
        tasks = [guest.task for guest in self._open if guest.task is not None and not guest.task.done()]
        for guest in [guest for guest in self._open if not guest.is_proven]:
            guest.end("stopping")
        await asyncio.gather(*tasks, return_exceptions=True)

    def _arrived(self, connection: socket.socket, peer: Any) -> None:
        with contextlib.suppress(OSError):  # reset already: its end is noticed as everybody's
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, READER_GONE_MS)
        self._counted["accepted"] += 1
        guest = Guest(self, connection, peer[0])
        self._open.add(guest)
        self._displace(self.guests.arrived(guest, guest.source))
        guest.wait()

    def _no_room(self, error: OSError) -> None:
        """No descriptor (or memory) for one more: whoever is the first to go makes room."""
        self._counted["accept failed"] += 1
        self._log.warning("cannot accept", reason=error.strerror, **self._numbers())
        self._displace(self.guests.displaced())

    def _displace(self, guest: Guest | None) -> None:
        if guest is not None:
            self._log.warning("connections displaced", peer=guest.peer, **self._numbers())
            guest.end("displaced")

    def ready(self, guest: Guest) -> None:
        """Its handshake is begun, now or when it is its source's turn."""
        self._ready.setdefault(guest.source, {})[guest] = None
        self._begin_handshakes()

    def _begin_handshakes(self) -> None:
        while self._ready and self._credit:
            self._credit -= 1
            source, guests = next(iter(self._ready.items()))
            guest = next(iter(guests))
            del self._ready[source], guests[guest]
            if guests:
                self._ready[source] = guests  # behind the others
            guest.shake_hands()
        if self._pause is None and self._credit < HANDSHAKES_AT_ONCE:
            self._pause = self.loop.call_later(HANDSHAKE_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._credit = HANDSHAKES_AT_ONCE
        self._begin_handshakes()

    def ended(self, guest: Guest, why: str) -> None:
        """A guest is gone. `why`: a word that is counted, or nothing."""
        waiting = self._ready.get(guest.source, {})
        if guest in waiting:
            del waiting[guest]
            if not waiting:
                del self._ready[guest.source]
        self.guests.left(guest)
        self._open.discard(guest)
        if why:
            self._counted[why] += 1

    def proved(self, guest: Guest, principal: Principal) -> None:
        """Raises: RefusedError where a user has too many."""
        if principal.host is not None:
            self._displace(self.guests.host(guest, principal.host))
        elif not self.guests.user(guest, principal.token):
            self._counted["too many of a user"] += 1
            raise RefusedError(
                429,
                "too many connections of users are open, of this token or in all",
                "close some, or send requests one after another over one connection",
                headers={"Retry-After": "1", "Connection": "close"},
                limit=self.guests.limits.per_user,
            )

    def _numbers(self) -> dict[str, int]:
        return {"unproven": self.guests.unproven, "users": self.guests.users, "hosts": self.guests.hosts}


class Guest(asyncio.Protocol):
    """One TCP connection, in whatever stage."""

    def __init__(self, gate: Gate, connection: socket.socket, peer: str) -> None:
        self.peer = peer
        self.source = source_of(peer)
        self.task: asyncio.Task[None] | None = None
        self.is_proven = False
        self._gate = gate
        self._socket = connection
        self._transport: asyncio.Transport | None = None
        self._http: asyncio.Protocol | None = None
        self._headers: bytearray | None = bytearray()
        self._more = 0
        self._timer: asyncio.TimerHandle | None = None
        self._over = False

    # --- silent ---

    def wait(self) -> None:
        """For its first byte."""
        self._gate.loop.add_reader(self._socket.fileno(), self._greeted)
        self._within(GREETING_S, "silent")

    def _greeted(self) -> None:
        try:
            first = self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            first = b""
        if first and first[0] == TLS_HANDSHAKE:
            self._gate.loop.remove_reader(self._socket.fileno())
            self._gate.ready(self)
            return
        if first:
            with contextlib.suppress(OSError):
                self._socket.recv(4096)  # what is not read at the close would be answered with a reset
        self.end("not TLS" if first else "")

    # --- handshake ---

    def shake_hands(self) -> None:
        """It is its turn."""
        self._within(0.0, "")
        self.task = self._gate.loop.create_task(self._shake_hands())

    async def _shake_hands(self) -> None:
        try:
            await self._gate.loop.connect_accepted_socket(
                lambda: self,
                self._socket,
                ssl=self._gate.context,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S,
            )
        except OSError:  # no TLS 1.3, nonsense, too slow, or it hung up
            self._forget("handshake")

    # --- asking ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done."""
        self._transport = cast(asyncio.Transport, transport)
        if self._over:  # it had to go while this was under way
            self._transport.abort()
            return
        self._http = self._gate.http()
        self._http.connection_made(transport)
        self._within(HEADERS_S, "headers")

    def data_received(self, data: bytes) -> None:
        """The first request."""
        assert self._http is not None
        assert self._transport is not None
        if self._headers is None:
            self._more += len(data)
        else:
            self._headers += data
            self._look_for_the_end_of(self._headers.lstrip(b"\r\n"))
        if self._more > UNPROVEN_BYTES_MAX:
            self._transport.pause_reading()
        if not self._over:
            self._http.data_received(data)

    def _look_for_the_end_of(self, headers: bytearray) -> None:
        end = headers.find(HEADERS_END)
        if 0 <= end <= HEADER_BYTES_MAX:
            self._headers = None
            self._more = len(headers) - end - len(HEADERS_END)
            self._within(REQUEST_S, "request")
        elif len(headers) > HEADER_BYTES_MAX:
            self.end("headers")

    def eof_received(self) -> bool | None:
        """See asyncio.Protocol."""
        return self._http.eof_received() if self._http is not None else None

    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        if self._http is not None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        if self._http is not None:
            self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        if self._http is not None:
            self._http.connection_lost(exc)
        self._forget("")

    # --- proven ---

    def proved(self, principal: Principal) -> None:
        """It is theirs, from now on without an end. Raises: RefusedError."""
        self._gate.proved(self, principal)
        if not self.is_proven and self._http is not None and self._transport is not None:
            self.is_proven = True
            self._within(0.0, "")
            # from here on every byte goes straight to HTTP: a stream's messages pay nothing for having been watched
            self.data_received = self._http.data_received  # type: ignore[method-assign]
            if self._more > UNPROVEN_BYTES_MAX:
                self._transport.resume_reading()

    # --- the end ---

    def end(self, why: str) -> None:
        """Cut it off, whatever it is doing."""
        if self._over:
            return
        transport, task = self._transport, self.task
        self._forget(why)
        if transport is not None:
            transport.abort()  # HTTP hears of it by connection_lost
        elif task is not None:
            task.cancel()
        else:
            self._gate.loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _within(self, timeout_s: float, why: str) -> None:
        """What has begun has to be over in so many seconds; 0: it need not."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if timeout_s and not self._over:
            self._timer = self._gate.loop.call_later(timeout_s, self.end, why)

    def _forget(self, why: str) -> None:
        if not self._over:
            self._over = True
            self._within(0.0, "")
            self._gate.ended(self, why)


def proved(request: web.Request, principal: Principal) -> None:
    """The request's credential was good: its connection is theirs. Raises: RefusedError 429 (a user has too many)."""
    guest = _guest_of(request)
    if guest is not None and (principal.host is not None or principal.role is not None):
        guest.proved(principal)


async def close_unproven(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: who has proved nothing has had its one request."""
    guest = _guest_of(request)
    if guest is not None and not guest.is_proven:
        response.force_close()
        response.headers["Connection"] = "close"


def _guest_of(request: web.Request) -> Guest | None:
    transport = request.transport
    protocol = transport.get_protocol() if transport is not None else None
    return protocol if isinstance(protocol, Guest) else None
