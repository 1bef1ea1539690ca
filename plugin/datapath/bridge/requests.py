"""Objects to netlink requests. Pure but for the look-up of an index that is not known yet."""

from __future__ import annotations

import errno

from plugin.datapath.bridge.objects import (
    Bridge,
    Neighbour,
    Port,
    Station,
    Vxlan,
    network_alias,
)
from plugin.datapath.bridge.tenant import TenantNamespace
from plugin.datapath.veth.batch import GONE, PRESENT, Batch
from plugin.kernel import link, neighbour, route
from plugin.kernel.netlink import Request
from sdn.model.address import address_bytes, mac_bytes
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import Key, Operation


def make_bridge(batch: Batch, key: Key) -> None:
    """A bridge, down. Its MTU is set afterwards: one that it is born with would follow that of its ports."""
    batch.add(key, link.create(key[2], "bridge", b""), PRESENT)


def set_bridge(batch: Batch, key: Key, bridge: Bridge) -> None:
    """All that a bridge has, on one that is there."""
    ageing, snooping, spanning, delay = bridge.settings
    data = link.bridge_data(ageing=ageing, mcast_snooping=snooping, spanning_tree=spanning, forward_delay=delay)
    rest = link.encode_mac(bridge.mac) + link.encode_mtu(bridge.mtu_bytes)
    rest += link.encode_alias(network_alias(bridge.network)) + link.encode_kind("bridge", data)
    batch.add(key, link.change_named(key[2], rest, up=bridge.up))


def make_vxlan(key: Key, vxlan: Vxlan, opened: TenantNamespace) -> Request:
    """A carrier, down, born in the tenant's namespace by a request from the host's: its socket stays there."""
    data = link.vxlan_data(vxlan.vni, vxlan.port, vxlan.local, vxlan.proxy)
    rest = link.encode_mtu(vxlan.mtu_bytes) + link.encode_target_namespace(opened.fd)
    return link.create(key[2], "vxlan", data, rest)


def set_vxlan(batch: Batch, key: Key, vxlan: Vxlan, before: Vxlan | None, opened: TenantNamespace) -> None:
    """All that may change of a carrier. Never down: its neighbours would be lost."""
    name = key[2]
    rest = link.encode_mtu(vxlan.mtu_bytes) + link.encode_alias(network_alias(vxlan.network))
    if before is None or before.bridge != vxlan.bridge:
        rest += link.encode_master(opened.index(vxlan.bridge))
    batch.add(key, link.change_named(name, rest))
    if before is not None and before.local != vxlan.local:
        local = vxlan.local or "0.0.0.0"  # noqa: S104 - any address, as the source of tunnel packets
        # A request of its own: with an MTU in it the driver refuses.
        batch.add(key, link.change_named(name, link.encode_kind("vxlan", link.vxlan_local(local))))
    batch.add(key, link.change_named(name, link.encode_port_flags(vxlan.switches), up=vxlan.up))


def make_port(batch: Batch, key: Key, port: Port, endpoint: Endpoint, ns_fd: int, opened: TenantNamespace) -> int:
    """A veth with its other end in the container; the index of both ends.

    The second request goes by name and not by index: were the first refused because the index is taken, it would
    change somebody else's link.
    """
    name = key[2]
    index = opened.take_index()
    batch.add(
        key,
        link.create_veth(
            name,
            index,
            link.encode_mtu(port.mtu_bytes) + link.encode_master(opened.index(port.bridge)),
            peer=endpoint.ifname,
            peer_attributes=link.encode_mac(endpoint.mac) + link.encode_mtu(port.mtu_bytes),
            peer_ns_fd=ns_fd,
        ),
    )
    _set_port(batch, key, port)
    opened.indexes[name] = index
    return index


def change_port(batch: Batch, key: Key, port: Port, before: Port, opened: TenantNamespace) -> None:
    """A port as it should be. Entering a bridge turns learning and flooding on, so it is down meanwhile."""
    if before.bridge != port.bridge:
        master = link.encode_master(opened.index(port.bridge))
        batch.add(key, link.change_named(key[2], b"", up=False))
        batch.add(key, link.change_named(key[2], master))
    if before.mtu_bytes != port.mtu_bytes:
        batch.add(key, link.change_named(key[2], link.encode_mtu(port.mtu_bytes)))
    _set_port(batch, key, port)


def _set_port(batch: Batch, key: Key, port: Port) -> None:
    rest = link.encode_alias(port.alias) + link.encode_port_flags(port.switches)
    batch.add(key, link.change_named(key[2], rest, up=port.up))


def set_gateway(batch: Batch, key: Key, opened: TenantNamespace) -> None:
    """A gateway's address on its bridge."""
    batch.add(key, route.add_address(opened.index(key[2]), key[3]), PRESENT)


def remove_gateway(batch: Batch, key: Key, opened: TenantNamespace) -> None:
    """Take a gateway's address away."""
    index = opened.known_index(key[2])
    if index is not None:
        batch.add(key, route.remove_address(index, key[3]), GONE)


def set_station(batch: Batch, operation: Operation, opened: TenantNamespace) -> None:
    """A MAC's way. What is new comes first, so that no frame falls between."""
    key, before, station = operation.key, operation.before, operation.after
    assert isinstance(station, Station)
    mac = mac_bytes(key[3])
    if station.vtep:
        batch.add(key, neighbour.tunnel(opened.index(station.port), mac, address_bytes(station.vtep)))
    batch.add(key, neighbour.forward(opened.index(station.port), mac))
    if before is not None and before.port and before.port != station.port:
        index = opened.known_index(before.port)
        if index is not None and before.vtep:
            batch.add(key, neighbour.remove_tunnel(index, mac), GONE)
    if before is not None and before.vtep and not before.port:
        _remove_tunnels(batch, key, mac, opened, spare=station.port if station.vtep else "")


def remove_station(batch: Batch, operation: Operation, opened: TenantNamespace) -> None:
    """Forget a MAC's way."""
    key, before = operation.key, operation.before
    assert isinstance(before, Station)
    mac = mac_bytes(key[3])
    index = opened.known_index(before.port) if before.port else None
    if index is not None:
        batch.add(key, neighbour.remove_forward(index, mac), GONE)
        if before.vtep:
            batch.add(key, neighbour.remove_tunnel(index, mac), GONE)
    elif before.vtep:
        _remove_tunnels(batch, key, mac, opened, spare="")


def _remove_tunnels(batch: Batch, key: Key, mac: bytes, opened: TenantNamespace, spare: str) -> None:
    """Of a tunnel whose carrier is not known: a foreign hand has made it, or taken the bridge's entry away."""
    vni = key[2][3:]
    for name in (f"hwx{vni}", f"hwy{vni}"):
        index = opened.known_index(name) if name != spare else None
        if index is not None:
            batch.add(key, neighbour.remove_tunnel(index, mac), GONE)


def set_neighbour(batch: Batch, key: Key, wanted: Neighbour, opened: TenantNamespace) -> None:
    """What the proxy answers for an address."""
    batch.add(key, neighbour.neighbour(opened.index(key[2]), address_bytes(key[3]), mac_bytes(wanted.mac)))


def remove_neighbour(batch: Batch, key: Key, opened: TenantNamespace) -> None:
    """Answer for an address no longer."""
    index = opened.known_index(key[2])
    if index is not None:
        batch.add(key, neighbour.remove_neighbour(index, address_bytes(key[3])), GONE)


INDEX_TAKEN = frozenset({errno.EBUSY})
"""The number of a new veth is in use in the container's namespace."""
