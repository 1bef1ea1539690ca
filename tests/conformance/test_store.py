"""Every store passes the kit of `sdn.store.conformance`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.register_assert_rewrite("sdn.store.conformance")

from sdn.store import database  # noqa: E402
from sdn.store.conformance import CASES, Case, Opener  # noqa: E402 - rewritten assertions need the line above first
from sdn.store.interface import Store  # noqa: E402
from sdn.store.memory import Disk, MemoryStore  # noqa: E402
from sdn.store.sqlite import INLINE_BELOW_S, SqliteStore  # noqa: E402


def sqlite_opener(directory: Path, inline_below_s: float = INLINE_BELOW_S) -> Opener:
    async def open_store() -> Store:
        return await SqliteStore.open(directory / "controller.db", inline_below_s=inline_below_s)

    return open_store


def inline_opener(directory: Path) -> Opener:
    """As on a disk that is never slow."""
    return sqlite_opener(directory, 3600.0)


def threaded_opener(directory: Path) -> Opener:
    """As on a disk that is never quick."""
    return sqlite_opener(directory, 0.0)


def memory_opener(_: Path) -> Opener:
    disk = Disk()

    async def open_store() -> Store:
        return MemoryStore(disk)

    return open_store


OPENERS: dict[str, Callable[[Path], Opener]] = {
    "sqlite": sqlite_opener,
    "sqlite-inline": inline_opener,
    "sqlite-threaded": threaded_opener,
    "memory": memory_opener,
}


@pytest.fixture(autouse=True)
def small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The length of the log is about speed alone; a short one spares the disk."""
    monkeypatch.setattr(database, "LOG_BYTES", 1 << 16)


@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_store(case: Case, opener: Callable[[Path], Opener], tmp_path: Path) -> None:
    await case(opener(tmp_path))
