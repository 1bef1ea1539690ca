"""A container's terminal: opened in its own devpts, so that `tty` and /proc tell paths that exist inside."""

from __future__ import annotations

import fcntl
import os
import struct

from runtime.supervisor.failure import failed
from runtime.syscall import MS_BIND, mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan import TerminalSize

_TIOCSCTTY = 0x540E
_TIOCSWINSZ = 0x5414
_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def open_terminal(size: TerminalSize, uid: int, *, console: bool) -> int:
    """Make a terminal, owned by `uid`, and put its slave on descriptors 0 to 2: its master. Raises LaunchError.

    `console`: it is /dev/console too.
    """
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    try:
        master = os.open("/dev/pts/ptmx", flags | os.O_NOFOLLOW)
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("<i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)
        resize(master, size)
        os.fchown(slave, uid, -1)
        for fd in (0, 1, 2):
            os.dup2(slave, fd)
        os.close(slave)
        if console:
            number = struct.unpack("<I", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))[0]
            mount(f"/dev/pts/{number}", "/dev/console", "", MS_BIND)
    except OSError as error:
        raise failed("terminal", "making the terminal failed", error) from error
    return master


def resize(master: int, size: TerminalSize) -> None:
    """Set how many characters it has; what is not known stays 0."""
    fcntl.ioctl(master, _TIOCSWINSZ, struct.pack("<HHHH", size["rows"], size["columns"], 0, 0))


def become_controlling() -> None:
    """Make the terminal on descriptor 0 the controlling one of this session."""
    fcntl.ioctl(0, _TIOCSCTTY, 0)
