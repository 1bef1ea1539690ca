"""Why a packet arrives or does not, by the flows of a switch: each is looked up by its table, priority and match.

What should be there is what the objects expand to (`expand`), so a flow that is missing is named as it would be, and
one that says something else is seen by its actions. Of the flows that every switch of ours has, none may be missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from sdn.model.address import address_bytes, format_address, format_mac, link_local
from sdn.model.explanation import Arrival, Departure, FlowRow, Packet
from sdn.model.ids import EndpointId, TenantId
from sdn.openflow import cookies, pipeline
from sdn.openflow.decode import Entry, entry_of, flow_of
from sdn.openflow.encode import encode_add
from sdn.openflow.expand import flows_of
from sdn.openflow.fields import Field
from sdn.openflow.flow import Flow, Output, SetField
from sdn.openflow.objects import (
    TUNNEL,
    Gateway,
    Member,
    Neighbour,
    NetworkFlows,
    Speaker,
    Station,
    gateway_mac,
    tenant_number,
)
from sdn.openflow.rows import Names, row_of
from sdn.openflow.tables import ANSWERER, Table
from sdn.reconcile.explain import Look, Way

NO_MAC: Final = "00:00:00:00:00:00"
_SOURCES: Final = (Field.IPV4_SRC, Field.IPV6_SRC, Field.ARP_SPA)
_TUNNEL_DESTINATIONS: Final = (Field.TUN_IPV4_DST, Field.TUN_IPV6_DST)


@dataclasses.dataclass(frozen=True, slots=True)
class PortState:
    """A port as its host sees it. `trouble`: what keeps it from carrying frames. Counted: what left by it."""

    trouble: str = ""
    sent_packets: int | None = None
    sent_bytes: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Ground:
    """What there is beside flows. `port_name`: of an endpoint; `state`: of a port by its name.

    `tunnel_trouble`: what keeps tunnel packets of a VNI from leaving or arriving, as far as the host can see.
    """

    names: Names
    port_name: Callable[[EndpointId], str]
    state: Callable[[str], PortState]
    tunnel_trouble: Callable[[int], str]


class SwitchSight:
    """Looks at the flows of a switch, as they were told at one moment. See `reconcile.explain.Sight`."""

    def __init__(self, entries: Iterable[Entry], ground: Ground) -> None:
        self._entries = {(entry.table, entry.priority, entry.match): entry for entry in entries}
        self._ground = ground
        self._ports: Mapping[str, int] = ground.names.ports

    def speaks(self, packet: Departure) -> Look:
        """See Sight: the speaker's flows that concern such a packet, and those of the pipeline."""
        name = self._ground.port_name(EndpointId(packet.endpoint))
        if name not in self._ports:
            row = self._beside(packet, "port", name, "to be a port")
            return Look(row, there=False, trouble=f"the switch has no port {name}", cause="unknown-port")
        own = () if packet.address == link_local(packet.mac) else (packet.address,)
        cookie = cookies.of_endpoint(EndpointId(packet.endpoint))
        speaker = Speaker(packet.vni, packet.mac, own, cookie)
        found = None
        for flow in flows_of(("speaker", name), speaker, self._ports):
            if not _concerns(flow, packet):
                continue
            look = self._look(packet, flow)
            if not look.there:
                cause = _cause_of(flow)
                return Look(self._refusal(packet, look.row, cause), there=False, cause=cause)
            if look.trouble:
                return look
            found = look if flow.table == Table.ADDRESS and found is None else found
        assert found is not None, "a speaker has a flow for each of its addresses"
        return self._pipeline(packet) or dataclasses.replace(found, trouble=self._ground.state(name).trouble)

    def refuses(self, packet: Departure, cause: str) -> FlowRow:
        """See Sight: the flow that counts the cause."""
        cookie = cookies.of_drop(cause, packet.vni)
        for entry in self._entries.values():
            if entry.cookie == cookie:
                return self._row(packet, entry)
        return self._beside(packet, "drop", cause, "drop")

    def resolves(self, packet: Departure) -> Look:
        """See Sight: the flow that knows who has the address."""
        if packet.gateway:
            asked = next(flow for flow in self._gateway(packet) if flow.table == Table.ANSWER)
        else:
            key = ("neighbour", str(packet.vni), packet.to)
            (asked,) = flows_of(key, Neighbour(packet.to_mac or NO_MAC, 0), self._ports)
        entry = self._find(asked)
        if entry is None:
            return Look(self._missing(packet, asked), there=False)
        flow = flow_of(entry)
        answerer = _set(flow, ANSWERER) if isinstance(flow, Flow) else None
        row = self._row(packet, entry)
        if answerer is None or not isinstance(flow, Flow) or flow.goto != Table.REPLY:
            return Look(row, there=True, trouble=f"the flow that answers for {packet.to} does something else")
        return Look(row, there=True, mac=format_mac(answerer[-6:]))

    def forwards(self, packet: Packet, mac: str) -> Look:
        """See Sight: the flow of the MAC, to a port or into the tunnel."""
        vni = str(packet.vni)
        if isinstance(packet, Departure) and packet.gateway:
            network = NetworkFlows(tenant_number(TenantId(packet.tenant)))
            flows = flows_of(("network", vni), network, self._ports)
            look = self._look(packet, next(flow for flow in flows if flow.table == Table.ANSWER))
            return dataclasses.replace(look, way=Way(gateway=True))
        key, ports = ("station", vni, mac), {**self._ports, "": 0, "any": 0}
        here = flows_of(key, Station("any", "", 0), ports)[-1]
        (there,) = flows_of(key, Station("", "192.0.2.1", 0), ports)
        entry = self._find(here)
        if entry is None and isinstance(packet, Departure):
            entry = self._find(there)
        if entry is None:
            local = isinstance(packet, Arrival) or bool(packet.target)
            row = self._missing(packet, here if local else there)
            return Look(msgspec.structs.replace(row, action="to its port" if local else "to its host"), there=False)
        return self._way(packet, entry)

    def admits(self, packet: Arrival) -> Look:
        """See Sight: the member's flow; and the way in."""
        (flow,) = flows_of(("member", str(packet.vni), packet.vtep), Member(), self._ports)
        look = self._look(packet, flow)
        if not look.there:
            return Look(self._refusal(packet, look.row, "foreign-vtep"), there=False, cause="foreign-vtep")
        return dataclasses.replace(look, trouble=look.trouble or self._ground.tunnel_trouble(packet.vni))

    def delivers(self, packet: Packet) -> Look:
        """See Sight: the port behind which the target is; the flow that answers for the gateway."""
        if not packet.target:
            assert isinstance(packet, Departure), "only who departs asks a gateway"
            return self._look(packet, next(flow for flow in self._gateway(packet) if flow.table == Table.GATEWAY))
        name = self._ground.port_name(EndpointId(packet.target))
        state = self._ground.state(name)
        row = msgspec.structs.replace(
            self._beside(packet, "port", name, "to the container"),
            endpoint=packet.target,
            packets=state.sent_packets,
            bytes=state.sent_bytes,
            counts="given to the container" if state.sent_packets is not None else "",
        )
        return Look(row, there=name in self._ports, trouble=state.trouble)

    def _way(self, packet: Packet, entry: Entry) -> Look:
        """Where a station's flow leads."""
        flow, row = flow_of(entry), self._row(packet, entry)
        actions = flow.actions if isinstance(flow, Flow) else ()
        numbers = [action.port for action in actions if isinstance(action, Output)]
        if len(numbers) != 1:
            return Look(row, there=True, way=Way(), trouble="the flow of the MAC sends to no port")
        if numbers[0] != self._ports[TUNNEL]:
            return Look(row, there=True, way=Way(endpoint=self._ground.names.endpoint_at(numbers[0])))
        assert isinstance(flow, Flow), "it has actions"
        for field in _TUNNEL_DESTINATIONS:
            raw = _set(flow, field)
            if raw is not None:
                trouble = self._ground.tunnel_trouble(packet.vni)
                vtep = format_address(4 if len(raw) == 4 else 6, int.from_bytes(raw, "big"))
                return Look(row, there=True, way=Way(vtep=vtep), trouble=trouble)
        return Look(row, there=True, way=Way(), trouble="the flow of the MAC names no VTEP")

    def _gateway(self, packet: Departure) -> list[Flow]:
        gateway = Gateway(gateway_mac(packet.vni), tenant_number(TenantId(packet.tenant)))
        return flows_of(("gateway", str(packet.vni), packet.to), gateway, self._ports)

    def _pipeline(self, packet: Packet) -> Look | None:
        """What is not as it should be of the flows that belong to nobody; None: nothing."""
        for identity, wanted in pipeline.entries(self._ports[TUNNEL]).items():
            entry = self._entries.get(identity)
            if entry is None or entry.instructions != wanted.instructions:
                row = self._row(packet, wanted if entry is None else entry)
                return Look(row, there=entry is not None, trouble="a flow that every switch has is not as it should be")
        return None

    # --- entries ---

    def _find(self, flow: Flow) -> Entry | None:
        wanted = entry_of(encode_add(flow))
        return self._entries.get((wanted.table, wanted.priority, wanted.match))

    def _look(self, packet: Packet, flow: Flow) -> Look:
        """Whether a flow is there, and says what it should."""
        entry = self._find(flow)
        if entry is None:
            return Look(self._missing(packet, flow), there=False)
        same = entry.instructions == entry_of(encode_add(flow)).instructions
        return Look(self._row(packet, entry), there=True, trouble="" if same else "the flow does something else")

    def _missing(self, packet: Packet, flow: Flow) -> FlowRow:
        return msgspec.structs.replace(self._row(packet, entry_of(encode_add(flow))), packets=None, bytes=None)

    def _row(self, packet: Packet, entry: Entry) -> FlowRow:
        row = row_of(entry, self._ground.names)
        return msgspec.structs.replace(row, tenant=packet.tenant, network=packet.network)

    def _refusal(self, packet: Packet, row: FlowRow, cause: str) -> FlowRow:
        """The missing flow, with the count of what died for want of it."""
        cookie = cookies.of_drop(cause, 0 if cause == "unknown-port" else packet.vni)
        found = [entry for entry in self._entries.values() if entry.cookie == cookie]
        packets, octets = sum(entry.packets for entry in found), sum(entry.bytes for entry in found)
        return (
            msgspec.structs.replace(row, packets=packets, bytes=octets, counts=f"dropped as {cause}") if found else row
        )

    @staticmethod
    def _beside(packet: Packet, table: str, match: str, action: str) -> FlowRow:
        return FlowRow(table=table, match=match, action=action, tenant=packet.tenant, network=packet.network)


def _concerns(flow: Flow, packet: Departure) -> bool:
    """Whether a packet of this address needs a flow of its speaker."""
    values = {term.field: term.value for term in flow.match}
    match flow.table:
        case Table.CLASSIFY | Table.SOURCE:
            return True
        case Table.ADDRESS:
            return any(values.get(field) == address_bytes(packet.address) for field in _SOURCES)
        case Table.OPTION:
            return ":" in packet.address and bool(packet.to)
        case _:
            return False


def _cause_of(flow: Flow) -> str:
    """What a packet is counted under that this flow should have let through."""
    fields = {term.field for term in flow.match}
    match flow.table:
        case Table.CLASSIFY:
            return "unknown-port"
        case Table.SOURCE:
            return "mac-spoof"
        case Table.OPTION:
            return "nd-spoof"
        case _:
            spoofs = {Field.IPV4_SRC: "ip4-spoof", Field.IPV6_SRC: "ip6-spoof", Field.ARP_SPA: "arp-spoof"}
            return next(cause for field, cause in spoofs.items() if field in fields)


def _set(flow: Flow, field: Field) -> bytes | None:
    """What a flow writes into a field."""
    return next((each.value for each in flow.actions if isinstance(each, SetField) and each.field is field), None)
