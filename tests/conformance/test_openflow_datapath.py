"""The OpenFlow datapath comes back to what is wanted after foreign hands and deaths, of the switch's daemons too."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest

from plugin.datapath.openflow.datapath import OpenflowDatapath
from plugin.datapath.openflow.vswitch import Change, Vswitch
from plugin.datapath.veth.ports import port_name
from sdn.model.errors import HawseError, Kind
from sdn.reconcile.laws import Agent, expect_quiet
from sdn.reconcile.state import State
from tests.conformance.host_site import write_state, writing
from tests.conformance.openflow_site import OpenflowSite
from tests.conformance.vswitch_process import VswitchProcess, wait_until
from tests.packet.lab import WAIT_S
from tests.packet.test_hosts import ping, pinging, plain
from tests.states.states import BLUE, C1, D1, DUAL_STACK, EMPTY, ONE, REMOTE, WEB, endpoint, member

pytestmark = pytest.mark.root


@pytest.fixture
def site(switch: VswitchProcess) -> Iterator[OpenflowSite]:
    with contextlib.closing(OpenflowSite(switch)) as made:
        yield made


@pytest.fixture
def own() -> Iterator[OpenflowSite]:
    """One whose daemons may die."""
    with contextlib.closing(OpenflowSite()) as made:
        yield made


async def repair(agent: Agent) -> None:
    """What the loop does when it was told; again, while the switch is away."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await agent.reconciler.full(agent.world)
            except HawseError:
                await asyncio.sleep(0.02)  # the loop itself would wait to be told again
            else:
                break
    await agent.reconciler.settle(agent.world)


STATION = "table=120,priority=10,tun_id=0x66,dl_dst=0a:01:0a:02:00:03,reg1=0"
DAMAGE: dict[str, tuple[str, ...]] = {
    "every flow is gone": ("ofctl", "del-flows", "hwint"),
    "a flow is gone": ("ofctl", "--strict", "del-flows", "hwint", STATION),
    "a flow is another": ("ofctl", "add-flow", "hwint", f"cookie=0x4857030000000000,{STATION},actions=drop"),
    "a flow nobody wants": (
        "ofctl",
        "add-flow",
        "hwint",
        "cookie=0x4857030000000000,table=120,priority=99,in_port=7,actions=drop",
    ),
    "a port is removed": ("vsctl", "del-port", "hwint", "{port}"),
    "a port forgets whose it is": ("vsctl", "remove", "interface", "{port}", "external_ids", "hawse-endpoint"),
    "a bridge is removed": ("vsctl", "del-br", "hwint"),
    "the tunnel is removed": ("vsctl", "del-port", "hwint", "hwvxlan"),
    "a network's name is another": ("vsctl", "set", "bridge", "hwint", "external_ids:hawse-vni-102=nobody nothing"),
    "a host end is down": ("ip", "link", "set", "{port}", "down"),
    "a host end has another alias": ("ip", "link", "set", "{port}", "alias", "nobody"),
    "a host end has another MTU": ("ip", "link", "set", "{port}", "mtu", "1300"),
}


def do(site: OpenflowSite, words: tuple[str, ...]) -> None:
    """What somebody else does."""
    port = port_name(D1.id)
    tool, *rest = (word.format(port=port) for word in words)
    if tool == "ip":
        site.run("ip", *rest)
    else:
        getattr(site.process, tool)(*rest)


@pytest.mark.parametrize("damage", DAMAGE)
async def test_foreign_hands_are_noticed_and_undone(damage: str, site: OpenflowSite) -> None:
    """Switch, database and kernel tell of the change, and what is wanted is there again after it."""
    with contextlib.closing(Agent(site, DUAL_STACK)) as agent:
        await agent.start(DUAL_STACK)
        told = threading.Event()
        agent.inner.notify(lambda tenants: told.set())
        do(site, DAMAGE[damage])
        assert told.wait(WAIT_S), f"nobody told that {damage}"
        await repair(agent)
        assert agent.gone == []
        expect_quiet(agent, damage)


async def test_foreign_bridges_and_flows_are_left_alone(site: OpenflowSite) -> None:
    """Neither attaching nor purging touches what is somebody else's, in our bridge either."""
    site.process.vsctl("add-br", "mine", "--", "set", "bridge", "mine", "datapath_type=netdev")
    try:
        site.process.ofctl("add-flow", "mine", "cookie=0x17,priority=7,actions=drop")
        with contextlib.closing(Agent(site, ONE)) as agent:
            await agent.start(ONE)
            site.process.ofctl("add-flow", "hwint", "cookie=0x17,table=200,priority=7,actions=drop")
            await agent.reconciler.full(agent.world)
            expect_quiet(agent, "a foreign flow")
            await agent.enter(EMPTY)
            assert "cookie=0x17" in site.process.ofctl("dump-flows", "hwint", "table=200")
            agent.inner.purge()
            assert site.process.vsctl("list-br").split() == ["mine"]
            assert "cookie=0x17" in site.process.ofctl("dump-flows", "mine")
    finally:
        site.process.vsctl("del-br", "mine")


async def test_a_name_of_ours_that_is_somebody_elses_is_a_sentence(site: OpenflowSite) -> None:
    """Nothing is written into a bridge that we did not make."""
    site.process.vsctl("add-br", "hwint", "--", "set", "bridge", "hwint", "datapath_type=netdev")
    try:
        with pytest.raises(HawseError, match="bridge hwint that is not Hawse's") as caught:
            site.datapath()
        assert caught.value.kind is Kind.CONFLICT
    finally:
        site.process.vsctl("del-br", "hwint")


async def test_own_writes_are_no_news(site: OpenflowSite) -> None:
    """Attaching and detaching wakes nobody; a container that dies does."""
    with contextlib.closing(Agent(site, ONE)) as agent:
        await agent.start(ONE)
        told: list[object] = []
        event = threading.Event()

        def drifted(tenants: object) -> None:
            told.append(tenants)
            event.set()

        agent.inner.notify(drifted)
        await agent.enter(REMOTE)
        await agent.enter(ONE)
        await agent.enter(REMOTE)
        assert isinstance(agent.inner, OpenflowDatapath)
        assert agent.inner.wait_removed(WAIT_S)
        assert told == []
        site.container(C1).ip("link del eth0")
        assert event.wait(WAIT_S)
        assert all(tenants == [BLUE.id] for tenants in told)


async def test_a_restarted_agent_loses_no_packet(site: OpenflowSite) -> None:
    """It writes nothing and flushes nothing."""
    with contextlib.closing(Agent(site, REMOTE)) as agent:
        await agent.start(REMOTE)
    a, b = (endpoint for endpoint in REMOTE.local_endpoints())
    assert ping(site.container(a), plain(b)[0])
    with pinging(site.container(a), plain(b)[0]), contextlib.closing(Agent(site, REMOTE)) as agent:
        await agent.start(REMOTE, offer=False)
        assert agent.datapath.operations == 0
        await agent.reconciler.full(agent.world)
        expect_quiet(agent, "restarted")


async def test_a_restarted_switch_has_everything_again(own: OpenflowSite) -> None:
    """The loop is told, and its full read writes what is missing."""
    with contextlib.closing(Agent(own, REMOTE)) as agent:
        await agent.start(REMOTE)
        a, b = (endpoint for endpoint in REMOTE.local_endpoints())
        told = threading.Event()
        agent.inner.notify(lambda tenants: told.set())
        own.process.restart_vswitchd()
        assert told.wait(WAIT_S)
        await repair(agent)
        expect_quiet(agent, "the switch was restarted")
        assert ping(own.container(a), plain(b)[0])


async def test_while_the_switch_is_away_writes_fail_with_a_sentence(own: OpenflowSite) -> None:
    """At once, and the veth that was made for nothing is gone; then everything is repaired."""
    with contextlib.closing(Agent(own, ONE)) as agent:
        await agent.start(ONE)
        told = threading.Event()
        agent.inner.notify(lambda tenants: told.set())
        own.process.kill_vswitchd()
        wait_until(lambda: _away(agent), "the switch is seen to be away")
        result = await agent.take(REMOTE, agent.feed.advance(REMOTE), settle=False)
        assert result.failures
        assert all("Open vSwitch" in text for text in result.failures.values())
        own.process.start_vswitchd()
        assert told.wait(WAIT_S)
        for which in REMOTE.local_endpoints():
            agent.datapath.offer(which, own.sandbox(which))
        await repair(agent)
        expect_quiet(agent, "the switch is back")


def _away(agent: Agent) -> bool:
    try:
        agent.inner.drops()
    except HawseError:
        return True
    return False


async def test_a_database_that_dies_is_survived(own: OpenflowSite) -> None:
    """Its connection is made again, and nothing was lost."""
    with contextlib.closing(Agent(own, ONE)) as agent:
        await agent.start(ONE)
        told = threading.Event()
        agent.inner.notify(lambda tenants: told.set())
        own.process.kill_database()
        own.process.start_database()
        assert told.wait(WAIT_S)
        await repair(agent)
        await agent.enter(REMOTE)
        expect_quiet(agent, "the database is back")


def test_without_open_vswitch_it_refuses_to_begin(site: OpenflowSite) -> None:
    """And says where it has looked."""
    with pytest.raises(HawseError, match="Open vSwitch") as caught:
        OpenflowDatapath(site.run_dir, site.here.fd, site.run_dir / "db.sock")
    assert caught.value.kind is Kind.UNAVAILABLE
    assert str(site.run_dir / "db.sock") in str(caught.value)


async def test_a_crowd_comes_and_goes(site: OpenflowSite) -> None:
    """A hundred ports in one transaction; all have numbers of their own, and all go again."""
    crowd = tuple(endpoint(100 + n, 1, WEB, f"10.1.0.{100 + n}/24") for n in range(100))
    members = ((WEB.id, member(1)),)
    many = State("crowd", ONE.here, (BLUE,), (WEB,), members, (C1, *crowd))
    with contextlib.closing(Agent(site, ONE)) as agent:
        await agent.start(ONE)
        await agent.enter(many)
        expect_quiet(agent, "a crowd")
        assert ping(site.container(crowd[0]), plain(crowd[-1])[0])
        await agent.enter(ONE)
        expect_quiet(agent, "the crowd has left")
        assert isinstance(agent.inner, OpenflowDatapath)
        assert agent.inner.wait_removed(30)
        assert port_name(crowd[0].id) not in site.run("ip", "-o", "link", "show")


def test_purging_what_is_not_there_is_fine(site: OpenflowSite) -> None:
    """Twice."""
    with writing(site) as datapath:
        datapath.offer(C1, site.sandbox(C1))
        assert write_state(datapath, ONE) == {}
        assert datapath.purge() == 1
        assert datapath.purge() == 0
        assert datapath.read() == {}


async def test_a_port_that_the_switch_refuses_is_taken_back(site: OpenflowSite) -> None:
    """Somebody else's bridge has the device already: no veth, no row, no flow of it stays, and the others work."""
    device = port_name(C1.id)
    site.process.vsctl("add-br", "mine", "--", "set", "bridge", "mine", "datapath_type=netdev")
    try:
        site.process.vsctl("--no-wait", "add-port", "mine", device)
        with contextlib.closing(Agent(site, EMPTY)) as agent:
            await agent.start(EMPTY)
            result = await agent.take(REMOTE, agent.feed.advance(REMOTE), settle=False)
            assert [unit for unit in result.failures if unit != ("endpoint", C1.id)] == []
            assert device in result.failures["endpoint", C1.id]
            there = agent.inner.read()
            assert [port.container for port in agent.inner.local_ports(there)] == ["c2"]
            assert [key for key in there if device in key] == []
            site.process.vsctl("del-port", "mine", device)
            for which in REMOTE.local_endpoints():
                agent.datapath.offer(which, site.sandbox(which))
            await agent.reconciler.full(agent.world)
            await agent.reconciler.settle(agent.world)
            expect_quiet(agent, "the name is free")
    finally:
        site.process.vsctl("del-br", "mine")


DEATHS = ("kill_vswitchd", "kill_database")


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("step", ["change", "flows", "wait"])
async def test_a_daemon_that_dies_amid_an_attachment(
    death: str, step: str, own: OpenflowSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the database is told, before the flows go, before the port is confirmed: in the end all is as wanted."""
    with contextlib.closing(Agent(own, ONE)) as agent:
        await agent.start(ONE)
        told = threading.Event()
        agent.inner.notify(lambda tenants: told.set())
        place = Change if step == "wait" else Vswitch
        original = getattr(place, step)

        def dying(self: object, *args: object, **kwargs: object) -> object:
            monkeypatch.setattr(place, step, original)
            getattr(own.process, death)()
            return original(self, *args, **kwargs)

        monkeypatch.setattr(place, step, dying)
        await agent.take(REMOTE, agent.feed.advance(REMOTE), settle=False)
        own.process.start_database() if death == "kill_database" else own.process.start_vswitchd()
        assert told.wait(WAIT_S)
        for which in REMOTE.local_endpoints():
            agent.datapath.offer(which, own.sandbox(which))
        await repair(agent)
        expect_quiet(agent, f"{death} at {step}")
        a, b = REMOTE.local_endpoints()
        assert ping(own.container(a), plain(b)[0])
