"""What units lower to for a switch; each object expands to a few flows (`expand`), and is read back from them.

Ports are named as OVSDB names interfaces (on a switch without an agent: by their number as text); what number a name
has is known only where flows are sent. Keys do not name a tenant: a VNI has one.

    ("network", vni)            NetworkFlows    its counters, one drop per cause; the tunnel's admission by default
    ("gateway", vni, address)   Gateway         answers ARP, ND and echo for it
    ("member", vni, vtep)       Member          tunnel packets of that VNI are taken from that VTEP
    ("speaker", port)           Speaker         classification and anti-spoof of a port of this switch
    ("station", vni, mac)       Station         where frames to a MAC go
    ("neighbour", vni, address) Neighbour       what is answered to ARP and ND for an address
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class NetworkFlows:
    """A network that the switch has ports of. ("network", vni)"""


@dataclasses.dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway's address. ("gateway", vni, address)"""

    mac: str


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A VTEP whose tunnel packets of a VNI are taken. ("member", vni, VTEP)"""


@dataclasses.dataclass(frozen=True, slots=True)
class Speaker:
    """A port of this switch may speak for one MAC and its addresses (without prefix length). ("speaker", port)

    The link-local address that follows from the MAC is its own, too. `cookie`: of its endpoint.
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
    """What was read of an object's flows is not what it expands to; it is written anew. Equal to nothing wanted."""

    flows: int
