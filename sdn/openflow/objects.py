"""What units lower to for a switch; each object expands to a few flows (`expand`), and is read back from them.

Ports are named as OVSDB names interfaces (on a switch without an agent: by their number as text); what number a name
has is known only where flows are sent. Keys do not name a tenant: a VNI has one.

    ("network", vni)            NetworkFlows    its counters, one drop per cause; the tunnel's admission by default
    ("gateway", vni, address)   Gateway         answers ARP, ND and echo for it
    ("member", vni, vtep)       Member          tunnel packets of that VNI are taken from that VTEP
    ("speaker", port)           Speaker         classification and anti-spoof of a port of this switch
    ("station", vni, mac)       Station         where frames to a MAC go
    ("neighbour", vni, address) Neighbour       what is answered to ARP and ND for an address
    ("stray", table, priority, match)           a flow of ours that nothing explains: Damaged, to be deleted
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Final

from sdn.model.ids import TenantId
from sdn.reconcile.datapath import Key

TUNNEL: Final = "hwvxlan"
"""The name, among the ports, of the one that all tunnels go by."""


@dataclasses.dataclass(frozen=True, slots=True)
class NetworkFlows:
    """A network that the switch has ports of, of a tenant (by `tenant_number`). ("network", vni)"""

    tenant: int


@dataclasses.dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway's address, of a tenant (by `tenant_number`). ("gateway", vni, address)"""

    mac: str
    tenant: int


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A VTEP whose tunnel packets of a VNI are taken. ("member", vni, VTEP)"""


@dataclasses.dataclass(frozen=True, slots=True)
class Speaker:
    """A port of this switch may speak for one MAC and its addresses. ("speaker", port)

    `addresses`: sorted as text, without prefix length, and without the link-local address that follows from the MAC,
    which is its own, too. `cookie`: of its endpoint.
    """

    vni: int
    mac: str
    addresses: tuple[str, ...]
    cookie: int


@dataclasses.dataclass(frozen=True, slots=True)
class Station:
    """Frames to a MAC leave by `port`, or, where that is "", in the tunnel to `vtep`. ("station", vni, mac)"""

    port: str
    vtep: str
    cookie: int


@dataclasses.dataclass(frozen=True, slots=True)
class Neighbour:
    """Who asks for an address is told this MAC. ("neighbour", vni, address)"""

    mac: str
    cookie: int


@dataclasses.dataclass(frozen=True, slots=True)
class Damaged:
    """What was read of an object's flows is not what it expands to; it is written anew. Equal to nothing wanted.

    `found`: (table, priority, match) of each flow, the match as bytes: what a deletion needs.
    """

    found: tuple[tuple[int, int, bytes], ...]


RANKS: Final = ("network", "member", "gateway", "speaker", "station", "neighbour", "stray")
"""Kinds in the order of their creation."""


def rank(key: Key) -> int:
    """The place of a key's kind in the order of creation."""
    return RANKS.index(key[0])


def gateway_mac(vni: int) -> str:
    """The MAC of a network's gateway, the same on every host and every datapath."""
    return "02:48:57:" + vni.to_bytes(3, "big").hex(":")


def tenant_number(tenant: TenantId) -> int:
    """32 bits that follow from a tenant's id. Where two share them, a cause of a drop may have the wrong name."""
    return int.from_bytes(hashlib.blake2s(tenant.encode(), digest_size=4).digest(), "big")
