"""The bridge datapath on a real kernel passes the kit, and comes back to what is wanted after foreign hands."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from typing import cast

import pytest

from plugin.datapath.bridge.datapath import BridgeDatapath
from plugin.datapath.veth.ports import DOOMED, port_name
from sdn.model.ids import TenantId
from sdn.reconcile.datapath import LocalPort, Sandbox
from sdn.reconcile.laws import Agent, Laws, expect_equal, expect_quiet
from sdn.reconcile.state import State
from tests.conformance.bridge_site import BridgeSite, write_state
from tests.states.states import BLUE, C1, C2, DUAL_STACK, EMPTY, EQUAL_TENANTS, ONE, RED, REMOTE, SEQUENCES, STATES

pytestmark = pytest.mark.root


@pytest.fixture
def site() -> Iterator[BridgeSite]:
    with contextlib.closing(BridgeSite()) as made:
        yield made


@pytest.mark.parametrize("name", SEQUENCES)
async def test_path_does_not_matter(name: str) -> None:
    """Laws 1 and 6."""
    await Laws(BridgeSite).path_does_not_matter(SEQUENCES[name])


@pytest.mark.parametrize("name", SEQUENCES)
async def test_second_reconcile_writes_nothing(name: str) -> None:
    """Law 2, of the same agent and of a restarted one."""
    await Laws(BridgeSite).second_reconcile_writes_nothing(SEQUENCES[name])


@pytest.mark.parametrize("name", STATES)
async def test_every_state_is_reached_and_read_back(name: str, site: BridgeSite) -> None:
    """From nothing, at once."""
    with contextlib.closing(Agent(site, STATES[name])) as agent:
        await agent.start(STATES[name])
        expect_quiet(agent, name)


@pytest.mark.parametrize(("before", "after"), [(EMPTY, DUAL_STACK), (REMOTE, DUAL_STACK), (EQUAL_TENANTS, EMPTY)])
async def test_killed_on_the_way_converges(before: State, after: State) -> None:
    """Law 3, at every fifth operation."""
    laws = Laws(BridgeSite)
    await laws.killed_anywhere_converges(before, after, every=5)


@pytest.mark.parametrize(("before", "after"), [(EMPTY, DUAL_STACK), (REMOTE, DUAL_STACK), (EQUAL_TENANTS, EMPTY)])
async def test_failed_on_the_way_converges(before: State, after: State) -> None:
    """One failed operation, every fifth in turn."""
    laws = Laws(BridgeSite)
    await laws.failed_anywhere_converges(before, after, every=5)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SEQUENCES)
async def test_all_laws_at_every_operation(name: str) -> None:
    """Everything, thoroughly."""
    await Laws(BridgeSite).hold(SEQUENCES[name])


def test_units_lower_alone() -> None:
    """Law 5."""
    Laws(BridgeSite).units_lower_alone(list(STATES.values()))


def _in_tenant(site: BridgeSite, command: str) -> None:
    tenant = str(site.tenant(BLUE.id))
    subprocess.run(["nsenter", f"--net={tenant}", "sh", "-c", command], check=True, timeout=10, capture_output=True)


DAMAGE = {
    "a carrier flaps": "ip link set hwx102 down; ip link set hwx102 up",
    "a carrier is deleted": "ip link del hwx102",
    "a carrier leaves the bridge": "ip link set hwx102 nomaster",
    "a bridge is down": "ip link set hwb102 down",
    "a bridge has another MAC": "ip link set hwb102 address 02:00:00:00:00:99",
    "a bridge has another MTU": "ip link set hwb102 mtu 1300",
    "a gateway is gone": "ip addr del 10.2.0.1/24 dev hwb102",
    "a port learns and floods": "bridge link set dev {port} learning on flood on mcast_flood on",
    "a port is down": "ip link set {port} down",
    "a port leaves the bridge": "ip link set {port} nomaster",
    "a port has another alias": "ip link set {port} alias nobody",
    "an entry is gone": "bridge fdb del 0a:01:0a:02:00:03 dev hwx102 self",
    "an entry leads elsewhere": "bridge fdb replace 0a:01:0a:02:00:03 dev hwx102 self permanent dst 192.0.2.99",
    "an entry leads to another port": "bridge fdb replace 0a:01:0a:02:00:03 dev {port} master static",
    "an entry nobody wants": "bridge fdb add 0a:99:99:99:99:99 dev hwx102 self permanent dst 192.0.2.99",
    "everything is sent everywhere": "bridge fdb append 00:00:00:00:00:00 dev hwx102 self permanent dst 192.0.2.99",
    "a neighbour is gone": "ip neigh del 10.2.0.3 dev hwx102",
    "a neighbour is another": "ip neigh replace fd00:1::3 lladdr 0a:99:99:99:99:99 dev hwx102 nud permanent",
    "a neighbour nobody wants": "ip neigh add 10.2.0.77 lladdr 0a:99:99:99:99:99 dev hwx102 nud permanent",
    "loopback is down": "ip link set lo down",
}
SILENT_DAMAGE = {
    "settings changed": "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables",
    "the guard is gone": "nft delete table bridge hawse",
    "an address nobody wants": "ip addr add 10.9.9.9/24 dev hwb102",
}
"""What no notification tells of: the read every few minutes finds it."""


@pytest.mark.parametrize("damage", [*DAMAGE, *SILENT_DAMAGE])
async def test_foreign_hands_are_noticed_and_undone(damage: str, site: BridgeSite) -> None:
    """The kernel tells of the change, and what is wanted is there again after it."""
    with contextlib.closing(Agent(site, DUAL_STACK)) as agent:
        await agent.start(DUAL_STACK)
        told = threading.Event()
        agent.inner.notify(lambda tenants: told.set())
        (port,) = (key[2] for key in agent.expected() if key[0] == "port")
        _in_tenant(site, (DAMAGE | SILENT_DAMAGE)[damage].format(port=port))
        if damage in DAMAGE:
            assert told.wait(5), f"nobody told that {damage}"
        assert agent.inner.read() != agent.expected(), f"the read does not see that {damage}"
        await agent.reconciler.full(agent.world)
        await agent.reconciler.settle(agent.world)
        expect_quiet(agent, damage)


async def test_own_writes_are_no_news(site: BridgeSite) -> None:
    """Attaching and detaching wakes nobody; a container that dies does, and its port is then not wanted back."""
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
        assert cast(BridgeDatapath, agent.inner).wait_removed(5)
        assert told == []
        site.container(C1).ip("link del eth0")
        assert event.wait(5)
        assert all(tenants == [BLUE.id] for tenants in told)


async def test_what_is_inside_is_checked(site: BridgeSite) -> None:
    """CHECK has nothing to say of what ADD made, and says what somebody changed."""
    with contextlib.closing(Agent(site, ONE)) as agent:
        await agent.start(ONE)
        sandbox = site.sandbox(C1)
        assert agent.inner.check(C1, 1450, sandbox) == []
        site.container(C1).ip("link set eth0 mtu 1400 down\naddr del 10.1.0.2/24 dev eth0")
        assert agent.inner.check(C1, 1450, sandbox) == [
            "eth0 is down",
            "eth0 has an MTU of 1400, not 1450",
            "eth0 lacks 10.1.0.2/24",
        ]
        assert agent.inner.check(C2, 1450, site.sandbox(C2)) == ["eth0 is not there"]


async def test_the_kernel_remembers_whose_ports_it_has(site: BridgeSite) -> None:
    """A detach needs no controller."""
    with contextlib.closing(Agent(site, REMOTE)) as agent:
        await agent.start(REMOTE)
    with contextlib.closing(site.datapath()) as datapath:
        ports = datapath.local_ports(datapath.read())
    expected = [LocalPort(e.id, e.tenant, e.container, e.ifname) for e in REMOTE.local_endpoints()]
    assert sorted(ports, key=lambda port: port.endpoint) == expected


async def test_a_read_can_be_limited_to_tenants(site: BridgeSite) -> None:
    """Nothing of another tenant is read."""
    with contextlib.closing(Agent(site, EQUAL_TENANTS)) as agent:
        await agent.start(EQUAL_TENANTS)
        blue, red = agent.inner.read([BLUE.id]), agent.inner.read([RED.id])
        assert not blue.keys() & red.keys()
        expect_equal(blue | red, agent.inner.read(), "two parts, and the whole")
        assert agent.inner.read([]) == {}
        assert agent.inner.read([TenantId("none")]) == {}


async def test_an_inside_name_that_is_taken_is_a_sentence(site: BridgeSite) -> None:
    """Nothing half-made stays, and the attachment works as soon as the name is free."""
    container = site.container(C1)
    container.ip("link add eth0 type bridge")
    with contextlib.closing(Agent(site, ONE)) as agent:
        result = await agent.start(ONE)
        assert list(agent.reconciler.failures) == [("endpoint", C1.id)]
        failure = result.failures["endpoint", C1.id]
        assert "eth0 in the container: its namespace has an interface of that name already" in failure
        assert not agent.inner.local_ports(agent.inner.read())
        container.ip("link del eth0")
        agent.datapath.offer(C1, site.sandbox(C1))
        await agent.reconciler.full(agent.world)
        expect_quiet(agent, "the name is free")


async def test_without_a_namespace_nothing_is_made(site: BridgeSite) -> None:
    """An endpoint whose namespace nobody holds is told as gone, once."""
    with contextlib.closing(Agent(site, ONE)) as agent:
        await agent.start(ONE, offer=False)
        assert agent.gone == [C1.id]
        assert not agent.inner.local_ports(agent.inner.read())


def test_a_namespace_that_is_none_is_a_failure_of_that_endpoint_alone(site: BridgeSite) -> None:
    """A descriptor of something else does not stop the others."""
    with contextlib.closing(site.datapath()) as datapath, open("/dev/null") as nothing:
        datapath.offer(C1, Sandbox(nothing.fileno(), 1))
        datapath.offer(C2, site.sandbox(C2))
        errors = write_state(datapath, REMOTE)
        assert {(key[0], key[-1]) for key in errors} == {("port", port_name(C1.id)), ("station", C1.mac)}
        assert [port.endpoint for port in datapath.local_ports(datapath.read())] == [C2.id]


def test_a_doomed_port_left_by_a_killed_agent_is_deleted(site: BridgeSite) -> None:
    """It is not there for a read, and the read has it deleted."""
    with contextlib.closing(site.datapath()) as datapath:
        datapath.offer(C1, site.sandbox(C1))
        assert write_state(datapath, ONE) == {}
        port = port_name(C1.id)
        _in_tenant(site, f"ip link set {port} group {DOOMED}")
        assert ("port", BLUE.id, port) not in datapath.read()
        assert datapath.wait_removed(5)
        assert (
            port
            not in subprocess.run(
                ["nsenter", f"--net={site.tenant(BLUE.id)}", "ip", "link"], capture_output=True, text=True, check=True
            ).stdout
        )
