"""A process's title, as `ps` and /proc/PID/cmdline show it to everybody.

Source: proc(5) `cmdline`, and fields 48 and 49 of `stat`: where in the process's own memory the title is.
"""

from __future__ import annotations

import ctypes
from pathlib import Path


def wipe(word: str) -> None:
    """Overwrite a word of the title with as many `x`. What already read it has read it."""
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
