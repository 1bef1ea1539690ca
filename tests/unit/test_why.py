"""Why, without a kernel: what the fake's tables explain is what the oracle says, and damage is named by its entry."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdn.model.explanation import Decision, FlowFilter, FlowOwner, FlowRow, Outcome, Stage, arrives, flow_table
from sdn.model.ids import HostId
from sdn.model.resources import Endpoint, Member, Network, Tenant
from sdn.reconcile.datapath import Key
from sdn.reconcile.fake import FakeDatapath, FakeSite
from sdn.reconcile.fake_forwarding import reaches
from sdn.reconcile.fake_objects import FakeObject, Frame, Guard, Neighbour, Tunnel
from sdn.reconcile.journey import address_pairs, journey
from sdn.reconcile.laws import Agent
from sdn.reconcile.reach import Reach, reach, underlay_family
from sdn.reconcile.state import State
from sdn.reconcile.unit import Here
from tests.states.states import BLUE, C1, C2, C3, DUAL, RED, RED_WEB, WEB, endpoint, host, member

NETWORKS: dict[str, Network] = {network.id: network for network in (WEB, DUAL, RED_WEB)}
Fabric = Mapping[HostId, FakeDatapath]


async def fabric(
    endpoints: tuple[Endpoint, ...],
    members: dict[HostId, Member],
    networks: Mapping[str, Network] = NETWORKS,
    tenants: tuple[Tenant, ...] = (BLUE, RED),
) -> Fabric:
    """A fake host for each member, all of one state."""
    hosts: dict[HostId, FakeDatapath] = {}
    for id_, each in members.items():
        mine = [network for network in networks if any(e.host == id_ and e.network == network for e in endpoints)]
        state = State(
            "random",
            Here(id_, each.vtep4, each.vtep6),
            tenants,
            tuple(networks[network] for network in mine),
            tuple(
                (networks[network].id, other)
                for network in mine
                for other in members.values()
                if any((e.host, e.network) == (other.host, network) for e in endpoints)
            ),
            tuple(e for e in endpoints if e.network in mine),
        )
        agent = Agent(FakeSite(), state)
        await agent.start(state)
        assert isinstance(agent.inner, FakeDatapath)
        hosts[id_] = agent.inner
    return hosts


def ask(hosts: Fabric, members: dict[HostId, Member], source: Endpoint, target: Endpoint) -> list[list[Decision]]:
    """What the hosts decide, for each family."""
    found = []
    for address, to in address_pairs(source, target):
        way = journey(source, NETWORKS[source.network], members, address=address, to=to, target=target)
        decisions: list[Decision] = []
        for place, question in way.questions:
            decisions += hosts[place].explain([question]).decisions[0]
            if decisions[-1].outcome is not Outcome.PASSES:
                break
        found.append(decisions)
    return found


@st.composite
def worlds(draw: st.DrawFn) -> tuple[tuple[Endpoint, ...], dict[HostId, Member]]:
    """Up to three hosts with VTEPs of either family or both, and up to eight endpoints of three networks on them."""
    families = draw(st.lists(st.sampled_from([(True, False), (False, True), (True, True)]), min_size=1, max_size=3))
    members = {host(number): member(number, four=four, six=six) for number, (four, six) in enumerate(families, 1)}
    endpoints = []
    for number in range(1, draw(st.integers(1, 8)) + 1):
        network = draw(st.sampled_from([WEB, DUAL, RED_WEB]))
        four = f"10.{2 if network is DUAL else 1}.0.{number + 1}/24"
        both = (four, f"fd00:1::{number + 1}/64") if network is DUAL else (four,)
        on = draw(st.integers(1, len(families)))
        endpoints.append(endpoint(number, on, network, *both))
    return tuple(endpoints), members


@settings(max_examples=40, deadline=None)
@given(worlds())
async def test_explained_is_what_the_oracle_says(world: tuple[tuple[Endpoint, ...], dict[HostId, Member]]) -> None:
    endpoints, members = world
    hosts = await fabric(endpoints, members)
    kernels = {id_: datapath.kernel for id_, datapath in hosts.items()}

    def connected(one: HostId, other: HostId) -> bool:
        return underlay_family(members[one], members[other]) is not None

    for source in endpoints:
        for target in endpoints:
            verdict = reach(source, target, connected)
            if verdict not in (Reach.SAME_NETWORK, Reach.HOSTS_APART):
                continue
            for decisions in ask(hosts, members, source, target):
                assert arrives(decisions) is verdict.allowed, (source, target, decisions)
                assert arrives(decisions) is reaches(kernels, source, target, connected)


@settings(max_examples=40, deadline=None)
@given(worlds(), st.data())
async def test_whatever_is_broken_is_named(
    world: tuple[tuple[Endpoint, ...], dict[HostId, Member]], data: st.DataObject
) -> None:
    """Of all that a host has, one entry goes: whoever needs it does not arrive, and is told that very entry."""
    endpoints, members = world
    hosts = await fabric(endpoints, members)
    broken = hosts[data.draw(st.sampled_from(sorted(hosts)))]
    kinds = (Guard, Neighbour, Frame, Tunnel)
    candidates = sorted(key for key, object_ in broken.kernel.objects.items() if isinstance(object_, kinds))
    if not candidates:
        return
    gone: Key = data.draw(st.sampled_from(candidates))
    kernels = {id_: datapath.kernel for id_, datapath in hosts.items()}
    broken.kernel.disturb(gone)
    for source in endpoints:
        for target in endpoints:
            if source.id == target.id or reach(source, target) is not Reach.SAME_NETWORK:
                continue
            told = ask(hosts, members, source, target)
            assert any(map(arrives, told)) is reaches(kernels, source, target)
            for decisions in told:
                last = decisions[-1]
                if last.missing and underlay_family(members[source.host], members[target.host]):
                    assert (last.row.table, last.row.subject) == (gone[0], gone[-1])


DAMAGES: dict[str, tuple[Key, FakeObject, Stage]] = {
    "another MAC": (("neighbour", BLUE.id, WEB.id, "10.1.0.3"), Neighbour(4, "0a:99:00:00:00:01"), Stage.RESOLVE),
    "another port": (("frame", BLUE.id, WEB.id, C2.mac), Frame(("port", BLUE.id, C1.id)), Stage.FORWARD),
    "another host": (("tunnel", BLUE.id, WEB.id, C3.mac), Tunnel(4, "192.0.2.99"), Stage.FORWARD),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_what_leads_elsewhere_is_astray(damage: str) -> None:
    members = {host(number): member(number) for number in (1, 2)}
    hosts = await fabric((C1, C2, C3), members)
    key, object_, stage = DAMAGES[damage]
    hosts[host(1)].kernel.disturb(key, object_)
    (decisions,) = ask(hosts, members, C1, C3 if key[0] == "tunnel" else C2)
    assert (decisions[-1].stage, decisions[-1].outcome, decisions[-1].row.table) == (stage, Outcome.ASTRAY, key[0])
    assert not arrives(decisions)


async def test_a_source_that_lies_is_refused_by_its_cause() -> None:
    members = {host(1): member(1)}
    hosts = await fabric((C1, C2), members)
    honest = journey(C1, WEB, members, address="10.1.0.2", to="10.1.0.3", target=C2).questions[0][1]
    kernel = hosts[host(1)]
    for cause, field, lie in (("mac-spoof", "mac", C2.mac), ("ip4-spoof", "address", "10.1.0.3")):
        (source,) = kernel.explain([msgspec.structs.replace(honest, **{field: lie})]).decisions[0]
        assert (source.outcome, source.cause) == (Outcome.DROP, cause)
    for to, protocol, cause in (("10.1.0.3", "udp/68", "dhcp-server"), ("224.0.0.251", "", "multicast")):
        (source,) = kernel.explain([msgspec.structs.replace(honest, protocol=protocol, to=to)]).decisions[0]
        assert (source.stage, source.outcome, source.cause) == (Stage.SOURCE, Outcome.DROP, cause)


async def test_rows_are_chosen_by_network_endpoint_and_cause() -> None:
    members = {host(number): member(number) for number in (1, 2)}
    hosts = await fabric((C1, C2, C3), members)
    rows = [*hosts[host(1)].flows(), FlowRow(table="drops", match="dad", action="drop", network=WEB.id, cause="dad")]
    owner = FlowOwner(endpoint=C1.id, network=WEB.id, subjects=(C1.mac, "10.1.0.2"), cookie=7)
    mine = flow_table(rows, FlowFilter(owners=(owner,)))
    assert {row.table for row in mine.rows} == {"guard", "neighbour", "frame"}
    assert all("10.1.0.2" in row.match or C1.mac in row.match for row in mine.rows)
    assert [row.cause for row in flow_table(rows, FlowFilter(drops=True)).rows] == ["dad"]
    assert flow_table(rows, FlowFilter(network="another")).rows == ()
    assert flow_table(rows * 1000, FlowFilter()).omitted > 0
    by_cookie = FlowRow(table="t", match="", action="", cookie=7)
    assert flow_table([by_cookie], FlowFilter(owners=(owner,))).rows == (by_cookie,)
