"""Requests with the keys that they are made for, and what the kernel's refusals mean."""

from __future__ import annotations

import errno

from plugin.kernel.netlink import NetlinkError, NetlinkSocket, Request
from sdn.model.errors import HawseError, Kind, conflict, denied, exhausted, unavailable
from sdn.model.resources import ENDPOINTS_PER_NETWORK_AND_HOST_MAX
from sdn.reconcile.datapath import Key

Errors = dict[Key, Exception]
NONE: frozenset[int] = frozenset()
GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO})
"""What a deletion may be answered with: it was not there."""
PRESENT = frozenset({errno.EEXIST})


class Batch:
    """Requests of one send; the first error of each key counts."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._owners: list[tuple[Key, frozenset[int]]] = []

    def add(self, key: Key, request: Request, tolerated: frozenset[int] = NONE) -> None:
        """One request more. `tolerated`: error numbers that mean success."""
        self._requests.append(request)
        self._owners.append((key, tolerated))

    def send(self, netlink: NetlinkSocket) -> dict[Key, NetlinkError]:
        """Do all; the first refusal by key."""
        refused: dict[Key, NetlinkError] = {}
        if self._requests:
            for (key, tolerated), error in zip(self._owners, netlink.execute(self._requests), strict=True):
                if error is not None and error.errno not in tolerated:
                    refused.setdefault(key, error)
        return refused


def explain(key: Key, error: NetlinkError) -> HawseError:
    """The kernel's refusal as a sentence."""
    what = " ".join((key[0], *key[2:]))
    facts = {"key": list(key), "errno": error.errno}
    if error.errno == errno.EXFULL:
        limit = ENDPOINTS_PER_NETWORK_AND_HOST_MAX
        return exhausted(
            f"the bridge has no port left for {what}: a network takes {limit} endpoints on a host",
            "attach on another host, or use a second network",
            limit=limit,
            **facts,
        )
    if error.errno in (errno.EPERM, errno.EACCES):
        return denied(f"the kernel refuses {what}: {error}", "run the agent as root (CAP_NET_ADMIN)", **facts)
    if error.errno == errno.EOPNOTSUPP and error.message in ("", "Unknown device type"):
        return unavailable(
            f"this kernel cannot make {what}: {error}",
            "it needs veth, bridge and vxlan (as modules: modprobe veth bridge vxlan)",
            **facts,
        )
    if error.errno == errno.EEXIST:
        return conflict(f"cannot make {what}: {error}", "remove what is in its place", **facts)
    return HawseError(Kind.INTERNAL, f"cannot write {what}: {error}", facts=facts)


def name_taken(key: Key, ifname: str) -> HawseError:
    """The container has an interface of that name already."""
    return conflict(
        f"cannot make {ifname} in the container: its namespace has an interface of that name already",
        "choose another name for the interface, or remove the one that is there",
        key=list(key),
        ifname=ifname,
    )
