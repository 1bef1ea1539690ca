"""Signals by the interpreter's own half of `signal`: the other half makes an enumeration of every number it returns.

A process between clone3 and execve is a copy of the supervisor, with its handlers: signals are blocked from before the
clone (`block`) until its dispositions are the default ones (`default`) and it is about to execute (`unblock`).
"""

from __future__ import annotations

from runtime.syscall import default_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable
else:
    import _signal as signal

_OF_LIBC = (32, 33)
"""Its own; a parent that starts us by posix_spawn, as make(1) does, may leave them ignored."""
_ALL = tuple(int(number) for number in signal.valid_signals())
KILL = int(signal.SIGKILL)
_CHILD = int(signal.SIGCHLD)
_OF_TERMINALS = (int(signal.SIGTTIN), int(signal.SIGTTOU))


def block() -> Iterable[int]:
    """Block all: what was blocked before, for `restore`."""
    return signal.pthread_sigmask(signal.SIG_SETMASK, _ALL)


def restore(mask: Iterable[int]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def default() -> None:
    """The dispositions that a program expects: the interpreter, for one, ignores SIGPIPE."""
    for number in _ALL:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    for number in _OF_LIBC:
        default_signal(number)


def unblock() -> None:
    """The mask that a program expects."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def wait() -> tuple[int, bool, bool]:
    """Wait for one, all being blocked: (number, whether a child ended, whether a terminal sends it to its readers)."""
    number = int(signal.sigwait(_ALL))
    return number, number == _CHILD, number in _OF_TERMINALS


def kill(pidfd: int) -> None:
    """SIGKILL; to one that has ended it is success."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return
