"""Addresses, prefixes and MACs: text in canonical form, parsed by netaddr, refused with a sentence.

Values that cross a process hold text (`10.1.0.2`, `10.1.0.0/24`, `0a:51:0a:01:00:02`); arithmetic is done on the
integers that `Prefix` holds.
"""

from __future__ import annotations

import dataclasses
import functools
import socket
from typing import Literal

from sdn.model.errors import invalid

Family = Literal[4, 6]
BITS: dict[Family, int] = {4: 32, 6: 128}


@dataclasses.dataclass(frozen=True, slots=True)
class Prefix:
    """`first` is the network address as an integer, `length` the prefix length in bits."""

    family: Family
    first: int
    length: int

    @property
    def size(self) -> int:
        """How many addresses it spans, network and broadcast address included."""
        return 1 << (BITS[self.family] - self.length)

    @property
    def last(self) -> int:
        """The highest address, as an integer."""
        return self.first + self.size - 1

    def __contains__(self, number: int) -> bool:
        return self.first <= number <= self.last

    def overlaps(self, other: Prefix) -> bool:
        """Whether the two share an address."""
        return self.family == other.family and self.first <= other.last and other.first <= self.last

    def __str__(self) -> str:
        return f"{format_address(self.family, self.first)}/{self.length}"


def family_of(address: str) -> Family:
    """4 or 6, of an address or prefix in text that is known to be valid."""
    return 6 if ":" in address else 4


def is_loopback(host: str) -> bool:
    """Whether an address or name in text means the machine itself."""
    return host in ("::1", "localhost") or host.startswith("127.")


def address_number(address: str) -> int:
    """The integer of a valid address in text."""
    return int.from_bytes(address_bytes(address), "big")


def address_bytes(address: str) -> bytes:
    """The 4 or 16 bytes of a valid address in text, in network order."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def format_address(family: Family, number: int) -> str:
    """The canonical text of an address (RFC 5952 for IPv6)."""
    if family == 4:
        return socket.inet_ntop(socket.AF_INET, number.to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, number.to_bytes(16, "big"))


def parse_address(text: str) -> str:
    """The canonical text of an address. Raises: INVALID."""
    try:
        family: Family = 6 if ":" in text else 4
        packed = socket.inet_pton(socket.AF_INET6 if family == 6 else socket.AF_INET, text)
    except (OSError, ValueError, TypeError):
        raise invalid(f"{text!r} is not an IP address", "write 10.1.0.2 or fd00::2", address=text) from None
    return format_address(family, int.from_bytes(packed, "big"))


def parse_prefix(text: str) -> Prefix:
    """A prefix whose host bits are zero. Raises: INVALID, with the prefix that was probably meant."""
    address, slash, length_text = text.partition("/")
    length = _parse_length(length_text)
    if not slash or length is None:
        raise invalid(f"{text!r} is not a prefix", "write it as 10.1.0.0/24 or fd00:1::/64", prefix=text)
    canonical = parse_address(address)
    family = family_of(canonical)
    if length > BITS[family]:
        raise invalid(f"{text!r} has a prefix length above {BITS[family]}", "", prefix=text)
    number = address_number(canonical)
    first = number >> (BITS[family] - length) << (BITS[family] - length)
    prefix = Prefix(family, first, length)
    if first != number:
        raise invalid(f"{text!r} has host bits set", f"did you mean {prefix}?", prefix=text, meant=str(prefix))
    return prefix


def parse_interface(text: str) -> tuple[str, int]:
    """`10.1.0.2/24` as its canonical address and prefix length, host bits allowed. Raises: INVALID."""
    address, slash, length_text = text.partition("/")
    canonical = parse_address(address)
    length = _parse_length(length_text)
    if not slash or length is None or length > BITS[family_of(canonical)]:
        raise invalid(f"{text!r} is not an address with a prefix length", "write it as 10.1.0.2/24")
    return canonical, length


def _parse_length(text: str) -> int | None:
    """The number that decimal digits mean, or some number above 128 if it is larger; None if they are none."""
    if not text.isascii() or not text.isdecimal():
        return None
    return int(text.lstrip("0")[:4] or "0")  # whole, int() refuses more than 4300 digits with an error of its own


def parse_mac(text: str) -> str:
    """The canonical text of a unicast MAC (`0a:51:0a:01:00:02`). Raises: INVALID."""
    from netaddr import EUI, AddrFormatError, mac_unix_expanded  # 60 ms: only who parses one pays

    try:
        eui = EUI(text, version=48, dialect=mac_unix_expanded)
    except (AddrFormatError, ValueError, TypeError):
        raise invalid(f"{text!r} is not a MAC address", "write it as 0a:00:00:00:00:01", mac=text) from None
    if int(eui) >> 40 & 1 or int(eui) == 0:
        raise invalid(f"{eui} is not a unicast MAC address", "its first byte must be even and it not all zero")
    return str(eui)


def mac_bytes(mac: str) -> bytes:
    """The 6 bytes of a valid MAC in text."""
    return bytes.fromhex(mac.replace(":", ""))


def format_mac(raw: bytes) -> str:
    """The canonical text of 6 bytes."""
    return raw.hex(":")


@functools.lru_cache(256)
def link_local(mac: str) -> str:
    """The fe80:: address made from a MAC by modified EUI-64 (RFC 4291, appendix A)."""
    raw = mac_bytes(mac)
    packed = b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    return socket.inet_ntop(socket.AF_INET6, packed)
