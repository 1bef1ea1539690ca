"""Containers' namespaces, as the kernel knows them."""

from __future__ import annotations

import socket

from plugin.kernel import namespace


class KernelNamespaces:
    """See attachments.Namespaces."""

    def is_namespace(self, fd: int) -> bool:
        """See Namespaces."""
        return namespace.is_namespace(fd)

    def cookie(self, fd: int) -> int:
        """See Namespaces."""
        return namespace.cookie(fd)

    def interfaces(self, fd: int) -> set[str]:
        """See Namespaces."""
        return {name for _, name in namespace.run_in(fd, socket.if_nameindex)}
