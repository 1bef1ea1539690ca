"""A host's kernel for a datapath: a namespace as the host's, a run directory, containers' namespaces."""

from __future__ import annotations

import abc
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from plugin.kernel import namespace
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import Datapath, Key, Sandbox
from sdn.reconcile.diff import diff
from sdn.reconcile.laws import lower_all
from sdn.reconcile.state import Feed, State
from sdn.reconcile.world import World
from tests.packet.namespaces import TestNamespace


class VethDatapath(Datapath, Protocol):
    """One of veths, which deletes in its own time."""

    def wait_removed(self, timeout_s: float) -> bool:
        """Wait until what was deleted is gone from the kernel too; False: it took longer."""


class HostSite(abc.ABC):
    """See sdn.reconcile.laws.Site. `here`: the host's namespace, made where none is given."""

    def __init__(self, here: TestNamespace | None = None) -> None:
        self._undo = contextlib.ExitStack()
        self.run_dir = Path(tempfile.mkdtemp(prefix="hwt-"))
        self._undo.callback(shutil.rmtree, self.run_dir)
        self.here = here or self._made()
        self._undo.callback(self._purge)
        self._sandboxes: dict[int, tuple[TestNamespace, Sandbox]] = {}

    @abc.abstractmethod
    def datapath(self) -> VethDatapath:
        """A new datapath object on this kernel."""

    @abc.abstractmethod
    def ports_place(self, tenant: str) -> Path:
        """Where the namespace is pinned that a tenant's host ends are in."""

    @abc.abstractmethod
    def expect_nothing_left(self) -> None:
        """Asserts it, after a purge."""

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
        self.expect_nothing_left()


def write_state(datapath: Datapath, state: State) -> dict[Key, Exception]:
    """The naive reconcile: lower everything, read everything, write the difference; the errors."""
    world = World(state.here.host)
    world.set_here(state.here.vtep4, state.here.vtep6)
    world.apply(*Feed().snapshot(state))
    desired = lower_all(datapath, world.units(), world.context())
    there = datapath.read()
    return datapath.write(diff(desired, there, desired.keys() | there.keys(), datapath))


@contextlib.contextmanager
def writing(site: HostSite) -> Iterator[VethDatapath]:
    """A datapath object of a site, without an agent."""
    with contextlib.closing(site.datapath()) as datapath:
        yield datapath
