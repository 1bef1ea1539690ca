"""What a host knows beside its switch's flows when a packet is explained: ports, veths, and the way of tunnels."""

from __future__ import annotations

from plugin.datapath.openflow.links import HostLinks
from plugin.datapath.openflow.objects import owner_of
from plugin.datapath.openflow.vswitch import TUNNEL_PORT, Vswitch
from plugin.datapath.veth.ports import port_name
from sdn.openflow.explain import Ground, PortState
from sdn.openflow.objects import TUNNEL
from sdn.openflow.rows import Names


def names_of(switch: Vswitch) -> Names:
    """What the numbers of this switch mean, as its database says."""
    rows = switch.ports()
    owners = {name: owner_of(row.external_ids) for name, row in rows.items()}
    return Names(
        ports={TUNNEL: TUNNEL_PORT, **{name: row.number for name, row in rows.items() if row.number}},
        endpoints={name: owner.endpoint for name, owner in owners.items() if owner is not None},
        networks=switch.networks(),
    )


def ground(switch: Vswitch, links: HostLinks) -> Ground:
    """For one explanation. What it is asked for later may raise NetlinkError and HawseError."""
    rows = switch.ports()

    def state(name: str) -> PortState:
        row, found = rows.get(name), links.examine(name)
        if found is None:
            return PortState(f"its port {name} is not there")
        veth, traffic = found
        trouble = row.error if row is not None and row.error else ""
        if not veth.up:
            trouble = f"its port {name} is down"
        elif not traffic.carrier:
            trouble = f"its port {name} has no carrier: the container's end is down"
        elif row is None or not row.number:
            trouble = trouble or f"its port {name} is not in the switch"
        return PortState(trouble, traffic.sent_packets, traffic.sent_bytes)

    def tunnel_trouble(vni: int) -> str:
        if not any(switch.vteps()):
            return "the host has no VTEP"
        if vni not in switch.guarded():
            return f"the way in takes no tunnel packets of VNI {vni}"
        return next(iter(switch.intact()), "")

    return Ground(names_of(switch), port_name, state, tunnel_trouble)
