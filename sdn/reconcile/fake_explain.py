"""What the fake's tables do with a packet: its looks at entries (see `explain`), and its entries as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sdn.model.explanation import Arrival, Departure, FlowRow, Packet
from sdn.reconcile.datapath import Key
from sdn.reconcile.explain import Look, Way
from sdn.reconcile.fake_objects import Bridge, FakeObject, Frame, Guard, Neighbour, Peer, Port, Tunnel, Vxlan
from sdn.reconcile.reach import address_of


class FakeSight:
    """Looks at the objects of a fake kernel. See `explain.Sight`."""

    def __init__(self, objects: Mapping[Key, FakeObject]) -> None:
        self._objects = objects

    def speaks(self, packet: Departure) -> Look:
        """See Sight."""
        key = ("guard", packet.tenant, packet.endpoint)
        guard = self._objects.get(key)
        row = _row(key, f"{packet.endpoint} {packet.mac} {packet.address}", "accept", packet)
        if not isinstance(guard, Guard):
            return Look(row, there=False, cause="unknown-port")
        if guard.mac != packet.mac:
            return Look(row, there=False, cause="mac-spoof")
        if packet.address not in guard.addresses:
            return Look(row, there=False, cause="ip6-spoof" if ":" in packet.address else "ip4-spoof")
        return Look(row, there=True, trouble=self._port_trouble(packet.tenant, packet.endpoint))

    def refuses(self, packet: Departure, cause: str) -> FlowRow:
        """See Sight."""
        return _row(("guard", packet.tenant, packet.endpoint), cause, "drop", packet)

    def resolves(self, packet: Departure) -> Look:
        """See Sight."""
        if packet.gateway:
            bridge = self._objects.get(("bridge", packet.tenant, packet.network))
            there = isinstance(bridge, Bridge) and packet.to in map(address_of, bridge.gateways)
            row = _row(("bridge", packet.tenant, packet.network), packet.to, "is the gateway", packet)
            return Look(row, there, mac=packet.to_mac)
        key = ("neighbour", packet.tenant, packet.network, packet.to)
        found = self._objects.get(key)
        if not isinstance(found, Neighbour):
            return Look(_row(key, packet.to, "is nobody", packet), there=False)
        proxy = self._objects.get(("vxlan", packet.tenant, packet.network, str(found.family)))
        trouble = "" if isinstance(proxy, Vxlan) and proxy.proxy else "the proxy is not there"
        return Look(_row(key, packet.to, f"is {found.mac}", packet), there=True, mac=found.mac, trouble=trouble)

    def forwards(self, packet: Packet, mac: str) -> Look:
        """See Sight."""
        if isinstance(packet, Departure) and packet.gateway:
            bridge = ("bridge", packet.tenant, packet.network)
            return Look(_row(bridge, mac, "to the gateway", packet), bridge in self._objects, way=Way(gateway=True))
        key: Key = ("frame", packet.tenant, packet.network, mac)
        frame = self._objects.get(key)
        if not isinstance(frame, Frame):
            return Look(_row(key, mac, "to nobody", packet), there=False)
        row = _row(key, mac, f"to {frame.to[0]} {frame.to[-1]}", packet)
        if frame.to[0] == "port":
            return Look(row, there=True, way=Way(endpoint=frame.to[2]))
        key = ("tunnel", packet.tenant, packet.network, mac)
        tunnel = self._objects.get(key)
        if not isinstance(tunnel, Tunnel):
            return Look(_row(key, mac, "to nobody", packet), there=False)
        trouble = "" if str(tunnel.family) == frame.to[3] and frame.to in self._objects else "its device is another one"
        return Look(_row(key, mac, f"to {tunnel.vtep}", packet), there=True, way=Way(vtep=tunnel.vtep), trouble=trouble)

    def admits(self, packet: Arrival) -> Look:
        """See Sight."""
        key = ("peer", packet.tenant, packet.network, packet.vtep)
        family = "6" if ":" in packet.vtep else "4"
        device = self._objects.get(("vxlan", packet.tenant, packet.network, family))
        listens = isinstance(device, Vxlan) and bool(device.local)
        row = _row(key, packet.vtep, "accept", packet)
        return Look(row, key in self._objects, trouble="" if listens else "no device listens", cause="foreign-vtep")

    def delivers(self, packet: Packet) -> Look:
        """See Sight."""
        if not packet.target:
            key: Key = ("bridge", packet.tenant, packet.network)
            return Look(_row(key, packet.network, "gateway", packet), key in self._objects)
        key = ("port", packet.tenant, packet.target)
        trouble = self._port_trouble(packet.tenant, packet.target)
        return Look(_row(key, packet.target, "deliver", packet), key in self._objects, trouble=trouble)

    def _port_trouble(self, tenant: str, endpoint: str) -> str:
        port = self._objects.get(("port", tenant, endpoint))
        return "" if isinstance(port, Port) and port.bridged else "its port is not on the bridge"


def flow_rows(objects: Mapping[Key, FakeObject]) -> Iterator[FlowRow]:
    """The entries that decide about packets."""
    for key, object_ in sorted(objects.items()):
        match object_:
            case Guard(mac, addresses):
                port = objects.get(("port", key[1], key[2]))
                network = port.network if isinstance(port, Port) else ""
                sender = f"{key[2]} {mac} {', '.join(addresses)}"
                yield FlowRow(
                    table="guard", match=sender, action="accept", subject=mac, tenant=key[1], network=network,
                    endpoint=key[2],
                )  # fmt: skip
                continue
            case Neighbour(mac=mac):
                action = f"is {mac}"
            case Frame(to):
                action = f"to {to[0]} {to[-1]}"
            case Tunnel(vtep=vtep):
                action = f"to {vtep}"
            case Peer():
                action = "accept"
            case _:
                continue
        yield FlowRow(table=key[0], match=key[3], action=action, subject=key[3], tenant=key[1], network=key[2])


def _row(key: Key, match: str, action: str, packet: Packet) -> FlowRow:
    return FlowRow(
        table=key[0], match=match, action=action, subject=key[-1], tenant=packet.tenant, network=packet.network
    )
