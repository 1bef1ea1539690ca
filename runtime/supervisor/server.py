"""The supervisor's socket: frames in, frames and descriptors out, each connection's answers in its requests' order.

A request may be answered later (`Answer`): those behind it on its connection are done meanwhile, their answers wait.
Events go between answers to connections that subscribed. A client that does not read is dropped at a bound.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections import deque

from runtime.supervisor.failure import LaunchError
from runtime.supervisor.loop import READ, WENT, WRITE, Loop
from runtime.supervisor.own_log import say
from sdn.service.framing import LENGTH, MESSAGE_BYTES_MAX, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RECEIVE_BYTES = 65536
ANSWERS_MAX = 4096
"""Requests of one connection that are not answered yet."""
OUTPUT_MAX = 16384
"""Frames that wait for a client to read."""


class Answer:
    """The answer to one request: given once, sent when it is its turn."""

    __slots__ = ("_close", "_connection", "_data", "_fds")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._data = b""
        self._fds: tuple[int, ...] = ()
        self._close = False

    @property
    def owner(self) -> Connection:
        """The connection that asked."""
        return self._connection

    def result(self, value: dict[str, Any], fds: tuple[int, ...] = (), *, close: bool = True) -> None:
        """It worked. `fds` go along, and are closed then (unless `close` is false)."""
        self._give({"result": value}, fds, close)

    def error(self, error: LaunchError) -> None:
        """It did not."""
        self._give({"error": {"stage": error.stage, "errno": error.errno, "message": error.message}}, (), False)

    def _give(self, value: dict[str, Any], fds: tuple[int, ...], close: bool) -> None:
        assert not self._data, "answered twice"
        self._data, self._fds, self._close = frame(json.dumps(value).encode()), fds, close
        self._connection.flush()

    @property
    def given(self) -> bool:
        """Whether there is something to send."""
        return bool(self._data)

    def take(self) -> tuple[bytes, tuple[int, ...], bool]:
        """What is to be sent: bytes, descriptors, whether those are closed then."""
        return self._data, self._fds, self._close


class Connection:
    """One client."""

    __slots__ = ("_answers", "_fd", "_input", "_loop", "_output", "_server", "_socket", "_waits", "open", "subscribed")

    def __init__(self, server: Server, loop: Loop, client: socket.socket) -> None:
        self._server = server
        self._loop = loop
        self._socket = client
        self._fd = client.fileno()
        self._input = bytearray()
        self._answers: deque[Answer] = deque()
        self._output: deque[tuple[bytes, tuple[int, ...], bool]] = deque()
        self._waits = False  # for room to write
        self.open = True
        self.subscribed = False
        loop.watch(self._fd, self)

    def ready(self, _fd: int, events: int) -> None:
        """Bytes to read, room to write, or the end."""
        if events & WRITE:
            self._send()
        if self.open and events & READ:
            self._receive()
        elif self.open and events & WENT:
            self.close()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        taken = self._input
        taken += data
        while self.open and len(taken) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(taken)
            if length > MESSAGE_BYTES_MAX or len(self._answers) >= ANSWERS_MAX:
                self.close()
                return
            if len(taken) < LENGTH.size + length:
                return
            message = bytes(taken[LENGTH.size : LENGTH.size + length])
            del taken[: LENGTH.size + length]
            answer = Answer(self)
            self._answers.append(answer)
            self._server.handle(message, answer)

    def flush(self) -> None:
        """Send the answers whose turn it is."""
        while self._answers and self._answers[0].given:
            self._output.append(self._answers.popleft().take())
        if self._output:
            self._send()

    def tell(self, data: bytes) -> None:
        """An event, as a frame."""
        self._output.append((data, (), False))
        self._send()

    def tell_value(self, event: dict[str, Any]) -> None:
        """An event."""
        self.tell(frame(json.dumps(event).encode()))

    def _send(self) -> None:
        output = self._output
        while output:
            data, fds, close = output[0]
            try:
                if not self.open:
                    raise BrokenPipeError
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
                sent = self._socket.sendmsg([data], rights)
            except BlockingIOError:
                if len(output) > OUTPUT_MAX:
                    self.close()
                elif not self._waits:
                    self._waits = True
                    self._loop.watch(self._fd, self, READ | WRITE)
                return
            except OSError:
                self.close()
                return
            if close:
                for fd in fds:
                    os.close(fd)
            if sent < len(data):
                output[0] = (data[sent:], (), False)
            else:
                output.popleft()
        if self._waits:
            self._waits = False
            self._loop.watch(self._fd, self, READ)

    def close(self) -> None:
        """Let go of the client and of what would have been sent."""
        if self.open:
            self.open = False
            self._loop.unwatch(self._fd)
            self._socket.close()
            self._server.closed(self)
        while self._answers and self._answers[0].given:
            self._output.append(self._answers.popleft().take())
        for _, fds, close in self._output:
            if close:
                for fd in fds:
                    os.close(fd)
        self._output.clear()


class Server:
    """Accepts, and hands requests to `serve(request, answer)`; `gone(connection)` when a client went."""

    __slots__ = ("_connections", "_gone", "_listener", "_loop", "_serve")

    def __init__(
        self,
        loop: Loop,
        listener: int,
        serve: Callable[[dict[str, Any], Answer], None],
        gone: Callable[[Connection], None],
    ) -> None:
        self._loop = loop
        self._listener = socket.socket(fileno=os.dup(listener))
        self._listener.setblocking(False)
        self._serve = serve
        self._gone = gone
        self._connections: dict[Connection, None] = {}
        loop.watch(self._listener.fileno(), self)

    def ready(self, _fd: int, _events: int) -> None:
        """A client."""
        try:
            client, _ = self._listener.accept()
        except OSError as error:  # EMFILE and friends: the client waits
            if not isinstance(error, BlockingIOError):
                say(f"cannot accept: {error.strerror}")
            return
        client.setblocking(False)
        self._connections[Connection(self, self._loop, client)] = None

    def handle(self, message: bytes, answer: Answer) -> None:
        """One request; whatever it is, it is answered."""
        try:
            request = json.loads(message)
            if not isinstance(request, dict):
                raise LaunchError("request", 0, "a request is a JSON object")
            self._serve(request, answer)
        except LaunchError as error:
            answer.error(error)
        except OSError as error:
            answer.error(LaunchError("system", error.errno or 0, str(error)))
        except (ValueError, KeyError, TypeError) as error:
            answer.error(
                LaunchError("request", 0, f"a request that is not understood: {type(error).__name__}: {error}")
            )

    def tell(self, event: dict[str, Any]) -> None:
        """An event, to all that subscribed."""
        data = frame(json.dumps(event).encode())
        for connection in list(self._connections):
            if connection.subscribed:
                connection.tell(data)

    def closed(self, connection: Connection) -> None:
        """A connection ended."""
        self._connections.pop(connection, None)
        self._gone(connection)

    def close(self) -> None:
        """Drop all clients and the listener."""
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        for connection in list(self._connections):
            connection.close()
