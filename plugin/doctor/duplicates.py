"""Whether another machine on the segment has this host's VTEP: asked as one that is about to take the address.

Source: RFC 5227 (ARP probes), RFC 4862 section 5.4 (duplicate address detection), packet(7).
"""

from __future__ import annotations

import contextlib
import dataclasses
import select
import socket
import struct
import time

from plugin.doctor.finding import Finding, ok, problem, unknown
from plugin.doctor.underlay import UplinkFacts
from sdn.model.address import address_bytes, format_mac, mac_bytes

CHECK = "duplicate address"
LISTEN_S = 0.3
ASK_AGAIN_S = 0.1
"""One broadcast may be lost."""
_ETH_ARP, _ETH_IPV6 = 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_AT = 14
_SOLICITATION, _ADVERTISEMENT = 135, 136


@dataclasses.dataclass(frozen=True, slots=True)
class DuplicateFacts:
    """`others`: MACs that answered for the VTEP. `unasked`: why nobody could be asked; empty: they were."""

    vtep: str
    ifname: str
    others: tuple[str, ...]
    unasked: str = ""


def read_duplicates(uplink: UplinkFacts) -> DuplicateFacts:
    """Ask on the link of a VTEP, and listen for a moment."""
    mac = mac_bytes(uplink.mac) if len(uplink.mac) == 17 else b""
    if not mac or uplink.loopback or not (uplink.up and uplink.running):
        return DuplicateFacts(uplink.vtep, uplink.ifname, (), "its link has no segment, or is down")
    packed = address_bytes(uplink.vtep)
    ethertype = _ETH_ARP if len(packed) == 4 else _ETH_IPV6
    question = arp_probe(mac, packed) if len(packed) == 4 else solicitation(mac, packed)
    try:
        with contextlib.closing(
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(ethertype))
        ) as link:
            link.bind((uplink.ifname, ethertype))
            return DuplicateFacts(uplink.vtep, uplink.ifname, _ask(link, question, mac, packed))
    except OSError as error:
        return DuplicateFacts(uplink.vtep, uplink.ifname, (), error.strerror or str(error))


def _ask(link: socket.socket, question: bytes, mac: bytes, packed: bytes) -> tuple[str, ...]:
    others: set[bytes] = set()
    now = time.monotonic()
    end, again = now + LISTEN_S, now + ASK_AGAIN_S
    link.send(question)
    while now < end:
        readable, _, _ = select.select([link], [], [], max(0.0, (again if again > now else end) - now))
        if readable:
            owner = answer_of(link.recv(256), packed)
            if owner is not None and owner != mac:
                others.add(owner)
        now = time.monotonic()
        if again and now >= again:
            link.send(question)
            again = 0.0
    return tuple(sorted(map(format_mac, others)))


def arp_probe(mac: bytes, address: bytes) -> bytes:
    """Who has this IPv4 address? From nobody: no neighbour's table changes by it."""
    header = _BROADCAST + mac + struct.pack("!H", _ETH_ARP)
    return header + _ARP.pack(1, 0x0800, 6, 4, 1, mac, bytes(4), bytes(6), address)


def solicitation(mac: bytes, address: bytes) -> bytes:
    """The same of an IPv6 address."""
    target = bytes.fromhex("ff0200000000000000000001ff") + address[13:]
    body = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + address
    pseudo = bytes(16) + target + struct.pack("!II", len(body), socket.IPPROTO_ICMPV6)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), socket.IPPROTO_ICMPV6, 255) + bytes(16) + target
    return b"\x33\x33" + target[12:] + mac + struct.pack("!H", _ETH_IPV6) + header + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def answer_of(frame: bytes, address: bytes) -> bytes | None:
    """The MAC that says in this frame that it has the address; None: the frame says no such thing."""
    if len(frame) < _ARP_AT:
        return None
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    if len(address) == 4:
        if ethertype != _ETH_ARP or len(frame) < _ARP_AT + _ARP.size:
            return None
        _, _, _, _, _, sender, sender_address, _, _ = _ARP.unpack_from(frame, _ARP_AT)
        return bytes(sender) if sender_address == address else None
    if ethertype != _ETH_IPV6 or len(frame) < 14 + 40 + 24 or frame[20] != socket.IPPROTO_ICMPV6:
        return None
    says = frame[54] == _ADVERTISEMENT and frame[62:78] == address
    return frame[6:12] if says else None


def judge_duplicates(facts: DuplicateFacts) -> list[Finding]:
    """Whether somebody else has it."""
    if facts.unasked:
        return [unknown(CHECK, f"nobody was asked for {facts.vtep}: {facts.unasked}")]
    if not facts.others:
        return [ok(CHECK, f"nobody else on {facts.ifname} has {facts.vtep}")]
    macs = ", ".join(facts.others)
    return [
        problem(
            CHECK,
            f"another machine on the segment of {facts.ifname} has this host's VTEP {facts.vtep}: {macs}",
            "tunnel packets for this host go to the other machine, now and then or always",
            f"ip neighbour; arping -D -I {facts.ifname} {facts.vtep}     # find it by its MAC",
            "give one of the two another address",
            vtep=facts.vtep,
            macs=list(facts.others),
        )
    ]
