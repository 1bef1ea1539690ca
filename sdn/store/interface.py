"""What the controller needs of a store. The meaning is etcd's, so that etcd fits behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from sdn.model.errors import HawseError, Kind
from sdn.model.ids import Revision

OPERATIONS_MAX = 100
"""Writes and compares of one transaction, together; larger work is a resumable sequence of transactions."""
VALUE_BYTES_MAX = 1 << 20
KEY_BYTES_MAX = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A key's value, and the revisions at which it was created and last modified."""

    key: str
    value: bytes
    created: Revision
    modified: Revision


@dataclasses.dataclass(frozen=True, slots=True)
class Compare:
    """The key's modification revision must be this; 0: the key must be absent."""

    key: str
    modified: Revision


@dataclasses.dataclass(frozen=True, slots=True)
class Put:
    """Write a value."""

    key: str
    value: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key; absent is fine."""

    key: str


@dataclasses.dataclass(frozen=True, slots=True)
class Transaction:
    """All compares hold and all writes happen at one new revision, or nothing does. A key is written at most once.

    Each one that is committed raises the revision, also one that writes nothing or deletes what is absent.
    `note` (who and what, opaque here) is kept with the change.
    """

    compares: tuple[Compare, ...]
    writes: tuple[Put | Delete, ...]
    note: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What one transaction did, in its order, without the deletes of what was absent.

    `time_s`: when it was committed, seconds since the epoch.
    """

    revision: Revision
    writes: tuple[Put | Delete, ...]
    note: bytes
    time_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """All records under a prefix, sorted by key, as of one revision."""

    revision: Revision
    records: tuple[Record, ...]


class CompareFailedError(HawseError):
    """A compare did not hold: `key`'s modification revision is `found`. Nothing was written."""

    def __init__(self, key: str, expected: Revision, found: Revision) -> None:
        super().__init__(
            Kind.CONFLICT,
            f"{key} was changed meanwhile (expected revision {expected}, found {found})",
            hint="read it again and repeat the change",
            facts={"key": key, "expected": expected, "found": found},
        )
        self.key = key
        self.found = found


class CompactedError(HawseError):
    """The log no longer reaches back to the revision asked for."""

    def __init__(self, since: Revision, oldest: Revision) -> None:
        super().__init__(
            Kind.NOT_FOUND,
            f"changes since revision {since} are no longer kept (the oldest kept is {oldest})",
            hint="read the whole state, then continue from its revision",
            facts={"since": since, "oldest": oldest},
        )


class Store(Protocol):
    """Everything returned was durable before it was returned; nothing acknowledged is lost."""

    async def commit(self, transaction: Transaction) -> Revision:
        """Commit, durably. Commits of one caller take effect in the order in which they were begun.

        Raises: CompareFailedError; INVALID (too many operations, a key twice, too long); UNAVAILABLE (disk full …).
        """

    async def load(self, prefix: str = "") -> Snapshot:
        """Every record whose key starts with `prefix`."""

    async def get(self, key: str) -> Record | None:
        """One record."""

    async def changes(self, since: Revision, limit: int = 1000) -> Sequence[Change]:
        """Changes with a revision above `since`, oldest first, at most `limit`. Raises: CompactedError."""

    def watch(self, since: Revision) -> AsyncIterator[Change]:
        """Every change with a revision above `since`, in order, without gap; ends when the store is closed.

        Raises: CompactedError.
        """

    async def compact(self, before: Revision) -> None:
        """Forget changes with a revision below `before`; records stay."""

    async def put_soft(self, key: str, value: bytes) -> None:
        """Write soft state: no revision, no change, gone after a restart."""

    async def load_soft(self, prefix: str = "") -> dict[str, bytes]:
        """Soft state whose key starts with `prefix`."""

    async def close(self) -> None:
        """Finish what was begun, release everything. Calling it twice is fine."""
