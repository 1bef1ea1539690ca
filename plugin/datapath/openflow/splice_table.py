"""The nftables of the splice: which tunnel packets the switch gets, and how those that it sends leave.

What arrives on a link that leads to members, is for a VTEP of ours and says a VNI of ours, goes to the switch; every
other tunnel on the port is left alone. A packet too short to say its VNI is dropped and counted, and so is a first
fragment of one of ours: what ends tunnels in the switch puts nothing together.

A packet of ours that comes out of the switch again, on hwphy's device, was not taken: for some milliseconds after any
link of the host has come or gone, Open vSwitch knows of no tunnel that ends here, for it reads all routes anew. It is
sent in again until it is taken; so many a second, for a switch that lacks its tunnel never takes it.

What the switch sends is handed to the next hop on the way to the member, as the kernel's routes say it, and the kernel
resolves the neighbour: no first packet is lost.

Source: RFC 7348, section 5 (the VNI is @th,96,24: behind 8 bytes of UDP and 4 of VXLAN); nft(8), FWD STATEMENT.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable, Mapping
from typing import Final

from plugin.datapath.openflow.infrastructure import PHYSICAL
from plugin.kernel.nftables import (
    Element,
    Family,
    Message,
    NetfilterError,
    Nftables,
    add_elements,
    delete_elements,
    delete_table,
    versioned,
)
from plugin.kernel.route import NextHop, address_text
from sdn.model.address import address_bytes
from sdn.model.errors import HawseError, Kind

TABLE: Final = "hawse-uplink"
KERNEL_END: Final = "hwu0"
_AGAIN_A_SECOND: Final = 2000
"""A tenth of what the switch can do on one processor."""
MALFORMED: Final = "malformed-tunnel"
Elements = dict[str, dict[bytes, bytes]]
"""Set or map -> key -> data (empty in a set)."""
Links = Mapping[str, int]
"""The links of the rules, by name, with their indexes: hwu0, hwphy, and those that packets arrive on."""
_SETS: Final = ("vni", "own4", "own6", "next4", "next6", "link4", "link6")

_BODY: Final = f"""
  set vni {{ typeof @th,96,24; }}
  set own4 {{ type ipv4_addr; }}
  set own6 {{ type ipv6_addr; }}
  map next4 {{ type ipv4_addr : ipv4_addr; }}
  map next6 {{ type ipv6_addr : ipv6_addr; }}
  map link4 {{ type ipv4_addr : iface_index; }}
  map link6 {{ type ipv6_addr : iface_index; }}
  chain malformed {{
    counter name {MALFORMED} drop
  }}
  chain fragment {{
    @th,96,24 @vni goto malformed
    @th,96,24 >= 0 accept
    goto malformed
  }}
  chain take {{
    ip frag-off & 0x3fff != 0 goto fragment
    exthdr frag exists goto fragment
    @th,96,24 @vni fwd to "{KERNEL_END}"
    @th,96,24 >= 0 accept
    goto malformed
  }}
  chain up {{
    type filter hook ingress device "{KERNEL_END}" priority 0; policy drop;
    udp dport 4789 fwd ip to ip daddr map @next4 device ip daddr map @link4
    udp dport 4789 fwd ip6 to ip6 daddr map @next6 device ip6 daddr map @link6
  }}
"""
_AGAIN: Final = f"""
  chain offer {{
    limit rate {_AGAIN_A_SECOND}/second burst {_AGAIN_A_SECOND} packets fwd to "{KERNEL_END}"
  }}
  chain again {{
    type filter hook ingress device "{PHYSICAL}" priority 0; policy accept;
    udp dport 4789 @th,96,24 @vni goto offer
  }}
"""
_DOWN: Final = """
  chain down {
    type filter hook ingress devices = { LINKS } priority 0; policy accept;
    udp dport 4789 ip daddr @own4 goto take
    udp dport 4789 ip6 daddr @own6 goto take
  }
"""


def text_of(links: Links, counted: tuple[int, int], elements: Elements) -> str:
    """The commands that load the table in the place of any older one."""
    arrivals = ", ".join(f'"{name}"' for name in sorted(links) if name not in (KERNEL_END, PHYSICAL))
    down = _DOWN.replace("LINKS", arrivals) if arrivals else ""
    return (
        f"table netdev {TABLE}\ndelete table netdev {TABLE}\ntable netdev {TABLE} {{\n"
        f"  counter {MALFORMED} {{ packets {counted[0]} bytes {counted[1]} }}\n"
        f"  chain {version_of(links)} {{\n  }}{_BODY}{_AGAIN}{down}}}\n"
    ) + "".join(
        f"add element netdev {TABLE} {name} {{ {_shown(name, key, data)} }}\n"
        for name, held in elements.items()
        for key, data in held.items()
    )


def _shown(name: str, key: bytes, data: bytes) -> str:
    """An element in the words of `nft`; the index of a link is in the machine's byte order."""
    first = str(int.from_bytes(key, "big")) if name == "vni" else address_text(key)
    if not data:
        return first
    return f"{first} : {address_text(data) if name.startswith('next') else int.from_bytes(data, sys.byteorder)}"


def version_of(links: Links) -> str:
    """The name of the empty chain that marks a table as loaded from this text, for these links.

    With their indexes: rules and hooks are of a link, not of a name, and die with it.
    """
    return versioned(f"{_BODY}{_AGAIN}{_DOWN}{sorted(links.items())}")


def wanted_elements(vnis: Iterable[int], vteps: Iterable[str], ways: Mapping[str, NextHop]) -> Elements:
    """What the sets have to hold. `ways`: by member's VTEP."""
    wanted: Elements = {name: {} for name in _SETS}
    wanted["vni"] = {vni.to_bytes(3, "big"): b"" for vni in vnis}
    for vtep in vteps:
        wanted["own6" if ":" in vtep else "own4"][address_bytes(vtep)] = b""
    for member, way in ways.items():
        family, key, hop = "6" if ":" in member else "4", address_bytes(member), address_bytes(way.address)
        if len(hop) != len(key):  # an IPv4 packet by an IPv6 router: `fwd` cannot say that
            continue
        wanted["next" + family][key] = hop
        wanted["link" + family][key] = way.index.to_bytes(4, sys.byteorder)
    return wanted


class SpliceTable:
    """The table in one namespace (None: this process's). One thread's at a time."""

    def __init__(self, ns_fd: int | None) -> None:
        self._rules = Nftables(ns_fd)
        self._held: Elements | None = None

    def is_loaded(self, links: Links) -> bool:
        """Whether it is there, in this version, for these links."""
        return self._rules.has_chain(Family.NETDEV, TABLE, version_of(links))

    def load(self, links: Links, elements: Elements) -> None:
        """Load it, with what its sets hold. Raises: UNAVAILABLE, DENIED."""
        self._held = None
        self._rules.load(text_of(links, self.malformed(), elements))

    def read(self) -> Elements:
        """What the sets hold; nothing where there is no table."""
        found: Elements = {}
        try:
            for name in _SETS:
                width = 3 if name == "vni" else 16 if name.endswith("6") else 4
                rows = self._rules.elements(Family.NETDEV, TABLE, name)
                found[name] = {key[:width]: data for key, data in rows}
        except NetfilterError as error:
            if error.errno != errno.ENOENT:
                raise _failed("cannot read", error) from error
            found = {name: {} for name in _SETS}
        self._held = found
        return found

    def write(self, wanted: Elements) -> None:
        """Have the sets hold exactly this. Raises: INTERNAL, UNAVAILABLE (the table is gone)."""
        for attempt in (1, 2):
            held = self._held if self._held is not None else self.read()
            messages = _difference(held, wanted)
            self._held = None
            try:
                self._rules.transact(messages)
            except NetfilterError as error:
                if error.errno == errno.ENOENT and attempt == 1:  # others have changed it: look again
                    continue
                raise _failed("cannot change", error) from error
            self._held = wanted
            return

    def malformed(self) -> tuple[int, int]:
        """(packets, bytes) that were dropped because they do not say their VNI."""
        try:
            counters = self._rules.counters(Family.NETDEV, TABLE)
        except NetfilterError as error:
            if error.errno != errno.ENOENT:
                raise _failed("cannot read the counters of", error) from error
            return 0, 0
        return next(((one.packets, one.bytes) for one in counters if one.name == MALFORMED), (0, 0))

    def remove(self) -> None:
        """Remove it; absent is fine."""
        self._held = None
        try:
            self._rules.transact([delete_table(Family.NETDEV, TABLE)])
        except NetfilterError as error:
            if error.errno != errno.ENOENT:
                raise _failed("cannot remove", error) from error

    def close(self) -> None:
        """Let go of descriptors; the table stays."""
        self._rules.close()


def _difference(held: Elements, wanted: Elements) -> list[Message]:
    messages: list[Message] = []
    for name in _SETS:
        old, new = held[name], wanted[name]
        gone = [Element(key) for key, data in old.items() if new.get(key) != data]
        come = [Element(key, data) for key, data in new.items() if old.get(key) != data]
        messages += delete_elements(Family.NETDEV, TABLE, name, gone)
        messages += add_elements(Family.NETDEV, TABLE, name, come)
    return messages


def _failed(attempt: str, error: NetfilterError) -> HawseError:
    kind = Kind.UNAVAILABLE if error.errno == errno.ENOENT else Kind.INTERNAL
    return HawseError(kind, f"{attempt} the nftables table {TABLE}: {error}", facts={"errno": error.errno})
