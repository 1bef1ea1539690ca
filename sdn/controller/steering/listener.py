"""Where switches without an agent connect: strangers are bounded, switches are known by what they show, and steered.

A connection is *unproven* until its datapath id is a known switch's and, in TLS, its certificate that switch's own. The
unproven ones are bounded as at the other listeners (see `governor`): one too many displaces the oldest of whoever has
the most, so strangers displace their own. Handshakes are begun at a bounded rate, and each stage has its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import socket
from collections.abc import Callable
from typing import Any

from sdn.controller.acceptor import Acceptor
from sdn.controller.core import Core
from sdn.controller.governor import Governor, Limits
from sdn.controller.listen import OpenflowAddress
from sdn.controller.metrics import Metrics
from sdn.controller.quiet_log import QuietLog
from sdn.controller.steering.pilot import Pilot
from sdn.controller.throttle import source_of
from sdn.controller.tls import Identity
from sdn.model.errors import HawseError, denied, not_found
from sdn.model.resources import Host, Switch
from sdn.openflow.connection import Connection
from sdn.openflow.events import Event
from sdn.openflow.requests import Limits as SessionLimits

LIMITS = Limits(unproven=64, per_host=2)
"""Two of a switch: one that comes back may be here before the one that it left is noticed."""
TLS_S = 5.0
SESSION = SessionLimits(handshake_s=5.0, request_s=5.0, multipart_bytes=16 << 20)
HANDSHAKE_EVERY_S = 0.002
"""A handshake in TLS costs a millisecond: half of our time at the most goes into those of strangers."""
READER_GONE_MS = 20_000
"""Who takes nothing of what we send for so long is cut off by the kernel (TCP_USER_TIMEOUT, tcp(7))."""


class OpenflowListener:
    """One for all addresses of a controller. Made on the loop that it lives on."""

    def __init__(self, core: Core, identity: Identity, metrics: Metrics, log: Any, limits: Limits = LIMITS) -> None:
        self.guests: Governor[Guest] = Governor(limits)
        self.core = core
        self.identity = identity
        self.log = log
        self.quiet = QuietLog(log)
        self.counted = metrics.connections
        self._loop = asyncio.get_running_loop()
        self._acceptors: list[Acceptor] = []
        self._tasks: dict[Guest, asyncio.Task[None]] = {}
        self._next_s = 0.0

    def listen(self, listener: socket.socket, address: OpenflowAddress) -> None:
        """Take switches from a socket that listens already; it is this one's to close."""

        def arrived(connection: socket.socket, peer: Any) -> None:
            self._arrived(connection, peer[0], secure=address.secure)

        self._acceptors.append(Acceptor(listener, arrived, self._no_room))

    async def close(self) -> None:
        """Accept no more, and let every switch go; they stay as they are programmed. Twice is fine."""
        while self._acceptors:
            self._acceptors.pop().close()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _arrived(self, connection: socket.socket, peer: str, *, secure: bool) -> None:
        with contextlib.suppress(OSError):  # reset already: its end is noticed as everybody's
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, READER_GONE_MS)
        self.counted["openflow accepted"] += 1
        guest = Guest(self, connection, peer, secure=secure)
        self._displace(self.guests.arrived(guest, source_of(peer)))
        task = self._tasks[guest] = self._loop.create_task(guest.serve())
        task.add_done_callback(lambda _: self._left(guest))

    def _left(self, guest: Guest) -> None:
        task = self._tasks.pop(guest)
        self.guests.left(guest)
        guest.close()
        if not task.cancelled() and (error := task.exception()) is not None:  # a fault of ours: it is told whole
            self.log.error("a switch's connection failed", peer=guest.peer, error=repr(error))

    def _displace(self, guest: Guest | None) -> None:
        if guest is not None:
            self.counted["openflow displaced"] += 1
            self.quiet.warning("switches' connections displaced", peer=guest.peer, unproven=self.guests.unproven)
            if (task := self._tasks.get(guest)) is not None:
                task.cancel()

    def _no_room(self, error: OSError) -> None:
        self.counted["accept failed"] += 1
        self.quiet.warning("cannot accept", reason=error.strerror)
        self._displace(self.guests.displaced())

    async def turn(self) -> None:
        """Wait for the turn of one more handshake."""
        now_s = self._loop.time()
        self._next_s = max(self._next_s + HANDSHAKE_EVERY_S, now_s)
        if self._next_s > now_s:
            await asyncio.sleep(self._next_s - now_s)

    def proved(self, guest: Guest, host: Host) -> None:
        """It is this switch's from now on."""
        self._displace(self.guests.host(guest, host.id))


class Guest:
    """One connection, from its first byte to its end."""

    def __init__(self, listener: OpenflowListener, connection: socket.socket, peer: str, *, secure: bool) -> None:
        self.peer = peer
        self._listener = listener
        self._socket: socket.socket | None = connection
        self._secure = secure
        self._connection: Connection | None = None
        self._opened = asyncio.Event()
        self._heard: Callable[[Event], None] = lambda _: None

    async def serve(self) -> None:
        """Shake hands, find out who it is, and steer it until it goes."""
        listener = self._listener
        try:
            connection, certificate = await self._begin()
        except (HawseError, OSError) as error:
            listener.counted["openflow handshake"] += 1
            listener.quiet.warning("no handshake with a switch", peer=self.peer, **_told(error))
            return
        try:
            host, switch = identify(listener.core, connection.features.datapath_id, certificate)
        except HawseError as error:
            listener.counted["openflow refused"] += 1
            listener.quiet.warning("switch refused", peer=self.peer, **_told(error))
            return
        listener.proved(self, host)
        listener.log.info("switch connected", switch=host.name, peer=connection.peer)
        pilot = Pilot(listener.core, host, switch, connection)
        self._heard = pilot.heard
        try:
            await pilot.run()
        except HawseError as error:
            listener.log.info("switch gone", switch=host.name, reason=error.message, hint=error.hint)

    async def _begin(self) -> tuple[Connection, bytes | None]:
        """The connection after its handshake, and the certificate that was shown (DER). Raises: HawseError, OSError."""
        assert self._socket is not None
        context = self._listener.identity.switch_context() if self._secure else None
        if context is not None:
            await self._listener.turn()
        accepted, self._socket = self._socket, None
        connection = Connection(limits=SESSION, opened=lambda _: self._open(), ended=lambda *_: self._opened.set())
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: connection, accepted, ssl=context, ssl_handshake_timeout=TLS_S if context is not None else None
        )
        self._connection = connection
        await self._opened.wait()
        if connection.error is not None:
            raise connection.error
        shown = transport.get_extra_info("ssl_object")
        return connection, shown.getpeercert(binary_form=True) if shown is not None else None

    def _open(self) -> Callable[[Event], None]:
        self._opened.set()
        return lambda event: self._heard(event)

    def close(self) -> None:
        """Whatever there is of it."""
        if self._connection is not None:
            self._connection.close()
        if self._socket is not None:
            self._socket.close()


def identify(core: Core, datapath_id: int, certificate: bytes | None) -> tuple[Host, Switch]:
    """Whose a connection is. `certificate`: what was shown in TLS (DER); None: it is plain.

    Raises: NOT_FOUND, DENIED; each says what to type.
    """
    text, state = f"{datapath_id:016x}", core.state
    id_ = state.datapaths.get(text)
    if id_ is None or id_ in state.forgetting:
        raise not_found(
            f"nobody has added a switch with the datapath id {text}",
            f"hawse switch add NAME --datapath-id {text} --vtep ADDRESS",
        )
    host, switch = state.hosts[id_], state.switches[id_]
    name = host.name
    if certificate is None:
        if switch.certificate:
            raise denied(
                f"switch {name} has a certificate, and connects without", "there: ovs-vsctl set-controller BRIDGE ssl:…"
            )
    elif not hmac.compare_digest(hashlib.sha256(certificate).hexdigest(), switch.certificate):
        raise denied(
            f"switch {name} shows a certificate that is not (or no longer) its own",
            f"hawse switch certificate {name} --out DIR, and there: ovs-vsctl set-ssl …",
        )
    return host, switch


def _told(error: HawseError | OSError) -> dict[str, str]:
    if isinstance(error, HawseError):
        return {"reason": error.message, "hint": error.hint}
    return {"reason": str(getattr(error, "reason", None) or error.strerror or error or type(error).__name__)}
