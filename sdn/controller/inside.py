"""Errors that tell of what is behind the tenants: hosts, other tenants' numbers."""

from __future__ import annotations

from sdn.model.errors import HawseError


class InsideError(HawseError):
    """For administrators as it is; `outside` is what a tenant's user is told instead, by `Scope`."""

    def __init__(self, inside: HawseError, outside: HawseError) -> None:
        super().__init__(inside.kind, inside.message, hint=inside.hint, facts=inside.facts)
        self.outside = outside
