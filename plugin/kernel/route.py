"""Addresses and routes: what a gateway and an inside are given, and what a host knows of its underlay.

Source: rtnetlink(7), include/uapi/linux/if_addr.h and rtnetlink.h.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import socket
import struct
from collections.abc import Iterator

from plugin.kernel import link
from plugin.kernel.netlink import (
    F_CREATE,
    F_EXCL,
    NetlinkError,
    NetlinkSocket,
    Request,
    attribute,
    attribute_u32,
    attributes,
    number,
    taken,
)
from sdn.model.address import Prefix, address_bytes, format_address, parse_interface

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
GROUP_IPV4_ADDRESS, GROUP_IPV6_ADDRESS = 1 << 4, 1 << 8
GROUP_IPV4_ROUTE, GROUP_IPV6_ROUTE = 1 << 6, 1 << 10

COPIES = "hwphy"
"""The link that has copies of the VTEPs' addresses, for Open vSwitch ends tunnels at its own alone: no uplink."""

_ADDRESS = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD = 0x02
_IFA_F_NOPREFIXROUTE = 0x200
_SCOPE_LINK = 253
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_TABLE, _RTA_METRICS = 1, 4, 5, 7, 15, 8
_RTAX_MTU = 2
_TABLE_MAIN = 254
_UNICAST, _LOCAL = 1, 2


@dataclasses.dataclass(frozen=True, slots=True)
class Uplink:
    """How a host reaches an address: its own source address there, the link, and what that carries."""

    source: str
    ifname: str
    mtu_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class NextHop:
    """The neighbour on the way to an address (on the link itself: the address), and the index of the link."""

    address: str
    index: int


def _address_body(index: int, interface: str) -> bytes:
    address, length = parse_interface(interface)
    packed = address_bytes(address)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    scope = _SCOPE_LINK if family == socket.AF_INET6 and packed[0] == 0xFE and packed[1] & 0xC0 == 0x80 else 0
    body = _ADDRESS.pack(family, length, 0, scope, index)
    return body + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)


def add_address(index: int, interface: str) -> Request:
    """Give a link an address (`10.1.0.2/24`); an IPv6 one without duplicate detection: the store is that."""
    body = _address_body(index, interface)
    if ":" in interface:
        body += attribute_u32(_IFA_FLAGS, _IFA_F_NODAD)
    return Request(RTM_NEWADDR, F_CREATE | F_EXCL, body)


def add_address_alone(index: int, interface: str) -> Request:
    """Give a link an address and nothing that comes with one: no route to its prefix, no duplicate detection."""
    flags = attribute_u32(_IFA_FLAGS, _IFA_F_NODAD | _IFA_F_NOPREFIXROUTE)
    return Request(RTM_NEWADDR, F_CREATE | F_EXCL, _address_body(index, interface) + flags)


def remove_address(index: int, interface: str) -> Request:
    """Take an address from a link."""
    return Request(RTM_DELADDR, 0, _address_body(index, interface))


def dump_addresses(netlink: NetlinkSocket) -> Iterator[tuple[int, str]]:
    """All addresses of the namespace: (index, `10.1.0.2/24`)."""
    request = Request(RTM_GETADDR, 0, _ADDRESS.pack(0, 0, 0, 0, 0))
    for buffer, offset, end in taken(lambda: netlink.dump(request)):
        family, length, _, _, index = _ADDRESS.unpack_from(buffer, offset)
        found = attributes(buffer, offset + 8, end)
        packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")
        yield index, f"{socket.inet_ntop(family, packed)}/{length}"


def holders(netlink: NetlinkSocket) -> dict[str, int]:
    """The index of the link that has each address of the namespace: where there are copies, not that of `COPIES`.

    Raises: NetlinkError.
    """
    try:
        copies = link.get(netlink, name=COPIES).index
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise
        copies = 0
    return {text.rpartition("/")[0]: index for index, text in dump_addresses(netlink) if index != copies}


def address_event_index(buffer: bytes, offset: int) -> int:
    """The link that an address event is about."""
    index: int = _ADDRESS.unpack_from(buffer, offset)[4]
    return index


def is_local(netlink: NetlinkSocket, address: str) -> bool:
    """Whether the namespace takes packets to an address for its own. Raises: NetlinkError (ENETUNREACH, …)."""
    packed = address_bytes(address)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    body = _ROUTE.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_DST, packed)
    buffer, offset, _ = netlink.get(Request(RTM_GETROUTE, 0, body))
    return bool(_ROUTE.unpack_from(buffer, offset)[7] == _LOCAL)


def uplink_to(netlink: NetlinkSocket, address: str) -> Uplink:
    """The way to an address. Raises: NetlinkError (ENETUNREACH, EHOSTUNREACH)."""
    found = _look_up(netlink, address_bytes(address))
    out = link.get(netlink, index=number(found.get(_RTA_OIF)))
    metrics = found.get(_RTA_METRICS, b"")
    mtu = number(attributes(metrics, 0, len(metrics)).get(_RTAX_MTU)) or out.mtu_bytes
    source = found.get(_RTA_PREFSRC)
    return Uplink(address_text(source) if source else "", out.name, min(mtu, out.mtu_bytes))


def next_hop(netlink: NetlinkSocket, address: str) -> NextHop:
    """Who a packet to an address is handed to. Raises: NetlinkError (ENETUNREACH, EHOSTUNREACH)."""
    packed = address_bytes(address)
    found = _look_up(netlink, packed)
    return NextHop(address_text(found.get(_RTA_GATEWAY, packed)), number(found.get(_RTA_OIF)))


def _look_up(netlink: NetlinkSocket, packed: bytes) -> dict[int, bytes]:
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    body = _ROUTE.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_DST, packed)
    buffer, offset, end = netlink.get(Request(RTM_GETROUTE, 0, body))
    return attributes(buffer, offset + 12, end)


def prefixes(netlink: NetlinkSocket) -> tuple[str, ...]:
    """The prefixes that the namespace reaches by itself: unicast routes of the main table but the default and fe80."""
    found: set[str] = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        request = Request(RTM_GETROUTE, 0, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
        for buffer, offset, end in taken(functools.partial(netlink.dump, request)):
            _, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(buffer, offset)
            row = attributes(buffer, offset + 12, end)
            packed = row.get(_RTA_DST)
            if packed is None or length == 0 or kind != _UNICAST or number(row.get(_RTA_TABLE), table) != _TABLE_MAIN:
                continue
            if len(packed) == 16 and packed[0] == 0xFE and packed[1] & 0xC0 == 0x80:
                continue
            found.add(str(Prefix(4 if len(packed) == 4 else 6, int.from_bytes(packed, "big"), length)))
    return tuple(sorted(found))


def address_text(packed: bytes) -> str:
    """The canonical text of 4 or 16 bytes."""
    return format_address(4 if len(packed) == 4 else 6, int.from_bytes(packed, "big"))
