"""What the underlay can carry: the MTU of a network against that of the hosts."""

from __future__ import annotations

from sdn.controller.inside import InsideError
from sdn.controller.state import State
from sdn.model.errors import conflict, invalid
from sdn.model.resources import (
    MTU_DEFAULT_BYTES,
    MTU_MIN_BYTES,
    VXLAN_OVERHEAD_BYTES,
    Host,
    Network,
    underlay_overhead_bytes,
)


def _known(state: State) -> list[Host]:
    return [host for host in state.hosts.values() if host.mtu_bytes]


def _carries(host: Host) -> int:
    """The largest MTU in bytes that a network may have on this host."""
    return host.mtu_bytes - underlay_overhead_bytes(host.vtep4, host.vtep6)


def default_mtu(state: State) -> int:
    """The smallest underlay MTU of the known hosts (1500 if none), less what VXLAN costs the dearest of them."""
    hosts = _known(state)
    smallest = min((host.mtu_bytes for host in hosts), default=MTU_DEFAULT_BYTES)
    overhead = max((underlay_overhead_bytes(host.vtep4, host.vtep6) for host in hosts), default=VXLAN_OVERHEAD_BYTES[4])
    mtu_bytes = smallest - overhead
    if mtu_bytes < MTU_MIN_BYTES:
        raise invalid(
            f"the underlay's smallest MTU is {smallest}, which leaves {mtu_bytes} bytes: too few for IPv6",
            f"raise the underlay's MTU to {MTU_MIN_BYTES + overhead} or more",
            underlay_mtu_bytes=smallest,
            overhead_bytes=overhead,
            mtu_bytes=mtu_bytes,
        )
    return mtu_bytes


def check_mtu(state: State, mtu_bytes: int, name: str) -> int:
    """The MTU asked for. Raises: INVALID when it is no MTU, or more than some known host's underlay carries."""
    if not MTU_MIN_BYTES <= mtu_bytes <= 65_535 - VXLAN_OVERHEAD_BYTES[6]:
        raise invalid(
            f"network {name} cannot have an MTU of {mtu_bytes}",
            f"use {MTU_MIN_BYTES} to {65_535 - VXLAN_OVERHEAD_BYTES[6]}",
            mtu_bytes=mtu_bytes,
        )
    carried = [(_carries(host), host.name, host) for host in _known(state)]
    limit, _, host = min(carried, key=lambda one: one[:2], default=(mtu_bytes, "", None))
    if host is not None and mtu_bytes > limit:
        raise InsideError(
            invalid(
                f"an MTU of {mtu_bytes} for network {name} is more than host {host.name} can carry: its underlay has "
                f"{host.mtu_bytes}, less {host.mtu_bytes - limit} for VXLAN is {limit}",
                f"use {limit} or less, or raise the underlay's MTU",
                mtu_bytes=mtu_bytes,
                limit_bytes=limit,
                host=host.name,
                underlay_mtu_bytes=host.mtu_bytes,
            ),
            outside=invalid(
                f"an MTU of {mtu_bytes} for network {name} is more than the hosts can carry, which is {limit}",
                f"use {limit} or less",
                mtu_bytes=mtu_bytes,
                limit_bytes=limit,
            ),
        )
    return mtu_bytes


def check_carries(host: Host, network: Network) -> None:
    """Raises: CONFLICT when the host's underlay cannot carry the network's largest packets."""
    overhead = underlay_overhead_bytes(host.vtep4, host.vtep6)
    if network.mtu_bytes + overhead > host.mtu_bytes:
        raise conflict(
            f"host {host.name} cannot carry network {network.name}: its MTU of {network.mtu_bytes} needs "
            f"{network.mtu_bytes + overhead} bytes with VXLAN, the host's underlay has {host.mtu_bytes}",
            f"raise the host's underlay MTU to {network.mtu_bytes + overhead}, "
            f"or make a network with an MTU of {host.mtu_bytes - overhead} or less",
            mtu_bytes=network.mtu_bytes,
            overhead_bytes=overhead,
            underlay_mtu_bytes=host.mtu_bytes,
        )
