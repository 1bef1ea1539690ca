"""What the sockets need beside the core."""

from __future__ import annotations

import dataclasses
from typing import Any

from sdn.controller.core import Core
from sdn.controller.metrics import Metrics


@dataclasses.dataclass(slots=True)
class Edge:
    """`fingerprint` and `controllers` (URLs) are what a host's credential tells it; `ready` is what /readyz says."""

    core: Core
    fingerprint: str
    log: Any
    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    controllers: tuple[str, ...] = ()
    ready: bool = False
    event_streams: int = 0
