"""The controller: its disk, which lasts, and its core, which comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from sdn.controller.core import Core
from sdn.controller.options import Options
from sdn.model.errors import unavailable
from sdn.store.memory import Disk
from tests.sim.store import Faults, SlowStore
from tests.sim.virtual_time import DiedError, Life
from tests.sim.wire import Wire

T = TypeVar("T")
NOW_S = 1_700_000_000.0


class Surroundings(Protocol):
    """What the controller needs of the world."""

    def life(self, name: str, slowness: Callable[[], float]) -> Life:
        """A new process."""

    def say(self, text: str) -> None:
        """Write something into the trace."""

    def fail(self, text: str) -> None:
        """An invariant does not hold."""

    def bits(self, count: int) -> int:
        """Of the one source of randomness."""


class Centre:
    """Where the controller runs. `committed` is called after every write on the disk."""

    def __init__(self, world: Surroundings, options: Options, keep_changes: int, committed: Callable[[], None]) -> None:
        self.disk = Disk()
        self.faults = Faults()
        self.core: Core | None = None
        self.life: Life | None = None
        self.wires: list[Wire] = []
        self._world = world
        self._options = options
        self._keep = keep_changes
        self._committed = committed

    def start(self) -> None:
        """Start the controller, unless it runs."""
        if self.life is None:
            self.life = self._world.life("controller", lambda: 1.0)
            self._world.say("the controller starts")
            self.life.spawn(self._run(self.life))

    async def _run(self, life: Life) -> None:
        loop = asyncio.get_running_loop()

        def clock() -> float:
            return NOW_S + loop.time()

        store = SlowStore(self.disk, life, self.faults, self._committed, clock, self._keep)
        try:
            self.core = await Core.start(store, clock=clock, random_bits=self._world.bits, options=self._options)
        # A fault of the controller's, or of its disk: it would end with a sentence and be started again.
        except Exception as error:  # noqa: BLE001
            self._world.say(f"the controller does not start: {error}")
            loop.call_soon(self.kill, "because it cannot start")
            loop.call_later(0.5, self.start)

    def kill(self, why: str) -> None:
        """SIGKILL: what is on the disk stays."""
        if self.life is None:
            return
        self._world.say(f"the controller is killed {why}")
        self.life.kill()
        self.life = self.core = None
        for wire in list(self.wires):
            wire.drop()

    async def stop(self) -> None:
        """SIGTERM: an orderly end."""
        core, life = self.core, self.life
        if core is not None and life is not None:
            self._world.say("the controller is stopped")
            try:
                await life.call(core.close())
            except DiedError:
                return
            if self.life is life:
                self.kill("and gone")

    async def call(self, ask: Callable[[Core], Coroutine[Any, Any, T]]) -> T:
        """A request of the REST API. Raises: HawseError; DiedError when it is not known what came of it."""
        core, life = self.core, self.life
        if core is None or life is None:
            raise unavailable("the controller is not running", "start it")
        return await life.call(ask(core))
