"""What each token has open: events that are followed, waits. They end with the token, at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class EndedError(Exception):
    """The token of this request can be used no more: it was revoked (or its tenant removed), or its time is up."""


class OpenRequests:
    """Requests by the id of their token."""

    def __init__(self) -> None:
        self._open: dict[str, dict[asyncio.Timeout, asyncio.Task[object] | None]] = {}

    def __len__(self) -> int:
        """How many requests are open."""
        return sum(map(len, self._open.values()))

    @contextlib.asynccontextmanager
    async def under(self, token: str, left_s: float | None) -> AsyncIterator[None]:
        """Do what the token allows, for at most `left_s` (None: without end). Raises: EndedError."""
        try:
            async with asyncio.timeout(left_s) as scope:
                mine = self._open.setdefault(token, {})
                mine[scope] = asyncio.current_task()
                try:
                    yield
                finally:
                    del mine[scope]
                    if not mine:
                        self._open.pop(token, None)
        except TimeoutError:
            if scope.expired():
                raise EndedError from None
            raise

    def end(self, token: str) -> None:
        """End all of a token's requests, but for the one that asks for it."""
        now_s = asyncio.get_running_loop().time()
        for scope, task in self._open.get(token, {}).items():
            if task is not asyncio.current_task():
                scope.reschedule(now_s)
