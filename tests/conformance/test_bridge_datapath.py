"""The bridge datapath on a real kernel passes the kit, and comes back to what is wanted after foreign hands."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from typing import cast

import pytest

from plugin.datapath.bridge.datapath import BridgeDatapath
from sdn.reconcile.laws import Agent, expect_quiet
from tests.conformance.bridge_site import BridgeSite
from tests.states.states import BLUE, C1, DUAL_STACK, ONE, REMOTE

pytestmark = pytest.mark.root


@pytest.fixture
def site() -> Iterator[BridgeSite]:
    with contextlib.closing(BridgeSite()) as made:
        yield made


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
