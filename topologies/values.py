"""What a topology file says, as frozen values. `schema` is the only way in: what exists is valid.

A network is always named `tenant/name` here, whatever short form the file used.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import assert_never

from sdn.model.container import MountSpec, Restart

DEFAULT_TENANT = "default"
UNDERLAY_PREFIX4 = "100.64.0.0/24"
"""Shared address space (RFC 6598): neither a pool of ours nor what people type into a topology."""
UNDERLAY_PREFIX6 = "fd64:6877::/64"
UNDERLAY_MTU_BYTES = 1500
CONTROLLER_PORT = 4780


class Datapath(enum.StrEnum):
    """What carries a host's frames. `switch`: an Open vSwitch without an agent; the controller programs it."""

    BRIDGE = "bridge"
    OPENFLOW = "openflow"
    SWITCH = "switch"

    @property
    def has_agent(self) -> bool:
        """Whether an agent programs it."""
        return self is not Datapath.SWITCH

    @property
    def has_vswitch(self) -> bool:
        """Whether there is an Open vSwitch on the host."""
        return self is not Datapath.BRIDGE


class Protocol(enum.StrEnum):
    """What a probe is made of. TCP and UDP are tried in each address family that both ends have."""

    PING = "ping"
    PING6 = "ping6"
    TCP = "tcp"
    UDP = "udp"


class Lie(enum.StrEnum):
    """What is forged in a frame."""

    MAC = "mac"
    IP4 = "ip4"
    IP6 = "ip6"
    ARP = "arp"
    ND = "nd"
    ROUTER_ADVERT = "router-advert"
    DHCP_SERVER = "dhcp-server"
    MULTICAST = "multicast"
    DAD = "dad"
    PROTOCOL = "protocol"

    @property
    def cause(self) -> str:
        """The guard's counter that it is expected to raise."""
        match self:
            case Lie.MAC | Lie.IP4 | Lie.IP6 | Lie.ARP | Lie.ND:
                return f"{self.value}-spoof"
            case Lie.ROUTER_ADVERT | Lie.DHCP_SERVER | Lie.MULTICAST | Lie.DAD | Lie.PROTOCOL:
                return self.value
            case _:
                assert_never(self)


CAUSES: tuple[str, ...] = tuple(lie.cause for lie in Lie)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """What the hosts hang on. At least one prefix is there; the controller has an address of each."""

    prefix4: str | None
    prefix6: str | None
    controller4: str | None
    controller6: str | None
    mtu_bytes: int

    @property
    def controllers(self) -> tuple[str, ...]:
        """The controller's addresses, IPv4 first."""
        return tuple(address for address in (self.controller4, self.controller6) if address)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """One host: its underlay addresses with prefix length (None: none of that family)."""

    name: str
    interface4: str | None
    interface6: str | None
    mtu_bytes: int
    datapath: Datapath


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SubnetSpec:
    """One subnet, as the API takes it."""

    prefix: str
    gateway: str | None = None
    range: str | None = None
    reserved: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """One network. Without subnets the controller chooses, for the families that are true."""

    tenant: str
    name: str
    subnets: tuple[SubnetSpec, ...]
    ipv4: bool
    ipv6: bool
    mtu_bytes: int | None

    @property
    def reference(self) -> str:
        """`tenant/name`."""
        return f"{self.tenant}/{self.name}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentSpec:
    """One interface of a container; empty means the allocator's choice."""

    network: str
    ifname: str
    addresses: tuple[str, ...] = ()
    mac: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """An image that has to be brought along: `path` as the file has it, relative to the file's directory.

    `root`: it is a root file system (None: what is found at the path decides). `name`: `repository:tag` for one that
    has none. `line`: of the file.
    """

    path: str
    name: str
    root: bool | None
    line: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What runs in a container. `image` None: the pseudo-image `host`. Empty, 0: as the image says, no limit.

    Of `mounts` the paths of the host are as the file has them, relative to its directory; `line` is where they stand.
    """

    image: ImageSource | None = None
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    memory_bytes: int = 0
    cpus: float = 0.0
    pids: int = 0
    mounts: tuple[MountSpec, ...] = ()
    line: int = 0
    read_only: bool = False
    init: bool = False
    restart: Restart = Restart.NO
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """One container: where it is, what it is attached to, what runs in it."""

    name: str
    host: str
    attachments: tuple[AttachmentSpec, ...]
    workload: Workload = Workload()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """`sender` reaches `receiver` (or does not) by a protocol; `via` a network: only its addresses there."""

    sender: str
    receiver: str
    protocol: Protocol
    via: str | None
    reach: bool
    line: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Forgery:
    """A frame of `sender` with a lie in it never reaches `receiver`, and the counter `cause` of its host rises."""

    sender: str
    receiver: str
    lie: Lie
    cause: str
    line: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A whole file. Names of hosts and containers are one space: `lab exec` takes either."""

    name: str
    underlay: Underlay
    hosts: tuple[HostSpec, ...]
    tenants: tuple[str, ...]
    networks: tuple[NetworkSpec, ...]
    containers: tuple[ContainerSpec, ...]
    expectations: tuple[Expectation, ...]
    forgeries: tuple[Forgery, ...]

    def on(self, datapath: Datapath) -> Topology:
        """The same with all hosts on one datapath."""
        return dataclasses.replace(
            self, hosts=tuple(dataclasses.replace(host, datapath=datapath) for host in self.hosts)
        )
