"""The wires below a lab: a namespace with a bridge for the underlay, and one per host hung on it.

Interface indices are given, not asked for, so that all requests of a namespace are one send.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from plugin.kernel import link, namespace, route
from plugin.kernel.netlink import NetlinkSocket, Request
from sdn.model.address import parse_prefix
from sdn.model.errors import HawseError, Kind
from topologies.record import UNDERLAY, Directory
from topologies.values import Topology

BRIDGE = 1000
FIRST_PORT = 1001
"""A host's port on the bridge, and its `eth0` inside: both ends of a veth have one index."""


def _bridge(mtu_bytes: int) -> Request:
    data = link.bridge_data(ageing=30_000, mcast_snooping=0, spanning_tree=0, forward_delay=0)
    return link.create("br0", "bridge", data, link.encode_mtu(mtu_bytes), BRIDGE)


def _wire(position: int, mtu_bytes: int, uplink_mtu_bytes: int, host_fd: int) -> Request:
    """A veth pair: `port<n>` on the bridge, `eth0` in the host. Neither can be born up: the other end is not there."""
    return link.create_veth(
        f"port{position + 1}",
        FIRST_PORT + position,
        link.encode_mtu(mtu_bytes) + link.encode_master(BRIDGE),
        peer="eth0",
        peer_attributes=link.encode_mtu(uplink_mtu_bytes),
        peer_ns_fd=host_fd,
    )


def _up(index: int) -> Request:
    return link.change(index, b"", up=True)


def make_namespaces(directory: Directory, topology: Topology) -> None:
    """The underlay's and the hosts' namespaces, wired. Raises: DENIED, UNAVAILABLE, with what could not be made."""
    for name in (UNDERLAY, *(host.name for host in topology.hosts)):
        try:
            namespace.create(directory.namespace(name), _loopback_up)
        except PermissionError:
            raise HawseError(
                Kind.DENIED, "a network namespace may not be made here", hint="run as root (in a container: privileged)"
            ) from None
        except OSError as error:
            raise HawseError(Kind.UNAVAILABLE, f"the namespace of {name} cannot be made: {error}") from None
    _wire_hosts(directory, topology)


def _loopback_up() -> None:
    """In the new namespace, on its thread."""
    with contextlib.closing(NetlinkSocket.open()) as netlink:
        netlink.do(_up(link.LOOPBACK))


def _wire_hosts(directory: Directory, topology: Topology) -> None:
    underlay = topology.underlay
    requests = [_bridge(underlay.mtu_bytes), _up(BRIDGE)]
    for prefix, address in ((underlay.prefix4, underlay.controller4), (underlay.prefix6, underlay.controller6)):
        if prefix and address:
            requests.append(route.add_address(BRIDGE, f"{address}/{parse_prefix(prefix).length}"))
    descriptors: list[int] = []
    try:
        for position, host in enumerate(topology.hosts):
            descriptors.append(os.open(directory.namespace(host.name), os.O_RDONLY | os.O_CLOEXEC))
            requests.append(_wire(position, underlay.mtu_bytes, host.mtu_bytes, descriptors[-1]))
            requests.append(_up(FIRST_PORT + position))
        underlay_fd = os.open(directory.namespace(UNDERLAY), os.O_RDONLY | os.O_CLOEXEC)
        descriptors.append(underlay_fd)
        _execute(underlay_fd, requests, "the underlay")
        for uplink, (host, fd) in enumerate(zip(topology.hosts, descriptors, strict=False), FIRST_PORT):
            interfaces = [interface for interface in (host.interface4, host.interface6) if interface]
            addresses = [route.add_address(uplink, interface) for interface in interfaces]
            _execute(fd, [_up(uplink), *addresses], f"host {host.name}")
    finally:
        for fd in descriptors:
            os.close(fd)


def _execute(ns_fd: int, requests: Sequence[Request], what: str) -> None:
    with contextlib.closing(NetlinkSocket.open(ns_fd)) as netlink:
        errors = [error for error in netlink.execute(requests) if error is not None]
    if errors:
        raise HawseError(
            Kind.UNAVAILABLE,
            f"{what} cannot be wired: {errors[0]}",
            hint="the kernel needs network namespaces, veth and bridge",
        )
