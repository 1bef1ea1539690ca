"""A host's kernel for the OpenFlow datapath: a namespace with an Open vSwitch in it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from plugin.datapath.openflow.datapath import OpenflowDatapath
from tests.conformance.host_site import HostSite
from tests.conformance.vswitch_process import VswitchProcess


class OpenflowSite(HostSite):
    """See HostSite. `process`: a switch that several sites use one after the other (None: one of its own)."""

    def __init__(self, process: VswitchProcess | None = None) -> None:
        self.process = process or VswitchProcess()
        try:
            super().__init__(self.process.here)
        except BaseException:
            self.process.close()
            raise
        self._own = process is None

    def datapath(self) -> OpenflowDatapath:
        """A new datapath object on this switch."""
        return OpenflowDatapath(self.run_dir, self.here.fd, self.process.socket)

    def ports_place(self, tenant: str) -> Path:
        """See HostSite."""
        return Path("/run/netns") / self.here.name

    def close(self) -> None:
        """See HostSite."""
        try:
            super().close()
        finally:
            if self._own:
                self.process.close()

    def expect_nothing_left(self) -> None:
        """No bridge, no device, no rule."""
        assert self.process.vsctl("list-br").split() == []
        assert [name for name in self.links() if name.startswith("hw")] == []
        assert "hawse" not in self.run("nft", "list", "ruleset")

    def links(self) -> list[str]:
        """The names of the host's devices."""
        return [line.split()[1].partition("@")[0].rstrip(":") for line in self.run("ip", "-o", "link").splitlines()]

    def run(self, *command: str) -> str:
        """The output of a command, run in the host's namespace."""
        entered = ["nsenter", f"--net=/run/netns/{self.here.name}", *command]
        return subprocess.run(entered, check=True, timeout=10, capture_output=True, text=True).stdout
