"""A store in memory, for tests of the core: a verified fake, for it passes the conformance kit.

What is durable lives in a `Disk`; a store opened on the same disk goes on from it, as after a restart.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Sequence

from sdn.model.errors import unavailable
from sdn.model.ids import Revision
from sdn.store.feed import Feed
from sdn.store.interface import (
    Change,
    CompactedError,
    CompareFailedError,
    Delete,
    Put,
    Record,
    Snapshot,
    Transaction,
)
from sdn.store.limits import check_key, check_transaction, check_value

_NONE_YET = Revision(0)
_FIRST = Revision(1)


@dataclasses.dataclass(slots=True)
class Disk:
    """What survives a restart. `floor`: the lowest revision whose change is kept."""

    records: dict[str, Record] = dataclasses.field(default_factory=dict)
    log: list[Change] = dataclasses.field(default_factory=list)
    head: Revision = _NONE_YET
    floor: Revision = _FIRST


class MemoryStore:
    """See interface.Store."""

    def __init__(
        self, disk: Disk | None = None, *, clock: Callable[[], float] = time.time, keep_changes: int = 10_000
    ) -> None:
        self._disk = disk if disk is not None else Disk()
        self._clock = clock
        self._keep = keep_changes
        self._feed = Feed(self._disk.head, self._disk.floor)
        self._soft: dict[str, bytes] = {}
        self._closed = False

    async def commit(self, transaction: Transaction) -> Revision:
        """See interface.Store.commit."""
        check_transaction(transaction)
        self._check_open()
        disk = self._disk
        for compare in transaction.compares:
            record = disk.records.get(compare.key)
            found = record.modified if record else Revision(0)
            if found != compare.modified:
                raise CompareFailedError(compare.key, compare.modified, found)
        disk.head = Revision(disk.head + 1)
        change = Change(disk.head, self._write(transaction), transaction.note, self._clock())
        disk.log.append(change)
        self._forget_before(Revision(disk.head - self._keep + 1))
        self._feed.publish((change,), disk.floor)
        revision = change.revision
        await asyncio.sleep(0)  # as with a real store, others may run between the commit and its answer
        return revision

    async def load(self, prefix: str = "") -> Snapshot:
        """See interface.Store.load."""
        self._check_open()
        records = sorted((key, record) for key, record in self._disk.records.items() if key.startswith(prefix))
        return Snapshot(self._disk.head, tuple(record for _, record in records))

    async def get(self, key: str) -> Record | None:
        """See interface.Store.get."""
        self._check_open()
        return self._disk.records.get(key)

    async def changes(self, since: Revision, limit: int = 1000) -> Sequence[Change]:
        """See interface.Store.changes."""
        self._check_open()
        disk = self._disk
        if since + 1 < disk.floor:
            raise CompactedError(since, disk.floor)
        start = since + 1 - disk.floor
        return disk.log[start : start + limit]

    def watch(self, since: Revision) -> AsyncIterator[Change]:
        """See interface.Store.watch. Ends when the store is closed."""
        self._check_open()
        return self._feed.watch(since, self.changes)

    async def compact(self, before: Revision) -> None:
        """See interface.Store.compact."""
        self._check_open()
        self._forget_before(before)
        self._feed.publish((), self._disk.floor)

    async def put_soft(self, key: str, value: bytes) -> None:
        """See interface.Store.put_soft."""
        check_key(key)
        check_value(key, value)
        self._check_open()
        self._soft[key] = value

    async def load_soft(self, prefix: str = "") -> dict[str, bytes]:
        """See interface.Store.load_soft."""
        self._check_open()
        return {key: value for key, value in self._soft.items() if key.startswith(prefix)}

    async def close(self) -> None:
        """See interface.Store.close."""
        self._closed = True
        self._feed.close()

    def _write(self, transaction: Transaction) -> tuple[Put | Delete, ...]:
        disk, done = self._disk, list[Put | Delete]()
        for write in transaction.writes:
            if isinstance(write, Put):
                before = disk.records.get(write.key)
                created = before.created if before else disk.head
                disk.records[write.key] = Record(write.key, write.value, created, disk.head)
            elif disk.records.pop(write.key, None) is None:
                continue
            done.append(write)
        return tuple(done)

    def _forget_before(self, before: Revision) -> None:
        disk = self._disk
        floor = Revision(min(before, disk.head + 1))
        if floor > disk.floor:
            del disk.log[: floor - disk.floor]
            disk.floor = floor

    def _check_open(self) -> None:
        if self._closed:
            raise unavailable("the store is closed", "the controller is stopping: try again")
