"""`/v1/tokens`."""

from __future__ import annotations

from typing import Any

import msgspec

from sdn.controller.keys import TokenRecord
from sdn.controller.plan_tokens import TokenState, resolve_token, state_of
from sdn.controller.principal import Role
from sdn.controller.query import PAGE
from sdn.controller.route import Call, Reply, Route
from sdn.controller.specs import TokenSpec
from sdn.controller.view import Page, page_of
from sdn.model.ids import TenantId
from sdn.model.token import TokenKind


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """A token, but for its word. Times are seconds since the epoch; 0: never."""

    id: str
    kind: TokenKind
    state: TokenState
    name: str
    role: Role | None
    tenant: TenantId | None
    tenant_name: str
    created_s: float
    created_by: str
    expires_s: float
    used_s: float
    used_by: str
    revoked_s: float
    revision: int


class CreatedToken(TokenView, frozen=True, kw_only=True):
    """A new token with its word, which is shown this once, and where (`controllers`: URLs) it is good for."""

    word: str
    fingerprint: str
    controllers: tuple[str, ...]


async def list_tokens(call: Call) -> Reply:
    """Every token that is kept, also those that can be used no more."""
    found = call.core.admission.tokens()
    return Reply(page_of(call.core, call.query, found, lambda record: TokenView(**_fields(call, record))))


async def create_token(call: Call) -> Reply:
    """A new one."""
    token, record, revision = await call.core.admission.create_token(call.body, call.edge.fingerprint, call.actor)
    created = CreatedToken(
        **_fields(call, record),
        word=str(token),
        fingerprint=token.fingerprint,
        controllers=call.edge.controllers,
    )
    return Reply(created, 201, revision)


async def get_token(call: Call) -> Reply:
    """One, by its id or name."""
    view = TokenView(**_fields(call, resolve_token(call.core.state, call.reference)))
    return Reply(view, etag=call.core.state.revision_of("token", view.id))


async def revoke_token(call: Call) -> Reply:
    """It proves nothing from now on, and what it has open ends."""
    _, revision = await call.core.admission.revoke_token(call.reference, call.actor)
    return Reply(None, 204, revision)


def _fields(call: Call, record: TokenRecord) -> dict[str, Any]:
    state = call.core.state
    kept = {
        name: value for name, value in msgspec.structs.asdict(record).items() if name not in ("secret_sha256", "role")
    }
    tenant = state.tenants.get(record.tenant) if record.tenant else None
    return kept | {
        "state": state_of(state, record, call.core.admission.now_s()),
        "role": record.role if record.kind is TokenKind.USER else None,
        "tenant_name": tenant.name if tenant is not None else "",
        "revision": state.revision_of("token", record.id),
    }


ONE = "/v1/tokens/{reference}"
ROUTES = (
    Route("GET", "/v1/tokens", list_tokens, "list tokens, without their words", Page[TokenView], query=PAGE),
    Route("POST", "/v1/tokens", create_token, "make a token", CreatedToken, TokenSpec, statuses=(201,)),
    Route("GET", ONE, get_token, "show a token, without its word", TokenView),
    Route("DELETE", ONE, revoke_token, "revoke a token; what it has open ends", statuses=(204,)),
)
