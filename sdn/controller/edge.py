"""What the sockets need beside the core."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

from sdn.controller.core import Core
from sdn.controller.metrics import Metrics
from sdn.model.ids import TenantId


@dataclasses.dataclass(slots=True)
class Edge:
    """`fingerprint` and `controllers` (URLs) are what a host's credential tells it; `ready` is what /readyz says."""

    core: Core
    fingerprint: str
    log: Any
    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    controllers: tuple[str, ...] = ()
    ready: bool = False
    event_streams: collections.Counter[TenantId | None] = dataclasses.field(default_factory=collections.Counter)
    """Open ones, by tenant; None: the administrators'."""
