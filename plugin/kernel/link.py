"""Links: requests that make, change and remove them, and the decoding of a dump's rows.

Source: rtnetlink(7), include/uapi/linux/if_link.h, Documentation/networking/vxlan.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import functools
import socket
import struct

from plugin.kernel.netlink import (
    F_CREATE,
    F_EXCL,
    NetlinkError,
    NetlinkSocket,
    Request,
    attribute,
    attribute_text,
    attribute_u8,
    attribute_u16_big,
    attribute_u32,
    attributes,
    number,
    taken,
    text,
)
from sdn.model.address import address_bytes, format_mac, mac_bytes

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
GROUP_LINK = 1 << 0
"""The notification group of links, as a bit for `NetlinkSocket.open`."""

IFF_UP, IFF_PROMISC = 0x1, 0x100
LOOPBACK = 1
"""The index of `lo` in every namespace."""

_INFO = struct.Struct("=BxHiII")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_PROTINFO = 1, 3, 4, 5, 10, 12
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NET_NS_FD, _IFLA_EXT_MASK = 18, 20, 26, 27, 28, 29
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 31, 32
_VETH_PEER = 1
_ONE_QUEUE = attribute_u32(_IFLA_NUM_TX_QUEUES, 1) + attribute_u32(_IFLA_NUM_RX_QUEUES, 1)
_SKIP_STATISTICS = 1 << 3
_IFLA_STATS64 = 23
_COUNTS = struct.Struct("=QQQQ")
_IFF_LOWER_UP = 1 << 16
_SIOCETHTOOL, _ETHTOOL_GLINK = 0x8946, 0x0A

BRIDGE_FORWARD_DELAY, BRIDGE_AGEING, BRIDGE_STP, BRIDGE_MCAST_SNOOPING = 1, 4, 5, 23
VXLAN_ID, VXLAN_LOCAL, VXLAN_LEARNING, VXLAN_PROXY, VXLAN_PORT, VXLAN_LOCAL6 = 1, 4, 7, 11, 15, 17

PORT_FLAGS = {"hairpin": 4, "learning": 8, "flood": 9, "proxy_arp": 10, "mcast_flood": 27, "bcast_flood": 30}
PORT_FLAGS |= {"neigh_suppress": 32}
"""A bridge port's switches: name -> attribute (IFLA_BRPORT_…)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """One link as the kernel tells of it. `peer`: the index of a veth's other end, in its own namespace.

    `promiscuous`: somebody listens to all that arrives.

    `data` and `port` are the attributes of the kind and of the bridge port, undecoded.
    """

    index: int
    name: str
    up: bool
    mtu_bytes: int
    mac: str
    master: int
    peer: int
    group: int
    alias: str
    kind: str
    data: dict[int, bytes]
    port: dict[int, bytes]
    promiscuous: bool = False

    @property
    def port_flags(self) -> frozenset[str]:
        """The bridge port's switches that are on."""
        return port_flags(self.port)


@dataclasses.dataclass(frozen=True, slots=True)
class Traffic:
    """What has gone through a link, as the host sees it. `carrier`: whether the other end is up, too."""

    carrier: bool
    received_packets: int
    received_bytes: int
    sent_packets: int
    sent_bytes: int


def port_flags(port: dict[int, bytes]) -> frozenset[str]:
    """The switches that are on, of a bridge port's attributes."""
    return frozenset(name for name, kind in PORT_FLAGS.items() if number(port.get(kind)))


def encode_mac(mac: str) -> bytes:
    """A link's address as an attribute."""
    return attribute(_IFLA_ADDRESS, mac_bytes(mac))


def encode_mtu(mtu_bytes: int) -> bytes:
    """A link's MTU as an attribute."""
    return attribute_u32(_IFLA_MTU, mtu_bytes)


def encode_alias(alias: str) -> bytes:
    """A link's alias as an attribute."""
    return attribute_text(_IFLA_IFALIAS, alias)


def encode_name(name: str) -> bytes:
    """A link's name as an attribute: of a request with an index, the new one."""
    return attribute_text(_IFLA_IFNAME, name)


def encode_master(index: int) -> bytes:
    """The bridge that a link is a port of, as an attribute."""
    return attribute_u32(_IFLA_MASTER, index)


def encode_group(group: int) -> bytes:
    """A link's group as an attribute."""
    return attribute_u32(_IFLA_GROUP, group)


@functools.cache
def encode_port_flags(on: frozenset[str]) -> bytes:
    """All switches of a bridge port, as an attribute."""
    flags = b"".join(attribute_u8(kind, name in on) for name, kind in PORT_FLAGS.items())
    return attribute(_IFLA_LINKINFO, attribute(_INFO_SLAVE_KIND, b"bridge") + attribute(_INFO_SLAVE_DATA, flags))


def encode_kind(kind: str, data: bytes) -> bytes:
    """A link's kind and what belongs to it, as an attribute."""
    return attribute(_IFLA_LINKINFO, attribute(_INFO_KIND, kind.encode()) + attribute(_INFO_DATA, data))


def encode_no_address_generation() -> bytes:
    """No link-local IPv6 address by itself (addrgenmode none), as an attribute; before the link is up."""
    return attribute(_IFLA_AF_SPEC, attribute(socket.AF_INET6, attribute_u8(8, 1)))


def change(index: int, attributes_: bytes, up: bool | None = None) -> Request:
    """Change the link of an index."""
    flags, mask = (0, 0) if up is None else (IFF_UP if up else 0, IFF_UP)
    return Request(RTM_NEWLINK, 0, _INFO.pack(0, 0, index, flags, mask) + attributes_)


def change_named(name: str, attributes_: bytes, up: bool | None = None) -> Request:
    """Change the link of a name. Never with `encode_group`: where the name is not there, it would change a group."""
    return change(0, encode_name(name) + attributes_, up)


def create(name: str, kind: str, data: bytes, attributes_: bytes = b"", index: int = 0) -> Request:
    """Make a link, down. `index` 0: the kernel chooses."""
    body = _INFO.pack(0, 0, index, 0, 0) + encode_name(name) + attributes_ + encode_kind(kind, data)
    return Request(RTM_NEWLINK, F_CREATE | F_EXCL, body)


def create_veth(
    name: str, index: int, attributes_: bytes, *, peer: str, peer_attributes: bytes, peer_ns_fd: int
) -> Request:
    """Make a veth whose other end is born in another namespace; both ends get the same index.

    The kernel takes an index for the other end only where this end's is given too. Moving an end instead costs 18 ms.
    One queue is what a veth uses anyway; unasked it is born with one for each CPU, idle, each with files in /sys.
    """
    other = _INFO.pack(0, 0, index, 0, 0) + encode_name(peer) + peer_attributes + _ONE_QUEUE
    other += attribute_u32(_IFLA_NET_NS_FD, peer_ns_fd)
    return create(name, "veth", attribute(_VETH_PEER, other), attributes_ + _ONE_QUEUE, index)


def create_veth_pair(name: str, peer: str, attributes_: bytes) -> Request:
    """Make a veth with both ends in this namespace, both with these attributes."""
    other = _INFO.pack(0, 0, 0, 0, 0) + encode_name(peer) + attributes_ + _ONE_QUEUE
    return create(name, "veth", attribute(_VETH_PEER, other), attributes_ + _ONE_QUEUE)


def bridge_data(*, ageing: int, mcast_snooping: int, spanning_tree: int, forward_delay: int) -> bytes:
    """A bridge's settings; times in hundredths of a second."""
    return (
        attribute_u32(BRIDGE_FORWARD_DELAY, forward_delay)
        + attribute_u32(BRIDGE_AGEING, ageing)
        + attribute_u32(BRIDGE_STP, spanning_tree)
        + attribute_u8(BRIDGE_MCAST_SNOOPING, mcast_snooping)
    )


def vxlan_data(vni: int, port: int, local: str, proxy: bool) -> bytes:
    """What a VXLAN device is made of. `local`: "" for any IPv4 address."""
    data = attribute_u32(VXLAN_ID, vni)
    if local:
        data += vxlan_local(local)
    data += attribute_u8(VXLAN_LEARNING, 0) + attribute_u8(VXLAN_PROXY, proxy)
    return data + attribute_u16_big(VXLAN_PORT, port)


def vxlan_local(local: str) -> bytes:
    """A VXLAN device's source address, which may change while it lives."""
    return attribute(VXLAN_LOCAL6 if ":" in local else VXLAN_LOCAL, address_bytes(local))


def encode_target_namespace(ns_fd: int) -> bytes:
    """Where a new link is to be born, as an attribute. A VXLAN device's socket stays where the request comes from."""
    return attribute_u32(_IFLA_NET_NS_FD, ns_fd)


def delete(index: int) -> Request:
    """Remove one link: waits about 20 ms."""
    return Request(RTM_DELLINK, 0, _INFO.pack(0, 0, index, 0, 0))


def delete_group(group: int) -> Request:
    """Remove all links of a group in one go: the quick way."""
    return Request(RTM_DELLINK, 0, _INFO.pack(0, 0, 0, 0, 0) + encode_group(group))


def decode(buffer: bytes, offset: int, end: int) -> Link:
    """A link from a message's body."""
    _, _, index, flags, _ = _INFO.unpack_from(buffer, offset)
    found = attributes(buffer, offset + 16, end)
    kind, data, port = "", {}, {}
    information = found.get(_IFLA_LINKINFO)
    if information is not None:
        inner = attributes(information, 0, len(information))
        kind = text(inner.get(_INFO_KIND))
        data = _nested(inner.get(_INFO_DATA))
        if text(inner.get(_INFO_SLAVE_KIND)) == "bridge":
            port = _nested(inner.get(_INFO_SLAVE_DATA))
    return Link(
        index=index,
        name=text(found.get(_IFLA_IFNAME)),
        up=bool(flags & IFF_UP),
        mtu_bytes=number(found.get(_IFLA_MTU)),
        mac=format_mac(found.get(_IFLA_ADDRESS, b"")),
        master=number(found.get(_IFLA_MASTER)),
        peer=number(found.get(_IFLA_LINK)),
        group=number(found.get(_IFLA_GROUP)),
        alias=text(found.get(_IFLA_IFALIAS)),
        kind=kind,
        data=data,
        port=port or _nested(found.get(_IFLA_PROTINFO)),
        promiscuous=bool(flags & IFF_PROMISC),
    )


def family(buffer: bytes, offset: int) -> int:
    """The address family of a link message: AF_BRIDGE where it tells of a bridge port alone."""
    return buffer[offset]


def _nested(payload: bytes | None) -> dict[int, bytes]:
    return {} if payload is None else attributes(payload, 0, len(payload))


def dump(netlink: NetlinkSocket) -> list[Link]:
    """All links of the namespace."""
    body = _INFO.pack(0, 0, 0, 0, 0) + attribute_u32(_IFLA_EXT_MASK, _SKIP_STATISTICS)
    return [decode(*row) for row in taken(lambda: netlink.dump(Request(RTM_GETLINK, 0, body)))]


def get(netlink: NetlinkSocket, *, name: str = "", index: int = 0) -> Link:
    """One link by name or index. Raises: NetlinkError (ENODEV)."""
    body = _INFO.pack(0, 0, index, 0, 0) + attribute_u32(_IFLA_EXT_MASK, _SKIP_STATISTICS)
    return decode(*netlink.get(Request(RTM_GETLINK, 0, body + (encode_name(name) if name else b""))))


def examine(netlink: NetlinkSocket, *, name: str = "", index: int = 0) -> tuple[Link, Traffic] | None:
    """One link and what has gone through it; None: there is no such link. Raises: NetlinkError."""
    try:
        row = netlink.get(Request(RTM_GETLINK, 0, _INFO.pack(0, 0, index, 0, 0) + (encode_name(name) if name else b"")))
    except NetlinkError as error:
        if error.errno in (errno.ENODEV, errno.EINVAL):  # EINVAL: the name is longer than any name may be
            return None
        raise
    return decode(*row), _traffic(*row)


def dump_traffic(netlink: NetlinkSocket) -> dict[str, Traffic]:
    """What has gone through each link of the namespace, by name."""
    rows = taken(lambda: netlink.dump(Request(RTM_GETLINK, 0, _INFO.pack(0, 0, 0, 0, 0))))
    return {decode(*row).name: _traffic(*row) for row in rows}


def _traffic(buffer: bytes, offset: int, end: int) -> Traffic:
    """struct rtnl_link_stats64 begins with the packets received and sent, then the bytes."""
    counts = attributes(buffer, offset + 16, end).get(_IFLA_STATS64, b"").ljust(_COUNTS.size, b"\0")
    received, sent, received_bytes, sent_bytes = _COUNTS.unpack_from(counts)
    flags = _INFO.unpack_from(buffer, offset)[3]
    return Traffic(bool(flags & _IFF_LOWER_UP), received, received_bytes, sent, sent_bytes)


def settle_carrier(netlink: NetlinkSocket, name: str) -> None:
    """Have the kernel act now on a carrier that has come or gone, not when its worker gets to it.

    Until then a bridge keeps the port disabled and the link throws away what is sent: the first packets of a new
    container were lost, once in two hundred times on a busy machine. Asking for the link state (ETHTOOL_GLINK) is what
    does it (linkwatch_sync_dev). Absent: nothing is done.
    """
    answer = (ctypes.c_uint32 * 2)(_ETHTOOL_GLINK, 0)
    with contextlib.suppress(OSError):
        fcntl.ioctl(netlink.fileno(), _SIOCETHTOOL, struct.pack("16sP", name.encode(), ctypes.addressof(answer)))
