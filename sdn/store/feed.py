"""The feed: the newest changes in memory, and whoever waits for the next one.

A watcher near the head is served from here, without a thread or a read; one that lags reads the log. Revisions have no
gaps, so a position in the tail is arithmetic.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from sdn.model.ids import Revision
from sdn.store.interface import Change, CompactedError, Put

TAIL_CHANGES_MAX = 1024
"""Enough for a watcher that is busy for a second or two; one that lags more reads the log."""
TAIL_BYTES_MAX = 4 << 20

ReadChanges = Callable[[Revision, int], Awaitable[Sequence[Change]]]


class Feed:
    """Used on the event loop's thread only. `floor`: the lowest revision whose change is kept, here or in the log."""

    def __init__(self, head: Revision, floor: Revision) -> None:
        self._head = head
        self._floor = floor
        self._tail: deque[Change] = deque()
        self._tail_bytes = 0
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def head(self) -> Revision:
        """The newest revision that was published."""
        return self._head

    def publish(self, changes: Sequence[Change], floor: Revision) -> None:
        """Append the changes that follow the head, forget those below the floor, wake whoever waits."""
        self._floor = floor
        for change in changes:
            assert change.revision == self._head + 1, (change.revision, self._head)
            self._head = change.revision
            self._tail.append(change)
            self._tail_bytes += _size(change)
        while self._tail and (
            len(self._tail) > TAIL_CHANGES_MAX or self._tail_bytes > TAIL_BYTES_MAX or self._tail[0].revision < floor
        ):
            self._tail_bytes -= _size(self._tail.popleft())
        if changes:
            self._wake()

    def after(self, since: Revision, limit: int) -> list[Change] | None:
        """Changes above `since`, at most `limit`; None if they are not all in memory. Raises: CompactedError."""
        if since + 1 < self._floor:
            raise CompactedError(since, self._floor)
        missing = self._head - since
        if missing <= 0:
            return []
        if missing > len(self._tail):
            return None
        return [self._tail[index] for index in range(-missing, min(0, limit - missing))]

    async def watch(self, since: Revision, read: ReadChanges, limit: int = 1000) -> AsyncIterator[Change]:
        """Changes above `since`, for ever; ends when the feed is closed. Raises: CompactedError."""
        position = since
        while not self._closed:
            for change in await read(position, limit):
                yield change
                position = change.revision
            while self._head <= position and not self._closed:
                await self._changed.wait()

    def close(self) -> None:
        """End every watch. What was published is given to nobody any more."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _size(change: Change) -> int:
    return len(change.note) + sum(len(write.value) for write in change.writes if isinstance(write, Put))
