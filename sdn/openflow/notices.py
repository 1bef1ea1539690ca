"""What a switch tells unasked: frames for the controller, flows that are gone, ports that change.

Matches are bytes of OXM fields here; `match` reads them. Source: OpenFlow 1.3.5, section 7.4.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from typing import Any, ClassVar, Final

from sdn.openflow.framing import HEADER_BYTES, Layout, ProtocolError, Type
from sdn.openflow.messages import NO_BUFFER

_IN_PORT_OXM: Final = bytes.fromhex("80000004")


def _match(message_type: str, frame: bytes, at: int) -> tuple[bytes, int]:
    """(the OXM fields of an ofp_match, where what follows it begins)."""
    match_type, length = Layout("match.type:H match.length:H", at).unpack(frame)
    if match_type != 1:
        raise ProtocolError(message_type, "match.type", at, f"is {match_type}, not OXM's 1")
    end = at + length + -length % 8
    if length < 4 or end > len(frame):
        raise ProtocolError(message_type, "match.length", at + 2, f"is {length} of {len(frame) - at} bytes")
    return frame[at + 4 : at + length], end


def _matched(fields: bytes) -> bytes:
    """The ofp_match of OXM fields."""
    length = 4 + len(fields)
    return struct.pack(">HH", 1, length) + fields + bytes(-length % 8)


@dataclasses.dataclass(frozen=True, slots=True)
class PacketIn:
    """PACKET_IN: a frame that the pipeline sends to the controller. `match`: OXM fields of it."""

    message_type: ClassVar = Type.PACKET_IN
    LAYOUT: ClassVar = Layout("buffer_id:I total_len:H reason:B table_id:B cookie:Q")

    frame: bytes
    reason: int
    table: int
    cookie: int
    match: bytes = b""
    buffer_id: int = NO_BUFFER
    total_bytes: int = 0

    @property
    def in_port(self) -> int | None:
        """The port it came in by."""
        return int.from_bytes(self.match[4:8], "big") if self.match[:4] == _IN_PORT_OXM else None

    def body(self) -> bytes:
        """Without the header."""
        total = self.total_bytes or len(self.frame)
        fixed = self.LAYOUT.pack(self.buffer_id, total, self.reason, self.table, self.cookie)
        return fixed + _matched(self.match) + bytes(2) + self.frame

    @classmethod
    def parse(cls, frame: bytes) -> PacketIn:
        """Of a whole message. Raises: ProtocolError."""
        buffer_id, total, reason, table, cookie = cls.LAYOUT.unpack(frame)
        match, at = _match("PACKET_IN", frame, cls.LAYOUT.end)
        if at + 2 > len(frame):
            raise ProtocolError("PACKET_IN", "data", at, f"is cut off: {len(frame)} bytes in all")
        return cls(frame[at + 2 : at + 2 + total], reason, table, cookie, match, buffer_id, total)


@dataclasses.dataclass(frozen=True, slots=True)
class FlowRemoved:
    """FLOW_REMOVED: a flow is gone. `reason`: 0 idle, 1 too old, 2 deleted, 3 its group deleted."""

    message_type: ClassVar = Type.FLOW_REMOVED
    LAYOUT: ClassVar = Layout(
        "cookie:Q priority:H reason:B table_id:B duration_sec:I duration_nsec:I idle_timeout:H hard_timeout:H "
        "packet_count:Q byte_count:Q",
    )

    cookie: int
    priority: int
    reason: int
    table: int
    duration_s: int
    duration_ns: int
    idle_timeout_s: int
    hard_timeout_s: int
    packets: int
    octets: int
    match: bytes

    def body(self) -> bytes:
        """Without the header."""
        return self.LAYOUT.pack(*(getattr(self, name) for name in _FLOW_REMOVED)) + _matched(self.match)

    @classmethod
    def parse(cls, frame: bytes) -> FlowRemoved:
        """Of a whole message. Raises: ProtocolError."""
        match, end = _match("FLOW_REMOVED", frame, cls.LAYOUT.end)
        if end != len(frame):
            raise ProtocolError("FLOW_REMOVED", "length", 2, f"is {len(frame)}, but there is nothing after {end} bytes")
        numbers: tuple[Any, ...] = cls.LAYOUT.unpack(frame)
        return cls(*(*numbers, match))


_FLOW_REMOVED: Final = [field.name for field in dataclasses.fields(FlowRemoved)][:-1]


class PortState(enum.IntFlag):
    """What is so of a port."""

    LINK_DOWN = 1
    BLOCKED = 2
    LIVE = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Port:
    """A port of a switch (ofp_port). `config` and `state` are bits: 1 down by hand, PortState."""

    BYTES: ClassVar = 64
    STRUCT: ClassVar = struct.Struct(">I4x6s2x16sIIIIIIII")

    number: int
    mac: str
    name: str
    config: int = 0
    state: int = 0
    current: int = 0
    advertised: int = 0
    supported: int = 0
    peer: int = 0
    current_kbps: int = 0
    most_kbps: int = 0

    def encode(self) -> bytes:
        """Its 64 bytes."""
        rest = (getattr(self, field.name) for field in dataclasses.fields(self)[3:])
        return self.STRUCT.pack(self.number, bytes.fromhex(self.mac.replace(":", "")), self.name.encode(), *rest)

    @classmethod
    def decode(cls, data: bytes, at: int) -> Port:
        """From 64 bytes of `data`. A name that is no text is shown with escapes."""
        number, mac, name, *rest = cls.STRUCT.unpack_from(data, at)
        return cls(number, mac.hex(":"), name.partition(b"\0")[0].decode("utf-8", "backslashreplace"), *rest)


class PortChange(enum.IntEnum):
    """What happened to a port."""

    ADDED = 0
    DELETED = 1
    MODIFIED = 2


@dataclasses.dataclass(frozen=True, slots=True)
class PortStatus:
    """PORT_STATUS."""

    message_type: ClassVar = Type.PORT_STATUS
    LAYOUT: ClassVar = Layout("reason:B :7x desc:64s")

    change: PortChange
    port: Port

    def body(self) -> bytes:
        """Without the header."""
        return self.LAYOUT.pack(self.change, self.port.encode())

    @classmethod
    def parse(cls, frame: bytes) -> PortStatus:
        """Of a whole message. Raises: ProtocolError."""
        reason, port = cls.LAYOUT.unpack(frame, exact=True)
        if reason not in PortChange._value2member_map_:
            raise ProtocolError("PORT_STATUS", "reason", HEADER_BYTES, f"is {reason}, not 0, 1 or 2")
        return cls(PortChange(reason), Port.decode(port, 0))
