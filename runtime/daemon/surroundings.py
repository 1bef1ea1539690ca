"""What a container's life needs around it, put together once."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from runtime.daemon.attaching import Agent
from runtime.daemon.events import Events
from runtime.daemon.exits import Exits
from runtime.daemon.plans import ImageView
from runtime.daemon.processes import Confinement
from runtime.daemon.records import Records
from runtime.daemon.releases import Releases
from runtime.daemon.supervision import Supervisor
from sdn.model.container import ContainerSpec
from sdn.service.log import get_logger, one_line
from sdn.service.roots import Root


class Images(Protocol):
    """The images of this host."""

    def resolve(self, reference: str) -> ImageView:
        """By name or id. Raises: NOT_FOUND, INVALID."""

    def count(self) -> int:
        """How many there are."""


class Tasks:
    """What goes on beside the requests. A fault in one is told, and ends nothing else."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._log: Any = get_logger("runtime")

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """In a task of its own."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """One container's trouble must not end the others' daemon, nor hide."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._log.error("internal error", reason=one_line(error))

    async def end(self) -> None:
        """Cancel what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclasses.dataclass(slots=True)
class Surroundings:
    """`confine`: capabilities and filter of a specification; `cgroup`: where all containers' cgroups are."""

    root: Root
    records: Records
    events: Events
    exits: Exits
    supervisor: Supervisor
    agent: Agent
    releases: Releases
    images: Images
    confine: Callable[[ContainerSpec], Confinement]
    clock: Callable[[], float]
    cpus_online: int
    cgroup: str
    tasks: Tasks = dataclasses.field(default_factory=Tasks)
    log: Any = dataclasses.field(default_factory=lambda: get_logger("containers"))
