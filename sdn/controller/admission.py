"""Who is let in: tokens made, shown and ended, and machines that become hosts by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sdn.controller import plan_join, plan_tokens
from sdn.controller.keys import TokenRecord
from sdn.controller.ledger import Ledger
from sdn.controller.open_requests import OpenRequests
from sdn.controller.plan_credentials import new_secret
from sdn.controller.principal import Principal
from sdn.controller.specs import JoinSpec, TokenSpec
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import HostId, Revision, TenantId
from sdn.model.resources import Host
from sdn.model.token import ID_BYTES, SECRET_BYTES, Token, TokenKind, parse_token, token_id


class Admission:
    """A part of the core. `requests`: what each token has open; it ends with the token."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Callable[[], float],
        random_bits: Callable[[int], int],
        ids: Callable[[], str],
    ) -> None:
        self.requests = OpenRequests()
        self._ledger = ledger
        self._clock = clock
        self._random_bits = random_bits
        self._ids = ids

    def now_s(self) -> float:
        """Seconds since the epoch, as of the controller's clock."""
        return self._clock()

    def user(self, word: str, fingerprint: str) -> Principal:
        """Whose user token this is. `fingerprint`: of this controller's authority.

        Raises: INVALID (no token, cut …); UnprovenError; DENIED, saying why a genuine one is refused.
        """
        token = parse_token(word, TokenKind.USER)
        record = plan_tokens.prove(self._ledger.state, token, self._clock(), fingerprint)
        return Principal(plan_tokens.actor_of_token(record), record.role, record.tenant, token=record.id)

    def left_s(self, token: str) -> float | None:
        """How long a token can still be used; None: until it is revoked."""
        record = self._ledger.state.tokens.get(token)
        return max(0.0, record.expires_s - self._clock()) if record is not None and record.expires_s else None

    async def create_token(self, spec: TokenSpec, fingerprint: str, actor: str) -> tuple[Token, TokenRecord, Revision]:
        """A new token; its word is nowhere but in what this returns. Raises: as plan_tokens.create_token."""
        id_ = token_id(self._random_bits(ID_BYTES * 8))
        while id_ in self._ledger.state.tokens:
            id_ = token_id(self._random_bits(ID_BYTES * 8))
        secret = f"{self._random_bits(SECRET_BYTES * 8):0{SECRET_BYTES * 2}x}"
        token = Token(spec.kind, fingerprint, id_, secret)
        record, revision = await self._ledger.write(
            lambda state: plan_tokens.create_token(state, spec, token, self._clock(), actor), actor
        )
        return token, record, revision

    async def join(self, spec: JoinSpec, fingerprint: str) -> tuple[Host, str, Revision]:
        """A new host, with its secret; the token is used up. Of two with one token, one wins. Raises: as plan_join."""
        token = parse_token(spec.token, TokenKind.JOIN)
        id_, secret = HostId(self._ids()), new_secret(self._random_bits)
        record = self._ledger.state.tokens.get(token.id)
        actor = plan_tokens.actor_of_token(record) if record is not None else ""
        host, revision = await self._ledger.write(
            lambda state: plan_join.join(state, spec, token, id_, secret, self._clock(), fingerprint), actor
        )
        return host, secret, revision

    async def revoke_token(self, reference: str, actor: str) -> tuple[TokenRecord | None, Revision]:
        """It proves nothing from now on, and what it has open ends. Absent is fine (None)."""
        try:
            record, revision = await self._ledger.write(
                lambda state: plan_tokens.revoke_token(state, reference, self._clock(), actor), actor
            )
        except HawseError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return None, self._ledger.state.revision
        self.requests.end(record.id)
        return record, revision

    def tenant_removed(self, tenant: TenantId) -> None:
        """What the tenant's tokens have open ends."""
        for record in self.tokens():
            if record.tenant == tenant:
                self.requests.end(record.id)

    def tokens(self) -> Iterable[TokenRecord]:
        """All that are kept."""
        return self._ledger.state.tokens.values()
