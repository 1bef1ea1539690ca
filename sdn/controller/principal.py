"""Who asks, and what a route asks of them."""

from __future__ import annotations

import dataclasses
import enum

from sdn.model.ids import HostId, TenantId


class Role(enum.StrEnum):
    """What a user token allows."""

    ADMIN = "admin"
    TENANT = "tenant"


class Access(enum.Enum):
    """Who may call a route. What is not said is ADMIN: a new route is closed until somebody thinks about it."""

    ANYONE = "anyone"
    """Without a credential; such a route tells nothing and changes nothing, but for what its own body proves."""
    HOST = "host"
    """A host, about itself; nobody else."""
    TENANT = "tenant"
    """Users of a tenant, within it, and administrators. The handler sees through `ScopedCall.scope` alone."""
    ADMIN = "admin"


@dataclasses.dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `actor` is the name for the audit; at most one of `role` and `host` is set, neither is nobody.

    `tenant` is the one that role tenant is confined to; `token` is the id of the token that proved it.
    """

    actor: str
    role: Role | None = None
    tenant: TenantId | None = None
    host: HostId | None = None
    token: str = ""

    def may(self, access: Access) -> bool:
        """Whether a route of this access is open to them."""
        match access:
            case Access.ANYONE:
                return True
            case Access.HOST:
                return self.host is not None
            case Access.TENANT:
                return self.role is not None
            case Access.ADMIN:
                return self.role is Role.ADMIN
