"""What could not be deleted is not forgotten, whatever happens to its unit before it is tried again."""

from __future__ import annotations

from sdn.reconcile.datapath import Key
from tests.states.states import C1, EMPTY, ONE
from tests.unit.test_loop import Rig, rig_of


def neighbour_of(rig: Rig) -> Key:
    """The answer for the container's address."""
    address = C1.addresses[0].partition("/")[0]
    return ("neighbour", C1.tenant, C1.network, address)


async def test_a_leftover_goes_when_its_unit_is_looked_at_again() -> None:
    """A DEL withdraws the endpoint and a write fails; the controller's news of its removal come before the retry."""
    rig = await rig_of(ONE)
    left = neighbour_of(rig)
    rig.datapath.refused = {left}
    rig.loop.reconcile(rig.world.withdraw(C1.id), rig.world)
    assert left in rig.kernel.objects
    rig.datapath.refused = set()
    assert rig.enter(EMPTY) == {}
    assert rig.kernel.objects == {}
    assert rig.loop.mirror == {}
    rig.enter(ONE)
    assert left in rig.kernel.objects


async def test_a_leftover_that_fails_again_stays_a_failure() -> None:
    rig = await rig_of(ONE)
    left = neighbour_of(rig)
    rig.datapath.refused = {left}
    rig.loop.reconcile(rig.world.withdraw(C1.id), rig.world)
    assert set(rig.enter(EMPTY)) == {("endpoint", C1.id)}
    assert ("endpoint", C1.id) in rig.loop.failures
    rig.datapath.refused = set()
    await rig.loop.settle(rig.world)
    assert rig.loop.failures == {}
    assert rig.kernel.objects == rig.loop.mirror == {}
