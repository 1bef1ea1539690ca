"""What becomes of a frame that a container sends: who hears it, what the network answers, which cause drops it.

Pure, and written without a look at any datapath, from what the product promises: a container speaks for its own
addresses only, in IPv4, IPv6 and ARP; nothing is flooded; the network itself answers who has an address, and pings of
its gateway; no question and nothing for many leaves a host; what is refused is refused by a name.

Sources: RFC 791, 826, 4861, 4862, 5227, 7112, 8200; IEEE 802.3.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

from sdn.model.address import Family, address_bytes, format_address, format_mac, link_local, mac_bytes
from sdn.model.ids import EndpointId, HostId
from sdn.model.resources import Endpoint, Network
from sdn.reconcile.reach import address_of, underlay_family
from sdn.reconcile.state import State

IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
ICMP, UDP, ICMP6 = 1, 17, 58
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS = 0, 43, 44, 51, 60
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS)
MORE_HEADERS = (*EXTENSIONS, 135, 139, 140)
"""What may not come behind a fragment header: the part that would be checked could be in the next fragment."""
ROUTER_ADVERT, SOLICIT, ADVERT, REDIRECT = 134, 135, 136, 137
DHCP_CLIENT, DHCP6_CLIENT = 68, 546
REQUEST, REPLY = 1, 2
SOURCE_OPTION, TARGET_OPTION = 1, 2


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Answer:
    """What the network itself says to the sender: who has an address (`arp`, `nd`), or the gateway's `echo`."""

    kind: str
    address: str
    mac: str


@dataclasses.dataclass(frozen=True, slots=True)
class Fate:
    """Who hears the frame as it was sent; what is answered; the cause that counts it ("": none does)."""

    heard: frozenset[EndpointId] = frozenset()
    answers: tuple[Answer, ...] = ()
    cause: str = ""


NOTHING = Fate()


def gateway_mac(network: Network) -> str:
    """One MAC on every host: a container that moves need not learn another."""
    return "02:48:57:" + network.vni.to_bytes(3, "big").hex(":")


def fate(state: State, sender: Endpoint, frame: bytes) -> Fate:
    """Of a frame that a container puts on its interface. `state`: all endpoints of all hosts, seen from any."""
    if frame[6:12] != mac_bytes(sender.mac):
        return Fate(cause="mac-spoof")
    kind, packet = int.from_bytes(frame[12:14], "big"), frame[14:]
    to_many = bool(frame[0] & 1)
    refusal = {IPV4: _refuse4, ARP: _refuse_arp, IPV6: _refuse6}.get(kind, _refuse_other)(sender, packet, to_many)
    if refusal:
        return Fate(cause=refusal)
    place = _Place(state, sender)
    if to_many:  # only questions are left
        return place.answered(_target(kind, packet))
    return place.carried(format_mac(frame[:6]), kind, packet)


def arrival(state: State, host: HostId, outer_source: str, vni: int, inner: bytes) -> Fate:
    """Of a tunnel packet that comes in at a host. A cause is the network's."""
    network = next((network for network in state.networks if network.vni == vni), None)
    if network is None:
        return NOTHING  # of another overlay of the machine
    vteps = {vtep for id_, member in state.members if id_ == network.id for vtep in (member.vtep4, member.vtep6)}
    if outer_source not in vteps:
        return Fate(cause="foreign-vtep")
    heard = {
        endpoint.id
        for endpoint in state.endpoints
        if (endpoint.host, endpoint.network) == (host, network.id) and mac_bytes(endpoint.mac) == inner[:6]
    }
    return Fate(frozenset(heard))


# What a container may say -------------------------------------------------------------------------------------------


def _own(sender: Endpoint, address: bytes) -> bool:
    addresses = {address_bytes(address_of(text)) for text in sender.addresses}
    return address in addresses | {address_bytes(link_local(sender.mac))}


def _refuse_other(_sender: Endpoint, _packet: bytes, _to_many: bool) -> str:
    return "protocol"


def _refuse4(sender: Endpoint, packet: bytes, to_many: bool) -> str:
    if len(packet) < 20:
        return "protocol"
    if not _own(sender, packet[12:16]):
        return "multicast" if to_many and packet[12:16] == bytes(4) else "ip4-spoof"
    header_bytes, total_bytes = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
    whole = packet[0] >> 4 == 4 and 20 <= header_bytes <= total_bytes <= len(packet)
    later = int.from_bytes(packet[6:8], "big") & 0x1FFF
    if whole and packet[9] == UDP and not later and _target_port(packet[header_bytes:total_bytes]) == DHCP_CLIENT:
        return "dhcp-server"
    if to_many:
        return "multicast"
    return "" if whole else "protocol"


def _target_port(segment: bytes) -> int:
    return int.from_bytes(segment[2:4], "big") if len(segment) >= 8 else -1


def _refuse_arp(sender: Endpoint, packet: bytes, to_many: bool) -> str:
    if len(packet) < 28 or packet[:6] != b"\x00\x01\x08\x00\x06\x04":
        return "protocol"
    operation = int.from_bytes(packet[6:8], "big")
    if operation not in (REQUEST, REPLY):
        return "protocol"
    sender_mac, sender_address, target_address = packet[8:14], packet[14:18], packet[24:28]
    if not _own(sender, sender_address):
        probe = operation == REQUEST and sender_address == bytes(4) and sender_mac == mac_bytes(sender.mac)
        return "dad" if probe else "arp-spoof"
    if sender_mac != mac_bytes(sender.mac):
        return "arp-spoof"
    if _own(sender, target_address):
        return "dad"
    return "multicast" if to_many and operation == REPLY else ""


@dataclasses.dataclass(frozen=True, slots=True)
class _Upper:
    """What an IPv6 packet carries. `direct`: no extension header before it; `later`: a fragment that is not the first.

    `hidden`: a fragment header has another extension header behind it.
    """

    protocol: int
    segment: bytes
    direct: bool
    later: bool
    hidden: bool


def _upper(packet: bytes) -> _Upper | None:
    """None: it is longer than its frame, or ends in the midst of a header."""
    body = packet[40 : 40 + int.from_bytes(packet[4:6], "big")]
    if len(body) < int.from_bytes(packet[4:6], "big"):
        return None
    protocol, direct, hidden = packet[6], True, False
    while protocol in EXTENSIONS:
        direct = False
        if len(body) < 8:
            return None
        if protocol == FRAGMENT:
            hidden = hidden or body[0] in MORE_HEADERS
            if int.from_bytes(body[2:4], "big") & 0xFFF8:
                return _Upper(body[0], b"", False, True, hidden)
            length = 8
        else:
            length = (body[1] + 2) * 4 if protocol == AUTHENTICATION else (body[1] + 1) * 8
        if len(body) < length:
            return None
        protocol, body = body[0], body[length:]
    return _Upper(protocol, body, direct, False, hidden)


def _refuse6(sender: Endpoint, packet: bytes, to_many: bool) -> str:
    if len(packet) < 40:
        return "protocol"
    upper = _upper(packet)
    kind = upper.segment[0] if upper and upper.protocol == ICMP6 and not upper.later and upper.segment else -1
    if not _own(sender, packet[8:24]):
        if packet[8:24] != bytes(16) or not to_many:
            return "ip6-spoof"
        return "dad" if kind == SOLICIT else "multicast"
    if upper is not None and upper.hidden:
        return "protocol"
    if kind in (SOLICIT, ADVERT):
        assert upper is not None
        return _refuse_neighbour_discovery(sender, upper, to_many)
    if kind in (ROUTER_ADVERT, REDIRECT):
        return "router-advert"
    if upper is not None and upper.protocol == UDP and _target_port(upper.segment) == DHCP6_CLIENT:
        return "dhcp-server"
    if to_many:
        return "multicast"
    return "" if upper is not None else "protocol"


def _refuse_neighbour_discovery(sender: Endpoint, upper: _Upper, to_many: bool) -> str:
    """Of solicitations and advertisements: what cannot be checked at a look is a lie."""
    kind, message = upper.segment[0], upper.segment
    if not upper.direct or len(message) < 24:
        return "nd-spoof"
    own = _own(sender, message[8:24])
    if kind == SOLICIT and own:
        return "dad"
    if kind == ADVERT and not own:
        return "nd-spoof"
    if kind == ADVERT and to_many:
        return "multicast"
    option = bytes([SOURCE_OPTION if kind == SOLICIT else TARGET_OPTION, 1]) + mac_bytes(sender.mac)
    return "" if message[24:] in (b"", option) else "nd-spoof"


# Where what may be said goes ----------------------------------------------------------------------------------------


def _target(kind: int, packet: bytes) -> str:
    """What an honest question asks for; "": it is none."""
    if kind == ARP:
        return format_address(4, int.from_bytes(packet[24:28], "big")) if packet[7] == REQUEST else ""
    upper = _upper(packet) if kind == IPV6 else None
    if upper is None or upper.protocol != ICMP6 or upper.later or upper.segment[:1] != bytes([SOLICIT]):
        return ""
    return format_address(6, int.from_bytes(upper.segment[8:24], "big"))


class _Place:
    """The sender's network, as it is from the sender's host."""

    def __init__(self, state: State, sender: Endpoint) -> None:
        self._state = state
        self._sender = sender
        self._network = next(network for network in state.networks if network.id == sender.network)
        self._vteps = {member.host: member for id_, member in state.members if id_ == sender.network}

    def answered(self, address: str) -> Fate:
        """A question that the network answers, or nobody does."""
        answers = [
            Answer("nd" if ":" in address else "arp", address, mac)
            for mac in self._macs_of(address)
            if mac != self._sender.mac
        ]
        return Fate(answers=tuple(answers))

    def _macs_of(self, address: str) -> Iterator[str]:
        if address in self._gateways(self._network):
            yield gateway_mac(self._network)
        for endpoint in self._neighbours():
            if address in (*map(address_of, endpoint.addresses), link_local(endpoint.mac)):
                yield endpoint.mac

    def carried(self, mac: str, kind: int, packet: bytes) -> Fate:
        """A frame for one station: the gateway, one of this host or another's, or nobody."""
        if mac == gateway_mac(self._network):
            return self._to_gateway(kind, packet)
        receiver = next((endpoint for endpoint in self._neighbours() if endpoint.mac == mac), None)
        if receiver is None or receiver.id == self._sender.id:
            return NOTHING
        if receiver.host != self._sender.host:
            question = _target(kind, packet)
            if question or kind == ARP:  # neither questions nor ARP leave the host
                return self.answered(question)
            here, there = self._vteps[self._sender.host], self._vteps[receiver.host]
            if underlay_family(here, there) is None:
                return NOTHING
        return Fate(frozenset({receiver.id}))

    def _to_gateway(self, kind: int, packet: bytes) -> Fate:
        own = self._gateways(self._network)
        if kind == ARP or _target(kind, packet):
            question = _target(kind, packet)
            return self.answered(question) if question in own else NOTHING
        family: Family = 4 if kind == IPV4 else 6
        raw = packet[16:20] if kind == IPV4 else packet[24:40]
        address = format_address(family, int.from_bytes(raw, "big"))
        if address in own:
            if not _is_echo(kind, packet):
                return NOTHING
            return Fate(answers=(Answer("echo", address, gateway_mac(self._network)),))
        others = (network for network in self._state.networks if network.tenant == self._network.tenant)
        elsewhere = any(address in self._gateways(network) for network in others)
        return Fate(cause="not-here" if elsewhere else "no-router")

    def _neighbours(self) -> Iterator[Endpoint]:
        return (endpoint for endpoint in self._state.endpoints if endpoint.network == self._network.id)

    @staticmethod
    def _gateways(network: Network) -> set[str]:
        return {subnet.gateway for subnet in network.subnets if subnet.gateway}


def _is_echo(kind: int, packet: bytes) -> bool:
    if kind == IPV4:
        return packet[9] == ICMP and struct.unpack_from("!BB", packet, (packet[0] & 15) * 4) == (8, 0)
    return packet[6] == ICMP6 and packet[40] == 128
