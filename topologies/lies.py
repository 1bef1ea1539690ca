"""Frames with a lie in them: pure. Each is honest but for one thing, so that only one rule can be what drops it."""

from __future__ import annotations

import dataclasses

from sdn.model.address import Family, address_number, format_address, format_mac, link_local, mac_bytes
from topologies import frames
from topologies.frames import Ends
from topologies.plan import Interface, Station
from topologies.values import Lie

PORT = 7
BROADCAST = {"target": "255.255.255.255", "target_mac": "ff:ff:ff:ff:ff:ff"}


def common_interfaces(sender: Station, receiver: Station) -> tuple[Interface, Interface] | None:
    """The interfaces that a lie travels between: in a network that both have, else the first of each."""
    for interface in sender.interfaces:
        other = receiver.interface_in(interface.network)
        if other is not None:
            return interface, other
    return (sender.interfaces[0], receiver.interfaces[0]) if sender.interfaces and receiver.interfaces else None


def forged_frame(lie: Lie, sender: Interface, receiver: Interface, mark: bytes) -> bytes | None:
    """The frame; None where the two have no address of the family that it takes."""
    four, six = _ends(sender, receiver, 4), _ends(sender, receiver, 6)
    either = four or six
    if lie is Lie.MAC:
        return _lie_of_any(either and dataclasses.replace(either, source_mac=_neighbour_mac(sender.mac)), mark)
    if lie is Lie.PROTOCOL:
        return frames.foreign_frame(either, mark) if either else None
    if lie in (Lie.IP4, Lie.ARP, Lie.DHCP_SERVER, Lie.MULTICAST):
        return _lie_of_four(lie, four, mark) if four else None
    return _lie_of_six(lie, six, mark) if six else None


def _lie_of_any(ends: Ends | None, mark: bytes) -> bytes | None:
    return frames.udp_frame(ends, PORT, PORT, mark) if ends else None


def _lie_of_four(lie: Lie, ends: Ends, mark: bytes) -> bytes:
    if lie is Lie.IP4:
        return frames.udp_frame(dataclasses.replace(ends, source=_neighbour(ends)), PORT, PORT, mark)
    if lie is Lie.ARP:
        return frames.arp_answer_frame(ends, ends.source_mac, _neighbour(ends), mark)
    if lie is Lie.DHCP_SERVER:
        return frames.udp_frame(ends, 67, 68, mark)
    return frames.udp_frame(dataclasses.replace(ends, **BROADCAST), PORT, PORT, mark)


def _lie_of_six(lie: Lie, ends: Ends, mark: bytes) -> bytes:
    if lie is Lie.IP6:
        return frames.udp_frame(dataclasses.replace(ends, source=_neighbour(ends)), PORT, PORT, mark)
    if lie is Lie.ND:
        return frames.advertisement_frame(ends, _neighbour(ends), mark)
    if lie is Lie.ROUTER_ADVERT:
        return frames.router_advertisement_frame(dataclasses.replace(ends, source=link_local(ends.source_mac)), mark)
    return frames.solicitation_frame(ends, mark)


def _ends(sender: Interface, receiver: Interface, family: Family) -> Ends | None:
    source, target = sender.address_of(family), receiver.address_of(family)
    if source is None or target is None:
        return None
    return Ends(source_mac=sender.mac, target_mac=receiver.mac, source=source, target=target)


def _neighbour(ends: Ends) -> str:
    """An address next to the sender's that is neither its own nor the target's."""
    family: Family = 6 if ends.family == 6 else 4
    number = address_number(ends.source)
    candidates = [format_address(family, number ^ bit) for bit in (1, 2)]
    return next(address for address in candidates if address != ends.target)


def _neighbour_mac(mac: str) -> str:
    raw = mac_bytes(mac)
    return format_mac(raw[:5] + bytes([raw[5] ^ 0x55]))
