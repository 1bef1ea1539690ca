"""What the kernel tells of a tenant's namespace, and whether it is news.

Two sockets. One hears everything, but is deaf while we write ourselves (`own`): what we do never reaches it, and an
attachment does not pay for reading it. The other hears of deaths alone, always: a container may die while another is
attached. What comes later of our own doing (a carrier that is up, a doomed link that is gone) is told from foreign
hands by what a link looks like.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

from plugin.datapath.bridge.objects import PROXY_SWITCHES, bridge_mac, vni_of
from plugin.datapath.veth.ports import DOOMED, DOOMED_NOW
from plugin.kernel import link, neighbour, route
from plugin.kernel.netlink import LostEventsError, NetlinkSocket
from sdn.model.ids import TenantId

GROUPS = link.GROUP_LINK | neighbour.GROUP_NEIGHBOUR | route.GROUP_IPV4_ADDRESS | route.GROUP_IPV6_ADDRESS

Drifted = Callable[[Sequence[TenantId] | None], None]
_Seen = tuple[str, tuple[object, ...], frozenset[str]]
"""A link as it was told of last: name, what is compared, switches."""


def _seen(told: link.Link) -> _Seen:
    data = told.data
    if told.kind == "bridge":
        kinds = (link.BRIDGE_AGEING, link.BRIDGE_STP, link.BRIDGE_MCAST_SNOOPING)
    else:
        kinds = (link.VXLAN_LOCAL, link.VXLAN_LOCAL6, link.VXLAN_PROXY)
    settings = tuple(data.get(kind) for kind in kinds)
    compared = (told.up, told.master, told.mtu_bytes, told.mac, told.alias, settings)
    return told.name, compared, told.port_flags


def _sound(told: link.Link) -> bool:
    """Whether a link that was not told of before looks as we make them."""
    prefix = told.name[:3]
    if prefix == "hwb":
        return told.up and told.mac == bridge_mac(vni_of(told.name))
    switches = PROXY_SWITCHES if prefix in ("hwx", "hwy") else frozenset()
    return told.up and told.master != 0 and told.port_flags <= switches


class TenantWatch:
    """The notifications of one tenant's namespace."""

    def __init__(self, tenant: TenantId, ns_fd: int) -> None:
        self.tenant = tenant
        self._ns_fd = ns_fd
        self._lock = threading.Lock()
        self._links: dict[int, _Seen] = {}
        with contextlib.ExitStack() as undo:
            self._deaths = NetlinkSocket.open(ns_fd)
            undo.callback(self._deaths.close)
            self._deaths.only(link.RTM_DELLINK)
            self._deaths.subscribe(link.GROUP_LINK)
            self._all = NetlinkSocket.open(ns_fd, GROUPS)
            undo.callback(self._all.close)
            self._learn()
            self._undo = undo.pop_all()
        self._closed = False

    def filenos(self) -> tuple[int, int]:
        """The descriptors, to wait on."""
        return self._deaths.fileno(), self._all.fileno()

    @contextlib.contextmanager
    def own(self, learn: bool) -> Iterator[None]:
        """What happens within is our doing, but for deaths. `learn`: links that were there before are changed in it."""
        self._listen(0)
        try:
            yield
        finally:
            self._listen(GROUPS)
            if learn:
                self._learn()

    def take(self) -> bool:
        """Take what has been told; whether any of it is news. Raises: LostEventsError."""
        with self._lock:
            news = lost = False
            for netlink in () if self._closed else (self._deaths, self._all):
                try:
                    for kind, buffer, offset, end in netlink.events():
                        news |= self._judge(kind, buffer, offset, end, netlink is self._deaths)
                except LostEventsError:
                    lost = True
            if lost:
                self._learn()
                raise LostEventsError
            return news

    def close(self) -> None:
        """Stop listening; twice is fine."""
        with self._lock:
            self._closed = True
            self._undo.close()

    def _listen(self, groups: int) -> None:
        if not self._closed:
            self._all.subscribe(groups)

    def _learn(self) -> None:
        with contextlib.closing(NetlinkSocket.open(self._ns_fd)) as netlink:
            self._links = {told.index: _seen(told) for told in link.dump(netlink) if told.group != DOOMED}

    def _judge(self, kind: int, buffer: bytes, offset: int, end: int, death: bool) -> bool:
        if death:
            return self._judge_death(buffer, offset, end)
        if kind == link.RTM_NEWLINK:
            return self._judge_link(buffer, offset, end)
        if kind in (neighbour.RTM_NEWNEIGH, neighbour.RTM_DELNEIGH):
            return self._judge_neighbour(*neighbour.decode_event(buffer, offset))
        if kind == route.RTM_DELADDR:
            return self._name(route.address_event_index(buffer, offset)).startswith("hwb")
        return False

    def _judge_death(self, buffer: bytes, offset: int, end: int) -> bool:
        if link.family(buffer, offset) == socket.AF_BRIDGE:  # it left its bridge: that is told as a change, too
            return False
        told = link.decode(buffer, offset, end)
        self._links.pop(told.index, None)
        return told.group not in (DOOMED, DOOMED_NOW) and told.name.startswith("hw")

    def _judge_link(self, buffer: bytes, offset: int, end: int) -> bool:
        told = link.decode(buffer, offset, end)
        before = self._links.get(told.index)
        if told.group in (DOOMED, DOOMED_NOW):
            self._links.pop(told.index, None)
            return False
        if link.family(buffer, offset) == socket.AF_BRIDGE:  # of the port alone
            if before is None or before[2] == told.port_flags:
                return False
            self._links[told.index] = (*before[:2], told.port_flags)
            return True
        if not told.name.startswith(("hw", "lo")):
            return False
        seen = self._links[told.index] = _seen(told)
        return not _sound(told) if before is None else before != seen

    def _judge_neighbour(self, family: int, index: int, state: int, flags: int) -> bool:
        """Bridges resolve containers by themselves, and a port's own MAC comes and goes with it: no news."""
        name = self._name(index)
        if family == socket.AF_BRIDGE:
            return not (state & neighbour.NUD_PERMANENT and not flags & neighbour.NTF_SELF) and name[:3] != "hwb"
        return name.startswith(("hwx", "hwy"))

    def _name(self, index: int) -> str:
        seen = self._links.get(index)
        return "" if seen is None else seen[0]


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

    def add(self, watch: TenantWatch) -> None:
        """Listen to one more namespace."""
        for fd in watch.filenos():
            self._watched[fd] = watch
            self._epoll.register(fd, select.EPOLLIN)

    def remove(self, watch: TenantWatch) -> None:
        """Listen to it no longer, and close it."""
        for fd in watch.filenos():
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
            ready = [fd for fd, _ in self._epoll.poll()]
            if self._wake in ready:
                return
            for watch in {self._watched.get(fd) for fd in ready} - {None}:
                assert watch is not None
                try:
                    if watch.take():
                        news.append(watch.tenant)
                except LostEventsError:
                    lost = True
            if lost:
                self._drifted(None)
            elif news:
                self._drifted(news)
