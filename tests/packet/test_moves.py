"""Detached is silent at once; an address that moved answers the first packet; a new container's first SYN lands."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from scapy.layers.vxlan import VXLAN

from tests.packet.frames import arp_request, is_answer, solicitation, udp4, udp6
from tests.packet.lab import Lab, eventually, lab
from tests.packet.sight import members, traces
from tests.packet.talk import (
    FAMILIES,
    Capture,
    free_port,
    ping,
    pings,
    retransmissions,
    tcp_server,
    tell,
    udp_ask,
    udp_echo,
)
from tests.packet.test_underlay_wire import send

pytestmark = pytest.mark.root

NETWORK = "blue/web"
WANDERER = {4: "10.1.0.50", 6: "fd00:1::50"}
TRIO = """\
hosts: [h1, h2, h3]
tenants: [blue]
networks:
  blue/web: {subnets: [10.1.0.0/24, "fd00:1::/64"]}
containers:
  a1: {host: h1, networks: {network: blue/web, ip: 10.1.0.11, ip6: "fd00:1::11"}}
  b1: {host: h2, networks: {network: blue/web, ip: 10.1.0.12, ip6: "fd00:1::12"}}
  c1: {host: h3, networks: {network: blue/web, ip: 10.1.0.13, ip6: "fd00:1::13"}}
"""
_names = iter(range(1_000_000))


@pytest.fixture(scope="module")
def trio() -> Iterator[Lab]:
    with lab(TRIO) as up:
        yield up


def new_container(trio: Lab) -> str:
    return trio.make_container(f"n{next(_names)}")


def wander(trio: Lab, host: str) -> str:
    """A new container on a host that has the wanderer's addresses."""
    name = new_container(trio)
    trio.add(host, name, NETWORK, addresses=list(WANDERER.values()))
    return name


def links(trio: Lab, place: str) -> set[str]:
    return {line.split(": ")[1].partition("@")[0] for line in trio.run(place, "ip", "-o", "link").stdout.splitlines()}


def test_what_was_detached_is_silent(trio: Lab) -> None:
    name = wander(trio, "h2")
    gone, peers = trio.station(name), ("a1", "b1")
    assert pings(trio, [(peer, address, 5) for peer in peers for address in WANDERER.values()]) == [True] * 4
    assert "eth0" in links(trio, name)
    with Capture(trio, name) as ear:
        trio.remove("h2", name, NETWORK)
        assert "eth0" not in links(trio, name)
        # The peers still hold it for a neighbour, and ask and send as before.
        lost = pings(trio, [(peer, address, 0.4) for peer in peers for address in WANDERER.values()])
        assert lost == [False] * 4
        assert ear.frames() == []
    eventually(lambda: links(trio, name), lambda found: found == {"lo"}, "the end of the inside interface")
    trio.settle()
    for peer in peers:
        me, control = trio.station(peer), udp4(trio.station(peer), trio.station("c1"), os.urandom(16))
        frames = [arp_request(me, gone.ip4), solicitation(me, gone.ip6), udp4(me, gone), udp6(me, gone)]
        with Capture(trio, peer) as ear, Capture(trio, "underlay") as wire, Capture(trio, "c1") as arrived:
            send(trio, peer, [*frames, control])
            arrived.until(lambda frame, wanted=control: frame == wanted, "the control packet")  # type: ignore[misc]
            assert not any(is_answer(question, frame) for question in frames[:2] for frame in ear.frames())
            inner = [packet[VXLAN].payload for packet in wire.tunnel_packets()]
            assert not any(frame.dst == gone.mac for frame in inner)
    assert name not in {endpoint["container"] for endpoint in trio.endpoints()}
    trio.remove("h2", name, NETWORK)  # again: nothing there is fine


def test_a_detach_without_the_namespace_is_as_silent(trio: Lab) -> None:
    name = wander(trio, "h1")
    assert ping(trio, "b1", WANDERER[4])
    trio.remove("h1", name, NETWORK, with_namespace=False)
    assert pings(trio, [(peer, address, 0.4) for peer in ("a1", "b1") for address in WANDERER.values()]) == [False] * 4


@pytest.mark.parametrize("way", ["re-attached", "taken-over"])
def test_an_address_that_moved_answers_the_first_packet(trio: Lab, way: str) -> None:
    """From peers that had talked to the old one: on the old host, on the new one, and on a third."""
    port, peers = free_port(), ("a1", "b1", "c1")
    old = wander(trio, "h1")
    for here, there in (("h1", "h2"), ("h2", "h3"), ("h3", "h1")):
        assert pings(trio, [(peer, address, 5) for peer in peers for address in WANDERER.values()]) == [True] * 6
        mac = trio.endpoint(old)["mac"]
        trio.remove(here, old, NETWORK, with_namespace=way == "re-attached")
        if way == "taken-over":
            trio.end_container(old)
        old = wander(trio, there)
        assert trio.endpoint(old)["mac"] == mac
        assert trio.endpoint(old)["host_name"] == there
        for family in (4, 6):
            with udp_echo(trio, old, family, port, old):
                for peer in peers:
                    assert udp_ask(trio, peer, WANDERER[family], port, family) == old.encode()
        assert pings(trio, [(peer, address, 5) for peer in peers for address in WANDERER.values()]) == [True] * 6
    trio.remove("h1", old, NETWORK)


def test_a_container_that_comes_back_with_another_mac_is_found_at_once(trio: Lab) -> None:
    """By peers that had talked to the old MAC: on its host, on the new one's and on a third; also on the same again."""
    name, peers = new_container(trio), ("a1", "b1", "c1")
    for host, mac in (("h2", "0a:00:00:00:00:50"), ("h3", "0a:00:00:00:00:51"), ("h3", "0a:00:00:00:00:52")):
        trio.add(host, name, NETWORK, addresses=list(WANDERER.values()), mac=mac)
        assert trio.endpoint(name)["mac"] == mac
        assert pings(trio, [(peer, address, 5) for peer in peers for address in WANDERER.values()]) == [True] * 6
        trio.remove(host, name, NETWORK)


def first_syn(trio: Lab, place: str, address: str, port: int, family: int) -> int:
    """Connect at once; how often the SYN (or anything) was sent again."""
    with trio.socket(place, FAMILIES[family], socket.SOCK_STREAM) as client:
        client.connect((address, port))
        assert client.recv(100)
        return retransmissions(client)


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_the_first_syn_of_a_new_container_is_answered(trio: Lab, family: int) -> None:
    port = free_port()
    with tcp_server(trio, "b1", family, port, tell("b1")):
        for _ in range(8):
            name = new_container(trio)
            trio.add("h1", name, NETWORK)
            assert first_syn(trio, name, trio.address("b1", family), port, family) == 0


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_the_first_syn_to_a_new_container_is_answered(trio: Lab, family: int) -> None:
    for _ in range(8):
        port, name = free_port(), new_container(trio)
        result = trio.add("h1", name, NETWORK)
        address = next(a.partition("/")[0] for a in result["addresses"] if (":" in a) == (family == 6))
        with tcp_server(trio, name, family, port, tell(name)):
            assert first_syn(trio, "c1", address, port, family) == 0


def test_a_lost_syn_would_be_seen(trio: Lab) -> None:
    """What the two tests above measure does rise when nobody answers."""
    with trio.socket("a1", socket.AF_INET, socket.SOCK_STREAM) as client:
        trio.run("a1", "ip", "neigh", "replace", "10.1.0.99", "lladdr", "0a:00:00:00:00:99", "dev", "eth0")
        client.setblocking(False)
        assert client.connect_ex(("10.1.0.99", 1)) != 0
        eventually(lambda: retransmissions(client), lambda count: count > 0, "a second SYN")


def test_a_container_whose_namespace_died_is_released(trio: Lab) -> None:
    name = new_container(trio)
    trio.add("h2", name, NETWORK)
    mac = trio.endpoint(name)["mac"]
    trio.end_container(name)
    eventually(trio.endpoints, lambda found: name not in {e["container"] for e in found}, "the endpoint's release")
    trio.settle()
    for host in ("h1", "h2", "h3"):
        eventually(lambda host=host: mac in traces(trio, host, "blue"), lambda there: not there, f"its end on {host}")  # type: ignore[misc]


def test_a_change_of_a_host_s_address_is_one_report_and_the_members_follow(trio: Lab) -> None:
    before = {host["name"]: host for host in trio.client.items("/v1/hosts")}
    old = before["h1"]["vtep4"]
    endpoints = {e["id"]: e["revision"] for e in trio.endpoints()}
    trio.run("h1", "ip", "address", "del", f"{old}/24", "dev", "eth0")
    trio.run("h1", "ip", "address", "add", "100.64.0.77/24", "dev", "eth0")
    found = eventually(
        lambda: {host["name"]: host for host in trio.client.items("/v1/hosts")},
        lambda hosts: hosts["h1"]["vtep4"] == "100.64.0.77",
        "the new VTEP at the controller",
        bound_s=10,  # the heartbeat alone would take fifteen
    )
    trio.settle()
    # The host is the one thing that was written: no endpoint, no other host.
    assert {name for name, host in found.items() if host["revision"] != before[name]["revision"]} == {"h1"}
    assert {e["id"]: e["revision"] for e in trio.endpoints()} == endpoints
    everybody = [(a, b) for a in ("a1", "b1", "c1") for b in ("a1", "b1", "c1") if a != b]
    with Capture(trio, "underlay") as wire:
        questions = [(a, trio.address(b, family), 5.0) for a, b in everybody for family in (4, 6)]
        assert pings(trio, questions) == [True] * len(questions)
        sources = {packet.getlayer(1).src for packet in wire.tunnel_packets()}
    assert "100.64.0.77" in sources
    assert old not in sources
    taken = members(trio, "h2")
    assert "100.64.0.77" in taken
    assert f"{old}," not in f"{taken},".replace(" ", ",")
