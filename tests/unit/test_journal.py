"""The journal: what was promised survives, whatever the end of the file looks like."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.agent.journal import COMPACT_BYTES, EMPTY_BYTES, Journal
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import EndpointId


def id_of(number: int) -> EndpointId:
    return EndpointId(f"{number:026d}")


async def test_a_release_survives_and_a_confirmation_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal.open(path)
    await journal.release([id_of(1), id_of(2)], "its namespace is gone")
    again = Journal.open(path)  # as after SIGKILL: nothing was closed
    assert again.pending == {id_of(1): "its namespace is gone", id_of(2): "its namespace is gone"}
    again.delivered([id_of(1), id_of(9)])
    again.close()
    again.close()
    assert list(Journal.open(path).pending) == [id_of(2)]
    journal.close()


async def test_it_ends_empty_when_nothing_is_pending(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal.open(path)
    await asyncio.gather(*(journal.release([id_of(n)], "") for n in range(50)))
    assert path.read_bytes().count(b"\n") == 50
    journal.delivered([id_of(n) for n in range(50)])
    await journal.release([id_of(51)], "")
    assert list(Journal.open(path).pending) == [id_of(51)], "confirmations are written with the next release"
    journal.delivered([id_of(51)])
    journal.close()
    assert path.read_bytes() == b""


async def test_it_does_not_grow_by_what_was_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal.open(path)
    for number in range(12):
        await journal.release([id_of(number)], "x" * (EMPTY_BYTES // 4))
        journal.delivered([id_of(number)])
    assert path.stat().st_size < 2 * EMPTY_BYTES
    journal.close()


async def test_many_releases_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    journal = Journal.open(tmp_path / "journal")
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    await asyncio.gather(*(journal.release([id_of(n)], "") for n in range(100)))
    assert 1 <= len(syncs) <= 3
    journal.close()


@given(count=st.integers(1, 6), cut=st.integers(0, 400))
def test_any_torn_end_loses_only_what_was_torn(count: int, cut: int) -> None:
    async def release(path: Path, numbers: Iterable[int], before: int) -> None:
        journal = Journal.open(path)
        assert list(journal.pending) == [id_of(number) for number in range(before)]
        for number in numbers:
            await journal.release([id_of(number)], "why")
        journal.close()

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal"
        asyncio.run(release(path, range(count), 0))
        data = path.read_bytes()[:cut]
        path.write_bytes(data)
        kept = data.count(b"\n")
        asyncio.run(release(path, [99], kept))
        assert list(Journal.open(path).pending) == [*(id_of(number) for number in range(kept)), id_of(99)]


async def test_a_large_file_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal.open(path)
    await journal.release([id_of(1)], "stays")
    for number in range(2, 8):
        await journal.release([id_of(number)], "x" * (COMPACT_BYTES // 5))
        journal.delivered([id_of(number)])
    assert path.stat().st_size < COMPACT_BYTES
    await journal.release([id_of(9)], "last")
    journal.close()
    assert Journal.open(path).pending == {id_of(1): "stays", id_of(9): "last"}


async def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(tmp_path / "journal")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        with pytest.raises(HawseError, match="No space left") as caught:
            await journal.release([id_of(1)], "")
        assert caught.value.kind is Kind.UNAVAILABLE
    await journal.release([id_of(2)], "")
    assert set(Journal.open(tmp_path / "journal").pending) == {id_of(1), id_of(2)}
    journal.close()


def test_a_foreign_file_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text('{"release": "x"}\nhello\n')
    with pytest.raises(HawseError, match="line 2"):
        Journal.open(tmp_path / "journal")
    with pytest.raises(HawseError, match="cannot open"):
        Journal.open(tmp_path / "no" / "journal")
