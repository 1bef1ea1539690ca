"""The pipeline in a real Open vSwitch, with frames that are really sent: answers to the byte, and what is counted."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Iterator

import pytest
from scapy.layers.inet import ICMP, IP, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    IPv6,
    IPv6ExtHdrFragment,
    fragment6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from sdn.model.resources import Endpoint
from sdn.openflow import cookies
from sdn.openflow.objects import gateway_mac
from sdn.reconcile.state import State
from tests.conformance.random_fabrics import station
from tests.conformance.traced_switch import OPTIONS, TUNNEL_PORT, TracedSwitch, lowered, numbers_of, port_name
from tests.conformance.vswitch_process import VswitchProcess, vswitch_process, wait_until
from tests.packet.frames import Station, arp_request, forgeries, solicitation, udp4
from tests.states.states import DUAL, DUAL_STACK, endpoint, member

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def process() -> Iterator[VswitchProcess]:
    with vswitch_process(options=OPTIONS) as one:
        yield one


@pytest.fixture
async def switch(process: VswitchProcess) -> AsyncIterator[TracedSwitch]:
    made = await TracedSwitch.open(process, "br1")
    yield made
    await made.close()


PAIR = State(
    "pair",
    DUAL_STACK.here,
    DUAL_STACK.tenants,
    DUAL_STACK.networks,
    ((DUAL.id, member(1)), (DUAL.id, member(2))),
    (
        endpoint(21, 1, DUAL, "10.2.0.21/24", "fd00:1::21/64"),
        endpoint(22, 1, DUAL, "10.2.0.22/24", "fd00:1::22/64"),
        endpoint(23, 2, DUAL, "10.2.0.23/24", "fd00:1::23/64"),
    ),
)
ME, HERE, THERE = PAIR.endpoints
GATEWAY = Station(gateway_mac(DUAL.vni), "10.2.0.1", "fd00:1::1")


async def entered(switch: TracedSwitch) -> dict[str, int]:
    ports = numbers_of(PAIR)
    await switch.enter(lowered(PAIR), ports)
    return ports


def port_of(ports: dict[str, int], which: Endpoint) -> int:
    return ports[port_name(which)]


def arp_reply(owner: Station, asker: Station) -> bytes:
    said = ARP(op=2, hwsrc=owner.mac, psrc=owner.ip4, hwdst=asker.mac, pdst=asker.ip4)
    return bytes(Ether(src=owner.mac, dst=asker.mac) / said)


def advertisement(owner: Station, address: str, asker: Station, *, with_mac: bool = True) -> bytes:
    head = Ether(src=owner.mac, dst=asker.mac) / IPv6(src=address, dst=asker.ip6, hlim=255)
    said = ICMPv6ND_NA(R=0, S=1, O=1, tgt=address)
    return bytes(head / said / ICMPv6NDOptDstLLAddr(lladdr=owner.mac) if with_mac else head / said)


def bare(asked: bytes) -> bytes:
    """A solicitation without the asker's MAC."""
    packet = Ether(asked)
    head = Ether(src=packet.src, dst=packet.dst) / IPv6(src=packet[IPv6].src, dst=packet[IPv6].dst, hlim=255)
    return bytes(head / ICMPv6ND_NS(tgt=packet[ICMPv6ND_NS].tgt))


def pings(size: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Of the gateway, in pieces where they are long, and what has to come back."""
    me, data = station(ME), bytes(range(256)) * (size // 256) + b"end"
    there, back = Ether(src=me.mac, dst=GATEWAY.mac), Ether(src=GATEWAY.mac, dst=me.mac)
    asked = there / IP(src=me.ip4, dst=GATEWAY.ip4, id=9) / ICMP(id=7, seq=3) / Raw(data)
    answer = back / IP(src=GATEWAY.ip4, dst=me.ip4, id=9, ttl=64) / ICMP(type=0, id=7, seq=3) / Raw(data)
    yield [bytes(part) for part in fragment(asked, 1200)], [bytes(part) for part in fragment(answer, 1200)]
    asked6 = IPv6(src=me.ip6, dst=GATEWAY.ip6) / IPv6ExtHdrFragment(id=5) / ICMPv6EchoRequest(id=7, data=data)
    answer6 = IPv6(src=GATEWAY.ip6, dst=me.ip6) / IPv6ExtHdrFragment(id=5) / ICMPv6EchoReply(id=7, data=data)
    if size < 1200:
        asked6, answer6 = (
            IPv6(src=me.ip6, dst=GATEWAY.ip6) / ICMPv6EchoRequest(id=7, data=data),
            IPv6(src=GATEWAY.ip6, dst=me.ip6) / ICMPv6EchoReply(id=7, data=data),
        )
        yield [bytes(there / asked6)], [bytes(back / answer6)]
        return
    yield (
        [bytes(there / part) for part in fragment6(asked6, 1280)],
        [bytes(back / part) for part in fragment6(answer6, 1280)],
    )


def questions() -> Iterator[tuple[bytes, bytes]]:
    """And what has to be answered."""
    me, here, there = station(ME), station(HERE), station(THERE)
    for owner in (here, there, GATEWAY):
        yield arp_request(me, owner.ip4), arp_reply(owner, me)
        asked = solicitation(me, owner.ip6)
        yield asked, advertisement(owner, owner.ip6, me)
        yield bare(asked), advertisement(owner, owner.ip6, me, with_mac=False)
    yield solicitation(me, there.fe80), advertisement(there, there.fe80, me)


async def test_answers_are_right_to_the_byte(switch: TracedSwitch) -> None:
    port = port_of(await entered(switch), ME)
    told = [([question], [answer]) for question, answer in questions()]
    for said, wanted in [*told, *pings(100), *pings(3000)]:
        before = len(switch.sent(port))
        after = before + len(wanted)
        for frame in said:
            await switch.receive(port, frame)
        wait_until(lambda seen=after: len(switch.sent(port)) >= seen, "an answer")  # type: ignore[misc]
        for seen, expected in zip(switch.sent(port)[before:], wanted, strict=True):
            assert seen[: len(expected)] == expected, (
                f"{Ether(seen).show(dump=True)}\n{Ether(expected).show(dump=True)}"
            )
            assert not any(seen[len(expected) :]), "nothing but padding"


async def counts(switch: TracedSwitch) -> dict[str, int]:
    """Of the drops, by cause."""
    found: dict[str, int] = {}
    for entry in await switch.told():
        kind, number = cookies.split(entry.cookie)
        if kind == cookies.Kind.DROP and entry.packets:
            cause, vni = cookies.cause_of(number)
            assert vni in (0, DUAL.vni)
            found[cause] = entry.packets
    return found


async def settled_counts(switch: TracedSwitch, wanted: dict[str, int]) -> dict[str, int]:
    """The drops, once they are what is wanted, or after a while that is long for the switch's own statistics."""
    for _ in range(200):
        if (found := await counts(switch)) == wanted:
            return found
        await asyncio.sleep(0.02)
    return found


@pytest.mark.parametrize("victim", [HERE, THERE], ids=["same-host", "cross-host"])
async def test_every_lie_is_counted_by_its_name_and_its_twin_is_not(switch: TracedSwitch, victim: Endpoint) -> None:
    ports = await entered(switch)
    lies = [lie for lie in forgeries(station(ME), station(victim)) if not lie.futile]
    stranger = udp4(station(ME), station(victim))
    for lie in lies:
        await switch.receive(port_of(ports, ME), lie.frame)
    await switch.receive(TUNNEL_PORT + 16, stranger)  # a port of nobody's
    wanted = collections.Counter(lie.cause for lie in lies) + collections.Counter({"unknown-port": 1})
    assert await settled_counts(switch, dict(wanted)) == wanted
    for lie in lies:
        await switch.receive(port_of(ports, ME), lie.twin)
    control, place = udp4(station(ME), station(HERE), b"control"), port_of(ports, HERE)
    await switch.receive(port_of(ports, ME), control)
    wait_until(lambda: control in switch.sent(place), "the control frame")
    assert await settled_counts(switch, dict(wanted)) == wanted
    if victim is HERE:
        heard = switch.sent(place)
        assert [lie.name for lie in lies if lie.frame in heard] == []
        assert [lie.name for lie in lies if not lie.answered and lie.twin not in heard] == []
