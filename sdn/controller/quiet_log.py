"""Warnings that strangers can cause, at a bounded rate: nobody fills the disk by knocking."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

EVERY_S = 10.0


class QuietLog:
    """The first of each event is said at once, then one in `every_s`, with how many were not said in between.

    Events are few (they are written in the code), so the table is.
    """

    def __init__(self, log: Any, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._every_s = every_s
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}

    def warning(self, event: str, **fields: Any) -> None:
        """Say it, or count it."""
        now_s = self._clock()
        last_s, unsaid = self._said.get(event, (-self._every_s, 0))
        if now_s - last_s < self._every_s:
            self._said[event] = last_s, unsaid + 1
            return
        self._said[event] = now_s, 0
        self._log.warning(event, **fields, **({"unsaid": unsaid} if unsaid else {}))
