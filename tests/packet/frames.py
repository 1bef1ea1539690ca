"""Frames as a container could forge them, each with its honest twin; built by scapy, given as bytes.

A test sends `frame` and sees it die under its `cause`, and sends `twin` and sees it arrive (or, where the network
itself answers it, the answer): nothing here knows how the guard works.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from sdn.model.address import address_bytes, link_local, mac_bytes

BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
STRANGER_MAC = "0a:66:66:66:66:66"
STRANGER_IP4 = "10.66.66.66"
STRANGER_IP6 = "fd66::66"
ALL_NODES = "ff02::1"
_ARP_REPLY = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Station:
    """An endpoint as its neighbours know it."""

    mac: str
    ip4: str
    ip6: str

    @property
    def fe80(self) -> str:
        """Its link-local address."""
        return link_local(self.mac)


@dataclasses.dataclass(frozen=True, slots=True)
class Forgery:
    """`frame` must die under `cause`; `twin` must reach the victim, or (`answered`) be answered to the sender.

    `futile`: it may arrive where only a flow looks at it, for without the fragment before it, it comes to nothing.
    """

    name: str
    cause: str
    frame: bytes
    twin: bytes
    answered: bool = False
    futile: bool = False


def udp4(me: Station, to: Station, payload: bytes = b"hawse", *, sport: int = 4000, dport: int = 4001) -> bytes:
    """An honest IPv4 datagram."""
    return bytes(Ether(src=me.mac, dst=to.mac) / IP(src=me.ip4, dst=to.ip4) / UDP(sport=sport, dport=dport) / payload)


def udp6(me: Station, to: Station, payload: bytes = b"hawse", *, sport: int = 4000, dport: int = 4001) -> bytes:
    """An honest IPv6 datagram."""
    return bytes(Ether(src=me.mac, dst=to.mac) / IPv6(src=me.ip6, dst=to.ip6) / UDP(sport=sport, dport=dport) / payload)


def arp_request(me: Station, target: str) -> bytes:
    """An honest question for an IPv4 address."""
    return bytes(
        Ether(src=me.mac, dst=BROADCAST_MAC)
        / ARP(op=1, hwsrc=me.mac, psrc=me.ip4, hwdst="00:00:00:00:00:00", pdst=target)
    )


def solicitation(me: Station, target: str) -> bytes:
    """An honest question for an IPv6 address."""
    return bytes(_multicast_ns(me, target) / ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=me.mac))


def listener_report(me: Station) -> bytes:
    """An honest MLD report, as every kernel with an IPv6 address says it by itself."""
    return bytes(
        Ether(src=me.mac, dst="33:33:00:00:00:16")
        / IPv6(src=me.fe80, dst="ff02::16", hlim=1)
        / IPv6ExtHdrHopByHop(options=[RouterAlert()])
        / ICMPv6MLReport2()
    )


def is_answer(question: bytes, frame: bytes) -> bool:
    """Whether a frame answers the ARP request or neighbour solicitation."""
    asked, seen = Ether(question), Ether(frame)
    if ARP in asked:
        return ARP in seen and seen[ARP].op == _ARP_REPLY and seen[ARP].psrc == asked[ARP].pdst
    return ICMPv6ND_NA in seen and seen[ICMPv6ND_NA].tgt == asked[ICMPv6ND_NS].tgt


def forgeries(me: Station, victim: Station) -> list[Forgery]:
    """All classes of frames that `me` may not send in the victim's network."""
    return [
        *_addresses(me, victim),
        *_arp(me, victim),
        *_neighbour_discovery(me, victim),
        *_nd_in_disguise(me, victim),
        *_routers_and_dhcp(me, victim),
        *_multicast(me, victim),
        *_duplicate_checks(me, victim),
        *_protocols(me, victim),
    ]


def vxlan(outer_source: str, outer_destination: str, vni: int, inner: bytes, macs: tuple[str, str]) -> Any:
    """A tunnel packet as scapy's, from MAC `macs[0]` to `macs[1]`."""
    network = IPv6 if ":" in outer_source else IP
    return (
        Ether(src=macs[0], dst=macs[1])
        / network(src=outer_source, dst=outer_destination)
        / UDP(sport=50000, dport=4789)
        / VXLAN(vni=vni, flags="Instance")
        / Raw(inner)
    )


def _multicast_ns(me: Station, target: str) -> Any:
    low = address_bytes(target)[-3:]
    group = f"ff02::1:ff{low[0]:02x}:{low[1]:02x}{low[2]:02x}"
    return Ether(src=me.mac, dst="33:33:ff:" + low.hex(":")) / IPv6(src=me.ip6, dst=group, hlim=255)


def _addresses(me: Station, victim: Station) -> Iterator[Forgery]:
    twin4, twin6 = udp4(me, victim), udp6(me, victim)
    fe80 = dataclasses.replace(me, ip6=me.fe80)
    other = dataclasses.replace(me, mac=STRANGER_MAC)
    yield Forgery("foreign MAC, IPv4", "mac-spoof", udp4(other, victim), twin4)
    yield Forgery("foreign MAC, IPv6", "mac-spoof", udp6(other, victim), twin6)
    yield Forgery("the victim's own MAC", "mac-spoof", udp4(dataclasses.replace(me, mac=victim.mac), victim), twin4)
    yield Forgery("foreign MAC, unknown protocol", "mac-spoof", _ethernet(other, victim, 0x88B5), twin4)
    yield Forgery("foreign IPv4", "ip4-spoof", udp4(dataclasses.replace(me, ip4=STRANGER_IP4), victim), twin4)
    yield Forgery("the victim's IPv4", "ip4-spoof", udp4(dataclasses.replace(me, ip4=victim.ip4), victim), twin4)
    yield Forgery("unicast from 0.0.0.0", "ip4-spoof", udp4(dataclasses.replace(me, ip4="0.0.0.0"), victim), twin4)
    yield Forgery("foreign IPv6", "ip6-spoof", udp6(dataclasses.replace(me, ip6=STRANGER_IP6), victim), twin6)
    yield Forgery(
        "foreign link-local", "ip6-spoof", udp6(dataclasses.replace(me, ip6="fe80::66"), victim), udp6(fe80, victim)
    )
    yield Forgery("unicast from ::", "ip6-spoof", udp6(dataclasses.replace(me, ip6="::"), victim), twin6)


def _arp(me: Station, victim: Station) -> Iterator[Forgery]:
    def arp(eth_src: str, eth_dst: str, op: int, hwsrc: str, psrc: str, pdst: str) -> bytes:
        return bytes(Ether(src=eth_src, dst=eth_dst) / ARP(op=op, hwsrc=hwsrc, psrc=psrc, hwdst=victim.mac, pdst=pdst))

    question = arp_request(me, victim.ip4)
    answer = arp(me.mac, victim.mac, 2, me.mac, me.ip4, victim.ip4)
    yield Forgery(
        "ARP question from a foreign Ethernet source",
        "mac-spoof",
        arp(STRANGER_MAC, BROADCAST_MAC, 1, me.mac, me.ip4, victim.ip4),
        question,
        answered=True,
    )
    yield Forgery(
        "ARP question with a foreign sender MAC",
        "arp-spoof",
        arp(me.mac, BROADCAST_MAC, 1, STRANGER_MAC, me.ip4, victim.ip4),
        question,
        answered=True,
    )
    yield Forgery(
        "ARP question with a foreign sender address",
        "arp-spoof",
        arp(me.mac, BROADCAST_MAC, 1, me.mac, STRANGER_IP4, victim.ip4),
        question,
        answered=True,
    )
    yield Forgery(
        "ARP answer for a foreign address",
        "arp-spoof",
        arp(me.mac, victim.mac, 2, me.mac, STRANGER_IP4, victim.ip4),
        answer,
    )
    yield Forgery(
        "ARP answer with a foreign MAC",
        "arp-spoof",
        arp(me.mac, victim.mac, 2, STRANGER_MAC, me.ip4, victim.ip4),
        answer,
    )


def _neighbour_discovery(me: Station, victim: Station) -> Iterator[Forgery]:
    question = solicitation(me, victim.ip6)
    unicast = Ether(src=me.mac, dst=victim.mac) / IPv6(src=me.ip6, dst=victim.ip6, hlim=255)
    own = ICMPv6ND_NA(tgt=me.ip6, R=0, S=1, O=1)
    answer = bytes(unicast / own / ICMPv6NDOptDstLLAddr(lladdr=me.mac))
    ask = _multicast_ns(me, victim.ip6) / ICMPv6ND_NS(tgt=victim.ip6)
    source = ICMPv6NDOptSrcLLAddr(lladdr=me.mac)
    yield Forgery(
        "NA for a foreign address",
        "nd-spoof",
        bytes(unicast / ICMPv6ND_NA(tgt=STRANGER_IP6, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=me.mac)),
        answer,
    )
    yield Forgery(
        "NA with a foreign MAC", "nd-spoof", bytes(unicast / own / ICMPv6NDOptDstLLAddr(lladdr=STRANGER_MAC)), answer
    )
    yield Forgery(
        "NA without option for a foreign address",
        "nd-spoof",
        bytes(unicast / ICMPv6ND_NA(tgt=STRANGER_IP6, R=0, S=1, O=1)),
        bytes(unicast / own),
    )
    yield Forgery(
        "NA with two options",
        "nd-spoof",
        bytes(unicast / own / ICMPv6NDOptDstLLAddr(lladdr=me.mac) / ICMPv6NDOptDstLLAddr(lladdr=STRANGER_MAC)),
        answer,
    )
    yield Forgery(
        "NS with a foreign MAC",
        "nd-spoof",
        bytes(ask / ICMPv6NDOptSrcLLAddr(lladdr=STRANGER_MAC)),
        question,
        answered=True,
    )
    yield Forgery(
        "NS with two options",
        "nd-spoof",
        bytes(ask / source / ICMPv6NDOptSrcLLAddr(lladdr=STRANGER_MAC)),
        question,
        answered=True,
    )
    yield Forgery(
        "NS with an option of another kind",
        "nd-spoof",
        bytes(ask / ICMPv6NDOptDstLLAddr(lladdr=me.mac)),
        bytes(ask),
        answered=True,
    )


def _nd_in_disguise(me: Station, victim: Station) -> Iterator[Forgery]:
    ethernet = Ether(src=me.mac, dst=victim.mac)
    network = IPv6(src=me.ip6, dst=victim.ip6, hlim=255)
    lie = ICMPv6ND_NA(tgt=STRANGER_IP6, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=me.mac)
    echo = ICMPv6EchoRequest(id=7, data=b"hawse")
    for name, header in (
        ("a hop-by-hop header", IPv6ExtHdrHopByHop()),
        ("a destination header", IPv6ExtHdrDestOpt()),
        ("a fragment header", IPv6ExtHdrFragment(offset=0, m=0, id=7)),
    ):
        yield Forgery(
            f"NA behind {name}",
            "nd-spoof",
            bytes(ethernet / network / header / lie),
            bytes(ethernet / network / header / echo),
        )
    # The option that makes it look checked lies behind the end of the packet.
    option = bytes(ICMPv6NDOptDstLLAddr(lladdr=me.mac))
    own = ethernet / network / IPv6ExtHdrDestOpt() / ICMPv6ND_NA(tgt=me.ip6, R=0, S=1, O=1)
    yield Forgery("NA behind a header, padded", "nd-spoof", bytes(own) + option, udp6(me, victim))
    ask = ethernet / network / IPv6ExtHdrDestOpt() / ICMPv6ND_NS(tgt=victim.ip6)
    option = bytes(ICMPv6NDOptSrcLLAddr(lladdr=me.mac))
    yield Forgery("NS behind a header, padded", "nd-spoof", bytes(ask) + option, udp6(me, victim))
    # The first fragment holds a header and no more; the ICMPv6 or UDP behind it comes in the next (RFC 7112).
    for name, protocol in (("ICMPv6", 58), ("UDP", 17)):
        first = IPv6ExtHdrFragment(nh=60, offset=0, m=1, id=8) / Raw(bytes(IPv6ExtHdrDestOpt(nh=protocol)))
        later = IPv6ExtHdrFragment(nh=60, offset=1, m=0, id=8) / Raw(bytes(lie)[:24])
        twin = udp6(me, victim)
        padded = bytes(ethernet / network / first) + bytes([128, 0, 0, 0, 0, 0, 0, 0])  # looks like an echo request
        yield Forgery(f"a first fragment that hides its {name}", "protocol", bytes(ethernet / network / first), twin)
        yield Forgery(f"a first fragment with padding for its {name}", "protocol", padded, twin)
        whole = bytes(ethernet / network / later)
        yield Forgery(f"a later fragment of hidden {name}", "protocol", whole, twin, futile=True)


def _routers_and_dhcp(me: Station, victim: Station) -> Iterator[Forgery]:
    to_all = Ether(src=me.mac, dst="33:33:00:00:00:01") / IPv6(src=me.fe80, dst=ALL_NODES, hlim=255)
    unicast = Ether(src=me.mac, dst=victim.mac) / IPv6(src=me.fe80, dst=victim.ip6, hlim=255)
    advert = ICMPv6ND_RA() / ICMPv6NDOptPrefixInfo(prefix="fd66::", prefixlen=64)
    echo = bytes(unicast / ICMPv6EchoRequest(id=8, data=b"hawse"))
    yield Forgery("RA to all nodes", "router-advert", bytes(to_all / advert), echo)
    yield Forgery("RA to the victim", "router-advert", bytes(unicast / advert), echo)
    yield Forgery("RA behind a header", "router-advert", bytes(unicast / IPv6ExtHdrDestOpt() / advert), echo)
    redirect = ICMPv6ND_Redirect(tgt=me.fe80, dst=STRANGER_IP6)
    yield Forgery("redirect", "router-advert", bytes(unicast / redirect), echo)
    offer = BOOTP(op=2, chaddr=mac_bytes(victim.mac), yiaddr=STRANGER_IP4) / DHCP(
        options=[("message-type", "offer"), "end"]
    )
    yield Forgery(
        "DHCP offer",
        "dhcp-server",
        bytes(Ether(src=me.mac, dst=victim.mac) / IP(src=me.ip4, dst=victim.ip4) / UDP(sport=67, dport=68) / offer),
        udp4(me, victim, sport=67, dport=4001),
    )
    yield Forgery(
        "DHCP offer to all",
        "dhcp-server",
        bytes(
            Ether(src=me.mac, dst=BROADCAST_MAC)
            / IP(src=me.ip4, dst="255.255.255.255")
            / UDP(sport=67, dport=68)
            / offer
        ),
        udp4(me, victim, sport=67, dport=4001),
    )
    yield Forgery(
        "DHCPv6 advertise",
        "dhcp-server",
        bytes(unicast / UDP(sport=547, dport=546) / DHCP6_Advertise(trid=1)),
        udp6(me, victim, sport=547, dport=4001),
    )


def _multicast(me: Station, victim: Station) -> Iterator[Forgery]:
    twin4, twin6 = udp4(me, victim, sport=5353, dport=5353), udp6(me, victim, sport=5353, dport=5353)
    dns = UDP(sport=5353, dport=5353) / Raw(b"mdns")

    def to_group(mac: str, group: str, source: str) -> Any:
        return Ether(src=me.mac, dst=mac) / IPv6(src=source, dst=group, hlim=255)

    discover = BOOTP(chaddr=mac_bytes(me.mac)) / DHCP(options=[("message-type", "discover"), "end"])
    to_everyone = Ether(src=me.mac, dst=BROADCAST_MAC)
    cases: list[tuple[str, Any, bytes]] = [
        ("IPv4 broadcast", to_everyone / IP(src=me.ip4, dst="255.255.255.255") / dns, twin4),
        (
            "DHCP discover",
            to_everyone / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / discover,
            twin4,
        ),
        (
            "a later fragment to all that looks like a DHCP answer",
            to_everyone
            / IP(src=me.ip4, dst="255.255.255.255", proto=17, frag=5, id=3)
            / Raw(bytes([0, 67, 0, 68] * 6)),
            twin4,
        ),
        ("mDNS, IPv4", Ether(src=me.mac, dst="01:00:5e:00:00:fb") / IP(src=me.ip4, dst="224.0.0.251") / dns, twin4),
        ("mDNS, IPv6", to_group("33:33:00:00:00:fb", "ff02::fb", me.fe80) / dns, twin6),
        ("router solicitation", to_group("33:33:00:00:00:02", "ff02::2", me.fe80) / ICMPv6ND_RS(), twin6),
        ("MLD report", to_group("33:33:00:00:00:16", "ff02::16", me.fe80) / ICMPv6MLReport2(), twin6),
        ("MLD report from ::", to_group("33:33:00:00:00:16", "ff02::16", "::") / ICMPv6MLReport2(), twin6),
        (
            "unasked NA to all",
            to_group("33:33:00:00:00:01", ALL_NODES, me.ip6) / ICMPv6ND_NA(tgt=me.ip6, S=0, O=1),
            twin6,
        ),
        (
            "broadcast ARP answer",
            to_everyone / ARP(op=2, hwsrc=me.mac, psrc=me.ip4, hwdst=victim.mac, pdst=victim.ip4),
            twin4,
        ),
    ]
    for name, packet, twin in cases:
        yield Forgery(name, "multicast", bytes(packet), twin)


def _duplicate_checks(me: Station, victim: Station) -> Iterator[Forgery]:
    arp, nd = arp_request(me, victim.ip4), solicitation(me, victim.ip6)
    unspecified = dataclasses.replace(me, ip6="::")
    to_all = Ether(src=me.mac, dst=BROADCAST_MAC)
    for name, target in (("its own", me.ip6), ("the victim's", victim.ip6)):
        packet = _multicast_ns(unspecified, target) / ICMPv6ND_NS(tgt=target)
        yield Forgery(f"duplicate check of {name} address", "dad", bytes(packet), nd, answered=True)
    for name, address in (("its own", me.ip4), ("the victim's", victim.ip4)):
        probe = to_all / ARP(op=1, hwsrc=me.mac, psrc="0.0.0.0", pdst=address)
        yield Forgery(f"ARP probe of {name} address", "dad", bytes(probe), arp, answered=True)
    for name, op in (("question", 1), ("answer", 2)):
        announcement = to_all / ARP(op=op, hwsrc=me.mac, psrc=me.ip4, pdst=me.ip4)
        yield Forgery(f"gratuitous ARP {name}", "dad", bytes(announcement), arp, answered=True)
    yield Forgery(
        "NS for its own address", "dad", solicitation(dataclasses.replace(me, ip6=me.fe80), me.ip6), nd, answered=True
    )


def _protocols(me: Station, victim: Station) -> Iterator[Forgery]:
    twin = udp4(me, victim)
    tagged = Ether(src=me.mac, dst=victim.mac) / Dot1Q(vlan=7) / IP(src=me.ip4, dst=victim.ip4) / UDP() / Raw(b"x")
    long6 = Ether(src=me.mac, dst=victim.mac) / IPv6(src=me.ip6, dst=victim.ip6, plen=2000, nh=58) / Raw(bytes(32))
    long4 = Ether(src=me.mac, dst=victim.mac) / IP(src=me.ip4, dst=victim.ip4, len=2000, proto=17) / Raw(bytes(32))
    reverse = Ether(src=me.mac, dst=BROADCAST_MAC) / ARP(op=3, hwsrc=me.mac, psrc=me.ip4, pdst=victim.ip4)
    odd = Ether(src=me.mac, dst=BROADCAST_MAC) / ARP(hwtype=6, op=1, hwsrc=me.mac, psrc=me.ip4, pdst=victim.ip4)
    yield Forgery("an experimental ethertype", "protocol", _ethernet(me, victim, 0x88B5), twin)
    yield Forgery("a frame of 802.3 length", "protocol", _ethernet(me, victim, 46), twin)
    yield Forgery("an 802.1Q tag", "protocol", bytes(tagged), twin)
    yield Forgery("IPv6 longer than its frame", "protocol", bytes(long6), udp6(me, victim))
    yield Forgery("IPv4 longer than its frame", "protocol", bytes(long4), twin)
    yield Forgery("reverse ARP", "protocol", bytes(reverse), arp_request(me, victim.ip4), answered=True)
    yield Forgery("ARP of another hardware", "protocol", bytes(odd), arp_request(me, victim.ip4), answered=True)


def _ethernet(me: Station, to: Station, kind: int) -> bytes:
    return bytes(Ether(src=me.mac, dst=to.mac, type=kind) / Raw(bytes(46)))
