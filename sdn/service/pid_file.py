"""Who runs in a root: a file a daemon, holding its pid; its lock says that it lives. Imports next to nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os

from sdn.model.errors import conflict
from sdn.service.roots import Root


class PidFile:
    """A file that holds the pid and whose lock says that the daemon runs. The lock goes with the process."""

    def __init__(self, root: Root, daemon: str) -> None:
        self._path = root.pid_file(daemon)
        self._daemon = daemon
        self._root = root
        self._fd = -1

    def take(self) -> None:
        """Lock and write it. Raises: CONFLICT, with the pid of the daemon that has it."""
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = os.pread(fd, 32, 0).decode(errors="replace").strip()
                os.close(fd)
                raise conflict(
                    f"hawse {self._daemon} is already running as pid {text or '?'} in {self._root.run}",
                    "stop it first, or choose another --root DIR",
                    pid=int(text) if text.isdecimal() else None,
                ) from None
            if self._is_still(fd):
                break
            os.close(fd)  # the one before us removed it between our open and our lock
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def _is_still(self, fd: int) -> bool:
        try:
            return os.stat(self._path).st_ino == os.fstat(fd).st_ino
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Remove it, then unlock."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            os.close(self._fd)
            self._fd = -1


def running_pid(root: Root, daemon: str) -> int | None:
    """The pid of the running daemon of that name in this root, or None."""
    try:
        fd = os.open(root.pid_file(daemon), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdecimal() else None
    finally:
        os.close(fd)
    return None
