"""The daemon's parts put together around a root and a supervisor, and the listener of what the supervisor sees."""

from __future__ import annotations

import asyncio
import os
import time

from runtime.cgroup import prefix_of
from runtime.daemon.attaching import Agent
from runtime.daemon.confinement import Confinements
from runtime.daemon.containers import Containers
from runtime.daemon.endings import Endings
from runtime.daemon.events import Events
from runtime.daemon.executions import Executions
from runtime.daemon.exits import Exits
from runtime.daemon.ground import lay_ground
from runtime.daemon.images import ImageVerbs, StoredImages, sweep_if_due
from runtime.daemon.records import Records
from runtime.daemon.recovery import Recovery
from runtime.daemon.releases import Releases
from runtime.daemon.supervision import Ending
from runtime.daemon.supervisor_link import SupervisorLink
from runtime.daemon.surroundings import Surroundings
from runtime.daemon.verbs import Verbs
from runtime.image.store import ImageStore
from sdn.model.errors import HawseError
from sdn.model.version import VERSION
from sdn.service.roots import Root


class Assembly:
    """One per daemon."""

    def __init__(self, root: Root, supervisor: SupervisorLink) -> None:
        agent = Agent(root.agent_socket)
        store = ImageStore(root.images)
        records = Records(root.containers)
        memory = root.state / "runtime"
        releases = Releases(agent, lambda: self.containers.attachments())
        self.around = Surroundings(
            root=root,
            records=records,
            events=Events(memory / "events", time.time),
            exits=Exits(memory / "exits"),
            supervisor=supervisor,
            agent=agent,
            releases=releases,
            images=StoredImages(store, lay_ground(root.state / "ground")),
            confine=Confinements(root.state / "seccomp"),
            clock=time.time,
            cpus_online=os.cpu_count() or 1,
            cgroup=prefix_of(os.fspath(root.run)),
        )
        self.containers = Containers(self.around)
        for record in records.load():
            self.containers.add(record)
        self.endings = Endings(self.around, self.containers)
        self.recovery = Recovery(self.around, self.containers, self.endings)
        self.executions = Executions(self.around)
        self.around.tasks.begin(sweep_if_due(store))
        self.verbs = Verbs(
            self.around,
            self.containers,
            self.endings,
            self.executions,
            ImageVerbs(self.around, self.containers, store),
            VERSION,
        )

    # What the supervisor sees ---------------------------------------------------------------------------------------

    def ended(self, ending: Ending) -> None:
        """A run has ended."""
        self.endings.note(ending)

    def out_of_memory(self, container: str) -> None:
        """A process of it was killed for want of memory."""
        known = self.containers.get(container)
        if known is not None:
            self.around.events.note("oom", container, known.record.name)

    def executed(self, container: str, execution: str, code: int) -> None:
        """A further process has ended."""
        self.executions.note(execution, code)

    async def compare_when(self, missed: asyncio.Event) -> None:
        """Whenever another supervisor took over: it told what it knows, and what it does not know has ended."""
        while True:
            await missed.wait()
            missed.clear()
            try:
                await self.recovery.compare()
            except HawseError as error:  # it went away again, and will come again
                self.around.log.warning("not compared", reason=error.message)

    async def close(self) -> None:
        """Let go of everything; what is under way is undone or found by the next daemon."""
        for container in self.containers:
            container.cancel_timer()
        await self.around.tasks.end()
        self.around.events.close()
        self.around.exits.close()
