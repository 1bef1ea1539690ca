"""Why, by a switch's flows alone: whole they say what the oracle says, and whichever one is taken away is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import msgspec
import pytest
from hypothesis import given, settings

from sdn.model.address import link_local
from sdn.model.explanation import (
    Arrival,
    Decision,
    FlowFilter,
    FlowOwner,
    Outcome,
    Stage,
    arrives,
    flow_table,
)
from sdn.model.ids import EndpointId, HostId
from sdn.model.resources import Endpoint, Member
from sdn.openflow import cookies, pipeline
from sdn.openflow.decode import Entry, entry_of, flow_of
from sdn.openflow.encode import encode_add
from sdn.openflow.expand import adds_of
from sdn.openflow.explain import Ground, PortState, SwitchSight
from sdn.openflow.flow import Flow
from sdn.openflow.lower import lower
from sdn.openflow.objects import TUNNEL, gateway_mac
from sdn.openflow.rows import Names, rows_of
from sdn.openflow.tables import Table, name_of
from sdn.reconcile.explain import explain
from sdn.reconcile.journey import address_pairs, journey
from sdn.reconcile.reach import Reach, reach, underlay_family
from sdn.reconcile.state import Feed, State
from sdn.reconcile.unit import Here
from sdn.reconcile.world import World
from tests.states.states import BLUE, C1, C2, C3, D1, D2, DUAL, RED, WEB, host, member
from tests.unit.test_why import NETWORKS, worlds


@dataclasses.dataclass
class Switch:
    """A host's flows, and what is beside them."""

    entries: list[Entry]
    names: Names
    trouble: str = ""
    tunnels: str = ""

    def sight(self) -> SwitchSight:
        return SwitchSight(
            self.entries,
            Ground(self.names, port_of, lambda _: PortState(self.trouble, 3, 300), lambda _: self.tunnels),
        )


def port_of(endpoint: EndpointId) -> str:
    return f"p{endpoint[-6:]}"


def switch_of(here: Member, endpoints: Iterable[Endpoint], members: Mapping[HostId, Member]) -> Switch:
    """A host's switch, as its state has it."""
    everyone = tuple(endpoints)
    mine = [network for network in NETWORKS if any((e.host, e.network) == (here.host, network) for e in everyone)]
    joined = tuple(
        (NETWORKS[network].id, each)
        for network in mine
        for each in members.values()
        if any((e.host, e.network) == (each.host, network) for e in everyone)
    )
    state = State(
        "switch",
        Here(here.host, here.vtep4, here.vtep6),
        (BLUE, RED),
        tuple(NETWORKS[network] for network in mine),
        joined,
        tuple(e for e in everyone if e.network in mine),
    )
    world = World(here.host)
    world.set_here(here.vtep4, here.vtep6)
    world.apply(*Feed().snapshot(state))
    local = [e for e in everyone if e.host == here.host]
    ports = {TUNNEL: 1, **{port_of(e.id): number for number, e in enumerate(local, 10)}}
    entries = list(pipeline.entries(1).values())
    for unit in world.units():
        for key, object_ in lower(unit, world.context(), lambda e: port_of(e.id)).items():
            entries += [entry_of(message) for message in adds_of(key, object_, ports)]
    networks = {network.vni: (network.id, network.tenant) for network in NETWORKS.values()}
    return Switch(entries, Names(ports, {port_of(e.id): e.id for e in local}, networks))


def ask(
    switches: Mapping[HostId, Switch], members: Mapping[HostId, Member], source: Endpoint, target: Endpoint
) -> list[list[Decision]]:
    """What the hosts decide, for each family."""
    found = []
    for address, to in address_pairs(source, target):
        way = journey(source, NETWORKS[source.network], members, address=address, to=to, target=target)
        decisions: list[Decision] = []
        for place, question in way.questions:
            decisions += explain(question, switches[place].sight())
            if decisions[-1].outcome is not Outcome.PASSES:
                break
        found.append(decisions)
    return found


@settings(max_examples=25, deadline=None)
@given(worlds())
def test_explained_is_what_the_oracle_says(world: tuple[tuple[Endpoint, ...], dict[HostId, Member]]) -> None:
    endpoints, members = world
    switches = {id_: switch_of(each, endpoints, members) for id_, each in members.items()}

    def connected(one: HostId, other: HostId) -> bool:
        return underlay_family(members[one], members[other]) is not None

    for source in endpoints:
        for target in endpoints:
            verdict = reach(source, target, connected)
            if verdict in (Reach.SAME_NETWORK, Reach.HOSTS_APART):
                for decisions in ask(switches, members, source, target):
                    assert arrives(decisions) is verdict.allowed, (source, target, decisions)


MEMBERS = {host(number): member(number) for number in (1, 2)}


def pair() -> dict[HostId, Switch]:
    return {id_: switch_of(each, (C1, C2, C3, D1, D2), MEMBERS) for id_, each in MEMBERS.items()}


@pytest.mark.parametrize(
    ("source", "target"), [(C1, C2), (C1, C3), (D1, D2)], ids=["same-host", "cross-host", "dual-stack"]
)
def test_every_flow_that_is_needed_is_named_when_it_is_missing(source: Endpoint, target: Endpoint) -> None:
    """One by one: either the packet arrives without it, or it is the very one that is named."""
    whole = ask(pair(), MEMBERS, source, target)
    assert all(map(arrives, whole))
    needed: set[str] = set()
    switches = pair()
    for switch in switches.values():
        everything = switch.entries
        for position, gone in enumerate(everything):
            switch.entries = everything[:position] + everything[position + 1 :]
            for decisions in ask(switches, MEMBERS, source, target):
                last = decisions[-1]
                if not arrives(decisions):
                    assert last.missing, (gone, last)
                    assert last.row.table == name_of(gone.table), (gone, last)
                    needed.add(last.row.table)
        switch.entries = everything
    assert needed >= {"classify", "source", "address", "answer", "forward"}


def change(switch: Switch, table: Table, wanted: str, flow: Flow) -> None:
    """Another flow in the place of the one of the table whose match says this."""
    for place, entry in enumerate(switch.entries):
        found = flow_of(entry)
        if entry.table == table and isinstance(found, Flow) and wanted in str(found.match):
            altered = found._replace(actions=flow.actions, goto=flow.goto)
            switch.entries[place] = entry_of(encode_add(altered))
            return
    raise AssertionError(f"there is no such flow in {table.name}")


def test_what_says_something_else_is_seen() -> None:
    switches = pair()
    change(switches[host(1)], Table.FORWARD, repr(bytes.fromhex(C2.mac.replace(":", ""))), Flow(Table.FORWARD, 0, ()))
    (decisions,) = ask(switches, MEMBERS, C1, C2)
    assert (decisions[-1].stage, decisions[-1].outcome) == (Stage.FORWARD, Outcome.DROP)
    switches = pair()
    entries = switches[host(1)].entries
    for place, entry in enumerate(entries):
        if entry.table == Table.SHAPE:
            entries[place] = entry._replace(instructions=b"")
    (decisions,) = ask(switches, MEMBERS, C1, C2)
    assert (decisions[-1].stage, decisions[-1].row.table) == (Stage.SOURCE, "shape")


def test_another_answer_and_another_port_are_astray() -> None:
    switches = pair()
    stranger = switch_of(MEMBERS[host(1)], (C1, C2, C3), MEMBERS)
    answers = [e for e in stranger.entries if e.table == Table.ANSWER and e.priority == 20]
    first, second = (
        e for e in answers if any(found in e.match for found in (b"\x0a\x01\x00\x03", b"\x0a\x01\x00\x04"))
    )
    swapped = [first._replace(instructions=second.instructions), second._replace(instructions=first.instructions)]
    stranger.entries = [e for e in stranger.entries if e not in (first, second)] + swapped
    outcomes = {
        decisions[-1].outcome
        for target in (C2, C3)
        for decisions in ask({**switches, host(1): stranger}, MEMBERS, C1, target)
    }
    assert Outcome.ASTRAY in outcomes


def test_what_is_beside_the_flows_counts() -> None:
    switches = pair()
    switches[host(1)].trouble = "its port is down"
    (decisions,) = ask(switches, MEMBERS, C1, C2)
    assert (decisions[-1].stage, decisions[-1].says) == (Stage.SOURCE, "its port is down")
    switches = pair()
    switches[host(2)].tunnels = "the way in is shut"
    (decisions,) = ask(switches, MEMBERS, C1, C3)
    assert (decisions[-1].stage, decisions[-1].says) == (Stage.ADMIT, "the way in is shut")


def test_the_gateway_and_lies() -> None:
    sight = pair()[host(1)].sight()
    gateway = journey(C1, WEB, MEMBERS, address="10.1.0.2", to="10.1.0.1", gateway=True).questions[0][1]
    assert arrives(explain(gateway, sight))
    honest = journey(C1, WEB, MEMBERS, address="10.1.0.2", to="10.1.0.3", target=C2).questions[0][1]
    lies: dict[str, dict[str, str]] = {
        "mac-spoof": {"mac": C2.mac},
        "ip4-spoof": {"address": "10.1.0.99"},
        "unknown-port": {"endpoint": C3.id},
    }
    for cause, lie in lies.items():
        (source,) = explain(msgspec.structs.replace(honest, **lie), sight)
        assert (source.outcome, source.cause) == (Outcome.DROP, cause)
    foreign = Arrival(tenant=WEB.tenant, network=WEB.id, vni=WEB.vni, target=C1.id, vtep="192.0.2.99", mac=C1.mac)
    (admit,) = explain(foreign, sight)
    assert (admit.stage, admit.cause, admit.missing) == (Stage.ADMIT, "foreign-vtep", True)


def test_rows_have_names_for_numbers() -> None:
    switch = pair()[host(1)]
    rows = rows_of(switch.entries, switch.names)
    assert len(rows) == len(switch.entries)
    text = "\n".join(f"{row.table} {row.match} {row.action}" for row in rows)
    assert f"in_port={port_of(C1.id)}" in text
    assert "goto source" in text
    assert "goto_table" not in text
    assert "cause:mac-spoof" in text
    assert f"answer:{C2.mac},goto reply" in text
    assert {row.cause for row in rows if row.cause} >= {"ip4-spoof", "foreign-vtep"}
    mine = FlowOwner(
        endpoint=C1.id, network=WEB.id, subjects=(C1.mac, link_local(C1.mac)), cookie=cookies.of_endpoint(C1.id)
    )
    own = flow_table(rows, FlowFilter(owners=(mine,))).rows
    assert own
    assert {row.endpoint for row in own} <= {C1.id, ""}
    assert {row.network for row in own} == {WEB.id}
    assert gateway_mac(WEB.vni) in text
    assert {row.network for row in rows if row.table == "address" and row.endpoint == D1.id} == {DUAL.id}
