"""An address whose MAC has changed is announced to the stations of its network on this host.

Who talked to the old MAC keeps it for a neighbour for half a minute and sends into the void meanwhile; nothing of what
the owner could say would reach it, for a broadcast goes nowhere. So every host tells its own stations, each by a
unicast frame that does not pass the guard.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, Protocol, TypeVar

from sdn.model.address import address_bytes, family_of, mac_bytes
from sdn.reconcile.datapath import Key, Operation, Verb

FORMER_MAX: Final = 4096
"""Addresses without an owner whose last MAC is remembered: 1 MB."""

_ETHERNET: Final = struct.Struct("!6s6sH")
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_ADVERTISEMENT: Final = struct.Struct("!BBHI16sBB6s")
_ETH_ARP, _ETH_IPV4, _ETH_IPV6 = 0x0806, 0x0800, 0x86DD
_HTYPE_ETHERNET, _ARP_REPLY = 1, 2
_ICMPV6, _HOP_LIMIT, _NEIGHBOUR_ADVERTISEMENT, _OVERRIDE, _TARGET_LINK_LAYER = 58, 255, 136, 0x20000000, 2
_ALL_NODES: Final = address_bytes("ff02::1")


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """An address of a network (by VNI) that another MAC has from now on."""

    vni: int
    address: str
    mac: str


class Told(Protocol):
    """A station of this host; one that was read damaged has no MAC."""

    @property
    def mac(self) -> str: ...

    @property
    def addresses(self) -> tuple[str, ...]: ...


S = TypeVar("S", bound=Told)


class FormerMacs:
    """The last MACs of addresses that have been taken away; the oldest is forgotten first.

    `locate`: the VNI and the address in the key of a neighbour, an object that has a `mac`. It is not kept beyond the
    agent's end: what comes back with another MAC after that is found by its peers when their neighbour entry fails.
    """

    def __init__(self, locate: Callable[[Key], tuple[int, str]]) -> None:
        self._locate = locate
        self._macs: dict[tuple[int, str], str] = {}

    def remember(self, deletions: Iterable[Operation], gone: Collection[int]) -> None:
        """Note deleted neighbours, except of networks (`gone`) that leave the host: nobody is left who would ask."""
        for operation in deletions:
            vni, address = self._locate(operation.key)
            mac = getattr(operation.before, "mac", None)  # a damaged one tells of none
            if mac is None or vni in gone or address.startswith("fe80:"):  # a link-local address follows from its MAC
                continue
            self._macs.pop((vni, address), None)
            self._macs[vni, address] = mac
            if len(self._macs) > FORMER_MAX:
                del self._macs[next(iter(self._macs))]

    def changes(self, written: Iterable[Operation], failed: Collection[Key]) -> list[Change]:
        """The neighbours that were written with another MAC than the address had before."""
        found = []
        for operation in written:
            if operation.key in failed:
                continue
            vni, address = self._locate(operation.key)
            assert operation.after is not None
            mac: str = operation.after.mac
            former = self._macs.pop((vni, address), None)
            if operation.verb is Verb.REPLACE:
                former = getattr(operation.before, "mac", former)
            if former not in (None, mac):
                found.append(Change(vni, address, mac))
        return found


def recipients(change: Change, stations: Collection[S]) -> Iterator[S]:
    """Who of a network's stations is told of a change: those of its family, but for the owner itself."""
    for station in stations:
        speaks = any(family_of(address) == family_of(change.address) for address in station.addresses)
        if speaks and station.mac not in ("", change.mac):
            yield station


def frames(changes: Iterable[Change], stations: Collection[Told]) -> Iterator[bytes]:
    """What a network's stations are told."""
    for change in changes:
        for station in recipients(change, stations):
            yield announcement(change.address, change.mac, station.mac)


def announcement(address: str, mac: str, to_mac: str) -> bytes:
    """An Ethernet frame to one station that says: `address` is at `mac`."""
    target, owner, receiver = address_bytes(address), mac_bytes(mac), mac_bytes(to_mac)
    if len(target) == 4:
        return _ETHERNET.pack(receiver, owner, _ETH_ARP) + _gratuitous_reply(target, owner)
    return _ETHERNET.pack(receiver, owner, _ETH_IPV6) + _advertisement(target, owner)


def _gratuitous_reply(target: bytes, owner: bytes) -> bytes:
    """An ARP reply with the owner on both sides.

    Of two plain replies within a second Linux takes the first (`locktime`); a gratuitous one it always takes.
    Source: RFC 826; RFC 5944, section 4.6; arp_process() of the kernel.
    """
    return _ARP.pack(_HTYPE_ETHERNET, _ETH_IPV4, 6, 4, _ARP_REPLY, owner, target, owner, target)


def _advertisement(target: bytes, owner: bytes) -> bytes:
    """An unsolicited neighbour advertisement that overrides, to all nodes, of which the frame reaches one.

    Source: RFC 4861, sections 4.4 and 7.2.6; RFC 6085 (a multicast packet in a unicast frame).
    """
    unsummed = _ADVERTISEMENT.pack(
        _NEIGHBOUR_ADVERTISEMENT, 0, 0, _OVERRIDE, target, _TARGET_LINK_LAYER, 1, owner
    )  # the option's length counts eights of bytes
    pseudo = target + _ALL_NODES + struct.pack("!II", len(unsummed), _ICMPV6)
    body = unsummed[:2] + struct.pack("!H", _checksum(pseudo + unsummed)) + unsummed[4:]
    return _IPV6.pack(6 << 28, len(body), _ICMPV6, _HOP_LIMIT, target, _ALL_NODES) + body


def _checksum(data: bytes) -> int:
    """The internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
