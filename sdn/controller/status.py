"""How far each host is."""

from __future__ import annotations

import enum

from sdn.model.ids import HostId
from sdn.model.resources import Value


class Step(enum.StrEnum):
    """Where a host is with a revision."""

    APPLIED = "applied"
    FAILED = "failed"
    NOT_CONNECTED = "not-connected"
    LATE = "late"


class HostState(Value, frozen=True, kw_only=True):
    """One host. `failures`: unit (`endpoint/ID`) -> sentence. `state` is None unless a revision was asked about."""

    id: HostId
    name: str
    connected: bool
    applied_revision: int
    failures: dict[str, str] = {}
    state: Step | None = None


class Status(Value, frozen=True, kw_only=True):
    """The fleet as of a revision."""

    revision: int
    hosts: tuple[HostState, ...]
