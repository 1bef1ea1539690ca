"""Objects to flows and back, the pipeline's own flows, and lowering: laws, and a small state's text to read.

After a wanted change: `HAWSE_GOLDEN=write pytest tests/unit/test_openflow_pipeline.py`, then read the diff.
"""

from __future__ import annotations

import dataclasses
import os
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.datapath.bridge import lower as on_bridges
from plugin.datapath.bridge import objects as of_bridges
from sdn.model.address import link_local
from sdn.model.resources import Endpoint
from sdn.openflow import cookies, lower, pipeline, tables
from sdn.openflow.decode import Entry, entry_of, flow_of
from sdn.openflow.encode import encode_add, encode_delete
from sdn.openflow.expand import adds_of, changes_of, deletes_of, flows_of
from sdn.openflow.flow import Flow
from sdn.openflow.match import check
from sdn.openflow.objects import (
    RANKS,
    TUNNEL,
    Damaged,
    Gateway,
    Member,
    Neighbour,
    NetworkFlows,
    Speaker,
    Station,
    gateway_mac,
    rank,
)
from sdn.openflow.recognise import recognise
from sdn.openflow.tables import Table
from sdn.openflow.text import flow_text
from sdn.reconcile.datapath import Key, Object
from sdn.reconcile.state import Feed, State
from sdn.reconcile.unit import EndpointUnit
from sdn.reconcile.world import World
from tests.states.states import (
    C1,
    C3,
    C4,
    DUAL_STACK,
    EQUAL_TENANTS,
    NO_VTEP,
    REMOTE,
    STATES,
    UNDERLAY46,
    WEB,
    endpoint,
)
from tests.unit.openflow_objects import FOREIGN, PORTS, Tables, many_objects, one_object

GOLDEN = Path(__file__).parent.parent / "states" / "golden_openflow"


def port_name(endpoint: Endpoint) -> str:
    return f"hwv{endpoint.id[-1]}"


def _world(state: State) -> World:
    world = World(state.here.host)
    world.set_here(state.here.vtep4, state.here.vtep6)
    world.apply(*Feed().snapshot(state))
    return world


def lowered(state: State) -> dict[Key, Object]:
    """What a state's units lower to, one by one."""
    world = _world(state)
    objects: dict[Key, Object] = {}
    for unit in world.units():
        new = lower.lower(unit, world.context(), port_name)
        assert not new.keys() & objects.keys(), "two units lower to the same key"
        objects |= new
    return objects


def ports_of(objects: dict[Key, Object]) -> dict[str, int]:
    names = [key[1] for key, value in objects.items() if isinstance(value, Speaker)]
    return {TUNNEL: 1} | {name: number for number, name in enumerate(sorted(names), 10)}


def entries_of(objects: dict[Key, Object], ports: dict[str, int]) -> list[Entry]:
    return [entry_of(message) for key, value in objects.items() for message in adds_of(key, value, ports)]


# The flows of nobody ------------------------------------------------------------------------------------------------


def test_every_flow_of_the_pipeline_is_one_that_a_switch_takes() -> None:
    """And one of its own, on a way that only goes on."""
    flows = pipeline.pipeline(1)
    assert len({(flow.table, flow.priority, flow.match) for flow in flows}) == len(flows)
    for flow in flows:
        check(flow)
        assert flow.goto is None or flow.goto > flow.table
        assert flow.cookie == flows[0].cookie or cookies.split(flow.cookie)[0] == cookies.Kind.DROP


def test_every_table_has_a_name_and_a_purpose() -> None:
    assert set(tables.TEXTS) == set(Table)
    assert [tables.name_of(table) for table in (0, 130, 131)] == ["classify", "drop", "131"]


def test_the_version_follows_from_what_the_flows_are() -> None:
    """A switch whose tunnel has another number has another one, and what is the same is not sent again."""
    one, other = pipeline.pipeline(1), pipeline.pipeline(2)
    assert one[-1].cookie != other[-1].cookie
    assert pipeline.pipeline(1) is one


def test_a_pipeline_that_is_there_is_left_alone() -> None:
    entries = list(pipeline.entries(1).values())
    assert pipeline.changes([*entries, FOREIGN], 1) == []


def test_what_is_missing_changed_or_of_another_version_of_the_pipeline_is_mended() -> None:
    entries = list(pipeline.entries(1).values())
    changed = entries[3]._replace(instructions=b"")
    older = cookies.make(cookies.Kind.PIPELINE, 5)
    stale = entry_of(encode_add(Flow(Table.DROP, 7, (), cookie=older)))
    own = entries_of({("member", "5", "192.0.2.1"): Member()}, PORTS)
    switch = Tables([*entries[2:3], changed, *entries[4:], stale, FOREIGN, *own])
    messages = pipeline.changes(switch.told(), 1)
    assert len(messages) == 4
    switch.take(messages)
    assert set(switch.told()) == {*entries, FOREIGN, *own}


# Objects and flows --------------------------------------------------------------------------------------------------


@given(one_object)
def test_an_objects_bytes_are_those_of_its_flows(pair: tuple[Key, Object]) -> None:
    key, value = pair
    flows = flows_of(key, value, PORTS)
    assert adds_of(key, value, PORTS) == [encode_add(check(flow)) for flow in flows]
    removals = [encode_delete(flow) for flow in flows]
    for sent, plain in zip(deletes_of(key, value, PORTS), removals, strict=True):
        assert (sent[:8], sent[24:]) == (plain[:8], plain[24:])
        assert sent[8:24].hex() == "4857000000000000ffff000000000000", "only what is ours"
    for flow in flows:
        assert cookies.is_ours(flow.cookie)
        assert flow.goto is None or flow.goto > flow.table


@given(many_objects, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_what_a_switch_tells_is_recognised(objects: dict[Key, Object], chance: random.Random) -> None:
    entries = [*entries_of(objects, PORTS), *pipeline.entries(PORTS[TUNNEL]).values(), FOREIGN]
    chance.shuffle(entries)
    counted = [entry._replace(packets=number) for number, entry in enumerate(entries)]
    assert recognise(counted, PORTS) == objects


def reconcile(switch: Tables, wanted: dict[Key, Object], ports: dict[str, int]) -> int:
    """As the loop does: deletions first; how many messages."""
    found = recognise(switch.told(), ports)
    messages = []
    for key in sorted(found.keys() - wanted.keys(), key=rank, reverse=True):
        messages += changes_of(key, found[key], None, ports)
    for key in sorted(wanted, key=rank):
        if found.get(key) != wanted[key]:
            messages += changes_of(key, found.get(key), wanted[key], ports)
    switch.take(messages)
    return len(messages)


DAMAGES = ("lost", "foreign cookie", "another of ours", "other actions", "other table", "other priority")


def damage(entry: Entry, how: str, other: Entry) -> Entry | None:
    match how:
        case "lost":
            return None
        case "foreign cookie":
            return entry._replace(cookie=0xF00)
        case "another of ours":
            return entry._replace(cookie=other.cookie)
        case "other actions":
            return entry._replace(instructions=other.instructions)
        case "other table":
            return entry._replace(table=other.table)
        case _:
            return entry._replace(priority=entry.priority + 1)


@given(many_objects.filter(bool), many_objects, st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_hands_do_to_flows_is_undone_and_foreign_ones_stay(
    before: dict[Key, Object], wanted: dict[Key, Object], data: st.DataObject
) -> None:
    """From any state to any state; a second reading finds what the first took for another's."""
    entries = entries_of(before, PORTS)
    for _ in range(data.draw(st.integers(0, 3), "damages")):
        place = data.draw(st.integers(0, len(entries) - 1), "flow")
        changed = damage(entries[place], data.draw(st.sampled_from(DAMAGES)), data.draw(st.sampled_from(entries)))
        entries[place : place + 1] = [] if changed is None else [changed]
        if not entries:
            break
    own = pipeline.entries(PORTS[TUNNEL])
    switch = Tables([*entries, FOREIGN])
    switch.take([encode_add(flow) for flow in pipeline.pipeline(PORTS[TUNNEL])])
    theirs = {identity for identity, entry in switch.entries.items() if not cookies.is_ours(entry.cookie)}
    if reconcile(switch, wanted, PORTS):
        reconcile(switch, wanted, PORTS)
    final = Tables([*entries_of(wanted, PORTS), *own.values()])
    assert {identity for identity, entry in switch.entries.items() if cookies.is_ours(entry.cookie)} == set(
        final.entries
    )
    assert all(
        (switch.entries[identity].cookie, switch.entries[identity].instructions) == (entry.cookie, entry.instructions)
        for identity, entry in final.entries.items()
    )
    assert theirs - final.entries.keys() <= switch.entries.keys()
    assert reconcile(switch, wanted, PORTS) == 0


def test_a_flow_that_is_missing_makes_its_object_damaged_and_no_other() -> None:
    objects = lowered(DUAL_STACK)
    ports = ports_of(objects)
    entries = entries_of(objects, ports)
    for place, lost in enumerate(entries):
        found = recognise(entries[:place] + entries[place + 1 :], ports)
        changed = {key for key in objects if found.get(key) != objects[key]}
        (key,) = changed
        assert found.keys() <= objects.keys()
        assert lost in entries_of({key: objects[key]}, ports)
        if key in found:
            damaged = found[key]
            assert isinstance(damaged, Damaged)
            assert len(damaged.found) == len(adds_of(key, objects[key], ports)) - 1


def test_flows_of_a_port_that_has_gone_are_strays() -> None:
    objects = lowered(DUAL_STACK)
    ports = ports_of(objects)
    (name,) = (name for name in ports if name != TUNNEL)
    found = recognise(entries_of(objects, ports), {TUNNEL: 1})
    strays = [key for key in found if key[0] == "stray"]
    assert len(strays) == len(adds_of(("speaker", name), objects["speaker", name], ports))
    (damaged,) = (key for key, value in found.items() if isinstance(value, Damaged) and key[0] != "stray")
    assert damaged[0] == "station"
    with pytest.raises(KeyError):
        adds_of(("speaker", name), objects["speaker", name], {TUNNEL: 1})


def test_only_what_differs_is_sent() -> None:
    key = ("speaker", "hwv1")
    before = Speaker(5, "0a:00:00:00:00:01", ("10.0.0.1", "fd00::1"), cookies.make(cookies.Kind.ENDPOINT, 1))
    assert changes_of(key, before, before, PORTS) == []
    after = dataclasses.replace(before, addresses=("10.0.0.1", "fd00::2"))
    messages = changes_of(key, before, after, PORTS)
    assert [message[25] for message in messages] == [4, 4, 4, 0, 0, 0]
    other_network = dataclasses.replace(before, vni=6)
    assert [message[25] for message in changes_of(key, before, other_network, PORTS)] == [0]
    assert changes_of(key, None, before, PORTS) == adds_of(key, before, PORTS)
    assert changes_of(key, before, None, PORTS) == deletes_of(key, before, PORTS)
    assert changes_of(key, None, None, PORTS) == []


def test_a_counter_survives_a_replacement() -> None:
    """Whose object is written anew because a flow of it was damaged."""
    key, value = ("network", "7"), NetworkFlows(3)
    entries = [entry._replace(packets=9) for entry in entries_of({key: value}, PORTS)]
    switch = Tables([entries[0]._replace(instructions=b""), *entries[1:]])
    assert reconcile(switch, {key: value}, PORTS) == len(entries)
    assert {entry.packets for entry in switch.told()} == {9}


# Units to objects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STATES)
def test_all_objects_of_a_state_are_recognised(name: str) -> None:
    objects = lowered(STATES[name])
    ports = ports_of(objects)
    assert all(key[0] in RANKS and hash(value) for key, value in objects.items())
    assert recognise(entries_of(objects, ports), ports) == objects


def _said_on_switches(objects: dict[Key, Object]) -> set[tuple[object, ...]]:
    said: set[tuple[object, ...]] = set()
    for key, value in objects.items():
        match value:
            case Neighbour(mac=mac) | Gateway(mac=mac):
                said.add((key[0], int(key[1]), key[2], mac))
            case Station(vtep=vtep):
                said.add(("station", int(key[1]), key[2], vtep))
            case Speaker(vni, mac, addresses):
                said.add(("guard", vni, mac, frozenset(addresses)))
            case Member():
                said.add(("member", int(key[1]), key[2]))
    return said


def _said_on_bridges(objects: dict[Key, Object]) -> set[tuple[object, ...]]:
    said: set[tuple[object, ...]] = set()
    for key, value in objects.items():
        vni = of_bridges.vni_of(key[2]) if len(key) > 2 else 0
        match key[0]:
            case "neighbour":
                said.add(("neighbour", vni, key[3], value.mac))
            case "gateway":
                said.add(("gateway", vni, key[3].partition("/")[0], of_bridges.bridge_mac(vni)))
            case "station":
                said.add(("station", vni, key[3], value.vtep))
            case "guard":
                said.add(("guard", value.vni, value.mac, frozenset(value.addresses)))
            case "member":
                said.add(("member", int(key[2]), key[3]))
    return said


@pytest.mark.parametrize("name", STATES)
def test_a_state_says_the_same_as_on_bridges(name: str) -> None:
    """Who is answered for, where whose frames go, who may speak, who is a member."""
    world = _world(STATES[name])
    theirs: dict[Key, Object] = {}
    for unit in world.units():
        theirs |= on_bridges.lower(unit, world.context())
    assert _said_on_switches(lowered(STATES[name])) == _said_on_bridges(theirs)


def test_every_endpoint_has_a_cookie_and_its_flows_have_it() -> None:
    objects = lowered(REMOTE)
    ports = ports_of(objects)
    of_c1, of_c3 = cookies.of_endpoint(C1.id), cookies.of_endpoint(C3.id)
    flows = [flow for key, value in objects.items() for flow in flows_of(key, value, ports)]
    assert sum(flow.cookie == of_c3 for flow in flows) == 3, "a station, ARP for its address, ND for its own"
    assert {flow.table for flow in flows if flow.cookie == of_c1} >= {Table.CLASSIFY, Table.SOURCE, Table.FORWARD}


@pytest.mark.parametrize("more", [endpoint(40, 1, WEB, "10.1.0.40/24"), endpoint(41, 3, WEB, "10.1.0.41/24")])
def test_one_endpoint_more_is_its_own_flows_more(more: Endpoint) -> None:
    """Cost grows with endpoints, and not with pairs of them."""
    before = lowered(REMOTE)
    after = lowered(dataclasses.replace(REMOTE, endpoints=(*REMOTE.endpoints, more)))
    ports = ports_of(after)
    assert {key: after[key] for key in before} == before
    new = {key: value for key, value in after.items() if key not in before}
    flows = [flow for key, value in new.items() for flow in flows_of(key, value, ports)]
    assert {flow.cookie for flow in flows} == {cookies.of_endpoint(more.id)}
    assert len(flows) == (15 if more.host == REMOTE.here.host else 3)


def test_a_tenants_networks_share_a_number_and_tenants_do_not() -> None:
    numbers = {key[1]: value.tenant for key, value in lowered(EQUAL_TENANTS).items() if isinstance(value, NetworkFlows)}
    assert len(set(numbers.values())) == 2


def test_ipv4_is_preferred_and_ipv6_taken_where_it_is_all_they_share() -> None:
    objects = lowered(UNDERLAY46)
    assert objects["station", "101", C3.mac] == Station("", "192.0.2.2", cookies.of_endpoint(C3.id))
    assert objects["station", "101", C4.mac] == Station("", "2001:db8::3", cookies.of_endpoint(C4.id))


def test_hosts_without_a_family_in_common_do_not_know_each_other() -> None:
    state = dataclasses.replace(UNDERLAY46, here=dataclasses.replace(UNDERLAY46.here, vtep6=None))
    assert not [key for key in lowered(state) if C4.mac in key or "10.1.0.5" in key]
    assert not [key for key in lowered(NO_VTEP) if key[0] == "member"]


def test_an_own_link_local_address_is_not_said_twice() -> None:
    world = _world(DUAL_STACK)
    (endpoint,) = DUAL_STACK.local_endpoints()
    both = (*endpoint.addresses, f"{link_local(endpoint.mac)}/64")
    also = msgspec.structs.replace(endpoint, addresses=both)
    found = lower.lower(EndpointUnit(also), world.context(), port_name)
    assert found == lower.lower(EndpointUnit(endpoint), world.context(), port_name)


def test_an_endpoint_whose_network_is_not_known_lowers_to_nothing() -> None:
    assert lower.lower(EndpointUnit(C1), World(REMOTE.here.host).context(), port_name) == {}


def test_the_gateways_mac_is_the_same_on_every_datapath() -> None:
    assert gateway_mac(0xABCDEF) == of_bridges.bridge_mac(0xABCDEF)


# To read ------------------------------------------------------------------------------------------------------------


def _text_of(objects: dict[Key, Object]) -> str:
    ports, lines = ports_of(objects), []
    for key in sorted(objects, key=lambda key: (rank(key), key)):
        lines.append(f"# {' '.join(key)}\n")
        lines += [f"{flow_text(flow)}\n" for flow in flows_of(key, objects[key], ports)]
    return "".join(lines)


@pytest.mark.parametrize("name", ["pipeline", "dual-stack", "remote"])
def test_text(name: str) -> None:
    """Exactly as it was reviewed, and read back from the bytes."""
    if name == "pipeline":
        text = "".join(f"{flow_text(flow)}\n" for flow in pipeline.pipeline(1))
        for entry in pipeline.entries(1).values():
            flow = flow_of(entry)
            assert isinstance(flow, Flow)
            assert flow_text(flow) in text
    else:
        text = _text_of(lowered(STATES[name]))
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("HAWSE_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()
