"""Containers' namespaces, as the kernel knows them."""

from __future__ import annotations

import socket

from plugin.kernel import namespace
from plugin.kernel.netlink import NetlinkSocket
from sdn.reconcile.datapath import Sandbox


class KernelNamespaces:
    """See attachments.Namespaces."""

    def is_namespace(self, fd: int) -> bool:
        """See Namespaces."""
        return namespace.is_namespace(fd)

    def open(self, fd: int) -> Sandbox:
        """See Namespaces. Entering costs most: the socket that tells the cookie is the one to configure by, too."""
        netlink = NetlinkSocket.open(fd)
        return Sandbox(fd, netlink.cookie, netlink)

    def interfaces(self, fd: int) -> set[str]:
        """See Namespaces."""
        return {name for _, name in namespace.run_in(fd, socket.if_nameindex)}
