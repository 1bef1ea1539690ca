"""Whatever goes wrong on the way: when it is calm again, every kernel is what the controller's state says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim.simulation import Simulation
from tests.sim.virtual_loop import run_virtually

STEPS = 80


async def walk(seed: int, directory: Path, steps: int) -> Simulation:
    simulation = Simulation(seed, directory)
    await simulation.begin()
    try:
        for _ in range(steps):
            await simulation.step()
        await simulation.calm()
        simulation.check()
    finally:
        await simulation.end()
    return simulation


@pytest.mark.parametrize("seed", range(40))
def test_everything_that_goes_wrong_is_made_good(seed: int, tmp_path: Path) -> None:
    run_virtually(walk(seed, tmp_path, STEPS))


def test_the_same_seed_is_the_same_run(tmp_path: Path) -> None:
    ends = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        simulation = run_virtually(walk(7, tmp_path / name, STEPS))
        assert simulation.adds > 5, "something does happen"
        ends.append((simulation.wired, simulation.disk.records, [host.kernel.text() for host in simulation.hosts]))
    assert ends[0] == ends[1]
