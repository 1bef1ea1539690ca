"""Samples of two sides in turn, medians with spread, one table."""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

Sample = Callable[[], float]


class PeerMissingError(Exception):
    """A row cannot be measured: what it is measured against, or with, is not there. The text is a sentence."""


@dataclasses.dataclass(frozen=True)
class Missing:
    """A line of the table that could not be measured, and why."""

    slug: str
    reason: str

    def row(self) -> dict[str, object]:
        """As `build/bench.json` has it."""
        return {"slug": self.slug, "missing": self.reason}


@dataclasses.dataclass(frozen=True)
class Result:
    """One line of the table. `ratio` is ours / peer; `judged` is what the target is held against."""

    slug: str
    unit: str
    ours: float
    peer: float
    target: float
    better: Literal["lower", "higher"]
    spread: tuple[float, float]
    peer_name: str
    judged: float
    note: str = ""

    @property
    def ratio(self) -> float:
        """Ours against the peer."""
        return self.ours / self.peer if self.peer else float("inf")

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return self.judged <= self.target if self.better == "lower" else self.judged >= self.target

    def row(self) -> dict[str, object]:
        """As `build/bench.json` has it."""
        return {
            "slug": self.slug,
            "ours": round(self.ours, 4),
            "peer": round(self.peer, 4),
            "ratio": round(self.ratio, 4),
            "unit": self.unit,
            "target": self.target,
            "met": self.met,
            "spread": [round(value, 4) for value in self.spread],
            "peer_name": self.peer_name,
            **({"note": self.note} if self.note else {}),
        }


def timed(action: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1000


def interleave(ours: Sample, peer: Sample, rounds: int, warmup: int = 1) -> tuple[list[float], list[float]]:
    """`rounds` samples of each, in turn, the order swapped every round so that drift favours nobody."""
    mine: list[float] = []
    theirs: list[float] = []
    for index in range(-warmup, rounds):
        if index % 2:
            first, second = ours(), peer()
        else:
            second, first = peer(), ours()
        if index >= 0:
            mine.append(first)
            theirs.append(second)
    return mine, theirs


def compare(
    slug: str,
    samples: tuple[Sequence[float], Sequence[float]],
    *,
    unit: str,
    target: float,
    better: Literal["lower", "higher"] = "lower",
    peer_name: str,
    absolute: bool = False,
    note: str = "",
) -> Result:
    """Medians of both; the spread is the quartiles of the ratio, pair by pair (of ours, when `absolute` is judged)."""
    mine, theirs = samples
    ours, peer = statistics.median(mine), statistics.median(theirs)
    pairs = sorted(mine if absolute else (a / b for a, b in zip(mine, theirs, strict=True)))
    quarter = len(pairs) // 4
    spread = (pairs[quarter], pairs[len(pairs) - 1 - quarter])
    judged = ours if absolute else ours / peer
    return Result(slug, unit, ours, peer, target, better, spread, peer_name, judged, note)


def print_results(results: Sequence[Result | Missing]) -> None:
    """The table."""
    sign = {"lower": "≤", "higher": "≥"}
    print(f"{'row':<32}{'ours':>11}{'peer':>11}{'ratio':>8}{'spread':>16}{'target':>9}  met  peer")
    for r in results:
        if isinstance(r, Missing):
            print(f"{r.slug:<32}not measured: {r.reason}")
            continue
        spread = f"{r.spread[0]:.2f}–{r.spread[1]:.2f}"
        print(
            f"{r.slug:<32}{r.ours:>8.2f} {r.unit:<2}{r.peer:>8.2f} {r.unit:<2}{r.ratio:>8.2f}{spread:>16}"
            f"{sign[r.better]:>4}{r.target:<5g}  {'yes' if r.met else 'NO '}  {r.peer_name}"
        )
        if r.note:
            print(f"{'':<32}{r.note}")


def write_results(results: Sequence[Result | Missing], path: Path) -> None:
    """`build/bench.json`; rows of earlier runs that were not measured now are kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        rows = {row["slug"]: row for row in json.loads(path.read_text())}
    except (FileNotFoundError, ValueError):
        rows = {}
    rows.update({result.slug: result.row() for result in results})
    path.write_text(json.dumps(list(rows.values()), indent=1) + "\n")


def progress(text: str) -> None:
    """What is being measured now."""
    print(text, file=sys.stderr, flush=True)
