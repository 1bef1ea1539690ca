"""Why a packet arrives or does not, by the kernel's own entries: single looks at links, neighbours, forwarding, sets.

Nothing is dumped and nothing remembered is asked: a look costs the same with ten endpoints and with ten thousand. What
the kernel counts is by port, by carrier and by cause of a drop; entries have no counters of their own.
"""

from __future__ import annotations

import msgspec

from plugin.datapath.bridge.guard_elements import ifname_key
from plugin.datapath.bridge.guard_table import TABLE
from plugin.datapath.bridge.objects import PROXY_SWITCHES, bridge_name, carrier_name
from plugin.datapath.bridge.tenant import TenantNamespace
from plugin.datapath.bridge.underlay_guard import FOREIGN, UnderlayGuard, set_of
from plugin.datapath.veth.ports import parse_port_alias, port_name
from plugin.kernel import link, neighbour, route
from plugin.kernel.netlink import number
from sdn.model.address import address_bytes, format_mac, mac_bytes
from sdn.model.explanation import Arrival, Departure, FlowRow, Packet
from sdn.model.ids import EndpointId
from sdn.reconcile.explain import Look, Way

FRAMES, ARRIVALS = f"nft bridge {TABLE}", f"nft inet {TABLE}"
_Examined = tuple[link.Link, link.Traffic]


class BridgeSight:
    """Looks for one explanation, in a tenant's namespace (None: this host has none) and at the underlay's guard.

    To be used under the namespace's `reading`. Raises (all of it): NetlinkError, HawseError.
    """

    def __init__(self, opened: TenantNamespace | None, underlay: UnderlayGuard) -> None:
        self._opened = opened
        self._underlay = underlay

    def speaks(self, packet: Departure) -> Look:
        """See Sight: an element of the guard's sets, and the port itself."""
        name = port_name(EndpointId(packet.endpoint))
        port = self._examine(name)
        owner = ifname_key(name) + mac_bytes(packet.mac) + b"\0\0"
        family = 6 if ":" in packet.address else 4
        table, key = f"{FRAMES} e{family}", owner + address_bytes(packet.address)
        row = _row(packet, table, f"{name} . {packet.mac} . {packet.address}", "accept", packet.address)
        row = msgspec.structs.replace(row, endpoint=packet.endpoint)
        if self._opened is not None and not self._opened.guard.present():
            row = msgspec.structs.replace(row, match=name, action="everything passes: the guard is not loaded")
            return Look(_sent_by(row, port), there=True, trouble=_port_trouble(port, name, self._bridge(packet)))
        if not self._holds(f"e{family}", key):
            cause = self._cause_of(name, owner, family)
            return Look(self._dropped(row, packet, cause), there=False, cause=cause)
        if family == 6 and packet.to and not self._holds("mac", owner):  # a solicitation says the sender's MAC
            row = msgspec.structs.replace(row, table=f"{FRAMES} mac", match=f"{name} . {packet.mac}")
            return Look(self._dropped(row, packet, "nd-spoof"), there=False, cause="nd-spoof")
        return Look(_sent_by(row, port), there=True, trouble=_port_trouble(port, name, self._bridge(packet)))

    def refuses(self, packet: Departure, cause: str) -> FlowRow:
        """See Sight: the chain of the cause."""
        return self._dropped(_row(packet, FRAMES, f"drop-{cause}", "drop", ""), packet, cause)

    def resolves(self, packet: Departure) -> Look:
        """See Sight: a neighbour of the carrier that is the proxy; a gateway's address on the bridge."""
        if packet.gateway:
            return self._gateway(packet)
        proxy, names = None, []
        for family in (4, 6):
            found = self._examine(carrier_name(packet.vni, family))
            if found is not None and number(found[0].data.get(link.VXLAN_PROXY)):
                proxy = proxy or found
            names.append(carrier_name(packet.vni, family))
        if proxy is None or self._opened is None:
            row = _row(packet, f"neighbour {names[0]}", packet.to, "missing", packet.to)
            return Look(row, there=False, trouble=f"neither {names[0]} nor {names[1]} is there to answer")
        device = proxy[0]
        table = f"neighbour {device.name}"
        entry = neighbour.find_neighbour(self._opened.reader, device.index, address_bytes(packet.to))
        if entry is None or not entry[0] & neighbour.NUD_CONNECTED:
            return Look(_row(packet, table, packet.to, f"is {packet.to_mac or 'nobody'}", packet.to), there=False)
        mac = format_mac(entry[1])
        trouble = _carrier_trouble(proxy, self._bridge(packet))
        if not trouble and not device.port_flags >= PROXY_SWITCHES:
            trouble = f"{device.name}, which answers, is not given broadcast and multicast"
        return Look(_row(packet, table, packet.to, f"is {mac}", packet.to), there=True, mac=mac, trouble=trouble)

    def forwards(self, packet: Packet, mac: str) -> Look:
        """See Sight: the bridge's entry, and the carrier's own where it leads into the tunnel."""
        bridge, name = self._bridge(packet), bridge_name(packet.vni)
        table = f"forwarding {name}"
        missing = _row(packet, table, mac, "to its port", mac)
        if bridge is None or self._opened is None:
            return Look(missing, there=False, trouble=f"the bridge {name} is not there")
        index = neighbour.find_forward(self._opened.reader, bridge[0].index, mac_bytes(mac))
        if index is None:
            return Look(missing, there=False)
        if index == bridge[0].index:
            return Look(_row(packet, table, mac, "to the bridge itself", mac), there=True, way=Way(gateway=True))
        port = link.examine(self._opened.reader, index=index)
        if port is None:
            return Look(missing, there=False)
        if port[0].kind == "vxlan":
            return self._tunnel(packet, mac, port, bridge)
        owner = parse_port_alias(port[0].alias)
        row = _row(packet, table, mac, f"to {port[0].name}", mac)
        return Look(row, there=True, way=Way(endpoint=owner.endpoint if owner is not None else ""))

    def admits(self, packet: Arrival) -> Look:
        """See Sight: an element of the underlay's guard, and the carrier that takes what it lets in."""
        name = carrier_name(packet.vni, 6 if ":" in packet.vtep else 4)
        carrier = self._examine(name)
        table = f"{ARRIVALS} {set_of(packet.vtep)}"
        row = _row(packet, table, f"{packet.vni} . {packet.vtep}", "accept", packet.vtep)
        if not self._underlay.admits(packet.vni, packet.vtep):
            if self._underlay.guards(packet.vni):
                return Look(self._dropped(row, packet, FOREIGN), there=False, cause=FOREIGN)
            row = msgspec.structs.replace(row, match=str(packet.vni), action="everything passes: it is not guarded")
        trouble = _carrier_trouble(carrier, self._bridge(packet), name)
        if carrier is not None:
            traffic = carrier[1]
            row = _counted(row, traffic.received_packets, traffic.received_bytes, f"received by {name}")
        return Look(row, there=True, trouble=trouble)

    def delivers(self, packet: Packet) -> Look:
        """See Sight: the host's end of the target's veth; the bridge's own device for a gateway."""
        bridge = self._bridge(packet)
        if not packet.target:
            row = _row(packet, "device", bridge_name(packet.vni), "to the host's own stack", "")
            if bridge is None:
                return Look(row, there=False)
            traffic = bridge[1]
            row = _counted(row, traffic.received_packets, traffic.received_bytes, "given to the gateway")
            return Look(row, there=True, trouble="" if bridge[0].up else "the bridge is down")
        name = port_name(EndpointId(packet.target))
        port = self._examine(name)
        row = msgspec.structs.replace(_row(packet, "port", name, "to the container", ""), endpoint=packet.target)
        if port is None:
            return Look(row, there=False)
        row = _counted(row, port[1].sent_packets, port[1].sent_bytes, "given to the container")
        return Look(row, there=True, trouble=_port_trouble(port, name, bridge))

    def _tunnel(self, packet: Packet, mac: str, carrier: _Examined, bridge: _Examined) -> Look:
        device, traffic = carrier
        assert self._opened is not None, "a carrier was found in it"
        table = f"forwarding {device.name}"
        vtep = neighbour.find_tunnel(self._opened.reader, device.index, mac_bytes(mac))
        if vtep is None:
            return Look(_row(packet, table, mac, "to its host", mac), there=False)
        text = route.address_text(vtep)
        row = _row(packet, table, mac, f"to {text}", mac)
        row = _counted(row, traffic.sent_packets, traffic.sent_bytes, f"sent by {device.name}")
        return Look(row, there=True, way=Way(vtep=text), trouble=_carrier_trouble(carrier, bridge))

    def _gateway(self, packet: Departure) -> Look:
        bridge, name = self._bridge(packet), bridge_name(packet.vni)
        if bridge is None or self._opened is None:
            row = _row(packet, f"address {name}", packet.to, "is the gateway", packet.to)
            return Look(row, there=False, trouble=f"the bridge {name} is not there")
        held = {
            interface.partition("/")[0]
            for index, interface in route.dump_addresses(self._opened.reader)
            if index == bridge[0].index
        }
        row = _row(packet, f"address {name}", packet.to, f"is {bridge[0].mac}", packet.to)
        return Look(row, packet.to in held, mac=bridge[0].mac, trouble="" if bridge[0].up else "the bridge is down")

    def _bridge(self, packet: Packet) -> _Examined | None:
        return self._examine(bridge_name(packet.vni))

    def _examine(self, name: str) -> _Examined | None:
        return None if self._opened is None else link.examine(self._opened.reader, name=name)

    def _holds(self, name: str, key: bytes) -> bool:
        return self._opened is not None and self._opened.guard.holds(name, key)

    def _cause_of(self, name: str, owner: bytes, family: int) -> str:
        """What the guard counts a frame under that is in no set."""
        if not self._holds("network", ifname_key(name)):
            return "unknown-port"
        return f"ip{family}-spoof" if self._holds("mac", owner) else "mac-spoof"

    def _dropped(self, row: FlowRow, packet: Packet, cause: str) -> FlowRow:
        """With the count of what died of the cause in the network."""
        counters = self._underlay.drops() if cause == FOREIGN else []
        if cause != FOREIGN and self._opened is not None:
            counters = self._opened.guard.drops()
        vni = 0 if cause == "unknown-port" else packet.vni
        for owner, counted, packets, size in counters:
            if (owner, counted) == (vni, cause):
                return _counted(row, packets, size, f"dropped as {cause}")
        return row


def _row(packet: Packet, table: str, match: str, action: str, subject: str) -> FlowRow:
    return FlowRow(
        table=table, match=match, action=action, subject=subject, tenant=packet.tenant, network=packet.network
    )


def _counted(row: FlowRow, packets: int, size: int, counts: str) -> FlowRow:
    return msgspec.structs.replace(row, packets=packets, bytes=size, counts=counts)


def _sent_by(row: FlowRow, port: _Examined | None) -> FlowRow:
    if port is None:
        return row
    return _counted(row, port[1].received_packets, port[1].received_bytes, "sent by the container")


def _port_trouble(port: _Examined | None, name: str, bridge: _Examined | None) -> str:
    """What keeps a port from carrying frames."""
    if port is None:
        return f"its port {name} is not there"
    if not port[0].up:
        return f"its port {name} is down"
    if not port[1].carrier:
        return f"its port {name} has no carrier: the container's end is down"
    if bridge is None or port[0].master != bridge[0].index:
        return f"its port {name} is not on the network's bridge"
    return ""


def _carrier_trouble(carrier: _Examined | None, bridge: _Examined | None, name: str = "") -> str:
    """What keeps a VXLAN device from carrying frames."""
    if carrier is None:
        return f"{name} is not there"
    if not carrier[0].up:
        return f"{carrier[0].name} is down"
    if bridge is None or carrier[0].master != bridge[0].index:
        return f"{carrier[0].name} is not on the network's bridge"
    return "" if bridge[0].up else f"{bridge[0].name} is down"
