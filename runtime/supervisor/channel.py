"""What a container's process and the supervisor tell each other until it executes its command.

A pair of SOCK_SEQPACKET sockets; the process has its end at descriptor 3, close-on-exec: the end of file *is* the news
that execve succeeded. Nothing is said to the process, but if the other end is closed, then nobody wants it any more.
It says: `READY`, with a terminal's master (SCM_RIGHTS), where it has a terminal; `SIBLING` and a pid, with a master if
there is one; `ERROR` and a `LaunchError`.
"""

from __future__ import annotations

import _socket
import os
import struct

from runtime.supervisor import failure
from runtime.supervisor.failure import LaunchError

CHILD_FD = 3
READY = b"r"
SIBLING = b"p"
ERROR = b"e"
TIMEOUT_S = 60
"""A mount can hang for as long as a network file system likes; the supervisor serves the other containers again after
this, and the process is killed."""

_MESSAGE_BYTES_MAX = 8192
_TIMEOUT = struct.pack("<qq", TIMEOUT_S, 0)


class SilenceError(LaunchError):
    """It did not say anything in time."""


def pair() -> tuple[_socket.socket, _socket.socket]:
    """(the supervisor's, the process's)."""
    kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, kind)
    ours.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _TIMEOUT)
    theirs.setblocking(False)
    return ours, theirs


def receive(ours: _socket.socket) -> tuple[bytes, int]:
    """A message, b"" at the end of file, and a descriptor or -1. Raises LaunchError, its own and the process's."""
    try:
        message, ancillary, _, _ = ours.recvmsg(_MESSAGE_BYTES_MAX, 64, _socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        text = f"the process did not answer within {TIMEOUT_S} s: {error.strerror}"
        raise SilenceError("prepare", error.errno or 0, text) from error
    if message[:1] == ERROR:
        raise failure.decode(message[1:])
    fd = struct.unpack_from("<i", ancillary[0][2])[0] if ancillary else -1
    return message, fd


def tell(message: bytes, fd: int = -1) -> None:
    """Send from the process."""
    if fd < 0:
        os.write(CHILD_FD, message)
        return
    theirs = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, CHILD_FD)
    theirs.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("<i", fd))])
    theirs.detach()


def check_wanted() -> None:
    """In the process. Raises: LaunchError where the supervisor is gone: nobody would know of what it executes."""
    try:
        os.read(CHILD_FD, 1)
    except BlockingIOError:
        return
    raise LaunchError("prepare", 0, "the supervisor is gone")


def report(error: BaseException) -> None:
    """In the process: the last words. Nobody may be listening."""
    if not isinstance(error, LaunchError):
        number = (error.errno or 0) if isinstance(error, OSError) else 0
        error = LaunchError("prepare", number, f"preparing the process failed: {error!r}")
    try:
        os.write(CHILD_FD, (ERROR + error.encode())[:_MESSAGE_BYTES_MAX])
    except OSError:
        return
