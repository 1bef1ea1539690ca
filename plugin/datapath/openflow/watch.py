"""What the kernel tells of host ends, and whether it is news.

One socket hears of deaths alone, always; the other hears everything, but is deaf while we write ourselves. The switch's
own doing (a device becomes promiscuous) is told, too: what counts is what is compared.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterator, Sequence

from plugin.datapath.veth.ports import DOOMED, DOOMED_NOW, PORT_PREFIX, parse_port_alias
from plugin.kernel import link
from plugin.kernel.netlink import LostEventsError, NetlinkSocket
from sdn.model.ids import TenantId

Drifted = Callable[[Sequence[TenantId] | None], None]
_Seen = tuple[str, bool, int, str]
"""A host end as it was told of last: name, up, MTU, alias."""


class PortWatch:
    """A thread that tells `drifted` of what others do to host ends in a namespace (None: this process's)."""

    def __init__(self, ns_fd: int | None, drifted: Drifted) -> None:
        self._drifted = drifted
        self._ns_fd = ns_fd
        self._lock = threading.Lock()
        self._ports: dict[int, _Seen] = {}
        self._closed = False
        with contextlib.ExitStack() as undo:
            self._deaths = NetlinkSocket.open(ns_fd)
            undo.callback(self._deaths.close)
            self._deaths.only(link.RTM_DELLINK)
            self._deaths.subscribe(link.GROUP_LINK)
            self._all = NetlinkSocket.open(ns_fd, link.GROUP_LINK)
            undo.callback(self._all.close)
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, self._wake)
            self._learn()
            self._undo = undo.pop_all()
        self._thread = threading.Thread(target=self._serve, name="hawse-ports", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def own(self, *, learn: bool) -> Iterator[None]:
        """What happens within is our doing, but for deaths. `learn`: host ends that were there before are changed."""
        self._all.subscribe(0)
        try:
            yield
        finally:
            self._all.subscribe(link.GROUP_LINK)
            if learn:
                with self._lock:
                    self._learn()

    def close(self) -> None:
        """Stop; twice is fine."""
        if self._closed:
            return
        self._closed = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._undo.close()

    def _learn(self) -> None:
        with contextlib.closing(NetlinkSocket.open(self._ns_fd)) as netlink:
            self._ports = {told.index: _seen(told) for told in link.dump(netlink) if _is_port(told)}

    def _serve(self) -> None:
        poll = select.poll()
        for ear in (self._wake, self._deaths, self._all):
            poll.register(ear, select.POLLIN)
        while True:
            if any(fd == self._wake for fd, _ in poll.poll()):
                return
            news: set[TenantId | None] = set()
            try:
                with self._lock:
                    for netlink in (self._deaths, self._all):
                        for kind, buffer, offset, end in netlink.events():
                            news |= self._judge(kind, link.decode(buffer, offset, end), netlink is self._deaths)
            except LostEventsError:
                with self._lock:
                    self._learn()
                news.add(None)
            if None in news:
                self._drifted(None)
            elif news:
                self._drifted(sorted(tenant for tenant in news if tenant is not None))

    def _judge(self, kind: int, told: link.Link, death: bool) -> set[TenantId | None]:
        """The tenants that a message is news of; None: somebody's."""
        before = self._ports.get(told.index)
        if told.group in (DOOMED, DOOMED_NOW):
            self._ports.pop(told.index, None)
            return set()
        if death or kind == link.RTM_DELLINK:
            self._ports.pop(told.index, None)
            return {_tenant(told.alias)} if death and told.name.startswith(PORT_PREFIX) else set()
        if before is None and not _is_port(told):
            return set()
        seen = self._ports[told.index] = _seen(told)
        if before is None:  # of ours is told only while we are deaf, or, late, as we made it
            return set() if told.up and parse_port_alias(told.alias) is not None else {_tenant(told.alias)}
        return set() if seen == before else {_tenant(before[3])}


def _is_port(told: link.Link) -> bool:
    return told.name.startswith(PORT_PREFIX) and told.group not in (DOOMED, DOOMED_NOW)


def _seen(told: link.Link) -> _Seen:
    return told.name, told.up, told.mtu_bytes, told.alias


def _tenant(alias: str) -> TenantId | None:
    owner = parse_port_alias(alias)
    return None if owner is None else TenantId(owner.tenant)
