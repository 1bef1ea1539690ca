"""Questions whose answers come in parts: flows, tables, ports, what a switch is. One part is a message.

Source: OpenFlow 1.3.5, section 7.3.5; ONF EXT-187 (flow monitors on 1.3), as Open vSwitch does it.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from collections.abc import Sequence
from typing import ClassVar, Final, NamedTuple

from sdn.openflow.errors import ONF
from sdn.openflow.framing import HEADER_BYTES, Layout, ProtocolError, Type
from sdn.openflow.messages import ANY
from sdn.openflow.notices import Port

ALL_TABLES: Final = 0xFF
MORE: Final = 1
_EVERYTHING: Final = struct.pack(">HH4x", 1, 4)
_FLOWS: Final = struct.Struct(">B3xII4xQQ")
_TABLE: Final = struct.Struct(">B3xIQQ")
_AGGREGATE: Final = struct.Struct(">QQI4x")


class Part(enum.IntEnum):
    """What is asked for (OFPMP_…)."""

    DESCRIPTION = 0
    FLOW = 1
    AGGREGATE = 2
    TABLE = 3
    PORT_STATS = 4
    QUEUE = 5
    GROUP = 6
    GROUP_DESCRIPTION = 7
    GROUP_FEATURES = 8
    METER = 9
    METER_CONFIG = 10
    METER_FEATURES = 11
    TABLE_FEATURES = 12
    PORT_DESCRIPTION = 13
    EXPERIMENTER = 0xFFFF


@dataclasses.dataclass(frozen=True, slots=True)
class _Multipart:
    part: int
    data: bytes = b""
    flags: int = 0

    def body(self) -> bytes:
        """Without the header."""
        return _LAYOUT.pack(self.part, self.flags) + self.data


_LAYOUT: Final = Layout("multipart.type:H flags:H :4x")


class MultipartRequest(_Multipart):
    """MULTIPART_REQUEST."""

    message_type: ClassVar = Type.MULTIPART_REQUEST
    __slots__ = ()

    @classmethod
    def parse(cls, frame: bytes) -> MultipartRequest:
        """Of a whole message. Raises: ProtocolError."""
        part, flags = _LAYOUT.unpack(frame)
        return cls(part, frame[_LAYOUT.end :], flags)


class MultipartReply(_Multipart):
    """MULTIPART_REPLY: one of the parts; the last has no MORE among its flags."""

    message_type: ClassVar = Type.MULTIPART_REPLY
    __slots__ = ()

    @classmethod
    def parse(cls, frame: bytes) -> MultipartReply:
        """Of a whole message. Raises: ProtocolError."""
        part, flags = _LAYOUT.unpack(frame)
        return cls(part, frame[_LAYOUT.end :], flags)


def flows_request(
    part: Part = Part.FLOW, *, table: int = ALL_TABLES, cookie: int = 0, cookie_mask: int = 0
) -> MultipartRequest:
    """Ask for the flows (or, AGGREGATE, for their sums) of a table whose cookie is that, where the mask has bits."""
    return MultipartRequest(part, _FLOWS.pack(table, ANY, ANY, cookie, cookie_mask) + _EVERYTHING)


class FlowEvent(enum.IntFlag):
    """What a flow monitor tells: of flows that are there already, of additions, deletions and changes, with actions.

    Of what the asker changes itself it tells no more than the xid, but for OWN.
    """

    INITIAL = 1
    ADDED = 2
    DELETED = 4
    MODIFIED = 8
    ACTIONS = 16
    OWN = 32


_FLOW_MONITOR: Final = 1870


def monitor_request(
    number: int, events: FlowEvent = FlowEvent.ADDED | FlowEvent.DELETED | FlowEvent.MODIFIED, table: int = ALL_TABLES
) -> MultipartRequest:
    """Have the switch tell of changes to its flows from now on. They come as updates: multipart replies of xid 0."""
    body = struct.pack(">II", ONF, _FLOW_MONITOR) + struct.pack(">IHHIB3x", number, events, 4, ANY, table)
    body += struct.pack(">HH4x", 1, 4)  # the match of everything
    return MultipartRequest(Part.EXPERIMENTER, body)


class Aggregate(NamedTuple):
    """Sums over flows."""

    packets: int
    bytes: int
    flows: int


class TableStats(NamedTuple):
    """A table's counts."""

    table: int
    flows: int
    looked_up: int
    matched: int


class Description(NamedTuple):
    """What a switch is, in its maker's words."""

    manufacturer: str
    hardware: str
    software: str
    serial_number: str
    datapath: str


def _entries(bodies: Sequence[bytes], size: int, name: str) -> list[tuple[bytes, int]]:
    """(body, offset) of each of the entries of a fixed size. Raises: ProtocolError."""
    for body in bodies:
        if len(body) % size:
            at = HEADER_BYTES + 8 + len(body) - len(body) % size
            raise ProtocolError("MULTIPART_REPLY", name, at, f"is cut off: {len(body) % size} of {size} bytes")
    return [(body, at) for body in bodies for at in range(0, len(body), size)]


def _only(bodies: Sequence[bytes], size: int, name: str) -> bytes:
    whole = b"".join(bodies)
    if len(whole) != size:
        raise ProtocolError("MULTIPART_REPLY", name, HEADER_BYTES + 8, f"has {len(whole)} bytes, not {size}")
    return whole


def ports_of(bodies: Sequence[bytes]) -> list[Port]:
    """Of PORT_DESCRIPTION's parts. Raises: ProtocolError."""
    return [Port.decode(body, at) for body, at in _entries(bodies, Port.BYTES, "port")]


def tables_of(bodies: Sequence[bytes]) -> list[TableStats]:
    """Of TABLE's parts. Raises: ProtocolError."""
    return [TableStats(*_TABLE.unpack_from(body, at)) for body, at in _entries(bodies, _TABLE.size, "table")]


def aggregate_of(bodies: Sequence[bytes]) -> Aggregate:
    """Of AGGREGATE's part. Raises: ProtocolError."""
    return Aggregate(*_AGGREGATE.unpack(_only(bodies, _AGGREGATE.size, "aggregate")))


def description_of(bodies: Sequence[bytes]) -> Description:
    """Of DESCRIPTION's part. Raises: ProtocolError."""
    texts = struct.unpack("256s256s256s32s256s", _only(bodies, 1056, "description"))
    return Description(*(text.partition(b"\0")[0].decode("utf-8", "backslashreplace") for text in texts))
