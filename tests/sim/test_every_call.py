"""One short story, told once for every call that can fail in it: the n-th commit, the n-th write of a kernel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sim.clients import Fact, Slot
from tests.sim.machine import Machine
from tests.sim.virtual_time import VirtualLoop, run_virtually
from tests.sim.world import World

COMMITS_MAX, WRITES_MAX = 40, 150
"""More than the story has: the last number of each is one at which nothing failed, so that none was left out."""


async def story(world: World) -> None:
    """Two machines, a network, containers that come, move and go, and an administrator."""
    await world.create_network("web", ("10.1.0.0/28", "fd00:1::/64"))
    one, two = world.machines
    (a, *_), (b, c, *_) = world.clients.of(one), world.clients.of(two)
    for slot in (a, b, c):
        world.clients.new_sandbox(slot, old_dies=True)
        await world.clients.add(slot, "web")
    await world.clients.delete(c)
    await world.create_network("blue/web", ("10.1.0.0/28",))
    await world.clients.add(c, "blue/web")
    world.clients.new_sandbox(b, old_dies=True)
    await world.clients.add(b, "web")
    await world.clients.delete(a)
    await world.clients.delete(b)
    await world.delete_network("web")


def tell(directory: Path, arrange: Callable[[World], None]) -> World:
    """The story in a world in which something was arranged before it began; the world after its end."""

    async def run(loop: VirtualLoop) -> World:
        world = World(loop, directory, seed=1)
        try:
            await world.begin(machines=2)
            for machine in world.machines:
                await connected(world, machine)
            arrange(world)
            await story(world)
            reached = Reached(world)
            await world.calm()
            await world.clear()
            world.say(f"struck {reached.struck}")
        finally:
            world.end()
        return world

    return run_virtually(run)


class Reached:
    """Whether what was arranged has come to pass."""

    def __init__(self, world: World) -> None:
        faults = world.centre.faults
        self.struck = [
            name
            for name, left in (
                ("before", faults.before),
                ("after", faults.after),
                *((f"write {machine.name}", machine.fail_in) for machine in world.machines),
                *((f"death {machine.name}", machine.die_in) for machine in world.machines),
            )
            if left < 0
        ]


async def connected(world: World, machine: Machine) -> None:
    """Wait until its agent serves."""
    await world.until(lambda: machine.core is not None and machine.core.wiring.world.complete, "it is connected")


def ended(world: World) -> str:
    return next(line for line in reversed(world.trace) if "struck" in line).partition("struck ")[2]


def slots(world: World) -> list[Slot]:
    return [slot for slot in world.clients.slots if slot.fact is not Fact.ABSENT]


def test_the_story_itself(tmp_path: Path) -> None:
    world = tell(tmp_path, lambda world: None)
    assert world.clients.added == 5
    assert slots(world) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_every_commit_fails_once(tmp_path: Path, when: str) -> None:
    for number in range(COMMITS_MAX):
        world = tell(tmp_path, lambda world, number=number: setattr(world.centre.faults, when, number))  # type: ignore[misc]
        if when not in ended(world):
            assert number > 10
            return
    pytest.fail("the story is longer than was thought")


@pytest.mark.parametrize("machine", [0, 1])
@pytest.mark.parametrize("how", ["fail_in", "die_in"])
def test_every_write_fails_once(tmp_path: Path, machine: int, how: str) -> None:
    name = {"fail_in": "write", "die_in": "death"}[how]
    for number in range(WRITES_MAX):

        def arrange(world: World, number: int = number) -> None:
            setattr(world.machines[machine], how, number)

        world = tell(tmp_path, arrange)
        if f"{name} h{machine + 1}" not in ended(world):
            assert number > 10
            return
    pytest.fail("the story is longer than was thought")
