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
    resources.Datapath.OPENFLOW: "plugin.datapath.openflow.datapath:OpenflowDatapath",
}


def make(kind: resources.Datapath, run_dir: Path, ovsdb: Path | None = None) -> Datapath:
    """The datapath of this host.

    `run_dir`: the agent's run directory. `ovsdb`: the socket of Open vSwitch's database, if it is not where packages
    have it. Raises: INVALID where there is no such datapath; UNAVAILABLE, CONFLICT where it cannot be had here.
    """
    place = FACTORIES.get(kind)
    if place is None:
        known = ", ".join(sorted(FACTORIES))
        raise invalid(f"there is no datapath {kind.value!r} on hosts", f"use one of: {known}")
    module, _, name = place.partition(":")
    factory: Callable[..., Datapath] = getattr(importlib.import_module(module), name)
    if ovsdb is None:
        return factory(run_dir)
    if kind is not resources.Datapath.OPENFLOW:
        raise invalid(
            f"--ovsdb is of no use with the {kind.value} datapath", "leave it out, or use --datapath openflow"
        )
    return factory(run_dir, database=ovsdb)
