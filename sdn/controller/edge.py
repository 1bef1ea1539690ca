"""What the sockets need beside the core."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from typing import Any

from sdn.controller.core import Core
from sdn.controller.custody import Trust
from sdn.controller.metrics import Metrics
from sdn.controller.quiet_log import QuietLog
from sdn.controller.throttle import Throttle
from sdn.controller.tls import Identity
from sdn.model.ids import TenantId


@dataclasses.dataclass(slots=True)
class Edge:
    """`controllers` (URLs) are what a host's credential tells it; `ready` is what /readyz says."""

    core: Core
    identity: Identity
    log: Any
    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    throttle: Throttle = dataclasses.field(default_factory=Throttle)
    controllers: tuple[str, ...] = ()
    ready: bool = False
    quiet: QuietLog = dataclasses.field(init=False)
    """For what strangers can cause."""
    event_streams: collections.Counter[TenantId | None] = dataclasses.field(default_factory=collections.Counter)
    """Open ones, by tenant; None: the administrators'."""

    def __post_init__(self) -> None:
        self.quiet = QuietLog(self.log)
        self.entrust()

    def entrust(self, actor: str = "") -> list[asyncio.Task[None]]:
        """Have hosts told whom to trust; to be called when that has changed. See custody.Custody."""
        trusted = self.identity.authority.trusted
        return self.core.custody.entrust(Trust(self.authority, tuple(one.fingerprint for one in trusted)), actor)

    @property
    def fingerprint(self) -> str:
        """What a token pins: the hash of the newest authority's certificate."""
        return self.identity.fingerprint

    @property
    def authority(self) -> str:
        """What a host verifies by: the certificates of all trusted authorities, in PEM."""
        return self.identity.bundle
