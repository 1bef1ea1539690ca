"""The controller steers a real Open vSwitch that has no agent."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from plugin.kernel import namespace
from sdn.controller.steering import datapath as steered_datapath
from sdn.controller.steering import listener as steered_listener
from sdn.model.resources import Datapath
from tests.conformance.steered import BRIDGE, DATAPATH_ID, WAIT_S, Steered, controller, steered
from tests.packet.namespaces import TestNamespace
from tests.unit.rest_server import Agent

pytestmark = pytest.mark.root

Bound = dict[str, Any]
FOREIGN = "cookie=0x7,table=200,priority=77,ip,actions=drop"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Steered]:
    async with steered(tmp_path) as one:
        yield one


def address_of(endpoint: Bound) -> str:
    return str(endpoint["addresses"][0].partition("/")[0])


async def introduced(site: Steered, **more: Any) -> None:
    await site.add(**more)
    await site.point()
    await site.connected()


async def two(site: Steered) -> tuple[Bound, Bound, TestNamespace, TestNamespace]:
    one, other = await site.bind("p1", name="one"), await site.bind("p2", name="other")
    first, second = [await site.container(e["ifname"], e["addresses"], e["mac"]) for e in (one, other)]
    await site.until(lambda shown: not shown["failures"], "programmed")
    assert [host["state"] for host in await site.settled()] == ["applied"]
    return one, other, first, second


async def test_what_is_bound_reaches_the_others_of_its_network(site: Steered) -> None:
    await introduced(site)
    one, other, first, second = await two(site)
    assert await site.ping(first, address_of(other)) == 3
    assert await site.ping(second, address_of(one)) == 3
    assert await site.ping(first, "10.1.0.1") == 3  # the gateway
    shown = await site.inspect()
    ports = {port["port"]: port for port in shown["ports"]}
    assert ports["p1"]["up"]
    assert ports["p1"]["rx_packets"] >= 3
    assert ports["p1"]["network"] == "default/web"
    assert {"p1", "p2", "hwvxlan", BRIDGE} == set(ports)
    assert shown["version"].startswith("Open vSwitch")
    (host,) = (await site.ask("GET", "/v1/hosts"))["items"]
    assert (host["datapath"], host["connected"]) == (Datapath.SWITCH, True)


async def test_whoever_speaks_for_somebody_else_is_counted(site: Steered) -> None:
    await introduced(site)
    _, other, first, _ = await two(site)
    first.ip("addr add 10.1.0.77/24 dev eth0")
    first.ip(f"route replace {address_of(other)} dev eth0 src 10.1.0.77")
    assert await site.ping(first, address_of(other), 1, wait_s=2) == 0
    async with asyncio.timeout(WAIT_S):
        counted: dict[str, Any] = {}
        while not {"arp-spoof", "ip4-spoof"} & counted.keys():  # the switch brings its counters up to date at its pace
            drops = (await site.ask("GET", "/v1/drops?host=s1"))["items"]
            counted = {drop["cause"]: drop for drop in drops if drop["packets"]}
    assert {(drop["host"], drop["tenant"], drop["network"]) for drop in counted.values()} == {("s1", "default", "web")}


async def test_it_says_why_a_packet_arrives_and_what_its_tables_hold(site: Steered) -> None:
    await introduced(site)
    one, _, first, _ = await two(site)
    told = await site.ask("GET", "/v1/why?source=one&destination=other")
    assert told["away"] == []
    assert told["arrives"] is True, told
    flows = (await site.ask("GET", "/v1/hosts/s1/flows?endpoint=one"))["items"]
    assert flows
    assert {flow["network"] for flow in flows} == {"web"}
    first.ip("link set eth0 down")
    await site.until(lambda shown: not shown["ports"][0]["up"], "its port is down")
    back = await site.ask("GET", "/v1/why?source=other&destination=one")
    assert "its port p1 is down" in str(back), back
    assert one["ifname"] == "p1"


async def test_the_tunnel_goes_where_the_others_are(site: Steered) -> None:
    """A host with an agent has an endpoint of the network: it is sent to by its VTEP, and taken from that alone."""
    await introduced(site)
    await site.bind("p1")
    host = await site.ask("POST", "/v1/hosts", {"name": "h1"})
    agent = await Agent.connect(site.served.core, host["id"], vtep4="192.0.2.9")
    attached = await agent.attach("web")
    await site.container("p1", ["10.1.0.2/24"], "0a:00:00:00:00:01")
    await site.until(lambda shown: not shown["failures"], "programmed")
    told = rf"dl_dst={attached.endpoint.mac}.*set_field:192.0.2.9->tun_dst"
    await site.until_flows(lambda flows: any(re.search(told, flow) for flow in flows), "they are sent to")
    await site.until_flows(lambda flows: any("tun_src=192.0.2.9" in flow for flow in flows), "they are taken from")
    agent.close()


async def test_in_tls_a_switch_shows_its_own_certificate(site: Steered, tmp_path: Path) -> None:
    await site.add()
    await site.add("s2", datapath_id="00000000000000b2", vtep4="192.0.2.2")

    async def certified(switch: str) -> None:
        made = await site.ask("POST", f"/v1/switches/{switch}/certificate")
        for part in ("key", "certificate", "authority"):
            (tmp_path / part).write_text(made[part])
        files = [str(tmp_path / part) for part in ("key", "certificate", "authority")]
        await site.vsctl("del-ssl")
        await site.vsctl("set-ssl", *files)

    await certified("s2")
    await site.point(f"ssl:127.0.0.1:{site.secure}")
    line = await site.logged("switch refused")
    assert "switch s1 shows a certificate that is not" in line["reason"]
    assert "hawse switch certificate s1" in line["hint"]
    await certified("s1")
    shown = await site.connected()
    assert shown["peer"].startswith("ssl:127.0.0.1:")
    assert len(shown["certificate"]) == 64
    await site.ask("POST", "/v1/switches/s1/certificate")  # voids the one before at once
    await site.until(lambda shown: not shown["connected"], "cut off")
    await certified("s1")
    await site.connected()


async def test_who_has_a_certificate_is_not_believed_without(site: Steered) -> None:
    await site.add()
    await site.ask("POST", "/v1/switches/s1/certificate")
    await site.point()
    line = await site.logged("switch refused")
    assert line["reason"] == "switch s1 has a certificate, and connects without"


async def test_a_certificate_outlives_the_rotation_of_the_authority_until_that_is_retired(
    site: Steered, tmp_path: Path
) -> None:
    await site.add()
    made = await site.ask("POST", "/v1/switches/s1/certificate")
    for part in ("key", "certificate", "authority"):
        (tmp_path / part).write_text(made[part])
    await site.vsctl("set-ssl", *(str(tmp_path / part) for part in ("key", "certificate", "authority")))
    rotated = await site.ask("POST", "/v1/certificates/rotate")
    assert rotated["lacking"] == ["s1"]
    await site.point(f"ssl:127.0.0.1:{site.secure}")
    await site.connected()  # it trusts the authority before, and is trusted by it
    refused = await site.ask("POST", "/v1/certificates/retire", status=409)
    assert "s1" in refused["detail"]
    await site.ask("POST", "/v1/switches/s1/certificate")
    assert (await site.ask("POST", "/v1/certificates/retire"))["lacking"] == []


async def test_a_controller_that_dies_changes_nothing_and_its_successor_writes_only_what_differs(
    tmp_path: Path,
) -> None:
    async with steered(tmp_path) as site:
        await introduced(site)
        _, other, first, _ = await two(site)
        before = await site.flows()
        await asyncio.to_thread(site.vswitch.ofctl, "add-flow", BRIDGE, FOREIGN)
        pings = asyncio.create_task(site.ping(first, address_of(other), 40))
        await site.listener.close()
        assert await pings == 40
        (tmp_path / "second").mkdir()
        async with controller(tmp_path / "second", site.vswitch, site.disk) as (served, listener, plain, secure):
            again = Steered(site.vswitch, site.undo, served, listener, plain, secure, site.disk)
            await again.point()
            pings = asyncio.create_task(again.ping(first, address_of(other), 20))
            await again.connected()
            third = await again.bind("p3", name="third")
            inside = await again.container("p3", third["addresses"], third["mac"])
            await again.until(lambda shown: not shown["failures"], "programmed")
            assert await again.ping(inside, address_of(other)) == 3
            assert await pings == 20
            after = await again.flows()
            assert set(before) <= set(after)
            assert [line for line in after if "cookie=0x7" in line]
            ages = [float(age) for age in re.findall(r"duration=([\d.]+)s", await dump(again))]
            assert sum(age > 1 for age in ages) >= len(before)  # they were there all along


async def dump(site: Steered) -> str:
    return await asyncio.to_thread(site.vswitch.ofctl, "dump-flows", BRIDGE)


async def test_a_switch_that_has_forgotten_everything_gets_it_back(site: Steered) -> None:
    await introduced(site)
    _, other, first, _ = await two(site)
    before = await site.flows()
    await asyncio.to_thread(site.vswitch.kill_vswitchd)
    await site.until(lambda shown: not shown["connected"], "away")
    assert (await site.inspect())["problem"] == "the switch is away"
    await asyncio.to_thread(site.vswitch.start_vswitchd)
    await site.connected()
    await site.until(lambda shown: not shown["failures"], "programmed")
    await site.until_flows(lambda flows: flows == before, "all flows are there again")
    assert await site.ping(first, address_of(other)) == 3


async def test_what_happens_while_it_is_away_is_caught_up_with(site: Steered) -> None:
    await introduced(site)
    _, _, first, _ = await two(site)
    await site.vsctl("del-controller", BRIDGE)
    await site.until(lambda shown: not shown["connected"], "away")
    await site.ask("DELETE", "/v1/switches/s1/ports/p2")
    third = await site.bind("p3")
    status = await site.ask("GET", f"/v1/status?revision={site.served.core.revision}")
    assert [host["state"] for host in status["hosts"]] == ["not-connected"]
    inside = await site.container("p3", third["addresses"], third["mac"])
    await site.point()
    await site.connected()
    await site.settled()
    assert await site.ping(first, address_of(third)) == 3
    assert await site.ping(inside, "10.1.0.1") == 3


async def test_foreign_hands_are_undone_and_foreign_flows_let_be(site: Steered) -> None:
    await introduced(site)
    await two(site)
    before = await site.flows()

    async def until_mended() -> None:
        await site.until_flows(lambda flows: [flow for flow in flows if "cookie=0x7" not in flow] == before, "mended")

    for spoilt in ("table=120", "table=30", "cookie=0x4857010000000000/0xffffff0000000000"):  # the last: the pipeline
        # The controller runs in our loop: as long as that stands still, nobody mends before we have looked.
        site.vswitch.ofctl("del-flows", BRIDGE, spoilt)
        assert site.flows_at_once() != before
        await until_mended()
    await asyncio.to_thread(site.vswitch.ofctl, "add-flow", BRIDGE, FOREIGN)
    stray = "cookie=0x4857030000000009,table=120,priority=99,dl_dst=0a:00:00:00:00:99,actions=output:1"
    await asyncio.to_thread(site.vswitch.ofctl, "add-flow", BRIDGE, stray)
    await until_mended()
    assert [flow for flow in await site.flows() if "cookie=0x7" in flow]


async def test_a_port_that_is_not_there_is_told_until_it_is(site: Steered) -> None:
    await introduced(site)
    endpoint = await site.bind("p1")
    shown = await site.until(lambda shown: shown["failures"], "told")
    (why,) = shown["failures"].values()
    assert "switch s1 has no port p1 (yet)" in why
    (host,) = await site.settled()
    assert host["state"] == "failed"
    inside = await site.container("p1", endpoint["addresses"], endpoint["mac"])
    await site.until(lambda shown: not shown["failures"], "programmed")
    assert await site.ping(inside, "10.1.0.1") == 3
    # Made again it has another number; what the old one had is gone.
    old = (await site.inspect())["ports"][0]["number"]
    await site.vsctl("del-port", BRIDGE, "p1")
    await site.until(lambda shown: shown["failures"], "told again")
    await site.vsctl("add-port", BRIDGE, "p1", "--", "set", "interface", "p1", "ofport_request=77")
    await site.until(lambda shown: not shown["failures"] and shown["ports"][0]["number"] == 77, "programmed again")
    assert await site.ping(inside, "10.1.0.1") == 3
    assert old != 77
    assert not [flow for flow in await site.flows() if re.search(rf"in_port={old}\b|output:{old}\b", flow)]


async def test_a_port_by_its_number(site: Steered) -> None:
    await introduced(site)
    await site.container("p1", ["10.1.0.9/24"], "0a:00:00:00:00:09")
    number = next(port["number"] for port in (await site.inspect())["ports"] if port["port"] == "p1")
    await site.bind(str(number), mac="0a:00:00:00:00:09", addresses=["10.1.0.9"])
    await site.settled()
    assert not (await site.inspect())["failures"]
    with pytest.raises(AssertionError, match=f"port p1 of switch s1 is its port {number}, which is bound already"):
        await site.bind("p1")
    await site.settled()
    assert not (await site.inspect())["failures"]


async def test_without_a_tunnel_only_what_is_far_fails(site: Steered) -> None:
    await introduced(site, tunnel_port="vx7")
    await two(site)
    host = await site.ask("POST", "/v1/hosts", {"name": "h1"})
    agent = await Agent.connect(site.served.core, host["id"], vtep4="192.0.2.9")
    await agent.attach("web")
    shown = await site.until(lambda shown: shown["failures"], "told")
    assert all("switch s1 has no port vx7 for its tunnels" in why for why in shown["failures"].values())
    await site.vsctl("del-port", BRIDGE, "hwvxlan")
    tunnel = ["add-port", BRIDGE, "vx7", "--", "set", "interface", "vx7", "type=vxlan", "options:remote_ip=flow"]
    await site.vsctl(*tunnel, "options:key=flow")
    await site.until(lambda shown: not shown["failures"], "programmed")
    number = next(port["number"] for port in (await site.inspect())["ports"] if port["port"] == "vx7")
    far = re.compile(rf"in_port={number}\b.*tun_src=192.0.2.9|tun_src=192.0.2.9.*in_port={number}\b")
    await site.until_flows(lambda flows: any(map(far.search, flows)), "what is far is taken from it")
    agent.close()


async def test_what_the_switch_refuses_is_told_and_tried_again(site: Steered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steered_datapath, "REFUSAL_KEPT_S", 0.3)
    await introduced(site)
    one = await site.bind("p1")
    await site.container("p1", one["addresses"], one["mac"])
    await site.settled()
    full = ["--", "--id=@full", "create", "Flow_Table", "flow_limit=2", "overflow_policy=refuse"]
    await site.vsctl(*full[1:], "--", "set", "bridge", BRIDGE, "flow_tables:120=@full")
    other = await site.bind("p2")
    inside = await site.container("p2", other["addresses"], other["mac"])
    shown = await site.until(lambda shown: any("refuses" in why for why in shown["failures"].values()), "told")
    assert any("TABLE_FULL" in why for why in shown["failures"].values()), shown["failures"]
    (host,) = await site.settled()
    assert host["state"] == "failed"
    await site.vsctl("clear", "bridge", BRIDGE, "flow_tables")
    await site.until(lambda shown: not shown["failures"], "tried again")
    assert await site.ping(inside, "10.1.0.1") == 3


async def test_a_switch_that_answers_no_barrier_is_let_go_and_catches_up(
    site: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = dataclasses.replace(steered_listener.SESSION, request_s=1.0)
    monkeypatch.setattr(steered_listener, "SESSION", quick)
    await introduced(site)
    await two(site)
    with site.vswitch.stopped():
        await site.bind("p3")
        await site.until(lambda shown: not shown["connected"], "let go")
        line = await site.logged("switch gone")
        assert line["switch"] == "s1"
    await site.connected()
    await site.until(lambda shown: shown["failures"], "p3 is not there")


async def test_strangers(site: Steered) -> None:
    """Each is told of in the log, with what to type; none keeps the one that is known from getting in."""
    await site.point()
    line = await site.logged("switch refused")
    assert f"datapath id {DATAPATH_ID}" in line["reason"]
    assert line["hint"] == f"hawse switch add NAME --datapath-id {DATAPATH_ID} --vtep ADDRESS"
    await site.add()
    await site.connected()


async def test_another_version_of_openflow(site: Steered) -> None:
    await site.add()
    await site.vsctl("set", "bridge", BRIDGE, "protocols=OpenFlow10")
    await site.point()
    line = await site.logged("no handshake with a switch")
    assert "OpenFlow 1.0" in line["reason"]
    assert "protocols=OpenFlow13" in line["hint"]
    await site.vsctl("set", "bridge", BRIDGE, "protocols=OpenFlow13")
    await site.connected()


async def test_a_crowd_of_strangers_displaces_its_own(site: Steered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent ones, garbage and half messages, many more than are taken: the switch gets in, and they are let go."""
    quick = dataclasses.replace(steered_listener.SESSION, handshake_s=1.0)
    monkeypatch.setattr(steered_listener, "SESSION", quick)
    monkeypatch.setattr(steered_listener, "TLS_S", 1.0)
    await site.add()
    limit = site.listener.guests.limits.unproven
    said = [b"", b"\x04\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x04\x00\x00\x08\0\0\0\1", b"\xff" * 100]
    crowd: list[asyncio.StreamWriter] = []
    ends: list[asyncio.Task[bytes]] = []
    for number in range(4 * limit):
        one = namespace.socket_in(site.vswitch.here.fd, socket.AF_INET, socket.SOCK_STREAM, 0)
        one.connect(("127.0.0.1", site.plain if number % 2 else site.secure))
        reader, writer = await asyncio.open_connection(sock=one)
        writer.write(said[number % len(said)])
        crowd.append(writer)
        ends.append(asyncio.create_task(reader.read()))
    await site.point()
    await site.connected()
    assert site.listener.guests.unproven <= limit
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*ends, return_exceptions=True)
    assert site.listener.guests.unproven == 0
    for writer in crowd:
        writer.close()


async def test_it_is_cleared_when_it_is_removed(site: Steered) -> None:
    await introduced(site)
    await two(site)
    await asyncio.to_thread(site.vswitch.ofctl, "add-flow", BRIDGE, FOREIGN)
    refused = await site.ask("DELETE", "/v1/switches/s1", status=409)
    assert "2 ports of switch s1 are bound: p1 (one), p2 (other)" in refused["detail"]
    assert "hawse switch rm --force s1" in refused["hint"]
    await site.ask("DELETE", "/v1/switches/s1?force=1")
    assert [re.sub(r"cookie=(0x\w+).*", r"\1", flow) for flow in await site.flows()] == ["0x7"]
    assert (await site.ask("GET", "/v1/endpoints"))["items"] == []
    line = await site.logged("switch refused")  # it goes on knocking
    assert "nobody has added" in line["reason"]
