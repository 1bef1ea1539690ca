"""Neighbours and forwarding entries: requests, and dumps decoded at fixed offsets.

Source: rtnetlink(7), include/uapi/linux/neighbour.h; the order of a row's attributes: neigh_fill_info(),
br_fdb's fdb_fill_info() and vxlan_fdb_info() of the kernel. A row of another shape takes the slow way.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

from plugin.kernel.netlink import (
    F_CREATE,
    F_REPLACE,
    NetlinkError,
    NetlinkSocket,
    Request,
    attribute,
    attribute_u32,
    attributes,
    number,
    taken,
)

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
GROUP_NEIGHBOUR = 1 << 2

NUD_REACHABLE, NUD_NOARP, NUD_PERMANENT = 0x02, 0x40, 0x80
NUD_CONNECTED = NUD_REACHABLE | NUD_NOARP | NUD_PERMANENT
"""The states in which a VXLAN device with `proxy` answers for a neighbour."""
NTF_SELF, NTF_MASTER, NTF_EXT_LEARNED = 2, 4, 0x10

FAMILIES = (socket.AF_INET, socket.AF_INET6)
_ROW = struct.Struct("=BBHiHBB")
_NDA_DST, _NDA_LLADDR, _NDA_MASTER = 1, 2, 9
_LEARN_NOTHING = F_CREATE | F_REPLACE

_ROW_4 = struct.Struct("=BBHiHBB HH4s HH6s 2x")
_ROW_6 = struct.Struct("=BBHiHBB HH16s HH6s 2x")
_ROW_MAC = struct.Struct("=BBHiHBB HH6s 2x")
_ROW_MAC_4 = struct.Struct("=BBHiHBB HH6s2x HH4s")
_ROW_MAC_16 = struct.Struct("=BBHiHBB HH6s2x HH16s")


def neighbour(index: int, address: bytes, mac: bytes) -> Request:
    """Set a permanent neighbour of a device."""
    shape, length, family = (_ROW_4, 8, socket.AF_INET) if len(address) == 4 else (_ROW_6, 20, socket.AF_INET6)
    body = shape.pack(family, 0, 0, index, NUD_PERMANENT, 0, 0, length, _NDA_DST, address, 10, _NDA_LLADDR, mac)
    return Request(RTM_NEWNEIGH, _LEARN_NOTHING, body)


def remove_neighbour(index: int, address: bytes) -> Request:
    """Remove a neighbour of a device."""
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    body = _ROW.pack(family, 0, 0, index, 0, 0, 0) + struct.pack("=HH", 4 + len(address), _NDA_DST) + address
    return Request(RTM_DELNEIGH, 0, body)


def forward(port_index: int, mac: bytes) -> Request:
    """An entry of the port's bridge: frames for `mac` leave by this port.

    Learnt elsewhere (extern_learn) and not static: it ages as little, but for each port that enters the bridge the
    kernel tries to take every static MAC out of that port's filter, 0.5 ms with 10 000 of them.
    """
    body = _ROW_MAC.pack(
        socket.AF_BRIDGE, 0, 0, port_index, NUD_NOARP, NTF_MASTER | NTF_EXT_LEARNED, 0, 10, _NDA_LLADDR, mac
    )
    return Request(RTM_NEWNEIGH, _LEARN_NOTHING, body)


def remove_forward(port_index: int, mac: bytes) -> Request:
    """Remove the bridge's entry for `mac` if it leads to this port."""
    body = _ROW_MAC.pack(socket.AF_BRIDGE, 0, 0, port_index, 0, NTF_MASTER, 0, 10, _NDA_LLADDR, mac)
    return Request(RTM_DELNEIGH, 0, body)


def tunnel(vxlan_index: int, mac: bytes, vtep: bytes) -> Request:
    """An entry of the VXLAN device: frames for `mac` go to the host of this VTEP."""
    shape, length = (_ROW_MAC_4, 8) if len(vtep) == 4 else (_ROW_MAC_16, 20)
    head = (socket.AF_BRIDGE, 0, 0, vxlan_index, NUD_PERMANENT, NTF_SELF, 0)
    return Request(RTM_NEWNEIGH, _LEARN_NOTHING, shape.pack(*head, 10, _NDA_LLADDR, mac, length, _NDA_DST, vtep))


def remove_tunnel(vxlan_index: int, mac: bytes) -> Request:
    """Remove the VXLAN device's entry for `mac`, wherever it leads."""
    body = _ROW_MAC.pack(socket.AF_BRIDGE, 0, 0, vxlan_index, 0, NTF_SELF, 0, 10, _NDA_LLADDR, mac)
    return Request(RTM_DELNEIGH, 0, body)


def find_neighbour(netlink: NetlinkSocket, index: int, address: bytes) -> tuple[int, bytes] | None:
    """(state, MAC) of a device's neighbour; None: it has no such one. Raises: NetlinkError."""
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    body = _ROW.pack(family, 0, 0, index, 0, 0, 0) + attribute(_NDA_DST, address)
    found = _find(netlink, body)
    return None if found is None else (found[1], found[2].get(_NDA_LLADDR, b""))


def find_forward(netlink: NetlinkSocket, bridge_index: int, mac: bytes) -> int | None:
    """The index of the port by which a bridge forwards to a MAC (its own: to itself); None: it knows no way."""
    body = _ROW.pack(socket.AF_BRIDGE, 0, 0, 0, 0, NTF_MASTER, 0) + attribute(_NDA_LLADDR, mac)
    found = _find(netlink, body + attribute_u32(_NDA_MASTER, bridge_index))
    return None if found is None else found[0]


def find_tunnel(netlink: NetlinkSocket, vxlan_index: int, mac: bytes) -> bytes | None:
    """The VTEP to which a VXLAN device sends frames for a MAC; None: it knows none."""
    body = _ROW.pack(socket.AF_BRIDGE, 0, 0, vxlan_index, 0, NTF_SELF, 0) + attribute(_NDA_LLADDR, mac)
    found = _find(netlink, body)
    return None if found is None else found[2].get(_NDA_DST)


def _find(netlink: NetlinkSocket, body: bytes) -> tuple[int, int, dict[int, bytes]] | None:
    """(index, state, attributes) of one row; None: it is not there. Raises: NetlinkError."""
    try:
        buffer, offset, end = netlink.get(Request(RTM_GETNEIGH, 0, body))
    except NetlinkError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return None
        raise
    _, _, _, index, state, _, _ = _ROW.unpack_from(buffer, offset)
    return index, state, attributes(buffer, offset + 12, end)


def with_index(body: bytes, index: int) -> bytes:
    """The same request's body for another device."""
    return body[:4] + struct.pack("=i", index) + body[8:]


def dump_neighbours(netlink: NetlinkSocket, family: int) -> Iterator[tuple[int, int, bytes, bytes]]:
    """All neighbours of a family: (index, state, address, MAC or b"")."""
    shape, length = (_ROW_4, 8) if family == socket.AF_INET else (_ROW_6, 20)
    size, unpack = shape.size, shape.unpack_from
    request = Request(RTM_GETNEIGH, 0, _ROW.pack(family, 0, 0, 0, 0, 0, 0))
    for buffer, offset, end in taken(lambda: netlink.dump(request)):
        if end - offset >= size:
            _, _, _, index, state, _, _, first, kind, address, second, kind2, mac = unpack(buffer, offset)
            if first == length and kind == _NDA_DST and second == 10 and kind2 == _NDA_LLADDR:
                yield index, state, address, mac
                continue
        _, _, _, index, state, _, _ = _ROW.unpack_from(buffer, offset)
        found = attributes(buffer, offset + 12, end)
        yield index, state, found.get(_NDA_DST, b""), found.get(_NDA_LLADDR, b"")


def dump_forwarding(netlink: NetlinkSocket) -> Iterator[tuple[int, int, int, bytes, int, bytes]]:
    """All entries of all bridges and VXLAN devices: (index, state, flags, MAC, bridge's index or 0, VTEP or b"")."""
    request = Request(RTM_GETNEIGH, 0, _ROW.pack(socket.AF_BRIDGE, 0, 0, 0, 0, 0, 0))
    size4, size16 = _ROW_MAC_4.size, _ROW_MAC_16.size
    unpack4, unpack16, native = _ROW_MAC_4.unpack_from, _ROW_MAC_16.unpack_from, number
    for buffer, offset, end in taken(lambda: netlink.dump(request)):
        if end - offset >= size4:
            _, _, _, index, state, flags, _, first, kind, mac, second, kind2, value = unpack4(buffer, offset)
            if first == 10 and kind == _NDA_LLADDR:
                if second == 8 and kind2 == _NDA_MASTER:
                    yield index, state, flags, mac, native(value), b""
                    continue
                if second == 8 and kind2 == _NDA_DST:
                    yield index, state, flags, mac, 0, value
                    continue
                if second == 20 and kind2 == _NDA_DST and end - offset >= size16:
                    yield index, state, flags, mac, 0, unpack16(buffer, offset)[-1]
                    continue
        _, _, _, index, state, flags, _ = _ROW.unpack_from(buffer, offset)
        found = attributes(buffer, offset + 12, end)
        yield index, state, flags, found.get(_NDA_LLADDR, b""), number(found.get(_NDA_MASTER)), found.get(_NDA_DST, b"")


def decode_event(buffer: bytes, offset: int) -> tuple[int, int, int, int]:
    """What an event is about: (family, index, state, flags)."""
    family, _, _, index, state, flags, _ = _ROW.unpack_from(buffer, offset)
    return family, index, state, flags
