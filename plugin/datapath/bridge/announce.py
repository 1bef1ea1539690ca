"""Changed MACs are announced by frames that a network's bridge sends, past the guard."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable

from plugin.datapath.bridge.guard import TenantGuard
from plugin.datapath.bridge.objects import bridge_name, vni_of
from plugin.datapath.veth.announcement import Change, frames
from plugin.kernel.packet import send_frames
from sdn.model.errors import HawseError
from sdn.reconcile.datapath import Key


def locate(key: Key) -> tuple[int, str]:
    """The VNI and the address of a neighbour's key."""
    return vni_of(key[2]), key[3]


def announce(ns_fd: int, guard: TenantGuard, changes: Iterable[Change]) -> None:
    """Tell the stations of this host, in a tenant's namespace, of changed MACs."""
    by_vni: dict[int, list[Change]] = defaultdict(list)
    for change in changes:
        by_vni[change.vni].append(change)
    if not by_vni:
        return
    # What was wanted is written already; a peer that is not told finds out when its neighbour entry fails.
    with contextlib.suppress(OSError, HawseError):
        stations = guard.read().values()
        for vni, changed in by_vni.items():
            send_frames(ns_fd, bridge_name(vni), frames(changed, [port for port in stations if port.vni == vni]))
