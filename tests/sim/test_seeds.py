"""Whatever happens, in whatever order: when it is quiet again everything is as everybody was told.

Each test runs worlds in a process of its own (see `__main__`); a broken one prints its seed and the end of its trace.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.happenings import simulate
from tests.sim.world import BrokenWorldError, World

SHORT = [(first, first + 24) for first in range(0, 100, 25)]
LONG = [(first, first + 249) for first in range(1000, 5000, 250)]


def run(first: int, last: int, timeout_s: float) -> None:
    """Worlds from a seed to another."""
    command = [sys.executable, "-m", "tests.sim", f"{first}-{last}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stderr.rpartition("broken, ")[2].split()[0]) > 10 * (last - first), "hardly anything was attached"


@pytest.mark.parametrize(("first", "last"), SHORT)
def test_worlds(first: int, last: int) -> None:
    run(first, last, 100)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("first", "last"), LONG)
def test_many_worlds(first: int, last: int) -> None:
    run(first, last, 800)


def test_the_same_seed_is_the_same_world(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = (simulate(3, tmp_path / name, 60) for name in "ab")
    assert one.trace == other.trace
    assert len(one.trace) > 100


def test_a_broken_world_says_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the checks: an agent that forgets to wire what it is told of is found out."""
    begin = World.begin

    async def blinded(self: World, machines: int) -> None:
        await begin(self, machines)
        for machine in self.machines:
            await self.until(lambda machine=machine: machine.core is not None, "it runs")  # type: ignore[misc]
            assert machine.core is not None
            monkeypatch.setattr(machine.core.wiring, "_reconcile", lambda dirty: None)

    monkeypatch.setattr(World, "begin", blinded)
    with pytest.raises(BrokenWorldError, match=r"seed 4 \(python -m tests\.sim 4\)"):
        simulate(4, tmp_path, 60)
