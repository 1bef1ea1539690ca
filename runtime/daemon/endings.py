"""What follows the end of a run: it is recorded, forgotten below, told; then removed, or started again."""

from __future__ import annotations

import asyncio

from runtime.daemon.container import Container
from runtime.daemon.containers import Containers
from runtime.daemon.exits import Ended
from runtime.daemon.restarts import Wish, delay_s, streak_after, wants_restart
from runtime.daemon.starting import start
from runtime.daemon.states import Act, next_state
from runtime.daemon.supervision import EXIT_DAEMON, EXIT_UNKNOWN, Ending
from runtime.daemon.surroundings import Surroundings
from sdn.model.errors import HawseError
from sdn.model.runtime import Exit

EXIT_LOST = 255
"""What an end that nobody saw is shown as; Docker does likewise."""
LOST = "nobody saw how it ended: the machine or the supervisor ended with it"


class Endings:
    """Handles each end once, however often it is told."""

    def __init__(self, around: Surroundings, containers: Containers) -> None:
        self._around = around
        self._containers = containers

    def note(self, ending: Ending) -> None:
        """The supervisor has told of an end. Each is told again until it is forgotten there."""
        container = self._containers.get(ending.container)
        if container is None:
            self._around.tasks.begin(self._forget(ending.container))
            return
        self._around.tasks.begin(self.handle(container, ending))

    async def handle(self, container: Container, ending: Ending) -> None:
        """Record it and what follows of it. One that is known already, or of another run, is only forgotten below."""
        async with container.lock:
            record = container.record
            if container.gone or not container.living or ending.run != record.run:
                await self._forget(ending.container)
                return
            exit_ = self._record(container, ending)
            await self._forget(container.id)
            if record.spec.remove and not container.keep:
                await self._containers.discard(container, exit_)
                return
            container.tell(exit_)
            await self._around.releases.release(container.id, record.attachments)
            container.let_namespace_go()
            if not container.keep:
                self.consider_restart(container)

    def _record(self, container: Container, ending: Ending) -> Exit:
        record = container.record
        lost = ending.code == EXIT_UNKNOWN
        code = EXIT_LOST if lost else ending.code
        container.happened(
            self._around.log,
            state=next_state(record.state, Act.LOSE if lost else Act.EXIT, record.name),
            pid=0,
            finished_s=ending.time_s,
            exit_code=code,
            oom_killed=ending.oom_killed,
            error=LOST if lost else "",
            streak=streak_after(record.streak, ending.time_s - record.started_s),
            interfaces=(),
            log_lost_bytes=ending.log_lost_bytes,
        )
        exit_ = Exit(code=code, oom_killed=ending.oom_killed, error=LOST if lost else "")
        self._around.exits.add(Ended(id=record.id, name=record.name, run=record.run, exit=exit_))
        facts = {"exit_code": code} | ({"oom_killed": 1} if ending.oom_killed else {})
        self._around.events.note("die", record.id, record.name, **facts)
        return exit_

    async def _forget(self, container: str) -> None:
        try:
            await self._around.supervisor.forget(container)
        except HawseError as error:  # told again at the next connection
            self._around.log.info("not forgotten yet", container=container, reason=error.message)

    # Starting again -------------------------------------------------------------------------------------------------

    def consider_restart(self, container: Container) -> None:
        """After an end, or a start by the policy that failed: when, if at all. The caller has its lock."""
        record = container.record
        spec = record.spec
        if wants_restart(spec.restart, spec.restart_retries, record.wish, record.exit_code, record.restarts):
            self.schedule(container, delay_s(record.streak))

    def schedule(self, container: Container, after_s: float) -> None:
        """Start it by its policy, then."""
        container.cancel_timer()
        loop = asyncio.get_running_loop()
        container.timer = loop.call_later(after_s, lambda: self._around.tasks.begin(self._restart(container)))

    async def _restart(self, container: Container) -> None:
        async with container.lock:
            record = container.record
            if container.gone or container.living or record.wish is Wish.STOPPED:
                return
            container.happened(self._around.log, restarts=record.restarts + 1)
            try:
                await start(self._around, container)
            except HawseError as error:
                self._around.log.warning("not restarted", container=container.id, reason=error.message)
                code = error.facts.get("exit_code", EXIT_DAEMON)
                container.happened(self._around.log, exit_code=code, streak=record.streak + 1)
                self.consider_restart(container)
                return
            self._around.events.note("restart", record.id, record.name, restarts=record.restarts + 1)
