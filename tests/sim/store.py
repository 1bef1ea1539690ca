"""The controller's store: commits take time, fail, and are in doubt when the controller dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from sdn.model.errors import unavailable
from sdn.model.ids import Revision
from sdn.store.interface import Change, Snapshot, Transaction
from sdn.store.memory import Disk, MemoryStore
from tests.sim.virtual_time import Life


class Faults:
    """How many commits from now fails: before it is written, or after. Negative: none."""

    def __init__(self) -> None:
        self.before = -1
        self.after = -1

    def strikes_before(self) -> bool:
        """Count a commit that is about to be written."""
        self.before -= 1
        return self.before == -1

    def strikes_after(self) -> bool:
        """Count a commit that was written."""
        self.after -= 1
        return self.after == -1


class SlowStore(MemoryStore):
    """A `MemoryStore` of one life of the controller. `committed` is called as soon as something is on the disk."""

    def __init__(
        self,
        disk: Disk,
        life: Life,
        faults: Faults,
        committed: Callable[[], None],
        clock: Callable[[], float],
        keep_changes: int,
    ) -> None:
        super().__init__(disk, clock=clock, keep_changes=keep_changes)
        self._life = life
        self._faults = faults
        self._committed = committed

    async def commit(self, transaction: Transaction) -> Revision:
        """See interface.Store.commit."""
        await self._pause()
        if self._faults.strikes_before():
            raise unavailable("cannot write: the disk is full (simulated)", "make room")
        revision = await super().commit(transaction)
        self._committed()
        if self._faults.strikes_after():
            raise unavailable("cannot tell whether it was written (simulated)", "try again")
        await self._pause()
        return revision

    async def load(self, prefix: str = "") -> Snapshot:
        """See interface.Store.load."""
        snapshot = await super().load(prefix)
        await self._pause()
        return snapshot

    async def changes(self, since: Revision, limit: int = 1000) -> Sequence[Change]:
        """See interface.Store.changes."""
        await self._pause()
        return list(await super().changes(since, limit))

    async def _pause(self) -> None:
        await asyncio.sleep(self._life.pause_s())
        if self._life.dead:
            raise asyncio.CancelledError
