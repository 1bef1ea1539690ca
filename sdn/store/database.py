"""Opening the database file: the lock, the settings, and the sentence for everything that SQLite may say."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from sdn.model.errors import HawseError, Kind, invalid, unavailable
from sdn.store.migration import check_origin, migrate

BUSY_TIMEOUT_S = 2.0
"""The lock keeps other daemons out; this is for a person's `sqlite3` shell that is in the middle of a write."""
SIZE_BYTES_MAX = 8 << 30
"""Far above what the documented limits need: a runaway stops here with a sentence, not at a full disk."""
PAGE_BYTES = 4096
LOG_BYTES = 4 << 20
"""The log is given this length at the start: a sync is dearer (by half, measured) while the file grows."""

Connect = Callable[[Path], sqlite3.Connection]


@dataclasses.dataclass(frozen=True, slots=True)
class Database:
    """An open database: one connection to write, one to read, and the lock that keeps a second process out."""

    path: Path
    writing: sqlite3.Connection
    reading: sqlite3.Connection
    lock: int

    def close(self) -> None:
        """Close both connections (the last one folds the log into the file) and let go of the lock."""
        with contextlib.suppress(sqlite3.Error):  # a full disk refuses the folding; the log stays and nothing is lost
            self.reading.close()
        with contextlib.suppress(sqlite3.Error):
            self.writing.close()
        os.close(self.lock)


def connect(path: Path) -> sqlite3.Connection:
    """A connection that leaves transactions to us and may be handed from one thread to another."""
    return sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S, check_same_thread=False)


def open_database(path: Path, *, size_bytes_max: int = SIZE_BYTES_MAX, connect: Connect = connect) -> Database:
    """Open or make the database, with the newest schema, for this process alone.

    Raises: UNAVAILABLE (in use, no permission, disk full); INVALID (not a database, damaged, of a newer version …).
    """
    try:
        lock = _lock(path)
    except OSError as error:
        raise refuse_os(error, path) from None
    connections: list[sqlite3.Connection] = []
    try:
        _make_private(path)
        connections.append(connect(path))
        _prepare(connections[0], path, size_bytes_max)
        connections.append(connect(path))
        connections[1].execute("PRAGMA query_only = 1")
        return Database(path, connections[0], connections[1], lock)
    except BaseException as error:
        for connection in connections:
            connection.close()
        os.close(lock)
        if isinstance(error, sqlite3.Error):
            raise refuse(error, path, "open") from None
        if isinstance(error, OSError):
            raise refuse_os(error, path) from None
        raise


def _prepare(connection: sqlite3.Connection, path: Path, size_bytes_max: int) -> None:
    check_origin(connection, path)  # before anything is written to a file that may be another program's
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise unavailable(
            f"the file system of {path} cannot hold a write-ahead log (SQLite stays in mode {mode!r})",
            "keep the state directory on a local file system",
            path=str(path),
        )
    # FULL: the log is synced at every commit, so that what was acknowledged survives a loss of power.
    connection.execute("PRAGMA synchronous = FULL")
    # The log is folded into the file by the writer thread, after the acknowledgement (Writer.checkpoint).
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA max_page_count = {max(1, size_bytes_max // PAGE_BYTES)}")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise damaged(path, str(verdict))
    migrate(connection, path)
    _grow_log(connection, path)


def _lock(path: Path) -> int:
    """Take the lock file beside the database.

    Not the database itself: closing a descriptor of it would drop SQLite's own POSIX locks (sqlite.org/howtocorrupt).
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise unavailable(
            f"the database {path} is in use by another process (pid {holder or 'unknown'})",
            "only one controller may use a root: stop that one, or choose another root",
            path=str(path),
            pid=holder,
        ) from None
    except OSError:
        os.close(descriptor)
        raise
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _make_private(path: Path) -> None:
    """Make the file with mode 0600, which SQLite's side files inherit, and make its directory entry durable."""
    if path.exists():
        return
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    _sync(path.parent)


def _grow_log(connection: sqlite3.Connection, path: Path) -> None:
    """Make the log long before the first commit: by a transaction too large for the cache, which never commits."""
    with contextlib.suppress(sqlite3.Error, OSError):  # only speed is at stake; a full disk will be said by a commit
        connection.execute("PRAGMA cache_size = 10")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE growth (filler BLOB)")
        connection.execute("INSERT INTO growth VALUES (zeroblob(?))", (LOG_BYTES,))
        connection.execute("ROLLBACK")
        _sync(path.with_name(path.name + "-wal"))
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    connection.execute("PRAGMA cache_size = -2000")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def damaged(path: Path, finding: str) -> HawseError:
    """The error for a database whose content is broken."""
    return invalid(
        f"the database {path} is damaged: {finding}",
        "restore a backup, or move it away and start empty (a new database loses every network)",
        path=str(path),
    )


_UNAVAILABLE: dict[str, tuple[str, str]] = {
    "SQLITE_FULL": ("no space is left for it", "free space on its disk; nothing was written"),
    "SQLITE_BUSY": ("somebody else is writing to it", "close the other program (an sqlite3 shell?), then repeat"),
    "SQLITE_LOCKED": ("somebody else is writing to it", "close the other program (an sqlite3 shell?), then repeat"),
    "SQLITE_READONLY": ("it may only be read", "check the owner and mode of the file and its directory"),
    "SQLITE_PERM": ("permission was denied", "check the owner and mode of the file and its directory"),
    "SQLITE_CANTOPEN": ("it cannot be opened", "check that its directory exists and may be written"),
    "SQLITE_IOERR": ("the disk gave an error", "look into the kernel's log; check the disk"),
    "SQLITE_NOLFS": ("the file system has no large files", "keep the state directory on a local file system"),
    "SQLITE_PROTOCOL": ("its locks do not work here", "keep the state directory on a local file system"),
}


def refuse(error: sqlite3.Error, path: Path, what: str) -> HawseError:
    """The sentence for what SQLite said when it was to `what` (open, write to, read) the database."""
    name: str = getattr(error, "sqlite_errorname", None) or "none"  # extended codes: SQLITE_IOERR_FSYNC
    primary = "_".join(name.split("_")[:2])
    facts = {"path": str(path), "sqlite": name}
    if primary == "SQLITE_NOTADB":
        return invalid(
            f"{path} is not an SQLite database", "choose another root directory, or move the file away", **facts
        )
    if primary == "SQLITE_CORRUPT":
        return damaged(path, str(error))
    if primary in _UNAVAILABLE:
        why, hint = _UNAVAILABLE[primary]
        return unavailable(f"cannot {what} the database {path}: {why} ({error})", hint, **facts)
    return HawseError(Kind.INTERNAL, f"cannot {what} the database {path}: {error}", hint="report this", facts=facts)


def refuse_os(error: OSError, path: Path) -> HawseError:
    """The sentence for what the file system said when the database was to be opened."""
    facts = {"path": str(path), "errno": errno.errorcode.get(error.errno or 0, "")}
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG):
        hint = "choose a root directory that can hold it"
        return invalid(f"the database {path} cannot be there: {error.strerror}", hint, **facts)
    hint = "check the owner, mode and free space of its directory"
    return unavailable(f"cannot open the database {path}: {error.strerror}", hint, **facts)
