"""The host's namespace, where the switch and the host ends of veths are: sockets, and which name has which index."""

from __future__ import annotations

import contextlib
import threading

from plugin.datapath.veth.batch import Batch
from plugin.datapath.veth.ports import DOOMED, DOOMED_NOW, PORT_PREFIX, IndexSource
from plugin.kernel import link
from plugin.kernel.netlink import NetlinkError, NetlinkSocket
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import Key


class HostLinks:
    """`fd` None: this process's namespace. `writer` is the writing thread's; a read is one thread's at a time."""

    def __init__(self, fd: int | None) -> None:
        self.fd = fd
        self.indexes: dict[str, int] = {}
        self.doomed: set[int] = set()
        self._source = IndexSource()
        self._reading = threading.Lock()
        with contextlib.ExitStack() as undo:
            self.writer = NetlinkSocket.open(fd)
            undo.callback(self.writer.close)
            self._reader = NetlinkSocket.open(fd)
            undo.callback(self._reader.close)
            self.read()
            self._undo = undo.pop_all()

    def read(self) -> tuple[dict[str, link.Link], list[int]]:
        """The host ends that are in service, by name, and the indexes of the doomed. Raises: OSError, NetlinkError."""
        with self._reading:
            links = link.dump(self._reader)
        ports: dict[str, link.Link] = {}
        doomed: list[int] = []
        for found in links:
            self._source.note(found.index)
            if found.group in (DOOMED, DOOMED_NOW):
                doomed.append(found.index)
            elif found.name.startswith(PORT_PREFIX) and found.kind == "veth":
                ports[found.name] = found
        self.indexes.update((name, found.index) for name, found in ports.items())
        return ports, doomed

    def examine(self, name: str) -> tuple[link.Link, link.Traffic] | None:
        """A link and what has gone through it; None: there is none. Raises: NetlinkError."""
        with self._reading:
            return link.examine(self._reader, name=name)

    def index(self, name: str) -> int | None:
        """The index of a host end; None: there is none."""
        known = self.indexes.get(name)
        if known is None:
            with contextlib.suppress(NetlinkError):
                known = self.indexes[name] = link.get(self.writer, name=name).index
        return known

    def skip(self, count: int) -> None:
        """Leave out some numbers: one that was taken was somebody's."""
        self._source.skip(count)

    def make(self, batch: Batch, key: Key, alias: str, mtu_bytes: int, endpoint: Endpoint, ns_fd: int) -> int:
        """A veth with its other end in the container, in requests; the index of both ends.

        Address generation goes before the link is up: nothing of the kernel's own is ever sent from the host end.
        The later requests go by name: were the first refused, an index could be somebody else's.
        """
        name, index = key[1], self._source.take()
        mac, mtu = link.encode_mac(endpoint.mac), link.encode_mtu(mtu_bytes)
        batch.add(
            key,
            link.create_veth(name, index, mtu, peer=endpoint.ifname, peer_attributes=mac + mtu, peer_ns_fd=ns_fd),
        )
        rest = link.encode_alias(alias) + link.encode_no_address_generation()
        batch.add(key, link.change_named(name, rest))
        batch.add(key, link.change_named(name, b"", up=True))
        self.indexes[name] = index
        return index

    def close(self) -> None:
        """Let go of it; twice is fine."""
        self._undo.close()
