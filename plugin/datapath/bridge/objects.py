"""The objects of the bridge datapath, their keys and their names in the kernel.

Every key is (kind, tenant, …). A VNI of the underlay's guard that no tenant's bridge explains has the tenant "".
"""

from __future__ import annotations

import dataclasses
from typing import Final

from plugin.datapath.veth.ports import ALIAS_PREFIX
from sdn.reconcile.datapath import Key

VXLAN_PORT: Final = 4789

SYSCTLS: Final[tuple[tuple[str, str], ...]] = (
    ("ipv4/ip_forward", "0"),  # first: it resets others
    ("ipv4/conf/all/forwarding", "0"),
    ("ipv4/conf/default/forwarding", "0"),
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv4/conf/default/arp_ignore", "1"),
    ("ipv4/conf/all/proxy_arp", "0"),
    ("ipv4/conf/default/proxy_arp", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/icmp_echo_ignore_all", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/forwarding", "0"),
    ("ipv6/conf/default/forwarding", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
    ("ipv6/conf/default/autoconf", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),  # no link-local address of its own on any port: no MLD, no solicitations
    ("bridge/bridge-nf-call-arptables", "0"),
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
)
"""What is set, never assumed, in a tenant namespace (below /proc/sys/net), in order."""

BRIDGE_SETTINGS: Final = (0, 0, 0, 0)
PORT_SWITCHES: Final[frozenset[str]] = frozenset()
"""Of a container's port: nothing learnt, nothing flooded to it."""
PROXY_SWITCHES: Final = frozenset({"mcast_flood", "bcast_flood"})


@dataclasses.dataclass(frozen=True, slots=True)
class Namespace:
    """A tenant's namespace on this host. ("namespace", tenant)"""

    loopback_up: bool = True
    sysctls: tuple[tuple[str, str], ...] = SYSCTLS


@dataclasses.dataclass(frozen=True, slots=True)
class GuardTable:
    """The guard's tables, of the version that this code knows. ("guard-table", tenant)"""


@dataclasses.dataclass(frozen=True, slots=True)
class Bridge:
    """A network's bridge. ("bridge", tenant, name)

    `settings`: ageing time, multicast snooping, spanning tree, forward delay.
    """

    network: str
    mac: str
    mtu_bytes: int
    settings: tuple[int, int, int, int] = BRIDGE_SETTINGS
    up: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway's address on a bridge. ("gateway", tenant, bridge, address with prefix length)"""


@dataclasses.dataclass(frozen=True, slots=True)
class Counters:
    """The guard's counters of a network. ("counters", tenant, VNI)"""


@dataclasses.dataclass(frozen=True, slots=True)
class Vxlan:
    """A carrier: `local` is its VTEP ("": any), `switches` the bridge port's that are on. ("vxlan", tenant, name)"""

    network: str
    bridge: str
    vni: int
    local: str
    proxy: bool
    mtu_bytes: int
    switches: frozenset[str]
    port: int = VXLAN_PORT
    learning: bool = False
    up: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class UnderlayNetwork:
    """The underlay's guard knows the VNI, and counts what it drops of it. ("underlay-network", tenant, VNI)"""


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A VTEP whose tunnel packets of a VNI are taken. ("member", tenant, VNI, VTEP)"""


@dataclasses.dataclass(frozen=True, slots=True)
class Port:
    """The host end of an endpoint's veth; the alias says whose. ("port", tenant, name)"""

    bridge: str
    mtu_bytes: int
    alias: str
    switches: frozenset[str] = PORT_SWITCHES
    up: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Station:
    """A MAC of a network: the bridge forwards to `port`. ("station", tenant, bridge, MAC)

    For one elsewhere that is a carrier, which sends to `vtep`.
    """

    port: str
    vtep: str


@dataclasses.dataclass(frozen=True, slots=True)
class Neighbour:
    """What the proxy answers for an address. ("neighbour", tenant, carrier, address)"""

    mac: str


def bridge_name(vni: int) -> str:
    """A network's bridge."""
    return f"hwb{vni}"


def vni_of(device: str) -> int:
    """The VNI in the name of a bridge or carrier; 0: it is none."""
    return int(device[3:]) if device[3:].isdecimal() else 0


def carrier_name(vni: int, family: int) -> str:
    """A network's VXLAN device for a family of the underlay."""
    return f"hwx{vni}" if family == 4 else f"hwy{vni}"


def bridge_mac(vni: int) -> str:
    """The MAC of a network's gateway, the same on every host."""
    return "02:48:57:" + vni.to_bytes(3, "big").hex(":")


def network_alias(network: str) -> str:
    """What the kernel keeps of a network."""
    return ALIAS_PREFIX + network


def parse_network_alias(alias: str) -> str:
    """The network of a bridge or carrier; "" where it is not ours to tell."""
    return alias.removeprefix(ALIAS_PREFIX) if alias.startswith(ALIAS_PREFIX) else ""


def gateway_interface(gateway: str, prefix: str) -> str:
    """A gateway's address with its subnet's prefix length."""
    return f"{gateway}/{prefix.partition('/')[2]}"


RANKS: Final = (
    "namespace",
    "guard-table",
    "underlay-network",
    "member",
    "bridge",
    "counters",
    "vxlan",
    "gateway",
    "guard",
    "port",
    "station",
    "neighbour",
)
"""Kinds in the order of their creation."""


def rank(key: Key) -> int:
    """The place of a key's kind in the order of creation."""
    return RANKS.index(key[0])
