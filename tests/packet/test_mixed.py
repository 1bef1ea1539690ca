"""Hosts on different datapaths are one network: what is said arrives, what is forged dies, what moves is found."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.packet.frames import forgeries, udp4
from tests.packet.lab import Lab, lab
from tests.packet.talk import Capture, digest, free_port, pings, send_intact, tcp_server, tell, udp_ask, udp_echo
from tests.packet.test_moves import first_syn
from tests.packet.test_spoof_system import risen
from tests.packet.test_underlay_wire import send

pytestmark = pytest.mark.root

NETWORK = "blue/web"
WANDERER = ["10.1.0.50", "fd00:1::50"]
TOPOLOGY = """\
hosts: [h1, h2, h3]
tenants: [blue, red]
networks:
  blue/web: {subnets: [10.1.0.0/24, "fd00:1::/64"]}
  red/web: {subnets: [10.1.0.0/24, "fd00:1::/64"]}
containers:
  a1: {host: h1, networks: {network: blue/web, ip: 10.1.0.11, ip6: "fd00:1::11"}}
  b1: {host: h2, networks: {network: blue/web, ip: 10.1.0.12, ip6: "fd00:1::12"}}
  b2: {host: h2, networks: {network: blue/web, ip: 10.1.0.13, ip6: "fd00:1::13"}}
  c1: {host: h3, networks: {network: blue/web, ip: 10.1.0.14, ip6: "fd00:1::14"}}
  r1: {host: h1, networks: {network: red/web, ip: 10.1.0.12, ip6: "fd00:1::12"}}
  r2: {host: h2, networks: {network: red/web, ip: 10.1.0.11, ip6: "fd00:1::11"}}
"""
"""h2 has Open vSwitch, the others the kernel's bridges."""
BLUE = ("a1", "b1", "b2", "c1")


@pytest.fixture(scope="module")
def fabric() -> Iterator[Lab]:
    with lab(TOPOLOGY, "mixed") as up:
        yield up


def test_everybody_reaches_everybody_at_the_first_packet(fabric: Lab) -> None:
    pairs = [(a, b) for a in BLUE for b in BLUE if a != b]
    questions = [(a, fabric.address(b, family), 5.0) for a, b in pairs for family in (4, 6)]
    assert pings(fabric, questions) == [True] * len(questions)


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(("sender", "receiver"), [("a1", "b1"), ("b1", "a1")])
def test_a_stream_arrives_intact(fabric: Lab, sender: str, receiver: str, family: int) -> None:
    """The kernel's own super-packets, too, which no switch can cut."""
    port, data = free_port(), os.urandom(2_000_000)
    with tcp_server(fabric, receiver, family, port, digest):
        send_intact(fabric, sender, fabric.address(receiver, family), port, family, data)


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_equal_tenants_hear_their_own(fabric: Lab, family: int) -> None:
    port = free_port()
    with udp_echo(fabric, "b1", family, port, "b1"), udp_echo(fabric, "r1", family, port, "r1"):
        assert udp_ask(fabric, "a1", fabric.address("b1", family), port, family) == b"b1"
        assert udp_ask(fabric, "r2", fabric.address("r1", family), port, family) == b"r1"


@pytest.mark.parametrize(("sender", "receiver", "host"), [("a1", "b1", "h1"), ("b1", "a1", "h2")])
def test_each_lie_dies_under_its_name_on_its_own_host(fabric: Lab, sender: str, receiver: str, host: str) -> None:
    me, victim = fabric.station(sender), fabric.station(receiver)
    lies = [lie for lie in forgeries(me, victim) if not lie.futile]
    control = udp4(me, victim, os.urandom(16))
    before = fabric.drops_rest(host)
    with Capture(fabric, receiver) as ear:
        send(fabric, sender, [*(lie.frame for lie in lies), control])
        heard = ear.until(lambda frame: frame == control, "the control packet")
    assert [lie.name for lie in lies if lie.frame in heard] == []
    rise = risen(before, fabric.drops_rest(host))
    for cause in {lie.cause for lie in lies}:
        assert rise[NETWORK, cause] >= sum(lie.cause == cause for lie in lies)


def test_who_moves_to_another_datapath_is_found_at_once(fabric: Lab) -> None:
    """With the same MAC and with another, by peers that had talked to it where it was."""
    for number, (host, mac) in enumerate((("h1", ""), ("h2", ""), ("h3", "0a:00:00:00:00:51"), ("h2", ""))):
        name = fabric.make_container(f"wanderer{number}")
        fabric.add(host, name, NETWORK, addresses=WANDERER, mac=mac)
        questions = [(peer, address, 5.0) for peer in BLUE for address in WANDERER]
        assert pings(fabric, questions) == [True] * len(questions), host
        fabric.remove(host, name, NETWORK)
        assert pings(fabric, [(peer, WANDERER[0], 0.4) for peer in BLUE]) == [False] * len(BLUE)


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(("host", "client"), [("h1", "b1"), ("h2", "a1")])
def test_the_first_syn_to_a_new_container_is_answered(fabric: Lab, host: str, client: str, family: int) -> None:
    for number in range(3):
        port, name = free_port(), fabric.make_container(f"new-{host}-{family}-{number}")
        result = fabric.add(host, name, NETWORK)
        address = next(a.partition("/")[0] for a in result["addresses"] if (":" in a) == (family == 6))
        with tcp_server(fabric, name, family, port, tell(name)):
            assert first_syn(fabric, client, address, port, family) == 0
