"""The schema of the SQLite store, as the sequence of steps that make it.

`PRAGMA user_version` counts the steps taken and changes in the transaction of the step itself, so that a step is done
or not done, never half. `PRAGMA application_id` marks the file as ours.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from sdn.model.errors import HawseError, invalid

APPLICATION_ID = 0x48575345
"""`HWSE`."""

Step = tuple[str, ...]
"""The statements of one migration. A step that has been released is never edited: a new one follows it."""

STEPS: tuple[Step, ...] = (
    (
        # Keys are the bytes of UTF-8: compared with memcmp, a prefix is a range whatever its last character is.
        "CREATE TABLE record (key BLOB PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL,"
        " modified INTEGER NOT NULL) WITHOUT ROWID",
        # `writes` is msgpack of [[key, value | nil], …]: a change is written and read as a whole.
        "CREATE TABLE change (revision INTEGER PRIMARY KEY, time_s REAL NOT NULL, note BLOB NOT NULL,"
        " writes BLOB NOT NULL)",
        # `floor` is the lowest revision whose change is kept; the newest change is the head, or the floor less one.
        "CREATE TABLE log (one INTEGER PRIMARY KEY CHECK (one = 1), floor INTEGER NOT NULL)",
        "INSERT INTO log VALUES (1, 1)",
        f"PRAGMA application_id = {APPLICATION_ID}",
    ),
)


def migrate(connection: sqlite3.Connection, path: Path, steps: Sequence[Step] = STEPS) -> int:
    """Take the steps that are missing, each in a transaction of its own. Returns how many were taken.

    Raises: INVALID if the database is of a newer Hawse or of another program; sqlite3.Error.
    """
    version = check_origin(connection, path, len(steps))
    for number, step in enumerate(steps[version:], version + 1):
        connection.execute("BEGIN EXCLUSIVE")
        try:
            for statement in step:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return len(steps) - version


def check_origin(connection: sqlite3.Connection, path: Path, known: int = len(STEPS)) -> int:
    """The schema version of a database that may be opened; reads only.

    Raises: INVALID if it is of a newer Hawse or of another program; sqlite3.Error.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise _foreign(path)
    assert isinstance(version, int)
    if version > known:
        raise invalid(
            f"the database {path} was written by a newer Hawse: its schema is version {version}, this one knows up to"
            f" {known}",
            "start the newer version, or restore a backup that was made before it",
            path=str(path),
            version=version,
            known=known,
        )
    return version


def _foreign(path: Path) -> HawseError:
    return invalid(
        f"{path} is an SQLite database of another program, not one of Hawse",
        "choose another root directory, or move the file away",
        path=str(path),
    )
