"""Units to objects. Pure."""

from __future__ import annotations

from typing import assert_never

from plugin.datapath.bridge.guard import GuardPort
from plugin.datapath.bridge.objects import (
    PORT_SWITCHES,
    PROXY_SWITCHES,
    Bridge,
    Counters,
    Gateway,
    GuardTable,
    Namespace,
    Neighbour,
    Port,
    Station,
    UnderlayNetwork,
    Vxlan,
    bridge_mac,
    bridge_name,
    carrier_name,
    gateway_interface,
)
from plugin.datapath.bridge.objects import Member as MemberObject
from plugin.datapath.veth.ports import port_alias, port_name
from sdn.model.address import link_local
from sdn.model.resources import Endpoint, Member, Network, Tenant
from sdn.reconcile.datapath import Key, Object
from sdn.reconcile.unit import Context, EndpointUnit, Here, NetworkUnit, TenantUnit, Unit


def lower(unit: Unit, context: Context) -> dict[Key, Object]:
    """The objects of one unit."""
    match unit:
        case TenantUnit(tenant):
            return _tenant(tenant)
        case NetworkUnit(network, members):
            return _network(network, members, context.here)
        case EndpointUnit(endpoint):
            return _endpoint(endpoint, context)
        case _:
            assert_never(unit)


def proxy_of(here: Here, vni: int) -> str:
    """The carrier that answers ARP and ND: the IPv4 one where there is one, or where the host has no VTEP at all."""
    return carrier_name(vni, 6 if here.vtep4 is None and here.vtep6 is not None else 4)


def path_to(here: Here, member: Member, vni: int) -> tuple[str, str] | None:
    """The carrier and the VTEP by which this host reaches another; IPv4 first. None: they share no family."""
    if here.vtep4 is not None and member.vtep4 is not None:
        return carrier_name(vni, 4), member.vtep4
    if here.vtep6 is not None and member.vtep6 is not None:
        return carrier_name(vni, 6), member.vtep6
    return None


def _tenant(tenant: Tenant) -> dict[Key, Object]:
    return {("namespace", tenant.id): Namespace(), ("guard-table", tenant.id): GuardTable()}


def _network(network: Network, members: tuple[Member, ...], here: Here) -> dict[Key, Object]:
    tenant, vni = network.tenant, network.vni
    bridge = bridge_name(vni)
    objects: dict[Key, Object] = {
        ("bridge", tenant, bridge): Bridge(network=network.id, mac=bridge_mac(vni), mtu_bytes=network.mtu_bytes),
        ("counters", tenant, str(vni)): Counters(),
        ("underlay-network", tenant, str(vni)): UnderlayNetwork(),
    }
    for subnet in network.subnets:
        objects["gateway", tenant, bridge, gateway_interface(subnet.gateway, subnet.prefix)] = Gateway()
    proxy = proxy_of(here, vni)
    for family, local in ((4, here.vtep4), (6, here.vtep6)):
        name = carrier_name(vni, family)
        if local is None and name != proxy:
            continue
        objects["vxlan", tenant, name] = Vxlan(
            network=network.id,
            bridge=bridge,
            vni=vni,
            local=local or "",
            proxy=name == proxy,
            mtu_bytes=network.mtu_bytes,
            switches=PROXY_SWITCHES if name == proxy else PORT_SWITCHES,
        )
    for member in members:
        if member.host != here.host:
            for mine, theirs in ((here.vtep4, member.vtep4), (here.vtep6, member.vtep6)):
                if mine is not None and theirs is not None:
                    objects["member", tenant, str(vni), theirs] = MemberObject()
    return objects


def _endpoint(endpoint: Endpoint, context: Context) -> dict[Key, Object]:
    network = context.networks.get(endpoint.network)
    if network is None:
        return {}
    tenant, vni, here = network.tenant, network.vni, context.here
    addresses = tuple(address.partition("/")[0] for address in endpoint.addresses)
    port = port_name(endpoint.id)
    if endpoint.host == here.host:
        station = Station(port=port, vtep="")
    else:
        member = context.members.get((endpoint.network, endpoint.host))
        path = path_to(here, member, vni) if member is not None else None
        if path is None:
            return {}
        station = Station(port=path[0], vtep=path[1])
    bridge, proxy = bridge_name(vni), proxy_of(here, vni)
    neighbour = Neighbour(mac=endpoint.mac)
    objects: dict[Key, Object] = {
        ("neighbour", tenant, proxy, address): neighbour for address in (*addresses, link_local(endpoint.mac))
    }
    objects["station", tenant, bridge, endpoint.mac] = station
    if endpoint.host == here.host:
        objects["guard", tenant, port] = GuardPort(mac=endpoint.mac, addresses=addresses, vni=vni)
        objects["port", tenant, port] = Port(bridge=bridge, mtu_bytes=network.mtu_bytes, alias=port_alias(endpoint))
    return objects
