"""Which datapath is made by what. One line each; imported when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from sdn.model import resources
from sdn.model.errors import invalid
from sdn.reconcile.datapath import Datapath

FACTORIES: dict[resources.Datapath, str] = {
    resources.Datapath.BRIDGE: "plugin.datapath.bridge.datapath:BridgeDatapath",
}


def make(kind: resources.Datapath, run_dir: Path) -> Datapath:
    """The datapath of this host. `run_dir`: the agent's run directory. Raises: INVALID where there is none such."""
    place = FACTORIES.get(kind)
    if place is None:
        known = ", ".join(sorted(FACTORIES))
        raise invalid(f"there is no datapath {kind.value!r} on hosts", f"use one of: {known}")
    module, _, name = place.partition(":")
    factory: Callable[[Path], Datapath] = getattr(importlib.import_module(module), name)
    return factory(run_dir)
