"""A container comes to be: entry, cgroup, pipes, process; held by the keeper; and only then let go.

Whatever kills the supervisor before GO kills the process with it (its gate closes); until the entry says `runs`, and
that is before any answer, the next supervisor undoes what there is of it. What fails is undone here.
"""

from __future__ import annotations

import errno
import os
import select

from runtime.cgroup import Cgroup, CgroupError
from runtime.supervisor import channel, ending, journal, launch
from runtime.supervisor.container import RUNNING, STARTING, WAITING, Container
from runtime.supervisor.failure import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan import LaunchPlan
    from runtime.supervisor.containers import Containers
    from runtime.supervisor.server import Answer

TABLE_FULL = (errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS)
ID_EXTRA = "_.-"


def begin(home: Containers, plan: LaunchPlan, answer: Answer, *, go: bool) -> None:
    """Launch; it waits until `let_go`, at once with `go`. Answers. Raises: LaunchError (nothing is left)."""
    name = plan["id"]
    if not all(character.isalnum() or character in ID_EXTRA for character in name) or not name.strip("."):
        raise LaunchError("request", 0, f"{name!r} is no container's id: letters, digits, '_', '.' and '-'")
    if name in home.by_id:
        raise LaunchError("exists", 0, f"the container {name} is here already, {home.by_id[name].state}")
    container = _launch(home, plan, netns=not go)
    home.by_id[name] = container
    assert container.launched is not None
    if go:
        _let_go(container, answer, {"pid": container.pid, "start": container.start})
        return
    container.owner = answer.owner
    if container.tty:
        home.loop.watch(container.gate_fd, container)
    netns, container.launched.netns_fd = container.launched.netns_fd, -1
    answer.result({"pid": container.pid, "start": container.start}, (netns,))


def let_go(container: Container, answer: Answer) -> None:
    """Execute its command; answers once that is done. Raises: LaunchError (it was let go, or has failed)."""
    if container.failure is not None:
        container.home.by_id.pop(container.id, None)
        raise container.failure
    if container.state != WAITING:
        raise LaunchError("state", 0, f"the container {container.id} is {container.state}: it was let go already")
    _let_go(container, answer, {})


def _launch(home: Containers, plan: LaunchPlan, *, netns: bool) -> Container:
    path = home.entry_path(plan["id"])
    head: dict[str, object] = {key: plan[key] for key in ("id", "run", "directory", "log_bytes_max")}
    head.update(cgroup=plan["cgroup"]["path"], tty=plan["process"]["tty"] is not None)
    pipes = _Pipes()
    entry = -1
    cgroup: Cgroup | None = None
    launched: launch.Launched | None = None
    try:
        entry = journal.begin(path, head)
        cgroup = Cgroup.create(home.hierarchies, plan["cgroup"])
        container = Container(home, journal.Entry(head), cgroup)
        stdio = None if container.tty else pipes.open(stdin=plan["process"]["stdin"])
        launched = container.launched = launch.launch(plan, stdio, cgroup.v2_fd, cgroup.procs_fds, netns=netns)
        container.pid, container.pidfd, container.start = launched.pid, launched.pidfd, launched.start
        cgroup.close()
        _hold(container, pipes)
        inodes = [os.fstat(fd).st_ino if fd >= 0 else 0 for fd in (container.out, container.err)]
        os.write(entry, f"pid {container.pid} {container.start} {inodes[0]} {inodes[1]}\n".encode())
    except (OSError, CgroupError, LaunchError) as error:
        pipes.close()
        if launched is not None:
            launch.abandon(launched)
        if cgroup is not None:
            ending.remove(cgroup)
        ending.remove_entry(path)
        raise _sentence(plan["id"], error) from None
    finally:
        if entry >= 0:
            os.close(entry)
    container.watch()
    return container


class _Pipes:
    """The pipes of one launch: the process's ends are closed when it has them, all of them when it fails."""

    def __init__(self) -> None:
        self.theirs: list[int] = []
        self.ours: list[int] = []

    def open(self, *, stdin: bool) -> tuple[int, int, int]:
        """The process's ends; ours are out, err[, in]."""
        for _ in ("out", "err"):
            reading, writing = os.pipe2(os.O_CLOEXEC)
            self.ours.append(reading)
            self.theirs.append(writing)
        if stdin:
            reading, writing = os.pipe2(os.O_CLOEXEC)
            self.ours.append(writing)
            self.theirs.append(reading)
        return (self.theirs[2] if stdin else -1, self.theirs[0], self.theirs[1])

    def close_theirs(self) -> None:
        for fd in self.theirs:
            os.close(fd)
        self.theirs.clear()

    def close(self) -> None:
        self.close_theirs()
        for fd in self.ours:
            os.close(fd)
        self.ours.clear()


def _hold(container: Container, pipes: _Pipes) -> None:
    """Let the keeper have what must outlive us."""
    pipes.close_theirs()
    if pipes.ours:
        container.out, container.err, *rest = pipes.ours
        keys = [f"{container.id}/out", f"{container.id}/err"]
        if rest:
            container.input = rest[0]
            keys.append(f"{container.id}/in")
        container.home.link.hold(keys, pipes.ours)
        pipes.ours = []


def _let_go(container: Container, answer: Answer, result: dict[str, int]) -> None:
    home, launched = container.home, container.launched
    assert launched is not None
    assert launched.gate is not None
    container.answer, container.owner = answer, None
    container.state = STARTING
    home.loop.watch(container.gate_fd, container)
    try:
        launched.gate.send(channel.GO)
    except BrokenPipeError:
        return  # it has given up: its last words are read next


def progress(container: Container) -> None:
    """What its process says: here is its terminal, it has failed, or, by silence, that it runs."""
    while container.launched is not None and container.launched.gate is not None:
        poll = select.poll()
        poll.register(container.gate_fd, select.POLLIN)
        if not poll.poll(0):
            return
        try:
            message, terminal = channel.receive(container.launched.gate)
        except LaunchError as failure:
            ending.discard(container, failure)
            return
        if terminal >= 0:
            container.terminal = terminal
            container.home.link.hold([f"{container.id}/terminal"], [terminal])
            os.set_blocking(terminal, False)
            container.home.loop.watch(terminal, container)
        if not message:
            _started(container)
            return


def _started(container: Container) -> None:
    if container.state != STARTING:  # the end of file before GO: it died, which its pidfd tells as well
        container.home.loop.unwatch(container.gate_fd)
        return
    answer = container.answer
    container.state = RUNNING
    container.close_launch()
    journal.add(container.home.entry_path(container.id), "runs")
    if answer is not None:
        answer.result({"pid": container.pid, "start": container.start})


def _sentence(name: str, error: OSError | CgroupError | LaunchError) -> LaunchError:
    number = error.errno or 0
    if number in TABLE_FULL:
        message = (
            f"cannot launch {name}: the supervisor has no descriptors left ({os.strerror(number)}); end containers"
        )
        return LaunchError("descriptors", number, message)
    if isinstance(error, LaunchError):
        return error
    if isinstance(error, CgroupError):
        return LaunchError("cgroup", error.errno, error.message)
    return LaunchError("prepare", number, f"cannot launch {name}: {error}")
