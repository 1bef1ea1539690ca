"""Comparing what the records say with what the supervisor holds: at the daemon's start, and at each new connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from runtime.daemon.container import Container
from runtime.daemon.containers import Containers
from runtime.daemon.endings import Endings
from runtime.daemon.records import delete
from runtime.daemon.restarts import Wish, wants_start
from runtime.daemon.states import LIVING
from runtime.daemon.supervision import EXIT_UNKNOWN, Ending, Held
from runtime.daemon.surroundings import Surroundings
from runtime.plan import ExitRecord
from sdn.model.codec import Decoder
from sdn.model.container import State
from sdn.model.errors import HawseError

RAN = ("running", "frozen", "exited")
"""States of which exec was reached; of one that is `starting` nobody was told that it had, so it is undone."""
INTERRUPTED = "the daemon ended while it was being started"

_exit_decoder: Decoder[ExitRecord] = Decoder(ExitRecord, "an exit record")


class Recovery:
    """`recover` once, before requests are served; `compare` whenever something may have been missed."""

    def __init__(self, around: Surroundings, containers: Containers, endings: Endings) -> None:
        self._around = around
        self._containers = containers
        self._endings = endings

    async def recover(self) -> None:
        """After a daemon's death: what lives on is adopted, what is half-made undone, policies are acted upon."""
        held = await self._held()
        for container in self._containers:
            async with container.lock:
                if container.record.starting:
                    await self._finish_start(container, held.get(container.id))
        await self.compare()
        for container in self._containers:
            async with container.lock:
                await self._begin(container)
        for leftover in self._around.records.leftovers():
            self._around.tasks.begin(self._delete(leftover))
        self._around.releases.collect()

    async def _delete(self, leftover: Path) -> None:
        problem = await asyncio.to_thread(delete, leftover)
        if problem:
            self._around.log.warning("not deleted", reason=problem)

    async def compare(self) -> None:
        """Ends that nobody told are handled; processes of no container are ended."""
        held = await self._held()
        for identity, one in held.items():
            if self._containers.get(identity) is None and one.ending is None:
                self._around.log.warning("a container without a record is ended", container=identity)
                await self._around.supervisor.abandon(identity)
        for container in self._containers:
            if container.living and not _lives(held.get(container.id), container):
                await self._ended_unseen(container)
            elif container.living:
                await self._follow_state(container)

    async def _held(self) -> Mapping[str, Held]:
        return {one.container: one for one in await self._around.supervisor.list()}

    async def _finish_start(self, container: Container, held: Held | None) -> None:
        """A daemon died amid a start: where exec was reached it runs, or has ended; else nothing of it may be left."""
        record = container.record
        mine = held is not None and held.run == record.run
        ending = self._read_exit(container)
        if (mine and held is not None and held.state in RAN) or ending is not None:
            pid = held.pid if held is not None else 0
            container.happened(
                self._around.log,
                state=State.RUNNING,
                starting=False,
                pid=pid,
                started_s=self._around.clock(),
                exit_code=0,
                error="",
            )
            return
        await self._around.supervisor.abandon(container.id)
        await self._around.releases.release(container.id, record.attachments)
        container.happened(self._around.log, starting=False, interfaces=(), error=INTERRUPTED, exit_code=125)

    async def _ended_unseen(self, container: Container) -> None:
        """The list that was compared may be older than the container's start: look again, alone with it."""
        async with container.lock:
            held = (await self._held()).get(container.id)
            if not container.living or _lives(held, container):
                return
            ending = self._read_exit(container)
            if ending is None and held is not None and held.run == container.record.run:
                ending = held.ending  # the disk had no room for the file
        if ending is None:
            ending = Ending(container.id, container.record.run, EXIT_UNKNOWN, False, self._around.clock())
        await self._endings.handle(container, ending)

    def _read_exit(self, container: Container) -> Ending | None:
        """What the supervisor wrote of this run."""
        try:
            data = (self._around.records.path(container.id) / "exit").read_bytes()
            record = _exit_decoder.json(data)
        except (OSError, HawseError):
            return None
        if record["run"] != container.record.run:
            return None
        return Ending(container.id, record["run"], record["code"], record["oom_killed"], record["time_ns"] / 1e9)

    async def _follow_state(self, container: Container) -> None:
        async with container.lock:
            held = (await self._held()).get(container.id)
            if held is None or not container.living:
                return
            state = State.PAUSED if held.state == "frozen" else State.RUNNING
            if (state, held.pid) != (container.record.state, container.record.pid):
                container.happened(self._around.log, state=state, pid=held.pid)

    async def _begin(self, container: Container) -> None:
        """What the policy wants of one that does not run when the daemon starts; one to be removed is."""
        record = container.record
        if container.gone or record.state in LIVING or record.damaged:
            return
        if record.spec.remove:
            if record.run:
                await self._containers.discard(container)
            return
        policy, retries = record.spec.restart, record.spec.restart_retries
        started = record.run > 0
        if started and wants_start(policy, retries, record.wish, record.exit_code, record.restarts):
            container.happened(self._around.log, wish=Wish.RUNNING)
            self._endings.schedule(container, 0.0)


def _lives(held: Held | None, container: Container) -> bool:
    return held is not None and held.run == container.record.run and held.state in ("running", "frozen", "waiting")
