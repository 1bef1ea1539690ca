"""What happened, for who asks later and for who listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from runtime.daemon.ring import Ring
from sdn.model.codec import Decoder
from sdn.model.runtime import Event

KEEP = 1000
QUEUE_MAX = 2 * KEEP
"""Of a listener that does not listen: what it has not taken by then is lost to it."""

_decoder: Decoder[Event] = Decoder(Event, "an event")


class Events:
    """`note` what happened; `listen` to what happens."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._ring: Ring[Event] = Ring(path, _decoder, KEEP)
        self._clock = clock
        self._listeners: set[asyncio.Queue[Event]] = set()

    def note(self, what: str, container: str, name: str = "", **facts: str | int) -> None:
        """It happened now."""
        event = Event(time_s=self._clock(), what=what, id=container, name=name, facts=facts)
        self._ring.add(event)
        for queue in self._listeners:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(event)

    async def listen(self, since_s: float | None, follow: bool, container: str = "") -> AsyncGenerator[Event, None]:
        """Those kept from `since_s` on, then, with `follow`, each as it happens. `container`: an id, or all."""
        queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_MAX)
        if follow:
            self._listeners.add(queue)
        try:
            kept = [] if since_s is None else [event for event in self._ring.values if event.time_s >= since_s]
            for event in kept:
                if not container or event.id == container:
                    yield event
            while follow:
                event = await queue.get()
                if not container or event.id == container:
                    yield event
        finally:
            self._listeners.discard(queue)

    def close(self) -> None:
        """Let go of the file."""
        self._ring.close()
