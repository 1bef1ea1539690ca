"""The spawners of one supervisor: one, and more while orders overlap. Who asks is told on the loop; nobody waits."""

from __future__ import annotations

import os
import time
from collections import deque

from runtime.supervisor import channel
from runtime.supervisor.failure import failed
from runtime.supervisor.loop import Loop
from runtime.supervisor.spawner import Order, Spawner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Asker(Protocol):
        """Whoever has an order under way."""

        def answered(self, answer: bytes, fd: int) -> None:
            """The answer, and the descriptor that came with it (or -1), the asker's from now on."""

        def lost(self, *, late: bool) -> None:
            """The spawner ended amid the order; `late`: it was ended, since it took too long."""


SPAWNERS_MAX = 4
"""A launch that hangs, in a mount for example, has one of them for `channel.TIMEOUT_S`."""


class Worker:
    """A spawner, and what it has to do."""

    __slots__ = ("_pool", "asker", "late", "order", "since_s", "spawner")

    def __init__(self, pool: Spawners) -> None:
        self._pool = pool
        self.spawner = Spawner()
        self.asker: Asker | None = None
        self.order: Order | None = None
        self.since_s = 0.0
        self.late = False

    def ready(self, _fd: int, _events: int) -> None:
        """It answers, or is gone."""
        answer, fd = self.spawner.receive()
        asker, order = self.asker, self.order
        self.asker = self.order = None
        if order is not None:
            order.close()
        if answer:
            self._pool.rest(self)
        else:
            self._pool.drop(self)
        if asker is not None:
            if answer:
                asker.answered(answer, fd)
            else:
                asker.lost(late=self.late)
        self._pool.serve()


class Spawners:
    """`ask`; `start` the first one early."""

    __slots__ = ("_idle", "_looking", "_loop", "_queue", "_workers")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._workers: list[Worker] = []
        self._idle: deque[Worker] = deque()
        self._queue: deque[tuple[Asker, Order]] = deque()
        self._looking = False

    @property
    def pids(self) -> list[int]:
        """Of all of them."""
        return [worker.spawner.pid for worker in self._workers]

    def start(self) -> None:
        """The first one. Raises: OSError."""
        self._idle.append(self._make())

    def ask(self, asker: Asker, order: Order) -> None:
        """The asker is told; it may be at once."""
        self._queue.append((asker, order))
        self.serve()

    def serve(self) -> None:
        """Give out orders as long as there is somebody who can take one."""
        while self._queue:
            try:
                worker = self._find()
            except OSError as error:
                self._refuse("a spawner cannot be started", error)
                continue
            if worker is None:
                return
            self._begin(worker)

    def _find(self) -> Worker | None:
        if self._idle:
            return self._idle.popleft()  # the one that has been ready for the longest
        if len(self._workers) >= SPAWNERS_MAX:
            return None
        try:
            return self._make()
        except OSError:
            if self._workers:
                return None
            raise

    def _make(self) -> Worker:
        worker = Worker(self)
        self._workers.append(worker)
        self._loop.watch(worker.spawner.fileno(), worker)
        return worker

    def _begin(self, worker: Worker) -> None:
        asker, order = self._queue[0]
        try:
            worker.spawner.send(order)
        except (BrokenPipeError, ConnectionResetError):  # it was killed since: another one
            self.drop(worker)
            return
        except OSError as error:
            self._idle.append(worker)
            self._refuse("asking the spawner failed", error)
            return
        self._queue.popleft()
        worker.asker, worker.order, worker.since_s = asker, order, time.monotonic()
        if not self._looking:
            self._looking = True
            self._loop.after(channel.TIMEOUT_S, self._look, None)

    def _refuse(self, what: str, error: OSError) -> None:
        asker, order = self._queue.popleft()
        order.close()
        asker.answered(channel.ERROR + failed("clone", what, error).encode(), -1)

    def _look(self, _: None) -> None:
        """Whoever is late is ended."""
        busy = [worker for worker in self._workers if worker.order is not None]
        for worker in busy:
            if time.monotonic() - worker.since_s >= channel.TIMEOUT_S:
                worker.late = True
                worker.spawner.kill()
        self._looking = bool(busy)
        if busy:
            self._loop.after(channel.TIMEOUT_S, self._look, None)

    def rest(self, worker: Worker) -> None:
        """It has answered."""
        self._idle.append(worker)

    def drop(self, worker: Worker) -> None:
        """It is gone."""
        self._loop.unwatch(worker.spawner.fileno())
        worker.spawner.close()
        self._workers.remove(worker)
        if worker in self._idle:
            self._idle.remove(worker)

    def stop(self) -> None:
        """End all."""
        for worker in list(self._workers):
            self.drop(worker)

    def leave(self) -> None:
        """Let all end by themselves."""
        for worker in self._workers:
            self._loop.unwatch(worker.spawner.fileno())
            worker.spawner.leave()
        self._workers.clear()
        self._idle.clear()


def reap_strays(known: set[int]) -> None:
    """Children of ours that nobody knows: what a spawner that was killed had made, and did not come to tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            children = [int(word) for word in file.read().split()]
    except OSError:  # a kernel that does not tell
        return
    for pid in children:
        if pid not in known:
            os.waitpid(pid, os.WNOHANG)
