"""The wires below a lab: a namespace with a bridge for the underlay, one per host hung on it, one per container.

Interface indices are given, not asked for, so that all requests of a namespace are one send.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

from plugin.kernel import namespace
from plugin.kernel.netlink import (
    F_CREATE,
    F_EXCL,
    NetlinkSocket,
    Request,
    attribute,
    attribute_text,
    attribute_u8,
    attribute_u32,
)
from sdn.model.address import address_bytes, family_of, parse_interface, parse_prefix
from sdn.model.errors import HawseError, Kind
from topologies.record import UNDERLAY, Directory
from topologies.values import Topology

RTM_NEWLINK, RTM_NEWADDR = 16, 20
IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD = 3, 4, 10, 18, 28
INFO_KIND, INFO_DATA = 1, 2
VETH_INFO_PEER = 1
BR_MCAST_SNOOPING = 23
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD = 2
IFF_UP = 1
LOOPBACK = 1
BRIDGE = 1000
FIRST_PORT = 1001
UPLINK = 1000
"""A host's `eth0`, in the host's namespace."""
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")


def _up(index: int) -> Request:
    return Request(RTM_NEWLINK, 0, _LINK.pack(0, 0, index, IFF_UP, IFF_UP))


def _address(index: int, interface: str) -> Request:
    address, length = parse_interface(interface)
    raw = address_bytes(address)
    family = socket.AF_INET6 if family_of(address) == 6 else socket.AF_INET
    # Without NODAD an IPv6 address could not be used for more than a second.
    body = _ADDRESS.pack(family, length, 0, 0, index) + attribute(IFA_LOCAL, raw) + attribute(IFA_ADDRESS, raw)
    return Request(RTM_NEWADDR, F_CREATE | F_EXCL, body + attribute_u32(IFA_FLAGS, IFA_F_NODAD))


def _bridge(mtu_bytes: int) -> Request:
    information = attribute(INFO_KIND, b"bridge")
    information += attribute(INFO_DATA, attribute_u8(BR_MCAST_SNOOPING, 0))
    body = _LINK.pack(0, 0, BRIDGE, IFF_UP, IFF_UP) + attribute_text(IFLA_IFNAME, "br0")
    body += attribute_u32(IFLA_MTU, mtu_bytes) + attribute(IFLA_LINKINFO, information)
    return Request(RTM_NEWLINK, F_CREATE | F_EXCL, body)


def _wire(position: int, mtu_bytes: int, uplink_mtu_bytes: int, host_fd: int) -> Request:
    """A veth pair: `port<n>` on the bridge, `eth0` in the host. Neither can be born up: the other end is not there."""
    peer = _LINK.pack(0, 0, UPLINK, 0, 0) + attribute_text(IFLA_IFNAME, "eth0")
    peer += attribute_u32(IFLA_MTU, uplink_mtu_bytes) + attribute_u32(IFLA_NET_NS_FD, host_fd)
    information = attribute(INFO_KIND, b"veth") + attribute(INFO_DATA, attribute(VETH_INFO_PEER, peer))
    body = _LINK.pack(0, 0, FIRST_PORT + position, 0, 0)
    body += attribute_text(IFLA_IFNAME, f"port{position + 1}") + attribute_u32(IFLA_MTU, mtu_bytes)
    body += attribute_u32(IFLA_MASTER, BRIDGE) + attribute(IFLA_LINKINFO, information)
    return Request(RTM_NEWLINK, F_CREATE | F_EXCL, body)


def make_namespaces(directory: Directory, topology: Topology) -> None:
    """Every namespace of the lab, wired. Raises: DENIED, UNAVAILABLE, with what could not be made."""
    names = [UNDERLAY, *(host.name for host in topology.hosts), *(c.name for c in topology.containers)]
    for name in names:
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
    raw = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    link = NetlinkSocket(raw)
    try:
        link.do(_up(LOOPBACK))
    finally:
        link.close()


def _wire_hosts(directory: Directory, topology: Topology) -> None:
    underlay = topology.underlay
    requests = [_bridge(underlay.mtu_bytes)]
    for prefix, address in ((underlay.prefix4, underlay.controller4), (underlay.prefix6, underlay.controller6)):
        if prefix and address:
            requests.append(_address(BRIDGE, f"{address}/{parse_prefix(prefix).length}"))
    descriptors: list[int] = []
    try:
        for position, host in enumerate(topology.hosts):
            descriptors.append(os.open(directory.namespace(host.name), os.O_RDONLY | os.O_CLOEXEC))
            requests.append(_wire(position, underlay.mtu_bytes, host.mtu_bytes, descriptors[-1]))
            requests.append(_up(FIRST_PORT + position))
        underlay_fd = os.open(directory.namespace(UNDERLAY), os.O_RDONLY | os.O_CLOEXEC)
        descriptors.append(underlay_fd)
        _execute(underlay_fd, requests, "the underlay")
        for host, fd in zip(topology.hosts, descriptors, strict=False):
            interfaces = [interface for interface in (host.interface4, host.interface6) if interface]
            addresses = [_address(UPLINK, interface) for interface in interfaces]
            _execute(fd, [_up(UPLINK), *addresses], f"host {host.name}")
    finally:
        for fd in descriptors:
            os.close(fd)


def _execute(ns_fd: int, requests: Sequence[Request], what: str) -> None:
    link = NetlinkSocket.open(ns_fd)
    try:
        errors = [error for error in link.execute(requests) if error is not None]
    finally:
        link.close()
    if errors:
        raise HawseError(
            Kind.UNAVAILABLE,
            f"{what} cannot be wired: {errors[0]}",
            hint="the kernel needs network namespaces, veth and bridge",
        )
