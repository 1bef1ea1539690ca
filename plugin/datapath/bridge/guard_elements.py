"""What a port may send, as elements of the guard's sets, and back. Pure: bytes exactly as the kernel keeps them.

A key is the port's name (16 bytes, zero padded), then the MAC (6, padded to 8), then the address (4 or 16). The map
`network` has the name alone as its key and the VNI as a packet mark (32 bits in the machine's order) as its value.
"""

from __future__ import annotations

import dataclasses
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Final

from plugin.kernel.nftables import Element
from sdn.model.address import address_bytes, format_mac, link_local, mac_bytes

SETS: Final = ("e4", "e6", "mac", "network")
_NAME_BYTES: Final = 16
_OWNER_BYTES: Final = 24  # name and MAC
_MARK: Final = struct.Struct("=I")

SetElement = tuple[str, Element]
"""(set, element)."""
Raw = tuple[bytes, bytes]
"""(key, data) of an element as dumped; data is empty but in `network`."""


@dataclasses.dataclass(frozen=True, slots=True)
class GuardPort:
    """What a port may send: its MAC, its addresses (IPv4 and IPv6, no prefix length), and its network's number.

    The link-local address that follows from the MAC is always allowed and never listed. Addresses are kept sorted, so
    that values compare equal whatever the order they were given in. A port whose elements contradict each other reads
    with an empty MAC: it equals nothing that one would want, so it gets rewritten.
    """

    mac: str
    addresses: tuple[str, ...]
    vni: int

    def __post_init__(self) -> None:
        listed = self.mac and any(address.startswith("fe80:") for address in self.addresses)
        own = link_local(self.mac) if listed else ""
        object.__setattr__(self, "addresses", tuple(sorted({a for a in self.addresses if a != own})))

    @property
    def damaged(self) -> bool:
        """Whether this was read from elements that do not belong together."""
        return not self.mac


def ifname_key(name: str) -> bytes:
    """An interface's name as a key."""
    return name.encode().ljust(_NAME_BYTES, b"\0")


def mark_key(vni: int) -> bytes:
    """A VNI as a packet mark: key of the maps to counters, value of `network`."""
    return _MARK.pack(vni)


def elements_of(name: str, port: GuardPort) -> set[SetElement]:
    """All that lets the port send; nothing for a damaged one."""
    if port.damaged:
        return set()
    ifname = ifname_key(name)
    owner = ifname + mac_bytes(port.mac) + b"\0\0"
    found = {("mac", Element(owner)), ("network", Element(ifname, mark_key(port.vni)))}
    for address in (*port.addresses, link_local(port.mac)):
        found.add(("e6" if ":" in address else "e4", Element(owner + address_bytes(address))))
    return found


def ports_of(dumped: Mapping[str, Iterable[Raw]]) -> dict[str, GuardPort]:
    """The ports that the elements of all SETS make up, by name; contradictory ones come out damaged."""
    addresses: dict[bytes, set[str]] = defaultdict(set)
    for key, _ in dumped["e4"]:
        addresses[key[:_OWNER_BYTES]].add(inet_ntop(AF_INET, key[_OWNER_BYTES:]))
    for key, _ in dumped["e6"]:
        addresses[key[:_OWNER_BYTES]].add(inet_ntop(AF_INET6, key[_OWNER_BYTES:]))
    owners: dict[bytes, set[bytes]] = defaultdict(set)
    for owner in addresses:
        owners[owner[:_NAME_BYTES]].add(owner)
    macs = {key for key, _ in dumped["mac"]}
    for owner in macs:
        owners[owner[:_NAME_BYTES]].add(owner)
    vnis: dict[bytes, int] = {key: _MARK.unpack(data)[0] for key, data in dumped["network"]}
    return {
        ifname.rstrip(b"\0").decode(errors="replace"): _port(
            owners.get(ifname, set()), macs, addresses, vnis.get(ifname, 0)
        )
        for ifname in owners.keys() | vnis.keys()
    }


def _port(owners: set[bytes], macs: set[bytes], addresses: Mapping[bytes, set[str]], vni: int) -> GuardPort:
    allowed = {address for owner in owners for address in addresses.get(owner, ())}
    if len(owners) == 1 and owners <= macs and vni:
        mac = format_mac(next(iter(owners))[_NAME_BYTES : _OWNER_BYTES - 2])
        own = link_local(mac)
        if own in allowed:
            return GuardPort(mac, tuple(allowed - {own}), vni)
    return GuardPort("", tuple(allowed), vni)


def elements_by_port(dumped: Mapping[str, Iterable[Raw]]) -> dict[bytes, set[SetElement]]:
    """Everything dumped, consistent or not, by the port's name as a key."""
    found: dict[bytes, set[SetElement]] = defaultdict(set)
    for set_name, elements in dumped.items():
        for key, data in elements:
            found[key[:_NAME_BYTES]].add((set_name, Element(key, data)))
    return found
