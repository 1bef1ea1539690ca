"""Cookies: whose a flow is. 16 bits that say "Hawse", 8 of kind, 40 of what the kind counts.

ENDPOINT  40 bits that follow from the endpoint's id: on all flows that exist because of it
DROP      8 bits of cause, 8 of zero, 24 of VNI: a counter of dropped frames
NETWORK   24 bits of VNI: what a network has whoever is in it
PIPELINE  the version of the tables that belong to nobody
"""

from __future__ import annotations

import enum
import hashlib
from typing import Final

from sdn.model.ids import EndpointId

TAG: Final = 0x4857 << 48
TAG_MASK: Final = 0xFFFF << 48
_KIND_SHIFT: Final = 40
_NUMBER_MASK: Final = (1 << 40) - 1


class Kind(enum.IntEnum):
    """What a cookie names."""

    PIPELINE = 1
    NETWORK = 2
    ENDPOINT = 3
    DROP = 4


CAUSES: Final = (
    "unknown-port",
    "mac-spoof",
    "ip4-spoof",
    "ip6-spoof",
    "arp-spoof",
    "nd-spoof",
    "router-advert",
    "dhcp-server",
    "multicast",
    "dad",
    "protocol",
    "not-here",
    "no-router",
    "foreign-vtep",
    "malformed-tunnel",
)
"""Every cause of a drop; its place is its number. Only ever appended to."""


def make(kind: Kind, number: int) -> int:
    """A cookie."""
    return TAG | kind << _KIND_SHIFT | number


def of_endpoint(endpoint: EndpointId) -> int:
    """An endpoint's. Two of 10 000 share one once in twenty thousand times; only what is shown depends on it."""
    return make(Kind.ENDPOINT, int.from_bytes(hashlib.blake2s(endpoint.encode(), digest_size=5).digest(), "big"))


def of_network(vni: int) -> int:
    """A network's."""
    return make(Kind.NETWORK, vni)


def of_drop(cause: str, vni: int) -> int:
    """A cause's in a network (0: of none)."""
    return make(Kind.DROP, CAUSES.index(cause) << 32 | vni)


def is_ours(cookie: int) -> bool:
    """Whether Hawse has given it."""
    return cookie & TAG_MASK == TAG


def split(cookie: int) -> tuple[int, int]:
    """(kind, number) of one of ours; a newer version may have kinds that this one does not know."""
    return cookie >> _KIND_SHIFT & 0xFF, cookie & _NUMBER_MASK


def cause_of(number: int) -> tuple[str, int]:
    """(cause, VNI) of a DROP's number; a cause that this version does not know is its number as text."""
    index = number >> 32
    return (CAUSES[index] if index < len(CAUSES) else str(index)), number & 0xFFFFFF
