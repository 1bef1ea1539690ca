"""The loop: touches only what may differ, repairs in a bounded number of rounds, and never trusts an old read."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from sdn.model.ids import EndpointId, TenantId
from sdn.reconcile.datapath import Key, Object, Operation, Verb
from sdn.reconcile.fake import FakeDatapath, FakeKernel, FakeSite
from sdn.reconcile.fake_objects import Bridge, FakeObject, Neighbour, Vxlan, port_key
from sdn.reconcile.laws import Agent, expect_quiet
from sdn.reconcile.loop import DRIFT_PAUSE_S, READ_AGAIN_S, Reconciler
from sdn.reconcile.state import Feed, State
from sdn.reconcile.unit import Context, EndpointUnit, Unit, UnitKey
from sdn.reconcile.world import World
from tests.states.states import (
    BLUE,
    C1,
    C2,
    C3,
    EMPTY,
    EQUAL_TENANTS,
    HANDED,
    HERE,
    MOVE_LOCAL,
    ONE,
    RED,
    REMOTE,
    UNDERLAY6,
    UNDERLAY46,
    VTEP_CHANGED,
    WEB,
    endpoint,
    member,
)

T = TypeVar("T")


async def at_once(read: Callable[[], T]) -> T:
    """An offload without a thread."""
    return read()


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Datapath(FakeDatapath):
    """A fake that keeps what was written, and refuses what it is told to."""

    def __init__(self, kernel: FakeKernel | None = None) -> None:
        super().__init__(kernel)
        self.written: list[Operation] = []
        self.reads: list[Sequence[TenantId] | None] = []
        self.refused: set[Key] = set()
        self.unreadable = False
        self.before_return: Callable[[], None] = lambda: None
        self.after_write: Callable[[], None] = lambda: None

    def write(self, operations: Sequence[Operation]) -> dict[Key, Exception]:
        """See Datapath."""
        self.written += operations
        errors = super().write([o for o in operations if o.key not in self.refused])
        refused = [o.key for o in operations if o.key in self.refused]
        self.after_write()
        return errors | {key: OSError(5, f"refused {' '.join(key)}") for key in refused}

    def read(self, tenants: Sequence[TenantId] | None = None) -> dict[Key, FakeObject]:
        """See Datapath."""
        self.reads.append(tenants)
        if self.unreadable:
            raise OSError(105, "no buffer space")
        found = super().read(tenants)
        self.before_return()
        return found


class Rig:
    """World, loop and datapath, started, with every local endpoint's namespace at hand."""

    def __init__(self, state: State, datapath: Datapath | None = None) -> None:
        self.clock = Clock()
        self.datapath = datapath or Datapath()
        self.kernel = self.datapath.kernel
        self.gone: list[EndpointId] = []
        self.reported = 0
        self.world = World(state.here.host)
        self.feed = Feed()
        self.loop = Reconciler(
            self.datapath, on_gone=self.gone.append, offload=at_once, clock=self.clock, on_failures=self._report
        )
        self.state = state

    def _report(self) -> None:
        self.reported += 1

    async def start(self, *, offer: bool = True) -> None:
        """Read, then take the first snapshot."""
        await self.loop.start()
        self.world.set_here(self.state.here.vtep4, self.state.here.vtep6)
        self.enter(self.state, first=True, offer=offer)

    def enter(self, state: State, *, first: bool = False, offer: bool = True) -> dict[UnitKey, str]:
        """Go on to a state; the failures."""
        applied = self.world.apply(*(self.feed.snapshot(state) if first else self.feed.advance(state)))
        assert applied is not None
        dirty = applied.dirty | self.world.set_here(state.here.vtep4, state.here.vtep6)
        for local in state.local_endpoints() if offer else ():
            self.datapath.offer(local, FakeSite().sandbox(local))
        result = self.loop.reconcile(dirty, self.world)
        for local in state.local_endpoints():
            self.datapath.offer(local, None)
        return result.failures


async def rig_of(state: State) -> Rig:
    """A rig in a state, its record of writes and reads empty."""
    rig = Rig(state)
    await rig.start()
    assert not rig.loop.failures
    rig.datapath.written.clear()
    rig.datapath.reads.clear()
    return rig


def neighbour_key(address: str) -> Key:
    """The key of an address of the network WEB."""
    return ("neighbour", BLUE.id, WEB.id, address)


# The short way ------------------------------------------------------------------------------------------------------


async def test_cost_follows_the_change_not_the_fleet() -> None:
    """With 10 000 endpoints loaded, one more looks at its own keys, as many as with none."""

    def grown(count: int) -> State:
        others = (endpoint(100 + n, 2, WEB, f"10.{2 + (n >> 16)}.{n >> 8 & 255}.{n & 255}/8") for n in range(count))
        members = ((WEB.id, member(1)), (WEB.id, member(2)))
        return State("grown", HERE, (BLUE,), (WEB,), members, (C1, *others))

    looked: list[int] = []
    for count in (0, 10_000):
        rig = await rig_of(grown(count))
        before = rig.loop.keys_looked_at
        state = dataclasses.replace(rig.state, endpoints=(*rig.state.endpoints, C2))
        assert rig.enter(state) == {}
        looked.append(rig.loop.keys_looked_at - before)
        assert rig.datapath.reads == []
        assert {o.verb for o in rig.datapath.written} == {Verb.CREATE}
    assert looked[0] == looked[1] == len(rig.datapath.lower(EndpointUnit(C2), rig.world.context()))


async def test_only_the_keys_of_the_dirty_units_are_compared() -> None:
    """What changed elsewhere in the kernel is the patient way's part."""
    rig = await rig_of(ONE)
    del rig.kernel.objects[neighbour_key("10.1.0.2")]
    rig.loop.mirror.pop(neighbour_key("10.1.0.2"))
    assert rig.loop.reconcile([("network", WEB.id)], rig.world).written == 0
    assert rig.loop.reconcile([("endpoint", C1.id)], rig.world).written == 1


async def test_a_loop_that_has_not_read_refuses() -> None:
    """It would write everything again."""
    rig = Rig(ONE)
    with pytest.raises(AssertionError, match="start"):
        rig.loop.reconcile([], rig.world)


@pytest.mark.parametrize("one_transaction", [True, False])
@pytest.mark.parametrize("new_first", [True, False])
async def test_an_address_passes_from_one_endpoint_to_another(one_transaction: bool, new_first: bool) -> None:
    """In every order: the keys that both want are the new one's in the end, and are never missing."""
    rig = await rig_of(MOVE_LOCAL)
    both = dataclasses.replace(HANDED, name="both", endpoints=(*MOVE_LOCAL.endpoints, HANDED.endpoints[0]))
    neither = dataclasses.replace(HANDED, name="neither", endpoints=HANDED.endpoints[1:])
    if not one_transaction:
        rig.enter(both if new_first else neither)
    rig.enter(HANDED)
    assert not rig.loop.failures
    fresh = await rig_of(HANDED)
    assert rig.kernel.text() == fresh.kernel.text()
    deleted = [o for o in rig.datapath.written if o.verb is Verb.DELETE and o.key == neighbour_key("10.1.0.2")]
    assert len(deleted) == (0 if one_transaction or new_first else 1)


async def test_of_two_that_want_a_key_the_older_has_it_back() -> None:
    """When the newer goes first: what is wanted depends on the units, not on who came last."""
    rig = await rig_of(MOVE_LOCAL)
    newer = endpoint(90, 2, WEB, "10.1.0.2/24", mac="0a:99:00:00:00:01")
    both = dataclasses.replace(MOVE_LOCAL, endpoints=(*MOVE_LOCAL.endpoints, newer))
    rig.enter(both)
    held = rig.kernel.objects[neighbour_key("10.1.0.2")]
    assert isinstance(held, Neighbour)
    assert held.mac == newer.mac
    rig.loop.reconcile([("endpoint", C1.id)], rig.world)
    assert rig.kernel.objects[neighbour_key("10.1.0.2")] == held
    rig.enter(MOVE_LOCAL)
    assert rig.kernel.text() == (await rig_of(MOVE_LOCAL)).kernel.text()


async def test_nothing_is_removed_before_the_first_snapshot() -> None:
    """Not by a reconcile, not by a full one, not by a repair; after it what nobody wants goes."""
    kernel = (await rig_of(EQUAL_TENANTS)).kernel
    before = dict(kernel.objects)
    rig = Rig(ONE, Datapath(kernel))
    await rig.loop.start()
    rig.loop.reconcile([("endpoint", C3.id), ("tenant", RED.id)], rig.world)
    await rig.loop.full(rig.world)
    rig.loop.drifted(None)
    await rig.loop.settle(rig.world)
    applied = rig.world.apply(*rig.feed.snapshot(ONE))
    assert applied is not None
    rig.loop.drifted([BLUE.id, RED.id])
    await rig.loop.settle(rig.world)  # between a Sync and its reconcile nothing is known to be unwanted either
    assert kernel.objects == before
    rig.loop.reconcile(applied.dirty | rig.world.set_here("192.0.2.1", None), rig.world)
    assert kernel.text() == (await rig_of(ONE)).kernel.text()


async def test_the_keys_and_values_are_shared_with_the_mirror() -> None:
    """After a restart too: 10 000 endpoints twice would be tens of megabytes."""
    kernel = (await rig_of(REMOTE)).kernel
    kernel.objects = {(*key,): dataclasses.replace(o) for key, o in kernel.objects.items()}
    rig = Rig(REMOTE, Datapath(kernel))
    await rig.start()
    assert rig.datapath.written == []
    keys = {key: key for key in rig.loop.mirror}
    for key, wanted in rig.loop.desired.objects.items():
        assert rig.loop.mirror[key] is wanted
        assert keys[key] is key


# What fails ---------------------------------------------------------------------------------------------------------


async def test_one_failure_stops_nothing_else_and_is_repaired() -> None:
    """The unit is named with its reason; once the kernel takes it, the failure is gone and told as gone."""
    rig = Rig(REMOTE)
    rig.datapath.refused = {neighbour_key("10.1.0.3")}
    await rig.start()
    key: UnitKey = ("endpoint", C2.id)
    assert set(rig.loop.failures) == {key}
    assert "refused" in rig.loop.failures[key].text
    assert len(rig.kernel.objects) == len(rig.loop.desired.objects) - 1
    rig.datapath.refused.clear()
    rig.clock.now_s = 1.0
    await rig.loop.work(rig.world)
    assert not rig.loop.failures
    assert rig.reported == 1
    assert rig.kernel.objects == rig.loop.mirror == rig.loop.desired.objects


async def test_rounds_are_bounded_and_back_off() -> None:
    """Three retries, each later than the one before; then only the periodic read, or a change, tries again."""
    rig = Rig(ONE)
    rig.datapath.refused = {neighbour_key("10.1.0.2")}
    await rig.start()
    rig.datapath.written.clear()
    pauses: list[float] = []
    while (pause_s := await rig.loop.work(rig.world)) < 100.0:
        pauses.append(pause_s)
        rig.clock.now_s += pause_s
        assert len(pauses) < 10
    assert pauses == sorted(set(pauses))
    assert len(rig.datapath.written) == 3
    assert rig.loop.failures[("endpoint", C1.id)].since_s == 0.0
    rig.clock.now_s += pause_s
    await rig.loop.work(rig.world)
    assert len(rig.datapath.written) == 4
    assert rig.loop.reconcile([("endpoint", C1.id)], rig.world).failures
    assert await rig.loop.work(rig.world) < 1.0, "a change of the unit begins the rounds again"


async def test_a_deletion_that_failed_is_tried_again() -> None:
    """Also when its unit is gone, and when it belongs to no unit at all."""
    rig = await rig_of(REMOTE)
    rig.datapath.refused = {neighbour_key("10.1.0.3")}
    rig.enter(dataclasses.replace(REMOTE, endpoints=(C1,)))
    assert set(rig.loop.failures) == {("endpoint", C2.id)}
    stray: Key = neighbour_key("10.1.0.99")
    rig.datapath.refused.add(stray)
    rig.kernel.disturb(stray, Neighbour(4, "0a:00:00:00:00:99"))
    rig.loop.drifted([BLUE.id])
    await rig.loop.settle(rig.world)
    assert set(rig.loop.failures) == {("endpoint", C2.id), ("tenant", "unknown")}
    rig.datapath.refused.clear()
    rig.loop.drifted([BLUE.id])
    await rig.loop.settle(rig.world)
    assert not rig.loop.failures
    assert rig.kernel.text() == rig_text(await rig_of(dataclasses.replace(REMOTE, endpoints=(C1,))))


def rig_text(rig: Rig) -> str:
    """What is in its kernel."""
    return rig.kernel.text()


async def test_a_fault_in_lowering_is_that_units_failure() -> None:
    """All others are written, and the unit keeps what it had."""

    class Broken(Datapath):
        def lower(self, unit: Unit, context: Context) -> dict[Key, FakeObject]:
            if isinstance(unit, EndpointUnit) and unit.endpoint.id == C2.id:
                raise ValueError("the 1001st")
            return super().lower(unit, context)

    rig = Rig(REMOTE, Broken())
    await rig.start()
    assert {key: failure.text for key, failure in rig.loop.failures.items()} == {("endpoint", C2.id): "the 1001st"}
    assert neighbour_key("10.1.0.4") in rig.kernel.objects
    await rig.loop.settle(rig.world)
    assert None not in rig.datapath.reads[1:], "its tenant is known: no reason to read everything"


async def test_a_read_that_fails_is_made_again() -> None:
    """Soon, and what was known stays."""
    rig = await rig_of(ONE)
    rig.datapath.unreadable = True
    rig.loop.drifted(None)
    assert await rig.loop.work(rig.world) == READ_AGAIN_S
    assert rig.loop.mirror == rig.kernel.objects
    rig.kernel.objects.pop(neighbour_key("10.1.0.2"))
    rig.datapath.unreadable = False
    rig.clock.now_s = READ_AGAIN_S
    await rig.loop.work(rig.world)
    assert neighbour_key("10.1.0.2") in rig.kernel.objects


# What drifts --------------------------------------------------------------------------------------------------------


async def test_drift_is_repaired_by_reading_its_tenant_alone() -> None:
    """What was taken, what was changed and what was added."""
    rig = await rig_of(EQUAL_TENANTS)
    text = rig.kernel.text()
    rig.kernel.disturb(neighbour_key("10.1.0.2"))
    rig.kernel.disturb(neighbour_key("10.1.0.4"), Neighbour(4, "0a:00:00:00:00:99"))
    rig.kernel.disturb(neighbour_key("10.1.0.9"), Neighbour(4, "0a:00:00:00:00:99"))
    await asyncio.sleep(0)  # drift comes from any thread, so by way of the event loop
    await rig.loop.settle(rig.world)
    assert rig.kernel.text() == text
    assert rig.datapath.reads == [[BLUE.id]]
    assert len(rig.datapath.written) == 3


async def test_drift_from_a_thread_wakes_the_running_loop() -> None:
    """`run` repairs; ended, it leaves nothing running, and late drift is harmless."""
    rig = await rig_of(ONE)
    text = rig.kernel.text()
    wrote = asyncio.Event()
    rig.datapath.after_write = wrote.set
    running = asyncio.create_task(rig.loop.run(rig.world))
    thread = threading.Thread(target=rig.kernel.disturb, args=[neighbour_key("10.1.0.2")])
    thread.start()
    await asyncio.wait_for(wrote.wait(), 10)
    thread.join()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert rig.kernel.text() == text


async def test_drift_that_does_not_end_is_read_at_a_pace() -> None:
    """Somebody who always interferes does not keep the agent reading."""
    rig = await rig_of(ONE)
    rig.loop.drifted([BLUE.id])
    await rig.loop.work(rig.world)
    rig.loop.drifted([BLUE.id])
    assert await rig.loop.work(rig.world) == pytest.approx(DRIFT_PAUSE_S)
    assert len(rig.datapath.reads) == 1
    rig.clock.now_s += DRIFT_PAUSE_S
    await rig.loop.work(rig.world)
    assert len(rig.datapath.reads) == 2


async def test_everything_is_read_every_few_minutes() -> None:
    """So that what no notification told is mended too; units are not lowered for it."""
    rig = await rig_of(ONE)
    bridge: Key = ("bridge", BLUE.id, WEB.id)
    rig.kernel.objects[bridge] = Bridge(WEB.vni, 9000, ())
    assert await rig.loop.work(rig.world) == 300.0
    assert rig.datapath.reads == []
    rig.clock.now_s = 300.0
    assert await rig.loop.work(rig.world) == 300.0
    assert rig.datapath.reads == [None]
    assert [(o.verb, o.key) for o in rig.datapath.written] == [(Verb.REPLACE, bridge)]
    before = rig.loop.keys_looked_at
    rig.clock.now_s = 600.0
    await rig.loop.work(rig.world)
    assert rig.loop.keys_looked_at == before


async def test_what_hung_on_a_thing_that_was_made_anew_is_written_again() -> None:
    """The kernel drops a VXLAN device's entries with it and tells nobody: `proxy` cannot be changed in place."""
    rig = await rig_of(dataclasses.replace(UNDERLAY46, here=UNDERLAY6.here))
    device: Key = ("vxlan", BLUE.id, WEB.id, "6")
    assert isinstance(rig.kernel.objects[device], Vxlan)
    rig.enter(UNDERLAY46)
    assert ("tunnel", BLUE.id, WEB.id, UNDERLAY46.endpoints[2].mac) not in rig.kernel.objects
    await rig.loop.settle(rig.world)
    assert rig.kernel.text() == rig_text(await rig_of(UNDERLAY46))


async def test_a_read_is_older_than_what_is_written_meanwhile() -> None:
    """Attached, changed and detached while a read is on its way: the mirror keeps what was written."""
    rig = await rig_of(REMOTE)
    new = endpoint(50, 1, WEB, "10.1.0.50/24")
    after = dataclasses.replace(VTEP_CHANGED, endpoints=(*VTEP_CHANGED.endpoints[1:], new))

    def meanwhile() -> None:
        rig.datapath.before_return = lambda: None
        rig.enter(after)

    rig.datapath.before_return = meanwhile
    rig.loop.drifted(None)
    await rig.loop.work(rig.world)
    assert not rig.loop.failures
    assert rig.loop.mirror == rig.kernel.objects == rig.loop.desired.objects
    assert rig.kernel.text() == rig_text(await rig_of(after))
    count = len(rig.datapath.written)
    await rig.loop.full(rig.world)
    assert len(rig.datapath.written) == count


async def test_attaching_goes_on_while_a_thread_reads() -> None:
    """With real threads: the read hangs, the attachment is done, the read ends, and all agrees."""
    rig = Rig(ONE)
    rig.loop = Reconciler(rig.datapath, on_gone=rig.gone.append, clock=rig.clock)
    await rig.start()
    began, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        assert go_on.wait(10)

    rig.datapath.before_return = hang
    rig.loop.drifted([BLUE.id])
    working = asyncio.create_task(rig.loop.work(rig.world))
    assert await asyncio.to_thread(began.wait, 10)
    assert rig.enter(REMOTE) == {}
    assert port_key(C2) in rig.kernel.objects
    go_on.set()
    await working
    assert rig.loop.mirror == rig.kernel.objects == rig.loop.desired.objects


# Namespaces that are gone -------------------------------------------------------------------------------------------


async def test_a_namespace_that_died_is_told_once() -> None:
    """However often it is looked at; the others of its network stay whole, and released it leaves nothing."""
    rig = await rig_of(MOVE_LOCAL)
    rig.kernel.lose_sandbox(C1.sandbox)
    await asyncio.sleep(0)
    await rig.loop.settle(rig.world)
    await rig.loop.full(rig.world)
    rig.loop.reconcile([("endpoint", C1.id)], rig.world)
    assert rig.gone == [C1.id]
    assert set(rig.loop.failures) == {("endpoint", C1.id)}
    assert await rig.loop.work(rig.world) == 300.0, "trying again cannot help"
    rig.loop.reconcile(rig.world.withdraw(C1.id), rig.world)
    assert not rig.loop.failures
    without = dataclasses.replace(MOVE_LOCAL, endpoints=(C2, C3))
    assert rig.kernel.text() == rig_text(await rig_of(without))


async def test_an_endpoint_whose_inside_was_never_made() -> None:
    """The agent was killed inside ADD: told at the first reconcile, and made after all if the ADD comes again."""
    rig = Rig(MOVE_LOCAL)
    await rig.start(offer=False)
    assert sorted(rig.gone) == [C1.id, C2.id]
    rig.datapath.offer(C1, FakeSite().sandbox(C1))
    assert rig.loop.reconcile([("endpoint", C1.id)], rig.world).failures == {}
    rig.datapath.offer(C1, None)
    assert set(rig.loop.failures) == {("endpoint", C2.id)}
    rig.kernel.lose_sandbox(C1.sandbox)
    await asyncio.sleep(0)
    await rig.loop.settle(rig.world)
    assert rig.gone.count(C1.id) == 2, "whole in between: a new loss"


async def test_who_is_told_may_reconcile_at_once() -> None:
    """From inside the call."""
    rig = Rig(MOVE_LOCAL)

    def release(gone: EndpointId) -> None:
        rig.gone.append(gone)
        rig.loop.reconcile(rig.world.withdraw(gone), rig.world)

    rig.loop = Reconciler(rig.datapath, on_gone=release, offload=at_once, clock=rig.clock)
    await rig.start(offer=False)
    assert sorted(rig.gone) == [C1.id, C2.id]
    assert not rig.loop.failures
    assert rig.loop.mirror == rig.kernel.objects == rig.loop.desired.objects


async def test_discard_takes_things_out_whatever_is_wanted() -> None:
    """Before the first snapshot a detach knows only what the kernel remembers."""
    kernel = (await rig_of(MOVE_LOCAL)).kernel
    rig = Rig(MOVE_LOCAL, Datapath(kernel))
    await rig.loop.start()
    assert rig.loop.discard([port_key(C1)]) == {}
    assert port_key(C1) not in kernel.objects
    assert port_key(C1) not in rig.loop.mirror
    rig.datapath.refused = {port_key(C2)}
    assert set(rig.loop.discard([port_key(C2), ("no", "such")])) == {port_key(C2)}


async def test_full_writes_only_differences() -> None:
    """Nothing, in a world that is as it should be."""
    rig = await rig_of(REMOTE)
    assert (await rig.loop.full(rig.world)).written == 0
    del rig.kernel.objects[neighbour_key("10.1.0.2")]
    assert (await rig.loop.full(rig.world)).written == 1
    rig.enter(EMPTY)
    assert rig.kernel.objects == {}
    assert rig.loop.desired.units == {}


async def test_an_agent_over_the_kit_is_quiet() -> None:
    """The kit's own check can fail: it sees a kernel that was changed behind everybody's back."""
    agent = Agent(FakeSite(), ONE)
    await agent.start(ONE)
    expect_quiet(agent, "one")
    objects: dict[Key, Object] = agent.inner.kernel.objects if isinstance(agent.inner, FakeDatapath) else {}
    objects.pop(neighbour_key("10.1.0.2"))
    with pytest.raises(AssertionError, match=r"neighbour .* 10\.1\.0\.2"):
        expect_quiet(agent, "one")


async def test_a_unit_that_stays_is_blamed_for_what_it_left() -> None:
    """In every round: the key is wanted by nobody any more, but it was the network's."""
    rig = await rig_of(REMOTE)
    old: Key = ("peer", BLUE.id, WEB.id, "192.0.2.2")
    rig.datapath.refused = {old}
    rig.enter(VTEP_CHANGED)
    await rig.loop.settle(rig.world)
    assert set(rig.loop.failures) == {("network", WEB.id)}
    assert [o.key for o in rig.datapath.written].count(old) == 4
    rig.datapath.refused.clear()
    rig.loop.drifted([BLUE.id])
    await rig.loop.settle(rig.world)
    assert not rig.loop.failures
    assert rig.kernel.text() == rig_text(await rig_of(VTEP_CHANGED))


async def test_a_lost_namespace_counts_more_than_other_errors() -> None:
    """An endpoint that failed before its port, too, has to be released all the same."""
    rig = Rig(ONE)
    rig.datapath.refused = {("guard", BLUE.id, C1.id)}
    await rig.start(offer=False)
    assert rig.gone == [C1.id]
    assert "no namespace" in rig.loop.failures[("endpoint", C1.id)].text


async def test_a_bridge_that_was_removed_gets_its_ports_back() -> None:
    """The ports live on without it: they are put back, not made anew, for nobody holds their namespaces any more."""
    rig = await rig_of(MOVE_LOCAL)
    text = rig.kernel.text()
    rig.kernel.disturb(("bridge", BLUE.id, WEB.id))
    await asyncio.sleep(0)
    await rig.loop.settle(rig.world)
    assert rig.kernel.text() == text
    assert rig.gone == []
    assert {o.verb for o in rig.datapath.written if o.key[0] == "port"} == {Verb.REPLACE}
