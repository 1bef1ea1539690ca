"""The tenants' namespaces that are open: descriptors, sockets, guards, and which name has which index."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from plugin.datapath.bridge.announce import locate
from plugin.datapath.bridge.guard import TenantGuard
from plugin.datapath.bridge.objects import SYSCTLS
from plugin.datapath.bridge.watch import Drifted, TenantWatch, Watch
from plugin.datapath.veth.announcement import FormerMacs
from plugin.datapath.veth.ports import IndexSource
from plugin.kernel import link, namespace
from plugin.kernel.netlink import NetlinkError, NetlinkSocket
from sdn.model.ids import TenantId

_PREFIX = "t-"


class TenantNamespace:
    """One open namespace. `writer` is the writing thread's, `reader` is used under `reading`."""

    def __init__(self, tenant: TenantId, fd: int, indexes: IndexSource) -> None:
        self.tenant = tenant
        self.fd = fd
        self.identity = _identity(os.fstat(fd))
        self.indexes: dict[str, int] = {}
        self.networks: dict[int, str] = {}
        self.reading = threading.Lock()
        self.doomed: set[int] = set()
        self.former = FormerMacs(locate)
        self.watch: TenantWatch | None = None
        self._source = indexes
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            self.writer = NetlinkSocket.open(fd)
            undo.callback(self.writer.close)
            self.reader = NetlinkSocket.open(fd)
            undo.callback(self.reader.close)
            self.guard = TenantGuard(fd)
            undo.callback(self.guard.close)
            with self.reading:
                self.note(link.dump(self.reader))
            self._undo = undo.pop_all()

    def note(self, links: list[link.Link]) -> None:
        """Remember the indexes of links that were read."""
        for found in links:
            self.indexes[found.name] = found.index
            self._source.note(found.index)

    def take_index(self) -> int:
        """A number for both ends of a new veth."""
        return self._source.take()

    def index(self, name: str) -> int:
        """The index of a link. Raises: NetlinkError (ENODEV)."""
        index = self.indexes.get(name)
        if index is None:
            index = self.look_up(name)
        return index

    def look_up(self, name: str) -> int:
        """The index of a link, asked for anew. Raises: NetlinkError (ENODEV)."""
        self.indexes.pop(name, None)
        index = link.get(self.writer, name=name).index
        self.indexes[name] = index
        return index

    def known_index(self, name: str) -> int | None:
        """The index of a link, or None where there is no such link."""
        try:
            return self.index(name)
        except NetlinkError:
            return None

    def close(self) -> None:
        """Let go of it; twice is fine."""
        self._undo.close()


class Tenants:
    """All tenants' namespaces of this host, opened when they are first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, TenantNamespace] = {}
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self.indexes = IndexSource()

    def names(self) -> list[TenantId]:
        """The tenants that have a namespace pinned."""
        try:
            found = sorted(entry.name for entry in self._directory.iterdir() if entry.name.startswith(_PREFIX))
        except FileNotFoundError:
            return []
        return [TenantId(name.removeprefix(_PREFIX)) for name in found]

    def path(self, tenant: str) -> Path:
        """Where the tenant's namespace is pinned."""
        return self._directory / f"{_PREFIX}{tenant}"

    def get(self, tenant: str) -> TenantNamespace | None:
        """The tenant's namespace; None: it has none. One that was exchanged behind our back is opened anew."""
        stale: TenantNamespace | None = None
        try:
            with self._lock:
                known = self._open.get(tenant)
                try:
                    found = os.stat(f"{self._directory}/{_PREFIX}{tenant}")  # each write asks, and a Path is dear
                except FileNotFoundError:
                    found = None
                if known is not None:
                    if found is not None and _identity(found) == known.identity:
                        return known
                    stale = self._open.pop(tenant)
                fd = None if found is None else namespace.open_pinned(self.path(tenant))
                if fd is None:
                    return None
                opened = self._open[tenant] = TenantNamespace(TenantId(tenant), fd, self.indexes)
                self._listen(opened)
                return opened
        finally:
            if stale is not None:  # outside of the lock: a writer may hold the watch and wait for us
                self._deafen(stale)
                stale.close()

    def create(self, tenant: str) -> TenantNamespace:
        """Make the tenant's namespace, quiet. Raises: OSError."""
        namespace.create(self.path(tenant), quieten)
        made = self.get(tenant)
        assert made is not None
        return made

    def mend(self, opened: TenantNamespace) -> None:
        """Set anew what makes a namespace a tenant's. Raises: OSError, NetlinkError."""
        namespace.run_in(opened.fd, quieten)

    def take_away(self, tenant: str) -> TenantNamespace | None:
        """Unpin the tenant's namespace and forget it; what is left of it is the caller's to close."""
        opened = self.get(tenant)
        namespace.remove(self.path(tenant))
        if opened is not None:
            with self._lock:
                self._open.pop(tenant, None)
            self._deafen(opened)
        return opened

    def listen(self, drifted: Drifted) -> None:
        """Tell of changes that are not ours, from now on."""
        with self._lock:
            if self._watch is not None:
                self._watch.close()
            self._watch = Watch(drifted)
            for opened in self._open.values():
                self._listen(opened)

    def own(self, opened: TenantNamespace, *, learn: bool) -> contextlib.AbstractContextManager[None]:
        """What changes within is our own doing: no news. `learn`: links that were there before are changed."""
        return contextlib.nullcontext() if opened.watch is None else opened.watch.own(learn)

    def close(self) -> None:
        """Let go of everything; the namespaces stay."""
        with self._lock:
            watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()
        with self._lock:
            for opened in self._open.values():
                opened.close()
            self._open.clear()

    def _listen(self, opened: TenantNamespace) -> None:
        if self._watch is not None:
            opened.watch = TenantWatch(opened.tenant, opened.fd)
            self._watch.add(opened.watch)

    def _deafen(self, opened: TenantNamespace) -> None:
        watch, opened.watch = opened.watch, None
        if watch is not None and self._watch is not None:
            self._watch.remove(watch)


def quieten() -> None:
    """Make the calling thread's namespace a tenant's: settings written, loopback up. Raises: OSError, NetlinkError."""
    namespace.write_sysctls(dict(SYSCTLS))
    with contextlib.closing(NetlinkSocket.open()) as netlink:
        netlink.do(link.change(link.LOOPBACK, b"", up=True))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
