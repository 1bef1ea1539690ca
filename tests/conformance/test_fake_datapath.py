"""The fake passes the kit that every datapath has to pass: it is a verified fake."""

from __future__ import annotations

import pytest

from sdn.reconcile.datapath import Datapath, Sandbox
from sdn.reconcile.fake import FakeDatapath, FakeSite
from sdn.reconcile.laws import Agent, Laws
from tests.states.states import C1, ONE, REMOTE, SEQUENCES


@pytest.mark.parametrize("name", SEQUENCES)
async def test_laws(name: str) -> None:
    """Laws 1, 2, 3, 5 and 6."""
    await Laws(FakeSite).hold(SEQUENCES[name])


async def test_what_is_inside_is_checked() -> None:
    """CHECK has nothing to say of what ADD made, and says what somebody changed."""
    site = FakeSite()
    agent = Agent(site, ONE)
    await agent.start(ONE)
    assert agent.datapath.check(C1, 1450, site.sandbox(C1)) == []
    assert agent.datapath.check(C1, 1400, site.sandbox(C1)) == ["mtu_bytes of eth0 is 1450, not 1400"]
    assert agent.datapath.check(C1, 1450, Sandbox(-1, 5)) == ["there is no eth0 in the namespace"]


async def test_the_kernel_remembers_whose_ports_it_has() -> None:
    """A detach needs no controller: endpoint, tenant, container and interface are in what is read."""
    agent = Agent(FakeSite(), REMOTE)
    await agent.start(REMOTE)
    datapath: Datapath = agent.datapath
    ports = {
        (port.endpoint, port.tenant, port.container, port.ifname) for port in datapath.local_ports(datapath.read())
    }
    assert ports == {(e.id, e.tenant, e.container, e.ifname) for e in REMOTE.local_endpoints()}


async def test_a_read_can_be_limited_to_tenants() -> None:
    """Nothing of another tenant is read."""
    states = SEQUENCES["tenants"]
    agent = Agent(FakeSite(), states[1])
    await agent.start(states[1])
    blue, red = states[1].tenants
    datapath: Datapath = FakeDatapath(agent.site.kernel) if isinstance(agent.site, FakeSite) else agent.datapath
    apart = [datapath.read([blue.id]), datapath.read([red.id])]
    assert not apart[0].keys() & apart[1].keys()
    assert apart[0] | apart[1] == datapath.read()
    assert datapath.read([]) == {}
