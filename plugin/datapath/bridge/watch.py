"""What the kernel tells of a tenant's namespace, and whether it is news.

A writer works inside `own()`: the lock is held, and what has been told by its end is taken as its own doing. The kernel
tells of nearly everything before it acknowledges; what comes later (a carrier that is up) changes nothing that is
compared here. Only the loss of a port that we have not doomed is news even then: a container died meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

from plugin.datapath.bridge.objects import DOOMED, DOOMED_NOW
from plugin.kernel import link, neighbour, route
from plugin.kernel.netlink import LostEventsError, NetlinkSocket
from sdn.model.ids import TenantId

GROUPS = link.GROUP_LINK | neighbour.GROUP_NEIGHBOUR | route.GROUP_IPV4_ADDRESS | route.GROUP_IPV6_ADDRESS

Drifted = Callable[[Sequence[TenantId] | None], None]
_Seen = tuple[str, int, tuple[object, ...], frozenset[str]]
"""A link as it was told of last: name, group, what is compared, switches."""


def _seen(told: link.Link) -> _Seen:
    data = told.data
    if told.kind == "bridge":
        kinds = (link.BRIDGE_AGEING, link.BRIDGE_STP, link.BRIDGE_MCAST_SNOOPING)
    else:
        kinds = (link.VXLAN_LOCAL, link.VXLAN_LOCAL6, link.VXLAN_PROXY)
    settings = tuple(data.get(kind) for kind in kinds)
    compared = (told.up, told.master, told.mtu_bytes, told.mac, told.alias, settings)
    return told.name, told.group, compared, told.port_flags


class TenantWatch:
    """The notifications of one tenant's namespace."""

    def __init__(self, tenant: TenantId, ns_fd: int) -> None:
        self.tenant = tenant
        self._lock = threading.RLock()
        self._socket: NetlinkSocket | None = NetlinkSocket.open(ns_fd, GROUPS)
        self._ns_fd = ns_fd
        self._links: dict[int, _Seen] = {}
        self._learn()

    def fileno(self) -> int:
        """The descriptor, to wait on."""
        return -1 if self._socket is None else self._socket.fileno()

    @contextlib.contextmanager
    def own(self, report: Callable[[], None]) -> Iterator[None]:
        """What happens within is our doing; `report` is called after it where something else happened too."""
        with self._lock:
            try:
                yield
            finally:
                news = self._take(own=True)
        if news:
            report()

    def take(self) -> bool:
        """Take what has been told; whether any of it is news. Raises: LostEventsError."""
        with self._lock:
            return self._take(own=False)

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _learn(self) -> None:
        with contextlib.closing(NetlinkSocket.open(self._ns_fd)) as netlink:
            self._links = {told.index: _seen(told) for told in link.dump(netlink)}

    def _take(self, own: bool) -> bool:
        news = False
        if self._socket is None:
            return news
        try:
            for kind, buffer, offset, end in self._socket.events():
                news |= self._judge(kind, buffer, offset, end, own)
        except LostEventsError:
            self._drain()
            if not own:
                raise
        return news

    def _drain(self) -> None:
        """After a loss: throw away the rest and look at the links anew."""
        assert self._socket is not None
        while True:
            try:
                for _ in self._socket.events():
                    pass
                break
            except LostEventsError:
                continue
        self._learn()

    def _judge(self, kind: int, buffer: bytes, offset: int, end: int, own: bool) -> bool:
        if kind in (link.RTM_NEWLINK, link.RTM_DELLINK):
            return self._judge_link(kind, buffer, offset, end, own)
        if own:
            return False
        if kind in (neighbour.RTM_NEWNEIGH, neighbour.RTM_DELNEIGH):
            return self._judge_neighbour(*neighbour.decode_event(buffer, offset))
        if kind == route.RTM_DELADDR:
            return self._name(route.address_event_index(buffer, offset)).startswith("hwb")
        return False

    def _judge_link(self, kind: int, buffer: bytes, offset: int, end: int, own: bool) -> bool:
        told = link.decode(buffer, offset, end)
        before = self._links.get(told.index)
        if before is not None and before[1] in (DOOMED, DOOMED_NOW):
            if kind == link.RTM_DELLINK and link.family(buffer, offset) != socket.AF_BRIDGE:
                del self._links[told.index]
            return False
        if link.family(buffer, offset) == socket.AF_BRIDGE:  # of the port alone; DELLINK: it left the bridge
            if kind == link.RTM_NEWLINK and before is not None and before[3] != told.port_flags:
                self._links[told.index] = (*before[:3], told.port_flags)
                return not own
            return False
        if kind == link.RTM_DELLINK:
            self._links.pop(told.index, None)
            return told.name.startswith("hwv") or (not own and told.name.startswith("hw"))
        seen = _seen(told)
        self._links[told.index] = seen
        return not own and told.name.startswith(("hw", "lo")) and before != seen

    def _judge_neighbour(self, family: int, index: int, state: int, flags: int) -> bool:
        """Bridges resolve containers by themselves, and a port's own MAC comes and goes with it: no news."""
        name = self._name(index)
        if family == socket.AF_BRIDGE:
            own_mac = state & neighbour.NUD_PERMANENT and not flags & neighbour.NTF_SELF
            return name.startswith(("hwv", "hwx", "hwy")) and not own_mac
        return name.startswith(("hwx", "hwy"))

    def _name(self, index: int) -> str:
        """The name of a link that counts; "" of others and of doomed ones."""
        seen = self._links.get(index)
        return "" if seen is None or seen[1] in (DOOMED, DOOMED_NOW) else seen[0]


class Watch:
    """One thread that waits for the notifications of all tenants' namespaces."""

    def __init__(self, drifted: Drifted) -> None:
        self._drifted = drifted
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._watched: dict[int, TenantWatch] = {}
        self._thread = threading.Thread(target=self._serve, name="hawse-watch", daemon=True)
        self._thread.start()

    def report(self, tenant: TenantId) -> None:
        """Tell of a tenant that is not as it was written."""
        self._drifted([tenant])

    def add(self, watch: TenantWatch) -> None:
        """Listen to one more namespace."""
        fd = watch.fileno()
        self._watched[fd] = watch
        self._epoll.register(fd, select.EPOLLIN)

    def remove(self, watch: TenantWatch) -> None:
        """Listen to it no longer, and close it."""
        fd = watch.fileno()
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        watch.close()

    def close(self) -> None:
        """Stop the thread and close all."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        for watch in list(self._watched.values()):
            self.remove(watch)
        self._epoll.close()
        os.close(self._wake)

    def _serve(self) -> None:
        while True:
            news: list[TenantId] = []
            lost = False
            for fd, _ in self._epoll.poll():
                if fd == self._wake:
                    return
                watch = self._watched.get(fd)
                if watch is None:
                    continue
                try:
                    if watch.take():
                        news.append(watch.tenant)
                except LostEventsError:
                    lost = True
            if lost:
                self._drifted(None)
            elif news:
                self._drifted(news)
