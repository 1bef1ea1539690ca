"""A bell: wakes everybody who waits when it rings; nobody is owed a ring that came before."""

from __future__ import annotations

import asyncio


class Bell:
    """Take `next` before looking at what it announces, then await it: no ring is missed."""

    def __init__(self) -> None:
        self._next: asyncio.Event = asyncio.Event()

    @property
    def next(self) -> asyncio.Event:
        """Set at the next ring."""
        return self._next

    def ring(self) -> None:
        """Wake everybody."""
        rung, self._next = self._next, asyncio.Event()
        rung.set()
