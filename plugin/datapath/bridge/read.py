"""The kernel to objects: a tenant's namespace by a handful of dumps, the underlay's guard by one.

What is doomed is not there. Rows of a dump become objects without values in between: 10 000 remote endpoints are
50 000 rows.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Collection, Mapping

from plugin.datapath.bridge.objects import (
    SYSCTLS,
    Bridge,
    Counters,
    Gateway,
    GuardTable,
    Member,
    Namespace,
    Neighbour,
    Port,
    Station,
    UnderlayNetwork,
    Vxlan,
    parse_network_alias,
    vni_of,
)
from plugin.datapath.bridge.tenant import TenantNamespace
from plugin.datapath.bridge.underlay_guard import UnderlayGuard
from plugin.datapath.veth.ports import DOOMED, DOOMED_NOW
from plugin.kernel import link, namespace, neighbour, route
from plugin.kernel.netlink import number
from sdn.reconcile.datapath import Key, Object

_MAC_BYTES = 6


def read_tenant(opened: TenantNamespace) -> tuple[dict[Key, Object], list[int]]:
    """The objects of one tenant, and the indexes of the doomed links. Raises: OSError, NetlinkError, HawseError."""
    with opened.reading:
        return _Reading(opened).all()


def read_underlay(guard: UnderlayGuard) -> tuple[set[int], set[tuple[int, str]]]:
    """The VNIs that the underlay's guard knows, and their members."""
    return guard.networks(), guard.read()


def underlay_objects(
    known: tuple[set[int], set[tuple[int, str]]], owners: Mapping[int, str], tenants: Collection[str] | None
) -> dict[Key, Object]:
    """The underlay's objects of some tenants; of all (None), with those that are nobody's as far as is known."""
    objects: dict[Key, Object] = {}
    networks, members = known
    for vni in networks:
        owner = owners.get(vni, "")
        if tenants is None or owner in tenants:
            objects["underlay-network", owner, str(vni)] = UnderlayNetwork()
    for vni, vtep in members:
        owner = owners.get(vni, "")
        if tenants is None or owner in tenants:
            objects["member", owner, str(vni), vtep] = Member()
    return objects


class _Reading:
    """One reading of one namespace."""

    def __init__(self, opened: TenantNamespace) -> None:
        self._opened = opened
        self._tenant: str = opened.tenant
        self._objects: dict[Key, Object] = {}
        self._links: dict[int, link.Link] = {}
        self._names: dict[int, str] = {}
        self._macs: dict[bytes, str] = {}

    def all(self) -> tuple[dict[Key, Object], list[int]]:
        doomed = self._read_links()
        self._read_namespace()
        self._read_guard()
        self._read_gateways()
        self._read_stations()
        self._read_neighbours()
        return self._objects, doomed

    def _read_links(self) -> list[int]:
        doomed: list[int] = []
        for found in link.dump(self._opened.reader):
            if found.group in (DOOMED, DOOMED_NOW):
                doomed.append(found.index)
                continue
            self._links[found.index] = found
            self._names[found.index] = found.name
        self._opened.note(list(self._links.values()))
        networks: dict[int, str] = {}
        for found in self._links.values():
            prefix = found.name[:3]
            if prefix == "hwv" and found.kind == "veth":
                self._objects["port", self._tenant, found.name] = self._port(found)
            elif prefix == "hwb" and found.kind == "bridge":
                made = _bridge(found)
                networks[vni_of(found.name)] = made.network
                self._objects["bridge", self._tenant, found.name] = made
            elif prefix in ("hwx", "hwy") and found.kind == "vxlan":
                self._objects["vxlan", self._tenant, found.name] = self._vxlan(found)
        self._opened.networks = networks
        return doomed

    def _port(self, found: link.Link) -> Port:
        return Port(
            bridge=self._names.get(found.master, ""),
            mtu_bytes=found.mtu_bytes,
            alias=found.alias,
            switches=found.port_flags,
            up=found.up,
        )

    def _vxlan(self, found: link.Link) -> Vxlan:
        data = found.data
        local = data.get(link.VXLAN_LOCAL) or data.get(link.VXLAN_LOCAL6)
        return Vxlan(
            network=parse_network_alias(found.alias),
            bridge=self._names.get(found.master, ""),
            vni=number(data.get(link.VXLAN_ID)),
            local=route.address_text(local) if local and any(local) else "",
            proxy=bool(number(data.get(link.VXLAN_PROXY))),
            mtu_bytes=found.mtu_bytes,
            switches=found.port_flags,
            port=int.from_bytes(data.get(link.VXLAN_PORT, b""), "big"),
            learning=bool(number(data.get(link.VXLAN_LEARNING))),
            up=found.up,
        )

    def _read_namespace(self) -> None:
        wanted = [name for name, _ in SYSCTLS]
        there = namespace.run_in(self._opened.fd, functools.partial(namespace.read_sysctls, wanted))
        sysctls = tuple((name, there.get(name, value)) for name, value in SYSCTLS)  # absent: it cannot be on
        loopback = self._links.get(link.LOOPBACK)
        self._objects["namespace", self._tenant] = Namespace(loopback is not None and loopback.up, sysctls)

    def _read_guard(self) -> None:
        guard = self._opened.guard
        if not guard.present():
            return
        self._objects["guard-table", self._tenant] = GuardTable()
        for vni in guard.networks():
            self._objects["counters", self._tenant, str(vni)] = Counters()
        for name, port in guard.read().items():
            self._objects["guard", self._tenant, name] = port

    def _read_gateways(self) -> None:
        for index, interface in route.dump_addresses(self._opened.reader):
            name = self._names.get(index, "")
            if name.startswith("hwb"):
                self._objects["gateway", self._tenant, name, interface] = Gateway()

    def _read_stations(self) -> None:
        """Two rows make a station elsewhere: the bridge's, and the carrier's; either may be there alone."""
        names, tenant = self._names, self._tenant
        carriers = {index: found.master for index, found in self._links.items() if found.kind == "vxlan"}
        ports: dict[tuple[int, bytes], int] = {}
        vteps: dict[tuple[int, bytes], tuple[int, bytes]] = {}
        for index, state, flags, mac, bridge, vtep in neighbour.dump_forwarding(self._opened.reader):
            if bridge:
                if not state & neighbour.NUD_PERMANENT and index in names:  # permanent: the port's own MAC
                    ports[bridge, mac] = index
            elif flags & neighbour.NTF_SELF and index in carriers:
                vteps[carriers[index], mac] = index, vtep
        stations: dict[tuple[str, str], Station] = {}
        for place in ports.keys() | vteps.keys():
            bridge_name = names.get(place[0])
            if bridge_name is None:
                continue
            port = ports.get(place, 0)
            carrier, vtep = vteps.get(place, (0, b""))
            made = names.get(port, ""), route.address_text(vtep) if vtep else ""
            if carrier not in (0, port):  # a tunnel that is not the way of the bridge: neither half is right
                made = "", made[1]
            station = stations.get(made)
            if station is None:
                station = stations[made] = Station(*made)
            self._objects["station", tenant, bridge_name, self._mac(place[1])] = station

    def _read_neighbours(self) -> None:
        tenant, objects = self._tenant, self._objects
        carriers = {index: found.name for index, found in self._links.items() if found.kind == "vxlan"}
        made: dict[bytes, Neighbour] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            to_text = functools.partial(socket.inet_ntop, family)
            rows = neighbour.dump_neighbours(self._opened.reader, family)
            for index, state, address, mac in rows:
                device = carriers.get(index)
                if device is None or not state & neighbour.NUD_PERMANENT:
                    continue
                found = made.get(mac)
                if found is None:
                    found = made[mac] = Neighbour(self._mac(mac))
                objects["neighbour", tenant, device, to_text(address)] = found

    def _mac(self, packed: bytes) -> str:
        text = self._macs.get(packed)
        if text is None:
            text = self._macs[packed] = packed.hex(":") if len(packed) == _MAC_BYTES else ""
        return text


def _bridge(found: link.Link) -> Bridge:
    data = found.data
    kinds = (link.BRIDGE_AGEING, link.BRIDGE_MCAST_SNOOPING, link.BRIDGE_STP, link.BRIDGE_FORWARD_DELAY)
    ageing, snooping, spanning, delay = (number(data.get(kind)) for kind in kinds)
    return Bridge(
        network=parse_network_alias(found.alias),
        mac=found.mac,
        mtu_bytes=found.mtu_bytes,
        settings=(ageing, snooping, spanning, delay),
        up=found.up,
    )
