"""What the supervisor writes about itself and its children, for the kernel's memory killer."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.supervisor import memory_killer


@pytest.fixture
def adjustment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "oom_score_adj"
    monkeypatch.setattr(memory_killer, "ADJUSTMENT", str(file))
    monkeypatch.setattr(memory_killer, "adjusted", False)
    return file


@pytest.mark.parametrize(("before", "ours"), [("0\n", "-500"), ("200\n", "-500"), ("-900\n", "-900\n")])
def test_it_goes_after_its_containers(adjustment: Path, before: str, ours: str) -> None:
    adjustment.write_text(before)
    memory_killer.go_last()
    assert adjustment.read_text()[:4] == ours[:4]
    adjustment.write_text(ours)
    memory_killer.go_first()
    assert adjustment.read_text()[:1] == "0"


@pytest.mark.parametrize(("before", "child"), [("0", "0"), ("100", "0")])
def test_where_it_may_not_only_what_is_needed_is_put_right(
    adjustment: Path, before: str, child: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(value: int) -> None:
        raise PermissionError

    adjustment.write_text(before)
    with monkeypatch.context() as refusing:
        refusing.setattr(memory_killer, "_write", refuse)
        memory_killer.go_last()
        memory_killer.go_first()
    assert adjustment.read_text() == before
    assert memory_killer.adjusted is (before != "0")
    memory_killer.go_first()
    assert adjustment.read_text()[:1] == child
