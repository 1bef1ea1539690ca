"""The way out and in for the userspace datapath: two ends of a veth between the kernel and the switch.

    containers ── hwint ──(tunnel)── hwphy ── hwu1 ══ hwu0 ── nftables ── the host's own links

The uplink stays the kernel's: it is put in no bridge, and its address, routes and neighbours are the host's as before.
hwphy's own device has a copy of the VTEPs' addresses, for the switch ends tunnels at addresses that its bridges have.
The host's end sends whole, checksummed packets into the switch: all offloads of hwu0 are off, so the kernel segments
what comes in super-packets.

Limit: fragments of tunnel packets are dropped; give the underlay the MTU that it needs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from plugin.datapath.openflow.infrastructure import PHYSICAL, SWITCH_END
from plugin.datapath.openflow.splice_table import KERNEL_END, TABLE, SpliceTable, wanted_elements
from plugin.kernel import ethtool, link, route
from plugin.kernel.namespace import run_in, write_sysctls
from plugin.kernel.netlink import NetlinkError, NetlinkSocket
from plugin.kernel.route import NextHop
from sdn.model.errors import HawseError, Kind, conflict

MTU_BYTES: Final = 1500
"""Of the splice, as long as no uplink is known."""
_OFF: Final = {"tx": False, "tso": False, "gso": False}
_ALIAS: Final = "hawse-uplink"
_LOOPBACK: Final = "lo"


@dataclasses.dataclass(frozen=True, slots=True)
class Underlay:
    """What the host's kernel says of the way to the members. `links`: names and indexes. `problems`: sentences."""

    links: Mapping[str, int]
    mtu_bytes: int
    ways: Mapping[str, NextHop]
    problems: tuple[str, ...]


def survey(netlink: NetlinkSocket, vteps: Collection[str], members: Iterable[str]) -> Underlay:
    """Look it up. Raises: NetlinkError."""
    links: dict[int, link.Link | None] = {}
    problems: list[str] = []
    holders = route.holders(netlink)
    for vtep in vteps:
        if vtep in holders:
            links[holders[vtep]] = None
        else:
            problems.append(f"no link of this host has its VTEP {vtep}: no tunnel packet arrives")
    ways: dict[str, NextHop] = {}
    for member in members:
        try:
            ways[member] = way = route.next_hop(netlink, member)
        except NetlinkError as error:
            if error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL):
                raise
            problems.append(f"there is no route to {member}: containers there are not reached")
        else:
            links[way.index] = None
    found = [known for known in (_link(netlink, index) for index in links) if known and known.name != _LOOPBACK]
    mtu = max((known.mtu_bytes for known in found), default=MTU_BYTES)
    return Underlay({known.name: known.index for known in found}, min(mtu, 65000), ways, tuple(problems))


def _link(netlink: NetlinkSocket, index: int) -> link.Link | None:
    with contextlib.suppress(NetlinkError):
        return link.get(netlink, index=index)
    return None


class Splice:
    """The kernel's side of it, in one namespace (None: this process's). One thread's."""

    def __init__(self, owner: str, ns_fd: int | None) -> None:
        self._alias = f"{_ALIAS}:{owner}"[:200]
        self._ns_fd = ns_fd
        with contextlib.ExitStack() as undo:
            self.netlink = NetlinkSocket.open(ns_fd)
            undo.callback(self.netlink.close)
            self.table = SpliceTable(ns_fd)
            undo.callback(self.table.close)
            self._undo = undo.pop_all()

    def prepare(self, mtu_bytes: int) -> str:
        """Have the veth, quiet and without offloads; the MAC of its kernel end.

        Raises: CONFLICT where a link of its name is somebody else's, INTERNAL.
        """
        try:
            there = self._get(KERNEL_END)
            if there is None:
                self._make(mtu_bytes)
                there = link.get(self.netlink, name=KERNEL_END)
            elif there.kind != "veth" or there.alias != self._alias:
                raise conflict(
                    f"this host has a link {KERNEL_END} that is not Hawse's, or another installation's",
                    f"rename or remove it (ip link del {KERNEL_END}), if nobody needs it",
                    link=KERNEL_END,
                )
            self._settle(mtu_bytes)
        except (NetlinkError, OSError) as error:
            raise HawseError(Kind.INTERNAL, f"cannot make the links {KERNEL_END} and {SWITCH_END}: {error}") from error
        return there.mac

    def _make(self, mtu_bytes: int) -> None:
        quiet = link.encode_mtu(mtu_bytes) + link.encode_no_address_generation()
        try:
            self.netlink.do(link.create_veth_pair(KERNEL_END, SWITCH_END, link.encode_mtu(mtu_bytes)))
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            raise conflict(
                f"this host has a link {SWITCH_END} that is not Hawse's",
                f"rename or remove it (ip link del {SWITCH_END}), if nobody needs it",
                link=SWITCH_END,
            ) from None
        for name in (KERNEL_END, SWITCH_END):
            self.netlink.do(link.change_named(name, quiet + link.encode_alias(self._alias)))
        self._sysctls({f"ipv6/conf/{name}/disable_ipv6": "1" for name in (KERNEL_END, SWITCH_END)})

    def _settle(self, mtu_bytes: int) -> None:
        for name in (KERNEL_END, SWITCH_END):
            there = link.get(self.netlink, name=name)
            if not there.up or there.mtu_bytes != mtu_bytes:
                self.netlink.do(link.change(there.index, link.encode_mtu(mtu_bytes), up=True))
        if any(ethtool.read_feature(self.netlink, KERNEL_END, feature) for feature in _OFF):
            ethtool.write_features(self.netlink, KERNEL_END, _OFF)

    def has_physical(self) -> bool:
        """Whether hwphy's device is there."""
        return self._get(PHYSICAL) is not None

    def is_listened_to(self) -> bool:
        """Whether the switch takes what arrives on its end, and not on a former device of that name."""
        there = self._get(SWITCH_END)
        return there is not None and there.promiscuous

    def connect(self, underlay: Underlay, vteps: Collection[str], vnis: Collection[int]) -> None:
        """Have packets pass: nftables, and the VTEPs on hwphy's device, which is there. Raises: HawseError."""
        wanted = wanted_elements(vnis, vteps, underlay.ways)
        links = self._links(underlay)
        if not self.table.is_loaded(links):
            self.table.load(links, wanted)
        self.table.write(wanted)
        try:
            self._address(underlay.mtu_bytes, vteps)
        except (NetlinkError, OSError) as error:
            raise HawseError(Kind.INTERNAL, f"cannot give {PHYSICAL} the VTEP's address: {error}") from error

    def _address(self, mtu_bytes: int, vteps: Collection[str]) -> None:
        there = link.get(self.netlink, name=PHYSICAL)
        if not there.up:
            self._sysctls(_QUIET | {f"ipv6/conf/{PHYSICAL}/disable_ipv6": "0"})
        if not there.up or there.mtu_bytes < mtu_bytes:
            self.netlink.do(link.change(there.index, link.encode_mtu(mtu_bytes), up=True))
        wanted = {_alone(vtep) for vtep in vteps}
        held = self._addresses(there.index)
        for interface in held - wanted:
            self.netlink.do(route.remove_address(there.index, interface))
        for interface in wanted - held:
            self.netlink.do(route.add_address_alone(there.index, interface))

    def faults(self, underlay: Underlay, vteps: Collection[str], vnis: Collection[int]) -> list[str]:
        """What is not as it should be, as sentences. Raises: HawseError, NetlinkError."""
        found = list(underlay.problems)
        for name in (KERNEL_END, SWITCH_END):
            there = self._get(name)
            if there is None:
                found.append(f"the link {name} is gone")
            elif not there.up or there.mtu_bytes != underlay.mtu_bytes:
                found.append(f"the link {name} is down, or has another MTU than {underlay.mtu_bytes}")
            elif name == KERNEL_END and any(ethtool.read_feature(self.netlink, name, feature) for feature in _OFF):
                found.append(f"the link {name} has offloads on: what is segmented late does not leave the switch")
            elif name == SWITCH_END and not there.promiscuous:
                found.append(f"the switch does not listen on the link {name}: it was made anew")
        if not self.table.is_loaded(self._links(underlay)):
            found.append(f"the nftables table {TABLE} is gone, or of another version")
        elif self.table.read() != wanted_elements(vnis, vteps, underlay.ways):
            found.append(f"the sets of the nftables table {TABLE} hold something else")
        return found + self._physical_faults(vteps)

    def _links(self, underlay: Underlay) -> dict[str, int]:
        own = {name: self._get(name) for name in (KERNEL_END, PHYSICAL)}
        return {**underlay.links, **{name: there.index if there else 0 for name, there in own.items()}}

    def _physical_faults(self, vteps: Collection[str]) -> list[str]:
        there = self._get(PHYSICAL)
        if there is None:
            return [f"the link {PHYSICAL} is gone"]
        wrong = not there.up or self._addresses(there.index) != {_alone(vtep) for vtep in vteps}
        return [f"the link {PHYSICAL} is down, or has other addresses than the VTEPs"] if wrong else []

    def vteps(self) -> list[str]:
        """The VTEPs that hwphy's device has now."""
        there = self._get(PHYSICAL)
        return [] if there is None else sorted(each.partition("/")[0] for each in self._addresses(there.index))

    def vnis(self) -> set[int]:
        """The VNIs that are taken from the underlay now."""
        return {int.from_bytes(key, "big") for key in self.table.read()["vni"]}

    def members(self) -> set[str]:
        """The members' VTEPs that are sent to now."""
        held = self.table.read()
        return {route.address_text(key) for name in ("next4", "next6") for key in held[name]}

    def remove(self) -> None:
        """Remove it; absent is fine. Raises: HawseError."""
        self.table.remove()
        there = self._get(KERNEL_END)
        if there is not None and there.alias == self._alias:
            with contextlib.suppress(NetlinkError):  # gone meanwhile
                self.netlink.do(link.delete(there.index))

    def close(self) -> None:
        """Let go of descriptors; twice is fine."""
        self._undo.close()

    def _get(self, name: str) -> link.Link | None:
        try:
            return link.get(self.netlink, name=name)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
            return None

    def _addresses(self, index: int) -> set[str]:
        return {interface for at, interface in route.dump_addresses(self.netlink) if at == index}

    def _sysctls(self, values: Mapping[str, str]) -> None:
        if self._ns_fd is None:
            write_sysctls(values)
        else:
            run_in(self._ns_fd, lambda: write_sysctls(values))


_QUIET: Final = {
    f"ipv6/conf/{PHYSICAL}/addr_gen_mode": "1",
    f"ipv6/conf/{PHYSICAL}/accept_ra": "0",
    f"ipv6/conf/{PHYSICAL}/router_solicitations": "0",
}


def _alone(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"
