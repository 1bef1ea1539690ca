"""Launching: the supervisor's side. Blocking, but short; what fails leaves no process and no descriptor.

    stage.enter(directory)                               once, first of all in the process
    launched = launch(plan, stdio, cgroup.v2_fd, cgroup.procs_fds)
    …                                                    launched.netns_fd is handed to the network's agent
    go(launched)                                         returns once execve has succeeded

`launch` returns as soon as the namespaces exist: while the network is attached the process prepares its mounts. What
fails meanwhile is told by `go`. A process that is not wanted after all is ended by `abandon`.
"""

from __future__ import annotations

import os

from runtime.supervisor import channel, child, entry, signals, stage
from runtime.supervisor.failure import LaunchError, failed
from runtime.supervisor.spawner import spawner
from runtime.syscall import clone3

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from runtime.plan import LaunchPlan, ProcessPlan

__all__ = ["LaunchError", "Launched", "abandon", "execute", "go", "launch", "start_time"]

_FILTERS_MAX = 16
_filters: dict[tuple[str, int, int], bytes] = {}


class Launched:
    """A process that was launched. Descriptors belong to whoever holds this; -1: none, or taken.

    `pid` in the supervisor's pid namespace; `start`: its start time in clock ticks since boot, as /proc has it, which
    with the pid names it for good. `terminal`: the master, known after `go`. `gate`: until `go`.
    """

    __slots__ = ("gate", "netns_fd", "pid", "pidfd", "start", "terminal")

    def __init__(self, pid: int, pidfd: int, netns_fd: int = -1) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.netns_fd = netns_fd
        self.start = 0
        self.terminal = -1
        self.gate: _socket.socket | None = None


def launch(
    plan: LaunchPlan,
    stdio: tuple[int, int, int] | None,
    v2_fd: int = -1,
    procs_fds: tuple[int, ...] = (),
    *,
    netns: bool = True,
) -> Launched:
    """Make the container's first process and namespaces. Raises LaunchError.

    `stdio`: the process's ends, -1 is /dev/null; None where it has a terminal. They stay the caller's. `v2_fd`: the
    cgroup's directory; `procs_fds`: `cgroup.procs` of v1 hierarchies, open for writing. `netns`: whether the network
    namespace's descriptor is wanted.
    """
    filter_bytes = _filter(plan["process"]["seccomp"])
    ours, theirs = channel.pair()
    try:
        inheritance = child.Inheritance(theirs.fileno(), stdio, procs_fds, filter_bytes, stage.directory)
        launched = Launched(*spawner.spawn(plan, inheritance, v2_fd))
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    launched.gate = ours
    try:
        if netns:
            launched.netns_fd = os.open(f"/proc/{launched.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        launched.start = start_time(launched.pid)
    except OSError as error:
        # It has failed already, and has no namespaces any more: what it said is the reason, not what we see.
        try:
            channel.receive(ours)
        finally:
            abandon(launched)
        raise failed("clone", f"looking at the process {launched.pid} failed", error) from error
    return launched


def go(launched: Launched) -> None:
    """Let it execute its command; returns once it has. Raises LaunchError, after which nothing is left of it."""
    gate = launched.gate
    assert gate is not None, "go is said once"
    try:
        _say_go(gate)
        message, launched.terminal = channel.receive(gate)
        if message:
            _wait_for_exec(gate)
    except LaunchError:
        abandon(launched)
        raise
    gate.close()
    launched.gate = None


def execute(
    pidfd: int,
    process: ProcessPlan,
    stdio: tuple[int, int, int] | None,
    v2_fd: int = -1,
    procs_fds: tuple[int, ...] = (),
) -> Launched:
    """Execute another process in the container whose first process `pidfd` is; returns once it has. Raises LaunchError.

    It is a child of this process. The other parameters are as those of `launch`. Refuse it for a frozen container: the
    process would be frozen before it can answer.
    """
    filter_bytes = _filter(process["seccomp"])
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
    except LaunchError:
        ours.close()
        abandon(first)
        raise
    _reap(first.pidfd)
    pid = int(message[1:])
    launched = Launched(pid, os.pidfd_open(pid))
    launched.terminal, launched.start = terminal, start_time(pid)
    try:
        _wait_for_exec(ours)
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
    for fd in (launched.netns_fd, launched.terminal):
        if fd >= 0:
            os.close(fd)
    launched.pidfd = launched.netns_fd = launched.terminal = -1
    if launched.gate is not None:
        launched.gate.close()
        launched.gate = None


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


def _say_go(gate: _socket.socket) -> None:
    try:
        gate.send(channel.GO)
    except (BrokenPipeError, ConnectionResetError):
        return  # it has given up, and its last words are to be read


def _wait_for_exec(gate: _socket.socket) -> None:
    """The end of file is the success; an error is raised."""
    channel.receive(gate)


def _reap(pidfd: int) -> None:
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        return  # somebody else has: nothing is left
    finally:
        os.close(pidfd)


def _filter(path: str) -> bytes:
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
