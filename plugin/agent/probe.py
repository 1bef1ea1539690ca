"""Probes of the underlay: packets as tunnels send them, but of a VNI that is never given out.

A probe goes to UDP port 4789 like any tunnel packet, unfragmented, so what drops tunnels drops it. Its VNI is 0: the
kernel's VXLAN driver throws it away, and a raw socket beside it, which sees what the firewall has let in, has a copy.
Two things come back: an *ack*, small, from port 4789 to the port that the probe came from (a stateful firewall lets
that pass), and an *echo* of the probe's size, to port 4789, as the other host's own tunnel packets come.

    ack and echo    both directions carry packets of this size
    ack             this size arrives there, but tunnels do not come back (in this size)
    neither         it does not arrive

Source: RFC 7348; raw(7) and net/ipv4/raw.c (the filter sees the IPv4 header, but not the IPv6 one); ip(7),
IP_MTU_DISCOVER; linux/filter.h.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final, NamedTuple

from plugin.kernel.packet import attach_filter
from sdn.model.address import Family

PORT: Final = 4789
PROBE: Final = 1
ACK: Final = 2
ECHO: Final = 3
COOKIE_BYTES: Final = 16

_HEAD: Final = struct.pack("!B6xx 12x H 2x", 0x08, 0x88B5)
"""VXLAN with VNI 0, and an Ethernet header of an experimental type (IEEE 802): nothing that would be merged."""
_BODY: Final = struct.Struct("!BxHH16s")
_UDP: Final = struct.Struct("!HHHH")
IP_BYTES: Final[dict[Family, int]] = {4: 20, 6: 40}
SMALLEST_BYTES: Final[dict[Family, int]] = {
    family: length + _UDP.size + len(_HEAD) + _BODY.size for family, length in IP_BYTES.items()
}
"""A probe without padding, as an IP packet."""
_AT_KIND: Final = _UDP.size + len(_HEAD)
_RECEIVED_BYTES: Final = 128

_SO_RCVBUFFORCE: Final = 33
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_PROBE: Final = 3
_IPV6_DONTFRAG: Final = 62


class Packet(NamedTuple):
    """One that was received. `size_bytes`: of the whole IP packet; `source_port`: the sender's."""

    kind: int
    number: int
    size_bytes: int
    cookie: bytes
    source_port: int


def encode(family: Family, kind: int, number: int, cookie: bytes, size_bytes: int = 0) -> bytes:
    """A packet behind its UDP header, padded so that the IP packet has `size_bytes` (0: the smallest)."""
    payload = _HEAD + _BODY.pack(kind, number, size_bytes, cookie)
    return payload + bytes(max(0, size_bytes - IP_BYTES[family] - _UDP.size - len(payload)))


def with_udp(payload: bytes, source_port: int, target_port: int) -> bytes:
    """The same behind a UDP header without a checksum (IPv4 needs none; for IPv6 the kernel computes it)."""
    return _UDP.pack(source_port, target_port, _UDP.size + len(payload), 0) + payload


def decode_payload(payload: bytes) -> Packet | None:
    """What came to a UDP socket; None: no packet of ours."""
    if len(payload) < len(_HEAD) + _BODY.size or not payload.startswith(_HEAD):
        return None
    kind, number, size_bytes, cookie = _BODY.unpack_from(payload, len(_HEAD))
    return Packet(kind, number, size_bytes, cookie, PORT)


def decode_raw(family: Family, data: bytes) -> Packet | None:
    """What came to a raw socket, cut off or whole; None: no packet of ours. The size is what the header says."""
    start = (data[0] & 0x0F) * 4 if family == 4 and data else 0
    if len(data) < start + _UDP.size:
        return None
    source_port, _, length, _ = _UDP.unpack_from(data, start)
    packet = decode_payload(data[start + _UDP.size :])
    return packet and packet._replace(size_bytes=IP_BYTES[family] + length, source_port=source_port)


def filter_program(family: Family, kind: int) -> list[tuple[int, int, int, int]]:
    """Instructions (code, on true, on false, operand) that take packets of one kind to port 4789, VNI 0."""
    tests = (
        [(0x48, 2), (0x15, PORT)],  # half a word behind the start of UDP: the port it goes to
        [(0x40, 12), (0x54, 0xFFFFFF00), (0x15, 0)],  # the VNI
        [(0x48, 28), (0x15, 0x88B5)],  # the inner Ethernet type
        [(0x50, _AT_KIND), (0x15, kind)],
    )
    body = [
        (0xB1, 0) if family == 4 else (0x01, 0),
        *(step for test in tests for step in test),
        (0x06, _RECEIVED_BYTES),
    ]
    rejection = len(body)
    return [
        (code, 0, rejection - at - 1 if code == 0x15 else 0, operand) for at, (code, operand) in enumerate(body)
    ] + [(0x06, 0, 0, 0)]


def open_raw(family: Family, vtep: str, kind: int) -> socket.socket:
    """A raw socket at a VTEP that receives packets of one kind and sends unfragmented ones. Raises: OSError."""
    raw = socket.socket(
        socket.AF_INET if family == 4 else socket.AF_INET6,
        socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
        socket.IPPROTO_UDP,
    )
    try:
        if family == 6:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, 6)
        attach_filter(raw, filter_program(family, kind))
        never_fragment(raw, family)
        take_many(raw)
        raw.bind((vtep, 0))
    except OSError:
        raw.close()
        raise
    return raw


def take_many(receiver: socket.socket) -> None:
    """Room for the answers of many hosts at once; without the right to it there is what the machine gives to all."""
    with contextlib.suppress(PermissionError):
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)


def never_fragment(sender: socket.socket, family: Family) -> None:
    """Send whole or not at all (EMSGSIZE above the link's MTU), whatever path MTU the kernel remembers."""
    if family == 4:
        sender.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    else:
        sender.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        sender.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
