"""All containers that live, and those that ended and were not forgotten."""

from __future__ import annotations

from runtime.cgroup import Hierarchies
from runtime.supervisor import ending, launching
from runtime.supervisor.container import EXITED, FROZEN, RUNNING, WAITING, Container
from runtime.supervisor.executions import Execution
from runtime.supervisor.failure import LaunchError
from runtime.supervisor.held import Link
from runtime.supervisor.loop import Loop
from runtime.supervisor.spawners import Spawners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runtime.supervisor.server import Connection


class Containers:
    """By id, and what they share. `tell`: an event, to all that subscribed; `codes`: of the keeper's children."""

    __slots__ = (
        "by_id",
        "codes",
        "entries",
        "executions",
        "hierarchies",
        "link",
        "loop",
        "on_idle",
        "spawners",
        "tell",
    )

    def __init__(
        self, loop: Loop, link: Link, entries: str, tell: Callable[[dict[str, Any]], None], codes: dict[int, int]
    ) -> None:
        self.loop = loop
        self.link = link
        self.entries = entries
        self.tell = tell
        self.codes = codes
        self.hierarchies = Hierarchies.detect()
        self.spawners = Spawners(loop)
        self.by_id: dict[str, Container] = {}
        self.executions: dict[str, Execution] = {}
        self.on_idle: Callable[[], None] | None = None

    def entry_path(self, name: str) -> str:
        """The entry of one in the run directory."""
        return f"{self.entries}/{name}"

    def find(self, name: str) -> Container:
        """Raises: LaunchError, `unknown`."""
        container = self.by_id.get(name)
        if container is None:
            raise LaunchError("unknown", 0, f"there is no container {name!r} here")
        return container

    def find_running(self, name: str) -> Container:
        """One that runs or is frozen. Raises: LaunchError, `unknown` or `state`."""
        container = self.find(name)
        if container.state not in (RUNNING, FROZEN):
            raise LaunchError("state", 0, f"the container {name} is {container.state}: it does not run")
        return container

    @property
    def living(self) -> list[Container]:
        """Those that have not ended."""
        return [each for each in self.by_id.values() if each.exit is None]

    def children(self) -> set[int]:
        """The processes that are known here."""
        pids = {container.pid for container in self.by_id.values()}
        pids.update(execution.pid for execution in self.executions.values())
        pids.update(self.spawners.pids)
        return pids

    def answered(self, container: Container, answer: bytes, fd: int) -> None:
        """A spawner's word on its launch."""
        launching.answered(container, answer, fd)

    def lost(self, container: Container, *, late: bool) -> None:
        """A spawner ended amid its launch."""
        launching.lost(container, late=late)

    def progress(self, container: Container) -> None:
        """News of its launch."""
        launching.progress(container)

    def ended(self, container: Container) -> None:
        """Its first process ended."""
        ending.ended(container)

    def reaped(self, pid: int, code: int) -> None:
        """The keeper's word on a child of its own."""
        self.codes[pid] = code
        for container in self.living:
            if container.pid == pid:
                ending.ended(container)
                return
        for execution in self.executions.values():
            if execution.pid == pid and execution.code is None:
                execution.conclude(code)
                return
        self.seen(pid)

    def seen(self, pid: int) -> None:
        """The keeper need not keep its code any more."""
        self.codes.pop(pid, None)
        self.link.seen(pid)

    def abandon(self, owner: Connection) -> None:
        """A client went: what it had launched and not let go yet goes too."""
        for container in [container for container in self.by_id.values() if container.owner is owner]:
            ending.discard(container, LaunchError("prepare", 0, "its client went"))

    def forget(self, name: str) -> None:
        """Its exit is acknowledged, or one that waits is given up; absent is fine. Raises: LaunchError (it lives)."""
        container = self.by_id.get(name)
        if container is None:
            return
        if container.state == WAITING:
            ending.discard(container, LaunchError("prepare", 0, "it was given up"))
            return
        if container.state != EXITED:
            raise LaunchError("state", 0, f"the container {name} is {container.state}: it cannot be forgotten")
        ending.remove_cgroup(container)
        ending.remove_entry(self.entry_path(name))
        self.link.drop(name)
        for execution in [each for each in self.executions.values() if each.container == name]:
            execution.close()
            del self.executions[execution.id]
        del self.by_id[name]

    def idle(self) -> None:
        """Tell who waits for the last one to end."""
        if self.on_idle is not None and not self.living:
            self.on_idle()
