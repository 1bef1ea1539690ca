"""In the whole system every lie dies under its name, `hawse drops` says so, and its honest twin arrives."""

from __future__ import annotations

import dataclasses
import os
import socket

import pytest
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN

from sdn.client.client import resource
from tests.packet.frames import Forgery, Station, arp_request, forgeries, is_answer, udp4, udp6, vxlan
from tests.packet.lab import DATAPATH, Lab
from tests.packet.talk import Capture
from tests.packet.test_underlay_wire import send

pytestmark = pytest.mark.root

NETWORK = "blue/web"
CAUSES = ("mac-spoof", "ip4-spoof", "ip6-spoof", "arp-spoof", "nd-spoof", "router-advert", "dhcp-server", "multicast",
          "dad", "protocol")  # fmt: skip
NOISE = {"multicast", "dad"}
"""What healthy kernels say by themselves, at any time."""


def risen(before: dict[tuple[str, str], int], after: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """By how much counters rose."""
    return {key: count - before.get(key, 0) for key, count in after.items() if count != before.get(key, 0)}


def hardware_address(lab: Lab, place: str) -> str:
    """Of its eth0."""
    with lab.socket(place, socket.AF_PACKET, socket.SOCK_RAW) as any_socket:
        any_socket.bind(("eth0", 0))
        return bytes(any_socket.getsockname()[4]).hex(":")


def dies_in_the_tunnel(frame: bytes, receiver: str) -> bool:
    """An ARP answer to another host's container: nobody there has asked, its own host answers for us."""
    packet = Ether(frame)
    return receiver == "b1" and ARP in packet and packet[ARP].op == 2


def expect_twin(lab: Lab, forgery: Forgery, receiver: str) -> None:
    """The honest twin arrives, or is answered."""
    place = "a1" if forgery.answered else receiver
    with Capture(lab, place) as ear:
        send(lab, "a1", [forgery.twin])
        ear.until(
            lambda frame: is_answer(forgery.twin, frame) if forgery.answered else frame == forgery.twin,
            f"the twin of {forgery.name!r}",
        )


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("receiver", ["a2", "b1"], ids=["same-host", "cross-host"])
def test_a_lie_dies_under_its_name_and_its_twin_passes(pair: Lab, receiver: str, cause: str) -> None:
    me, victim = pair.station("a1"), pair.station(receiver)
    seen = DATAPATH == "bridge"
    lies = [forgery for forgery in forgeries(me, victim) if forgery.cause == cause and (seen or not forgery.futile)]
    assert lies
    frames = [lie.frame for lie in lies]
    control = udp4(me, victim, os.urandom(16))
    before = pair.drops_rest("h1")
    with Capture(pair, receiver) as ear, Capture(pair, "a2") as neighbour:
        send(pair, "a1", [*frames, control])
        heard = ear.until(lambda frame: frame == control, "the control packet")
        assert [lie.name for lie in lies if lie.frame in [*heard, *neighbour.frames()]] == []
    rise = risen(before, pair.drops("h1"))
    assert rise.get((NETWORK, cause), 0) >= len(lies)
    assert cause in NOISE or rise[NETWORK, cause] == len(lies)
    assert {key for key in rise if key[1] not in NOISE} <= {(NETWORK, cause)}
    before = pair.drops_rest("h1")
    for lie in lies:
        if dies_in_the_tunnel(lie.twin, receiver):
            question = arp_request(me, victim.ip4)
            lie = dataclasses.replace(lie, twin=question, answered=True)
        expect_twin(pair, lie, receiver)
    assert {key for key in risen(before, pair.drops_rest("h1")) if key[1] not in NOISE} == set()


def test_every_class_of_lie_is_told() -> None:
    told = forgeries(
        Station("0a:00:00:00:00:01", "10.0.0.1", "fd00::1"), Station("0a:00:00:00:00:02", "10.0.0.2", "fd00::2")
    )
    assert {forgery.cause for forgery in told} == set(CAUSES)


def test_a_tunnel_packet_of_a_foreign_vtep_is_dropped(pair: Lab, underlay_family: int) -> None:
    vni = pair.client.get(resource("networks", NETWORK)).body["vni"]
    vteps = {host["name"]: host[f"vtep{underlay_family}"] for host in pair.client.items("/v1/hosts")}
    foreign = "100.64.0.99" if underlay_family == 4 else "fd64:6877::99"
    mac = hardware_address(pair, "h2")
    me, victim = pair.station("a1"), pair.station("b1")
    for make in (udp4, udp6):
        forged, honest = make(me, victim, os.urandom(16)), make(me, victim, os.urandom(16))
        before = pair.drops_rest("h2")
        with Capture(pair, "b1") as ear:
            for source, inner in ((foreign, forged), (vteps["h1"], honest)):
                packet = bytes(vxlan(source, vteps["h2"], vni, inner, ("02:00:00:00:00:99", mac)))
                with pair.socket("underlay", socket.AF_PACKET, socket.SOCK_RAW) as wire:
                    wire.sendto(packet, ("br0", 0))
            heard = ear.until(lambda frame, wanted=honest: frame == wanted, "the twin from a member")  # type: ignore[misc]
        assert forged not in heard
        rise = {key: count for key, count in risen(before, pair.drops("h2")).items() if key[1] not in NOISE}
        assert rise == {(NETWORK, "foreign-vtep"): 1}


def test_a_member_of_another_network_is_foreign_to_this_one(pair: Lab, underlay_family: int) -> None:
    """The VNI of a network that exists nowhere reaches nobody: not even from a member's address."""
    vteps = {host["name"]: host[f"vtep{underlay_family}"] for host in pair.client.items("/v1/hosts")}
    vnis = {network["vni"] for network in pair.client.items("/v1/networks")}
    mac = hardware_address(pair, "h2")
    me, victim = pair.station("a1"), pair.station("b1")
    stray, control = udp4(me, victim, os.urandom(16)), udp4(me, victim, os.urandom(16))
    with Capture(pair, "b1") as ear, pair.socket("underlay", socket.AF_PACKET, socket.SOCK_RAW) as wire:
        packet = vxlan(vteps["h1"], vteps["h2"], max(vnis) + 1, stray, ("02:00:00:00:00:99", mac))
        assert packet[VXLAN].vni not in vnis
        wire.sendto(bytes(packet), ("br0", 0))
        send(pair, "a1", [control])
        assert stray not in ear.until(lambda frame: frame == control, "the control packet")
