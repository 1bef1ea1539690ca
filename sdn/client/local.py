"""A controller's unix socket: whoever may open it is an administrator."""

from __future__ import annotations

import errno
import socket

from sdn.model.errors import denied, invalid, unavailable

SOCKET_PATH_BYTES_MAX = 107
"""`sun_path` less its final zero, unix(7)."""
START_HINT = "start it with: hawse up -d"


class LocalConnector:
    """Opens connections to `unix:/path`. `where` names the other end in sentences. Raises: INVALID."""

    def __init__(self, url: str) -> None:
        self.where = _socket_path(url)

    def connect(self, timeout_s: float) -> socket.socket:
        """A connection on which each wait is bounded by `timeout_s`. Raises: UNAVAILABLE, DENIED, OSError."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(self.where)
        except OSError as error:
            connection.close()
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED):
                raise unavailable(
                    f"the controller is not running: nothing answers on {self.where}", START_HINT, socket=self.where
                ) from None
            if error.errno in (errno.EACCES, errno.EPERM):
                raise denied(
                    f"no permission to use the controller's socket {self.where}",
                    "run this as the user that runs the controller, usually root, or log in: hawse login ADDRESS",
                    socket=self.where,
                ) from None
            raise
        return connection


def _socket_path(url: str) -> str:
    path = url.removeprefix("unix:").removeprefix("//")
    if not url.startswith("unix:") or not path.startswith("/"):
        raise invalid(
            f"{url!r} is not an address of a controller",
            "write it as unix:/run/hawse/controller.sock, or as https://ADDRESS:4780",
            controller=url,
        )
    length = len(path.encode())
    if length > SOCKET_PATH_BYTES_MAX:
        raise invalid(
            f"the socket path {path} has {length} bytes, more than the {SOCKET_PATH_BYTES_MAX} that a socket can have",
            "choose a shorter root",
            bytes=length,
            limit=SOCKET_PATH_BYTES_MAX,
        )
    return path
