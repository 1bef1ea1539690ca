"""A further process in a container: the supervisor's side. Blocking, but short; what fails leaves nothing."""

from __future__ import annotations

import os

from runtime.supervisor import channel, child, entry, signals, stage
from runtime.supervisor.failure import LaunchError, failed
from runtime.syscall import clone3

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from runtime.plan import ProcessPlan

_FILTERS_MAX = 16
_filters: dict[tuple[str, int, int], bytes] = {}


class Launched:
    """A process that was launched. Descriptors belong to whoever holds this; -1: none, or taken.

    `pid` in the supervisor's pid namespace; `start`: its start time in clock ticks since boot, as /proc has it, which
    with the pid names it for good. `terminal`: the master.
    """

    __slots__ = ("pid", "pidfd", "start", "terminal")

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.start = 0
        self.terminal = -1


def execute(
    pidfd: int,
    process: ProcessPlan,
    stdio: tuple[int, int, int] | None,
    v2_fd: int = -1,
    procs_fds: tuple[int, ...] = (),
) -> Launched:
    """Execute another process in the container whose first process `pidfd` is; returns once it has. Raises LaunchError.

    It is a child of this process. `stdio`: the process's ends, -1 is /dev/null; None where it has a terminal. They stay
    the caller's. `v2_fd`: the cgroup's directory; `procs_fds`: `cgroup.procs` of v1 hierarchies, open for writing.
    Refuse it for a frozen container: the process would be frozen before it can answer.
    """
    filter_bytes = filter_of(process["seccomp"])
    ours, theirs = channel.pair()
    first = _clone(v2_fd)
    if first is None:
        inheritance = child.Inheritance(theirs.fileno(), stdio, procs_fds, filter_bytes, stage.directory)
        entry.run(pidfd, process, inheritance)
    theirs.close()
    try:
        message, terminal = channel.receive(ours)
        if not message:
            raise LaunchError("prepare", 0, "the process ended before it could join the container")
    except LaunchError as error:
        if not isinstance(error, channel.SilenceError):
            _reap_sibling(ours)
        ours.close()
        abandon(first)
        raise
    _reap(first.pidfd)
    pid = int(message[1:])
    launched = Launched(pid, os.pidfd_open(pid))
    launched.terminal, launched.start = terminal, start_time(pid)
    try:
        channel.receive(ours)  # the end of file: it has executed; an error is raised
    except LaunchError:
        abandon(launched)
        raise
    finally:
        ours.close()
    return launched


def abandon(launched: Launched) -> None:
    """Kill and reap one that has not executed its command; close what it has.

    Not for a container that runs: its first process has only ended once each `execute`d one, a child of ours too, is
    reaped, so that a wait for it alone may never return. Kill that one by its pidfd, and reap as the pidfds tell.
    """
    signals.kill(launched.pidfd)
    _reap(launched.pidfd)
    if launched.terminal >= 0:
        os.close(launched.terminal)
    launched.pidfd = launched.terminal = -1


def start_time(pid: int) -> int:
    """When it started, in clock ticks since boot: field 22 of /proc/PID/stat. Raises OSError where it is gone."""
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 4096).rsplit(b")", 1)[1].split()[19])
    finally:
        os.close(fd)


def _clone(v2_fd: int) -> Launched | None:
    """None in the new process, which has all signals blocked: until execve it is a copy of us, with our handlers."""
    mask = signals.block()
    try:
        pid, pidfd = clone3(0, v2_fd)
    except OSError as error:
        signals.restore(mask)
        raise failed("clone", "making the process failed", error) from error
    if pid == 0:
        return None
    signals.restore(mask)
    return Launched(pid, pidfd)


def _reap_sibling(ours: _socket.socket) -> None:
    """Of a second process whose failure was heard before the first one had told of it."""
    try:
        message, terminal = channel.receive(ours)
    except LaunchError:
        return
    if message:
        os.waitpid(int(message[1:]), 0)
    if terminal >= 0:
        os.close(terminal)


def _reap(pidfd: int) -> None:
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        return  # somebody else has: nothing is left
    finally:
        os.close(pidfd)


def filter_of(path: str) -> bytes:
    """The bytes of a compiled seccomp filter. The few that there are stay in memory."""
    if not path:
        return b""
    try:
        status = os.stat(path)
        key = (path, status.st_mtime_ns, status.st_size)
        found = _filters.get(key)
        if found is None:
            with open(path, "rb") as file:
                found = file.read()
            if len(_filters) >= _FILTERS_MAX:
                _filters.clear()
            _filters[key] = found
    except OSError as error:
        raise failed("seccomp", f"reading the filter {path} failed", error) from error
    return found
