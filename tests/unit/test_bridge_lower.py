"""What units lower to on the bridge datapath: who answers, which way frames go, what belongs to whom."""

from __future__ import annotations

import dataclasses

import pytest

from plugin.datapath.bridge.datapath import BridgeDatapath
from plugin.datapath.bridge.guard import GuardPort
from plugin.datapath.bridge.lower import lower
from plugin.datapath.bridge.objects import (
    RANKS,
    Gateway,
    Neighbour,
    Port,
    Station,
    Vxlan,
    bridge_name,
    carrier_name,
    vni_of,
)
from plugin.datapath.veth.ports import parse_port_alias, port_alias, port_name
from sdn.model.address import link_local
from sdn.model.resources import VNI_MAX, Endpoint
from sdn.reconcile.datapath import Key, LocalPort, Object
from sdn.reconcile.laws import lower_all
from sdn.reconcile.state import Feed, State
from sdn.reconcile.unit import EndpointUnit
from sdn.reconcile.world import World
from tests.states.states import (
    BLUE,
    C1,
    C3,
    C4,
    D1,
    D2,
    DUAL_STACK,
    EQUAL_TENANTS,
    NO_VTEP,
    REMOTE,
    STATES,
    UNDERLAY6,
    UNDERLAY46,
    WEB,
)


class _Pure(BridgeDatapath):
    """Lowering alone: no socket is made."""

    def __init__(self) -> None:
        pass


def lowered(state: State) -> dict[Key, Object]:
    world = World(state.here.host)
    world.set_here(state.here.vtep4, state.here.vtep6)
    world.apply(*Feed().snapshot(state))
    return lower_all(_Pure(), world.units(), world.context())


def carriers(objects: dict[Key, Object]) -> dict[str, Vxlan]:
    return {key[2]: value for key, value in objects.items() if isinstance(value, Vxlan)}


@pytest.mark.parametrize("name", STATES)
def test_exactly_one_carrier_of_a_network_answers(name: str) -> None:
    """It alone takes broadcast and holds all neighbours; no other port does."""
    objects = lowered(STATES[name])
    devices = carriers(objects)
    for bridge in {device.bridge for device in devices.values()}:
        proxies = [name for name, device in devices.items() if device.bridge == bridge and device.proxy]
        assert len(proxies) == 1
        flooded = {
            name for name, device in devices.items() if device.bridge == bridge and "bcast_flood" in device.switches
        }
        assert flooded == set(proxies)
    neighbours = {key[2] for key, value in objects.items() if isinstance(value, Neighbour)}
    assert neighbours <= {name for name, device in devices.items() if device.proxy}
    assert all(not value.switches for value in objects.values() if isinstance(value, Port))


@pytest.mark.parametrize("name", STATES)
def test_every_key_has_a_rank_and_a_tenant(name: str) -> None:
    """And every value is hashable, for the loop compares and keeps them."""
    for key, value in lowered(STATES[name]).items():
        assert key[0] in RANKS
        assert key[1] in {tenant.id for tenant in STATES[name].tenants}
        hash(value)


@pytest.mark.parametrize("name", STATES)
def test_the_guard_knows_every_local_port_before_it_is_made(name: str) -> None:
    """With the endpoint's MAC and all its addresses."""
    objects = lowered(STATES[name])
    for endpoint in STATES[name].local_endpoints():
        port = port_name(endpoint.id)
        guard = objects["guard", endpoint.tenant, port]
        assert isinstance(guard, GuardPort)
        assert guard.mac == endpoint.mac
        assert set(guard.addresses) == {address.partition("/")[0] for address in endpoint.addresses}
        assert RANKS.index("guard") < RANKS.index("port")


def _station(objects: dict[Key, Object], endpoint: Endpoint, bridge: str) -> object:
    return objects.get(("station", endpoint.tenant, bridge, endpoint.mac))


def test_an_endpoint_here_is_behind_its_port_and_one_elsewhere_behind_its_host() -> None:
    """The way of a frame."""
    objects = lowered(REMOTE)
    assert _station(objects, C1, "hwb101") == Station(port=port_name(C1.id), vtep="")
    assert _station(objects, C3, "hwb101") == Station(port="hwx101", vtep="192.0.2.2")
    assert ("port", BLUE.id, port_name(C3.id)) not in objects


def test_ipv4_is_preferred_where_two_hosts_share_both_families() -> None:
    """And IPv6 is taken where it is all they share."""
    objects = lowered(UNDERLAY46)
    assert {name: device.proxy for name, device in carriers(objects).items()} == {"hwx101": True, "hwy101": False}
    assert _station(objects, C3, "hwb101") == Station(port="hwx101", vtep="192.0.2.2")
    assert _station(objects, C4, "hwb101") == Station(port="hwy101", vtep="2001:db8::3")
    members = {key[3] for key in objects if key[0] == "member"}
    assert members == {"192.0.2.2", "2001:db8::2", "2001:db8::3"}


def test_an_ipv6_underlay_has_an_ipv6_carrier_alone() -> None:
    """Which is the proxy."""
    devices = carriers(lowered(UNDERLAY6))
    assert {name: (device.local, device.proxy) for name, device in devices.items()} == {
        "hwy101": ("2001:db8::1", True),
        "hwy102": ("2001:db8::1", True),
    }


def test_without_a_vtep_a_carrier_still_answers() -> None:
    """A host alone has no underlay address, and its containers ask for each other all the same."""
    (device,) = carriers(lowered(NO_VTEP)).values()
    assert device.local == ""
    assert device.proxy


def test_hosts_without_a_family_in_common_do_not_know_each_other() -> None:
    """A container's question is not answered then, so that it fails at once and not by silence."""
    state = dataclasses.replace(UNDERLAY46, here=dataclasses.replace(UNDERLAY46.here, vtep6=None))
    objects = lowered(state)
    assert _station(objects, C4, "hwb101") is None
    assert not [key for key in objects if key[0] == "neighbour" and key[3] == "10.1.0.5"]


def test_all_addresses_are_answered_for_but_the_gateways() -> None:
    """The link-local ones too; the gateway answers for itself, from its bridge."""
    objects = lowered(DUAL_STACK)
    answered = {key[3]: value.mac for key, value in objects.items() if isinstance(value, Neighbour)}
    assert answered == {
        "10.2.0.2": D1.mac,
        "fd00:1::2": D1.mac,
        link_local(D1.mac): D1.mac,
        "10.2.0.3": D2.mac,
        "fd00:1::3": D2.mac,
        link_local(D2.mac): D2.mac,
    }
    assert {key[2:] for key, value in objects.items() if isinstance(value, Gateway)} == {
        ("hwb102", "10.2.0.1/24"),
        ("hwb102", "fd00:1::1/64"),
    }


def test_tenants_with_equal_addresses_share_no_key() -> None:
    """Nothing of one is written where the other is."""
    by_tenant: dict[str, set[Key]] = {}
    for key in lowered(EQUAL_TENANTS):
        by_tenant.setdefault(key[1], set()).add(key)
    assert len(by_tenant) == 2


def test_an_endpoint_whose_network_is_not_known_lowers_to_nothing() -> None:
    """Its header comes in the same transaction or it is on its way out."""
    world = World(REMOTE.here.host)
    assert lower(EndpointUnit(C1), world.context()) == {}


def test_names_fit_the_kernel_and_come_back() -> None:
    """15 characters at most; the VNI can be read off."""
    assert max(len(bridge_name(VNI_MAX)), len(carrier_name(VNI_MAX, 6)), len(port_name(C1.id))) <= 15
    assert vni_of(bridge_name(VNI_MAX)) == VNI_MAX
    assert vni_of("hwd7x") == 0
    assert WEB.vni == vni_of(carrier_name(WEB.vni, 6))


def test_an_alias_says_whose_a_port_is() -> None:
    """What was cut short, or is a foreign hand's, says nothing."""
    assert parse_port_alias(port_alias(C1)) == LocalPort(C1.id, BLUE.id, "c1", "eth0")
    assert parse_port_alias("") is None
    assert parse_port_alias("hawse:1 2") is None
