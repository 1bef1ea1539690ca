"""The embedded store: SQLite with a write-ahead log, one writer thread that shares an fsync among what is queued.

A commit's way: checked on the event loop, queued, taken by the writer thread together with whatever else is queued,
committed as one SQLite transaction, answered on the loop (one wake-up for the group), published to the watchers. Reads
have their own thread and connection and never wait for the writer; the newest changes are served from memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sdn.model.errors import HawseError, Kind, unavailable
from sdn.model.ids import Revision
from sdn.store.database import SIZE_BYTES_MAX, Connect, Database, connect, open_database
from sdn.store.feed import Feed
from sdn.store.interface import Change, Record, Snapshot, Transaction
from sdn.store.limits import check_key, check_transaction, check_value
from sdn.store.writer import Group, Reader, Writer

GROUP_MAX = 128
"""Transactions that share an fsync: above, the first in the group would wait for the last without gain."""
KEEP_CHANGES = 10_000

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Commit:
    transaction: Transaction
    done: asyncio.Future[Revision]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Compact:
    before: Revision
    done: asyncio.Future[None]


class _Stop(enum.Enum):
    STOP = enum.auto()


class SqliteStore:
    """See interface.Store. Bound to the event loop that opened it."""

    def __init__(self, database: Database, clock: Callable[[], float], keep_changes: int) -> None:
        self._database = database
        self._writer = Writer(database, clock, keep_changes)
        self._reader = Reader(database)
        self._loop = asyncio.get_running_loop()
        self._feed = Feed(self._writer.head, self._writer.floor)
        self._soft: dict[str, bytes] = {}
        self._queue: queue.SimpleQueue[_Commit | _Compact | _Stop] = queue.SimpleQueue()
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="store-read")
        self._written = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        # A daemon thread: a process that dies without close() must not hang; what it acknowledged is on the disk.
        threading.Thread(target=self._run, name="store-write", daemon=True).start()

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        keep_changes: int = KEEP_CHANGES,
        size_bytes_max: int = SIZE_BYTES_MAX,
        connect: Connect = connect,
    ) -> SqliteStore:
        """Open or make the database at `path`, for this process alone; its directory is made.

        `keep_changes`: how many changes the log keeps at least; `clock`: seconds since the epoch. Raises: UNAVAILABLE
        (in use by another process, no permission, disk full); INVALID (not a database, damaged, of a newer version).
        """
        assert keep_changes > 0
        database = await asyncio.to_thread(open_database, path, size_bytes_max=size_bytes_max, connect=connect)
        return cls(database, clock, keep_changes)

    async def commit(self, transaction: Transaction) -> Revision:
        """See interface.Store.commit. When the caller is cancelled, the transaction may still take effect."""
        check_transaction(transaction)
        self._check_open()
        done: asyncio.Future[Revision] = self._loop.create_future()
        self._queue.put(_Commit(transaction, done))
        return await done

    async def load(self, prefix: str = "") -> Snapshot:
        """See interface.Store.load."""
        return await self._read(self._reader.load, prefix)

    async def get(self, key: str) -> Record | None:
        """See interface.Store.get."""
        return await self._read(self._reader.get, key)

    async def changes(self, since: Revision, limit: int = 1000) -> Sequence[Change]:
        """See interface.Store.changes."""
        self._check_open()
        return await self._changes(since, limit)

    def watch(self, since: Revision) -> AsyncIterator[Change]:
        """See interface.Store.watch. Ends when the store is closed."""
        self._check_open()
        return self._feed.watch(since, self._changes)

    async def compact(self, before: Revision) -> None:
        """See interface.Store.compact."""
        self._check_open()
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(_Compact(before, done))
        await done

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
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._queue.put(_Stop.STOP)
        await self._written.wait()
        self._feed.close()
        await asyncio.to_thread(self._reads.shutdown)
        await asyncio.to_thread(self._database.close)

    async def _read(self, read: Callable[..., T], *arguments: object) -> T:
        self._check_open()
        return await self._loop.run_in_executor(self._reads, read, *arguments)

    async def _changes(self, since: Revision, limit: int) -> Sequence[Change]:
        near = self._feed.after(since, limit)
        if near is not None:
            return near
        return await self._loop.run_in_executor(self._reads, self._reader.changes, since, limit)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise unavailable(f"the store {self._database.path} is closed", "the controller is stopping: try again")

    def _run(self) -> None:
        """The writer thread: until the end that close() queues."""
        stopping = False
        while not stopping:
            commits, last = self._take()
            if commits:
                self._commit(commits)
            if isinstance(last, _Compact):
                self._compact(last)
            stopping = last is _Stop.STOP
            self._writer.checkpoint_if_due()
        self._call(self._written.set)

    def _take(self) -> tuple[list[_Commit], _Compact | _Stop | None]:
        """Wait for work; then the commits that are queued, up to a compaction or the end, which comes after them."""
        commits: list[_Commit] = []
        job = self._queue.get()
        while isinstance(job, _Commit):
            commits.append(job)
            if len(commits) == GROUP_MAX:
                return commits, None
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return commits, None
        return commits, job

    def _commit(self, commits: list[_Commit]) -> None:
        try:
            group = self._writer.commit([commit.transaction for commit in commits])
        except Exception as error:  # noqa: BLE001 - a bug: the callers must hear of it and the thread must live on
            problem = HawseError(Kind.INTERNAL, f"the store failed: {error!r}", hint="report this")
            group = Group((problem,) * len(commits), ())
        self._call(self._deliver, commits, group, self._writer.floor)

    def _compact(self, job: _Compact) -> None:
        try:
            self._writer.compact(job.before)
        except HawseError as error:
            self._call(_settle, job.done, error)
            return
        self._call(self._feed.publish, (), self._writer.floor)
        self._call(_settle, job.done, None)

    def _deliver(self, commits: list[_Commit], group: Group, floor: Revision) -> None:
        """On the loop: watchers first, so that whoever awaited a commit finds it published."""
        self._feed.publish(group.changes, floor)
        for commit, outcome in zip(commits, group.outcomes, strict=True):
            _settle(commit.done, outcome)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed without close(): nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)


def _settle(done: asyncio.Future[T], outcome: T | HawseError) -> None:
    if done.done():  # the caller was cancelled
        return
    if isinstance(outcome, HawseError):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
