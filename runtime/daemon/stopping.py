"""Ending what runs, because a user wants it."""

from __future__ import annotations

import asyncio

from runtime.daemon.container import Container
from runtime.daemon.containers import Containers
from runtime.daemon.processes import stop_signal_of
from runtime.daemon.restarts import Wish
from runtime.daemon.signals import parse_signal
from runtime.daemon.states import Act, next_state
from runtime.daemon.surroundings import Surroundings
from sdn.model.container import ContainerInfo, State
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.model.runtime import Exit

SIGKILL = 9
ENDED = (Kind.NOT_FOUND, Kind.CONFLICT)
"""What the supervisor says of a container that ended this moment: what is told of it is on its way to us."""
KILL_S = 10.0
"""A killed process may have gigabytes to free; who is not gone by then hangs in the kernel."""


class Stopping:
    """Stop, kill, remove."""

    def __init__(self, around: Surroundings, containers: Containers) -> None:
        self._around = around
        self._containers = containers

    async def stop(self, container: Container, timeout_s: float | None) -> ContainerInfo:
        """Its stop signal, then SIGKILL. Returns once it has ended, and, where it is to be removed, is. Idempotent."""
        async with container.lock:
            self._wish_stopped(container)
            record = container.record
            if not container.living:
                return record.info()
            ending = container.ending()
            await self._thaw(container)
            await self._signal(container, self._stop_signal(container))
        bound = record.spec.stop_timeout_s if timeout_s is None else timeout_s
        await asyncio.wait([ending], timeout=max(bound, 0.0))
        if not ending.done():
            await self._kill(container, record.run, ending)
        self._around.events.note("stop", record.id, record.name)
        return container.record.info()

    async def kill(self, container: Container, signal: str) -> None:
        """A signal. Raises: CONFLICT (it does not run), INVALID."""
        number = parse_signal(signal)
        async with container.lock:
            record = container.record
            next_state(record.state, Act.SIGNAL, record.name)
            if number in (SIGKILL, self._stop_signal(container)):
                self._wish_stopped(container)
            await self._signal(container, number)
        self._around.events.note("kill", record.id, record.name, signal=number)

    async def remove(self, container: Container, force: bool) -> None:
        """Raises: CONFLICT (it runs)."""
        async with container.lock:
            if force and not container.gone:
                self._wish_stopped(container)
            if not force or not container.living:
                await self._discard(container)
                return
            ending, run = container.ending(), container.record.run
        await self._kill(container, run, ending)
        async with container.lock:
            await self._discard(container)

    async def _discard(self, container: Container) -> None:
        if container.gone:
            return
        if container.record.damaged:
            await self._around.supervisor.abandon(container.id)  # nobody knows whether it runs
        await self._containers.discard(container)

    def _wish_stopped(self, container: Container) -> None:
        container.cancel_timer()
        if container.record.wish is not Wish.STOPPED and not container.record.damaged:
            container.happened(self._around.log, wish=Wish.STOPPED)

    def _stop_signal(self, container: Container) -> int:
        record = container.record
        try:
            config = self._around.images.resolve(record.image_id).config
        except HawseError:  # an image that was taken away by force
            config = {}
        return stop_signal_of(record.spec, config)

    async def _thaw(self, container: Container) -> None:
        """What is frozen would not hear the signal."""
        record = container.record
        if record.state is State.PAUSED:
            try:
                await self._around.supervisor.freeze(record.id, on=False)
            except HawseError as error:
                if error.kind not in ENDED:
                    raise
            container.happened(self._around.log, state=next_state(record.state, Act.UNPAUSE, record.name))

    async def _signal(self, container: Container, number: int) -> None:
        try:
            await self._around.supervisor.signal(container.id, number)
        except HawseError as error:
            if error.kind not in ENDED:
                raise

    async def _kill(self, container: Container, run: int, ending: asyncio.Future[Exit]) -> None:
        async with container.lock:
            if container.living and container.record.run == run:
                await self._signal(container, SIGKILL)
        await asyncio.wait([ending], timeout=KILL_S)
        if not ending.done() and container.living and container.record.run == run:
            ending.cancel()
            raise unavailable(
                f"container {container.record.name} did not end within {KILL_S:g} s of SIGKILL",
                "one of its processes hangs in the kernel: look at 'hawse top', and at the disk it uses",
            )
