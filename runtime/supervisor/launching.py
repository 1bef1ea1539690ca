"""A container comes to be: entry, cgroup, pipes, which the keeper holds; then its process, which executes its command.

One that is to be wired first gets its network namespace, which goes to the client, and no process until it is let go.
Until the entry says `runs`, and that is before any answer, the next supervisor undoes what there is of it; a process
whose supervisor is gone does not execute (its gate is closed). What fails is undone here.
"""

from __future__ import annotations

import errno
import os
import select

from runtime.cgroup import Cgroup, CgroupError
from runtime.supervisor import channel, ending, journal, signals, stage
from runtime.supervisor.child import Inheritance
from runtime.supervisor.container import RUNNING, STARTING, WAITING, Container
from runtime.supervisor.failure import LaunchError, decode
from runtime.supervisor.launch import filter_of, start_time
from runtime.supervisor.spawner import launch_order, network_order
from runtime.supervisor.spawners import reap_strays

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from runtime.plan import LaunchPlan
    from runtime.supervisor.containers import Containers
    from runtime.supervisor.server import Answer

TABLE_FULL = (errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS)
ID_EXTRA = "_.-"
TRIES_MAX = 2


class Launch:
    """What only the launch of one container needs. Descriptors are its own; -1: none.

    `entry`: to go on writing it; `network`: its namespace, where it was wired; `theirs`: the process's end of the gate,
    and of its streams.
    """

    __slots__ = ("entry", "gate", "network", "ours", "plan", "stdio", "theirs", "tries")

    def __init__(self, plan: LaunchPlan) -> None:
        self.plan = plan
        self.entry = self.network = -1
        self.gate: _socket.socket | None = None
        self.stdio: tuple[int, int, int] | None = None
        self.ours: list[int] = []
        self.theirs: list[int] = []
        self.tries = 0

    def open_pipes(self) -> None:
        """The process's ends are `stdio`; ours are out, err[, in]. Raises: OSError."""
        for _ in ("out", "err"):
            reading, writing = os.pipe2(os.O_CLOEXEC)
            self.ours.append(reading)
            self.theirs.append(writing)
        if self.plan["process"]["stdin"]:
            reading, writing = os.pipe2(os.O_CLOEXEC)
            self.ours.append(writing)
            self.theirs.append(reading)
        self.stdio = (self.theirs[2] if len(self.theirs) > 2 else -1, self.theirs[0], self.theirs[1])

    def close_theirs(self) -> None:
        """The process has its ends."""
        for fd in self.theirs:
            os.close(fd)
        self.theirs.clear()

    def close(self) -> None:
        """All."""
        self.close_theirs()
        for fd in (self.entry, self.network, *self.ours):
            if fd >= 0:
                os.close(fd)
        self.entry = self.network = -1
        self.ours.clear()
        if self.gate is not None:
            self.gate.close()
            self.gate = None


def begin(home: Containers, plan: LaunchPlan, answer: Answer, *, go: bool) -> None:
    """Launch; without `go` it waits, wired by whoever asked, until `let_go`. Answers. Raises: LaunchError."""
    name = plan["id"]
    if not all(character.isalnum() or character in ID_EXTRA for character in name) or not name.strip("."):
        raise LaunchError("request", 0, f"{name!r} is no container's id: letters, digits, '_', '.' and '-'")
    if name in home.by_id:
        raise LaunchError("exists", 0, f"the container {name} is here already, {home.by_id[name].state}")
    container = home.by_id[name] = _make(home, plan)
    container.answer = answer
    if go:
        _ask_for_process(container)
    else:
        container.owner = answer.owner
        home.spawners.ask(container, network_order())


def let_go(container: Container, answer: Answer) -> None:
    """Execute its command; answers once that is done. Raises: LaunchError."""
    if container.state != WAITING:
        raise LaunchError("state", 0, f"the container {container.id} is {container.state}: it was let go already")
    if container.answer is not None:
        raise LaunchError("state", 0, f"the container {container.id} has no network yet: wait for its launch's answer")
    container.answer, container.owner = answer, None
    _ask_for_process(container)


def _make(home: Containers, plan: LaunchPlan) -> Container:
    """All but its process."""
    path = home.entry_path(plan["id"])
    head: dict[str, object] = {key: plan[key] for key in ("id", "run", "directory", "log_bytes_max")}
    head.update(cgroup=plan["cgroup"]["path"], tty=plan["process"]["tty"] is not None)
    launch = Launch(plan)
    cgroup: Cgroup | None = None
    try:
        launch.entry = journal.begin(path, head)
        cgroup = Cgroup.create(home.hierarchies, plan["cgroup"])
        container = Container(home, journal.Entry(head), cgroup)
        if not container.tty:
            launch.open_pipes()
    except (OSError, CgroupError) as error:
        launch.close()
        if cgroup is not None:
            ending.remove(cgroup)
        ending.remove_entry(path)
        raise _sentence(plan["id"], error) from None
    container.launch = launch
    _hold(container, launch)
    return container


def _hold(container: Container, launch: Launch) -> None:
    """Let the keeper have what must outlive us."""
    if launch.ours:
        container.out, container.err, *rest = launch.ours
        keys = [f"{container.id}/out", f"{container.id}/err"]
        if rest:
            container.input = rest[0]
            keys.append(f"{container.id}/in")
        container.home.link.hold(keys, launch.ours)
        launch.ours = []


def _ask_for_process(container: Container) -> None:
    launch, cgroup = container.launch, container.cgroup
    assert launch is not None
    assert cgroup is not None
    container.state = STARTING
    try:
        launch.gate, theirs = channel.pair()
        channel_fd = theirs.detach()
        launch.theirs.append(channel_fd)
        process = launch.plan["process"]
        inheritance = Inheritance(
            channel_fd, launch.stdio, cgroup.procs_fds, filter_of(process["seccomp"]), stage.directory
        )
        inheritance.v2_fd, inheritance.network_fd = cgroup.v2_fd, launch.network
        order = launch_order(launch.plan, inheritance)
    except (OSError, LaunchError) as error:
        ending.discard(container, _sentence(container.id, error))
        return
    container.home.spawners.ask(container, order)


def answered(container: Container, answer: bytes, fd: int) -> None:
    """The spawner's word on what it was asked for: a network namespace, or a process."""
    launch = container.launch
    if launch is None:  # its client went meanwhile
        if fd >= 0:
            os.close(fd)
    elif answer[:1] == channel.ERROR:
        ending.discard(container, _sentence(container.id, decode(answer[1:])))
    elif fd < 0:
        if container.state == STARTING:  # nobody can watch this process
            os.kill(int(answer), signals.KILL)
            os.waitpid(int(answer), 0)
        error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))  # the descriptor found no place in our table
        ending.discard(container, _sentence(container.id, error))
    elif container.state == WAITING:
        _wired(container, launch, fd)
    else:
        _born(container, launch, int(answer), fd)


def _wired(container: Container, launch: Launch, network: int) -> None:
    """Its namespace is there, for the client to wire."""
    answer, container.answer = container.answer, None
    assert answer is not None
    launch.network = network
    answer.result({}, (network,), close=False)


def _born(container: Container, launch: Launch, pid: int, pidfd: int) -> None:
    """Its process is there, and has executed its command, or has failed, or is about to."""
    container.pid, container.pidfd = pid, pidfd
    launch.close_theirs()
    if container.cgroup is not None:
        container.cgroup.close()
    try:
        container.start = start_time(pid)
        inodes = [os.fstat(fd).st_ino if fd >= 0 else 0 for fd in (container.out, container.err)]
        line = f"pid {pid} {container.start} {inodes[0]} {inodes[1]}\n"
        progress(container, line)
        if container.launch is launch:
            os.write(launch.entry, line.encode())
            container.home.loop.watch(container.gate_fd, container)
    except OSError as error:  # there is no descriptor left, or no room
        ending.discard(container, _sentence(container.id, error))


def lost(container: Container, *, late: bool) -> None:
    """The spawner ended amid it: whatever it has made of it goes; then once more, unless it was too late."""
    launch, home = container.launch, container.home
    if launch is None:
        return
    launch.tries += 1
    if late:
        failure = LaunchError("prepare", errno.ETIMEDOUT, f"the process did not answer within {channel.TIMEOUT_S} s")
    else:
        message = f"the spawner ended {TRIES_MAX} times: the supervisor's log may say why"
        failure = LaunchError("clone", 0, message)
    if late or launch.tries >= TRIES_MAX:
        ending.discard(container, failure)
    elif container.state == WAITING:
        home.spawners.ask(container, network_order())
    else:
        _begin_anew(container, launch)
    reap_strays(home.children())


def _begin_anew(container: Container, launch: Launch) -> None:
    """With another cgroup and gate: who may be in the old ones must not be taken for the new process."""
    assert launch.gate is not None
    launch.gate.close()
    os.close(launch.theirs.pop())
    ending.remove_cgroup(container)
    try:
        container.cgroup = Cgroup.create(container.home.hierarchies, launch.plan["cgroup"])
    except CgroupError as error:
        ending.discard(container, _sentence(container.id, error))
    else:
        _ask_for_process(container)


def progress(container: Container, line: str = "") -> None:
    """What its process says: here is its terminal, it has failed, or, by the end of file, that it runs.

    `line`: of its entry, not written yet.
    """
    while container.launch is not None and container.launch.gate is not None:
        poll = select.poll()
        poll.register(container.gate_fd, select.POLLIN)
        if not poll.poll(0):
            return
        try:
            message, terminal = channel.receive(container.launch.gate)
        except LaunchError as failure:
            ending.discard(container, failure)
            return
        if terminal >= 0:
            container.terminal = terminal
            container.home.link.hold([f"{container.id}/terminal"], [terminal])
        if not message:
            try:
                _started(container, line)
            except OSError as error:  # there is no room in the run directory
                ending.discard(container, _sentence(container.id, error))
            return


def _started(container: Container, line: str) -> None:
    """Not before the entry says so is its output touched: a launch that is undone leaves no trace in the log."""
    answer, launch = container.answer, container.launch
    assert launch is not None
    os.write(launch.entry, f"{line}{journal.RUNS}\n".encode())
    container.state = RUNNING
    container.close_launch()
    container.watch()
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
