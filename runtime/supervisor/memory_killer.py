"""The kernel's memory killer (out-of-memory): containers go before those who look after them.

Source: proc(5), /proc/PID/oom_score_adj. A lower value makes a process a later victim; children inherit it.
"""

from __future__ import annotations

import os

OURS = -500
"""As other daemons that hold containers have it."""
ADJUSTMENT = "/proc/self/oom_score_adj"


def go_last() -> None:
    """For the keeper, and so for each supervisor. What is lower already stays; without the right to it, nothing is."""
    try:
        with open(ADJUSTMENT) as file:
            lower = int(file.read()) <= OURS
        if not lower:
            _write(OURS)
    except (OSError, ValueError):
        return  # CAP_SYS_RESOURCE is missing: the containers' limits are what protects


def go_first() -> None:
    """For a container's process, while it sees the host's /proc: as any other program, whatever we have."""
    try:
        _write(0)
    except OSError:
        return  # we began higher ourselves, and may not go lower


def _write(value: int) -> None:
    fd = os.open(ADJUSTMENT, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % value)
    finally:
        os.close(fd)
