"""Plans for tokens, and what is wrong with one that is shown: pure functions of the state, the time and the word.

A record holds the hash of the whole word, so that every part of it (kind, fingerprint, id, secret) is what was made. A
token whose tenant was removed is worth nothing from that moment, without a write: ids of tenants are not used again.
"""

from __future__ import annotations

import datetime
import enum
import hashlib
import hmac

import msgspec

from sdn.controller import keys
from sdn.controller.keys import TokenRecord
from sdn.controller.plan import Draft, Plan, nothing
from sdn.controller.principal import Role
from sdn.controller.specs import TokenSpec
from sdn.controller.state import State
from sdn.model.errors import HawseError, Kind, conflict, denied, exhausted, invalid, not_found
from sdn.model.ids import TenantId, parse_name
from sdn.model.token import Token, TokenKind

JOIN_TTL_S = 3600.0
DAY_S = 86400.0
JOIN_TTL_MAX_S = 30 * DAY_S
"""A join token makes whoever finds it a host: it must end by itself."""
USER_TTL_MAX_S = 3650 * DAY_S
KEPT_S = 30 * DAY_S
"""How long a token that can be used no more is kept, so that who tries is told why."""
PURGE_MAX = 16
"""Records that are removed with each creation: more than are made, so they cannot pile up."""
TOKENS_MAX = 10_000
"""All of them are in memory."""
UNKNOWN_HINT = "make a new one on the controller's machine: hawse token create"
_NO_HASH = bytes(32)


class TokenState(enum.StrEnum):
    """Whether a token can be used, and why not."""

    USABLE = "usable"
    USED = "used"
    REVOKED = "revoked"
    EXPIRED = "expired"
    TENANT_REMOVED = "tenant-removed"


class UnprovenError(HawseError):
    """DENIED, of a credential whose secret is not right: it may be a guess. Says alike what it is that does not fit."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(Kind.DENIED, message, hint=hint)


def word_sha256(token: Token) -> bytes:
    """What is kept of a word. Its secret has 128 random bits, so that neither salt nor stretching adds anything."""
    return hashlib.sha256(str(token).encode()).digest()


def state_of(state: State, record: TokenRecord, now_s: float) -> TokenState:
    """Whether a token can be used at `now_s` (seconds since the epoch)."""
    if record.used_s:
        return TokenState.USED
    if record.revoked_s:
        return TokenState.REVOKED
    if record.tenant is not None and record.tenant not in state.tenants:
        return TokenState.TENANT_REMOVED
    if record.expires_s and now_s >= record.expires_s:
        return TokenState.EXPIRED
    return TokenState.USABLE


def actor_of_token(record: TokenRecord) -> str:
    """The name of who acts by a token, for the audit."""
    return f"token:{record.name or record.id}"


# --- showing one ---


def prove(state: State, token: Token, now_s: float, fingerprint: str) -> TokenRecord:
    """The record of a genuine token that can be used. `fingerprint`: of this controller's authority.

    Raises: UnprovenError, alike (in time, too) for an unknown id and a wrong secret; DENIED, with the reason, where the
    word is right.
    """
    record = state.tokens.get(token.id)
    kept = record.secret_sha256 if record is not None else _NO_HASH
    genuine = hmac.compare_digest(kept, word_sha256(token))
    if record is None or not genuine:
        if token.fingerprint != fingerprint:
            raise UnprovenError(
                f"this {token.kind} token is another controller's: it was made by {token.fingerprint}, "
                f"this one is {fingerprint}",
                "use it with the controller that made it, or make one here: hawse token create",
            )
        raise UnprovenError(f"this {token.kind} token is not known here", UNKNOWN_HINT)
    match state_of(state, record, now_s):
        case TokenState.USED:
            told = f"was used by host {record.used_by} at {moment(record.used_s)}"
        case TokenState.REVOKED:
            told = f"was revoked at {moment(record.revoked_s)}"
        case TokenState.EXPIRED:
            told = f"expired at {moment(record.expires_s)}; here it is {moment(now_s)}"
        case TokenState.TENANT_REMOVED:
            told = "is of a tenant that was removed"
        case TokenState.USABLE:
            return record
    raise denied(f"this {record.kind} token {told}", UNKNOWN_HINT, token=record.id)


def moment(time_s: float) -> str:
    """A time as people compare it, in UTC."""
    return f"{datetime.datetime.fromtimestamp(time_s, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


# --- making and ending ---


def create_token(state: State, spec: TokenSpec, token: Token, now_s: float, actor: str) -> Plan[TokenRecord]:
    """Keep a new token's hash, and remove some records that are old.

    Raises: INVALID; NOT_FOUND (tenant); CONFLICT where a usable token has the name; EXHAUSTED.
    """
    record = TokenRecord(
        id=token.id,
        kind=token.kind,
        name=parse_name(spec.name, "token") if spec.name else "",
        role=spec.role or Role.ADMIN,
        tenant=_tenant_of(state, spec),
        secret_sha256=word_sha256(token),
        created_s=now_s,
        created_by=actor,
        expires_s=_expiry(spec, now_s),
    )
    draft = Draft(state, actor)
    purged = _purge(draft, state, now_s)
    _free_name(draft, state, record.name, purged, now_s)
    if len(state.tokens) - len(purged) >= TOKENS_MAX:
        raise exhausted(f"there are {len(state.tokens)} tokens", "revoke some: hawse token ls", limit=TOKENS_MAX)
    if record.tenant is not None:
        draft.unchanged("tenant", record.tenant)
    draft.create(keys.token(record.id), record)
    if record.name:
        draft.create(keys.token_name(record.name), record.id)
    draft.happen("token.created", **_told(record), expires_s=record.expires_s)
    return draft.plan(record)


def _tenant_of(state: State, spec: TokenSpec) -> TenantId | None:
    if spec.kind is TokenKind.JOIN:
        if spec.role is not None or spec.tenant:
            raise invalid("a join token has no role and no tenant", "leave them out, or make a token of kind user")
        return None
    if spec.role is None:
        raise invalid("a user token needs a role", "its role is admin, or tenant with a tenant")
    if (spec.role is Role.TENANT) is not bool(spec.tenant):
        wrong = "names no tenant" if spec.role is Role.TENANT else f"is not confined to a tenant ({spec.tenant})"
        raise invalid(f"a token of role {spec.role} {wrong}", "role tenant goes with a tenant, role admin without")
    return state.resolve_tenant(spec.tenant).id if spec.tenant else None


def _expiry(spec: TokenSpec, now_s: float) -> float:
    join = spec.kind is TokenKind.JOIN
    ttl_s = spec.ttl_s if spec.ttl_s is not None else JOIN_TTL_S if join else 0.0
    most_s = JOIN_TTL_MAX_S if join else USER_TTL_MAX_S
    if not (0 < ttl_s <= most_s or (ttl_s == 0 and not join)):
        raise invalid(
            f"a {spec.kind} token cannot be usable for {_span(ttl_s)}",
            f"more than 0 s, and {_span(most_s)} at most" + ("" if join else "; 0: until it is revoked"),
            ttl_s=ttl_s,
            limit=most_s,
        )
    return now_s + ttl_s if ttl_s else 0.0


def _span(seconds: float) -> str:
    """As people say it: `30 days`, `1 s`."""
    return f"{seconds / DAY_S:g} days" if seconds >= DAY_S else f"{seconds:g} s"


def _purge(draft: Draft, state: State, now_s: float) -> set[str]:
    old = [record for record in state.tokens.values() if _is_old(state, record, now_s)][:PURGE_MAX]
    for record in old:
        _remove(draft, record)
    return {record.id for record in old}


def _is_old(state: State, record: TokenRecord, now_s: float) -> bool:
    match state_of(state, record, now_s):
        case TokenState.USED:
            ended_s = record.used_s
        case TokenState.REVOKED:
            ended_s = record.revoked_s
        case TokenState.EXPIRED:
            ended_s = record.expires_s
        case TokenState.TENANT_REMOVED:
            ended_s = record.created_s
        case TokenState.USABLE:
            return False
    return now_s - ended_s > KEPT_S


def _free_name(draft: Draft, state: State, name: str, purged: set[str], now_s: float) -> None:
    """A name is unique among what is kept; one that can be used no more makes way."""
    holder = next((one for one in state.tokens.values() if name and one.name == name and one.id not in purged), None)
    if holder is None:
        return
    if state_of(state, holder, now_s) is TokenState.USABLE:
        raise conflict(
            f"there is a token {name} already ({holder.id})",
            "choose another name, or revoke that one",
            name=name,
            token=holder.id,
        )
    _remove(draft, holder)


def _remove(draft: Draft, record: TokenRecord) -> None:
    draft.unchanged("token", record.id)
    draft.delete(keys.token(record.id))
    if record.name:
        draft.delete(keys.token_name(record.name))


def resolve_token(state: State, reference: str) -> TokenRecord:
    """By id or name. Raises: NOT_FOUND."""
    found = state.tokens.get(reference) or next((one for one in state.tokens.values() if one.name == reference), None)
    if found is None:
        raise not_found(f"there is no token {reference!r}", "see 'hawse token ls'", kind="token", reference=reference)
    return found


def revoke_token(state: State, reference: str, now_s: float, actor: str) -> Plan[TokenRecord]:
    """From now on it proves nothing. What can be used no more stays as it is. Raises: NOT_FOUND."""
    record = resolve_token(state, reference)
    if record.used_s or record.revoked_s:
        return nothing(record, state.revision_of("token", record.id))
    changed = msgspec.structs.replace(record, revoked_s=now_s)
    draft = Draft(state, actor)
    draft.unchanged("token", record.id)
    draft.put(keys.token(record.id), changed)
    draft.happen("token.revoked", **_told(record))
    return draft.plan(changed)


def use_token(draft: Draft, record: TokenRecord, host: str, host_name: str, now_s: float) -> None:
    """Part of a join: the token is used up, by this host."""
    draft.unchanged("token", record.id)
    draft.put(keys.token(record.id), msgspec.structs.replace(record, used_s=now_s, used_by=host_name))
    draft.happen("token.used", **_told(record), host=host, host_name=host_name)


def _told(record: TokenRecord) -> dict[str, str]:
    role = record.role.value if record.kind is TokenKind.USER else ""
    told = {"id": record.id, "name": record.name, "token_kind": record.kind.value, "role": role}
    return {**told, "of_tenant": record.tenant or ""}
