"""What the fake datapath is made of: the bridge datapath's structure without a kernel.

Keys are (kind, tenant, …), so that a tenant's part is found without looking into the objects:
    tenant T · bridge T N · vxlan T N 4|6 · peer T N ADDRESS · guard T E · port T E · frame T N MAC · tunnel T N MAC
    · neighbour T N ADDRESS
"""

from __future__ import annotations

import dataclasses

from sdn.model.address import Family, family_of, link_local
from sdn.model.ids import EndpointId, NetworkId
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import Key
from sdn.reconcile.reach import address_of, underlay_family
from sdn.reconcile.unit import Context, EndpointUnit, Here, NetworkUnit, TenantUnit, Unit

RANKS = {
    kind: rank
    for rank, kind in enumerate(
        ("tenant", "bridge", "vxlan", "peer", "guard", "port", "frame", "tunnel", "neighbour"),
    )
}


@dataclasses.dataclass(frozen=True, slots=True)
class Namespace:
    """A tenant's namespace."""


@dataclasses.dataclass(frozen=True, slots=True)
class Bridge:
    """A network's bridge with the gateway addresses that it answers for."""

    vni: int
    mtu_bytes: int
    gateways: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Vxlan:
    """A network's VXLAN device of one underlay family; the one with `proxy` holds the neighbours. `local` may be ""."""

    vni: int
    local: str
    proxy: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """A VTEP whose tunnel packets are taken for the network."""


@dataclasses.dataclass(frozen=True, slots=True)
class Guard:
    """What an endpoint here may send as."""

    mac: str
    addresses: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Port:
    """The host's end of an endpoint here. `bridged`: it hangs on its network's bridge."""

    network: NetworkId
    container: str
    ifname: str
    mac: str
    addresses: tuple[str, ...]
    mtu_bytes: int
    bridged: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """Where the bridge sends frames for a MAC: the key of a port or of a VXLAN device."""

    to: Key


@dataclasses.dataclass(frozen=True, slots=True)
class Tunnel:
    """Where the VXLAN device of `family` sends frames for a MAC."""

    family: Family
    vtep: str


@dataclasses.dataclass(frozen=True, slots=True)
class Neighbour:
    """Whose MAC is answered for an address, by the VXLAN device of `family`."""

    family: Family
    mac: str


FakeObject = Namespace | Bridge | Vxlan | Peer | Guard | Port | Frame | Tunnel | Neighbour


def lower(unit: Unit, context: Context) -> dict[Key, FakeObject]:
    """The objects of one unit; pure."""
    match unit:
        case TenantUnit(tenant):
            return {("tenant", tenant.id): Namespace()}
        case NetworkUnit():
            return _lower_network(unit, context.here)
        case EndpointUnit(endpoint):
            return _lower_endpoint(endpoint, context)


def device_families(here: Here) -> tuple[Family, ...]:
    """The families of a network's VXLAN devices here, the one with `proxy` first; there is always one to answer."""
    families: tuple[Family, ...] = ()
    if here.vtep4 is not None:
        families += (4,)
    if here.vtep6 is not None:
        families += (6,)
    return families or (4,)


def _lower_network(unit: NetworkUnit, here: Here) -> dict[Key, FakeObject]:
    network = unit.network
    tenant, id_, vni = network.tenant, network.id, network.vni
    gateways = tuple(f"{subnet.gateway}/{subnet.prefix.rpartition('/')[2]}" for subnet in network.subnets)
    objects: dict[Key, FakeObject] = {("bridge", tenant, id_): Bridge(vni, network.mtu_bytes, gateways)}
    families = device_families(here)
    for family in families:
        local = (here.vtep4 if family == 4 else here.vtep6) or ""
        objects["vxlan", tenant, id_, str(family)] = Vxlan(vni, local, proxy=family == families[0])
    for member in unit.members:
        common = underlay_family(here, member)
        if member.host != here.host and common is not None:
            vtep = member.vtep4 if common == 4 else member.vtep6
            objects["peer", tenant, id_, vtep or ""] = Peer()
    return objects


def _lower_endpoint(endpoint: Endpoint, context: Context) -> dict[Key, FakeObject]:
    here, tenant, network, mac = context.here, endpoint.tenant, endpoint.network, endpoint.mac
    addresses = tuple(map(address_of, endpoint.addresses))
    if any(family_of(address) == 6 for address in addresses):
        addresses += (link_local(mac),)
    proxy = device_families(here)[0]
    objects: dict[Key, FakeObject] = {
        ("neighbour", tenant, network, address): Neighbour(proxy, mac) for address in addresses
    }
    if endpoint.host == here.host:
        port = port_key(endpoint)
        mtu_bytes = context.networks[network].mtu_bytes
        objects["guard", tenant, endpoint.id] = Guard(mac, addresses)
        objects[port] = Port(network, endpoint.container, endpoint.ifname, mac, endpoint.addresses, mtu_bytes)
        objects["frame", tenant, network, mac] = Frame(port)
        return objects
    member = context.members.get((network, endpoint.host))
    family = underlay_family(here, member) if member else None
    if member is not None and family is not None:
        vtep = (member.vtep4 if family == 4 else member.vtep6) or ""
        objects["frame", tenant, network, mac] = Frame(("vxlan", tenant, network, str(family)))
        objects["tunnel", tenant, network, mac] = Tunnel(family, vtep)
    return objects


def port_key(endpoint: Endpoint) -> Key:
    """The key of an endpoint's port."""
    return ("port", endpoint.tenant, endpoint.id)


def endpoint_of(key: Key) -> EndpointId:
    """The endpoint of a port's or guard's key."""
    return EndpointId(key[2])


def in_place(before: FakeObject, after: FakeObject) -> bool:
    """`proxy` of a live VXLAN device cannot be changed, nor what a port is; all else can."""
    match before, after:
        case Vxlan(), Vxlan():
            return before.proxy == after.proxy
        case Port(), Port():
            return dataclasses.replace(before, bridged=after.bridged) == after
        case _:
            return True


def hangs_on(key: Key, object_: FakeObject, base: Key) -> bool:
    """Whether the kernel removes a thing when `base` is removed."""
    match base[0]:
        case "tenant":
            return key[1] == base[1] and key != base
        case "bridge":
            return key[0] == "frame" and key[1:3] == base[1:3]
        case "port":
            return isinstance(object_, Frame) and object_.to == base
        case "vxlan":
            if isinstance(object_, Frame):
                return object_.to == base
            return isinstance(object_, Tunnel | Neighbour) and (*key[1:3], str(object_.family)) == base[1:]
        case _:
            return False


def needs(key: Key, object_: FakeObject) -> list[Key]:
    """What has to be there before a thing can be made."""
    match object_:
        case Namespace() | Peer():
            return []
        case Bridge() | Guard():
            return [("tenant", key[1])]
        case Vxlan():
            return [("bridge", *key[1:3])]
        case Port():
            return [("bridge", key[1], object_.network)]
        case Frame():
            return [object_.to]
        case Tunnel() | Neighbour():
            return [("vxlan", *key[1:3], str(object_.family))]
