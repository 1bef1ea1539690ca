"""The client's end of a local socket: synchronous, and standard library only, for it is started once per container."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections.abc import Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from sdn.model.errors import HawseError, Kind, denied, invalid, unavailable
from sdn.service.framing import LENGTH, MESSAGE_BYTES_MAX, frame
from sdn.service.roots import check_socket_path

TIMEOUT_S = 30.0
DESCRIPTORS_MAX = 8
"""With one frame: an attached container has four."""


def request(
    socket_path: Path | str, message: Mapping[str, Any], fd: int | None = None, timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """One request on a connection of its own. `fd`: the container's namespace; it stays the caller's.

    Returns the `result`. Raises: HawseError as the daemon sent it; UNAVAILABLE (not running, no answer); DENIED.
    """
    with Connection(socket_path, timeout_s) as connection:
        return connection.request(message, fd)


class Connection:
    """One connection, for one request after another."""

    def __init__(self, socket_path: Path | str, timeout_s: float = TIMEOUT_S) -> None:
        self._path = os.fspath(socket_path)
        self._timeout_s = timeout_s
        self._socket = self._connect()

    def _connect(self) -> socket.socket:
        check_socket_path(self._path)
        daemon = os.path.basename(self._path).removesuffix(".sock")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._timeout_s)
        try:
            connection.connect(self._path)
        except PermissionError:
            connection.close()
            raise denied(f"you may not open {self._path}", "run as root") from None
        except OSError as error:
            connection.close()
            raise unavailable(
                f"the {daemon} is not running: nobody listens on {self._path} ({error.strerror or error})",
                "start it with 'hawse up -d', or name its root with --root DIR",
                socket=self._path,
            ) from None
        return connection

    def request(self, message: Mapping[str, Any], fd: int | None = None) -> dict[str, Any]:
        """Send one request and read its reply; see the module's `request`."""
        result, descriptors = self.exchange(message, fd)
        for descriptor in descriptors:
            os.close(descriptor)
        return result

    def exchange(self, message: Mapping[str, Any], fd: int | None = None) -> tuple[dict[str, Any], list[int]]:
        """As `request`, with the descriptors that came with the reply, which are the caller's from then on."""
        self._send(message, fd)
        reply, descriptors = self._next()
        try:
            return _result(reply), descriptors
        except HawseError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise

    def converse(
        self, message: Mapping[str, Any], fd: int | None = None
    ) -> Generator[dict[str, Any], None, dict[str, Any]]:
        """Send one request and yield the items of its reply as they come, without a bound in time.

        Returns the result (what `yield from` gives). Raises: as `request`.
        """
        self._send(message, fd)
        self._socket.settimeout(None)
        try:
            while True:
                reply, descriptors = self._next()
                for descriptor in descriptors:
                    os.close(descriptor)
                if not isinstance(reply, dict) or "item" not in reply:
                    return _result(reply)
                yield reply["item"]
        finally:
            self._socket.settimeout(self._timeout_s)

    def begin(self, message: Mapping[str, Any], fd: int | None = None) -> None:
        """Send one request, for `finish`: who waits for more than its reply polls `fileno` meanwhile."""
        self._send(message, fd)

    def fileno(self) -> int:
        """The socket's descriptor; readable once there is a reply or nobody to give one."""
        return self._socket.fileno()

    def answered(self) -> bool:
        """Whether a readable connection has a reply, and not just ended."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def finish(self) -> dict[str, Any]:
        """The reply to what `begin` sent, without a bound in time. Raises: as `request`."""
        self._socket.settimeout(None)
        try:
            reply, descriptors = self._next()
        finally:
            self._socket.settimeout(self._timeout_s)
        for descriptor in descriptors:
            os.close(descriptor)
        return _result(reply)

    def _send(self, message: Mapping[str, Any], fd: int | None) -> None:
        payload = json.dumps(message).encode()
        if len(payload) > MESSAGE_BYTES_MAX:
            raise invalid(f"the request has {len(payload)} bytes, and {MESSAGE_BYTES_MAX} are the most", "give less")
        data = frame(payload)
        with self._explained():
            sent = self._send_first(data, fd)
            if sent < len(data):
                self._socket.sendall(data[sent:])

    def _next(self) -> tuple[Any, list[int]]:
        """The next frame, and what came with it."""
        descriptors: list[int] = []
        try:
            with self._explained():
                (length,) = LENGTH.unpack(self._receive(LENGTH.size, descriptors))
                if length > MESSAGE_BYTES_MAX:
                    raise HawseError(Kind.INTERNAL, f"a reply of {length} bytes came from {self._path}")
                return json.loads(self._receive(length, descriptors)), descriptors
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise

    @contextlib.contextmanager
    def _explained(self) -> Generator[None, None, None]:
        """What goes wrong on the socket, as a sentence."""
        try:
            yield
        except TimeoutError:
            raise unavailable(
                f"no answer on {self._path} within {self._timeout_s:g} s", "look at the daemon's log", socket=self._path
            ) from None
        except (OSError, ValueError) as error:
            raise unavailable(
                f"the conversation on {self._path} broke: {error}", "look at the daemon's log and try again"
            ) from None

    def _send_first(self, data: bytes, fd: int | None) -> int:
        if fd is None:
            return self._socket.send(data)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
        return self._socket.sendmsg([data], [rights])

    def _receive(self, count: int, descriptors: list[int]) -> bytes:
        """Exactly so many bytes; descriptors that come beside them are added to the list."""
        parts = bytearray()
        while len(parts) < count:
            part, received, _, _ = socket.recv_fds(
                self._socket, count - len(parts), DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
            )
            descriptors += received
            if not part:
                raise ConnectionResetError("the daemon closed it")
            parts += part
        return bytes(parts)

    def close(self) -> None:
        """Close it; twice is fine."""
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _result(reply: Any) -> dict[str, Any]:
    if isinstance(reply, dict) and isinstance(reply.get("result"), dict):
        return dict(reply["result"])
    error = reply.get("error") if isinstance(reply, dict) else None
    if not isinstance(error, dict):
        raise HawseError(Kind.INTERNAL, "the daemon's reply has neither a result nor an error")
    try:
        kind = Kind(error.get("kind", "internal"))
    except ValueError:  # a newer daemon's
        kind = Kind.INTERNAL
    facts = dict(error.get("facts") or {})
    facts.setdefault("code", error.get("code"))
    raise HawseError(
        kind, str(error.get("msg", "the daemon gave no reason")), hint=str(error.get("details", "")), facts=facts
    )
