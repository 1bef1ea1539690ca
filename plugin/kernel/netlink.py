"""Netlink: attributes by struct, several requests in one send, dumps, notifications.

Only plain sockets: importing pyroute2 costs an agent 0.2 s and 20 MB, and its own encoder is the slowest part of an
attachment. The tests use it as the oracle.

A batch asks for one acknowledgement, at its end: the kernel handles the requests of one send in order, reports every
error by the request's sequence number whether asked or not, and goes on after it.

Source: RFC 3549, Documentation/userspace-api/netlink, include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from plugin.kernel.namespace import cookie_at, socket_in
from plugin.kernel.packet import attach_filter

T = TypeVar("T")
HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_U8 = struct.Struct("=HHB3x")
_U16 = struct.Struct("=HHH2x")
_U16_BIG = struct.Struct(">H")
_U32 = struct.Struct("=HHI")
_PADDING = (b"", b"\0", b"\0\0", b"\0\0\0")
_ERRNO = struct.Struct("=i")

F_REQUEST = 0x1
F_ACK = 0x4
F_DUMP = 0x300
F_REPLACE = 0x100
F_EXCL = 0x200
F_CREATE = 0x400
F_DUMP_INTR = 0x10
F_CAPPED = 0x100
F_ACK_TLVS = 0x200

MESSAGE_ERROR = 2
MESSAGE_DONE = 3
_ERROR_TEXT = 1
_KIND_MASK = 0x3FFF

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33

BATCH_REQUESTS_MAX = 1024
"""Requests of one send: their errors, if all fail, must fit the receive buffer."""
BATCH_BYTES_MAX = 256 * 1024
DUMP_ATTEMPTS = 4
"""Dumps of what is being changed meanwhile; who reads on has to expect that the next read differs anyway."""
_BUFFER_BYTES = 4 << 20
_RECEIVE_BYTES = 1 << 16


class NetlinkError(Exception):
    """The kernel refused a request: `errno`, and its own words where it gave any."""

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message or os.strerror(number))
        self.errno = number
        self.message = message


class DumpInterruptedError(Exception):
    """What was being dumped changed meanwhile: the rows may not fit together."""


class LostEventsError(Exception):
    """The kernel dropped notifications because nobody took them in time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One message without its header's length, sequence number and port."""

    kind: int
    flags: int
    body: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """An attribute with its padding."""
    length = 4 + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + _PADDING[-length & 3]


def attribute_u8(kind: int, value: int) -> bytes:
    """An attribute of one byte."""
    return _U8.pack(5, kind, value)


def attribute_u16(kind: int, value: int) -> bytes:
    """An attribute of 16 bits in the machine's order."""
    return _U16.pack(6, kind, value)


def attribute_u16_big(kind: int, value: int) -> bytes:
    """An attribute of 16 bits in network order."""
    return attribute(kind, _U16_BIG.pack(value))


def attribute_u32(kind: int, value: int) -> bytes:
    """An attribute of 32 bits in the machine's order."""
    return _U32.pack(8, kind, value)


def attribute_text(kind: int, text: str) -> bytes:
    """An attribute of zero-terminated text."""
    return attribute(kind, text.encode() + b"\0")


def attributes(buffer: bytes, offset: int, end: int) -> dict[int, bytes]:
    """The attributes between two offsets: kind (without flags) -> payload. Of equal kinds the last one stays."""
    found: dict[int, bytes] = {}
    unpack = _ATTRIBUTE.unpack_from
    while offset + 4 <= end:
        length, kind = unpack(buffer, offset)
        if length < 4:
            break
        found[kind & _KIND_MASK] = buffer[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def number(payload: bytes | None, absent: int = 0) -> int:
    """An unsigned number of 1, 2, 4 or 8 bytes in the machine's order."""
    return absent if payload is None else int.from_bytes(payload, sys.byteorder)


def text(payload: bytes | None) -> str:
    """Zero-terminated text; "" where absent."""
    return "" if payload is None else payload.rstrip(b"\0").decode(errors="replace")


def messages(buffer: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """The messages of a datagram: (kind, flags, sequence number, offset of the body, its end)."""
    offset, size = 0, len(buffer)
    unpack = HEADER.unpack_from
    while offset + 16 <= size:
        length, kind, flags, sequence, _ = unpack(buffer, offset)
        if length < 16:
            break
        yield kind, flags, sequence, offset + 16, offset + length
        offset += (length + 3) & ~3


def decode_error(buffer: bytes, flags: int, offset: int, end: int) -> NetlinkError | None:
    """What an error message says; None: it is an acknowledgement."""
    (negative,) = _ERRNO.unpack_from(buffer, offset)
    if negative == 0:
        return None
    words = ""
    if flags & F_ACK_TLVS:
        original = 16 if flags & F_CAPPED else HEADER.unpack_from(buffer, offset + 4)[0]
        words = text(attributes(buffer, offset + 4 + ((original + 3) & ~3), end).get(_ERROR_TEXT))
    return NetlinkError(-negative, words)


def taken(dump: Callable[[], Iterator[T]]) -> list[T]:
    """All rows of a dump, repeated while it is interrupted; the last attempt's rows are taken as they are.

    Raises: NetlinkError.
    """
    rows: list[T] = []
    for _ in range(DUMP_ATTEMPTS):
        rows = []
        try:
            for row in dump():
                rows.append(row)
        except DumpInterruptedError:
            continue
        break
    return rows


class NetlinkSocket:
    """One rtnetlink socket in one namespace. Not for two threads at a time."""

    def __init__(self, raw: socket.socket, groups: int = 0) -> None:
        self._raw = raw
        for option in (_NETLINK_EXT_ACK, _NETLINK_CAP_ACK, _NETLINK_GET_STRICT_CHK):
            raw.setsockopt(_SOL_NETLINK, option, 1)
        for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                raw.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_BYTES)
            except PermissionError:
                raw.setsockopt(socket.SOL_SOCKET, plain, _BUFFER_BYTES)
        raw.bind((0, groups))
        self._port: int = raw.getsockname()[0]
        self._sequence = 0

    @classmethod
    def open(cls, ns_fd: int | None = None, groups: int = 0) -> NetlinkSocket:
        """A socket in a namespace (None: this process's). `groups`: a bit mask of notification groups 1 to 32."""
        raw = socket_in(ns_fd, socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        try:
            return cls(raw, groups)
        except OSError:
            raw.close()
            raise

    @property
    def cookie(self) -> int:
        """The cookie of the namespace that it is in; see namespace.cookie."""
        return cookie_at(self._raw)

    def subscribe(self, groups: int) -> None:
        """From now on be told of these groups and no others (0: of none); what is queued already stays queued."""
        self._raw.bind((self._port, groups))

    def only(self, kind: int) -> None:
        """Be told of messages of one kind only."""
        # Load the 16 bits of nlmsg_type (as a big-endian number), compare, take all of the message or nothing.
        program = ((0x28, 0, 0, 4), (0x15, 0, 1, socket.htons(kind)), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0))
        attach_filter(self._raw, program)

    def fileno(self) -> int:
        """The descriptor, to wait on."""
        return self._raw.fileno()

    def close(self) -> None:
        """Close it; twice is fine."""
        self._raw.close()

    def execute(self, requests: Sequence[Request]) -> list[NetlinkError | None]:
        """Do all in order, going on after errors; the error of each, or None."""
        errors: list[NetlinkError | None] = [None] * len(requests)
        start = 0
        while start < len(requests):
            start = self._send(requests, start, errors)
        return errors

    def do(self, request: Request) -> None:
        """One request. Raises: NetlinkError."""
        error = self.execute([request])[0]
        if error is not None:
            raise error

    def _send(self, requests: Sequence[Request], start: int, errors: list[NetlinkError | None]) -> int:
        """Send as many requests as one batch takes and wait for them; where to go on."""
        parts: list[bytes] = []
        size, at, base = 0, start, self._sequence + 1
        limit = min(len(requests), start + BATCH_REQUESTS_MAX)
        while at < limit:
            request = requests[at]
            length = 16 + len(request.body)
            size += length + (-length & 3)
            at += 1
            last = at == limit or size + 16 + len(requests[at].body) > BATCH_BYTES_MAX
            flags = request.flags | F_REQUEST | (F_ACK if last else 0)
            self._sequence += 1
            parts += HEADER.pack(length, request.kind, flags, self._sequence, 0), request.body, _PADDING[-length & 3]
            if last:
                break
        self._raw.send(b"".join(parts))
        self._collect(start, base, errors)
        return at

    def _collect(self, start: int, base: int, errors: list[NetlinkError | None]) -> None:
        """Take errors until the last request's acknowledgement."""
        while True:
            buffer = self._raw.recv(_RECEIVE_BYTES)
            for kind, flags, sequence, offset, end in messages(buffer):
                if kind != MESSAGE_ERROR or not base <= sequence <= self._sequence:
                    continue
                errors[start + sequence - base] = decode_error(buffer, flags, offset, end)
                if sequence == self._sequence:
                    return

    def get(self, request: Request) -> tuple[bytes, int, int]:
        """The one message that answers a request: (datagram, offset of the body, its end). Raises: NetlinkError."""
        self._sequence += 1
        self._write_one(request, request.flags | F_REQUEST)
        while True:
            buffer = self._raw.recv(_RECEIVE_BYTES)
            for kind, flags, sequence, offset, end in messages(buffer):
                if sequence != self._sequence:
                    continue
                error = decode_error(buffer, flags, offset, end) if kind == MESSAGE_ERROR else None
                if error is not None:
                    raise error
                return buffer, offset, end

    def dump(self, request: Request) -> Iterator[tuple[bytes, int, int]]:
        """The bodies of all rows: (datagram, offset, end).

        To be taken to the end. Raises: NetlinkError; DumpInterruptedError after the last row.
        """
        self._sequence += 1
        mine = self._sequence
        self._write_one(request, request.flags | F_REQUEST | F_DUMP)
        interrupted = 0
        while True:
            buffer = self._raw.recv(_RECEIVE_BYTES)
            for kind, flags, sequence, offset, end in messages(buffer):
                if sequence != mine:
                    continue
                interrupted |= flags & F_DUMP_INTR
                if kind in (MESSAGE_DONE, MESSAGE_ERROR):
                    error = decode_error(buffer, flags & ~F_ACK_TLVS, offset, end)
                    if error is not None:
                        raise error
                    if interrupted:
                        raise DumpInterruptedError
                    return
                yield buffer, offset, end

    def _write_one(self, request: Request, flags: int) -> None:
        header = HEADER.pack(16 + len(request.body), request.kind, flags, self._sequence, 0)
        self._raw.send(header + request.body)

    def events(self) -> Iterator[tuple[int, bytes, int, int]]:
        """The notifications that are there now: (kind, datagram, offset of the body, its end). Never waits.

        Raises: LostEventsError, after which the rest can be taken by another call.
        """
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    buffer = self._raw.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
                except OSError as error:
                    if error.errno == errno.ENOBUFS:
                        raise LostEventsError from error
                    raise
                for kind, _flags, _sequence, offset, end in messages(buffer):
                    yield kind, buffer, offset, end
