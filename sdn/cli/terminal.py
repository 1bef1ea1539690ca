"""Our own terminal: raw while a container has it, as it was before in any case, and how large it is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
import tty
from types import TracebackType
from typing import Any

STDIN, STDOUT, STDERR = 0, 1, 2
OUTPUT_MODES = 1
"""Where tcgetattr(3) in Python has c_oflag."""


def fill_standard_descriptors() -> None:
    """Where one of the three is closed (`<&-`), nothing that is opened later may take its number."""
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one


def window_size() -> tuple[int, int]:
    """Rows and columns of the terminal that we are on; 0, 0: on none."""
    for descriptor in (STDOUT, STDIN, STDERR):
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(descriptor)
            return rows, columns
    return 0, 0


def resize(master: int, rows: int, columns: int) -> None:
    """Tell a container's terminal its size; its foreground processes get SIGWINCH. One that is gone is left alone."""
    if rows and columns:
        with contextlib.suppress(OSError):
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Raw:
    """While inside, what is typed comes byte by byte, Ctrl-C too. Outside it is as it was before.

    `typed`: False leaves what is typed to the terminal; only what is shown is as it comes: the container's terminal has
    made CR LF of each LF already.
    """

    def __init__(self, descriptor: int = STDIN, typed: bool = True) -> None:
        self._descriptor = descriptor
        self._typed = typed
        self._before: list[Any] | None = None

    def __enter__(self) -> Raw:
        self._before = termios.tcgetattr(self._descriptor)
        self.again()
        return self

    def again(self) -> None:
        """Raw once more: a shell that had us stopped and continued has set its own modes meanwhile."""
        with contextlib.suppress(termios.error):  # the terminal is gone: reading says so
            if self._typed:
                tty.setraw(self._descriptor, termios.TCSADRAIN)
                return
            modes = termios.tcgetattr(self._descriptor)
            modes[OUTPUT_MODES] &= ~termios.OPOST
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, modes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before or [])


def raw_for(typed: bool) -> Raw | None:
    """Ours for a container's terminal: whole where somebody types into that, else where its output is shown.

    In the background the terminal is somebody else's, and who sets its modes would be stopped: None there, too.
    """
    if typed:
        return Raw()
    with contextlib.suppress(OSError):  # ENOTTY: it goes to a file, or it is not the terminal that we belong to
        if os.tcgetpgrp(STDOUT) == os.getpgrp():
            return Raw(STDOUT, typed=False)
    return None
