"""Netlink to nf_tables, raw: the messages, one transaction, one dump. What libnftables costs too much for.

A batch is one `sendmsg` and one transaction of the kernel: all of it happens or nothing. Families are per message,
so one batch may touch a bridge table and an inet table.

Source: linux/netfilter/nfnetlink.h and nf_tables.h; net/netfilter/nfnetlink.c (nfnetlink_rcv_batch).
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from plugin.kernel.namespace import socket_in

NETLINK_NETFILTER: Final = 12
REQUEST, ACK, ROOT_AND_MATCH, CREATE = 0x1, 0x4, 0x300, 0x400

_SUBSYSTEM: Final = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_ERROR, _DONE, _MINIMUM_TYPE = 2, 3, 0x10
_NESTED: Final = 0x8000
_DUMP_INTERRUPTED: Final = 0x10
_SOL_NETLINK, _EXT_ACK, _CAP_ACK = 270, 11, 10
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER_BYTES: Final = 4 << 20  # a batch is one skb: the default of 200 kB would refuse one of 1000 ports
_REPLY_TIMEOUT_S: Final = 10  # the kernel answers inside sendmsg; this bounds a fault, not a wait
_DUMP_ATTEMPTS: Final = 10  # a dump that met a writer is taken again; ten writers in a row are a fault
_RECEIVE_BYTES: Final = 1 << 17

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_GENERIC = struct.Struct("!BBH")  # family, version, resource id
_ATTRIBUTE = struct.Struct("=HH")


class Family(enum.IntEnum):
    """NFPROTO_*: the family of a table."""

    INET = 1
    ARP = 3
    NETDEV = 5
    BRIDGE = 7


class Type(enum.IntEnum):
    """NFT_MSG_*: the messages that are used here."""

    GET_TABLE = 1
    DELETE_TABLE = 2
    GET_CHAIN = 4
    NEW_ELEMENTS = 12
    GET_ELEMENTS = 13
    DELETE_ELEMENTS = 14
    NEW_OBJECT = 18
    GET_OBJECT = 19
    DELETE_OBJECT = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One nf_tables message; `payload` is its attributes."""

    type: Type
    family: Family
    payload: bytes
    flags: int = 0


class NetfilterError(OSError):
    """The kernel refused a message: `errno`, and its own text where it sent one."""


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    length = 4 + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


def nest(kind: int, payload: bytes) -> bytes:
    """One attribute that holds others."""
    return attribute(kind | _NESTED, payload)


def text(kind: int, value: str) -> bytes:
    """One attribute that holds a string."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of some bytes: (kind without flags, payload)."""
    position, end = 0, len(data)
    while position + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < 4:
            return
        yield kind & 0x3FFF, data[position + 4 : position + length]
        position += (length + 3) & ~3


class NetfilterSocket:
    """A socket to nf_tables of one network namespace (None: the caller's). Calls from several threads take turns."""

    def __init__(self, ns_fd: int | None = None) -> None:
        self._lock = threading.Lock()
        self._sequence = 0
        self._socket = _open(ns_fd)

    def transact(self, messages: Sequence[Message]) -> None:
        """Do them all or none, returning when it is done. Raises: NetfilterError of the first that was refused."""
        if not messages:
            return
        with self._lock:
            first = self._sequence + 1
            last = first + len(messages)
            self._sequence = last + 1
            parts = [_pack(_BATCH_BEGIN, REQUEST, first, 0, _SUBSYSTEM, b"")]
            for sequence, message in enumerate(messages, first + 1):
                # An acknowledgement of the last message comes after the commit: older kernels send none for the end.
                flags = message.flags | REQUEST | (ACK if sequence == last else 0)
                parts.append(_encode(message, flags, sequence))
            parts.append(_pack(_BATCH_END, REQUEST, last + 1, 0, _SUBSYSTEM, b""))
            self._send(b"".join(parts))
            self._await_verdict(first, last)

    def dump(self, message: Message) -> list[bytes]:
        """The payloads of the kernel's answers to a GET of many, of one moment. Raises: NetfilterError."""
        for _ in range(_DUMP_ATTEMPTS):
            with self._lock, contextlib.suppress(InterruptedError):
                return self._query(message, REQUEST | ROOT_AND_MATCH)
        raise NetfilterError(4, f"a dump met another writer {_DUMP_ATTEMPTS} times")

    def get(self, message: Message) -> list[bytes]:
        """The payload of the kernel's answer to a GET of one thing. Raises: NetfilterError (ENOENT: not there)."""
        with self._lock:
            return self._query(message, REQUEST | ACK)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _send(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise NetfilterError(error.errno, f"{len(data)} bytes not sent: {error.strerror}") from error

    def _query(self, message: Message, flags: int) -> list[bytes]:
        self._sequence += 1
        expected, interrupted = self._sequence, False
        found: list[bytes] = []
        self._send(_encode(message, flags, expected))
        for kind, seen_flags, sequence, payload in self._receive():
            if sequence != expected:
                continue
            interrupted = interrupted or bool(seen_flags & _DUMP_INTERRUPTED)
            if kind in (_ERROR, _DONE):
                number = -_integer(payload)
                if number:
                    raise NetfilterError(number, _extended_text(payload, seen_flags) or os.strerror(number))
                if interrupted:
                    raise InterruptedError
                return found
            if kind >= _MINIMUM_TYPE:
                found.append(payload[4:])
        raise AssertionError("the receiving loop ends by return or by error")

    def _await_verdict(self, first: int, last: int) -> None:
        failure: NetfilterError | None = None
        for kind, flags, sequence, payload in self._receive():
            if kind != _ERROR or not first <= sequence <= last + 1:
                continue
            number = -_integer(payload)
            if number and failure is None:
                failure = NetfilterError(number, _extended_text(payload, flags) or os.strerror(number))
            # The first message's error (no such subsystem, not permitted) is the only answer there will be.
            if sequence == last or (number and sequence in (first, last + 1)):
                break
        if failure is not None:
            raise failure

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """(type, flags, sequence, payload) of one message after the other, without end."""
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except OSError as error:
                raise NetfilterError(error.errno, f"no answer of nf_tables: {error.strerror}") from error
            position = 0
            while position + 16 <= len(data):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data, position)
                yield kind, flags, sequence, data[position + 16 : position + length]
                position += (length + 3) & ~3


def _open(ns_fd: int | None) -> socket.socket:
    channel = socket_in(ns_fd, socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    channel.bind((0, 0))
    # As an option and not by settimeout(), which costs a poll() before each call.
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _REPLY_TIMEOUT_S, 0))
    for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
        with contextlib.suppress(OSError):  # without the right to, the default stands and large batches are refused
            channel.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    channel.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
    channel.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)  # errors without a copy of the message
    return channel


def _pack(kind: int, flags: int, sequence: int, family: int, resource: int, payload: bytes) -> bytes:
    return (
        _HEADER.pack(20 + len(payload), kind, flags, sequence, 0) + _GENERIC.pack(family, 0, resource) + payload
    )  # payloads are attributes, hence already padded


def _encode(message: Message, flags: int, sequence: int) -> bytes:
    return _pack(_SUBSYSTEM << 8 | message.type, flags, sequence, message.family, 0, message.payload)


def _integer(payload: bytes) -> int:
    return int(struct.unpack_from("=i", payload)[0]) if len(payload) >= 4 else 0


def _extended_text(payload: bytes, flags: int) -> str:
    """The kernel's sentence in an error with NLM_F_ACK_TLVS, after the error number and the message's header."""
    if not flags & 0x200:
        return ""
    for kind, value in attributes(payload[20:]):
        if kind == 1:
            return value.rstrip(b"\0").decode(errors="replace")
    return ""
