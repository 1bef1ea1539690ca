"""Further processes in a container: started, waited for, and their codes kept until asked.

Their pipes and terminals are the client's alone. What an exit needs to be known by the next supervisor is a note with
the keeper: `pid start`, and `pid start code` once it ended.
"""

from __future__ import annotations

import os

from runtime.cgroup import Cgroup, CgroupError
from runtime.supervisor import exits, launch
from runtime.supervisor.container import FROZEN
from runtime.supervisor.failure import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan import ProcessPlan
    from runtime.supervisor.container import Container
    from runtime.supervisor.containers import Containers
    from runtime.supervisor.server import Answer

CODE_TRIES = 100
CODE_PAUSE_S = 0.02
"""As for containers: the code of somebody else's child may take a moment."""


class Execution:
    """One. `code`: None while it runs."""

    __slots__ = ("code", "container", "home", "id", "pid", "pidfd", "start", "tries")

    def __init__(self, home: Containers, container: str, name: str, pid: int, start: int) -> None:
        self.home = home
        self.container = container
        self.id = name
        self.pid = pid
        self.start = start
        self.pidfd = -1
        self.code: int | None = None
        self.tries = 0

    @property
    def key(self) -> str:
        """Its note's with the keeper."""
        return f"{self.container}/exec/{self.id}"

    def watch(self, pidfd: int) -> None:
        """From now on the loop's."""
        self.pidfd = pidfd
        self.home.loop.watch(pidfd, self)

    def ready(self, _fd: int, _events: int) -> None:
        """It ended."""
        self.look()

    def look(self) -> None:
        """It has ended, it seems: learn its code, now or a little later."""
        self._ended(None)

    def _ended(self, _: None) -> None:
        if self.code is not None:
            return
        try:
            code = exits.wait(self.pidfd, reap=False)
        except ChildProcessError:
            code = self.home.codes.get(self.pid)
            if code is None:
                code = exits.read_foreign(self.pid, self.start, self.pidfd)
            if code is None:
                self.tries += 1
                self.home.loop.unwatch(self.pidfd)
                if self.tries <= CODE_TRIES:
                    self.home.loop.after(CODE_PAUSE_S, self._ended, None)
                    return
                code = exits.UNKNOWN
        if code is not None:
            self.conclude(code)

    def conclude(self, code: int) -> None:
        """Kept, then reaped, then told."""
        self.code = code
        self.home.link.note(self.key, f"{self.pid} {self.start} {code}")
        try:
            if self.pidfd >= 0:
                os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        except ChildProcessError:
            self.home.seen(self.pid)
        self.close()
        self.home.tell({"event": "executed", "id": self.container, "execution": self.id, "code": code})

    def close(self) -> None:
        """Let go of it."""
        if self.pidfd >= 0:
            self.home.loop.unwatch(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1


def execute(home: Containers, container: Container, name: str, process: ProcessPlan, answer: Answer) -> None:
    """Start it; answers. Raises: LaunchError (nothing is left)."""
    if container.state == FROZEN:
        raise LaunchError("state", 0, f"the container {container.id} is frozen: nothing can be executed in it")
    if name in home.executions or not name or not all(character.isalnum() or character in "_.-" for character in name):
        raise LaunchError("exists", 0, f"the execution {name!r} is here already, or is no id")
    theirs: list[int] = []
    ours: list[int] = []
    try:
        stdio = None
        if process["tty"] is None:
            stdio = _pipes(theirs, ours, stdin=process["stdin"])
        cgroup = Cgroup.open(home.hierarchies, container.cgroup.path if container.cgroup else "")
        try:
            launched = launch.execute(container.pidfd, process, stdio, cgroup.v2_fd, cgroup.procs_fds)
        finally:
            cgroup.close()
    except (OSError, CgroupError, LaunchError) as error:
        for fd in ours:
            os.close(fd)
        if isinstance(error, LaunchError):
            raise
        raise LaunchError("prepare", error.errno or 0, f"cannot execute in {container.id}: {error}") from None
    finally:
        for fd in theirs:
            os.close(fd)
    if launched.terminal >= 0:
        ours.append(launched.terminal)
    execution = Execution(home, container.id, name, launched.pid, launched.start)
    home.executions[name] = execution
    home.link.note(execution.key, f"{execution.pid} {execution.start}")
    execution.watch(launched.pidfd)
    answer.result({"pid": launched.pid}, tuple(ours))


def _pipes(theirs: list[int], ours: list[int], *, stdin: bool) -> tuple[int, int, int]:
    """The process's ends; the client's are output, errors[, input]."""
    for _ in range(2):
        reading, writing = os.pipe2(os.O_CLOEXEC)
        ours.append(reading)
        theirs.append(writing)
    if not stdin:
        return (-1, theirs[0], theirs[1])
    reading, writing = os.pipe2(os.O_CLOEXEC)
    ours.append(writing)
    theirs.append(reading)
    return (reading, theirs[0], theirs[1])
