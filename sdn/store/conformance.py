"""The kit that every store has to pass: plain coroutines over a way to open the store, no test framework.

A case gets an `Opener`: each call opens the same store anew (empty at first), after the one before was closed. A test
runs every member of `CASES` with a fresh opener.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable

from sdn.model.errors import HawseError, Kind
from sdn.model.ids import Revision
from sdn.store.interface import (
    KEY_BYTES_MAX,
    OPERATIONS_MAX,
    VALUE_BYTES_MAX,
    Change,
    CompactedError,
    Compare,
    CompareFailedError,
    Delete,
    Put,
    Record,
    Snapshot,
    Store,
    Transaction,
)

Opener = Callable[[], Awaitable[Store]]
Case = Callable[[Opener], Awaitable[None]]
WAIT_S = 10.0
"""Bounds what a broken store would make wait for ever; no case depends on how long anything takes."""

NEVER = Revision(0)


@contextlib.asynccontextmanager
async def opened(open_store: Opener) -> AsyncIterator[Store]:
    """The store, closed in the end."""
    store = await open_store()
    try:
        yield store
    finally:
        await store.close()


def put(key: str, value: bytes = b"v", *, note: bytes = b"") -> Transaction:
    """A transaction that writes one key."""
    return Transaction((), (Put(key, value),), note)


async def refused(awaitable: Awaitable[object], kind: Kind) -> HawseError:
    """The error of this kind that the awaitable must raise."""
    try:
        await awaitable
    except HawseError as refusal:
        error = refusal
    else:
        raise AssertionError(f"it was not refused as {kind}")
    assert error.kind is kind, error
    assert error.message
    return error


async def taken(changes: AsyncIterator[Change], count: int) -> list[Change]:
    """The next `count` changes of a watch."""
    async with asyncio.timeout(WAIT_S):
        return [await anext(changes) for _ in range(count)]


async def starts_empty(open_store: Opener) -> None:
    """A new store is at revision 0 and holds nothing."""
    async with opened(open_store) as store:
        assert await store.load() == Snapshot(NEVER, ())
        assert await store.get("a") is None
        assert list(await store.changes(NEVER)) == []
        assert await store.load_soft() == {}


async def records_keep_their_revisions(open_store: Opener) -> None:
    """`created` stays over a second write, and begins anew after a delete."""
    async with opened(open_store) as store:
        one, two = await store.commit(put("a", b"1")), await store.commit(put("a", b"2"))
        assert await store.get("a") == Record("a", b"2", one, two)
        await store.commit(Transaction((), (Delete("a"),)))
        assert await store.get("a") is None
        four = await store.commit(put("a", b""))
        assert await store.get("a") == Record("a", b"", four, four)
        assert (one, two, four) == (1, 2, 4)


async def each_commit_raises_the_revision(open_store: Opener) -> None:
    """By one, also when it changes nothing; a delete of what is absent is not in the change."""
    async with opened(open_store) as store:
        assert await store.commit(Transaction((), (), b"nothing")) == 1
        assert await store.commit(Transaction((), (Delete("absent"), Put("a", b"v")))) == 2
        first, second = await store.changes(NEVER)
        assert (first.writes, first.note) == ((), b"nothing")
        assert second.writes == (Put("a", b"v"),)


async def compares_guard_writes(open_store: Opener) -> None:
    """One compare that fails refuses everything and names itself; nothing is written, no revision is used."""
    async with opened(open_store) as store:
        one = await store.commit(Transaction((Compare("a", NEVER),), (Put("a", b"1"),)))
        two = await store.commit(Transaction((Compare("a", one), Compare("b", NEVER)), (Put("a", b"2"),)))
        for compares, key, found in (
            ((Compare("a", NEVER),), "a", two),
            ((Compare("a", one),), "a", two),
            ((Compare("a", two), Compare("b", one)), "b", NEVER),
        ):
            error = await refused(store.commit(Transaction(compares, (Put("a", b"x"), Put("b", b"x")))), Kind.CONFLICT)
            assert isinstance(error, CompareFailedError)
            assert (error.key, error.found) == (key, found)
        assert await store.load() == Snapshot(two, (Record("a", b"2", one, two),))
        assert len(await store.changes(NEVER)) == 2


async def limits_are_enforced(open_store: Opener) -> None:
    """At a limit: taken. Above it, or malformed: INVALID, and nothing happened."""
    many = tuple(Put(f"k{number}", b"") for number in range(OPERATIONS_MAX - 1))
    async with opened(open_store) as store:
        good = (
            Transaction((Compare("k0", NEVER),), many),
            put("k" * KEY_BYTES_MAX),
            put("large", bytes(VALUE_BYTES_MAX), note=bytes(VALUE_BYTES_MAX)),
        )
        for transaction in good:
            await store.commit(transaction)
        before = await store.load()
        bad = (
            Transaction((Compare("a", NEVER), Compare("b", NEVER)), many),
            Transaction((), (Put("a", b"1"), Delete("a"))),
            put("k" * (KEY_BYTES_MAX + 1)),
            put("é" * (KEY_BYTES_MAX // 2 + 1)),
            put(""),
            put("\ud800"),
            Transaction((Compare("", NEVER),), ()),
            put("a", bytes(VALUE_BYTES_MAX + 1)),
            put("a", note=bytes(VALUE_BYTES_MAX + 1)),
        )
        for transaction in bad:
            await refused(store.commit(transaction), Kind.INVALID)
        await refused(store.put_soft("a", bytes(VALUE_BYTES_MAX + 1)), Kind.INVALID)
        await refused(store.put_soft("", b""), Kind.INVALID)
        assert await store.load() == before


async def commits_take_effect_in_order(open_store: Opener) -> None:
    """Many at a time: revisions in the order in which they were begun; one that fails harms no other."""
    async with opened(open_store) as store:
        one = await store.commit(put("a"))
        wrong = Transaction((Compare("a", NEVER),), (Put("wrong", b"x"),))
        begun = [wrong if number % 3 == 1 else put(f"k{number:03}") for number in range(300)]
        done = await asyncio.gather(*(store.commit(transaction) for transaction in begun), return_exceptions=True)
        revisions = [outcome for outcome in done if isinstance(outcome, int)]
        assert [isinstance(outcome, CompareFailedError) for outcome in done] == [t is wrong for t in begun]
        assert revisions == list(range(one + 1, one + 1 + len(revisions)))
        snapshot = await store.load("k")
        assert [record.modified for record in snapshot.records] == revisions
        assert await store.get("wrong") is None


async def no_increment_is_lost(open_store: Opener) -> None:
    """Compare-and-swap by many at a time: each of them counts once."""

    async def increment(store: Store) -> None:
        while True:
            record = await store.get("n")
            value, modified = (int(record.value), record.modified) if record else (0, NEVER)
            try:
                await store.commit(Transaction((Compare("n", modified),), (Put("n", b"%d" % (value + 1)),)))
            except CompareFailedError:
                continue
            return

    async with opened(open_store) as store:
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
            for _ in range(12):
                group.create_task(increment(store))
        record = await store.get("n")
        assert record is not None
        assert record.value == b"12"
        assert record.modified == 12


async def load_is_a_sorted_range(open_store: Opener) -> None:
    """A prefix takes exactly the keys that start with it, sorted by code point, whatever the characters."""
    keys = ["a", "a/", "a/b", "a/\x00", "a/\x7f", "a/é", "a/\uffff", "a/\U0010ffff", "a0", "b", "é", "\U0010ffff"]
    async with opened(open_store) as store:
        for key in reversed(keys):
            await store.commit(put(key, key.encode()))
        for prefix in ("", "a", "a/", "a/é", "é", "\U0010ffff", "zz"):
            snapshot = await store.load(prefix)
            assert [record.key for record in snapshot.records] == sorted(k for k in keys if k.startswith(prefix))
            assert all(record.value == record.key.encode() for record in snapshot.records)
            assert snapshot.revision == len(keys)


async def load_sees_one_revision(open_store: Opener) -> None:
    """Two keys that are always written together are never seen apart, and never newer than the snapshot."""
    async with opened(open_store) as store:

        async def write() -> None:
            for number in range(100):
                value = b"%d" % number
                await store.commit(Transaction((), (Put("x", value), Put("y", value))))

        async with asyncio.timeout(WAIT_S):
            writing = asyncio.create_task(write())
            while not writing.done():
                snapshot = await store.load()
                assert len({(record.value, record.modified) for record in snapshot.records}) <= 1
                assert all(record.modified == snapshot.revision for record in snapshot.records)
                await asyncio.sleep(0)
            await writing


async def changes_tell_what_was_done(open_store: Opener) -> None:
    """Writes in their order, note, time; from a revision, at most so many."""
    async with opened(open_store) as store:
        writes = (Put("b", b"\x00\xff"), Delete("a"), Put("c", b""))
        await store.commit(put("a", b"1", note=b"who"))
        await store.commit(Transaction((), writes, b"\xffwhy"))
        await store.commit(put("d"))
        first, second, third = await store.changes(NEVER)
        assert (first.revision, first.writes, first.note) == (1, (Put("a", b"1"),), b"who")
        assert (second.revision, second.writes, second.note) == (2, writes, b"\xffwhy")
        assert 0 < first.time_s <= second.time_s <= third.time_s
        assert list(await store.changes(Revision(1), 1)) == [second]
        assert list(await store.changes(Revision(3))) == []
        assert list(await store.changes(Revision(9))) == []


async def compaction_forgets_changes_alone(open_store: Opener) -> None:
    """Whoever asks for what is gone is told; the records and the newer changes stay, also after a restart."""
    async with opened(open_store) as store:
        for number in range(6):
            await store.commit(put(f"k{number}"))
        await store.compact(Revision(4))
        await store.compact(Revision(2))
        await _check_compacted(store)
        assert len((await store.load()).records) == 6
    async with opened(open_store) as store:
        await _check_compacted(store)
        await store.compact(Revision(100))
        assert list(await store.changes(Revision(6))) == []
        assert await store.commit(put("next")) == 7
        assert [change.revision for change in await store.changes(Revision(6))] == [7]


async def _check_compacted(store: Store) -> None:
    assert [change.revision for change in await store.changes(Revision(3))] == [4, 5, 6]
    for since in (0, 2):
        for attempt in (store.changes(Revision(since)), anext(store.watch(Revision(since)))):
            error = await refused(attempt, Kind.NOT_FOUND)
            assert isinstance(error, CompactedError)
            assert error.facts == {"since": since, "oldest": 4}


async def watch_has_no_gap(open_store: Opener) -> None:
    """What was and what comes, once each, in order, for watchers from different places and of different speed."""
    async with opened(open_store) as store:
        for number in range(5):
            await store.commit(put(f"k{number}"))

        async def follow(since: int) -> list[int]:
            return [change.revision for change in await taken(store.watch(Revision(since)), 205 - since)]

        async with asyncio.TaskGroup() as group:
            following = {since: group.create_task(follow(since)) for since in (0, 3, 5)}
            for number in range(200):
                await store.commit(put("again", b"%d" % number))
        for since, task in following.items():
            assert task.result() == list(range(since + 1, 206))
        late = store.watch(NEVER)
        assert [change.revision for change in await taken(late, 2)] == [1, 2]
        await store.commit(put("meanwhile"))
        assert [change.revision for change in await taken(late, 204)] == list(range(3, 207))


async def watch_wakes_on_commit(open_store: Opener) -> None:
    """A watch that waits gets the commit, with its writes; one that was cancelled harms nobody."""
    async with opened(open_store) as store:
        left, stays = store.watch(NEVER), store.watch(NEVER)
        tasks = [asyncio.create_task(taken(watch, 1)) for watch in (left, stays)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await store.commit(put("a", b"1", note=b"n"))
        (change,) = await tasks[1]
        assert (change.revision, change.writes, change.note) == (1, (Put("a", b"1"),), b"n")
        assert (await asyncio.gather(tasks[0], return_exceptions=True))[0].__class__ is asyncio.CancelledError


async def soft_state_is_soft(open_store: Opener) -> None:
    """No revision, no change, not among the records, gone after a restart."""
    async with opened(open_store) as store:
        await store.put_soft("beat/1", b"1")
        await store.put_soft("beat/1", b"2")
        await store.put_soft("other", b"")
        assert await store.load_soft("beat/") == {"beat/1": b"2"}
        assert set(await store.load_soft()) == {"beat/1", "other"}
        assert await store.load() == Snapshot(NEVER, ())
    async with opened(open_store) as store:
        assert await store.load_soft() == {}


async def a_restart_keeps_everything(open_store: Opener) -> None:
    """Records, revision and changes are those from before, and revisions go on."""
    async with opened(open_store) as store:
        for number in range(20):
            await store.commit(put(f"k{number % 7}", b"%d" % number, note=b"n"))
        records, changes = await store.load(), list(await store.changes(NEVER))
    async with opened(open_store) as store:
        assert await store.load() == records
        assert list(await store.changes(NEVER)) == changes
        assert await store.commit(put("k")) == 21
        assert [change.revision for change in await taken(store.watch(Revision(19)), 2)] == [20, 21]


async def close_finishes_what_was_begun(open_store: Opener) -> None:
    """Commits that were begun are answered, watches end, later calls are UNAVAILABLE, closing twice is fine."""
    store = await open_store()
    watching = asyncio.create_task(_count(store.watch(NEVER)))
    begun = [asyncio.create_task(store.commit(put(f"k{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), store.close())
    assert [await task for task in begun] == list(range(1, 51))
    await store.close()
    async with asyncio.timeout(WAIT_S):
        assert await watching <= 50
    for call in (store.commit(put("a")), store.get("a"), store.load(), store.changes(NEVER), store.put_soft("a", b"")):
        await refused(call, Kind.UNAVAILABLE)
    async with opened(open_store) as again:
        assert (await again.load()).revision == 50


async def _count(changes: AsyncIterator[Change]) -> int:
    return len([change async for change in changes])


async def a_cancelled_commit_is_all_or_nothing(open_store: Opener) -> None:
    """Whoever gives up does not know the outcome, but there is one, and the others get theirs."""
    async with opened(open_store) as store:
        tasks = [
            asyncio.create_task(store.commit(Transaction((), (Put(f"x{n:02}", b""), Put(f"y{n:02}", b"")))))
            for n in range(30)
        ]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        last = await store.commit(put("z"))
        assert [change.revision for change in await store.changes(NEVER)] == list(range(1, last + 1))
        there = {key: {r.key[1:] for r in (await store.load(key)).records} for key in "xy"}
        assert there["x"] == there["y"]
        assert there["x"] >= {f"{n:02}" for n in range(1, 30, 2)}


async def a_random_walk_equals_the_model(open_store: Opener) -> None:
    """Any sequence of puts, deletes, right and wrong compares, compactions and restarts does what a dictionary does."""
    for seed in range(4):
        await _Walk(random.Random(seed)).run(open_store, steps=120)  # noqa: S311 - a seeded test, no secret


class _Walk:
    """A dictionary with revisions, and the store that has to equal it. Starts from what the store holds."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._records: dict[str, Record] = {}
        self._head = self._floor = 0

    async def run(self, open_store: Opener, steps: int) -> None:
        store = await open_store()
        try:
            start = await store.load()
            self._records = {record.key: record for record in start.records}
            self._head, self._floor = start.revision, start.revision + 1
            await store.compact(Revision(self._floor))
            for _ in range(steps):
                if self._chance.random() < 0.03:
                    await store.close()
                    store = await open_store()
                elif self._chance.random() < 0.05:
                    self._floor = max(self._floor, self._chance.randint(self._floor, self._head + 1))
                    await store.compact(Revision(self._floor))
                else:
                    await self._commit(store)
                await self._check(store)
        finally:
            await store.close()

    async def _commit(self, store: Store) -> None:
        keys = self._chance.sample("abcdefgh", self._chance.randint(0, 4))
        writes = [Delete(key) if self._chance.random() < 0.4 else Put(key, self._chance.randbytes(3)) for key in keys]
        compares = []
        for key in self._chance.sample("abcdefgh", self._chance.randint(0, 2)):
            right = self._records[key].modified if key in self._records else 0
            compares.append(Compare(key, Revision(right + (self._chance.random() < 0.2))))
        fails = any(c.modified != (self._records[c.key].modified if c.key in self._records else 0) for c in compares)
        transaction = Transaction(tuple(compares), tuple(writes))
        if fails:
            assert isinstance(await refused(store.commit(transaction), Kind.CONFLICT), CompareFailedError)
            return
        self._head += 1
        revision = Revision(self._head)
        assert await store.commit(transaction) == revision
        done = tuple(write for write in writes if isinstance(write, Put) or write.key in self._records)
        for write in done:
            old = self._records.pop(write.key, None)
            if isinstance(write, Put):
                self._records[write.key] = Record(write.key, write.value, old.created if old else revision, revision)
        assert [change.writes for change in await store.changes(Revision(revision - 1))] == [done]

    async def _check(self, store: Store) -> None:
        records = tuple(self._records[key] for key in sorted(self._records))
        assert await store.load() == Snapshot(Revision(self._head), records)
        revisions = [change.revision for change in await store.changes(Revision(self._floor - 1))]
        assert revisions == list(range(self._floor, self._head + 1))


CASES: tuple[Case, ...] = (
    starts_empty,
    records_keep_their_revisions,
    each_commit_raises_the_revision,
    compares_guard_writes,
    limits_are_enforced,
    commits_take_effect_in_order,
    no_increment_is_lost,
    load_is_a_sorted_range,
    load_sees_one_revision,
    changes_tell_what_was_done,
    compaction_forgets_changes_alone,
    watch_has_no_gap,
    watch_wakes_on_commit,
    soft_state_is_soft,
    a_restart_keeps_everything,
    close_finishes_what_was_begun,
    a_cancelled_commit_is_all_or_nothing,
    a_random_walk_equals_the_model,
)
