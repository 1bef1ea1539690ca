"""Every datapath of veths passes the kit on a real kernel."""

from __future__ import annotations

import contextlib
import subprocess

import pytest

from plugin.datapath.veth.ports import DOOMED, port_name
from sdn.model.ids import TenantId
from sdn.reconcile.datapath import LocalPort, Sandbox
from sdn.reconcile.laws import Agent, Laws, expect_equal, expect_quiet
from sdn.reconcile.state import State
from tests.conformance.host_site import HostSite, write_state, writing
from tests.conformance.sites import SiteMaker
from tests.states.states import BLUE, C1, C2, DUAL_STACK, EMPTY, EQUAL_TENANTS, ONE, RED, REMOTE, SEQUENCES, STATES

pytestmark = pytest.mark.root


@pytest.mark.parametrize("name", SEQUENCES)
async def test_path_does_not_matter(name: str, make_site: SiteMaker) -> None:
    """Laws 1 and 6."""
    await Laws(make_site).path_does_not_matter(SEQUENCES[name])


@pytest.mark.parametrize("name", SEQUENCES)
async def test_second_reconcile_writes_nothing(name: str, make_site: SiteMaker) -> None:
    """Law 2, of the same agent and of a restarted one."""
    await Laws(make_site).second_reconcile_writes_nothing(SEQUENCES[name])


@pytest.mark.parametrize("name", STATES)
async def test_every_state_is_reached_and_read_back(name: str, site: HostSite) -> None:
    """From nothing, at once."""
    with contextlib.closing(Agent(site, STATES[name])) as agent:
        await agent.start(STATES[name])
        expect_quiet(agent, name)


@pytest.mark.parametrize(("before", "after"), [(EMPTY, DUAL_STACK), (REMOTE, DUAL_STACK), (EQUAL_TENANTS, EMPTY)])
async def test_killed_on_the_way_converges(before: State, after: State, make_site: SiteMaker) -> None:
    """Law 3, at every fifth operation."""
    laws = Laws(make_site)
    await laws.killed_anywhere_converges(before, after, every=5)


@pytest.mark.parametrize(("before", "after"), [(EMPTY, DUAL_STACK), (REMOTE, DUAL_STACK), (EQUAL_TENANTS, EMPTY)])
async def test_failed_on_the_way_converges(before: State, after: State, make_site: SiteMaker) -> None:
    """One failed operation, every fifth in turn."""
    laws = Laws(make_site)
    await laws.failed_anywhere_converges(before, after, every=5)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SEQUENCES)
async def test_all_laws_at_every_operation(name: str, make_site: SiteMaker) -> None:
    """Everything, thoroughly."""
    await Laws(make_site).hold(SEQUENCES[name])


def test_units_lower_alone(make_site: SiteMaker) -> None:
    """Law 5."""
    Laws(make_site).units_lower_alone(list(STATES.values()))


async def test_what_is_inside_is_checked(site: HostSite) -> None:
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


async def test_the_kernel_remembers_whose_ports_it_has(site: HostSite) -> None:
    """A detach needs no controller."""
    with contextlib.closing(Agent(site, REMOTE)) as agent:
        await agent.start(REMOTE)
    with writing(site) as datapath:
        ports = datapath.local_ports(datapath.read())
    expected = [LocalPort(e.id, e.tenant, e.container, e.ifname) for e in REMOTE.local_endpoints()]
    assert sorted(ports, key=lambda port: port.endpoint) == expected


async def test_a_read_can_be_limited_to_tenants(site: HostSite) -> None:
    """Nothing of another tenant is read."""
    with contextlib.closing(Agent(site, EQUAL_TENANTS)) as agent:
        await agent.start(EQUAL_TENANTS)
        blue, red = agent.inner.read([BLUE.id]), agent.inner.read([RED.id])
        assert not blue.keys() & red.keys()
        expect_equal(blue | red, agent.inner.read(), "two parts, and the whole")
        assert agent.inner.read([]) == {}
        assert agent.inner.read([TenantId("none")]) == {}


async def test_an_inside_name_that_is_taken_is_a_sentence(site: HostSite) -> None:
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


async def test_without_a_namespace_nothing_is_made(site: HostSite) -> None:
    """An endpoint whose namespace nobody holds is told as gone, once."""
    with contextlib.closing(Agent(site, ONE)) as agent:
        await agent.start(ONE, offer=False)
        assert agent.gone == [C1.id]
        assert not agent.inner.local_ports(agent.inner.read())


def test_a_namespace_that_is_none_is_a_failure_of_that_endpoint_alone(site: HostSite) -> None:
    """A descriptor of something else does not stop the others."""
    with writing(site) as datapath, open("/dev/null") as nothing:
        datapath.offer(C1, Sandbox(nothing.fileno(), 1))
        datapath.offer(C2, site.sandbox(C2))
        errors = write_state(datapath, REMOTE)
        assert {("port", port_name(C1.id)), ("station", C1.mac)} <= {(key[0], key[-1]) for key in errors}
        assert {key[-1] for key in errors} == {port_name(C1.id), C1.mac}
        assert [port.endpoint for port in datapath.local_ports(datapath.read())] == [C2.id]


def test_a_doomed_port_left_by_a_killed_agent_is_deleted(site: HostSite) -> None:
    """It is not there for a read, and the read has it deleted."""
    with writing(site) as datapath:
        datapath.offer(C1, site.sandbox(C1))
        assert write_state(datapath, ONE) == {}
        port = port_name(C1.id)
        enter = ["nsenter", f"--net={site.ports_place(BLUE.id)}", "ip", "link"]
        subprocess.run([*enter, "set", port, "group", str(DOOMED)], check=True, timeout=10)
        assert datapath.local_ports(datapath.read()) == []
        assert datapath.wait_removed(5)
        assert port not in subprocess.run(enter, capture_output=True, text=True, check=True, timeout=10).stdout
