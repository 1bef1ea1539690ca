"""A host's kernel for the bridge datapath."""

from __future__ import annotations

import os
from pathlib import Path

from plugin.datapath.bridge.datapath import BridgeDatapath
from tests.conformance.host_site import HostSite, write_state

__all__ = ["BridgeSite", "write_state"]


class BridgeSite(HostSite):
    """See HostSite."""

    def datapath(self) -> BridgeDatapath:
        """A new datapath object on this kernel."""
        return BridgeDatapath(self.run_dir, self.here.fd)

    def tenant(self, tenant: str) -> Path:
        """Where a tenant's namespace is pinned."""
        return self.run_dir / "netns" / f"t-{tenant}"

    def ports_place(self, tenant: str) -> Path:
        """See HostSite."""
        return self.tenant(tenant)

    def expect_nothing_left(self) -> None:
        """See HostSite."""
        pins = self.run_dir / "netns"
        assert not pins.exists() or not os.listdir(pins)
