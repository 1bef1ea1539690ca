"""One container's cgroup: made with its limits, entered by its processes, killed, frozen, measured and removed.

A cgroup is a path below the mounts of `Hierarchies` (`hawse/1a2b3c4d/ID`); nothing else is remembered, so a supervisor
that adopts a container needs no more than the path. Its *home* is the directory in v2, or in v1's freezer where there
is no v2. Descriptors exist between `create` (or `open`) and `close` alone: they are what a new process enters by.

Standard library only, few imports: this runs in the supervisor, on its loop; what waits has a bound.
"""

from __future__ import annotations

import binascii
import errno
import os
import select
import time

from runtime.cgroup_files import (
    apply,
    children,
    failure,
    field,
    make,
    pause,
    read,
    remove_tree,
    wait_condition,
    wait_event,
    write,
)
from runtime.cgroup_usage import usage
from runtime.hierarchies import CgroupError, Hierarchies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from runtime.plan import CgroupPlan

__all__ = ["Cgroup", "CgroupError", "Hierarchies", "prefix_of", "sweep"]

DIRECTORY = "hawse"
SIGKILL = 9
"""Not of the module `signal`, which imports `enum`: 0.5 MB of the supervisor."""
FREEZE_TIMEOUT_S = 1.0
KILL_TIMEOUT_S = 2.0
"""A killed process may have gigabytes to free before it is gone."""
REMOVE_TIMEOUT_S = 0.5


class Cgroup:
    """The cgroup at `path` below each mount. Making one of these touches nothing; `create` and `open` do."""

    __slots__ = ("_mounts", "hierarchies", "path", "procs_fds", "v2_fd")

    def __init__(self, hierarchies: Hierarchies, path: str) -> None:
        self.hierarchies = hierarchies
        self.path = path
        self._mounts = hierarchies.all
        """Where it may have a directory, its home first."""
        self.v2_fd = -1
        """The v2 directory, for CLONE_INTO_CGROUP; -1: none."""
        self.procs_fds: tuple[int, ...] = ()
        """v1's `cgroup.procs`, for writing: a process that writes "0" enters."""

    @classmethod
    def create(cls, hierarchies: Hierarchies, plan: CgroupPlan) -> Cgroup:
        """Make the directories, write the limits, open the descriptors. On an error nothing is left.

        Raises: CgroupError (a controller that is missing, a limit that the kernel refuses, a path that is in use …).
        """
        if not hierarchies.home:
            raise CgroupError(
                errno.ENOTSUP, "cannot make a cgroup: neither cgroup v2 nor v1's freezer is mounted on this machine"
            )
        settings = hierarchies.lower(plan)
        cgroup = cls(hierarchies, plan["path"])
        cgroup._make_home()
        try:
            others = {*hierarchies.always, *(setting.mount for setting in settings)} - {hierarchies.home}
            cgroup._mounts = (hierarchies.home, *others)
            for mount in others:
                make(hierarchies, mount, cgroup.path)
            for setting in settings:
                apply(hierarchies, cgroup.path, setting)
            cgroup._open_descriptors()
        except BaseException:
            cgroup.close()
            cgroup.remove()
            raise
        return cgroup

    @classmethod
    def open(cls, hierarchies: Hierarchies, path: str) -> Cgroup:
        """One that exists, with its descriptors, for a further process. Raises: CgroupError (it is gone)."""
        cgroup = cls(hierarchies, path)
        try:
            cgroup._open_descriptors()
        except BaseException:
            cgroup.close()
            raise
        return cgroup

    def _make_home(self) -> None:
        """The first directory. One of an earlier life goes with all that belongs to it, limits and counters too."""
        while not make(self.hierarchies, self.hierarchies.home, self.path):
            try:
                self.remove(timeout_s=0)
            except CgroupError as error:
                if error.errno != errno.EBUSY:
                    raise
                message = f"cannot make the cgroup {self._home()}: it is there and holds processes"
                raise CgroupError(errno.EBUSY, message) from None

    def _open_descriptors(self) -> None:
        try:
            if self.hierarchies.v2:
                self.v2_fd = os.open(f"{self.hierarchies.v2}/{self.path}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for mount in self._mounts:
                if mount == self.hierarchies.v2:
                    continue
                try:
                    descriptor = os.open(f"{mount}/{self.path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue  # no limit of this controller: no directory
                self.procs_fds += (descriptor,)
        except OSError as error:
            raise failure(f"open the cgroup {self.path}", error) from None
        if self.v2_fd < 0 and not self.procs_fds:
            raise CgroupError(errno.ENOENT, f"cannot open the cgroup {self.path}: it does not exist")

    def close(self) -> None:
        """Close the descriptors; the cgroup stays."""
        descriptors = (*self.procs_fds, self.v2_fd) if self.v2_fd >= 0 else self.procs_fds
        self.v2_fd, self.procs_fds = -1, ()
        for descriptor in descriptors:
            os.close(descriptor)

    def pids(self) -> list[int]:
        """Every process in it and below it, as numbers of this pid namespace. None where it is gone."""
        return [int(pid) for home, _, _ in os.walk(self._home()) for pid in read(f"{home}/cgroup.procs").split()]

    def kill(self, timeout_s: float = KILL_TIMEOUT_S) -> bool:
        """SIGKILL to every process in it, frozen or forking; then wait. Returns: whether it is empty now."""
        deadline = time.monotonic() + timeout_s
        try:
            if self.hierarchies.v2:
                write(f"{self._home()}/cgroup.kill", "1")
                return self._wait_empty(deadline)
            return self._kill_one_by_one(deadline)
        except FileNotFoundError:  # a v2 before Linux 5.14, or the whole cgroup is gone
            return not os.path.isdir(self._home()) or self._kill_one_by_one(deadline)

    def _kill_one_by_one(self, deadline: float) -> bool:
        while True:  # what is frozen cannot fork meanwhile
            self._freeze_begin(on=True)
            self._wait_frozen(deadline, on=True)
            for pid in self.pids():
                try:
                    os.kill(pid, SIGKILL)
                except ProcessLookupError:
                    continue
            self._freeze_begin(on=False)
            if self._wait_empty(min(deadline, time.monotonic() + FREEZE_TIMEOUT_S)):
                return True
            if time.monotonic() >= deadline:
                return False

    def freeze(self, on: bool) -> None:
        """Stop every process in it, or let them go on. Returns once it is so; one that could not be is undone.

        Raises: CgroupError (no freezer, gone, or not within the bound: a process in an uninterruptible call).
        """
        try:
            self._freeze_begin(on=on)
        except OSError as error:
            raise failure(f"{'freeze' if on else 'thaw'} the cgroup {self.path}", error) from None
        if not self._wait_frozen(time.monotonic() + FREEZE_TIMEOUT_S, on=on):
            self._freeze_begin(on=False)
            raise CgroupError(
                errno.ETIMEDOUT,
                f"cannot {'freeze' if on else 'thaw'} the cgroup {self.path}: not all of its processes had "
                f"{'stopped' if on else 'gone on'} after {FREEZE_TIMEOUT_S:g} s",
            )

    def oom_kills(self) -> int:
        """How many of its processes the kernel killed for want of memory; 0 where the kernel does not count."""
        mount = self.hierarchies.mount_of("memory")
        if not mount:
            return 0
        file = "memory.events" if mount == self.hierarchies.v2 else "memory.oom_control"
        return field(read(f"{mount}/{self.path}/{file}"), "oom_kill")

    def oom_killed(self) -> bool:
        """Whether any was. Ask before `remove`."""
        return self.oom_kills() > 0

    def watch_oom(self) -> tuple[int, int]:
        """A descriptor and the epoll mask that tells of memory running out; the caller's to close. (-1, 0): none.

        It may tell of more than kills: compare `oom_kills` then. Read an EPOLLIN one (8 bytes) or it stays ready.
        """
        mount = self.hierarchies.mount_of("memory")
        directory = f"{mount}/{self.path}"
        try:
            if mount == self.hierarchies.v2:
                return os.open(f"{directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC), select.EPOLLPRI
            control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1, 0
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            write(f"{directory}/cgroup.event_control", f"{event} {control}")
        except OSError:
            os.close(event)
            return -1, 0
        finally:
            os.close(control)
        return event, select.EPOLLIN

    def usage(self) -> dict[str, int]:
        """What it uses: nanoseconds, bytes, tasks; limits 0: none. What this machine does not count is 0.

        `memory_bytes` is without page cache that could be dropped at once, as `docker stats` has it. Block I/O is
        counted by v2's `io` controller alone.
        """
        return usage(self.hierarchies, self.path)

    def remove(self, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """Remove it everywhere, with whatever cgroups were made below it. Absent is fine; it should hold no process.

        Raises: CgroupError (EBUSY after the bound: processes live in it still).
        """
        deadline = time.monotonic() + timeout_s
        for mount in reversed(self._mounts):  # home last: where that is gone, nothing else is there
            directory = f"{mount}/{self.path}"
            while True:
                try:
                    remove_tree(directory)
                    break
                except OSError as error:
                    # A process that was waited for a moment ago is in its cgroup for some microseconds more.
                    if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                        raise failure(f"remove the cgroup {directory}", error) from None
                    pause()

    def _home(self) -> str:
        return f"{self.hierarchies.home}/{self.path}"

    def _freeze_begin(self, *, on: bool) -> None:
        if self.hierarchies.v2:
            write(f"{self._home()}/cgroup.freeze", "1" if on else "0")
        else:
            write(f"{self._home()}/freezer.state", "FROZEN" if on else "THAWED")

    def _wait_frozen(self, deadline: float, *, on: bool) -> bool:
        if self.hierarchies.v2:
            return wait_event(f"{self._home()}/cgroup.events", "frozen", int(on), deadline)
        state = "FROZEN" if on else "THAWED"
        return wait_condition(lambda: read(f"{self._home()}/freezer.state").strip() in (state, ""), deadline)

    def _wait_empty(self, deadline: float) -> bool:
        if self.hierarchies.v2:
            return wait_event(f"{self._home()}/cgroup.events", "populated", 0, deadline)
        return wait_condition(lambda: not self.pids(), deadline)


def prefix_of(run_directory: str) -> str:
    """The directory of one supervisor's containers: `hawse/` and 8 hex digits that follow from its run directory."""
    return f"{DIRECTORY}/{binascii.crc32(os.fsencode(os.path.realpath(run_directory))):08x}"


def sweep(hierarchies: Hierarchies, prefix: str, keep: Collection[str]) -> list[str]:
    """Kill and remove what is below `prefix` but not in `keep` (names), and the prefix itself once it is empty.

    Returns: the names that went. Raises: CgroupError, after the rest is done, of the first that could not go.
    """
    names: dict[str, None] = {}
    for mount in hierarchies.all:
        names.update(dict.fromkeys(children(f"{mount}/{prefix}")))
    gone: list[str] = []
    first: CgroupError | None = None
    for name in names:
        if name in keep:
            continue
        leftover = Cgroup(hierarchies, f"{prefix}/{name}")
        try:
            leftover.kill()
            leftover.remove()
            gone.append(name)
        except CgroupError as error:
            first = first or error
        except OSError as error:
            first = first or failure(f"kill the cgroup {prefix}/{name}", error)
    for mount in hierarchies.all:
        for directory in (prefix, os.path.dirname(prefix)):
            try:
                os.rmdir(f"{mount}/{directory}")
            except OSError:
                break  # others are in it, or it is not there
    if first:
        raise first
    return gone
