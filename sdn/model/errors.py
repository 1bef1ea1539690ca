"""One error type for everything that a user or a peer can cause, with a kind that every edge maps in one table."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any


class Kind(enum.StrEnum):
    """What went wrong, as a class of remedy."""

    INVALID = "invalid"  # the request itself is wrong: change it
    NOT_FOUND = "not-found"  # what it names is not there
    CONFLICT = "conflict"  # it contradicts what is there
    EXHAUSTED = "exhausted"  # a limit or a pool is used up
    UNAVAILABLE = "unavailable"  # somebody is away or too slow: try again
    DENIED = "denied"  # the caller may not
    INTERNAL = "internal"  # a fault of ours


class HawseError(Exception):
    """What was tried, on what, why it failed (`message`), and what to do about it (`hint`).

    `facts` are the numbers and names of the sentence, for programs: JSON values only.
    """

    def __init__(self, kind: Kind, message: str, *, hint: str = "", facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
        self.facts: dict[str, Any] = dict(facts or {})

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


def invalid(message: str, hint: str = "", **facts: Any) -> HawseError:
    """An INVALID error."""
    return HawseError(Kind.INVALID, message, hint=hint, facts=facts)


def not_found(message: str, hint: str = "", **facts: Any) -> HawseError:
    """A NOT_FOUND error."""
    return HawseError(Kind.NOT_FOUND, message, hint=hint, facts=facts)


def conflict(message: str, hint: str = "", **facts: Any) -> HawseError:
    """A CONFLICT error."""
    return HawseError(Kind.CONFLICT, message, hint=hint, facts=facts)


def exhausted(message: str, hint: str = "", **facts: Any) -> HawseError:
    """An EXHAUSTED error."""
    return HawseError(Kind.EXHAUSTED, message, hint=hint, facts=facts)


def unavailable(message: str, hint: str = "", **facts: Any) -> HawseError:
    """An UNAVAILABLE error."""
    return HawseError(Kind.UNAVAILABLE, message, hint=hint, facts=facts)


def denied(message: str, hint: str = "", **facts: Any) -> HawseError:
    """A DENIED error."""
    return HawseError(Kind.DENIED, message, hint=hint, facts=facts)
