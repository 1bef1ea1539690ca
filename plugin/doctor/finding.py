"""A finding, and all of them as one document."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any


class Verdict(enum.StrEnum):
    """From harmless to harmful. `unknown`: it could not be looked at, and `found` says why."""

    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One check's verdict.

    `check`: its name, one for all findings of a matter; `found`: what is there; `follows`: what that does to the
    user's network; `remedy`: what to type, a line each. `facts`: numbers and names, for programs.
    """

    check: str
    verdict: Verdict
    found: str
    follows: str = ""
    remedy: tuple[str, ...] = ()
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def ok(check: str, found: str, **facts: Any) -> Finding:
    """All is well."""
    return Finding(check, Verdict.OK, found, facts=facts)


def unknown(check: str, found: str, *remedy: str, **facts: Any) -> Finding:
    """It could not be looked at."""
    return Finding(check, Verdict.UNKNOWN, found, remedy=remedy, facts=facts)


def warning(check: str, found: str, follows: str, *remedy: str, **facts: Any) -> Finding:
    """It works now, or may."""
    return Finding(check, Verdict.WARNING, found, follows, remedy, facts)


def problem(check: str, found: str, follows: str, *remedy: str, **facts: Any) -> Finding:
    """It does not work."""
    return Finding(check, Verdict.PROBLEM, found, follows, remedy, facts)


_ORDER = list(Verdict)


def worst(findings: Sequence[Finding]) -> Verdict:
    """The verdict on all: the worst of them; what could not be looked at is no fault."""
    verdicts = [finding.verdict for finding in findings if finding.verdict is not Verdict.UNKNOWN]
    return max(verdicts, key=_ORDER.index, default=Verdict.OK)


def document(host: str, findings: Sequence[Finding]) -> dict[str, Any]:
    """What `-o json` prints; fields are added, never taken away or given another meaning.

    {"host": name or "", "verdict": "ok" | "warning" | "problem", "counts": {verdict: number}, "findings": [{"check",
    "verdict": "ok" | "unknown" | "warning" | "problem", "found", "follows", "remedy": [line], "facts": {}}]}
    """
    return {
        "host": host,
        "verdict": worst(findings).value,
        "counts": {
            verdict.value: sum(finding.verdict is verdict for finding in findings) for verdict in reversed(Verdict)
        },
        "findings": [
            {**dataclasses.asdict(finding), "verdict": finding.verdict.value, "remedy": list(finding.remedy)}
            for finding in findings
        ],
    }
