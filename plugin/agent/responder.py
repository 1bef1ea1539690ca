"""Answers the probes of other hosts, for as long as the controller has ordered it, and only those that it names."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import socket
from collections.abc import Callable

from plugin.agent.probe import ACK, ECHO, PORT, PROBE, decode_raw, encode, open_raw, with_udp
from sdn.model.address import Family, family_of
from sdn.model.errors import exhausted, unavailable
from sdn.model.stream import ProbeOrder
from sdn.service.log import get_logger

SECONDS_MAX = 10.0
ORDERS_MAX = 64
"""The controller has 16 at work at a time, and each is answered for some seconds."""
PROBES_MAX = 1000
"""Answered for one order: a doctor sends some hundreds. Both answers together are as much as came."""
ECHO_SOURCE_PORT = 49152
"""Any but 4789: a firewall that remembers connections must not take the echo for a reply."""
PACKETS_AT_ONCE = 64


@dataclasses.dataclass(slots=True)
class _Order:
    sources: frozenset[str]
    timer: asyncio.TimerHandle
    left: int


class Responder:
    """One per agent. `vteps`: this host's, as of now."""

    def __init__(self, vteps: Callable[[], tuple[str | None, str | None]], loop: asyncio.AbstractEventLoop) -> None:
        self._vteps = vteps
        self._loop = loop
        self._orders: dict[bytes, _Order] = {}
        self._sockets: dict[str, socket.socket] = {}
        self._log = get_logger("probes")

    def obey(self, order: ProbeOrder) -> None:
        """Answer such probes from now on, for a while. Raises: EXHAUSTED, UNAVAILABLE."""
        if len(self._orders) >= ORDERS_MAX and order.cookie not in self._orders:
            raise exhausted(f"probes of {ORDERS_MAX} hosts are being answered already", "try again in some seconds")
        for vtep in self._vteps():
            if vtep is not None and vtep not in self._sockets:
                try:
                    self._open(vtep)
                except OSError as error:
                    raise unavailable(f"cannot answer probes at {vtep}: {error.strerror}", "see the address") from None
        timer = self._loop.call_later(min(order.seconds, SECONDS_MAX), self._end, order.cookie)
        self._orders[order.cookie] = _Order(frozenset(order.sources), timer, PROBES_MAX)
        self._log.info("answering probes", sources=list(order.sources), seconds=order.seconds)

    def _open(self, vtep: str) -> None:
        raw = open_raw(family_of(vtep), vtep, PROBE)
        self._sockets[vtep] = raw
        self._loop.add_reader(raw.fileno(), functools.partial(self._receive, raw, family_of(vtep)))

    def _end(self, cookie: bytes) -> None:
        self._orders.pop(cookie, None)
        if not self._orders:
            self.close()

    def close(self) -> None:
        """Answer nobody any more. Calling it twice is fine."""
        for order in self._orders.values():
            order.timer.cancel()
        self._orders.clear()
        for raw in self._sockets.values():
            self._loop.remove_reader(raw.fileno())
            raw.close()
        self._sockets.clear()

    def _receive(self, raw: socket.socket, family: Family) -> None:
        for _ in range(PACKETS_AT_ONCE):
            try:
                data, address = raw.recvfrom(256)
            except OSError:  # none left, or what an earlier answer met
                return
            packet = decode_raw(family, data)
            order = self._orders.get(packet.cookie) if packet is not None else None
            source = str(address[0]).partition("%")[0]
            if packet is None or order is None or packet.kind != PROBE or source not in order.sources or not order.left:
                continue
            order.left -= 1
            ack = encode(family, ACK, packet.number, packet.cookie)
            echo = encode(family, ECHO, packet.number, packet.cookie, packet.size_bytes)
            for answer in (
                with_udp(ack, PORT, packet.source_port),
                with_udp(echo, ECHO_SOURCE_PORT, PORT),
            ):
                with contextlib.suppress(OSError):  # larger than this link takes, or refused here: as if it were lost
                    raw.sendto(answer, (source, 0))
