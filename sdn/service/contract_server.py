"""The one server of local sockets: frames in, frames out, descriptors beside both.

A handler answers with one frame, or with a stream of them: items, then a result. A stream has no bound in time (it is
somebody's wait, or somebody who follows events); it ends when the client hangs up.

Raw sockets and `add_reader`: asyncio's own streams cannot receive descriptors. Header and body are read by two
`recvmsg` calls of exactly their size, so that a descriptor can only belong to the frame whose first byte it came with.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import dataclasses
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

from sdn.model.codec import encode_json
from sdn.model.contract import ContractError, contract_error
from sdn.model.errors import HawseError, Kind, invalid, unavailable
from sdn.service.framing import LENGTH, MESSAGE_BYTES_MAX, frame
from sdn.service.log import get_logger, one_line
from sdn.service.roots import check_socket_path


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A frame with descriptors, which the server closes once they are sent."""

    payload: bytes
    descriptors: tuple[int, ...] = ()

    def close(self) -> None:
        """Let go of the descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)


Frames = AsyncGenerator["bytes | Answer", None]
"""A stream: `item_reply`s, then one `result_reply` or `error_reply`. Closed (`aclose`) when the client hangs up."""

Handler = Callable[[bytes, "int | None"], Awaitable["bytes | Answer | Frames"]]
"""(payload, descriptor or None) -> the reply. The descriptor is closed by the server when the last frame is sent."""

ACCEPT_PAUSE_S = 0.1
"""After an accept that failed: the listener stays readable, and the loop would do nothing but ask again."""
ANCILLARY_BYTES = socket.CMSG_SPACE(4 * array.array("i").itemsize)
"""Room for a few descriptors, so that a second one is seen and refused and not silently cut off."""


_TRUNCATED = int(socket.MSG_CTRUNC)
"""As a plain number: `&` with a member of an enum costs as much as receiving."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Bounds, each with a reason."""

    message_bytes: int = MESSAGE_BYTES_MAX
    connections: int = 512  # a node's pods may all be torn down at once; each client has one
    receive_s: float = 5.0  # a begun frame: a client that stalls in the middle holds a connection
    handle_s: float = 120.0  # the last resort; the handlers have nearer bounds of their own
    close_s: float = 5.0  # what requests in flight have to finish at an orderly stop


def result_reply(result: Any) -> bytes:
    """A reply's payload, of a result."""
    return encode_json({"result": result})


def item_reply(item: Any) -> bytes:
    """A stream's payload, of one item of several before the result."""
    return encode_json({"item": item})


def error_reply(error: HawseError | ContractError) -> bytes:
    """A reply's payload, of an error."""
    return encode_json({"error": contract_error(error) if isinstance(error, HawseError) else error})


class ContractServer:
    """Serves one socket (0600) with one handler. `start`, later `close`."""

    def __init__(self, path: Path | str, handler: Handler, limits: Limits = Limits()) -> None:
        self._path = os.fspath(path)
        self._handler = handler
        self._limits = limits
        self._connections: set[_Connection] = set()
        self._listener: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._log = get_logger("contract")

    async def start(self) -> None:
        """Bind and listen; what a killed daemon left of the socket is replaced. Raises: INVALID, UNAVAILABLE."""
        check_socket_path(self._path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        mask = os.umask(0o177)  # from its first moment nobody else may open it
        try:
            listener.bind(self._path)
            listener.listen(self._limits.connections)
        except OSError as error:
            listener.close()
            raise unavailable(f"cannot listen on {self._path}: {error.strerror}", "look at the directory") from None
        finally:
            os.umask(mask)
        self._listener = listener
        self._listen()

    def _listen(self) -> None:
        assert self._listener is not None
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # EMFILE and friends: the client waits, the daemon lives, and does not spin
                self._log.warning("cannot accept", reason=one_line(error))
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener.fileno())
                self._pause = loop.call_later(ACCEPT_PAUSE_S, self._listen)
                return
            client.setblocking(False)
            if len(self._connections) >= self._limits.connections:
                refusal = unavailable(f"{len(self._connections)} connections are open already", "try again")
                with contextlib.suppress(OSError):
                    client.send(frame(error_reply(refusal)))
                client.close()
                continue
            connection = _Connection(client, self._handler, self._limits, self._connections.discard)
            self._connections.add(connection)
            connection.listen()

    async def close(self) -> None:
        """Take no more, let requests in flight finish (bounded), close everything, remove the socket."""
        if self._pause is not None:
            self._pause.cancel()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        for connection in self._connections:
            connection.end_stream()
        tasks = [connection.task for connection in self._connections if connection.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._limits.close_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in list(self._connections):
            connection.close()


class _Connection:
    """One client: reading a header, reading a body, or handling (then nothing is read).

    The socket is watched meanwhile, too, for most clients just wait: only where there is news it is let be until then.
    """

    def __init__(
        self, client: socket.socket, handler: Handler, limits: Limits, closed: Callable[[_Connection], None]
    ) -> None:
        self._socket = client
        self._handler = handler
        self._limits = limits
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._wanted: int | None = None
        self._descriptors: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        self._watched = False
        self._streaming = False

    def end_stream(self) -> None:
        """A stream has no end of its own to wait for."""
        if self._streaming and self.task is not None:
            self.task.cancel()

    def listen(self) -> None:
        """Read the next frame."""
        self._buffer.clear()
        self._wanted = None
        if not self._watched:
            self._loop.add_reader(self._socket.fileno(), self._readable)
            self._watched = True

    def close(self) -> None:
        """Let go of everything; twice is fine."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        self._stop_timer()
        self._close_descriptors()
        self._closed(self)

    def _close_descriptors(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _unwatch(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._watched = False

    def _readable(self) -> None:
        if self.task is not None:
            self._unwatch()  # it says more, or has hung up: that is looked at when this is answered
            return
        try:
            while self._receive_part():
                pass
        except BlockingIOError:
            if self._timer is None and (self._buffer or self._wanted is not None):
                self._timer = self._loop.call_later(self._limits.receive_s, self.close)
        except OSError:  # the client is gone
            self.close()

    def _receive_part(self) -> bool:
        """Read once; whether there may be more of this frame."""
        size = LENGTH.size if self._wanted is None else self._wanted
        data, ancillary, flags, _ = self._socket.recvmsg(
            size - len(self._buffer), ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
        )
        self._take_descriptors(ancillary)
        if not data:
            self.close()
            return False
        self._buffer += data
        if flags & _TRUNCATED or len(self._descriptors) > 1:
            return self._refuse(invalid("more than one descriptor came with a request", "send one, the namespace's"))
        if len(self._buffer) < size:
            return True
        if self._wanted is None:
            (self._wanted,) = LENGTH.unpack(self._buffer)
            self._buffer.clear()
            if self._wanted > self._limits.message_bytes:
                sentence = f"a request of {self._wanted} bytes is above the limit of {self._limits.message_bytes}"
                return self._refuse(invalid(sentence, "send less", bytes=self._wanted))
            if self._wanted > 0:
                return True
        self._begin()
        return False

    def _take_descriptors(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(data[: len(data) - len(data) % received.itemsize])
                self._descriptors += received

    def _refuse(self, error: HawseError) -> bool:
        """Where the next frame begins is not known any more: say why, and end the connection."""
        with contextlib.suppress(OSError):
            self._socket.send(frame(error_reply(error)))
        self.close()
        return False

    def _begin(self) -> None:
        self._stop_timer()
        self.task = self._loop.create_task(self._serve(bytes(self._buffer)))

    async def _serve(self, payload: bytes) -> None:
        try:
            reply = await self._handle(payload)
            if isinstance(reply, bytes | Answer):
                await self._send(reply)
            else:
                await self._send_stream(reply)
        except (OSError, TimeoutError):  # the client is gone or does not read; what it asked for is done all the same
            self.close()
        except asyncio.CancelledError:
            self.close()
            raise
        else:
            self.task = None
            self.listen()
        finally:
            self._close_descriptors()

    async def _handle(self, payload: bytes) -> bytes | Answer | Frames:
        descriptor = self._descriptors[0] if self._descriptors else None
        try:
            async with asyncio.timeout(self._limits.handle_s):
                return await self._handler(payload, descriptor)
        except HawseError as error:
            return error_reply(error)
        except TimeoutError:
            return error_reply(
                unavailable(
                    f"the request was not done within {self._limits.handle_s:g} s and was given up", "try again"
                )
            )
        except Exception as error:  # noqa: BLE001 a fault of ours in one request must not end the daemon, nor hide
            return _internal_error(error)

    async def _send_stream(self, frames: Frames) -> None:
        """Frame by frame; a client that hangs up, or says more before the end, ends it."""
        task = asyncio.current_task()
        assert task is not None
        hung_up = False

        def spoke() -> None:
            nonlocal hung_up
            hung_up = True
            self._unwatch()
            task.cancel()

        self._loop.add_reader(self._socket.fileno(), spoke)
        self._streaming = True
        try:
            async with contextlib.aclosing(frames):
                await self._send_frames(frames)
        except asyncio.CancelledError:
            if hung_up:
                task.uncancel()
                raise ConnectionResetError from None
            raise
        finally:
            self._streaming = False
            if not hung_up:
                self._unwatch()

    async def _send_frames(self, frames: Frames) -> None:
        while True:
            try:
                reply = await anext(frames)
            except StopAsyncIteration:
                return
            except HawseError as error:
                reply = error_reply(error)
            except Exception as error:  # noqa: BLE001 as for one reply
                reply = _internal_error(error)
            await self._send(reply)

    async def _send(self, reply: bytes | Answer) -> None:
        """Send a frame; its descriptors go with the first byte. Raises: OSError, TimeoutError (nobody reads)."""
        answer = reply if isinstance(reply, Answer) else Answer(reply)
        data = memoryview(frame(answer.payload))
        try:
            sent = self._send_first(data, answer.descriptors)
            if sent == len(data):
                return
            async with asyncio.timeout(self._limits.receive_s):
                while not sent:
                    await self._writable()
                    sent = self._send_first(data, answer.descriptors)
                await self._loop.sock_sendall(self._socket, data[sent:])
        finally:
            answer.close()

    def _send_first(self, data: memoryview, descriptors: tuple[int, ...]) -> int:
        """What goes at once; the descriptors go with the first byte, so they went where this is not 0."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            return self._socket.sendmsg([data], rights)
        except BlockingIOError:
            return 0

    async def _writable(self) -> None:
        ready = asyncio.Event()
        self._loop.add_writer(self._socket.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_writer(self._socket.fileno())


def _internal_error(error: Exception) -> bytes:
    get_logger("contract").error("internal error", reason=one_line(error))
    return error_reply(HawseError(Kind.INTERNAL, f"internal error: {type(error).__name__}", hint="see the log"))
