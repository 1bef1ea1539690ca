"""The few system calls about a process of ours and its files that the standard library does not have.

The only module of `sdn` that calls the C library; what is of the network is `plugin.kernel`'s.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

PR_SET_DUMPABLE = 4
"""prctl(2)."""
IN_MODIFY = 2
"""inotify(7)."""


def keep_memory_private() -> None:
    """No core dump, wherever the machine sends them, and no ptrace but by root: keys and credentials are in memory."""
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def wipe_title(word: str) -> None:
    """Overwrite a word of this process's title, as `ps` shows it, with as many `x`. What already read it has read it.

    Source: proc(5) `cmdline`, and fields 48 and 49 of `stat`: where in the process's own memory the title is.
    """
    secret = word.encode(errors="surrogateescape")
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if not secret or not 0 < start < end:
        return
    title = ctypes.string_at(start, end - start)
    at = title.find(secret)
    while at >= 0:
        ctypes.memset(start + at, ord("x"), len(secret))
        at = title.find(secret, at + len(secret))


def open_watch() -> int:
    """A descriptor that becomes readable when a file of `watch` was written to; reading it never blocks.

    Raises: OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "cannot watch files")
    return fd


def watch(fd: int, path: Path) -> None:
    """Add a file. Raises: OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.inotify_add_watch(fd, os.fsencode(path), IN_MODIFY) < 0:
        raise OSError(ctypes.get_errno(), f"cannot watch {path}")
