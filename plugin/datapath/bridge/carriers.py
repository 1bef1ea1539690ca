"""Carriers are made from the host's namespace into the tenant's, and some of what they are cannot be changed."""

from __future__ import annotations

import dataclasses
import errno
import threading
import time

from plugin.datapath.bridge import requests
from plugin.datapath.bridge.objects import Vxlan, carrier_name
from plugin.datapath.bridge.tenant import TenantNamespace
from plugin.datapath.veth.batch import Batch
from plugin.datapath.veth.removal import Removal
from plugin.kernel import link, neighbour
from plugin.kernel.netlink import NetlinkError, NetlinkSocket, Request
from sdn.model.errors import conflict
from sdn.reconcile.datapath import Key, Operation

_REMOVAL_S = 5.0
"""How long a VNI may stay taken by a device of ours that is being deleted."""
_PAUSE_S = 0.01


def put(operation: Operation, opened: TenantNamespace, here: NetlinkSocket, removal: Removal) -> None:
    """Make a carrier, change it, or, for what cannot be changed, make it anew with all that hung on it.

    Raises: NetlinkError; CONFLICT where somebody else has the VNI.
    """
    key, after, before = operation.key, operation.after, operation.before
    assert isinstance(after, Vxlan)
    kept: list[Request] = []
    if not isinstance(before, Vxlan) or _fixed(before) != _fixed(after):
        if before is not None:
            kept = _take_out(key[2], opened)
        _make(key, after, opened, here, removal)
        index = opened.look_up(key[2])
        kept = [_with_index(request, index) for request in kept]
        before = None
    batch = Batch()
    requests.set_vxlan(batch, key, after, before, opened)
    for request in kept:
        batch.add(key, request)
    refused = batch.send(opened.writer)
    if key in refused:
        raise refused[key]


def _fixed(vxlan: Vxlan) -> tuple[object, ...]:
    return vxlan.vni, vxlan.proxy, vxlan.port, vxlan.learning


def _take_out(name: str, opened: TenantNamespace) -> list[Request]:
    """Delete a carrier; the requests (with index 0) that set anew what was known by it."""
    index = opened.known_index(name)
    if index is None:
        return []
    kept: list[Request] = []
    for at, state, flags, mac, bridge, vtep in neighbour.dump_forwarding(opened.writer):
        if at != index:
            continue
        if bridge and not state & neighbour.NUD_PERMANENT:
            kept.append(neighbour.forward(0, mac))
        elif flags & neighbour.NTF_SELF and vtep:
            kept.append(neighbour.tunnel(0, mac, vtep))
    for family in neighbour.FAMILIES:
        for at, state, address, mac in neighbour.dump_neighbours(opened.writer, family):
            if at == index and state & neighbour.NUD_PERMANENT:
                kept.append(neighbour.neighbour(0, address, mac))
    opened.writer.do(link.delete(index))
    opened.indexes.pop(name, None)
    return kept


def _with_index(request: Request, index: int) -> Request:
    return dataclasses.replace(request, body=neighbour.with_index(request.body, index))


def _make(key: Key, vxlan: Vxlan, opened: TenantNamespace, here: NetlinkSocket, removal: Removal) -> None:
    """Make the device. Its VNI may still be taken by one of ours that is on its way out: wait for that."""
    request = requests.make_vxlan(key, vxlan, opened)
    error = here.execute([request])[0]
    if error is not None and error.errno == errno.EEXIST:
        removal.wait_idle(_REMOVAL_S)
        # An agent that was killed has left its namespaces to the kernel, which tells nobody when they are gone.
        deadline_s = time.monotonic() + _REMOVAL_S
        pause = threading.Event()
        while True:
            error = here.execute([request])[0]
            if error is None or error.errno != errno.EEXIST or time.monotonic() > deadline_s:
                break
            pause.wait(_PAUSE_S)
    if error is None:
        return
    if error.errno == errno.EEXIST:
        raise conflict(
            f"cannot make {key[2]}: another VXLAN device of this host has VNI {vxlan.vni} on UDP port {vxlan.port}",
            f"remove it (ip -d link show type vxlan; Hawse's own would be called {carrier_name(vxlan.vni, 4)})",
            vni=vxlan.vni,
        )
    raise NetlinkError(error.errno, error.message)
