"""What is on the underlay: VXLAN as it should be, and never a question, a broadcast or a frame for nobody."""

from __future__ import annotations

import dataclasses
import os
import socket
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6MLReport2, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6ND_RS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN

from sdn.client.client import resource
from tests.packet.frames import (
    STRANGER_IP4,
    STRANGER_IP6,
    STRANGER_MAC,
    Station,
    arp_request,
    forgeries,
    is_answer,
    solicitation,
    udp4,
    udp6,
)
from tests.packet.lab import Lab
from tests.packet.talk import ETH_P_ALL, Capture, outer_of, ping

pytestmark = pytest.mark.root

VXLAN_PORT = 4789
NETWORK_VALID = 0x08
"""The only flag that is set: RFC 7348, section 5."""
QUESTIONS = (ARP, ICMPv6ND_NS, ICMPv6ND_NA, ICMPv6ND_RS, ICMPv6ND_RA, ICMPv6MLReport2)


def forbidden(packet: Any, known: set[str]) -> bool:
    """Whether a tunnel packet carries what no tunnel may carry."""
    inner = packet[VXLAN].payload
    multicast = bool(int(inner.dst[:2], 16) & 1)
    return multicast or inner.dst not in known or inner.src not in known or any(kind in inner for kind in QUESTIONS)


def send(lab: Lab, place: str, frames: list[bytes]) -> None:
    """Put frames on a container's interface, as they are."""
    with lab.socket(place, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as wire:
        for frame in frames:
            wire.sendto(frame, ("eth0", 0))


def macs(lab: Lab) -> set[str]:
    """Of all endpoints."""
    return {endpoint["mac"] for endpoint in lab.endpoints()}


def test_a_tunnel_packet_is_what_the_standard_says(pair: Lab, underlay_family: int) -> None:
    vni = pair.client.get(resource("networks", "blue/web")).body["vni"]
    hosts = {host["name"]: host[f"vtep{underlay_family}"] for host in pair.client.items("/v1/hosts")}
    here, there = pair.station("a1"), pair.station("b1")
    frames = [udp4(here, there, os.urandom(64)), udp6(here, there, os.urandom(64))]
    with Capture(pair, "underlay") as wire, Capture(pair, "b1") as ear:
        send(pair, "a1", frames)
        for frame in frames:
            ear.until(lambda seen, frame=frame: seen == frame, "the frame at its receiver")  # type: ignore[misc]
        found = [p for p in wire.tunnel_packets() if bytes(p[VXLAN].payload) in frames]
    # Each once; a switch keeps the order within a flow only.
    assert sorted(bytes(packet[VXLAN].payload) for packet in found) == sorted(frames)
    for packet in found:
        outer, header = outer_of(packet), packet[VXLAN]
        assert type(outer) is (IP if underlay_family == 4 else IPv6)
        assert (outer.src, outer.dst) == (hosts["h1"], hosts["h2"])
        assert packet[UDP].dport == VXLAN_PORT
        assert (int(header.flags), header.vni) == (NETWORK_VALID, vni)
        assert bytes(header)[1:4] + bytes(header)[7:8] == bytes(4)  # reserved


def probes(me: Station, others: list[Station]) -> list[bytes]:
    """All that a container could say to find out, or to be heard by everybody, with its own true addresses."""
    nobody = Station(STRANGER_MAC, "10.1.0.200", "fd00:1::200")
    found: list[bytes] = []
    for other in [*others, me, nobody]:
        found += [arp_request(me, other.ip4), solicitation(me, other.ip6)]
        found.append(solicitation(dataclasses.replace(me, ip6=me.fe80), other.fe80))
        # Asked of the owner directly, as a kernel does to see whether a neighbour is still there.
        found.append(bytes(Ether(src=me.mac, dst=other.mac) / Ether(arp_request(me, other.ip4)).payload))
        found.append(
            bytes(Ether(src=me.mac, dst=other.mac) / IPv6(src=me.ip6, dst=other.ip6) / ICMPv6ND_NS(tgt=other.ip6))
        )
    found += [arp_request(me, STRANGER_IP4), solicitation(me, STRANGER_IP6)]
    found += [udp4(me, nobody), udp6(me, nobody)]  # unknown unicast
    for other in others:
        found += [forgery.frame for forgery in forgeries(me, other)]
    return found


def test_no_probe_of_a_container_ever_leaves_its_host(pair: Lab) -> None:
    me, near, far = pair.station("a1"), pair.station("a2"), pair.station("b1")
    known = macs(pair)
    control = udp4(me, far, os.urandom(16))
    with Capture(pair, "underlay") as wire, Capture(pair, "b1") as ear:
        send(pair, "a1", probes(me, [near, far]))
        send(pair, "a1", [control])
        ear.until(lambda frame: frame == control, "the control packet")
        tunnelled = wire.tunnel_packets()
        heard = [Ether(frame) for frame in ear.frames()]
    assert any(bytes(packet[VXLAN].payload) == control for packet in tunnelled)
    assert [packet.summary() for packet in tunnelled if forbidden(packet, known)] == []
    assert [packet.summary() for packet in heard if any(kind in packet for kind in QUESTIONS)] == []


def test_kernels_that_know_nobody_find_everybody_and_ask_nobody_on_the_underlay(pair: Lab) -> None:
    known, web = macs(pair), ["a1", "a2", "b1", "b2"]
    for place in web:
        pair.run(place, "ip", "neigh", "flush", "all")
    with Capture(pair, "underlay") as wire:
        for sender in web:
            for receiver in web:
                for family in (4, 6):
                    if sender != receiver:
                        assert ping(pair, sender, pair.address(receiver, family))
            assert not ping(pair, sender, "10.1.0.200", wait_s=0.2)
            assert not ping(pair, sender, "fd00:1::200", wait_s=0.2)
        tunnelled = wire.tunnel_packets()
    assert len(tunnelled) >= 2 * 2 * 8
    assert [packet.summary() for packet in tunnelled if forbidden(packet, known)] == []


@pytest.mark.parametrize("target", ["a2", "b1"], ids=["same-host", "cross-host"])
def test_questions_are_answered_on_the_spot(pair: Lab, target: str) -> None:
    me, other = pair.station("a1"), pair.station(target)
    for question in (arp_request(me, other.ip4), solicitation(me, other.ip6)):
        with Capture(pair, "a1") as ear:
            send(pair, "a1", [question])
            answer = ear.until(lambda frame, asked=question: is_answer(asked, frame), "an answer")[-1]  # type: ignore[misc]
        assert Ether(answer).src == other.mac
