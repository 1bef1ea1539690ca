"""A frame's fields as Open vSwitch's user-space datapath sees them, and the frame again once some of them are others.

Checksums are adjusted by what changed, as the switch does: one that was wrong stays wrong by as much.

Source: OpenFlow 1.3.5, section 7.2.3.7; RFC 791, 826, 1624, 4443, 4861, 8200; ovs-fields(7). Limits: one VLAN tag is
seen (the switch's default), and neither tags nor what no flow of ours sets are written.
"""

from __future__ import annotations

import dataclasses
import struct

from sdn.openflow.fields import Field

_IPV4, _ARP, _IPV6, _OTHER = 0x0800, 0x0806, 0x86DD, 0x05FF
_TAGS = (0x8100, 0x88A8)
_ICMP, _TCP, _UDP, _ICMPV6 = 1, 6, 17, 58
_SKIPPED = (0, 43, 60, 135)
_FRAGMENT, _AUTHENTICATION = 44, 51
_ANY_FRAGMENT, _LATER = 1, 2
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_MAC, _TARGET_MAC = 1, 2
_PORTS = {
    _TCP: (20, Field.TCP_SRC, Field.TCP_DST),
    _UDP: (8, Field.UDP_SRC, Field.UDP_DST),
    132: (12, Field.SCTP_SRC, Field.SCTP_DST),
}
_CHECKSUM_AT = {_TCP: 16, _UDP: 6, _ICMPV6: 2, _ICMP: 2}
_ARP_AT = {
    Field.ARP_OP: 6,
    Field.ARP_SHA: 8,
    Field.ARP_SPA: 14,
    Field.ARP_THA: 18,
    Field.ARP_TPA: 24,
}
_UNWRITTEN = {Field.ETH_TYPE, Field.VLAN_VID, Field.VLAN_PCP, Field.IP_PROTO, Field.IP_FRAG}
_UNWRITTEN |= {Field.IP_DSCP, Field.IP_ECN, Field.IPV6_LABEL}
_PAD_MAX = 255

Values = dict[Field, int]


@dataclasses.dataclass(slots=True)
class Places:
    """Where things begin in a frame (0: they are not there), what follows IP, and where the packet ends."""

    network: int = 0
    transport: int = 0
    protocol: int = 0
    end: int = 0
    options: tuple[int, ...] = ()
    """Of neighbour discovery: its link-layer addresses."""


def extract(frame: bytes) -> tuple[Values, Places]:
    """What the switch reads; a field that is not there is not in it, which matches as zero."""
    if len(frame) < 14:
        return {}, Places()
    values = {Field.ETH_DST: _number(frame, 0, 6), Field.ETH_SRC: _number(frame, 6, 6)}
    at, kind = 14, _number(frame, 12, 2)
    if kind in _TAGS and len(frame) >= 18:
        tag, kind, at = _number(frame, 14, 2), _number(frame, 16, 2), 18
        values |= {Field.VLAN_VID: tag & 0xFFF | 0x1000, Field.VLAN_PCP: tag >> 13}
    if kind < 0x600:
        snap = frame[at : at + 6] == b"\xaa\xaa\x03\0\0\0" and len(frame) >= at + 8
        inner = _number(frame, at + 6, 2) if snap else 0
        kind, at = (inner, at + 8) if inner >= 0x600 else (_OTHER, at)
    values[Field.ETH_TYPE] = kind
    places = Places(network=at, end=len(frame))
    reader = {_IPV4: _extract4, _IPV6: _extract6, _ARP: _extract_arp}.get(kind)
    if reader is not None:
        reader(frame, values, places)
    return values, places


def _number(data: bytes | bytearray, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _extract_arp(frame: bytes, values: Values, places: Places) -> None:
    packet = frame[places.network :]
    if len(packet) < 28 or packet[:6] != b"\0\1\x08\0\6\4":
        places.network = 0
        return
    values |= {field: _number(packet, at, field.size) for field, at in _ARP_AT.items()}
    if values[Field.ARP_OP] > 0xFF:
        values[Field.ARP_OP] = 0


def _extract4(frame: bytes, values: Values, places: Places) -> None:
    packet = frame[places.network :]
    header, total = (packet[0] & 15) * 4 if packet else 0, _number(packet, 2, 2)
    if not 20 <= header <= min(total, len(packet)) or not total <= len(packet) <= total + _PAD_MAX:
        places.network = 0
        return
    places.end = places.network + total
    offset = _number(packet, 6, 2)
    fragment = 0 if not offset & 0x3FFF else _ANY_FRAGMENT | (_LATER if offset & 0x1FFF else 0)
    values |= {
        Field.IPV4_SRC: _number(packet, 12, 4),
        Field.IPV4_DST: _number(packet, 16, 4),
        Field.IP_FRAG: fragment,
        Field.IP_TTL: packet[8],
        Field.IP_DSCP: packet[1] >> 2,
        Field.IP_ECN: packet[1] & 3,
    }
    _extract_transport(frame, values, places, packet[9], places.network + header)


def _extract6(frame: bytes, values: Values, places: Places) -> None:
    packet = frame[places.network :]
    length = 40 + _number(packet, 4, 2)
    if len(packet) < 40 or not length <= len(packet) <= length + _PAD_MAX:
        places.network = 0
        return
    places.end = places.network + length
    values |= {Field.IPV6_SRC: _number(packet, 8, 16), Field.IPV6_DST: _number(packet, 24, 16)}
    found = _behind_extensions(packet[:length])
    if found is None:
        return
    protocol, at, fragment = found
    traffic_class = _number(packet, 0, 2) >> 4 & 0xFF
    values |= {
        Field.IPV6_LABEL: _number(packet, 0, 4) & 0xFFFFF,
        Field.IP_FRAG: fragment,
        Field.IP_TTL: packet[7],
        Field.IP_DSCP: traffic_class >> 2,
        Field.IP_ECN: traffic_class & 3,
    }
    _extract_transport(frame, values, places, protocol, places.network + at)


def _behind_extensions(packet: bytes) -> tuple[int, int, int] | None:
    """(protocol, where it begins, kind of fragment); None where a header is cut short."""
    protocol, at, fragment = packet[6], 40, 0
    while protocol in (*_SKIPPED, _AUTHENTICATION, _FRAGMENT):
        if len(packet) < at + 8:
            return None
        if protocol == _FRAGMENT:
            offset = _number(packet, at + 2, 2)
            fragment = _ANY_FRAGMENT if offset & 0xFFF9 else 0
            protocol, at = packet[at], at + 8
            if offset & 0xFFF8:
                return protocol, at, _ANY_FRAGMENT | _LATER
        else:
            size = (packet[at + 1] + 2) * 4 if protocol == _AUTHENTICATION else (packet[at + 1] + 1) * 8
            protocol, at = packet[at], at + size
            if at > len(packet):
                return None
    return protocol, at, fragment


def _extract_transport(frame: bytes, values: Values, places: Places, protocol: int, at: int) -> None:
    values[Field.IP_PROTO] = places.protocol = protocol
    segment = frame[at : places.end]
    if values[Field.IP_FRAG] & _LATER:
        return
    if protocol in _PORTS and len(segment) >= _PORTS[protocol][0]:
        _, source, target = _PORTS[protocol]
        values |= {source: _number(segment, 0, 2), target: _number(segment, 2, 2)}
    elif protocol == _ICMP and len(segment) >= 8 and values[Field.ETH_TYPE] == _IPV4:
        values |= {Field.ICMPV4_TYPE: segment[0], Field.ICMPV4_CODE: segment[1]}
    elif protocol == _ICMPV6 and len(segment) >= 8 and values[Field.ETH_TYPE] == _IPV6:
        values |= {Field.ICMPV6_TYPE: segment[0], Field.ICMPV6_CODE: segment[1]}
        if segment[0] in (_SOLICITATION, _ADVERTISEMENT) and segment[1] == 0:
            _extract_discovery(segment, values, places, at)
    else:
        return
    places.transport = at


def _extract_discovery(segment: bytes, values: Values, places: Places, start: int) -> None:
    values[Field.ND_RESERVED] = _number(segment, 4, 4)
    if len(segment) < 24:
        return
    values[Field.ND_TARGET] = _number(segment, 8, 16)
    found: dict[int, int] = {}
    options, at = [], 24
    while len(segment) >= at + 8:
        kind, size = segment[at], segment[at + 1] * 8
        if not size or at + size > len(segment):
            break
        if kind in (_SOURCE_MAC, _TARGET_MAC) and size == 8:
            if found.get(kind):  # twice: the switch takes nothing of it for true
                del values[Field.ND_TARGET]
                return
            found[kind] = _number(segment, at + 2, 6)
            options.append(start + at)
            values[Field.ND_OPTIONS_TYPE] = kind
        at += size
    places.options = tuple(options)
    values |= {Field.ND_SLL: found.get(_SOURCE_MAC, 0), Field.ND_TLL: found.get(_TARGET_MAC, 0)}


def write(frame: bytes, before: Values, values: Values, places: Places) -> bytes:
    """The frame with the fields that are not what they were before."""
    changed = {field: values[field] for field in values if values[field] != before.get(field, 0)}
    assert not changed.keys() & _UNWRITTEN, f"not known how to write: {changed.keys() & _UNWRITTEN}"
    written = bytearray(frame)

    def put(field: Field, at: int) -> None:
        if field in changed:
            written[at : at + field.size] = changed[field].to_bytes(field.size, "big")

    put(Field.ETH_DST, 0)
    put(Field.ETH_SRC, 6)
    at, kind = places.network, values.get(Field.ETH_TYPE)
    if not at:
        return bytes(written)
    if kind == _ARP:
        for field, offset in _ARP_AT.items():
            put(field, at + offset)
    elif kind == _IPV4:
        for field, offset in ((Field.IP_TTL, 8), (Field.IPV4_SRC, 12), (Field.IPV4_DST, 16)):
            put(field, at + offset)
        _adjust(written, at + 10, _difference(frame, written, at, at + (frame[at] & 15) * 4))
    elif kind == _IPV6:
        for field, offset in ((Field.IP_TTL, 7), (Field.IPV6_SRC, 8), (Field.IPV6_DST, 24)):
            put(field, at + offset)
    if places.transport:
        _write_transport(frame, written, values, changed, places)
    return bytes(written)


def _write_transport(frame: bytes, written: bytearray, values: Values, changed: Values, places: Places) -> None:
    at, network, protocol = places.transport, places.network, places.protocol
    fields = _PORTS[protocol][1:] if protocol in _PORTS else ()
    offsets = dict(zip(fields, (0, 2), strict=False))
    offsets |= {Field.ICMPV4_TYPE: 0, Field.ICMPV4_CODE: 1, Field.ICMPV6_TYPE: 0, Field.ICMPV6_CODE: 1}
    offsets |= {Field.ND_RESERVED: 4, Field.ND_TARGET: 8}
    for field, offset in offsets.items():
        if field in changed:
            written[at + offset : at + offset + field.size] = changed[field].to_bytes(field.size, "big")
    for option in places.options:
        kind = written[option] = values[Field.ND_OPTIONS_TYPE]
        mac = values.get(Field.ND_SLL if kind == _SOURCE_MAC else Field.ND_TLL, 0)
        if mac:
            written[option + 2 : option + 8] = mac.to_bytes(6, "big")
    if protocol not in _CHECKSUM_AT:
        return
    difference = _difference(frame, written, at, places.end)
    if values[Field.ETH_TYPE] == _IPV6:
        difference += _difference(frame, written, network + 8, network + 40)
    elif protocol != _ICMP:
        difference += _difference(frame, written, network + 12, network + 20)
    checksum = at + _CHECKSUM_AT[protocol]
    if protocol != _UDP or _number(frame, checksum, 2):
        _adjust(written, checksum, difference)
        if protocol == _UDP and not _number(written, checksum, 2):
            written[checksum : checksum + 2] = b"\xff\xff"


def _difference(before: bytes, after: bytearray, start: int, end: int) -> int:
    """What the sum of 16-bit words has grown by, in one's complement."""
    size = end - start
    words = struct.Struct(f"!{(size + 1) // 2}H")
    pad = b"\0" * (size % 2)
    old, new = words.unpack(before[start:end] + pad), words.unpack(bytes(after[start:end]) + pad)
    return sum(new) + sum(0xFFFF - word for word in old) if old != new else 0


def _adjust(written: bytearray, at: int, difference: int) -> None:
    """RFC 1624, equation 3."""
    if not difference:
        return
    total = 0xFFFF - _number(written, at, 2) + difference
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    written[at : at + 2] = (0xFFFF - total).to_bytes(2, "big")
