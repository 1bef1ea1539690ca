"""The entries of the bridge datapath as rows for people: what was read, named as `ip`, `bridge` and `nft` name it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from plugin.datapath.bridge.explain import ARRIVALS, FRAMES
from plugin.datapath.bridge.guard_elements import GuardPort
from plugin.datapath.bridge.objects import Bridge, Gateway, Member, Neighbour, Port, Station, Vxlan, vni_of
from plugin.datapath.bridge.underlay_guard import set_of
from plugin.datapath.veth.ports import parse_port_alias
from plugin.kernel.link import Traffic
from sdn.model.address import link_local
from sdn.model.explanation import FlowRow
from sdn.reconcile.datapath import DropCount, Key, Object


class Counted(NamedTuple):
    """What the kernel counts: by (tenant, link), and by cause."""

    traffic: Mapping[tuple[str, str], Traffic]
    drops: Iterable[DropCount]


def flow_rows(objects: Mapping[Key, Object], counted: Counted) -> list[FlowRow]:
    """What was read, tenant by tenant, then the drops' counters."""
    networks = {vni_of(key[2]): object_.network for key, object_ in objects.items() if isinstance(object_, Bridge)}
    rows = [row for key in sorted(objects) for row in _rows(key, objects[key], objects, networks, counted.traffic)]
    rows += [
        FlowRow(
            table=ARRIVALS if drop.cause in ("not-here", "no-router", "foreign-vtep", "malformed-tunnel") else FRAMES,
            match=drop.cause,
            action="drop",
            tenant=drop.tenant,
            network=drop.network,
            cause=drop.cause,
            packets=drop.packets,
            bytes=drop.bytes,
        )
        for drop in counted.drops
    ]
    return rows


def _rows(
    key: Key,
    object_: Object,
    objects: Mapping[Key, Object],
    networks: Mapping[int, str],
    traffic: Mapping[tuple[str, str], Traffic],
) -> Iterator[FlowRow]:
    tenant = key[1]

    def row(table: str, match: str, action: str, subject: str, vni: int, endpoint: str = "") -> FlowRow:
        return FlowRow(
            table=table,
            match=match,
            action=action,
            subject=subject,
            tenant=tenant,
            network=networks.get(vni, ""),
            endpoint=endpoint,
        )

    match object_:
        case GuardPort(mac, addresses, vni):
            endpoint = _endpoint(objects.get(("port", tenant, key[2])))
            yield row(f"{FRAMES} mac", f"{key[2]} . {mac}", "its own", mac, vni, endpoint)
            for address in (*addresses, link_local(mac)) if mac else ():
                table = f"{FRAMES} e{6 if ':' in address else 4}"
                yield row(table, f"{key[2]} . {mac} . {address}", "accept", address, vni, endpoint)
        case Neighbour(mac):
            yield row(f"neighbour {key[2]}", key[3], f"is {mac}", key[3], vni_of(key[2]))
        case Station(port, vtep):
            endpoint = _endpoint(objects.get(("port", tenant, port)))
            yield row(f"forwarding {key[2]}", key[3], f"to {port or 'nowhere'}", key[3], vni_of(key[2]), endpoint)
            if vtep:
                yield row(f"forwarding {port}", key[3], f"to {vtep}", key[3], vni_of(key[2]))
        case Member():
            yield row(f"{ARRIVALS} {set_of(key[3])}", f"{key[2]} . {key[3]}", "accept", key[3], int(key[2]))
        case Gateway():
            address = key[3].partition("/")[0]
            yield row(f"address {key[2]}", address, "is the gateway", address, vni_of(key[2]))
        case Port(bridge):
            made = row("port", key[2], f"on {bridge or 'no bridge'}", "", vni_of(bridge), _endpoint(object_))
            yield _with_traffic(made, traffic.get((tenant, key[2])))
        case Vxlan(vni=vni, local=local):
            made = row("carrier", key[2], f"from {local or 'any VTEP'}", local, vni)
            yield _with_traffic(made, traffic.get((tenant, key[2])))
        case _:
            return


def _endpoint(port: Object | None) -> str:
    owner = parse_port_alias(port.alias) if isinstance(port, Port) else None
    return owner.endpoint if owner is not None else ""


def _with_traffic(row: FlowRow, traffic: Traffic | None) -> FlowRow:
    """With what has gone through the link, both ways."""
    if traffic is None:
        return row
    packets = traffic.received_packets + traffic.sent_packets
    size = traffic.received_bytes + traffic.sent_bytes
    return msgspec.structs.replace(row, packets=packets, bytes=size, counts="both ways")
