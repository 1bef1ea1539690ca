"""Links, rows and flows to objects: one dump of each, compared as bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from plugin.datapath.openflow.links import HostLinks
from plugin.datapath.openflow.memory import Memory
from plugin.datapath.openflow.objects import Name, Port, Uplink, owner_of
from plugin.datapath.openflow.vswitch import TUNNEL_PORT, PortRow, Vswitch
from plugin.datapath.veth.ports import PORT_PREFIX, alias_of, parse_port_alias
from plugin.kernel.link import Link
from sdn.openflow.objects import TUNNEL, Speaker
from sdn.openflow.recognise import recognise
from sdn.reconcile.datapath import Key, Object

_NOBODY = ""
"""The tenant of what nothing explains: only a read of everything shows it."""
_STRAY = "stray"
"""In the place of a tenant's id: of flows that nothing explains."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sight:
    """What was read. `doomed`: indexes of links that wait for their deletion."""

    objects: dict[Key, Object]
    doomed: list[int]


def read(switch: Vswitch, links: HostLinks, memory: Memory, tenants: Collection[str] | None) -> Sight:
    """Everything, or what belongs to some tenants. Raises: OSError, NetlinkError, HawseError.

    Flows come first: what is made while this reads begins with a link and ends with flows.
    """
    entries = switch.dump()
    names = switch.networks()
    owners = memory.note_owners(names)
    rows = switch.ports()
    there, doomed = links.read()
    objects = recognise(
        entries, {TUNNEL: TUNNEL_PORT, **{name: row.number for name, row in rows.items() if row.number}}
    )
    objects |= {("name", str(vni)): Name(network, tenant) for vni, (network, tenant) in names.items()}
    vteps = switch.vteps()
    objects |= {("uplink", str(vni)): Uplink(*vteps) for vni in switch.guarded()}
    ports = {name for name in rows if name.startswith(PORT_PREFIX)} | there.keys()
    objects |= {("port", name): _port(there.get(name), rows.get(name)) for name in ports}
    if tenants is not None:
        # A stray may be anybody's: that of a port that is gone says its number alone.
        wanted = {*tenants, _STRAY} if tenants else ()
        objects = {key: object_ for key, object_ in objects.items() if _tenant(key, object_, owners) in wanted}
    return Sight(objects, doomed)


def _port(there: Link | None, row: PortRow | None) -> Port:
    owner = owner_of(row.external_ids) if row is not None else None
    return Port(
        mtu_bytes=there.mtu_bytes if there is not None else 0,
        alias=there.alias if there is not None else "",
        row=alias_of(owner) if owner is not None else "",
        error=row.error if row is not None else "",
        link=there is not None,
        up=there is not None and there.up,
    )


def _tenant(key: Key, object_: Object, owners: Mapping[int, str]) -> str:
    """Whose an object is."""
    if key[0] == _STRAY:
        return _STRAY
    if isinstance(object_, Name):
        return object_.tenant
    if isinstance(object_, Port):
        owner = parse_port_alias(object_.row) or parse_port_alias(object_.alias)
        return owner.tenant if owner is not None else _NOBODY
    if isinstance(object_, Speaker):
        return owners.get(object_.vni, _NOBODY)
    return owners.get(int(key[1]), _NOBODY) if key[1].isdecimal() else _NOBODY
