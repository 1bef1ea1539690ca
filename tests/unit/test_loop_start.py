"""What changes in the kernel while the loop starts, or before the controller has spoken, is not taken for granted."""

from __future__ import annotations

import asyncio

from sdn.reconcile.fake import FakeKernel
from sdn.reconcile.fake_objects import port_key
from sdn.reconcile.laws import lower_all
from tests.states.states import C1, ONE
from tests.unit.test_loop import Datapath, Rig, rig_of


async def wired() -> FakeKernel:
    """A kernel that an agent has left behind."""
    return (await rig_of(ONE)).kernel


def whole(rig: Rig) -> bool:
    """Whether the kernel is what the world lowers to."""
    return rig.kernel.objects == lower_all(rig.datapath, rig.world.units(), rig.world.context())


async def test_a_change_behind_the_first_reads_back_is_seen() -> None:
    kernel = await wired()
    neighbour = next(key for key in kernel.objects if key[0] == "neighbour")
    rig = Rig(ONE, Datapath(kernel))
    rig.datapath.before_return = lambda: kernel.disturb(neighbour)  # after it was read
    await rig.loop.start()
    rig.datapath.before_return = lambda: None
    rig.world.set_here(ONE.here.vtep4, ONE.here.vtep6)
    rig.enter(ONE, first=True)
    assert not whole(rig)
    await asyncio.sleep(0)  # the news is on its way
    await rig.loop.settle(rig.world)
    assert whole(rig)


async def test_a_container_that_dies_before_the_first_snapshot_is_gone() -> None:
    kernel = await wired()
    rig = Rig(ONE, Datapath(kernel))
    await rig.loop.start()
    kernel.lose_sandbox(C1.sandbox)
    await asyncio.sleep(0)  # the news is on its way
    await rig.loop.settle(rig.world)
    assert port_key(C1) not in rig.loop.mirror
    rig.world.set_here(ONE.here.vtep4, ONE.here.vtep6)
    rig.enter(ONE, first=True, offer=False)
    assert rig.gone == [C1.id]
