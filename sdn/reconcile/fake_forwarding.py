"""What the fake's kernels would do with a frame: the walk of one packet through guard, proxy, bridge and tunnel.

It looks only at what is programmed, never at what was wanted: that is the oracle's part (`reach`), and law 4 is that
the two agree.
"""

from __future__ import annotations

from collections.abc import Mapping

from sdn.model.address import Family, family_of
from sdn.model.ids import HostId
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import Key
from sdn.reconcile.fake import FakeKernel
from sdn.reconcile.fake_objects import Frame, Guard, Neighbour, Port, Tunnel, Vxlan, port_key
from sdn.reconcile.reach import Connected, address_of, everyone_connected


def reaches(
    kernels: Mapping[HostId, FakeKernel],
    source: Endpoint,
    target: Endpoint,
    connected: Connected = everyone_connected,
) -> bool:
    """Whether a packet from `source` to an address of `target` arrives at `target`, in any family of both."""
    return any(
        _delivered(kernels, source, address_of(mine), address_of(theirs), connected) == (target.host, port_key(target))
        for mine in source.addresses
        for theirs in target.addresses
        if family_of(mine) == family_of(theirs)
    )


def _delivered(
    kernels: Mapping[HostId, FakeKernel], source: Endpoint, address: str, wanted: str, connected: Connected
) -> tuple[HostId, Key] | None:
    """The host and port at which a packet for `wanted` comes out; None: it is dropped."""
    kernel = kernels[source.host]
    tenant, network = source.tenant, source.network
    port = kernel.objects.get(port_key(source))
    guard = kernel.objects.get(("guard", tenant, source.id))
    if not isinstance(port, Port) or not port.bridged:
        return None
    if not isinstance(guard, Guard) or guard.mac != source.mac or address not in guard.addresses:
        return None
    neighbour = kernel.objects.get(("neighbour", tenant, network, wanted))
    if not isinstance(neighbour, Neighbour):
        return None
    proxy = kernel.objects.get(("vxlan", tenant, network, str(neighbour.family)))
    if not isinstance(proxy, Vxlan) or not proxy.proxy:
        return None
    out = _bridged(kernel, tenant, network, neighbour.mac)
    if out is None or out[0] == "port":
        return (source.host, out) if out else None
    tunnel = kernel.objects.get(("tunnel", tenant, network, neighbour.mac))
    device = kernel.objects[out]
    if not isinstance(tunnel, Tunnel) or not isinstance(device, Vxlan) or str(tunnel.family) != out[3]:
        return None
    return _received(kernels, source.host, device, tunnel, neighbour.mac, connected)


def _bridged(kernel: FakeKernel, tenant: str, network: str, mac: str) -> Key | None:
    frame = kernel.objects.get(("frame", tenant, network, mac))
    if not isinstance(frame, Frame) or frame.to not in kernel.objects:
        return None
    return frame.to


def _received(
    kernels: Mapping[HostId, FakeKernel],
    sender: HostId,
    device: Vxlan,
    tunnel: Tunnel,
    mac: str,
    connected: Connected,
) -> tuple[HostId, Key] | None:
    for host, kernel in kernels.items():
        key = _listener(kernel, device.vni, tunnel.family, tunnel.vtep)
        if key is None or not connected(sender, host):
            continue
        if ("peer", *key[1:3], device.local) not in kernel.objects:
            return None
        out = _bridged(kernel, key[1], key[2], mac)
        return (host, out) if out and out[0] == "port" else None
    return None


def _listener(kernel: FakeKernel, vni: int, family: Family, vtep: str) -> Key | None:
    """The VXLAN device that takes tunnel packets of a VNI sent to a VTEP."""
    for key, object_ in kernel.objects.items():
        if isinstance(object_, Vxlan) and (object_.vni, object_.local, key[3]) == (vni, vtep, str(family)):
            return key
    return None
