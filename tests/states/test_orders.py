"""Orders and random walks on the fake: the laws hold for whatever a controller may say, and law 4 for the packets."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdn.model.ids import HostId
from sdn.model.resources import Endpoint, Member, Network, Subnet
from sdn.reconcile.fake import FakeKernel, FakeSite
from sdn.reconcile.fake_forwarding import reaches
from sdn.reconcile.laws import Agent, Laws, expect_quiet
from sdn.reconcile.reach import matrix, underlay_family
from sdn.reconcile.state import State
from sdn.reconcile.unit import Here
from tests.states.states import (
    BLUE,
    C1,
    DUAL,
    DUAL_STACK,
    EMPTY,
    EQUAL_TENANTS,
    HANDED,
    HANDED_OTHER_MAC,
    MOVE_LOCAL,
    MOVE_REMOTE,
    RED,
    RED_WEB,
    STATES,
    UNDERLAY46,
    WEB,
    endpoint,
    host,
    member,
)

HOSTS = (1, 2, 3)
NETWORKS = (WEB, DUAL, RED_WEB)
SUFFIXES = (2, 3, 4)


@pytest.mark.parametrize("order", list(itertools.permutations((MOVE_LOCAL, MOVE_REMOTE, HANDED, HANDED_OTHER_MAC))))
async def test_all_orders(order: tuple[State, ...]) -> None:
    """An address that moves, and passes to another endpoint and another MAC, in every order."""
    await Laws(FakeSite).path_does_not_matter(order)


@pytest.mark.parametrize("seed", range(5))
async def test_any_state_after_any_other(seed: int) -> None:
    """Named states of one host shuffled, each change also torn into its parts."""
    states = random.Random(seed).sample(list(STATES.values()), len(STATES))
    await Laws(FakeSite).path_does_not_matter(states, seed)


# Random walks -------------------------------------------------------------------------------------------------------


def address_in(network: Network, suffix: int) -> tuple[str, ...]:
    """One address of each of the network's subnets."""

    def one(subnet: Subnet) -> str:
        base, length = subnet.prefix.split("/")
        return f"{base.removesuffix('.0') + '.' if '.' in base else base}{suffix}/{length}"

    return tuple(one(subnet) for subnet in network.subnets)


def as_member(number: int, families: int) -> Member:
    """Host `number` with IPv4 (1), IPv6 (2), both (3) or no VTEP (0)."""
    return member(number, four=bool(families & 1), six=bool(families & 2))


@st.composite
def states(draw: st.DrawFn) -> State:
    """A whole state that a controller could have: unique addresses, MACs and (container, ifname)."""
    families = {number: draw(st.integers(0, 3)) for number in HOSTS}
    networks = draw(st.lists(st.sampled_from(NETWORKS), unique_by=lambda network: network.id))
    tenants = {network.tenant for network in networks} | draw(st.sets(st.sampled_from((BLUE.id, RED.id))))
    changed = draw(st.booleans())
    endpoints: list[Endpoint] = []
    for network in networks:
        for suffix in draw(st.sets(st.sampled_from(SUFFIXES))):
            # The same address may be another endpoint's in the next state, with the same MAC or another.
            variant = draw(st.integers(0, 2))
            number = 100 * network.vni + 10 * variant + suffix
            mac = f"0a:77:00:00:00:{suffix:02x}" if variant == 2 else ""
            endpoints.append(
                endpoint(number, draw(st.sampled_from(HOSTS)), network, *address_in(network, suffix), mac=mac)
            )
    me = as_member(1, families[1])
    return State(
        "drawn",
        Here(me.host, me.vtep4, me.vtep6),
        tuple(t for t in (BLUE, RED) if t.id in tenants),
        tuple(network_with(network, 1400 if changed else 1450) for network in networks),
        tuple((network.id, as_member(number, families[number])) for network in networks for number in HOSTS),
        tuple(endpoints),
    )


def network_with(network: Network, mtu_bytes: int) -> Network:
    """The same network with another header: a subnet's gateway moved, say."""
    if mtu_bytes == network.mtu_bytes:
        return network
    subnets = tuple(
        Subnet(prefix=s.prefix, gateway=s.gateway.removesuffix("1") + "e" if ":" in s.gateway else s.gateway)
        for s in network.subnets
    )
    return Network(
        id=network.id,
        tenant=network.tenant,
        name=network.name,
        vni=network.vni,
        subnets=subnets,
        mtu_bytes=network.mtu_bytes,
        labels={"changed": "yes"},
    )


WALK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@WALK
@given(st.lists(states(), min_size=2, max_size=5), st.integers(0, 1 << 30))
async def test_random_walks_obey_the_laws(walk: list[State], seed: int) -> None:
    """1, 2, 5 and 6, for any walk."""
    laws = Laws(FakeSite)
    await laws.path_does_not_matter(walk, seed)
    await laws.second_reconcile_writes_nothing(walk)
    laws.units_lower_alone(walk)


@settings(WALK, max_examples=15)
@given(states(), states())
async def test_random_steps_survive_a_kill_and_a_failure_anywhere(before: State, after: State) -> None:
    """Law 3, for any step."""
    laws = Laws(FakeSite)
    await laws.killed_anywhere_converges(before, after)
    await laws.failed_anywhere_converges(before, after)


@WALK
@given(st.lists(states(), min_size=1, max_size=3), st.data())
async def test_any_disturbance_is_repaired(walk: list[State], data: st.DataObject) -> None:
    """Whatever somebody takes away, if only the drift is told of, comes back; endpoints whose port went are told."""
    site = FakeSite()
    agent = Agent(site, walk[0])
    await agent.start(walk[0])
    for state in walk[1:]:
        await agent.enter(state)
    taken = data.draw(st.lists(st.sampled_from(sorted(site.kernel.objects)), max_size=4)) if site.kernel.objects else []
    ports = {key for key in site.kernel.objects if key[0] == "port"}
    for key in taken:
        site.kernel.disturb(key)
    lost = {key[2] for key in ports - site.kernel.objects.keys()}
    agent.reconciler.drifted([BLUE.id, RED.id])
    await agent.reconciler.settle(agent.world)
    assert set(agent.gone) == lost
    assert len(agent.gone) == len(lost)
    await agent.release_gone()
    expect_quiet(agent, f"after {taken}")


# Law 4 --------------------------------------------------------------------------------------------------------------


async def kernels_of(state: State, hosts: Mapping[HostId, Member], torn: int | None) -> dict[HostId, FakeKernel]:
    """Every host of a state brought to it; with `torn` from the empty state, one change at a time."""
    kernels: dict[HostId, FakeKernel] = {}
    for host_id, me in hosts.items():
        here = state.seen_from(host_id, me.vtep4, me.vtep6)
        site = FakeSite()
        start = here if torn is None else dataclasses.replace(EMPTY, here=here.here)
        agent = Agent(site, start)
        await agent.start(start)
        if torn is not None:
            await agent.enter_torn(here, random.Random(torn))
        kernels[host_id] = site.kernel
    return kernels


def expect_verdicts(state: State, kernels: Mapping[HostId, FakeKernel], hosts: Mapping[HostId, Member]) -> None:
    """The programmed kernels deliver exactly what the oracle allows."""

    def connected(one: HostId, other: HostId) -> bool:
        return underlay_family(hosts[one], hosts[other]) is not None

    for source, target, verdict in matrix(state.endpoints, connected):
        assert reaches(kernels, source, target) is verdict.allowed, f"{source.id} to {target.id}: {verdict}"


def members_of(state: State) -> dict[HostId, Member]:
    """Every member once."""
    return {which.host: which for _, which in state.members}


@pytest.mark.parametrize(
    "state", [EQUAL_TENANTS, DUAL_STACK, UNDERLAY46, MOVE_LOCAL, MOVE_REMOTE], ids=lambda s: s.name
)
async def test_named_states_deliver_what_the_oracle_allows(state: State) -> None:
    """Law 4 on the fake."""
    hosts = members_of(state)
    expect_verdicts(state, await kernels_of(state, hosts, None), hosts)


@WALK
@given(states(), st.integers(0, 1 << 30))
async def test_any_state_delivers_what_the_oracle_allows(state: State, seed: int) -> None:
    """Also when every host got there by another order of changes."""
    hosts = members_of(state)
    expect_verdicts(state, await kernels_of(state, hosts, seed), hosts)


def pairs_delivered(kernels: Mapping[HostId, FakeKernel], endpoints: Iterable[Endpoint]) -> int:
    """How many ordered pairs of two endpoints reach each other."""
    return sum(reaches(kernels, a, b) for a, b in itertools.permutations(endpoints, 2))


async def test_the_walk_of_a_packet_can_end_badly() -> None:
    """Each programmed thing is needed: without it fewer pairs are delivered (so the oracle's check can fail)."""
    state = dataclasses.replace(MOVE_LOCAL, name="three", endpoints=(C1, *MOVE_LOCAL.endpoints[1:]))
    hosts = members_of(state)
    whole = await kernels_of(state, hosts, None)
    best = pairs_delivered(whole, state.endpoints)
    assert best == len(state.endpoints) * (len(state.endpoints) - 1)
    kernel = whole[host(1)]
    for key in [key for key in kernel.objects if key[0] not in ("tenant", "bridge")]:
        kept = kernel.objects.pop(key)
        assert pairs_delivered(whole, state.endpoints) < best, f"{' '.join(key)} is not needed"
        kernel.objects[key] = kept
