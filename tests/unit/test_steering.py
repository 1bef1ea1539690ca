"""The controller's side of a switch without an agent, against one that is nothing but tables."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sdn.controller.steering import datapath as steered_datapath
from sdn.controller.steering import listener as steered_listener
from sdn.controller.steering.ports import PortTable
from sdn.model.errors import HawseError, Kind
from sdn.openflow.notices import Port, PortChange, PortStatus
from sdn.service.trust import verifying_context
from sdn.store.memory import Disk
from tests.unit.openflow_objects import FOREIGN
from tests.unit.rest_server import Agent
from tests.unit.small_switch import DATAPATH_ID, WAIT_S, Centre, SmallSwitch, centre


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Centre]:
    async with centre(tmp_path) as one:
        yield one


async def gone(switch: SmallSwitch) -> None:
    """Wait until the controller has closed the connection."""
    assert switch.connection is not None
    async with asyncio.timeout(WAIT_S):
        await switch.connection.wait_closed()


# --- programming ---


async def test_only_what_differs_is_written_and_foreign_flows_stay(here: Centre) -> None:
    await here.add()
    switch = SmallSwitch(ports=("hwvxlan", "p1", "p2"))
    await here.connected(switch)
    await here.bind("p1")
    await here.bind("3")
    (host,) = await here.settled()
    assert host["state"] == "applied"
    there, written = switch.ours(), switch.written
    assert there
    assert FOREIGN in switch.tables.told()
    await switch.leave()
    await here.until(lambda shown: not shown["connected"], "away")
    await here.connected(switch)
    await here.settled()
    assert (switch.written, switch.ours()) == (written, there)
    # One of ours is taken away, one is added that nothing explains: just these two are written.
    lost = next(entry for entry in switch.tables.told() if entry.table == 120 and entry.instructions)
    del switch.tables.entries[lost.table, lost.priority, lost.match]
    stray = lost._replace(priority=lost.priority + 1)
    switch.tables.entries[stray.table, stray.priority, stray.match] = stray
    await switch.leave()
    await here.until(lambda shown: not shown["connected"], "away")
    await here.connected(switch)
    await here.settled()
    assert switch.ours() == there
    assert switch.written - written <= 3  # the station is written anew as a whole
    assert FOREIGN in switch.tables.told()


async def test_a_change_costs_what_it_changes(here: Centre) -> None:
    await here.add()
    switch = SmallSwitch(ports=("hwvxlan", *(f"p{n}" for n in range(40))))
    await here.connected(switch)
    costs: list[int] = []
    for number in range(40):
        before = switch.written
        await here.bind(f"p{number}")
        await here.settled()
        costs.append(switch.written - before)
    assert len(set(costs[1:])) == 1, costs


async def test_what_a_switch_says_of_itself_is_shown_without_steering_terminals(here: Centre) -> None:
    await here.add()
    shown = await here.connected(SmallSwitch())
    assert shown["version"] == "Small [2J 1.0"
    assert shown["peer"].startswith("tcp:127.0.0.1:")
    (port,) = (await here.ask("GET", "/v1/switches/s1"))["ports"]
    assert (port["rx_packets"], port["rx_bytes"], port["tx_packets"], port["tx_bytes"]) == (1, 3, 2, 4)
    (host,) = (await here.ask("GET", "/v1/hosts"))["items"]
    assert host["datapath"] == "switch"


async def test_ports_come_and_go(here: Centre) -> None:
    await here.add()
    switch = SmallSwitch()
    await here.connected(switch)
    await here.bind("p1")
    (host,) = await here.settled()
    assert "switch s1 has no port p1 (yet); it has hwvxlan" in str(host["failures"])
    switch.change(PortChange.ADDED, 7, "p1")
    await here.until(lambda shown: not shown["failures"], "it is there")
    there = switch.ours()
    switch.change(PortChange.DELETED, 7, "p1")
    await here.until(lambda shown: shown["failures"], "it is gone")
    taken, sent = bytes.fromhex("8000000400000007"), bytes.fromhex("0000001000000007")
    assert any(taken in flow[2] for flow in there)
    assert any(sent in flow[4] for flow in there)
    assert not any(taken in flow[2] or sent in flow[4] for flow in switch.ours())
    switch.change(PortChange.ADDED, 8, "p1")
    await here.until(lambda shown: not shown["failures"], "it is there again")
    assert len(switch.ours()) == len(there)
    assert switch.ours() != there


async def test_two_names_of_one_port(here: Centre) -> None:
    """The second is refused where the switch has told its ports; if it has not yet, the first keeps the port."""

    def taken() -> set[Any]:
        return {flow for flow in switch.ours() if bytes.fromhex("8000000400000002") in flow[2]}

    await here.add()
    switch = SmallSwitch(ports=("hwvxlan", "p1"))
    await here.bind("p1")
    await here.bind("2")
    await here.connected(switch)
    shown = await here.until(lambda shown: shown["failures"], "told")
    assert "port 2 of switch s1 is its port p1, which is bound already" in str(shown["failures"])
    both = taken()
    await here.ask("DELETE", "/v1/switches/s1/ports/2")
    await here.until(lambda shown: not shown["failures"], "alone again")
    await here.settled()
    assert taken() == both
    for port, says in (("2", "is its port p1, which is bound already"), ("1", "is its tunnel")):
        with pytest.raises(AssertionError, match=says):
            await here.bind(port)
    await here.settled()
    assert taken() == both


async def test_a_refusal_is_a_failure_until_it_is_taken(here: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steered_datapath, "REFUSAL_KEPT_S", 0.2)
    await here.add()
    switch = SmallSwitch(ports=("hwvxlan", "p1", "p2"))
    await here.connected(switch)
    await here.bind("p1")
    await here.settled()
    kept = switch.ours()
    switch.refuses = lambda entry: entry.table == 10
    await here.bind("p2")
    (host,) = await here.settled()
    assert host["state"] == "failed"
    assert "switch s1 refuses speaker p2: FLOW_MOD_FAILED TABLE_FULL" in str(host["failures"])
    assert kept <= switch.ours()
    commits = switch.commits
    await here.bind("p1")  # the same again
    switch.refuses = lambda _: False
    shown = await here.until(lambda shown: not shown["failures"], "taken")
    assert shown["connected"]
    assert switch.commits <= commits + 3


async def test_a_switch_that_answers_no_barrier_is_let_go(here: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = dataclasses.replace(steered_listener.SESSION, request_s=0.2)
    monkeypatch.setattr(steered_listener, "SESSION", quick)
    await here.add()
    switch = SmallSwitch(ports=("hwvxlan", "p1"))
    await here.connected(switch)
    switch.deaf = True
    await here.bind("p1")
    await gone(switch)
    assert "has not answered a bundle" in (await here.logged("switch gone"))["reason"]
    status = await here.ask("GET", f"/v1/status?revision={here.served.core.revision}")
    assert [host["state"] for host in status["hosts"]] == ["not-connected"]
    switch.deaf = False
    await here.connected(switch)
    assert [host["state"] for host in await here.settled()] == ["applied"]


async def test_the_newer_connection_is_the_switch(here: Centre) -> None:
    await here.add()
    older, newer = SmallSwitch(), SmallSwitch()
    await here.connected(older)
    await newer.connect(here.plain)
    await gone(older)
    shown = await here.until(lambda shown: shown["connected"], "the newer one")
    assert newer.connection is not None
    assert shown["failures"] == {}
    await here.bind("hwx")
    await here.settled()


async def test_a_switch_that_speaks_of_no_end_of_ports_or_garbage_is_let_go(here: Centre) -> None:
    await here.add()
    switch = SmallSwitch()
    await here.connected(switch)
    assert switch.connection is not None
    transport = switch.connection._transport
    assert transport is not None
    transport.write(b"\x04\x63\x00\x08\x00\x00\x00\x01")
    await gone(switch)
    assert "is none of OpenFlow 1.3" in (await here.logged("switch gone"))["reason"]
    await here.connected(SmallSwitch())


async def test_many_endpoints_elsewhere_leave_the_controller_its_turns(here: Centre) -> None:
    await here.add()
    agents = []
    for number in range(3):
        host = await here.ask("POST", "/v1/hosts", {"name": f"h{number}"})
        agent = await Agent.connect(here.served.core, host["id"], vtep4=f"198.51.100.{number + 1}")
        agents.append(agent)
        for container in range(150):
            await agent.attach("web", container=f"c{container}")
    await here.bind("p1")
    switch = SmallSwitch(ports=("hwvxlan", "p1"))
    await here.connected(switch)
    await here.settled()
    assert len([entry for entry in switch.ours() if entry[0] == 120]) >= 451
    assert switch.commits <= 12  # in large bundles
    for agent in agents:
        agent.close()


async def test_drops_are_those_of_its_networks(here: Centre) -> None:
    await here.add()
    switch = SmallSwitch(ports=("hwvxlan", "p1"))
    await here.connected(switch)
    await here.bind("p1")
    await here.settled()
    for identity, entry in list(switch.tables.entries.items()):
        if entry.table == 130 and entry.cookie & 0xFFFFFF:
            switch.tables.entries[identity] = entry._replace(packets=3, bytes=180)
    drops = (await here.ask("GET", "/v1/drops?host=s1"))["items"]
    assert {"mac-spoof", "ip4-spoof", "dad"} <= {drop["cause"] for drop in drops if drop["packets"] == 3}
    assert {drop["network"] for drop in drops if drop["packets"]} == {"web"}


# --- whatever happens in whatever order ---


@pytest.mark.parametrize("seed", range(6))
async def test_the_end_does_not_depend_on_the_way(tmp_path: Path, seed: int) -> None:
    """Binding, unbinding, hosts elsewhere, ports that come and go, connections that break: it has what it should."""
    chance = random.Random(seed)
    async with centre(tmp_path) as here:
        await here.add()
        await here.ask("POST", "/v1/networks", {"name": "six", "ipv6": True, "subnets": [{"prefix": "fd00:1::/64"}]})
        host = await here.ask("POST", "/v1/hosts", {"name": "h1"})
        agent = await Agent.connect(here.served.core, host["id"], vtep4="198.51.100.7")
        switch = SmallSwitch(ports=("hwvxlan", "p0", "p1", "p2"))
        await here.connected(switch)
        for _ in range(25):
            await _step(here, switch, agent, chance)
        if switch.connection is None or not switch.connection._transport:
            await switch.connect(here.plain)
        for number in range(4):
            if f"p{number}" not in {port.name for port in switch.ports.values()}:
                switch.change(PortChange.ADDED, 20 + number, f"p{number}")
        await here.converged(switch)
        await here.until(lambda shown: shown["connected"] and not shown["failures"], "quiet")
        await here.settled()
        assert FOREIGN in switch.tables.told()
        agent.close()


async def _step(here: Centre, switch: SmallSwitch, agent: Agent, chance: random.Random) -> None:
    port, network = f"p{chance.randrange(4)}", chance.choice(("web", "six"))
    match chance.randrange(6):
        case 0 | 1:
            await here.served.ask("POST", "/v1/switches/s1/ports", {"port": port, "network": network})
        case 2:
            await here.ask("DELETE", f"/v1/switches/s1/ports/{port}")
        case 3:
            with contextlib.suppress(HawseError):  # it is attached elsewhere already
                await agent.attach(network, container=f"c{chance.randrange(5)}")
        case 4:
            known = {there.name: number for number, there in switch.ports.items()}
            if port in known:
                switch.change(PortChange.DELETED, known[port], port)
            else:
                switch.change(PortChange.ADDED, max(switch.ports) + 1, port)
        case _:
            if switch.connection is not None and chance.randrange(2):
                await switch.leave()
                switch.connection = None
            elif switch.connection is None:
                await switch.connect(here.plain)
    if chance.randrange(3) == 0:
        await asyncio.sleep(0.01)  # some of the time things happen on top of each other


# --- who is believed ---


async def certificate(here: Centre, directory: Path, name: str = "s1") -> ssl.SSLContext:
    """What a switch connects with that was given a new certificate."""
    made = await here.ask("POST", f"/v1/switches/{name}/certificate")
    path = directory / f"{name}.pem"
    path.write_text(made["key"] + made["certificate"])
    context = verifying_context(made["authority"])
    context.load_cert_chain(path)
    return context


async def test_each_certificate_is_of_one_switch_and_the_newest_counts(here: Centre, tmp_path: Path) -> None:
    await here.add()
    await here.add("s2", 0xB2)
    first = await certificate(here, tmp_path)
    other = await certificate(here, tmp_path, "s2")
    switch = SmallSwitch()
    await switch.connect(here.secure, other)
    await gone(switch)
    assert "switch s1 shows a certificate that is not" in (await here.logged("switch refused"))["reason"]
    await switch.connect(here.secure, first)
    shown = await here.until(lambda shown: shown["connected"], "connected")
    assert shown["peer"].startswith("ssl:")
    second = await certificate(here, tmp_path)
    await gone(switch)
    await switch.connect(here.secure, first)
    await gone(switch)
    await switch.connect(here.plain)
    await gone(switch)
    await switch.connect(here.secure, second)
    await here.until(lambda shown: shown["connected"], "connected")


async def test_nobody_without_a_certificate_of_the_authority_gets_through_tls(here: Centre, tmp_path: Path) -> None:
    await here.add()
    bare = verifying_context(here.served.edge.authority)
    switch = SmallSwitch()
    with contextlib.suppress(OSError):
        await switch.connect(here.secure, bare)
        await gone(switch)
    await here.logged("no handshake with a switch")
    assert not (await here.ask("GET", "/v1/switches/s1"))["connected"]


async def test_a_switchs_certificate_does_not_make_a_controller(here: Centre, tmp_path: Path) -> None:
    """Hosts trust whom the authority has signed, whatever its name: a switch must not pass for a controller."""
    await here.add()
    made = await here.ask("POST", "/v1/switches/s1/certificate")
    path = tmp_path / "s1.pem"
    path.write_text(made["key"] + made["certificate"])
    false_controller = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    false_controller.load_cert_chain(path)
    server = await asyncio.start_server(lambda _r, writer: writer.close(), "127.0.0.1", 0, ssl=false_controller)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        await asyncio.open_connection("127.0.0.1", port, ssl=verifying_context(made["authority"]))
    server.close()
    await server.wait_closed()


async def test_who_is_not_known_is_told_of_with_what_to_type(here: Centre) -> None:
    switch = SmallSwitch()
    await switch.connect(here.plain)
    await gone(switch)
    line = await here.logged("switch refused")
    assert line["hint"] == f"hawse switch add NAME --datapath-id {DATAPATH_ID:016x} --vtep ADDRESS"
    assert here.listener.guests.unproven == 0


async def test_a_switch_that_is_removed_is_cleared_and_gone(here: Centre) -> None:
    await here.add()
    switch = SmallSwitch(ports=("hwvxlan", "p1"))
    await here.connected(switch)
    await here.bind("p1", name="printer")
    await here.settled()
    refused = await here.ask("DELETE", "/v1/switches/s1", status=409)
    assert "1 ports of switch s1 are bound: p1 (printer)" in refused["detail"]
    await here.ask("DELETE", "/v1/switches/s1?force=1")
    await gone(switch)
    assert switch.ours() == set()
    assert switch.tables.told() == [FOREIGN]
    await here.ask("DELETE", "/v1/switches/s1")  # absent is fine


async def test_what_was_bound_is_there_after_the_controller(tmp_path: Path) -> None:
    disk = Disk()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    switch = SmallSwitch(ports=("hwvxlan", "p1"))
    async with centre(tmp_path / "one", disk) as here:
        await here.add()
        await here.connected(switch)
        await here.bind("p1")
        await here.settled()
    await gone(switch)
    there, written = switch.ours(), switch.written
    async with centre(tmp_path / "two", disk) as here:
        await here.connected(switch)
        await here.settled()
        assert (switch.ours(), switch.written) == (there, written)
        assert (await here.bind("p1"))["ifname"] == "p1"
        refused = await here.ask(
            "POST", "/v1/switches/s1/ports", {"port": "p1", "network": "web", "mac": "0a:00:00:00:00:07"}, 409
        )
        assert "hawse switch unbind s1 p1" in refused["hint"]


# --- ports ---


def port(number: int, name: str) -> Port:
    return Port(number, "0a:00:00:00:00:01", name)


def test_ports_by_name_and_number() -> None:
    table = PortTable("s1", [port(1, "hwvxlan"), port(2, "eth1"), port(3, "٣")])
    assert (table.number_of("eth1"), table.number_of("2"), table.number_of("9")) == (2, 2, None)
    assert table.number_of("٣") == 3
    assert table.names(["eth1", "3"]) == {1: "1", 2: "eth1", 3: "3"}
    assert table.names(["eth1", "2"])[2] == "eth1"
    assert table.names(["2", "eth1"])[2] == "2", "the first has it"
    assert table.require("eth1", table.names(["eth1"]), "hwvxlan") == 2
    for reference, kind in (("eth2", Kind.NOT_FOUND), ("1", Kind.CONFLICT), ("2", Kind.CONFLICT)):
        with pytest.raises(HawseError) as refused:
            table.require(reference, table.names(["eth1"]), "hwvxlan")
        assert refused.value.kind is kind
        assert refused.value.hint
    table.apply(PortStatus(PortChange.MODIFIED, port(2, "eth7")))
    assert (table.number_of("eth1"), table.number_of("eth7")) == (None, 2)
    table.apply(PortStatus(PortChange.DELETED, port(2, "eth7")))
    table.apply(PortStatus(PortChange.DELETED, port(2, "eth7")))
    assert table.number_of("2") is None


def test_a_name_that_passes_from_one_number_to_another() -> None:
    """Open vSwitch may tell of the new one before it tells that the old one is gone."""
    table = PortTable("s1", [port(2, "eth1")])
    table.apply(PortStatus(PortChange.ADDED, port(5, "eth1")))
    table.apply(PortStatus(PortChange.DELETED, port(2, "eth1")))
    assert table.number_of("eth1") == 5
