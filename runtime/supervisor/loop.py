"""The event loop: one thread, epoll, a table from descriptor to whoever is told. Nothing in it waits for anything else.

What can be done after the answer (`later`) is done when nothing is ready, and at the latest when much of it waits.
"""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Handler(Protocol):
        """Whoever has a descriptor in the table."""

        def ready(self, fd: int, events: int) -> None:
            """Something is to be done with it. It may be stale: never block."""


READ = select.EPOLLIN
WRITE = select.EPOLLOUT
WENT = select.EPOLLHUP | select.EPOLLERR
LATER_MAX = 64
"""So much put off work is let wait while requests come; then one of it is done each round."""


class Loop:
    """`watch`, `run`, `stop`."""

    __slots__ = ("_due", "_epoll", "_later", "_stopped", "_table")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._table: dict[int, Handler] = {}
        self._later: list[tuple[Callable[[Any], None], Any]] = []
        self._due: list[tuple[float, Callable[[Any], None], Any]] = []
        self._stopped = False

    def watch(self, fd: int, handler: Handler, events: int = READ) -> None:
        """Tell `handler` when `fd` is ready; WENT is always told. Again: other events."""
        if fd in self._table:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._table[fd] = handler

    def unwatch(self, fd: int) -> None:
        """Do this before closing it; absent is fine."""
        if self._table.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, work: Callable[[Any], None], subject: Any) -> None:
        """Do `work(subject)` when there is time."""
        self._later.append((work, subject))

    def after(self, delay_s: float, work: Callable[[Any], None], subject: Any) -> None:
        """Do `work(subject)` then. Rare: there is no heap."""
        self._due.append((time.monotonic() + delay_s, work, subject))

    def stop(self) -> None:
        """Return from `run` after this round."""
        self._stopped = True

    def run(self) -> None:
        """Until `stop`."""
        table, poll = self._table, self._epoll.poll
        while not self._stopped:
            ready = poll(self._timeout())
            for fd, events in ready:
                handler = table.get(fd)
                if handler is not None:  # None: one that was ready in the same round closed it
                    handler.ready(fd, events)
            if self._later and (not ready or len(self._later) > LATER_MAX):
                work, subject = self._later.pop(0)
                work(subject)
            if self._due:
                self._run_due()

    def finish(self) -> None:
        """What was put off, now: before the process ends."""
        while self._later:
            work, subject = self._later.pop(0)
            work(subject)

    def close(self) -> None:
        """Close what it waits by."""
        self._epoll.close()
        self._table.clear()

    def _timeout(self) -> float:
        if self._later:
            return 0.0
        if self._due:
            return max(0.0, min(due for due, _, _ in self._due) - time.monotonic())
        return -1.0

    def _run_due(self) -> None:
        now = time.monotonic()
        due = [entry for entry in self._due if entry[0] <= now]
        self._due = [entry for entry in self._due if entry[0] > now]
        for _, work, subject in due:
            work(subject)
