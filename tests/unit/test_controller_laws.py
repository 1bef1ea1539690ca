"""Laws that hold after every sequence of requests, restarts and lost connections."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdn.controller import keys
from sdn.controller.ledger import load_state
from sdn.controller.options import Options
from sdn.controller.specs import NetworkSpec, SubnetSpec, TenantSpec
from sdn.controller.state import State
from sdn.model.errors import HawseError, Kind
from sdn.store.interface import Transaction
from sdn.store.memory import MemoryStore
from tests.unit.controller_harness import Agent, Site, refused, start

HOSTS = 3
NETWORKS = {"web": ("10.1.0.0/28", "fd00:1::/124"), "db": ("10.2.0.0/28",), "blue/web": ("10.1.0.0/29",)}


class Walk:
    """A site, its agents, and random steps on it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.site = Site(Options(lag_transactions=3, resume_changes=40))
        self.agents: list[Agent] = []
        self.boots = 0

    async def begin(self) -> None:
        await self.site.start()
        await self.site.core.create_tenant(TenantSpec(name="blue"), "test")
        for number in range(HOSTS):
            self.agents.append(await self.site.agent(f"h{number}"))

    async def step(self) -> None:
        agent = self.chance.choice(self.agents)
        steps = (self.attach, self.attach, self.attach, self.detach, self.detach, self.network, self.leave, self.read)
        step = self.chance.choice((*steps, self.reboot, self.restart, self.forget, self.facts))
        with contextlib.suppress(HawseError):  # a wish that cannot be granted; a fault of ours is no HawseError
            await step(agent)

    async def attach(self, agent: Agent) -> None:
        wish: dict[str, Any] = {}
        if self.chance.random() < 0.3:
            wish["addresses"] = (f"10.{self.chance.randint(1, 2)}.0.{self.chance.randint(0, 15)}",)
        if self.chance.random() < 0.2:
            wish["name"] = f"n{self.chance.randint(0, 3)}"
        if self.chance.random() < 0.2:
            wish["mac"] = f"0a:00:00:00:00:0{self.chance.randint(1, 3)}"
        container, network = f"c{self.chance.randint(0, 5)}", self.chance.choice(list(NETWORKS))
        if agent.stream.phase.value == "live":
            await agent.attach(container, network, sandbox=self.chance.randint(1, 2), **wish)

    async def detach(self, agent: Agent) -> None:
        everybody = list(self.site.core.state.endpoints)
        if everybody and agent.stream.phase.value == "live":
            await agent.detach(*self.chance.sample(everybody, min(len(everybody), 3)))

    async def network(self, agent: Agent) -> None:
        reference = self.chance.choice(list(NETWORKS))
        if self.chance.random() < 0.7:
            subnets = tuple(SubnetSpec(prefix=prefix) for prefix in NETWORKS[reference])
            await self.site.core.put_network(reference, NetworkSpec(subnets=subnets), None, "test")
        elif self.chance.random() < 0.3:
            await self.site.core.add_subnet(reference, SubnetSpec(prefix="fd00:9::/124"), "test")
        else:
            await self.site.core.delete_network(reference, "test")

    async def leave(self, agent: Agent) -> None:
        agent.stream.closed()
        if self.chance.random() < 0.7:
            await agent.hello(resume=self.chance.random() < 0.7)

    async def read(self, agent: Agent) -> None:
        await agent.take()
        if agent.stream.phase.value == "live":
            await agent.report()

    async def reboot(self, agent: Agent) -> None:
        self.boots += 1
        await agent.hello(incarnation=f"boot:{self.boots}")

    async def facts(self, agent: Agent) -> None:
        if agent.stream.phase.value == "live":
            await agent.change(vtep4=f"192.0.2.{self.chance.randint(100, 110)}")

    async def restart(self, agent: Agent) -> None:
        for other in self.agents:
            other.stream.closed()
        await self.site.start()
        for other in self.agents:
            if self.chance.random() < 0.8:
                await other.hello(resume=True)

    async def forget(self, agent: Agent) -> None:
        if self.chance.random() < 0.7:
            return
        await self.site.core.forget_host(agent.host, True, "test")
        self.agents[self.agents.index(agent)] = await self.site.agent(f"h{random.Random(agent.host).random()}")

    async def check(self) -> None:
        state = self.site.core.state
        check_unique(state)
        check_store(self.site)
        assert_equal(await load_state(self.site.store), state)
        for agent in self.agents:
            if agent.stream.phase.value != "live":
                await agent.hello(resume=True)
            await agent.take()
            if agent.stream.phase.value == "live":  # else its address is another's now, and it was refused
                assert agent.topics == agent.expected()


def check_unique(state: State) -> None:
    addresses = [(one.network, address) for one in state.endpoints.values() for address in one.addresses]
    macs = [(one.network, one.mac) for one in state.endpoints.values()]
    attachments = [(one.host, one.container, one.ifname) for one in state.endpoints.values()]
    names = [(one.tenant, one.name) for one in state.endpoints.values() if one.name]
    for held in (addresses, macs, attachments, names):
        assert len(set(held)) == len(held)
    assert len({network.vni for network in state.networks.values()}) == len(state.networks)
    for network in state.networks.values():
        fixed = {subnet.gateway for subnet in network.subnets}
        mine = [one for one in state.endpoints.values() if one.network == network.id]
        assert not fixed & {address.partition("/")[0] for one in mine for address in one.addresses}
        used = sum(usage.used for usage in state.addresses.usage(network))
        assert used == sum(len(one.addresses) for one in mine)


def check_store(site: Site) -> None:
    """The index keys say what the resources say, no more and no less."""
    state = site.core.state
    expected = {keys.VNI_CURSOR} if keys.VNI_CURSOR in site.disk.records else set()
    for tenant in state.tenants.values():
        expected |= {keys.tenant(tenant.id), keys.tenant_name(tenant.name)}
    for network in state.networks.values():
        expected |= {keys.network(network.id), keys.network_name(network.tenant, network.name)}
    for host in state.hosts.values():
        expected |= {keys.host(host.id), keys.host_name(host.name)}
    for one in state.endpoints.values():
        expected |= {
            keys.endpoint(one.id),
            keys.mac(one.network, one.mac),
            keys.attachment(one.host, one.container, one.ifname),
            *(keys.allocation(one.network, address.partition("/")[0]) for address in one.addresses),
        }
        if one.name:
            expected.add(keys.endpoint_name(one.tenant, one.name))
    expected |= {keys.vni(vni) for vni in state.vnis}
    assert {key for key in site.disk.records if not key.startswith("subnets/")} == expected


def assert_equal(one: State, other: State) -> None:
    """But for the order in which free addresses are tried."""
    for name in (
        "revision",
        "tenants",
        "networks",
        "hosts",
        "endpoints",
        "vnis",
        "vni_cursor",
        "credentials",
        "trusts",
        "held",
    ):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("attachments", "forgetting", "_revisions", "_holds", "_holders", "_by_network"):
        first, second = getattr(one, name), getattr(other, name)
        if isinstance(first, dict):
            first = {key: value for key, value in first.items() if value}
            second = {key: value for key, value in second.items() if value}
        assert first == second, name
    assert vars(one.names) == vars(other.names)
    for network in one.networks.values():
        assert one.addresses.usage(network) == other.addresses.usage(network)
        assert list(one.allocations(network.id)) == list(other.allocations(network.id))


@given(st.integers(0, 2**32))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_walks(seed: int) -> None:
    async def walk() -> None:
        one = Walk(seed)
        await one.begin()
        for number in range(60):
            await one.step()
            if number % 20 == 19:
                await one.check()

    asyncio.run(walk())


class Rival(MemoryStore):
    """`rival`, if set, happens just before the next commit."""

    rival: Any = None

    async def commit(self, transaction: Transaction) -> Any:
        if self.rival is not None:
            rival, self.rival = self.rival, None
            await rival()
        return await super().commit(transaction)


async def two_controllers() -> tuple[Site, Rival, Site]:
    """Two controllers on one store."""
    one, other = Site(), Site()
    rival = Rival(one.disk)
    one.core = await start(rival)
    await one.network("web", "10.1.0.0/24")
    for number in (1, 2):
        await one.core.create_host(f"h{number}", {}, "test")
    other.core = await start(rival, seed=99)
    return one, rival, other


async def test_two_controllers_never_give_out_one_address_twice() -> None:
    one, rival, other = await two_controllers()
    here = Agent(one, one.core.state.resolve_host("h1").id, {"vtep4": "192.0.2.1"})
    there = Agent(other, other.core.state.resolve_host("h2").id, {"vtep4": "192.0.2.2"})
    await here.hello()
    await there.hello()
    rival.rival = lambda: here.attach("c")
    second = await there.attach("c")
    assert second.addresses == ("10.1.0.3/24",)
    assert there.topics == there.expected()
    rival.rival = lambda: here.attach("d", addresses=("10.1.0.9",))
    error = await refused(Kind.CONFLICT, there.attach("d", addresses=("10.1.0.9",)))
    assert "taken by endpoint d:eth0 on host h1" in str(error)
    check_unique(await load_state(rival))


async def test_two_controllers_never_make_overlapping_subnets() -> None:
    one, rival, other = await two_controllers()
    rival.rival = lambda: one.network("left", "10.7.0.0/24")
    error = await refused(Kind.CONFLICT, other.network("right", "10.7.0.0/25"))
    assert "network left" in str(error)
    rival.rival = lambda: one.network("same", "10.8.0.0/24")
    await refused(Kind.CONFLICT, other.network("same", "10.9.0.0/24"))


async def test_a_network_is_not_removed_under_an_attachment() -> None:
    one, rival, other = await two_controllers()
    here = Agent(one, one.core.state.resolve_host("h1").id, {"vtep4": "192.0.2.1"})
    await here.hello()
    rival.rival = lambda: here.attach("c")
    assert "has 1 endpoint:" in str(await refused(Kind.CONFLICT, other.core.delete_network("web", "test")))


async def test_a_host_that_another_controller_serves_hears_of_it_after_the_next_write() -> None:
    one, _, other = await two_controllers()
    there = Agent(other, other.core.state.resolve_host("h2").id, {"vtep4": "192.0.2.2"})
    here = Agent(one, one.core.state.resolve_host("h1").id, {"vtep4": "192.0.2.1"})
    await here.hello()
    await there.hello()
    await there.attach("c")
    for number in range(5):
        await here.attach(f"c{number}")
    await there.attach("d")
    await there.take()
    assert there.topics == there.expected()


class Broken(MemoryStore):
    """The disk is full, once; whether the transaction was written is for the caller to find out."""

    fails = ""

    async def commit(self, transaction: Transaction) -> Any:
        fails, self.fails = self.fails, ""
        if fails == "before":
            raise HawseError(Kind.UNAVAILABLE, "the disk is full")
        revision = await super().commit(transaction)
        if fails == "after":
            raise HawseError(Kind.UNAVAILABLE, "the disk did not answer")
        return revision


@pytest.mark.parametrize("fails", ["before", "after"])
async def test_after_a_failed_commit_the_store_says_what_is_true(fails: str) -> None:
    site = await Site().start()
    await site.network("web")
    store = Broken(site.disk)
    site.core = await start(store)
    agent = await site.agent("h1")
    store.fails = fails
    await refused(Kind.UNAVAILABLE, agent.attach("c"))
    again = await agent.attach("c")
    assert list(site.core.state.endpoints) == [again.id]
    await agent.take()
    assert agent.topics == agent.expected()
    assert_equal(await load_state(store), site.core.state)


async def test_who_gives_up_does_not_stop_a_write_half_way() -> None:
    site = await Site().start()
    for turns in range(6):
        task = asyncio.create_task(site.core.create_tenant(TenantSpec(name=f"t{turns}"), "test"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await site.core.create_tenant(TenantSpec(name=f"u{turns}"), "test")
        assert_equal(await load_state(site.store), site.core.state)
