"""Processes of a lab: found by record or by namespace, ended for certain, never by name."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from sdn.model.errors import unavailable
from topologies.record import Process

END_S = 5.0
"""SIGKILL needs milliseconds; more than this and the kernel is stuck."""
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command's name, which may hold blanks; None: no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None


def identify(pid: int) -> Process | None:
    """A process with its start time; None where there is none, or only a corpse."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return Process(pid=pid, start=int(fields[19]))


def child(pid: int) -> Process:
    """A child of this very process that nobody has waited for, even if it has ended already."""
    fields = _stat(pid)
    assert fields is not None, "a child stays until it is waited for"
    return Process(pid=pid, start=int(fields[19]))


def is_alive(process: Process) -> bool:
    """Whether it is still the same process, and lives."""
    return identify(process.pid) == process


def uptime_s(process: Process) -> float:
    """How long it has been running."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - process.start / CLOCK_TICKS


def resident_bytes(process: Process) -> int:
    """Its resident memory; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def inside(namespaces: Iterable[Path]) -> list[Process]:
    """Every process (but this one) that lives in one of these pinned network namespaces."""
    wanted: set[tuple[int, int]] = set()
    for path in namespaces:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            wanted.add((status.st_dev, status.st_ino))
    found: list[Process] = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            status = os.stat(f"/proc/{entry}/ns/net")
            process = identify(int(entry)) if (status.st_dev, status.st_ino) in wanted else None
            if process is not None:
                found.append(process)
    return found


def end(processes: Iterable[Process]) -> None:
    """Kill them and wait until they are gone. Raises: UNAVAILABLE (one does not go)."""
    waiting: dict[int, Process] = {}
    poll = select.poll()
    try:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(process.pid)
                waiting[fd] = process
                poll.register(fd, select.POLLIN)
                if is_alive(process):  # asked after the descriptor was taken: from here on nobody else can be meant
                    signal.pidfd_send_signal(fd, signal.SIGSTOP)
                else:
                    os.close(fd)
                    poll.unregister(fd)
                    del waiting[fd]
        for fd in waiting:  # now that they stand still: of some each would start the other anew (keeper, supervisor)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        deadline = time.monotonic() + END_S
        while waiting:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                pids = ", ".join(str(process.pid) for process in waiting.values())
                raise unavailable(f"processes {pids} do not end", "they are stuck in the kernel: see /proc/PID/stack")
            for fd, _ in poll.poll(left_s * 1000):
                poll.unregister(fd)
                os.close(fd)
                _reap(waiting.pop(fd).pid)
    finally:
        for fd in waiting:
            os.close(fd)


def _reap(pid: int) -> None:
    """A child of this very process stays as a corpse until it is waited for."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
