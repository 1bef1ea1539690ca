"""The laws of reconciling, as a kit that every datapath has to pass.

1  the final state depends only on the desired state, never on the path to it
2  a second reconcile writes nothing
3  killed at any point, the next run converges
5  lowering unit by unit equals lowering all (and looks at nothing but the unit and the headers that it names)
6  mirror and kernel agree whenever it is quiet
(4, the same verdict for the same packet on every datapath, is for packets: see `reach`.)

A `Site` is one host's kernel. Each check makes sites by the factory and closes them, also when it fails. The checks
raise AssertionError with the difference.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import pairwise
from typing import Protocol, TypeVar

from sdn.model.ids import EndpointId
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import Datapath, Key, Object, Sandbox
from sdn.reconcile.faults import Faulty, KilledError
from sdn.reconcile.loop import Reconciler, Result
from sdn.reconcile.state import Feed, Message, State
from sdn.reconcile.unit import Context, EndpointUnit, NetworkUnit, TenantUnit, Unit
from sdn.reconcile.world import World

T = TypeVar("T")


class Site(Protocol):
    """One host's kernel, empty at first. It outlives its datapath objects as a kernel outlives agents."""

    def datapath(self) -> Datapath:
        """A new datapath object on this kernel."""

    def sandbox(self, endpoint: Endpoint) -> Sandbox:
        """The namespace of the endpoint's container, by its cookie; made at the first call, kept until `close`."""

    def close(self) -> None:
        """Remove everything, namespaces included."""


async def _at_once(read: Callable[[], T]) -> T:
    return read()


class Agent:
    """The part of an agent that the laws are about: world, reconciler and one datapath object on a site."""

    def __init__(self, site: Site, state: State, *, die_at: int | None = None, fail_at: int | None = None) -> None:
        self.site = site
        self.inner = site.datapath()
        self.datapath = Faulty(self.inner, die_at=die_at, fail_at=fail_at)
        self.gone: list[EndpointId] = []
        self.feed = Feed()
        self.world = World(state.here.host)
        self.reconciler = Reconciler(self.datapath, offload=_at_once, on_gone=self.gone.append, clock=lambda: 0.0)

    async def start(self, state: State, *, offer: bool = True) -> Result:
        """Begin with the snapshot of a state."""
        await self.reconciler.start()
        self.world.begin(resumed=False)
        return await self.take(state, self.feed.snapshot(state), offer=offer)

    async def enter(self, state: State) -> Result:
        """Go on to a state by one transaction."""
        return await self.take(state, self.feed.advance(state))

    async def enter_torn(self, state: State, chance: random.Random) -> None:
        """Go on to a state by one transaction per change, in a random order."""
        edits = self.feed.edits(state)
        chance.shuffle(edits)
        for edit in edits:
            await self.take(state, self.feed.transaction([edit]), settle=False)
        await self.take(state, self.feed.transaction([]))

    async def take(
        self, state: State, messages: Sequence[Message], *, offer: bool = True, settle: bool = True
    ) -> Result:
        """Apply messages that lead to (or towards) a state, its local containers' namespaces at hand or not."""
        dirty = self.world.set_here(state.here.vtep4, state.here.vtep6)
        applied = self.world.apply(*messages)
        assert applied is not None, "the messages end with a Sync"
        offered = list(state.local_endpoints()) if offer else []
        for endpoint in offered:
            self.datapath.offer(endpoint, self.site.sandbox(endpoint))
        try:
            result = self.reconciler.reconcile(dirty | applied.dirty, self.world)
            if settle:
                await self.reconciler.settle(self.world)
        finally:
            for endpoint in offered:
                self.datapath.offer(endpoint, None)
        return result

    async def release_gone(self) -> None:
        """Treat endpoints that cannot be wired again as the agent does: release them."""
        for endpoint in self.gone:
            self.reconciler.reconcile(self.world.withdraw(endpoint), self.world)
        await self.reconciler.settle(self.world)

    def expected(self) -> dict[Key, Object]:
        """What all units of the world lower to, at once."""
        return lower_all(self.datapath, self.world.units(), self.world.context())

    def close(self) -> None:
        """As an agent that ends: the kernel's state stays."""
        self.inner.close()


def lower_all(datapath: Datapath, units: Iterator[Unit], context: Context) -> dict[Key, Object]:
    """The objects of all units; no two units may want the same key."""
    objects: dict[Key, Object] = {}
    for unit in units:
        lowered = datapath.lower(unit, context)
        assert not lowered.keys() & objects.keys(), f"two units lower to {lowered.keys() & objects.keys()}"
        objects |= lowered
    return objects


def difference(left: Mapping[Key, Object], right: Mapping[Key, Object]) -> str:
    """Two sets of objects compared, as lines."""
    lines = [
        f"{' '.join(key)}\n    {left.get(key)}\n    {right.get(key)}"
        for key in sorted(left.keys() | right.keys())
        if left.get(key) != right.get(key)
    ]
    return "\n".join(lines)


def expect_equal(left: Mapping[Key, Object], right: Mapping[Key, Object], what: str) -> None:
    """Raises: AssertionError, with the difference."""
    assert dict(left) == dict(right), f"{what}:\n{difference(left, right)}"


def expect_quiet(agent: Agent, what: str) -> None:
    """Laws 2 (its half: nothing is left to do) and 6, and that nothing failed."""
    assert not agent.reconciler.failures, f"{what}: {dict(agent.reconciler.failures)}"
    there = agent.inner.read()
    expect_equal(there, agent.expected(), f"{what}: the kernel, and what is wanted")
    expect_equal(there, agent.reconciler.mirror, f"{what}: the kernel, and the mirror (law 6)")


class Laws:
    """The kit. `make_site` makes an empty kernel; states are given in the order in which they may follow each other."""

    def __init__(self, make_site: Callable[[], Site]) -> None:
        self._make_site = make_site

    async def hold(self, states: Sequence[State], seed: int = 0) -> None:
        """All laws, on one sequence of states of one host."""
        await self.path_does_not_matter(states, seed)
        await self.second_reconcile_writes_nothing(states)
        for before, after in pairwise(states):
            await self.killed_anywhere_converges(before, after)
            await self.failed_anywhere_converges(before, after)
        self.units_lower_alone(states)

    async def path_does_not_matter(self, states: Sequence[State], seed: int = 0) -> None:
        """Law 1 (and 6): in order, reversed, shuffled, torn and squashed, the end is the same."""
        last = states[-1]
        chance = random.Random(seed)  # noqa: S311 the order of a test, not a secret
        shuffled = chance.sample(list(states), len(states))
        paths = {
            "squashed": [last],
            "in order": list(states),
            "reversed": [*reversed(states), last],
            "shuffled": [*shuffled, last],
        }
        ends = {name: await self._end(path, name) for name, path in paths.items()}
        ends["torn"] = await self._end_torn(states, chance)
        for name, end in ends.items():
            expect_equal(end, ends["squashed"], f"{last.name}: {name}, and at once (law 1)")

    async def _end(self, path: Sequence[State], name: str) -> dict[Key, Object]:
        return await self._with_site(lambda site: self._walk(site, path, name))

    async def _walk(self, site: Site, path: Sequence[State], name: str) -> dict[Key, Object]:
        agent = Agent(site, path[0])
        with closing(agent):
            await agent.start(path[0])
            expect_quiet(agent, f"{path[0].name} ({name})")
            for state in path[1:]:
                await agent.enter(state)
                expect_quiet(agent, f"{state.name} ({name})")
            assert not agent.gone, f"{name}: lost {agent.gone}"
            return agent.inner.read()

    async def _end_torn(self, states: Sequence[State], chance: random.Random) -> dict[Key, Object]:
        async def walk(site: Site) -> dict[Key, Object]:
            agent = Agent(site, states[0])
            with closing(agent):
                await agent.start(states[0])
                for state in states[1:]:
                    await agent.enter_torn(state, chance)
                    expect_quiet(agent, f"{state.name} (torn)")
                return agent.inner.read()

        return await self._with_site(walk)

    async def second_reconcile_writes_nothing(self, states: Sequence[State]) -> None:
        """Law 2: neither a full run of the same agent nor the first run of a restarted one writes anything."""

        async def walk(site: Site) -> None:
            agent = Agent(site, states[0])
            with closing(agent):
                await agent.start(states[0])
                for state in states[1:]:
                    await agent.enter(state)
                before = agent.datapath.operations
                await agent.reconciler.full(agent.world)
                await agent.reconciler.settle(agent.world)
                assert agent.datapath.operations == before, f"{states[-1].name}: a second run wrote (law 2)"
            restarted = Agent(site, states[-1])
            with closing(restarted):
                await restarted.start(states[-1], offer=False)
                assert restarted.datapath.operations == 0, f"{states[-1].name}: a restarted agent wrote (law 2)"
                expect_quiet(restarted, f"{states[-1].name} (restarted)")

        await self._with_site(walk)

    async def killed_anywhere_converges(self, before: State, after: State, every: int = 1) -> None:
        """Law 3: killed before each (`every`-th) operation on the way, a new agent on the same kernel gets there.

        Endpoints whose inside was not made yet cannot be: those are released, all others have to be whole.
        """
        die_at = 0
        while await self._with_site(partial(self._killed, before=before, after=after, die_at=die_at)):
            die_at += every

    async def _killed(self, site: Site, before: State, after: State, die_at: int) -> bool:
        """Whether the agent died before it was done."""
        first = Agent(site, before)
        with closing(first):
            await first.start(before)
        second = Agent(site, after, die_at=die_at)
        with closing(second):
            await second.start(before, offer=False)
            try:
                await second.enter(after)
            except KilledError:
                died = True
            else:
                died = False
        what = f"{before.name} -> {after.name}, killed at operation {die_at} (law 3)"
        third = Agent(site, after)
        with closing(third):
            await third.start(after, offer=False)
            new = {e.id for e in after.local_endpoints()} - {e.id for e in before.local_endpoints()}
            assert new.issuperset(third.gone), f"{what}: lost {set(third.gone) - new}, which were whole"
            assert len(third.gone) == len(set(third.gone)), f"{what}: told twice of {third.gone}"
            await third.release_gone()
            expect_quiet(third, what)
        return died

    async def failed_anywhere_converges(self, before: State, after: State, every: int = 1) -> None:
        """One operation fails once, each in turn: the rounds after it repair it, and nothing stays a failure."""
        fail_at = 0
        while await self._with_site(partial(self._failed, before=before, after=after, fail_at=fail_at)):
            fail_at += every

    async def _failed(self, site: Site, before: State, after: State, fail_at: int) -> bool:
        """Whether there was such an operation."""
        first = Agent(site, before)
        with closing(first):
            await first.start(before)
        second = Agent(site, after, fail_at=fail_at)
        with closing(second):
            await second.start(before, offer=False)
            await second.enter(after)
            what = f"{before.name} -> {after.name}, operation {fail_at} failed"
            assert not second.gone, f"{what}: lost {second.gone}"
            expect_quiet(second, what)
            return second.datapath.operations > fail_at

    def units_lower_alone(self, states: Sequence[State]) -> None:
        """Law 5: each unit lowers the same when only what it names is in the context."""
        site = self._make_site()
        with closing(site):
            datapath = site.datapath()
            with closing(datapath):
                for state in states:
                    world = World(state.here.host)
                    world.set_here(state.here.vtep4, state.here.vtep6)
                    world.apply(*Feed().snapshot(state))
                    for unit in world.units():
                        alone = datapath.lower(unit, context_of(unit, world.context()))
                        expect_equal(
                            alone, datapath.lower(unit, world.context()), f"{state.name}: {unit} alone (law 5)"
                        )
                    lower_all(datapath, world.units(), world.context())

    async def _with_site(self, walk: Callable[[Site], Awaitable[T]]) -> T:
        site = self._make_site()
        try:
            return await walk(site)
        finally:
            site.close()


def context_of(unit: Unit, context: Context) -> Context:
    """The context with nothing in it but what the unit names: its tenant, its network, and the members of that."""
    match unit:
        case TenantUnit(tenant):
            tenant_id, network_id = tenant.id, None
        case NetworkUnit(network):
            tenant_id, network_id = network.tenant, network.id
        case EndpointUnit(endpoint):
            tenant_id, network_id = endpoint.tenant, endpoint.network
    return dataclasses.replace(
        context,
        tenants={tenant_id: context.tenants[tenant_id]},
        networks={network_id: context.networks[network_id]} if network_id else {},
        members={key: member for key, member in context.members.items() if key[0] == network_id},
    )
