"""What is SQLite's own: the file and its faults, migrations, group commit, the log's bound, and death at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sdn.model.errors import HawseError, Kind
from sdn.model.ids import Revision
from sdn.store import database, feed, sqlite, writer
from sdn.store.database import open_database, refuse, refuse_os
from sdn.store.interface import CompactedError, Compare, Put, Transaction
from sdn.store.memory import MemoryStore
from sdn.store.migration import STEPS, migrate
from sdn.store.sqlite import SqliteStore
from sdn.store.writer import Group, Reader, Writer

NEVER = Revision(0)


@pytest.fixture(autouse=True)
def small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The length of the log is about speed alone; a short one spares the disk."""
    monkeypatch.setattr(database, "LOG_BYTES", 1 << 16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "controller.db"


def put(key: str, value: bytes = b"v") -> Transaction:
    return Transaction((), (Put(key, value),))


def content(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, raw: bytes, at: int = 0) -> None:
    """Over what is there, in place: an open database must meet it."""
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(raw)


async def refusal(path: Path) -> HawseError:
    """The error that opening must give: a sentence that names the file, and what to do."""
    with pytest.raises(HawseError) as caught:
        await SqliteStore.open(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    return caught.value


async def filled(path: Path, count: int = 3) -> None:
    store = await SqliteStore.open(path)
    for number in range(count):
        await store.commit(put(f"k{number}"))
    await store.close()


# The file


async def test_files_are_private_and_the_log_is_folded_in(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.commit(put("a"))
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    await store.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["controller.db", "controller.db.lock"]


async def test_a_second_opener_is_refused_and_the_first_goes_on(path: Path) -> None:
    store = await SqliteStore.open(path)
    error = await refusal(path)
    assert error.kind is Kind.UNAVAILABLE
    assert f"in use by another process (pid {os.getpid()})" in error.message
    child = [sys.executable, "-c", OPEN_ONCE, str(path)]
    result = await asyncio.to_thread(subprocess.run, child, capture_output=True, text=True, check=False)
    assert result.stdout == "unavailable\n", result.stderr
    assert await store.commit(put("a")) == 1
    await store.close()
    await filled(path)


OPEN_ONCE = """
import asyncio, pathlib, sys
from sdn.model.errors import HawseError
from sdn.store.sqlite import SqliteStore
try:
    asyncio.run(SqliteStore.open(pathlib.Path(sys.argv[1])))
except HawseError as error:
    print(error.kind)
"""


async def test_what_is_not_a_database(path: Path) -> None:
    write(path, b"certainly not a database\n" * 200)
    error = await refusal(path)
    assert error.kind is Kind.INVALID
    assert "is not an SQLite database" in error.message
    assert content(path).startswith(b"certainly")


@pytest.mark.parametrize("statement", ["CREATE TABLE songs (title TEXT)", "PRAGMA user_version = 7"])
async def test_the_database_of_another_program(path: Path, statement: str) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    before = content(path)
    error = await refusal(path)
    assert error.kind is Kind.INVALID
    assert "another program" in error.message
    assert content(path) == before


async def test_a_damaged_database(path: Path) -> None:
    await filled(path, 200)
    raw = bytearray(content(path))
    raw[4096 : len(raw)] = random.Random(1).randbytes(len(raw) - 4096)
    write(path, bytes(raw))
    error = await refusal(path)
    assert error.kind is Kind.INVALID
    assert "is damaged" in error.message
    assert "backup" in error.hint


async def test_a_damaged_page_that_is_met_later(path: Path) -> None:
    """The check at the start can be passed: a page that goes bad afterwards is said when it is read."""
    await filled(path, 200)
    store = await SqliteStore.open(path)
    write(path, random.Random(1).randbytes(len(content(path)) - 4096), at=4096)
    with pytest.raises(HawseError, match="is damaged"):
        await store.changes(NEVER)
    await store.close()


async def test_places_where_no_database_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    assert (await refusal(tmp_path / "file" / "x.db")).kind is Kind.INVALID
    assert (await refusal(tmp_path / "directory")).kind is Kind.UNAVAILABLE
    assert (await refusal(tmp_path / ("x" * 300))).kind is Kind.INVALID
    assert (await refusal(Path("/sys/kernel/x.db"))).kind is Kind.UNAVAILABLE


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("SQLITE_FULL", Kind.UNAVAILABLE, "no space is left"),
        ("SQLITE_BUSY", Kind.UNAVAILABLE, "somebody else is writing"),
        ("SQLITE_BUSY_SNAPSHOT", Kind.UNAVAILABLE, "somebody else is writing"),
        ("SQLITE_READONLY_DBMOVED", Kind.UNAVAILABLE, "may only be read"),
        ("SQLITE_CANTOPEN", Kind.UNAVAILABLE, "cannot be opened"),
        ("SQLITE_IOERR_FSYNC", Kind.UNAVAILABLE, "the disk gave an error"),
        ("SQLITE_CORRUPT_INDEX", Kind.INVALID, "is damaged"),
        ("SQLITE_NOTADB", Kind.INVALID, "is not an SQLite database"),
        ("SQLITE_MISUSE", Kind.INTERNAL, "cannot write to"),
    ],
)
def test_every_error_of_sqlite_has_a_sentence(name: str, kind: Kind, sentence: str) -> None:
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorname = name
    said = refuse(error, Path("x.db"), "write to")
    assert said.kind is kind
    assert sentence in said.message
    assert "x.db" in said.message
    assert said.hint


def test_every_error_of_the_file_system_has_a_sentence() -> None:
    said = refuse_os(PermissionError(13, "Permission denied"), Path("x.db"))
    assert (said.kind, said.facts) == (Kind.UNAVAILABLE, {"path": "x.db", "errno": "EACCES"})
    assert said.message == "cannot open the database x.db: Permission denied"


async def test_a_full_disk_refuses_what_does_not_fit(path: Path) -> None:
    """The large one alone: what was queued with it is committed, and so is what comes later."""
    store = await SqliteStore.open(path, size_bytes_max=200_000)
    outcomes = await asyncio.gather(
        store.commit(put("a")), store.commit(put("b", bytes(300_000))), store.commit(put("c")), return_exceptions=True
    )
    assert (outcomes[0], outcomes[2]) == (1, 2)
    assert isinstance(outcomes[1], HawseError)
    assert outcomes[1].kind is Kind.UNAVAILABLE
    assert "no space is left" in outcomes[1].message
    assert [record.key for record in (await store.load()).records] == ["a", "c"]
    assert await store.commit(put("d")) == 3
    await store.close()


async def test_somebody_else_is_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.0)
    store = await SqliteStore.open(path)
    await store.commit(put("a"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(HawseError, match="somebody else is writing"):
            await store.commit(put("a"))
        with pytest.raises(HawseError, match="somebody else is writing"):
            await store.compact(Revision(2))
        assert (await store.load()).revision == 1
        shell.execute("ROLLBACK")
    assert await store.commit(put("a")) == 2
    await store.close()


# Migrations


def tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(database.connect(tmp_path / "x.db")) as connection:
        yield connection


def test_migrations_are_taken_once_and_in_order(connection: sqlite3.Connection) -> None:
    more = (*STEPS, ("CREATE TABLE extra (x)",), ("ALTER TABLE extra ADD COLUMN y",))
    assert migrate(connection, Path("x.db"), STEPS) == len(STEPS)
    assert migrate(connection, Path("x.db"), STEPS) == 0
    assert migrate(connection, Path("x.db"), more) == 2
    assert "extra" in tables(connection)


def test_a_migration_that_fails_leaves_nothing(connection: sqlite3.Connection) -> None:
    broken = (*STEPS, ("CREATE TABLE extra (x)", "CREATE TABLE extra (x)"))
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        migrate(connection, Path("x.db"), broken)
    assert "extra" not in tables(connection)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(STEPS),)
    assert not connection.in_transaction


async def test_a_newer_database_is_refused_untouched(path: Path) -> None:
    await filled(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    before = content(path)
    error = await refusal(path)
    assert error.kind is Kind.INVALID
    assert f"written by a newer Hawse: its schema is version {len(STEPS) + 1}" in error.message
    assert content(path) == before


# Group commit, the bound of the log, the checkpoint


class Recording(sqlite3.Connection):
    """Notes the statements that it executes, and fails the one that it is told to."""

    statements: list[str] = []
    fail_at = 0

    def execute(self, sql: str, parameters: Sequence[object] = (), /) -> sqlite3.Cursor:  # type: ignore[override] # as we use it
        Recording.statements.append(sql)
        if len(Recording.statements) == Recording.fail_at:
            error = sqlite3.OperationalError("made up")
            error.sqlite_errorname = "SQLITE_IOERR"
            raise error
        return super().execute(sql, parameters)


def recording(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Recording)


@pytest.fixture
def statements() -> Iterator[list[str]]:
    Recording.statements, Recording.fail_at = [], 0
    yield Recording.statements
    Recording.fail_at = 0


def test_a_group_shares_one_commit(path: Path, statements: list[str]) -> None:
    """One sync for all; each has its own revision; the compare that fails is its own affair."""
    opened = open_database(path, connect=recording)
    subject = Writer(opened, lambda: 5.0, keep_changes=100)
    del statements[:]
    wrong = Transaction((Compare("k0", NEVER),), (Put("x", b""),))
    group = subject.commit([put("k0"), wrong, put("k1"), put("k2")])
    assert statements.count("COMMIT") == 1
    assert [outcome if isinstance(outcome, int) else outcome.kind for outcome in group.outcomes] == [
        1,
        Kind.CONFLICT,
        2,
        3,
    ]
    assert [(change.revision, change.time_s) for change in group.changes] == [(1, 5.0), (2, 5.0), (3, 5.0)]
    del statements[:]
    assert len(subject.commit([wrong]).changes) == 0
    assert "COMMIT" not in statements
    opened.close()


def test_any_statement_may_fail(path: Path, statements: list[str]) -> None:
    """For every n, the n-th fails: what was acknowledged is there, what was refused is not, revisions have no gap."""
    failures = 0
    for fail_at in range(1, 200):
        opened = open_database(path, connect=recording)
        subject = Writer(opened, lambda: 5.0, keep_changes=3)
        head = subject.head
        del statements[:]
        Recording.fail_at = fail_at
        groups = [subject.commit([put(f"{fail_at}/{n}"), put(f"{fail_at}/{n}b")]) for n in range(4)]
        reached = len(statements) >= fail_at
        Recording.fail_at = 0
        outcomes = [outcome for group in groups for outcome in group.outcomes]
        acknowledged = [outcome for outcome in outcomes if isinstance(outcome, int)]
        failures += len(outcomes) - len(acknowledged)
        assert acknowledged == list(range(head + 1, head + 1 + len(acknowledged)))
        there = {record.key: record.modified for record in Reader(opened).load(f"{fail_at}/").records}
        keys = [f"{fail_at}/{n}{b}" for n in range(4) for b in ("", "b")]
        pairs = zip(keys, outcomes, strict=True)
        assert there == {key: outcome for key, outcome in pairs if isinstance(outcome, int)}
        assert [change.revision for change in Reader(opened).changes(Revision(subject.floor - 1), 99)] == list(
            range(subject.floor, subject.head + 1)
        )
        opened.close()
        if not reached:
            break
    else:
        pytest.fail("the loop never got past the last statement")
    assert fail_at > 20
    assert failures == 0, "a failure of a statement is retried alone, and the n-th fails only once"


async def test_a_fault_of_the_writer_is_told_and_outlived(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SqliteStore.open(path)
    with monkeypatch.context() as patch:
        patch.setattr(store._writer, "_compare", lambda _: 1 / 0)
        with pytest.raises(HawseError, match="ZeroDivisionError") as caught:
            await store.commit(put("a"))
        assert caught.value.kind is Kind.INTERNAL
    assert await store.commit(put("b")) == 1
    assert [record.key for record in (await store.load()).records] == ["b"]
    await store.close()


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
async def test_the_log_keeps_the_newest(path: Path, kind: str) -> None:
    """At least as many as asked for, at most twice; whoever lags more is told."""
    store = await SqliteStore.open(path, keep_changes=10) if kind == "sqlite" else MemoryStore(keep_changes=10)
    lagging = store.watch(NEVER)
    for number in range(100):
        await store.commit(put(f"k{number}"))
    assert [change.revision for change in await store.changes(Revision(90))] == list(range(91, 101))
    with pytest.raises(CompactedError) as caught:
        await store.changes(Revision(79))
    assert 80 < caught.value.facts["oldest"] <= 91
    with pytest.raises(CompactedError):
        await anext(lagging)
    await store.close()


async def test_a_watch_that_lags_reads_the_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "TAIL_CHANGES_MAX", 5)
    monkeypatch.setattr(feed, "TAIL_BYTES_MAX", 40)
    store = await SqliteStore.open(path)
    for number in range(30):
        await store.commit(put(f"k{number}", bytes(9)))
    assert len(store._feed._tail) == 4
    watch = store.watch(NEVER)
    assert [(await anext(watch)).revision for _ in range(30)] == list(range(1, 31))
    waiting = asyncio.ensure_future(anext(watch))
    await store.commit(put("more"))
    assert (await waiting).revision == 31
    await store.close()


async def test_the_log_is_folded_in_while_running(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that the log would grow for ever. A reader meanwhile does no harm."""
    monkeypatch.setattr(writer, "CHECKPOINT_GROUPS", 4)
    store = await SqliteStore.open(path)
    for number in range(300):
        await store.commit(put(f"k{number % 9}", bytes(2000)))
        if number % 50 == 0:
            await store.load()
    assert len(content(path.with_name("controller.db-wal"))) < 1 << 20
    assert len(content(path)) > 9 * 2000
    await store.close()


async def test_more_than_a_group(path: Path) -> None:
    store = await SqliteStore.open(path)
    count = 3 * sqlite.GROUP_MAX + 1
    done = await asyncio.gather(*(store.commit(put(f"k{number}")) for number in range(count)), store.compact(NEVER))
    assert done == [*range(1, count + 1), None]
    await store.close()


async def test_whoever_writes_the_order_stays(path: Path) -> None:
    """A commit on the loop never overtakes those that the thread has, and the loop's turn comes back."""
    store = await SqliteStore.open(path, inline_below_s=3600.0)
    revisions: list[asyncio.Task[Revision]] = []
    for _ in range(40):
        for count in (1, sqlite.INLINE_MAX + 1, 1, sqlite.INLINE_MAX):
            revisions += [asyncio.create_task(store.commit(put("k"))) for _ in range(count)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert [await task for task in revisions] == list(range(1, len(revisions) + 1))
    await store.compact(NEVER)
    assert store._handed == 0
    await store.close()


async def test_a_slow_disk_has_the_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a commit is written follows its pace. The clock is made up."""
    ticks = iter(range(10**6))
    tick_s = 0.0
    monkeypatch.setattr(sqlite, "perf_counter", lambda: next(ticks) * tick_s)
    store = await SqliteStore.open(path)
    threads: list[int] = []
    write = store._write

    def noted(commits: list[sqlite._Commit]) -> tuple[Group, Revision, float]:
        threads.append(threading.get_ident())
        return write(commits)

    monkeypatch.setattr(store, "_write", noted)
    here: list[list[bool]] = []
    for tick_s in (0.0001, 0.5, 0.0001):  # noqa: B007 - the clock reads it
        del threads[:]
        for _ in range(60):
            await store.commit(put("k"))
        here.append([thread == threading.get_ident() for thread in threads])
    assert [any(phase[:1]) for phase in here] == [False, True, False]
    assert [all(phase[-5:]) for phase in here] == [True, False, True]
    assert not any(here[1][1:])
    await store.close()


# Death


COMMIT_FOR_EVER = """
import asyncio, pathlib, sys
from sdn.store.interface import Put, Transaction
from sdn.store.sqlite import SqliteStore

async def commit(store, lane):
    number = 0
    while True:
        key = f"{sys.argv[2]}/{lane}/{number}"
        revision = await store.commit(Transaction((), (Put(key, b"x" * 500), Put(key + "b", b""))))
        sys.stdout.write(f"{revision} {key}\\n")
        sys.stdout.flush()
        number += 1

async def main():
    store = await SqliteStore.open(pathlib.Path(sys.argv[1]))
    await asyncio.gather(*(commit(store, lane) for lane in range(4)))

asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledgements", [1, 40, 400])
async def test_nothing_acknowledged_is_lost_by_a_kill(path: Path, acknowledgements: int) -> None:
    """SIGKILL in the middle of commits, again and again on one database: whole transactions, no gap, a free lock."""
    acknowledged: dict[str, int] = {}
    for life in ("first", "second"):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COMMIT_FOR_EVER, str(path), life, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        lines = [await child.stdout.readline() for _ in range(acknowledgements)]
        child.send_signal(signal.SIGKILL)
        lines += (await child.stdout.read()).splitlines(keepends=True)
        assert await child.wait() == -signal.SIGKILL
        for revision, key in (line.split() for line in lines if line.endswith(b"\n")):
            acknowledged[key.decode()] = int(revision)
    store = await SqliteStore.open(path)
    snapshot = await store.load()
    there = {record.key: record.modified for record in snapshot.records}
    assert len(acknowledged) >= 2 * acknowledgements
    assert {key: there.get(key) for key in acknowledged} == acknowledged
    assert all(there.get(key + "b") == revision for key, revision in there.items() if not key.endswith("b"))
    changes = await store.changes(NEVER, 100_000)
    assert [change.revision for change in changes] == list(range(1, snapshot.revision + 1))
    await store.close()
