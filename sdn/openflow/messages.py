"""OpenFlow's messages as values; but for flow-mods, which `encode` makes, and what switches tell unasked: `notices`.

Each has a `message_type`, `body()` (its bytes without the header) and `parse(frame)` (of a whole message; raises
ProtocolError). The xid is not the message's: it is the session's. Actions are bytes here, for `encode` and `decode`.

Source: OpenFlow 1.3.5, sections 7.1 to 7.5.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from typing import ClassVar, Final, Protocol

from sdn.openflow.framing import HEADER_BYTES, VERSION, Layout, ProtocolError, Type, framed, type_name

NO_BUFFER: Final = 0xFFFFFFFF
CONTROLLER: Final = 0xFFFFFFFD
ANY: Final = 0xFFFFFFFF
_VERSION_BITMAP: Final = 1


class Message(Protocol):
    """What can be sent."""

    @property
    def message_type(self) -> Type:
        """Which one it is."""

    def body(self) -> bytes:
        """Without the header."""


def encode(message: Message, xid: int) -> bytes:
    """A message's bytes."""
    return framed(message.message_type, xid, message.body())


def with_xid(message: bytes, xid: int) -> bytes:
    """An encoded message with another xid."""
    return message[:4] + xid.to_bytes(4, "big") + message[HEADER_BYTES:]


@dataclasses.dataclass(frozen=True, slots=True)
class Hello:
    """HELLO. `version` is the header's, `versions` those of the bitmap: None where there is none."""

    message_type: ClassVar = Type.HELLO

    version: int = VERSION
    versions: tuple[int, ...] | None = (VERSION,)

    def body(self) -> bytes:
        """Without the header."""
        if self.versions is None:
            return b""
        words = [0] * (max(self.versions, default=0) // 32 + 1)
        for version in self.versions:
            words[version // 32] |= 1 << version % 32
        element = struct.pack(f">HH{len(words)}I", _VERSION_BITMAP, 4 + 4 * len(words), *words)
        return element + bytes(-len(element) % 8)

    @classmethod
    def parse(cls, frame: bytes) -> Hello:
        """Of a whole message; elements of other kinds are passed over. Raises: ProtocolError."""
        versions: tuple[int, ...] | None = None
        at = HEADER_BYTES
        while at < len(frame):
            kind, length = Layout("element.type:H element.length:H", at).unpack(frame)
            if length < 4 or at + length > len(frame):
                raise ProtocolError("HELLO", "element.length", at + 2, f"is {length} of {len(frame) - at} bytes")
            if kind == _VERSION_BITMAP:
                words = struct.unpack_from(f">{(length - 4) // 4}I", frame, at + 4)
                versions = tuple(32 * i + bit for i, word in enumerate(words) for bit in range(32) if word >> bit & 1)
            at += length + -length % 8
        return cls(frame[0], versions)

    def speaks(self, version: int) -> bool:
        """Whether its sender does: all up to the header's, where no bitmap says more."""
        return version <= self.version if self.versions is None else version in self.versions


@dataclasses.dataclass(frozen=True, slots=True)
class _Opaque:
    """A message whose body is bytes."""

    data: bytes = b""

    def body(self) -> bytes:
        """Without the header."""
        return self.data


class EchoRequest(_Opaque):
    """ECHO_REQUEST."""

    message_type: ClassVar = Type.ECHO_REQUEST
    __slots__ = ()

    @classmethod
    def parse(cls, frame: bytes) -> EchoRequest:
        """Of a whole message."""
        return cls(frame[HEADER_BYTES:])


class EchoReply(_Opaque):
    """ECHO_REPLY: the request's data."""

    message_type: ClassVar = Type.ECHO_REPLY
    __slots__ = ()

    @classmethod
    def parse(cls, frame: bytes) -> EchoReply:
        """Of a whole message."""
        return cls(frame[HEADER_BYTES:])


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    """A message that is nothing but its type (`…_REQUEST`, BARRIER_REPLY), or one that is only handed on."""

    message_type: Type
    data: bytes = b""

    def body(self) -> bytes:
        """Without the header."""
        return self.data


@dataclasses.dataclass(frozen=True, slots=True)
class Features:
    """FEATURES_REPLY: what a switch says of itself."""

    message_type: ClassVar = Type.FEATURES_REPLY
    LAYOUT: ClassVar = Layout("datapath_id:Q buffers:I tables:B auxiliary:B :2x capabilities:I reserved:I")

    datapath_id: int
    buffers: int = 0
    tables: int = 254
    auxiliary: int = 0
    capabilities: int = 0

    def body(self) -> bytes:
        """Without the header."""
        return self.LAYOUT.pack(self.datapath_id, self.buffers, self.tables, self.auxiliary, self.capabilities, 0)

    @classmethod
    def parse(cls, frame: bytes) -> Features:
        """Of a whole message. Raises: ProtocolError."""
        return cls(*cls.LAYOUT.unpack(frame, exact=True)[:5])


@dataclasses.dataclass(frozen=True, slots=True)
class Configuration:
    """SET_CONFIG, GET_CONFIG_REPLY. `miss_send_bytes` above 0 has Open vSwitch send events on its management socket."""

    message_type: ClassVar = Type.SET_CONFIG
    LAYOUT: ClassVar = Layout("flags:H miss_send_len:H")

    flags: int = 0
    miss_send_bytes: int = 0xFFFF

    def body(self) -> bytes:
        """Without the header."""
        return self.LAYOUT.pack(self.flags, self.miss_send_bytes)

    @classmethod
    def parse(cls, frame: bytes) -> Configuration:
        """Of a whole message. Raises: ProtocolError."""
        return cls(*cls.LAYOUT.unpack(frame, exact=True))


_OUTPUT: Final = struct.Struct(">HHIH6x")


def output(port: int) -> bytes:
    """The action that sends a frame out of a port."""
    return _OUTPUT.pack(0, 16, port, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class PacketOut:
    """PACKET_OUT: a frame for the switch to do `actions` with, as if it had come in by `in_port`."""

    message_type: ClassVar = Type.PACKET_OUT
    LAYOUT: ClassVar = Layout("buffer_id:I in_port:I actions_len:H :6x")

    frame: bytes
    actions: bytes
    in_port: int = CONTROLLER
    buffer_id: int = NO_BUFFER

    def body(self) -> bytes:
        """Without the header."""
        return self.LAYOUT.pack(self.buffer_id, self.in_port, len(self.actions)) + self.actions + self.frame

    @classmethod
    def parse(cls, frame: bytes) -> PacketOut:
        """Of a whole message. Raises: ProtocolError."""
        buffer_id, in_port, length = cls.LAYOUT.unpack(frame)
        end = cls.LAYOUT.end + length
        if end > len(frame):
            raise ProtocolError("PACKET_OUT", "actions_len", 16, f"is {length} of {len(frame) - cls.LAYOUT.end} bytes")
        return cls(frame[end:], frame[cls.LAYOUT.end : end], in_port, buffer_id)


class Role(enum.IntEnum):
    """Of several controllers."""

    NO_CHANGE = 0
    EQUAL = 1
    MASTER = 2
    SLAVE = 3


@dataclasses.dataclass(frozen=True, slots=True)
class _RoleMessage:
    """Who may write."""

    role: Role
    generation: int = 0

    def body(self) -> bytes:
        """Without the header."""
        return _ROLE.pack(self.role, self.generation)


_ROLE: Final = Layout("role:I :4x generation_id:Q")


def _role(frame: bytes) -> tuple[Role, int]:
    role, generation = _ROLE.unpack(frame, exact=True)
    if role not in Role._value2member_map_:
        raise ProtocolError(type_name(frame[1]), "role", HEADER_BYTES, f"is {role}, none of 0 to 3")
    return Role(role), generation


class RoleRequest(_RoleMessage):
    """ROLE_REQUEST."""

    message_type: ClassVar = Type.ROLE_REQUEST
    __slots__ = ()

    @classmethod
    def parse(cls, frame: bytes) -> RoleRequest:
        """Of a whole message. Raises: ProtocolError."""
        return cls(*_role(frame))


class RoleReply(_RoleMessage):
    """ROLE_REPLY."""

    message_type: ClassVar = Type.ROLE_REPLY
    __slots__ = ()

    @classmethod
    def parse(cls, frame: bytes) -> RoleReply:
        """Of a whole message. Raises: ProtocolError."""
        return cls(*_role(frame))


@dataclasses.dataclass(frozen=True, slots=True)
class Experimenter:
    """EXPERIMENTER: an extension's message (of bundles: `bundle`)."""

    message_type: ClassVar = Type.EXPERIMENTER
    LAYOUT: ClassVar = Layout("experimenter:I exp_type:I")

    experimenter: int
    kind: int
    data: bytes = b""

    def body(self) -> bytes:
        """Without the header."""
        return self.LAYOUT.pack(self.experimenter, self.kind) + self.data

    @classmethod
    def parse(cls, frame: bytes) -> Experimenter:
        """Of a whole message. Raises: ProtocolError."""
        experimenter, kind = cls.LAYOUT.unpack(frame)
        return cls(experimenter, kind, frame[cls.LAYOUT.end :])
