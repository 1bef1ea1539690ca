"""The resources: what the store keeps, REST shows and topics carry.

All are frozen; text fields are canonical (see `address`). A resource's revision is kept by the store beside it.
"""

from __future__ import annotations

import enum

import msgspec

from sdn.model.ids import EndpointId, HostId, NetworkId, TenantId

MTU_MIN_BYTES = 1280
"""RFC 8200, section 5: the least that IPv6 needs of a link."""
MTU_DEFAULT_BYTES = 1500
VXLAN_OVERHEAD_BYTES = {4: 50, 6: 70}
"""Outer IP, UDP, VXLAN (RFC 7348) and the inner Ethernet header, by family of the underlay."""
VNI_MAX = (1 << 24) - 1
TUNNEL_PORT_DEFAULT = "hwvxlan"
"""Of a switch: what the tunnel port is called where an agent makes it."""
ENDPOINTS_PER_NETWORK_AND_HOST_MAX = 1000
"""A bridge has 1023 ports; the VXLAN devices need two."""


class Datapath(enum.StrEnum):
    """What is programmed on a host."""

    BRIDGE = "bridge"
    OPENFLOW = "openflow"
    FAKE = "fake"
    SWITCH = "switch"
    """Of a switch without an agent, and only shown: kept and told to others as OPENFLOW, which everybody knows."""


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=False, omit_defaults=True):
    """The base of every value that crosses a process. Unknown fields are ignored: a newer peer may send them.

    Each class says `frozen=True, kw_only=True` itself: type checkers and msgspec do not inherit them.
    """


class Tenant(Value, frozen=True, kw_only=True):
    """An address space and an owner."""

    id: TenantId
    name: str
    labels: dict[str, str] = {}


class Subnet(Value, frozen=True, kw_only=True):
    """One prefix of a network.

    `gateway` answers on every host. `range` (first and last address, inclusive) bounds automatic choice; static
    addresses may lie outside of it. `reserved` addresses are never given out.
    """

    prefix: str
    gateway: str
    range: tuple[str, str] | None = None
    reserved: tuple[str, ...] = ()


class Network(Value, frozen=True, kw_only=True):
    """An isolated segment of one tenant. `mtu_bytes` is what containers get, fixed at creation."""

    id: NetworkId
    tenant: TenantId
    name: str
    vni: int
    subnets: tuple[Subnet, ...]
    mtu_bytes: int
    internal: bool = True
    labels: dict[str, str] = {}


class Host(Value, frozen=True, kw_only=True):
    """A machine, or in a lab a network namespace, that runs an agent.

    `incarnation` is boot id + ":" + cookie of the agent's network namespace; `session` is raised at each hello and
    messages of an older one are refused. A VTEP is None while the host has none of that family. `routes` are the
    prefixes that the host can reach by itself, which automatic subnets avoid. All is empty until the first hello.
    `drained_by` says who wants no further attachments on it; empty: it takes them.
    """

    id: HostId
    name: str
    incarnation: str = ""
    session: int = 0
    vtep4: str | None = None
    vtep6: str | None = None
    mtu_bytes: int = 0
    datapath: Datapath = Datapath.BRIDGE
    routes: tuple[str, ...] = ()
    version: str = ""
    labels: dict[str, str] = {}
    drained_by: str = ""


class Switch(Value, frozen=True, kw_only=True):
    """What an OpenFlow switch without an agent has beside what every host has; `host` is its id.

    `datapath_id`: 16 hex digits in lower case. `tunnel_port`: the port that sends to a flow's tunnel destination, by
    name, or by number in text. Its bound ports are endpoints: `ifname` is the port. `certificate`: SHA-256 of the only
    one that it may show ("": none was made, and it is believed over plain TCP); `authority`: of whom has signed that.
    """

    host: HostId
    datapath_id: str
    tunnel_port: str = TUNNEL_PORT_DEFAULT
    certificate: str = ""
    authority: str = ""


class Endpoint(Value, frozen=True, kw_only=True):
    """One interface of one container in one network. Unique: (host, container, ifname).

    `addresses` are with prefix length (`10.1.0.2/24`), in the order of the network's subnets. `sandbox` is the
    cookie of the container's network namespace (SO_NETNS_COOKIE). `client` and `scope` say whose attachment it is.
    """

    id: EndpointId
    host: HostId
    incarnation: str
    sandbox: int
    container: str
    ifname: str
    tenant: TenantId
    network: NetworkId
    mac: str
    addresses: tuple[str, ...]
    name: str = ""
    aliases: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    client: str = ""
    scope: str = ""


class Member(Value, frozen=True, kw_only=True):
    """A host that has endpoints of a network, as the network's topic shows it to the others."""

    host: HostId
    name: str
    vtep4: str | None = None
    vtep6: str | None = None
    mtu_bytes: int = 0
    datapath: Datapath = Datapath.BRIDGE


class Holder(enum.StrEnum):
    """What kind of thing holds an address."""

    ENDPOINT = "endpoint"
    RESERVATION = "reservation"
    GATEWAY = "gateway"
    SERVICE = "service"


class Allocation(Value, frozen=True, kw_only=True):
    """(network, address) -> its holder. `holder_id` is an endpoint's id, or the network's for the other kinds."""

    network: NetworkId
    address: str
    holder: Holder
    holder_id: str


def underlay_overhead_bytes(vtep4: str | None, vtep6: str | None) -> int:
    """What VXLAN costs between this host and its peers: 50, or 70 where the host has only an IPv6 VTEP."""
    return VXLAN_OVERHEAD_BYTES[6 if vtep4 is None and vtep6 is not None else 4]
