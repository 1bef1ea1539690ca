"""The embedded store: SQLite with a write-ahead log, and one fsync for whatever was begun meanwhile.

A commit's way: checked, put with what else is begun in this turn of the event loop, written as one SQLite transaction,
published to the watchers, answered. While the disk is quick (see INLINE_BELOW_S) a few at a time are written on the
loop itself: waking a thread and being woken by it takes as long again as the commit. Otherwise the writer thread takes
them, and everything that is queued by then shares its fsync. The two never write at once, and the order stays.

Reads have their own thread and connection and never wait for the writer; the newest changes are served from memory.
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
from time import perf_counter
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
INLINE_BELOW_S = 0.001
"""Commits are written on the loop while they take less than this on average: what it is kept from is then no more than
the switching would cost. A disk that stalls stops the loop once, and has the thread until it is quick again."""
INLINE_MAX = 4
"""Transactions that are written on the loop in one go."""
PACE_WEIGHT = 0.2
"""Of the newest commit in the average; the average begins above the bound, so the first few measure the disk."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Commit:
    transaction: Transaction
    done: asyncio.Future[Revision]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Compact:
    before: Revision
    done: asyncio.Future[None]


class _Order(enum.Enum):
    CHECKPOINT = enum.auto()
    STOP = enum.auto()


class SqliteStore:
    """See interface.Store. Bound to the event loop that opened it."""

    def __init__(
        self, database: Database, clock: Callable[[], float], keep_changes: int, inline_below_s: float
    ) -> None:
        self._database = database
        self._writer = Writer(database, clock, keep_changes)
        self._reader = Reader(database)
        self._loop = asyncio.get_running_loop()
        self._feed = Feed(self._writer.head, self._writer.floor)
        self._soft: dict[str, bytes] = {}
        self._begun: list[_Commit] = []
        self._queue: queue.SimpleQueue[_Commit | _Compact | _Order] = queue.SimpleQueue()
        self._handed = 0
        """Jobs that the writer thread has, or has in its queue: the writer is the loop's only while there is none."""
        self._checkpointing = False
        self._inline_below_s = inline_below_s
        self._pace_s = 2 * inline_below_s
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
        inline_below_s: float = INLINE_BELOW_S,
        connect: Connect = connect,
    ) -> SqliteStore:
        """Open or make the database at `path`, for this process alone; its directory is made.

        `keep_changes`: how many changes the log keeps at least; `clock`: seconds since the epoch; `inline_below_s`:
        see INLINE_BELOW_S, 0 never writes on the loop. Raises: UNAVAILABLE (in use by another process, no permission,
        disk full); INVALID (not a database, damaged, of a newer version).
        """
        assert keep_changes > 0
        database = await asyncio.to_thread(open_database, path, size_bytes_max=size_bytes_max, connect=connect)
        return cls(database, clock, keep_changes, inline_below_s)

    async def commit(self, transaction: Transaction) -> Revision:
        """See interface.Store.commit. When the caller is cancelled, the transaction may still take effect."""
        check_transaction(transaction)
        self._check_open()
        done: asyncio.Future[Revision] = self._loop.create_future()
        if not self._begun:
            self._loop.call_soon(self._flush)
        self._begun.append(_Commit(transaction, done))
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
        self._flush()
        self._hand(_Compact(before, done))
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
        self._flush()
        self._hand(_Order.STOP)
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

    def _flush(self) -> None:
        """Write what was begun, or hand it to the thread."""
        commits, self._begun = self._begun, []
        if self._handed or len(commits) > INLINE_MAX or self._pace_s >= self._inline_below_s:
            for commit in commits:
                self._hand(commit)
        elif commits:
            self._deliver(commits, *self._write(commits))

    def _hand(self, job: _Commit | _Compact | _Order) -> None:
        self._handed += 1
        self._queue.put(job)

    def _run(self) -> None:
        """The writer thread: until the end that close() queues."""
        last: _Compact | _Order | None = None
        while last is not _Order.STOP:
            commits, last = self._take()
            if commits:
                self._call(self._returned, commits, *self._write(commits))
            if isinstance(last, _Compact):
                self._compact(last)
            elif last is _Order.CHECKPOINT:
                self._writer.checkpoint()
                self._call(self._checkpointed)
        self._call(self._written.set)

    def _take(self) -> tuple[list[_Commit], _Compact | _Order | None]:
        """Wait for work; then the commits that are queued, up to another job, which comes after them."""
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

    def _write(self, commits: list[_Commit]) -> tuple[Group, Revision, float]:
        """What came of it, the floor of the log, and how long it took in seconds. By whoever has the writer."""
        start = perf_counter()
        try:
            group = self._writer.commit([commit.transaction for commit in commits])
        except Exception as error:  # noqa: BLE001 - a bug: the callers must hear of it and the thread must live on
            problem = HawseError(Kind.INTERNAL, f"the store failed: {error!r}", hint="report this")
            group = Group((problem,) * len(commits), ())
        return group, self._writer.floor, perf_counter() - start

    def _compact(self, job: _Compact) -> None:
        outcome: HawseError | None = None
        try:
            self._writer.compact(job.before)
        except HawseError as error:
            outcome = error
        self._call(self._compacted, job, outcome, self._writer.floor)

    # On the loop again:

    def _returned(self, commits: list[_Commit], group: Group, floor: Revision, took_s: float) -> None:
        self._handed -= len(commits)
        self._deliver(commits, group, floor, took_s)

    def _deliver(self, commits: list[_Commit], group: Group, floor: Revision, took_s: float) -> None:
        """Watchers first, so that whoever awaited a commit finds it published."""
        self._pace_s += PACE_WEIGHT * (took_s - self._pace_s)
        self._feed.publish(group.changes, floor)
        for commit, outcome in zip(commits, group.outcomes, strict=True):
            _settle(commit.done, outcome)
        if self._writer.checkpoint_is_due and not self._checkpointing:
            self._checkpointing = True
            self._hand(_Order.CHECKPOINT)

    def _compacted(self, job: _Compact, outcome: HawseError | None, floor: Revision) -> None:
        self._handed -= 1
        self._feed.publish((), floor)
        _settle(job.done, outcome)

    def _checkpointed(self) -> None:
        self._handed -= 1
        self._checkpointing = False

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
