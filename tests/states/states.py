"""Named desired states of host h1, as plain values: for the laws on every datapath, and for the golden texts.

VTEPs are from the documentation ranges (RFC 5737, RFC 3849). States that may follow each other on one host are listed
in `SEQUENCES`; `STATES` has them all by name.
"""

from __future__ import annotations

import msgspec

from sdn.model.address import address_bytes
from sdn.model.ids import EndpointId, HostId, NetworkId, TenantId, encode_id
from sdn.model.resources import Endpoint, Member, Network, Subnet, Tenant
from sdn.reconcile.state import State
from sdn.reconcile.unit import Here


def id_of(kind: int, number: int) -> str:
    """A well-formed id that sorts by kind and number and ends in them (names in the kernel use the end)."""
    return encode_id(kind << 40 | number)


def tenant(number: int, name: str) -> Tenant:
    """Tenant `number`."""
    return Tenant(id=TenantId(id_of(1, number)), name=name)


def network(number: int, owner: Tenant, *subnets: Subnet, mtu_bytes: int = 1450) -> Network:
    """Network `number`, VNI 100 + number."""
    return Network(
        id=NetworkId(id_of(2, number)),
        tenant=owner.id,
        name=f"net{number}",
        vni=100 + number,
        subnets=subnets,
        mtu_bytes=mtu_bytes,
    )


def host(number: int) -> HostId:
    """The id of host `number`."""
    return HostId(id_of(3, number))


def member(number: int, *, four: bool = True, six: bool = False, vtep4: str | None = None) -> Member:
    """Host `number` as a member, with its usual VTEPs of the families it has."""
    return Member(
        host=host(number),
        name=f"h{number}",
        vtep4=vtep4 or (f"192.0.2.{number}" if four else None),
        vtep6=f"2001:db8::{number}" if six else None,
        mtu_bytes=1500,
    )


def endpoint(number: int, on: int, where: Network, *addresses: str, mac: str = "") -> Endpoint:
    """Endpoint `number` on host `on`: eth0 of container c<number>, whose namespace has the cookie 1000 + number.

    Without `mac`: `0a:01` and the last four bytes of the first address, as the controller makes them.
    """
    first = address_bytes(addresses[0].partition("/")[0])
    return Endpoint(
        id=EndpointId(id_of(4, number)),
        host=host(on),
        incarnation=f"boot:{on}",
        sandbox=1000 + number,
        container=f"c{number}",
        ifname="eth0",
        tenant=where.tenant,
        network=where.id,
        mac=mac or "0a:01:" + first[-4:].hex(":"),
        addresses=addresses,
    )


def moved(which: Endpoint, to: int) -> Endpoint:
    """The same endpoint on another host."""
    return msgspec.structs.replace(which, host=host(to), incarnation=f"boot:{to}")


HERE = Here(host(1), "192.0.2.1", None)
HERE6 = Here(host(1), None, "2001:db8::1")
HERE46 = Here(host(1), "192.0.2.1", "2001:db8::1")

BLUE, RED = tenant(1, "blue"), tenant(2, "red")
V4 = Subnet(prefix="10.1.0.0/24", gateway="10.1.0.1")
V6 = Subnet(prefix="fd00:1::/64", gateway="fd00:1::1")
WEB = network(1, BLUE, V4)
DUAL = network(2, BLUE, Subnet(prefix="10.2.0.0/24", gateway="10.2.0.1"), V6)
RED_WEB = network(3, RED, V4)

C1 = endpoint(1, 1, WEB, "10.1.0.2/24")
C2 = endpoint(2, 1, WEB, "10.1.0.3/24")
C3 = endpoint(3, 2, WEB, "10.1.0.4/24")
C4 = endpoint(4, 3, WEB, "10.1.0.5/24")
C1_AGAIN = endpoint(9, 1, WEB, "10.1.0.2/24")
C1_OTHER_MAC = endpoint(12, 1, WEB, "10.1.0.2/24", mac="0a:77:00:00:00:02")
C1_ELSEWHERE = endpoint(10, 2, WEB, "10.1.0.2/24")
D1 = endpoint(5, 1, DUAL, "10.2.0.2/24", "fd00:1::2/64")
D2 = endpoint(6, 2, DUAL, "10.2.0.3/24", "fd00:1::3/64")
R1 = endpoint(7, 1, RED_WEB, "10.1.0.2/24")
R2 = endpoint(8, 2, RED_WEB, "10.1.0.4/24")

EMPTY = State("empty", HERE)
TENANT_ONLY = State("tenant-only", HERE, (BLUE,))
ONE = State("one-local", HERE, (BLUE,), (WEB,), ((WEB.id, member(1)),), (C1,))
DUAL_STACK = State("dual-stack", HERE, (BLUE,), (DUAL,), ((DUAL.id, member(1)), (DUAL.id, member(2))), (D1, D2))
REMOTE = State(
    "remote", HERE, (BLUE,), (WEB,), tuple((WEB.id, member(number)) for number in (1, 2, 3)), (C1, C2, C3, C4)
)
EQUAL_TENANTS = State(
    "equal-tenants",
    HERE,
    (BLUE, RED),
    (WEB, RED_WEB),
    tuple((which.id, member(number)) for which in (WEB, RED_WEB) for number in (1, 2)),
    (C1, C3, R1, R2),
)
UNDERLAY6 = State(
    "underlay-ipv6",
    HERE6,
    (BLUE,),
    (WEB, DUAL),
    tuple((which.id, member(number, four=False, six=True)) for which in (WEB, DUAL) for number in (1, 2)),
    (C1, C3, D1, D2),
)
UNDERLAY46 = State(
    "underlay-dual",
    HERE46,
    (BLUE,),
    (WEB,),
    (
        (WEB.id, member(1, six=True)),
        (WEB.id, member(2, six=True)),
        (WEB.id, member(3, four=False, six=True)),
    ),
    (C1, C3, C4),
)
NO_VTEP = State("no-vtep", Here(host(1), None, None), (BLUE,), (WEB,), ((WEB.id, member(1, four=False)),), (C1, C2))
_TWO = ((WEB.id, member(1)), (WEB.id, member(2)))
MOVE_LOCAL = State("move-1-local", HERE, (BLUE,), (WEB,), _TWO, (C1, C2, C3))
MOVE_REMOTE = State("move-2-remote", HERE, (BLUE,), (WEB,), _TWO, (moved(C1, 2), C2, C3))
MOVE_BACK = State("move-3-back", HERE, (BLUE,), (WEB,), _TWO, (C1, C2, C3))
HANDED = State("address-handed-on", HERE, (BLUE,), (WEB,), _TWO, (C1_AGAIN, C2, C3))
HANDED_AWAY = State("address-handed-away", HERE, (BLUE,), (WEB,), _TWO, (C1_ELSEWHERE, C2, C3))
HANDED_OTHER_MAC = State("address-handed-to-another-mac", HERE, (BLUE,), (WEB,), _TWO, (C1_OTHER_MAC, C2, C3))
NETWORK_REMOVED = State("network-removed", HERE, (BLUE,), (DUAL,), DUAL_STACK.members, (D1, D2))
VTEP_CHANGED = State(
    "member-changes-vtep",
    HERE,
    (BLUE,),
    (WEB,),
    ((WEB.id, member(1)), (WEB.id, member(2, vtep4="198.51.100.2")), (WEB.id, member(3))),
    (C1, C2, C3, C4),
)
SUBNET_ADDED = State(
    "subnet-added",
    HERE,
    (BLUE,),
    (network(1, BLUE, V4, V6),),
    _TWO,
    (C1, C2, C3, endpoint(11, 1, WEB, "fd00:1::b/64")),
)

STATES: dict[str, State] = {
    state.name: state
    for state in (
        EMPTY,
        TENANT_ONLY,
        ONE,
        DUAL_STACK,
        REMOTE,
        EQUAL_TENANTS,
        UNDERLAY6,
        UNDERLAY46,
        NO_VTEP,
        MOVE_LOCAL,
        MOVE_REMOTE,
        MOVE_BACK,
        HANDED,
        HANDED_AWAY,
        HANDED_OTHER_MAC,
        NETWORK_REMOVED,
        VTEP_CHANGED,
        SUBNET_ADDED,
    )
}

SEQUENCES: dict[str, tuple[State, ...]] = {
    "grow-and-shrink": (EMPTY, TENANT_ONLY, ONE, REMOTE, DUAL_STACK, EMPTY),
    "tenants": (ONE, EQUAL_TENANTS, EMPTY, EQUAL_TENANTS),
    "move": (MOVE_LOCAL, MOVE_REMOTE, MOVE_BACK),
    "hand-over": (MOVE_LOCAL, HANDED, HANDED_OTHER_MAC, HANDED_AWAY, MOVE_LOCAL),
    "network-removed": (REMOTE, NETWORK_REMOVED),
    "members": (REMOTE, VTEP_CHANGED, REMOTE),
    "underlay": (ONE, UNDERLAY46, UNDERLAY6, NO_VTEP, REMOTE),
    "subnets": (MOVE_LOCAL, SUBNET_ADDED, MOVE_LOCAL),
}
