"""What a supervisor finds when it begins: containers of an earlier one, their exits, and what a kill left half made.

From the entries in the run directory, and from what the keeper held. Where both are gone (the keeper and the supervisor
were killed together), the pipes are opened again through /proc/PID/fd, if the container still has them there: their
inodes are in the entry. A terminal is gone then, and its container was hung up on.
"""

from __future__ import annotations

import os
import stat

from runtime.cgroup import Cgroup, CgroupError, prefix_of, sweep
from runtime.supervisor import ending, exits, journal
from runtime.supervisor.container import EXITED, FROZEN, RUNNING, Container
from runtime.supervisor.executions import Execution
from runtime.supervisor.own_log import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.supervisor.containers import Containers
    from runtime.supervisor.held import Held


def adopt(home: Containers, held: Held, run: str) -> None:
    """Take over what is there; undo what did not run yet; what nobody knows is removed."""
    for name in os.listdir(home.entries):
        with open(home.entry_path(name), "rb") as file:
            entry = journal.parse(file.read())
        if entry is None:
            ending.remove_entry(home.entry_path(name))  # killed in its first line: nothing had been made
        else:
            _adopt_one(home, held, entry)
    _adopt_executions(home, held)
    for owner, fds in list(held.fds.items()):
        for name, fd in fds.items():
            os.close(fd)
            home.link.drop(f"{owner}/{name}")
    held.fds.clear()
    known = {pid for pid in held.codes if any(container.pid == pid for container in home.living)}
    known |= {execution.pid for execution in home.executions.values() if execution.code is None}
    for pid in [pid for pid in held.codes if pid not in known]:
        home.seen(pid)
    clear_cgroups(home, run)


def clear_cgroups(home: Containers, run: str) -> None:
    """Remove this root's cgroups that nobody knows, and their directory if none is left."""
    try:
        gone = sweep(home.hierarchies, prefix_of(run), set(home.by_id))
        if gone:
            say(f"cgroups that nobody knew are gone: {', '.join(gone)}")
    except CgroupError as error:
        say(str(error))


def _adopt_one(home: Containers, held: Held, entry: journal.Entry) -> None:
    cgroup = Cgroup(home.hierarchies, entry.cgroup)
    exit_record = entry.exit or exits.read_record(entry.directory)
    if not entry.started:
        _undo(home, held, entry, cgroup)
        return
    container = home.by_id[entry.id] = Container(home, entry, cgroup)
    if exit_record is not None and exit_record["run"] == entry.run:
        container.exit, container.state = exit_record, EXITED
        if entry.exit is not None:
            ending.write_record(container)
        _take_streams(container, held)
        container.drain()
        if entry.pid in held.codes:
            home.seen(entry.pid)
        container.close()
        home.loop.later(ending.remove_cgroup, container)
        return
    container.state = FROZEN if entry.frozen else RUNNING
    container.pidfd = _open_process(held, f"{entry.id}/process", entry.pid, entry.start)
    _take_streams(container, held)
    if container.out < 0 and not entry.tty:
        container.out = _open_again(entry, 1, entry.out)
        container.err = _open_again(entry, 2, entry.err)
        _hold_again(container)
    container.watch()
    if container.pidfd < 0:  # it ended while no supervisor was there: the keeper has its code, or says it in a moment
        home.loop.later(ending.ended, container)


def _undo(home: Containers, held: Held, entry: journal.Entry, cgroup: Cgroup) -> None:
    """A launch that nobody was told of. A process that waits dies of its closed gate."""
    held.drop(entry.id)
    home.link.drop(entry.id)
    ending.remove(cgroup)
    if entry.pid:
        home.seen(entry.pid)
    ending.remove_entry(home.entry_path(entry.id))


def _open_process(held: Held, key: str, pid: int, start: int) -> int:
    """As the keeper held it: of a process that is gone, too. -1: it is gone, whoever has its number now."""
    kept = held.take(key)
    if kept >= 0:
        return kept
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return -1
    if exits.read_start(pid) == start:
        return pidfd
    os.close(pidfd)
    return -1


def _take_streams(container: Container, held: Held) -> None:
    names = held.fds.get(container.id, {})
    for name in [name for name in names if not name.startswith("process")]:
        fd = names.pop(name)
        if name.startswith("bell/"):
            container.log.add_bell(int(name[5:]), fd)
        elif name == "in":
            container.input = fd
        elif name == "terminal":
            container.terminal = fd
        elif name == "out":
            container.out = fd
        elif name == "err":
            container.err = fd
    for fd in (container.out, container.err, container.terminal):
        if fd >= 0:
            os.set_blocking(fd, False)


def _open_again(entry: journal.Entry, number: int, inode: int) -> int:
    path = f"/proc/{entry.pid}/fd/{number}"
    try:
        found = os.stat(path)
        if inode and stat.S_ISFIFO(found.st_mode) and found.st_ino == inode:
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        pass  # the container has closed it, or put something else there: it has no more output for us
    return -1


def _hold_again(container: Container) -> None:
    for name, fd in (("out", container.out), ("err", container.err)):
        if fd >= 0:
            container.home.link.hold([f"{container.id}/{name}"], [fd])


def _adopt_executions(home: Containers, held: Held) -> None:
    for owner, notes in list(held.notes.items()):
        for key, text in list(notes.items()):
            if owner not in home.by_id:
                home.link.drop(owner)
                break
            numbers = [int(word) for word in text.split()]
            execution = Execution(home, owner, key.removeprefix("exec/"), numbers[0], numbers[1])
            home.executions[execution.id] = execution
            if len(numbers) > 2:
                execution.code = numbers[2]
                continue
            pidfd = _open_process(held, f"{owner}/process/{execution.id}", execution.pid, execution.start)
            if pidfd >= 0:
                execution.watch(pidfd)
            else:
                execution.look()
    held.notes.clear()
