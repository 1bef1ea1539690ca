"""A host's kernel for the bridge datapath: a namespace as the host's, a run directory, containers' namespaces."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from plugin.datapath.bridge.datapath import BridgeDatapath
from plugin.kernel import namespace
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import Key, Sandbox
from sdn.reconcile.diff import diff
from sdn.reconcile.laws import lower_all
from sdn.reconcile.state import Feed, State
from sdn.reconcile.world import World
from tests.packet.namespaces import TestNamespace


class BridgeSite:
    """See sdn.reconcile.laws.Site."""

    def __init__(self) -> None:
        self._undo = contextlib.ExitStack()
        self.run_dir = Path(tempfile.mkdtemp(prefix="hwt-"))
        self._undo.callback(shutil.rmtree, self.run_dir)
        self.here = self._made()
        self._undo.callback(self._purge)
        self._sandboxes: dict[int, tuple[TestNamespace, Sandbox]] = {}

    def datapath(self) -> BridgeDatapath:
        """A new datapath object on this kernel."""
        return BridgeDatapath(self.run_dir, self.here.fd)

    def container(self, endpoint: Endpoint) -> TestNamespace:
        """The endpoint's container's namespace, made at the first call."""
        known = self._sandboxes.get(endpoint.sandbox)
        if known is None:
            made = self._made()
            known = made, Sandbox(made.fd, namespace.cookie(made.fd))
            self._sandboxes[endpoint.sandbox] = known
        return known[0]

    def sandbox(self, endpoint: Endpoint) -> Sandbox:
        """The same, as an ADD hands it over."""
        self.container(endpoint)
        return self._sandboxes[endpoint.sandbox][1]

    def adopt(self, endpoint: Endpoint, container: TestNamespace) -> None:
        """Let an endpoint be in a namespace that is there already."""
        self._sandboxes[endpoint.sandbox] = container, Sandbox(container.fd, namespace.cookie(container.fd))

    def tenant(self, tenant: str) -> Path:
        """Where a tenant's namespace is pinned."""
        return self.run_dir / "netns" / f"t-{tenant}"

    def close(self) -> None:
        """Remove everything."""
        self._undo.close()

    def _made(self) -> TestNamespace:
        made = TestNamespace()
        self._undo.callback(made.close)
        return made

    def _purge(self) -> None:
        with contextlib.closing(self.datapath()) as datapath:
            datapath.purge()
        pins = self.run_dir / "netns"
        assert not pins.exists() or not os.listdir(pins)


def write_state(datapath: BridgeDatapath, state: State) -> dict[Key, Exception]:
    """The naive reconcile: lower everything, read everything, write the difference; the errors."""
    world = World(state.here.host)
    world.set_here(state.here.vtep4, state.here.vtep6)
    world.apply(*Feed().snapshot(state))
    desired = lower_all(datapath, world.units(), world.context())
    there = datapath.read()
    return datapath.write(diff(desired, there, desired.keys() | there.keys(), datapath))
