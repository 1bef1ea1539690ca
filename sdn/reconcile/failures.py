"""Failure is data: what each unit's last attempt said, since when, and when it is tried again."""

from __future__ import annotations

import dataclasses
import math

from sdn.reconcile.unit import UnitKey

LEFTOVER: UnitKey = ("tenant", "unknown")
"""Blamed for what is ours in the kernel, belongs to no unit and cannot be removed."""
BACK_OFF_S = (0.05, 0.2, 0.8, 3.0)
"""The pause before each round of retries; further rounds take the last."""


def text_of(error: Exception) -> str:
    """An error as a sentence for a report."""
    return str(error) or type(error).__name__


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """`text` is a sentence; `since_s` is when the unit began to fail, by the loop's clock."""

    text: str
    since_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class _Retry:
    rounds: int
    due_s: float


class Failures:
    """A unit is tried again at most `rounds_max` times after a change of it; then only by the periodic read."""

    def __init__(self, rounds_max: int) -> None:
        self.by_unit: dict[UnitKey, Failure] = {}
        self._rounds_max = rounds_max
        self._retries: dict[UnitKey, _Retry] = {}

    def note(self, unit: UnitKey, text: str, now_s: float, *, retry: bool, last: bool) -> None:
        """An attempt failed: a retry, or the attempt for a change; `last`: trying again cannot help."""
        known = self.by_unit.get(unit)
        self.by_unit[unit] = Failure(text, known.since_s if known else now_s)
        before = self._retries.pop(unit, None)
        rounds = before.rounds + 1 if retry and before else 0
        exhausted = retry and ((before is None and known is not None) or rounds >= self._rounds_max)
        if not last and not exhausted:
            self._retries[unit] = _Retry(rounds, now_s + BACK_OFF_S[min(rounds, len(BACK_OFF_S) - 1)])

    def clear(self, unit: UnitKey) -> None:
        """The unit is as it should be."""
        self.by_unit.pop(unit, None)
        self._retries.pop(unit, None)

    def due(self, now_s: float) -> set[UnitKey]:
        """The units to try again now."""
        return {unit for unit, retry in self._retries.items() if retry.due_s <= now_s}

    @property
    def due_s(self) -> float:
        """When the next unit is due; infinite: none is."""
        return min((retry.due_s for retry in self._retries.values()), default=math.inf)

    @property
    def latest_due_s(self) -> float:
        """When the last of the waiting units is due; minus infinite: none waits."""
        return max((retry.due_s for retry in self._retries.values()), default=-math.inf)
