"""The guard of ports: the kernel's own stack does not look at frames that belong to the switch.

The userspace datapath takes frames off a device by a packet socket, which gives it a copy; the original goes on
into the host's stack, which would answer ARP, route, and deliver to its own services, past every policy. Two static
tables drop it; packet sockets are served before them.
"""

from __future__ import annotations

import errno
from typing import Final

from plugin.kernel.nftables import Family, NetfilterError, Nftables, delete_table, versioned
from sdn.model.errors import HawseError, Kind

TABLE: Final = "hawse-ports"
_FAMILIES: Final = {"inet": Family.INET, "arp": Family.ARP}
_HOOKS: Final = {"inet": "prerouting priority raw", "arp": "input priority 0"}
_RULES: Final = """
    iifname "hwv*" drop
    iifname "hwu1" drop
"""
VERSION: Final = versioned("".join(_HOOKS.values()) + _RULES)


def text() -> str:
    """The commands that load both, in the place of any older ones."""
    return "".join(
        f"table {family} {TABLE}\ndelete table {family} {TABLE}\n"
        f"table {family} {TABLE} {{\n  chain {VERSION} {{\n  }}\n  chain in {{\n"
        f"    type filter hook {hook}; policy accept;{_RULES}  }}\n}}\n"
        for family, hook in _HOOKS.items()
    )


class PortGuard:
    """The tables in one namespace (None: this process's)."""

    def __init__(self, ns_fd: int | None) -> None:
        self._rules = Nftables(ns_fd)

    def is_loaded(self) -> bool:
        """Whether both are there, in this version."""
        return all(self._rules.has_chain(family, TABLE, VERSION) for family in _FAMILIES.values())

    def ensure(self) -> None:
        """Load what is not there. Raises: UNAVAILABLE, DENIED."""
        if not self.is_loaded():
            self._rules.load(text())

    def remove(self) -> None:
        """Remove both; absent is fine. Raises: INTERNAL."""
        for family in _FAMILIES.values():
            try:
                self._rules.transact([delete_table(family, TABLE)])
            except NetfilterError as error:
                if error.errno != errno.ENOENT:
                    raise HawseError(Kind.INTERNAL, f"cannot remove the nftables table {TABLE}: {error}") from error

    def close(self) -> None:
        """Let go of descriptors; the tables stay."""
        self._rules.close()
