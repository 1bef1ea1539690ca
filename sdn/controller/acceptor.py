"""Accepting by hand: what a flood may take of a turn of the loop, and what happens when no descriptor is left."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Any

from aiohttp import web

from sdn.controller.metrics import Metrics
from sdn.controller.quiet_log import QuietLog

ACCEPTS_AT_ONCE = 8
"""In one turn of the loop, so that a flood does not keep the hosts' streams waiting."""
ACCEPT_PAUSE_S = 0.1
"""After an accept that failed: the listener stays readable, and the loop would do nothing but ask again."""


class Acceptor:
    """Accepts from one listener, which it owns, and never spins."""

    def __init__(
        self,
        listener: socket.socket,
        arrived: Callable[[socket.socket, Any], None],
        failed: Callable[[OSError], None],
    ) -> None:
        """`arrived` gets the connection and its peer's address; `failed`: there is no room for one more."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._arrived = arrived
        self._failed = failed
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._resume()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                connection, peer = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ECONNABORTED:  # it hung up while it waited
                    continue
                self._loop.remove_reader(self._listener.fileno())
                self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self._resume)
                self._failed(error)
                return
            connection.setblocking(False)
            self._arrived(connection, peer)

    def close(self) -> None:
        """Accept no more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()


class LocalGate:
    """Before the unix socket, whose mode says who may connect: a bound in number, and no more."""

    def __init__(
        self,
        listener: socket.socket,
        server: web.Server,
        http: Callable[[], asyncio.Protocol],
        most: int,
        metrics: Metrics,
        log: Any,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._http = http
        self._most = most
        self._counted = metrics.connections
        self._log = QuietLog(log)
        self._tasks: set[asyncio.Task[object]] = set()
        self._acceptor = Acceptor(listener, self._arrived, self._no_room)

    def close(self) -> None:
        """Accept no more."""
        self._acceptor.close()

    def _arrived(self, connection: socket.socket, _peer: Any) -> None:
        if len(self._server.connections) + len(self._tasks) >= self._most:
            self._counted["local refused"] += 1
            self._log.warning("local connection refused", open=self._most)
            connection.close()
            return
        task = self._loop.create_task(self._begin(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it hung up
            await self._loop.connect_accepted_socket(self._http, connection)

    def _no_room(self, error: OSError) -> None:
        self._counted["accept failed"] += 1
        self._log.warning("cannot accept", reason=error.strerror)
