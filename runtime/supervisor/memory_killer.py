"""The kernel's memory killer (out-of-memory): containers go before those who look after them.

Source: proc(5), /proc/PID/oom_score_adj. A lower value makes a process a later victim; children inherit it.
"""

from __future__ import annotations

import os

OURS = -500
"""As other daemons that hold containers have it."""
ADJUSTMENT = "/proc/self/oom_score_adj"


adjusted = False
"""Whether children have to be put right: they inherit this with the memory."""


def go_last() -> None:
    """For the keeper, and so for each supervisor that it forks. What is lower already stays."""
    global adjusted
    try:
        if _read() > OURS:
            _write(OURS)
    except OSError:
        pass  # CAP_SYS_RESOURCE is missing: the containers' limits are what protects
    adjusted = _read() != 0


def go_first() -> None:
    """For a container's process, while it sees the host's /proc: as any other program, whatever we have."""
    if adjusted:
        try:
            _write(0)
        except OSError:
            return  # we began higher ourselves, and may not go lower


def _read() -> int:
    with open(ADJUSTMENT, "rb") as file:
        return int(file.read())


def _write(value: int) -> None:
    fd = os.open(ADJUSTMENT, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % value)
    finally:
        os.close(fd)
