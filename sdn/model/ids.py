"""Ids: 26 characters of Crockford's base 32 in lower case, 48 bits of milliseconds and 80 of chance.

They sort by the time they were made and are never used again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NewType

from sdn.model.errors import invalid

TenantId = NewType("TenantId", str)
NetworkId = NewType("NetworkId", str)
HostId = NewType("HostId", str)
EndpointId = NewType("EndpointId", str)
Revision = NewType("Revision", int)
"""Raised by one with each committed transaction; 0 before the first."""

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
ID_LENGTH = 26


class IdSource:
    """Makes ids from an injected clock (seconds since the epoch) and a source of chance (n -> n random bits)."""

    def __init__(self, clock: Callable[[], float], random_bits: Callable[[int], int]) -> None:
        self._clock = clock
        self._random_bits = random_bits
        self._last = 0

    def __call__(self) -> str:
        """A new id, greater than every id this source has made before."""
        number = (int(self._clock() * 1000) << 80) | self._random_bits(80)
        if number <= self._last:  # the same millisecond, or a clock that was set back
            number = self._last + 1 + self._random_bits(40)
        self._last = number
        return encode_id(number)


def encode_id(number: int) -> str:
    """The 26 characters of a 128-bit number."""
    return "".join(ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def is_id(text: str) -> bool:
    """Whether a reference has the shape of an id (names may not)."""
    return len(text) == ID_LENGTH and text[0] in "01234567" and not text.strip(ALPHABET)


NAME_LENGTH_MAX = 63


def parse_name(text: str, what: str) -> str:
    """A name of a resource: up to 63 of a-z, 0-9, `-`, `_`, `.`, starting with a letter or digit, not shaped as an id.

    Raises: INVALID, naming `what`.
    """
    allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
    article = "an" if what[0] in "aeiou" else "a"
    if not text or len(text) > NAME_LENGTH_MAX or not text[0].isalnum() or any(c not in allowed for c in text):
        raise invalid(
            f"{text!r} is not a name for {article} {what}",
            "use up to 63 letters, digits, '-', '_' and '.', starting with a letter or a digit",
            name=text,
        )
    if is_id(text):
        raise invalid(f"{text!r} looks like an id: {article} {what} cannot be named so", "choose a shorter name")
    return text
