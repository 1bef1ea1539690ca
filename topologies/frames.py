"""Ethernet frames, byte by byte: what the check sends when it lies, or when no route would carry its question.

Pure. Every frame ends in (or carries as its payload) a token, so that whoever hears it knows which question it was.
Sources: RFC 791, 768, 792, 9293, 8200, 4443, 4861, 826; checksums RFC 1071.
"""

from __future__ import annotations

import dataclasses
import struct

from sdn.model.address import address_bytes, family_of, mac_bytes

MAGIC = b"hawse?"
TOKEN = struct.Struct("!6s8sIB")
"""Magic, the run's nonce, the probe's number, `ASK` or `ANSWER`."""
ASK, ANSWER = 1, 2

ETHERTYPE = {4: 0x0800, 6: 0x86DD}
ETHERTYPE_ARP = 0x0806
ETHERTYPE_LOCAL = 0x88B5
"""IEEE 802 local experimental ethertype: no protocol that anybody speaks."""
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
ECHO_ASK = {4: 8, 6: 128}
ECHO_ANSWER = {4: 0, 6: 129}
FRAME_BYTES_MIN = 60
BROADCAST_MAC = b"\xff" * 6


@dataclasses.dataclass(frozen=True, slots=True)
class Ends:
    """Who a frame claims to be from, and who it is for: MACs and addresses as text."""

    source_mac: str
    target_mac: str
    source: str
    target: str

    @property
    def family(self) -> int:
        """4 or 6."""
        return family_of(self.target)


def token(nonce: bytes, number: int, direction: int = ASK) -> bytes:
    """A probe's mark; `nonce`: 8 bytes of this run."""
    return TOKEN.pack(MAGIC, nonce, number, direction)


def find_token(frame: bytes, nonce: bytes) -> tuple[int, int] | None:
    """The probe's number and direction, wherever in the frame they are. An echo repeats what was asked."""
    at = frame.find(MAGIC + nonce)
    if at < 0 or len(frame) < at + TOKEN.size:
        return None
    _, _, number, direction = TOKEN.unpack_from(frame, at)
    return number, ANSWER if _is_echo_answer(frame) else direction


def _is_echo_answer(frame: bytes) -> bool:
    kind = int.from_bytes(frame[12:14], "big")
    if kind == ETHERTYPE[4] and len(frame) > 34 and frame[23] == ICMP:
        return frame[14 + (frame[14] & 15) * 4] == ECHO_ANSWER[4]
    return kind == ETHERTYPE[6] and len(frame) > 54 and frame[20] == ICMP6 and frame[54] == ECHO_ANSWER[6]


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(target_mac: bytes, source_mac: bytes, ethertype: int, payload: bytes) -> bytes:
    """A whole frame, padded to the least that Ethernet has."""
    return (target_mac + source_mac + struct.pack("!H", ethertype) + payload).ljust(FRAME_BYTES_MIN, b"\0")


def ip_frame(ends: Ends, protocol: int, payload: bytes, hop_limit: int = 64) -> bytes:
    """An IPv4 or IPv6 packet in its frame."""
    source, target = address_bytes(ends.source), address_bytes(ends.target)
    if ends.family == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, hop_limit, protocol, 0) + source + target
        packet = head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload
    else:
        packet = struct.pack("!IHBB", 6 << 28, len(payload), protocol, hop_limit) + source + target + payload
    return ethernet(mac_bytes(ends.target_mac), mac_bytes(ends.source_mac), ETHERTYPE[ends.family], packet)


def _pseudo(ends: Ends, protocol: int, length: int) -> bytes:
    addresses = address_bytes(ends.source) + address_bytes(ends.target)
    if ends.family == 4:
        return addresses + struct.pack("!BBH", 0, protocol, length)
    return addresses + struct.pack("!II", length, protocol)


def _summed(ends: Ends, protocol: int, segment: bytes, at: int) -> bytes:
    total = checksum(_pseudo(ends, protocol, len(segment)) + segment)
    return segment[:at] + struct.pack("!H", total or 0xFFFF) + segment[at + 2 :]


def echo_message(family: int, number: int, payload: bytes) -> bytes:
    """An ICMP or ICMPv6 echo request; the IPv6 one's checksum is left to the kernel or to `echo_frame`."""
    message = struct.pack("!BBHHH", ECHO_ASK[family], 0, 0, number >> 16 & 0xFFFF, number & 0xFFFF) + payload
    if family == 6:
        return message
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def echo_frame(ends: Ends, number: int, payload: bytes) -> bytes:
    """A ping, as a frame."""
    message = echo_message(ends.family, number, payload)
    if ends.family == 4:
        return ip_frame(ends, ICMP, message)
    return ip_frame(ends, ICMP6, _summed(ends, ICMP6, message, 2))


def udp_frame(ends: Ends, source_port: int, target_port: int, payload: bytes) -> bytes:
    """A UDP datagram, as a frame."""
    segment = struct.pack("!HHHH", source_port, target_port, 8 + len(payload), 0) + payload
    return ip_frame(ends, UDP, _summed(ends, UDP, segment, 6))


def syn_frame(ends: Ends, source_port: int, target_port: int, sequence: int, payload: bytes) -> bytes:
    """A TCP SYN that carries its token as data (RFC 9293 allows it), as a frame."""
    segment = struct.pack("!HHIIBBHHH", source_port, target_port, sequence, 0, 5 << 4, 2, 65535, 0, 0) + payload
    return ip_frame(ends, TCP, _summed(ends, TCP, segment, 16))


def arp_answer_frame(ends: Ends, claimed_mac: str, claimed: str, mark: bytes) -> bytes:
    """An ARP reply, unicast to `ends.target`, that claims an address for a MAC; the token is its padding."""
    body = struct.pack("!HHBBH", 1, ETHERTYPE[4], 6, 4, 2) + mac_bytes(claimed_mac) + address_bytes(claimed)
    body += mac_bytes(ends.target_mac) + address_bytes(ends.target)
    return ethernet(mac_bytes(ends.target_mac), mac_bytes(ends.source_mac), ETHERTYPE_ARP, body + mark)


def advertisement_frame(ends: Ends, claimed: str, mark: bytes) -> bytes:
    """A neighbour advertisement (RFC 4861, 4.4) with override that claims an address for the sender's MAC.

    The token follows the packet, as padding does.
    """
    message = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + address_bytes(claimed)
    message += b"\x02\x01" + mac_bytes(ends.source_mac)
    return ip_frame(ends, ICMP6, _summed(ends, ICMP6, message, 2), hop_limit=255) + mark


def router_advertisement_frame(ends: Ends, mark: bytes) -> bytes:
    """A router advertisement (RFC 4861, 4.2): "send everything to me for half an hour"."""
    message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + b"\x01\x01" + mac_bytes(ends.source_mac)
    return ip_frame(ends, ICMP6, _summed(ends, ICMP6, message, 2), hop_limit=255) + mark


def solicitation_frame(ends: Ends, mark: bytes) -> bytes:
    """A duplicate-address check (RFC 4862, 5.4.2) for `ends.target`, from the unspecified address."""
    last = address_bytes(ends.target)[-3:]
    group = b"\xff\x02" + bytes(9) + b"\x01\xff" + last
    claim = dataclasses.replace(ends, source="::", target_mac=(b"\x33\x33" + group[-4:]).hex(":"))
    message = struct.pack("!BBHI", 135, 0, 0, 0) + address_bytes(ends.target)
    total = checksum(bytes(16) + group + struct.pack("!II", len(message), ICMP6) + message)
    message = message[:2] + struct.pack("!H", total) + message[4:]
    packet = struct.pack("!IHBB", 6 << 28, len(message), ICMP6, 255) + bytes(16) + group + message
    return ethernet(mac_bytes(claim.target_mac), mac_bytes(ends.source_mac), ETHERTYPE[6], packet + mark)


def foreign_frame(ends: Ends, mark: bytes) -> bytes:
    """A frame of a protocol that containers have no business with."""
    return ethernet(mac_bytes(ends.target_mac), mac_bytes(ends.source_mac), ETHERTYPE_LOCAL, mark)
