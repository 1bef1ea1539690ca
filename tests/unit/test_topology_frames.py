"""The frames that the check makes by hand, read back by scapy; and its lies, honest but for one thing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA, IPv6
from scapy.layers.l2 import ARP, Ether

from sdn.model.address import link_local
from topologies import frames
from topologies.frames import ANSWER, ASK, Ends, find_token, token
from topologies.lies import forged_frame
from topologies.plan import Interface
from topologies.values import Lie

NONCE = b"12345678"
MARK = token(NONCE, 77)
FOUR = Ends(source_mac="0a:00:00:00:00:01", target_mac="0a:00:00:00:00:02", source="10.1.0.1", target="10.1.0.2")
SIX = dataclasses.replace(FOUR, source="fd00::1", target="fd00::2")
A = Interface(
    ifname="eth0", network="n", mac=FOUR.source_mac, addresses=("10.1.0.1", "fd00::1"), gateways=("10.1.0.254",)
)
B = Interface(ifname="eth0", network="n", mac=FOUR.target_mac, addresses=("10.1.0.2", "fd00::2"), gateways=())


def rebuilt(raw: bytes, layer: Any) -> Any:
    """The layer with its checksum as scapy computes it."""
    packet = Ether(raw)
    for name in ("chksum", "cksum"):
        for each in (layer, IP):
            if each in packet and name in packet[each].fields:
                del packet[each].fields[name]
    return Ether(bytes(packet))


@pytest.mark.parametrize(
    ("raw", "layer"),
    [
        (frames.echo_frame(FOUR, 77, MARK), ICMP),
        (frames.echo_frame(SIX, 77, MARK), ICMPv6EchoRequest),
        (frames.udp_frame(FOUR, 5, 6, MARK), UDP),
        (frames.udp_frame(SIX, 5, 6, MARK), UDP),
        (frames.syn_frame(FOUR, 5, 6, 7, MARK), TCP),
        (frames.syn_frame(SIX, 5, 6, 7, MARK), TCP),
        (frames.advertisement_frame(SIX, "fd00::9", MARK), ICMPv6ND_NA),
        (frames.router_advertisement_frame(SIX, MARK), ICMPv6ND_RA),
        (frames.solicitation_frame(SIX, MARK), ICMPv6ND_NS),
    ],
)
def test_checksums_and_lengths_are_right(raw: bytes, layer: Any) -> None:
    packet = Ether(raw)
    assert layer in packet, packet.summary()
    assert packet.src == FOUR.source_mac
    again = rebuilt(raw, layer)
    for name in ("chksum", "cksum"):
        if name in packet[layer].fields:
            assert packet[layer].fields[name] == again[layer].fields[name]
    if IP in packet:
        assert packet[IP].chksum == again[IP].chksum
    assert find_token(raw, NONCE) == (77, ASK)


def test_arp_claims_what_it_is_told_to() -> None:
    packet = Ether(frames.arp_answer_frame(FOUR, "0a:00:00:00:00:01", "10.1.0.9", MARK))
    assert (packet[ARP].op, packet[ARP].psrc, packet[ARP].pdst) == (2, "10.1.0.9", "10.1.0.2")
    assert find_token(bytes(packet), NONCE) == (77, ASK)


def test_an_echo_answer_carries_the_question_and_counts_as_an_answer() -> None:
    for ends, question, answer in ((FOUR, 8, 0), (SIX, 128, 129)):
        raw = bytearray(frames.echo_frame(ends, 77, MARK))
        at = 34 if ends is FOUR else 54
        assert raw[at] == question
        raw[at] = answer
        assert find_token(bytes(raw), NONCE) == (77, ANSWER)


def test_foreign_tokens_are_not_ours() -> None:
    assert find_token(frames.udp_frame(FOUR, 1, 2, token(b"other..!", 77)), NONCE) is None
    assert find_token(MARK[:-1], NONCE) is None
    assert find_token(b"", NONCE) is None


@pytest.mark.parametrize("lie", list(Lie))
def test_each_lie_is_a_lie_and_carries_its_token(lie: Lie) -> None:
    raw = forged_frame(lie, A, B, MARK)
    assert raw is not None
    assert find_token(raw, NONCE) == (77, ASK)
    packet = Ether(raw)
    lies = {
        Lie.MAC: lambda: packet.src != A.mac and packet[IP].src == "10.1.0.1",
        Lie.IP4: lambda: packet.src == A.mac and packet[IP].src != "10.1.0.1",
        Lie.IP6: lambda: packet.src == A.mac and packet[IPv6].src != "fd00::1",
        Lie.ARP: lambda: packet[ARP].hwsrc == A.mac and packet[ARP].psrc not in ("10.1.0.1", "10.1.0.2"),
        Lie.ND: lambda: packet[ICMPv6ND_NA].tgt not in ("fd00::1", "fd00::2") and packet[IPv6].src == "fd00::1",
        Lie.ROUTER_ADVERT: lambda: ICMPv6ND_RA in packet and packet[IPv6].src == link_local(A.mac),
        Lie.DHCP_SERVER: lambda: (packet[UDP].sport, packet[UDP].dport) == (67, 68) and packet[IP].src == "10.1.0.1",
        Lie.MULTICAST: lambda: packet.dst == "ff:ff:ff:ff:ff:ff" and packet[IP].src == "10.1.0.1",
        Lie.DAD: lambda: packet[IPv6].src == "::" and ICMPv6ND_NS in packet,
        Lie.PROTOCOL: lambda: packet.type == frames.ETHERTYPE_LOCAL,
    }
    assert lies[lie]()


def test_a_lie_about_a_family_that_is_not_there_cannot_be_told() -> None:
    four_only = dataclasses.replace(A, addresses=("10.1.0.1",))
    assert forged_frame(Lie.IP6, four_only, B, MARK) is None
    assert forged_frame(Lie.ND, four_only, B, MARK) is None
    six_only = dataclasses.replace(A, addresses=("fd00::1",))
    assert forged_frame(Lie.ARP, six_only, B, MARK) is None
    assert forged_frame(Lie.MAC, six_only, B, MARK) is not None
