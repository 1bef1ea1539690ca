"""Seeded networks of two hosts, and seeded frames of their containers, honest and not: for datapaths to agree about.

Of one seed always the same. Frames are unlike each other to the byte: whoever hears one tells which it was.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable
from typing import Any

import msgspec
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from sdn.model.address import format_address, link_local, parse_prefix
from sdn.model.ids import HostId
from sdn.model.resources import Endpoint, Network, Subnet
from sdn.reconcile.reach import address_of
from sdn.reconcile.state import State
from sdn.reconcile.unit import Here
from tests.conformance.frame_oracle import IPV6, gateway_mac
from tests.packet.frames import (
    BROADCAST_MAC,
    STRANGER_MAC,
    Forgery,
    Station,
    arp_request,
    forgeries,
    solicitation,
    udp4,
    udp6,
    vxlan,
)
from tests.states.states import BLUE, RED, endpoint, host, member, network

MTU_BYTES = 1430
"""What an underlay of either family carries."""
FRAME_BYTES_MIN = 60
HOSTS = (1, 2)
PREFIXES = {4: ("10.1.0.0/24", "10.2.0.0/24"), 6: ("fd00:1::/64", "fd00:2::/64")}
ETHERTYPES = (0x88B5, 0x8847, 0x8863, 0x8864, 0x0842, 0x9000, 0x22F0, 0x6558, 0x0600, 0x05FF, 0x0100, 46)
GROUPS4 = ("224.0.0.251", "224.0.0.1", "239.1.2.3", "255.255.255.255", "10.1.0.255")
GROUPS6 = ("ff02::1", "ff02::2", "ff02::fb", "ff02::16", "ff0e::1:2")


def random_state(seed: int) -> State:
    """Two networks of blue and one of red with the same addresses, and MACs that recur, as host 1 sees them."""
    chance = random.Random(seed)
    four, six = chance.choice([(True, False), (False, True), (True, True)])
    members = [member(number, four=four, six=six) for number in HOSTS]
    families: list[list[int]] = [chance.choice([[4], [6], [4, 6], [4, 6]]) for _ in range(3)]
    networks = [_network(seed, number, families[number], which=number % 2, red=number == 2) for number in range(3)]
    endpoints: list[Endpoint] = []
    for number in range(4):  # so that either host has a neighbour here, and one there
        endpoints.append(_endpoint(chance, seed, len(endpoints), number % 2 + 1, networks[0], number + 2))
    endpoints.append(_endpoint(chance, seed, 4, chance.choice(HOSTS), networks[1], chance.choice([2, 9])))
    for number in (0, 3):  # twins of blue's, as far as red has the families
        twin = endpoints[number]
        endpoints.append(
            _endpoint(chance, seed, len(endpoints), chance.choice(HOSTS), networks[2], number + 2, twin.mac)
        )
    here = Here(host(1), members[0].vtep4, members[0].vtep6)
    all_members = tuple((net.id, one) for net in networks for one in members)
    return State(f"seed-{seed}", here, (BLUE, RED), tuple(networks), all_members, tuple(endpoints))


def _network(seed: int, number: int, families: list[int], *, which: int, red: bool) -> Network:
    prefixes = [parse_prefix(PREFIXES[family][which]) for family in families]
    subnets = [Subnet(prefix=str(p), gateway=format_address(p.family, p.first + 1)) for p in prefixes]
    return network(seed % 1000 * 10 + number, RED if red else BLUE, *subnets, mtu_bytes=MTU_BYTES)


def _endpoint(
    chance: random.Random, seed: int, slot: int, on: int, where: Network, last: int, mac: str = ""
) -> Endpoint:
    """In slot `slot`: the same container whatever the seed."""
    prefixes = [parse_prefix(subnet.prefix) for subnet in where.subnets]
    addresses = [f"{format_address(p.family, p.first + last)}/{p.length}" for p in prefixes]
    chosen = mac or chance.choice(["", f"0a:{chance.randrange(256):02x}:00:00:00:{last:02x}"])
    made = endpoint(seed % 1000 * 10 + slot, on, where, *addresses, mac=chosen)
    return msgspec.structs.replace(made, sandbox=1000 + slot, container=f"slot{slot}")


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """A frame, who sends it, and what it is, for people."""

    sender: Endpoint
    frame: bytes
    what: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Scene:
    """Who could be meant by a frame: the sender, somebody of its network, somebody of another, the gateway, nobody."""

    chance: random.Random
    sender: Endpoint
    me: Station
    peer: Station
    stranger: Station
    gateway: Station
    other_gateway: Station
    nobody: Station

    def someone(self) -> Station:
        """Anybody whom a frame could be for."""
        return self.chance.choice([self.peer, self.peer, self.peer, self.stranger, self.gateway, self.nobody, self.me])

    def payload(self) -> bytes:
        """Of any size that fits."""
        return self.chance.randbytes(self.chance.choice([0, 1, 18, 64, 500]))


def station(which: Endpoint) -> Station:
    """An endpoint as its neighbours know it; of a family that it has not, an address that is nobody's."""
    plain = [address_of(text) for text in which.addresses]
    four = next((text for text in plain if ":" not in text), "10.1.0.222")
    six = next((text for text in plain if ":" in text), "fd00:1::222")
    return Station(which.mac, four, six)


def random_frames(state: State, seed: int, count: int) -> list[Sent]:
    """What containers of the state say."""
    chance = random.Random(f"frames of {seed}")
    sent: list[Sent] = []
    while len(sent) < count:
        sender = chance.choice(state.endpoints)
        scene = _scene(chance, state, sender)
        name = chance.choice(list(KINDS))
        sent.append(Sent(sender, _unlike(chance, KINDS[name](scene)), name))
    return sent


def _unlike(chance: random.Random, frame: bytes) -> bytes:
    """The frame, told apart from its equals: by its flow label, else by padding.

    Padding behind a solicitation the kernel's proxy takes for options, and answers nothing.
    """
    if int.from_bytes(frame[12:14], "big") == IPV6 and len(frame) >= FRAME_BYTES_MIN:
        label = chance.randrange(1 << 20)
        return frame[:15] + bytes([frame[15] & 0xF0 | label >> 16]) + (label & 0xFFFF).to_bytes(2, "big") + frame[18:]
    return frame.ljust(FRAME_BYTES_MIN, b"\0") + chance.randbytes(8)


def _scene(chance: random.Random, state: State, sender: Endpoint) -> _Scene:
    own = next(net for net in state.networks if net.id == sender.network)
    other = chance.choice([net for net in state.networks if net.id != sender.network])
    peers = [one for one in state.endpoints if one.network == sender.network and one.id != sender.id]
    strangers = [one for one in state.endpoints if one.network != sender.network]
    return _Scene(
        chance, sender, station(sender), station(chance.choice(peers or strangers)), station(chance.choice(strangers)),
        _gateway(own), _gateway(other), Station("0a:66:00:00:00:66", "10.1.0.66", "fd00:1::66"),
    )  # fmt: skip


def _gateway(of: Network) -> Station:
    gateways = [subnet.gateway for subnet in of.subnets]
    four = next((text for text in gateways if ":" not in text), "10.1.0.1")
    six = next((text for text in gateways if ":" in text), "fd00:1::1")
    return Station(gateway_mac(of), four, six)


# What is said -------------------------------------------------------------------------------------------------------


def _unicast(scene: _Scene, to: Station) -> Any:
    return Ether(src=scene.me.mac, dst=to.mac)


def _no_gateway(scene: _Scene) -> Station:
    """Somebody who takes in whatever comes: the gateway's own answers are asked for by name."""
    return scene.chance.choice([scene.peer, scene.peer, scene.stranger, scene.nobody])


def _datagram4(scene: _Scene) -> bytes:
    return udp4(scene.me, _no_gateway(scene), scene.payload(), dport=scene.chance.choice([53, 67, 68, 4001]))


def _datagram6(scene: _Scene) -> bytes:
    me = dataclasses.replace(scene.me, ip6=scene.chance.choice([scene.me.ip6, scene.me.fe80]))
    return udp6(me, _no_gateway(scene), scene.payload(), dport=scene.chance.choice([53, 546, 547, 4001]))


def _syn(scene: _Scene) -> bytes:
    to = _no_gateway(scene)
    layer = scene.chance.choice([IP(src=scene.me.ip4, dst=to.ip4), IPv6(src=scene.me.ip6, dst=to.ip6)])
    return bytes(_unicast(scene, to) / layer / TCP(dport=80, flags="S"))


def _strange_destination(scene: _Scene) -> bytes:
    """The right MAC, and an address that is another's: a network is switched, not routed."""
    return udp4(scene.me, dataclasses.replace(scene.peer, ip4="10.99.0.1"), scene.payload())


def _gateway_echo(scene: _Scene) -> bytes:
    number, data = scene.chance.randrange(65536), scene.chance.randbytes(24)
    if scene.chance.random() < 0.5:
        echo: Any = IP(src=scene.me.ip4, dst=scene.gateway.ip4) / ICMP(id=number) / data
    else:
        echo = IPv6(src=scene.me.ip6, dst=scene.gateway.ip6) / ICMPv6EchoRequest(id=number, data=data)
    return bytes(_unicast(scene, scene.gateway) / echo)


def _through_gateway(scene: _Scene) -> bytes:
    """To the gateway's MAC, for somebody else: beyond, in the network, or another network's gateway.

    What is for the gateway itself and no ping, the kernel's own would refuse by ICMP or TCP, and a flow cannot.
    """
    to = scene.chance.choice(
        [scene.other_gateway, scene.peer, scene.stranger, Station("", "192.0.2.77", "2001:db8::77")]
    )
    if to in (scene.other_gateway, scene.stranger) and {to.ip4, to.ip6} & {scene.gateway.ip4, scene.gateway.ip6}:
        to = scene.peer
    to = dataclasses.replace(to, mac=scene.gateway.mac)
    return scene.chance.choice([udp4, udp6])(scene.me, to, scene.payload())


def _arp_question(scene: _Scene) -> bytes:
    return arp_request(scene.me, scene.chance.choice([scene.someone().ip4, scene.gateway.ip4, "10.1.0.77"]))


def _arp_of_one(scene: _Scene) -> bytes:
    """A question to the very station that it is for, as kernels ask who were answered before."""
    to = scene.chance.choice([scene.peer, scene.peer, scene.gateway, scene.nobody])
    return bytes(_unicast(scene, to) / ARP(op=1, hwsrc=scene.me.mac, psrc=scene.me.ip4, hwdst=to.mac, pdst=to.ip4))


def _arp_answer(scene: _Scene) -> bytes:
    to = scene.someone()
    claimed = scene.chance.choice([scene.me.ip4, scene.me.ip4, scene.peer.ip4])
    return bytes(_unicast(scene, to) / ARP(op=2, hwsrc=scene.me.mac, psrc=claimed, hwdst=to.mac, pdst=to.ip4))


def _gratuitous(scene: _Scene) -> bytes:
    claimed = scene.chance.choice([scene.me.ip4, scene.me.ip4, scene.peer.ip4, "0.0.0.0"])
    claim = ARP(op=scene.chance.choice([1, 2]), hwsrc=scene.me.mac, psrc=claimed, pdst=claimed)
    return bytes(Ether(src=scene.me.mac, dst=BROADCAST_MAC) / claim)


def _nd_question(scene: _Scene) -> bytes:
    me = dataclasses.replace(scene.me, ip6=scene.chance.choice([scene.me.ip6, scene.me.fe80]))
    target = scene.someone()
    asked = scene.chance.choice([target.ip6, target.ip6, scene.gateway.ip6, link_local(scene.peer.mac), "fd00:1::77"])
    # Without the option: an answer goes to whoever asked; of the gateway only where it knows the asker (RFC 4861, 4.3).
    if scene.chance.random() < 0.3 and asked != scene.gateway.ip6:
        head = Ether(solicitation(me, asked))
        return bytes(
            Ether(src=head.src, dst=head.dst) / IPv6(src=me.ip6, dst=head[IPv6].dst, hlim=255) / ICMPv6ND_NS(tgt=asked)
        )
    return solicitation(me, asked)


def _nd_of_one(scene: _Scene) -> bytes:
    to = scene.chance.choice([scene.peer, scene.peer, scene.gateway, scene.nobody])
    packet = IPv6(src=scene.me.ip6, dst=to.ip6, hlim=255) / ICMPv6ND_NS(tgt=to.ip6)
    return bytes(_unicast(scene, to) / packet / ICMPv6NDOptSrcLLAddr(lladdr=scene.me.mac))


def _nd_answer(scene: _Scene) -> bytes:
    to = scene.chance.choice([scene.peer, scene.stranger, scene.nobody])
    claimed = scene.chance.choice([scene.me.ip6, scene.me.ip6, scene.peer.ip6])
    packet = IPv6(src=scene.me.ip6, dst=to.ip6, hlim=255) / ICMPv6ND_NA(tgt=claimed, R=0, S=1, O=1)
    return bytes(_unicast(scene, to) / packet / ICMPv6NDOptDstLLAddr(lladdr=scene.me.mac))


@functools.lru_cache(maxsize=64)  # building all of them takes long
def _forgeries(me: Station, victim: Station) -> list[Forgery]:
    return [one for one in forgeries(me, victim) if not one.futile]


def _forgery(scene: _Scene) -> bytes:
    return scene.chance.choice(_forgeries(scene.me, scene.peer)).frame


def _honest_twin(scene: _Scene) -> bytes:
    return scene.chance.choice(_forgeries(scene.me, scene.peer)).twin


def _tagged(scene: _Scene) -> bytes:
    tag = scene.chance.choice([Dot1Q, Dot1AD])(
        vlan=scene.chance.choice([0, 1, 7, 4095]), prio=scene.chance.randrange(8)
    )
    if scene.chance.random() < 0.3:
        tag = tag / Dot1Q(vlan=3)
    inner: Any = IP(src=scene.me.ip4, dst=scene.peer.ip4) / UDP() / Raw(b"tagged")
    if scene.chance.random() < 0.3:
        inner = ARP(op=1, hwsrc=scene.me.mac, psrc=scene.me.ip4, pdst=scene.peer.ip4)
    return bytes(_unicast(scene, scene.peer) / tag / inner)


def _ethertype(scene: _Scene) -> bytes:
    target = scene.chance.choice([scene.peer.mac, scene.gateway.mac, BROADCAST_MAC, "33:33:00:00:00:01"])
    kind = scene.chance.choice(ETHERTYPES)
    return bytes(Ether(src=scene.me.mac, dst=target, type=kind) / Raw(scene.chance.randbytes(46)))


def _to_all4(scene: _Scene) -> bytes:
    mac = scene.chance.choice([BROADCAST_MAC, "01:00:5e:00:00:fb", "01:00:5e:01:02:03"])
    source = scene.chance.choice([scene.me.ip4, scene.me.ip4, "0.0.0.0", scene.peer.ip4])
    packet = IP(src=source, dst=scene.chance.choice(GROUPS4)) / UDP(sport=68, dport=scene.chance.choice([67, 68, 5353]))
    return bytes(Ether(src=scene.me.mac, dst=mac) / packet / scene.payload())


def _to_all6(scene: _Scene) -> bytes:
    source = scene.chance.choice([scene.me.ip6, scene.me.fe80, "::", scene.peer.ip6])
    packet = IPv6(src=source, dst=scene.chance.choice(GROUPS6)) / UDP(sport=546, dport=scene.chance.choice([547, 5353]))
    return bytes(Ether(src=scene.me.mac, dst="33:33:00:00:00:fb") / packet / scene.payload())


def _fragment4(scene: _Scene) -> bytes:
    offset, more = scene.chance.choice([(0, "MF"), (3, "MF"), (5, 0), (185, 0)])
    packet = IP(
        src=scene.me.ip4, dst=scene.peer.ip4, proto=17, frag=offset, flags=more, id=scene.chance.randrange(65536)
    )
    body = scene.chance.choice([bytes([0, 67, 0, 68, 0, 32, 0, 0]), bytes([9, 9, 9, 9, 0, 32, 0, 0])]) + bytes(24)
    return bytes(
        Ether(src=scene.me.mac, dst=scene.chance.choice([scene.peer.mac, scene.peer.mac, BROADCAST_MAC]))
        / packet
        / body
    )


def _options4(scene: _Scene) -> bytes:
    packet = IP(src=scene.me.ip4, dst=scene.peer.ip4, options=[IPOption_Router_Alert()])
    return bytes(_unicast(scene, scene.peer) / packet / UDP(dport=scene.chance.choice([68, 4001])) / scene.payload())


def _extended6(scene: _Scene) -> bytes:
    """IPv6 behind headers, in fragments, and what is hidden there."""
    packet: Any = IPv6(
        src=scene.chance.choice([scene.me.ip6, scene.me.ip6, scene.peer.ip6]), dst=scene.peer.ip6, hlim=255
    )
    for _ in range(scene.chance.randrange(1, 3)):
        packet = packet / scene.chance.choice([IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt, IPv6ExtHdrRouting])()
    upper: Any = scene.chance.choice(
        [
            UDP(dport=4001) / Raw(b"extended"),
            UDP(dport=546) / Raw(b"extended"),
            TCP(dport=80, flags="S"),
            ICMPv6EchoRequest(data=b"extended"),
            ICMPv6ND_NS(tgt=scene.peer.ip6),
            ICMPv6ND_NA(tgt=scene.me.ip6),
            ICMPv6ND_RA(),
        ]
    )
    if scene.chance.random() < 0.4:
        first = scene.chance.random() < 0.6
        offset, more = (0, scene.chance.randrange(2)) if first else (9, 0)
        packet = packet / IPv6ExtHdrFragment(offset=offset, m=more, id=scene.chance.randrange(1 << 32))
    return bytes(_unicast(scene, scene.peer) / packet / upper)


def _foreign_mac(scene: _Scene) -> bytes:
    lie = scene.chance.choice([STRANGER_MAC, scene.peer.mac, scene.gateway.mac, scene.stranger.mac])
    me = dataclasses.replace(scene.me, mac=lie)
    return scene.chance.choice([udp4, udp6])(me, scene.peer, scene.payload())


def _foreign_address(scene: _Scene) -> bytes:
    lie = scene.chance.choice([scene.peer, scene.gateway, scene.other_gateway, scene.nobody])
    me = dataclasses.replace(scene.me, ip4=lie.ip4, ip6=scene.chance.choice([lie.ip6, link_local(lie.mac)]))
    return scene.chance.choice([udp4, udp6])(me, scene.peer, scene.payload())


KINDS: dict[str, Callable[[_Scene], bytes]] = {
    "IPv4 datagram": _datagram4,
    "IPv6 datagram": _datagram6,
    "SYN": _syn,
    "strange destination": _strange_destination,
    "ping of the gateway": _gateway_echo,
    "through the gateway": _through_gateway,
    "ARP question": _arp_question,
    "ARP question to one": _arp_of_one,
    "ARP answer": _arp_answer,
    "gratuitous ARP": _gratuitous,
    "solicitation": _nd_question,
    "solicitation of one": _nd_of_one,
    "advertisement": _nd_answer,
    "forgery": _forgery,
    "another forgery": _forgery,
    "honest twin of a forgery": _honest_twin,
    "VLAN tag": _tagged,
    "odd ethertype": _ethertype,
    "IPv4 to all": _to_all4,
    "IPv6 to all": _to_all6,
    "IPv4 fragment": _fragment4,
    "IPv4 options": _options4,
    "IPv6 extension headers": _extended6,
    "foreign MAC": _foreign_mac,
    "foreign address": _foreign_address,
}


# What comes in from the underlay ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Arriving:
    """A tunnel packet for a host, from whomever: `frame` is what is in it."""

    host: HostId
    outer_source: str
    outer_target: str
    vni: int
    frame: bytes
    what: str

    def packet(self, source_mac: str, target_mac: str) -> bytes:
        """As it is on the wire."""
        return bytes(vxlan(self.outer_source, self.outer_target, self.vni, self.frame, (source_mac, target_mac)))


def random_arrivals(state: State, seed: int, count: int) -> list[Arriving]:
    """Of members and of others, in networks that are here and in others."""
    chance = random.Random(f"arrivals of {seed}")
    members = {member.host: member for _, member in state.members}
    arriving: list[Arriving] = []
    for _ in range(count):
        receiver = chance.choice(state.endpoints)
        here, other = members[receiver.host], next(one for id_, one in members.items() if id_ != receiver.host)
        four = here.vtep4 is not None
        target, true_source = (here.vtep4, other.vtep4) if four else (here.vtep6, other.vtep6)
        foreign = "192.0.2.99" if four else "2001:db8::99"
        own = next(network for network in state.networks if network.id == receiver.network)
        vni = chance.choice([own.vni, own.vni, own.vni, chance.choice(state.networks).vni, 0xABCDEF])
        mac = chance.choice([receiver.mac, receiver.mac, receiver.mac, "0a:66:00:00:00:66"])
        me = dataclasses.replace(station(chance.choice(state.endpoints)))
        inner = udp4(me, dataclasses.replace(station(receiver), mac=mac), b"tunnelled") + chance.randbytes(8)
        assert target is not None
        assert true_source is not None
        source = chance.choice([true_source, foreign])
        arriving.append(Arriving(receiver.host, source, target, vni, inner, "tunnel packet"))
    return arriving
