"""Events: what happened, in order, resumable."""

from __future__ import annotations

from typing import Any

from sdn.model.resources import Value


class Event(Value, frozen=True, kw_only=True):
    """`id` is `revision.number`. Events of the change log are durable; soft ones (number from 100) are not.

    Kinds: tenant.created|updated|removed, network.created|updated|removed, host.created|connected|updated|forgotten,
    host.disconnected (soft), endpoint.attached|released, endpoint.late (soft). `data`: ids, names and reasons.
    """

    revision: int
    number: int
    kind: str
    time_s: float
    actor: str = ""
    data: dict[str, Any] = {}

    @property
    def id(self) -> str:
        """`revision.number`, as in Last-Event-ID."""
        return f"{self.revision}.{self.number}"
