"""The bridge datapath's explanations: healthy they agree with the oracle, damaged by hand they name the very entry."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from plugin.datapath.bridge.datapath import BridgeDatapath
from plugin.datapath.bridge.objects import bridge_mac, bridge_name, carrier_name
from plugin.datapath.veth.ports import port_name
from sdn.model.address import link_local
from sdn.model.explanation import Decision, Outcome, Stage, arrives, passes
from sdn.model.ids import HostId
from sdn.model.resources import Endpoint, Member
from sdn.reconcile.journey import address_pairs, journey
from sdn.reconcile.state import State
from tests.conformance.bridge_site import BridgeSite, write_state
from tests.states.states import BLUE, C1, C2, C3, D1, DUAL, HERE, WEB, endpoint, member

pytestmark = pytest.mark.root

D3 = endpoint(7, 1, DUAL, "10.2.0.4/24", "fd00:1::4/64")
MEMBERS = tuple((which.id, member(number)) for which in (WEB, DUAL) for number in (1, 2))
STATE = State("explained", HERE, (BLUE,), (WEB, DUAL), MEMBERS, (C1, C2, C3, D1, D3))
MEMBER_OF: dict[HostId, Member] = {each.host: each for _, each in MEMBERS}
VNI, TENANT = WEB.vni, WEB.tenant
BRIDGE, CARRIER = bridge_name(VNI), carrier_name(VNI, 4)
PORT, PORT2 = port_name(C1.id), port_name(C2.id)


@pytest.fixture
def site() -> Iterator[BridgeSite]:
    made = BridgeSite()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def datapath(site: BridgeSite) -> Iterator[BridgeDatapath]:
    made = site.datapath()
    for each in STATE.local_endpoints():
        made.offer(each, site.sandbox(each))
    assert write_state(made, STATE) == {}
    yield made
    made.close()


def leaves(datapath: BridgeDatapath, source: Endpoint, target: Endpoint, pair: int = 0) -> Sequence[Decision]:
    """What this host does with a packet of one of its endpoints to another endpoint."""
    network = WEB if source.network == WEB.id else DUAL
    address, to = address_pairs(source, target)[pair]
    way = journey(source, network, MEMBER_OF, address=address, to=to, target=target)
    return datapath.explain([way.questions[0][1]]).decisions[0]


def comes(datapath: BridgeDatapath, source: Endpoint, target: Endpoint) -> Sequence[Decision]:
    """What this host does with a tunnel packet for one of its endpoints."""
    address, to = address_pairs(source, target)[0]
    return datapath.explain(
        [journey(source, WEB, MEMBER_OF, address=address, to=to, target=target).questions[1][1]]
    ).decisions[0]


def in_tenant(site: BridgeSite, *command: str) -> None:
    """By hand, behind the datapath's back."""
    by_hand(str(site.tenant(TENANT)), *command)


def by_hand(pin: str, *command: str) -> None:
    done = subprocess.run(
        ["nsenter", f"--net={pin}", *command], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, (command, done.stderr)


def test_what_is_whole_passes(datapath: BridgeDatapath) -> None:
    here = leaves(datapath, C1, C2)
    assert [decision.stage for decision in here] == [Stage.SOURCE, Stage.RESOLVE, Stage.FORWARD, Stage.DELIVER]
    assert arrives(here)
    for pair in (0, 1):
        assert arrives(leaves(datapath, D1, D3, pair))
    there = leaves(datapath, C1, C3)
    assert passes(there)
    assert there[-1].row.table == f"forwarding {CARRIER}"
    back = comes(datapath, C3, C1)
    assert [decision.stage for decision in back] == [Stage.ADMIT, Stage.FORWARD, Stage.DELIVER]
    assert arrives(back)


def test_the_gateway_and_nobody(datapath: BridgeDatapath) -> None:
    gateway = journey(C1, WEB, MEMBER_OF, address="10.1.0.2", to="10.1.0.1", to_mac=bridge_mac(VNI), gateway=True)
    assert arrives(datapath.explain([gateway.questions[0][1]]).decisions[0])
    nobody = journey(C1, WEB, MEMBER_OF, address="10.1.0.2", to="10.1.0.99")
    (_, resolve) = datapath.explain([nobody.questions[0][1]]).decisions[0]
    assert (resolve.stage, resolve.outcome, resolve.missing) == (Stage.RESOLVE, Outcome.DROP, True)
    assert resolve.says == "nobody in the network has 10.1.0.99"


NOWHERE = "0a:99:00:00:00:01"
DAMAGES = {
    "neighbour deleted": (
        ("ip", "neigh", "del", "10.1.0.3", "dev", CARRIER),
        (Stage.RESOLVE, Outcome.DROP, True, f"neighbour {CARRIER}", "10.1.0.3"),
    ),
    "neighbour changed": (
        ("ip", "neigh", "replace", "10.1.0.3", "lladdr", NOWHERE, "dev", CARRIER, "nud", "permanent"),
        (Stage.RESOLVE, Outcome.ASTRAY, False, f"neighbour {CARRIER}", "10.1.0.3"),
    ),
    "entry deleted": (
        ("bridge", "fdb", "del", C2.mac, "dev", PORT2, "master"),
        (Stage.FORWARD, Outcome.DROP, True, f"forwarding {BRIDGE}", C2.mac),
    ),
    "entry to another port": (
        ("bridge", "fdb", "replace", C2.mac, "dev", PORT, "master", "static"),
        (Stage.FORWARD, Outcome.ASTRAY, False, f"forwarding {BRIDGE}", C2.mac),
    ),
    "element deleted": (
        ("nft", f"delete element bridge hawse e4 {{ {PORT} . {C1.mac} . 10.1.0.2 }}"),
        (Stage.SOURCE, Outcome.DROP, True, "nft bridge hawse e4", f"{PORT} . {C1.mac} . 10.1.0.2"),
    ),
    "port down": (
        ("ip", "link", "set", PORT2, "down"),
        (Stage.DELIVER, Outcome.DROP, False, "port", PORT2),
    ),
    "port gone from the bridge": (
        ("ip", "link", "set", PORT, "nomaster"),
        (Stage.SOURCE, Outcome.DROP, False, "nft bridge hawse e4", f"{PORT} . {C1.mac} . 10.1.0.2"),
    ),
}


FAR_DAMAGES = {
    "tunnel entry deleted": (
        ("bridge", "fdb", "del", C3.mac, "dev", CARRIER, "self"),
        (Stage.FORWARD, Outcome.DROP, True, f"forwarding {CARRIER}", C3.mac),
    ),
    "tunnel to another host": (
        ("bridge", "fdb", "replace", C3.mac, "dev", CARRIER, "self", "permanent", "dst", "192.0.2.99"),
        (Stage.FORWARD, Outcome.ASTRAY, False, f"forwarding {CARRIER}", C3.mac),
    ),
    "carrier down": (
        ("ip", "link", "set", CARRIER, "down"),  # with it go all its neighbours
        (Stage.RESOLVE, Outcome.DROP, True, f"neighbour {CARRIER}", "10.1.0.4"),
    ),
    "carrier not asked": (
        ("bridge", "link", "set", "dev", CARRIER, "bcast_flood", "off"),
        (Stage.RESOLVE, Outcome.DROP, False, f"neighbour {CARRIER}", "10.1.0.4"),
    ),
}


@pytest.mark.parametrize("damage", FAR_DAMAGES)
def test_the_very_entry_is_named_on_the_way_into_the_tunnel(
    site: BridgeSite, datapath: BridgeDatapath, damage: str
) -> None:
    command, wanted = FAR_DAMAGES[damage]
    in_tenant(site, *command)
    last = leaves(datapath, C1, C3)[-1]
    seen = (last.stage, last.outcome, last.missing, last.row.table, last.row.match)
    assert seen == wanted, last


def test_a_member_that_is_missing_is_named(site: BridgeSite, datapath: BridgeDatapath) -> None:
    by_hand(f"/run/netns/{site.here.name}", "nft", f"delete element inet hawse member4 {{ {VNI} . 192.0.2.2 }}")
    (admit,) = comes(datapath, C3, C1)
    assert (admit.stage, admit.missing, admit.cause) == (Stage.ADMIT, True, "foreign-vtep")
    assert (admit.row.table, admit.row.match) == ("nft inet hawse member4", f"{VNI} . 192.0.2.2")


def test_what_is_sent_by_another_name_is_refused_by_its_cause(datapath: BridgeDatapath) -> None:
    mac, lie = NOWHERE, "10.1.0.77"
    honest = journey(C1, WEB, MEMBER_OF, address="10.1.0.2", to="10.1.0.3", target=C2).questions[0][1]
    for change, cause in (
        ({"mac": mac}, "mac-spoof"),
        ({"address": lie}, "ip4-spoof"),
        ({"endpoint": C3.id}, "unknown-port"),
    ):
        (source,) = datapath.explain([msgspec.structs.replace(honest, **change)]).decisions[0]
        assert (source.outcome, source.cause) == (Outcome.DROP, cause)
        assert source.row.counts == f"dropped as {cause}"
    (dhcp,) = datapath.explain([msgspec.structs.replace(honest, protocol="udp/68")]).decisions[0]
    assert (dhcp.outcome, dhcp.cause) == (Outcome.DROP, "dhcp-server")


def test_a_host_without_the_network_says_so(site: BridgeSite) -> None:
    with contextlib.closing(site.datapath()) as empty:
        (source,) = leaves(empty, C1, C2)
        assert (source.outcome, source.missing) == (Outcome.DROP, True)
        (admit,) = comes(empty, C3, C1)
        assert (admit.stage, admit.outcome) == (Stage.ADMIT, Outcome.DROP)
        assert empty.flows() == []


def test_all_entries_are_rows(datapath: BridgeDatapath) -> None:
    rows = datapath.flows()
    tables = {row.table for row in rows}
    assert {
        f"neighbour {CARRIER}",
        f"forwarding {BRIDGE}",
        f"forwarding {CARRIER}",
        "nft bridge hawse e4",
        "port",
    } <= tables
    mine = [row for row in rows if row.endpoint == C1.id]
    assert {row.network for row in mine} == {WEB.id}
    assert {row.subject for row in mine} >= {C1.mac, "10.1.0.2", link_local(C1.mac)}
    assert {row.cause for row in rows if row.cause} >= {"ip4-spoof", "foreign-vtep", "no-router"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_very_entry_is_named(site: BridgeSite, datapath: BridgeDatapath, damage: str) -> None:
    command, wanted = DAMAGES[damage]
    in_tenant(site, *command)
    last = leaves(datapath, C1, C2)[-1]
    seen = (last.stage, last.outcome, last.missing, last.row.table, last.row.match)
    assert seen == wanted, last
