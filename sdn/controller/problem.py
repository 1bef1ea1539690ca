"""Errors as this edge shows them: problem documents (RFC 9457), and the one table from kinds to statuses."""

from __future__ import annotations

import http
from typing import Any

import msgspec

from sdn.model.credential_text import hide_credentials
from sdn.model.errors import HawseError, Kind

CONTENT_TYPE = "application/problem+json"

STATUSES: dict[Kind, int] = {
    Kind.INVALID: 400,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.EXHAUSTED: 409,  # the state refuses, not the server: a 5xx would page somebody for a full subnet
    Kind.UNAVAILABLE: 503,
    Kind.DENIED: 403,
    Kind.INTERNAL: 500,
}

KINDS: dict[int, Kind] = {
    400: Kind.INVALID,
    401: Kind.DENIED,
    403: Kind.DENIED,
    404: Kind.NOT_FOUND,
    405: Kind.INVALID,
    408: Kind.UNAVAILABLE,
    412: Kind.CONFLICT,
    413: Kind.INVALID,
    414: Kind.INVALID,
    415: Kind.INVALID,
    426: Kind.INVALID,
    429: Kind.UNAVAILABLE,
    431: Kind.INVALID,
    503: Kind.UNAVAILABLE,
}
"""The kind of a refusal that has a status of its own; any other below 500 is invalid, from 500 internal."""


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What every error looks like. `type` is `urn:hawse:problem:KIND`; `facts` are the numbers of the sentence."""

    type: str
    title: str
    status: int
    detail: str
    kind: str
    hint: str
    facts: dict[str, Any]


class RefusedError(HawseError):
    """An error whose HTTP status is more exact than its kind's, with headers that go with it (Allow …)."""

    def __init__(
        self, status: int, message: str, hint: str = "", *, headers: dict[str, str] | None = None, **facts: Any
    ) -> None:
        super().__init__(kind_of(status), message, hint=hint, facts=facts)
        self.status = status
        self.headers = headers or {}


def kind_of(status: int) -> Kind:
    """The kind that a status stands for."""
    return KINDS.get(status, Kind.INTERNAL if status >= 500 else Kind.INVALID)


def status_of(error: HawseError, conditional: bool) -> int:
    """The status of an error; `conditional`: the request had If-Match.

    A conflict that names the revision found is then the failed precondition (RFC 9110, section 13.1.1).
    """
    if isinstance(error, RefusedError):
        return error.status
    if conditional and error.kind is Kind.CONFLICT and "found" in error.facts and "expected" in error.facts:
        return 412
    return STATUSES[error.kind]


def problem_document(error: HawseError, status: int) -> ProblemDocument:
    """The document of an error. It repeats what was sent, but for credentials: their place is a header."""
    return ProblemDocument(
        type=f"urn:hawse:problem:{error.kind.value}",
        title=http.HTTPStatus(status).phrase,
        status=status,
        detail=_shown(error.message),
        kind=error.kind.value,
        hint=error.hint,
        facts={key: _shown(value) if isinstance(value, str) else value for key, value in error.facts.items()},
    )


def _shown(text: str) -> str:
    return hide_credentials(_encodable(text))


def _encodable(text: str) -> str:
    """Bytes of a request that are not UTF-8 came as lone surrogates, and a sentence may repeat them."""
    return text.encode(errors="replace").decode()


def internal_error() -> HawseError:
    """What a user sees of a fault of ours: nothing of its inside."""
    return HawseError(Kind.INTERNAL, "the controller failed to handle this request", hint="its log has the reason")
