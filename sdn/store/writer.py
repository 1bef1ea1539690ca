"""Transactions on the writing connection, many to one fsync, and reads on the other. The threads are the shell's.

Each transaction of a group has its own compares, its own revision and its own outcome. All compares of a transaction
are looked at before its first write, so one that fails leaves nothing to undo.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from sdn.model.codec import Decoder
from sdn.model.errors import HawseError
from sdn.model.ids import Revision
from sdn.store.database import Database, refuse
from sdn.store.interface import (
    Change,
    CompactedError,
    Compare,
    CompareFailedError,
    Delete,
    Put,
    Record,
    Snapshot,
    Transaction,
)

_T = TypeVar("_T")

PRUNE_SLACK_CHANGES = 64
"""Old changes are dropped this many at a time: one by one, every commit would dirty a page more."""
CHECKPOINT_GROUPS = 128
CHECKPOINT_BYTES = 1 << 20
"""The log is folded into the file after this many groups or bytes of values: a group takes some 20 kB of log, a value
is in it twice; so it stays within database.LOG_BYTES."""

_encode_writes = msgspec.msgpack.Encoder().encode
_writes_decoder: Decoder[tuple[tuple[str, bytes | None], ...]] = Decoder(
    tuple[tuple[str, bytes | None], ...], "the writes of a change"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """The outcome of each transaction, in order, and what those that succeeded did."""

    outcomes: tuple[Revision | HawseError, ...]
    changes: tuple[Change, ...]


class Writer:
    """The only writer of a database. Not thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], float], keep_changes: int) -> None:
        self._path = database.path
        self._connection = database.writing
        self._execute = database.writing.execute
        self._clock = clock
        self._keep = keep_changes
        self._groups = 0
        self._bytes = 0
        self.head, self.floor = _read_head(self._connection)

    def commit(self, transactions: Sequence[Transaction]) -> Group:
        """Commit a group with one fsync. An error of the disk is an outcome, never an exception."""
        try:
            return self._commit(transactions)
        except sqlite3.Error as error:
            if len(transactions) == 1:
                return Group((refuse(error, self._path, "write to"),), ())
        # One of them may be to blame (too large for what is left of the disk): each gets its own chance.
        singles = [self.commit((transaction,)) for transaction in transactions]
        return Group(
            tuple(outcome for single in singles for outcome in single.outcomes),
            tuple(change for single in singles for change in single.changes),
        )

    def compact(self, before: Revision) -> None:
        """Forget changes below `before`. Raises: HawseError of the disk."""
        floor = min(before, self.head + 1)
        if floor <= self.floor:
            return
        try:
            self._begin()
            self._forget_before(floor)
            self._execute("COMMIT")
        except sqlite3.Error as error:
            raise refuse(error, self._path, "write to") from None
        self.floor = Revision(floor)

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether the log has grown enough to be folded into the file."""
        return self._groups >= CHECKPOINT_GROUPS or self._bytes >= CHECKPOINT_BYTES

    def checkpoint(self) -> None:
        """Fold the log into the file. Not before an acknowledgement: it takes milliseconds."""
        self._groups = self._bytes = 0
        try:
            self._execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error:
            return  # nothing is lost: the log stays as it is, and the next commit says what is wrong with the disk

    def _commit(self, transactions: Sequence[Transaction]) -> Group:
        outcomes: list[Revision | HawseError] = []
        changes: list[Change] = []
        self._begin()
        for transaction in transactions:
            failed = self._compare(transaction.compares)
            if failed is None:
                changes.append(self._write(transaction, Revision(self.head + len(changes) + 1)))
                outcomes.append(changes[-1].revision)
            else:
                outcomes.append(failed)
        if not changes:
            self._execute("ROLLBACK")
            return Group(tuple(outcomes), ())
        head, floor = changes[-1].revision, self.floor
        if head - floor + 1 >= self._keep + min(self._keep, PRUNE_SLACK_CHANGES):
            floor = Revision(head - self._keep + 1)
            self._forget_before(floor)
        self._execute("COMMIT")
        self.head, self.floor = head, floor
        self._groups += 1
        return Group(tuple(outcomes), tuple(changes))

    def _compare(self, compares: Sequence[Compare]) -> CompareFailedError | None:
        for compare in compares:
            row = self._execute("SELECT modified FROM record WHERE key = ?", (compare.key.encode(),)).fetchone()
            found = Revision(row[0] if row else 0)
            if found != compare.modified:
                return CompareFailedError(compare.key, compare.modified, found)
        return None

    def _write(self, transaction: Transaction, revision: Revision) -> Change:
        done: list[Put | Delete] = []
        for write in transaction.writes:
            if isinstance(write, Put):
                self._execute(
                    "INSERT INTO record VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, modified = excluded.modified",
                    (write.key.encode(), write.value, revision, revision),
                )
                self._bytes += len(write.value)
            elif not self._execute("DELETE FROM record WHERE key = ?", (write.key.encode(),)).rowcount:
                continue
            done.append(write)
        change = Change(revision, tuple(done), transaction.note, self._clock())
        rows = [(write.key, write.value if isinstance(write, Put) else None) for write in done]
        self._execute(
            "INSERT INTO change VALUES (?, ?, ?, ?)", (revision, change.time_s, change.note, _encode_writes(rows))
        )
        return change

    def _forget_before(self, floor: int) -> None:
        self._execute("DELETE FROM change WHERE revision < ?", (floor,))
        self._execute("UPDATE log SET floor = ?", (floor,))

    def _begin(self) -> None:
        """Undo what a failed transaction has left (a full disk has rolled back by itself), then begin."""
        if self._connection.in_transaction:
            self._execute("ROLLBACK")
        self._execute("BEGIN IMMEDIATE")


class Reader:
    """Reads of the other connection: each sees one committed state, whatever the writer does meanwhile."""

    def __init__(self, database: Database) -> None:
        self._path = database.path
        self._connection = database.reading

    def load(self, prefix: str) -> Snapshot:
        """See interface.Store.load."""
        low = prefix.encode()
        # No byte of UTF-8 is 0xff, so that the last one can always be raised.
        bounds = (low, low[:-1] + bytes([low[-1] + 1]) if low else b"\xff")
        return self._read(lambda connection: _read_snapshot(connection, bounds))

    def get(self, key: str) -> Record | None:
        """See interface.Store.get."""
        query = "SELECT value, created, modified FROM record WHERE key = ?"
        row = self._read(lambda connection: connection.execute(query, (key.encode(),)).fetchone())
        return Record(key, *row) if row else None

    def changes(self, since: Revision, limit: int) -> list[Change]:
        """See interface.Store.changes."""
        return self._read(lambda connection: _read_changes(connection, since, limit))

    def _read(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            self._connection.execute("BEGIN")
            try:
                return read(self._connection)
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise refuse(error, self._path, "read") from None


def _read_head(connection: sqlite3.Connection) -> tuple[Revision, Revision]:
    query = "SELECT coalesce((SELECT max(revision) FROM change), floor - 1), floor FROM log"
    head, floor = connection.execute(query).fetchone()
    return Revision(head), Revision(floor)


def _read_snapshot(connection: sqlite3.Connection, bounds: tuple[bytes, bytes]) -> Snapshot:
    query = "SELECT key, value, created, modified FROM record WHERE key >= ? AND key < ? ORDER BY key"
    rows = connection.execute(query, bounds)
    records = tuple(Record(key.decode(), value, created, modified) for key, value, created, modified in rows)
    return Snapshot(_read_head(connection)[0], records)


def _read_changes(connection: sqlite3.Connection, since: Revision, limit: int) -> list[Change]:
    floor = _read_head(connection)[1]
    if since + 1 < floor:
        raise CompactedError(since, floor)
    query = "SELECT revision, time_s, note, writes FROM change WHERE revision > ? ORDER BY revision LIMIT ?"
    return [
        Change(Revision(revision), _decode_writes(writes), note, time_s)
        for revision, time_s, note, writes in connection.execute(query, (since, limit))
    ]


def _decode_writes(raw: bytes) -> tuple[Put | Delete, ...]:
    return tuple(Delete(key) if value is None else Put(key, value) for key, value in _writes_decoder.msgpack(raw))
