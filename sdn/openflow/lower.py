"""Units to objects, for one switch. Pure, and without numbers of ports."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from sdn.model.address import link_local
from sdn.model.resources import Endpoint, Member, Network
from sdn.openflow import objects as of
from sdn.openflow.cookies import of_endpoint
from sdn.reconcile.datapath import Key, Object
from sdn.reconcile.unit import Context, EndpointUnit, Here, NetworkUnit, TenantUnit, Unit

PortName = Callable[[Endpoint], str]
"""What the port of an endpoint of this switch is called."""


def lower(unit: Unit, context: Context, port_name: PortName) -> dict[Key, Object]:
    """The objects of one unit."""
    match unit:
        case EndpointUnit(endpoint):
            return _endpoint(endpoint, context, port_name)
        case NetworkUnit(network, members):
            return _network(network, members, context.here)
        case TenantUnit():
            return {}
        case _:
            assert_never(unit)


def path_to(here: Here, member: Member) -> str | None:
    """The VTEP by which this switch reaches another host; IPv4 first. None: they share no family."""
    if here.vtep4 is not None and member.vtep4 is not None:
        return member.vtep4
    if here.vtep6 is not None and member.vtep6 is not None:
        return member.vtep6
    return None


def _network(network: Network, members: tuple[Member, ...], here: Here) -> dict[Key, Object]:
    vni, tenant, mac = str(network.vni), of.tenant_number(network.tenant), of.gateway_mac(network.vni)
    objects: dict[Key, Object] = {("network", vni): of.NetworkFlows(tenant)}
    for subnet in network.subnets:
        objects["gateway", vni, subnet.gateway] = of.Gateway(mac, tenant)
    for member in members:
        if member.host != here.host:
            for mine, theirs in ((here.vtep4, member.vtep4), (here.vtep6, member.vtep6)):
                if mine is not None and theirs is not None:
                    objects["member", vni, theirs] = of.Member()
    return objects


def _endpoint(endpoint: Endpoint, context: Context, port_name: PortName) -> dict[Key, Object]:
    network = context.networks.get(endpoint.network)
    if network is None:
        return {}
    here, mac, cookie, vni = context.here, endpoint.mac, of_endpoint(endpoint.id), str(network.vni)
    own = link_local(mac)
    addresses = [address.partition("/")[0] for address in endpoint.addresses]
    objects: dict[Key, Object]
    if endpoint.host == here.host:
        port = port_name(endpoint)
        said = tuple(sorted({address for address in addresses if address != own}))
        objects = {
            ("speaker", port): of.Speaker(network.vni, mac, said, cookie),
            ("station", vni, mac): of.Station(port, "", cookie),
        }
    else:
        member = context.members.get((endpoint.network, endpoint.host))
        vtep = path_to(here, member) if member is not None else None
        if vtep is None:
            return {}
        objects = {("station", vni, mac): of.Station("", vtep, cookie)}
    neighbour = of.Neighbour(mac, cookie)
    for address in addresses:
        objects["neighbour", vni, address] = neighbour
    objects["neighbour", vni, own] = neighbour
    return objects
