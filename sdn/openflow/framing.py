"""Where a message ends: bytes in any pieces in, whole messages out; and what is wrong with those that are none.

Source: OpenFlow 1.3.5, section 7.1.1 (the header).
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sdn.model.errors import HawseError, Kind

VERSION: Final = 0x04
"""OpenFlow 1.3, the only one that is spoken."""
MOST_BYTES: Final = 0xFFFF
"""A message is never longer: its length has 16 bits."""
HEADER_BYTES: Final = 8


class Type(enum.IntEnum):
    """What a message is (OFPT_…)."""

    HELLO = 0
    ERROR = 1
    ECHO_REQUEST = 2
    ECHO_REPLY = 3
    EXPERIMENTER = 4
    FEATURES_REQUEST = 5
    FEATURES_REPLY = 6
    GET_CONFIG_REQUEST = 7
    GET_CONFIG_REPLY = 8
    SET_CONFIG = 9
    PACKET_IN = 10
    FLOW_REMOVED = 11
    PORT_STATUS = 12
    PACKET_OUT = 13
    FLOW_MOD = 14
    GROUP_MOD = 15
    PORT_MOD = 16
    TABLE_MOD = 17
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21
    QUEUE_GET_CONFIG_REQUEST = 22
    QUEUE_GET_CONFIG_REPLY = 23
    ROLE_REQUEST = 24
    ROLE_REPLY = 25
    GET_ASYNC_REQUEST = 26
    GET_ASYNC_REPLY = 27
    SET_ASYNC = 28
    METER_MOD = 29


class ProtocolError(HawseError):
    """A peer's bytes are no OpenFlow, or not the message they say they are.

    `message_type`, `field` and `offset` (bytes from the message's beginning) say where; they are facts, too.
    """

    def __init__(self, message_type: str, field: str, offset: int, why: str, peer: str = "") -> None:
        super().__init__(
            Kind.UNAVAILABLE,
            f"{f'{peer} breaks the protocol: ' if peer else ''}{message_type}: {field}, at byte {offset}, {why}",
            facts={"message_type": message_type, "field": field, "offset": offset},
        )
        self.message_type = message_type
        self.field = field
        self.offset = offset
        self.why = why

    def of(self, peer: str) -> ProtocolError:
        """The same, with who it was."""
        return ProtocolError(self.message_type, self.field, self.offset, self.why, peer)


class Header(NamedTuple):
    """A message's first 8 bytes."""

    version: int
    type: int
    length: int
    xid: int


_HEADER: Final = struct.Struct(">BBHI")


def header_of(frame: bytes) -> Header:
    """The header of a whole message."""
    return Header._make(_HEADER.unpack_from(frame))


def framed(message_type: int, xid: int, body: bytes, version: int = VERSION) -> bytes:
    """A message of its body. Raises: INVALID, longer than a message can be."""
    length = HEADER_BYTES + len(body)
    if length > MOST_BYTES:
        raise HawseError(
            Kind.INVALID, f"a {type_name(message_type)} of {length} bytes cannot be sent: {MOST_BYTES} is the most"
        )
    return _HEADER.pack(version, message_type, length, xid) + body


def type_name(number: int) -> str:
    """What a person calls a message's type."""
    return Type(number).name if number in Type._value2member_map_ else f"message of type {number}"


def version_name(number: int) -> str:
    """What a person calls a version: 1.3 is 4 on the wire."""
    return f"1.{number - 1}" if 1 <= number <= 6 else f"version {number:#04x}"


class Layout:
    """Fields one after the other, by name, so that what is cut off has a name.

    `fields`: `name:code …` with struct's codes, big-endian; a name is left out for padding (`:4x`). `offset`: where
    they begin, in bytes from the message's beginning. `detail`: which of its type's messages it is.
    """

    def __init__(self, fields: str, offset: int = HEADER_BYTES, detail: str = "") -> None:
        parts = [part.partition(":") for part in fields.split()]
        self._struct = struct.Struct(">" + "".join(code for _, _, code in parts))
        self._detail = detail
        self._offset = offset
        self._ends: list[tuple[str, int]] = []
        end = 0
        for name, _, code in parts:
            end += struct.calcsize(">" + code)
            self._ends.append((name or "padding", end))
        self.end = offset + end
        """Where what follows begins, in bytes from the message's beginning."""

    def unpack(self, frame: bytes, *, exact: bool = False) -> tuple[Any, ...]:
        """The fields' values. `exact`: nothing may follow. Raises: ProtocolError."""
        size = len(frame)
        if size < self.end:
            start = 0
            for name, end in self._ends:
                if self._offset + end > size:
                    raise ProtocolError(
                        self._name(frame), name, self._offset + start, f"is cut off: {size} bytes in all"
                    )
                start = end
        if exact and size > self.end:
            why = f"is {size}, but there is nothing after {self.end} bytes"
            raise ProtocolError(self._name(frame), "length", 2, why)
        return self._struct.unpack_from(frame, self._offset)

    def _name(self, frame: bytes) -> str:
        return type_name(frame[1]) + self._detail

    def pack(self, *values: Any) -> bytes:
        """The fields' bytes."""
        return self._struct.pack(*values)


_PRINTABLE: Final = re.compile(rb"[\x20-\x7e]{4,}")


class Framer:
    """Collects bytes until they are messages. What is left in between is less than one message."""

    def __init__(self) -> None:
        self.negotiated = False
        """Before, any version may say hello and refuse ours; after, every message is of ours."""
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that end in `data`; take them all. Raises: ProtocolError in the place of one that cannot be."""
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while size - at >= 4:
            length = data[at + 2] << 8 | data[at + 3]
            self._check(data, at, length)
            if size - at < length:
                break
            yield data[at : at + length]
            at += length
        self._rest = data[at:]

    def _check(self, data: bytes, at: int, length: int) -> None:
        version, number = data[at], data[at + 1]
        if version != VERSION and (self.negotiated or number not in (Type.HELLO, Type.ERROR) or not 1 <= version <= 6):
            raise ProtocolError(
                type_name(number), "version", 0, f"is {version:#04x}, not {VERSION:#04x}{_says(data, at)}"
            )
        if number not in Type._value2member_map_:
            raise ProtocolError(type_name(number), "type", 1, "is none of OpenFlow 1.3")
        if length < HEADER_BYTES:
            raise ProtocolError(type_name(number), "length", 2, f"is {length}, less than the header's {HEADER_BYTES}")


def _says(data: bytes, at: int) -> str:
    """Whoever connects to the wrong port mostly finds somebody who speaks text."""
    text = _PRINTABLE.match(data, at, at + 40)
    return f": it speaks no OpenFlow, but says {text.group().decode()!r}" if text else ""
