"""The client's end of a local socket: synchronous, and standard library only, for it is started once per container."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from sdn.model.errors import HawseError, Kind, denied, unavailable
from sdn.service.framing import LENGTH, MESSAGE_BYTES_MAX, frame
from sdn.service.roots import check_socket_path

TIMEOUT_S = 30.0


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
                f"start it with 'hawse {daemon}', or name its root with --root DIR",
                socket=self._path,
            ) from None
        return connection

    def request(self, message: Mapping[str, Any], fd: int | None = None) -> dict[str, Any]:
        """Send one request and read its reply; see the module's `request`."""
        data = frame(json.dumps(message).encode())
        try:
            sent = self._send_first(data, fd)
            if sent < len(data):
                self._socket.sendall(data[sent:])
            (length,) = LENGTH.unpack(self._receive(LENGTH.size))
            if length > MESSAGE_BYTES_MAX:
                raise HawseError(Kind.INTERNAL, f"a reply of {length} bytes came from {self._path}")
            reply = json.loads(self._receive(length))
        except TimeoutError:
            raise unavailable(
                f"no answer on {self._path} within {self._timeout_s:g} s", "look at the daemon's log", socket=self._path
            ) from None
        except (OSError, ValueError) as error:
            raise unavailable(
                f"the conversation on {self._path} broke: {error}", "look at the daemon's log and try again"
            ) from None
        return _result(reply)

    def _send_first(self, data: bytes, fd: int | None) -> int:
        if fd is None:
            return self._socket.send(data)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
        return self._socket.sendmsg([data], [rights])

    def _receive(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self._socket.recv(count - len(parts))
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
