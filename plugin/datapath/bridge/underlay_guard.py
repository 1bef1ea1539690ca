"""The guard of the underlay: tunnel packets of our networks are taken from the hosts that are members of them, only.

Its table is in the namespace that holds the VXLAN sockets. It looks at VXLAN packets (UDP port 4789) for this machine
whose VNI is one of ours; every other tunnel on the port is left alone. A packet too short, or cut into fragments too
small, to say its VNI is dropped: it could be put together behind the guard.

Limit: a source address on the underlay proves nothing by itself; who can forge it needs an underlay that checks.
Source: RFC 7348 section 5 (the VNI is @th,96,24: behind 8 bytes of UDP and 4 of VXLAN).
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Collection
from typing import Final

from plugin.datapath.bridge.guard_elements import mark_key
from plugin.datapath.bridge.guard_table import TABLE, counter_name, counter_of, table_text
from plugin.kernel.nftables import (
    Counter,
    Element,
    Family,
    Message,
    NetfilterError,
    Nftables,
    add_counter,
    add_elements,
    delete_counter,
    delete_elements,
    delete_table,
    versioned,
)
from sdn.model.address import Family as AddressFamily
from sdn.model.address import address_bytes, format_address
from sdn.model.errors import HawseError, Kind, not_found

FOREIGN: Final = "foreign-vtep"
MALFORMED: Final = "malformed-tunnel"

_BODY: Final = f"""
  map vni {{ typeof @th,96,24 : meta mark; }}
  map count-{FOREIGN} {{ type mark : counter; }}
  set member4 {{ typeof @th,96,24 . ip saddr; }}
  set member6 {{ typeof @th,96,24 . ip6 saddr; }}
  chain drop-{FOREIGN} {{
    counter name meta mark map @count-{FOREIGN} drop
    drop
  }}
  chain tunnel {{
    @th,96,24 . ip saddr @member4 accept
    @th,96,24 . ip6 saddr @member6 accept
    fib daddr type != local accept
    ip frag-off & 0x1fff != 0 accept
    frag frag-off != 0 accept
    meta mark set @th,96,24 map @vni goto drop-{FOREIGN}
    @th,96,24 >= 0 accept
    counter name {MALFORMED} drop
  }}
  chain underlay {{
    type filter hook prerouting priority raw; policy accept;
    udp dport 4789 goto tunnel
  }}
"""
_VERSION: Final = versioned(_BODY)
Membership = tuple[int, str]
"""(VNI, address of a VTEP)."""


class UnderlayGuard:
    """The table `inet hawse` of the host's own namespace (None: this process's). Calls come from any thread."""

    def __init__(self, ns_fd: int | None = None) -> None:
        self._rules = Nftables(ns_fd)
        self._writing = threading.Lock()

    def ensure(self) -> bool:
        """Load the table if it is absent or of another version; True if it had to.

        What an older version held is carried over, counts excepted. Raises: UNAVAILABLE, DENIED.
        """
        with self._writing:
            if self.present():
                return False
            networks, members = self._salvaged()
            lines = [table_text("inet", _BODY, _VERSION, {MALFORMED: (0, 0)})]
            for vni in networks:
                name = counter_name(FOREIGN, vni)
                lines.append(f"add counter inet {TABLE} {name}")
                lines.append(f'add element inet {TABLE} count-{FOREIGN} {{ {vni} : "{name}" }}')
                lines.append(f"add element inet {TABLE} vni {{ {vni} : {vni} }}")
            lines += [f"add element inet {TABLE} {set_of(vtep)} {{ {vni} . {vtep} }}" for vni, vtep in members]
            self._rules.load("\n".join(lines))
            return True

    def present(self) -> bool:
        """Whether the table is loaded, in this version."""
        return self._rules.has_chain(Family.INET, TABLE, _VERSION)

    def ensure_network(self, vni: int) -> None:
        """From now on take this VNI from members alone. Its counter keeps its number if it is there already."""
        name, key = counter_name(FOREIGN, vni), mark_key(vni)
        with self._writing:
            self._transact(
                [
                    add_counter(Family.INET, TABLE, name),
                    *add_elements(Family.INET, TABLE, f"count-{FOREIGN}", [Element(key, counter=name)]),
                    *add_elements(Family.INET, TABLE, "vni", [Element(_vni_key(vni), key)]),
                ],
                f"cannot guard the tunnels of network {vni}",
            )

    def remove_network(self, vni: int) -> None:
        """Leave this VNI alone from now on, and forget its members; absent is no error."""
        name, key = counter_name(FOREIGN, vni), mark_key(vni)
        with self._writing:
            members = {member for member in self.read() if member[0] == vni}
            messages = _member_messages((), members)
            for map_name, map_key in (("vni", _vni_key(vni)), (f"count-{FOREIGN}", key)):
                if any(held == map_key for held, _ in self._elements(map_name)):
                    messages += delete_elements(Family.INET, TABLE, map_name, [Element(map_key)])
            if any(counter.name == name for counter in self._counters()):
                messages.append(delete_counter(Family.INET, TABLE, name))
            self._transact(messages, f"cannot remove the guard of the tunnels of network {vni}")

    def networks(self) -> set[int]:
        """The VNIs that are guarded."""
        return {int.from_bytes(key[:3], "big") for key, _ in self._elements("vni")}

    def read(self) -> set[Membership]:
        """Every VTEP that a VNI is taken from."""
        return {
            (int.from_bytes(key[:3], "big"), format_address(family, int.from_bytes(key[4:], "big")))
            for name, family in _MEMBER_SETS
            for key, _ in self._elements(name)
        }

    def write(self, add: Collection[Membership], remove: Collection[Membership]) -> None:
        """Change the VTEPs that VNIs are taken from, all or nothing. Present or absent already is no error.

        Raises: NOT_FOUND without the table, INTERNAL.
        """
        with self._writing:
            try:
                self._rules.transact(_member_messages(add, remove))
            except NetfilterError as error:
                if error.errno != errno.ENOENT or not remove:
                    raise _failed("cannot change the members of tunnels", error) from error
                there = self.read()
                self._transact(
                    _member_messages(add, [member for member in remove if member in there]),
                    "cannot change the members of tunnels",
                )

    def guards(self, vni: int) -> bool:
        """Whether this VNI is taken from members alone, now."""
        return self._holds("vni", _vni_key(vni))

    def admits(self, vni: int, vtep: str) -> bool:
        """Whether this VNI is taken from this VTEP by name, now."""
        return self._holds(set_of(vtep), _vni_key(vni) + b"\0" + address_bytes(vtep))

    def _holds(self, name: str, key: bytes) -> bool:
        try:
            return self._rules.find(Family.INET, TABLE, name, key) is not None
        except NetfilterError as error:
            raise _failed("cannot look into the guard of the underlay", error) from error

    def drops(self) -> list[tuple[int, str, int, int]]:
        """(VNI, cause, packets, bytes) of every counter; VNI 0 for what belongs to no network."""
        return [(*counter_of(counter.name), counter.packets, counter.bytes) for counter in self._counters()]

    def remove_table(self) -> None:
        """Remove all of it; absent is no error."""
        with self._writing:
            try:
                self._rules.transact([delete_table(Family.INET, TABLE)])
            except NetfilterError as error:
                if error.errno != errno.ENOENT:
                    raise _failed("cannot remove the guard of the underlay", error) from error

    def close(self) -> None:
        """Let go of descriptors; the table stays."""
        self._rules.close()

    def _salvaged(self) -> tuple[set[int], set[Membership]]:
        """What a table holds that is about to be replaced; nothing where it cannot be read."""
        try:
            return self.networks(), self.read()
        except (HawseError, ValueError, OverflowError):  # of a layout that this version does not know
            return set(), set()

    def _elements(self, name: str) -> list[tuple[bytes, bytes]]:
        try:
            return self._rules.elements(Family.INET, TABLE, name)
        except NetfilterError as error:
            if error.errno == errno.ENOENT:
                return []
            raise _failed("cannot read the guard of the underlay", error) from error

    def _counters(self) -> list[Counter]:
        try:
            return self._rules.counters(Family.INET, TABLE)
        except NetfilterError as error:
            if error.errno == errno.ENOENT:
                return []
            raise _failed("cannot read the counters of the underlay's guard", error) from error

    def _transact(self, messages: Collection[Message], attempt: str) -> None:
        try:
            self._rules.transact(messages)
        except NetfilterError as error:
            raise _failed(attempt, error) from error


_MEMBER_SETS: Final[tuple[tuple[str, AddressFamily], ...]] = (("member4", 4), ("member6", 6))


def set_of(vtep: str) -> str:
    """The set that holds members with a VTEP of this family."""
    return "member6" if ":" in vtep else "member4"


def _vni_key(vni: int) -> bytes:
    return vni.to_bytes(3, "big")


def _member_messages(add: Collection[Membership], remove: Collection[Membership]) -> list[Message]:
    messages: list[Message] = []
    for encode, members in ((delete_elements, remove), (add_elements, add)):
        for name, _ in _MEMBER_SETS:
            elements = [
                Element(_vni_key(vni) + b"\0" + address_bytes(vtep)) for vni, vtep in members if set_of(vtep) == name
            ]
            messages += encode(Family.INET, TABLE, name, elements)
    return messages


def _failed(attempt: str, error: NetfilterError) -> HawseError:
    if error.errno == errno.ENOENT:
        return not_found(f"{attempt}: its nftables table is gone", "the next reconcile loads it again")
    return HawseError(Kind.INTERNAL, f"{attempt}: {error}", facts={"errno": error.errno})
