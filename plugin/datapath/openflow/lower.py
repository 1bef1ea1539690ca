"""Units to objects: the switch's, and the host's own. Pure."""

from __future__ import annotations

from plugin.datapath.openflow.objects import Name, Uplink, port_of
from plugin.datapath.veth.ports import port_name
from sdn.model.resources import Endpoint
from sdn.openflow import lower as switch
from sdn.reconcile.datapath import Key, Object
from sdn.reconcile.unit import Context, EndpointUnit, NetworkUnit, Unit


def lower(unit: Unit, context: Context) -> dict[Key, Object]:
    """The objects of one unit."""
    objects = switch.lower(unit, context, _port_name)
    here = context.here
    if isinstance(unit, NetworkUnit):
        vni = str(unit.network.vni)
        objects["name", vni] = Name(unit.network.id, unit.network.tenant)
        if here.vtep4 is not None or here.vtep6 is not None:
            objects["uplink", vni] = Uplink(here.vtep4, here.vtep6)
    elif isinstance(unit, EndpointUnit) and unit.endpoint.host == here.host:
        network = context.networks.get(unit.endpoint.network)
        if network is not None:
            objects["port", port_name(unit.endpoint.id)] = port_of(unit.endpoint, network.mtu_bytes)
    return objects


def _port_name(endpoint: Endpoint) -> str:
    return port_name(endpoint.id)
