"""Every store passes the kit of `sdn.store.conformance`."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("sdn.store.conformance")

from sdn.store.conformance import CASES, Case, Opener  # noqa: E402 - rewritten assertions need the line above first
from sdn.store.interface import Store  # noqa: E402
from sdn.store.memory import Disk, MemoryStore  # noqa: E402
from sdn.store.sqlite import SqliteStore  # noqa: E402


def sqlite_opener(directory: Path) -> Opener:
    async def open_store() -> Store:
        return await SqliteStore.open(directory / "controller.db")

    return open_store


def memory_opener(_: Path) -> Opener:
    disk = Disk()

    async def open_store() -> Store:
        return MemoryStore(disk)

    return open_store


@pytest.mark.parametrize("opener", [sqlite_opener, memory_opener], ids=["sqlite", "memory"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_store(case: Case, opener: object, tmp_path: Path) -> None:
    assert callable(opener)
    await case(opener(tmp_path))
