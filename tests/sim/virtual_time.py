"""An event loop whose time is virtual, and processes that die in it at once.

When nothing is ready, time jumps to the next timer: waiting costs nothing and the same inputs give the same run. Work
for threads is done on the loop's own thread, after a pause, and its result comes after another one, so that what
happens meanwhile does happen meanwhile.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
import weakref
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from sdn.reconcile.faults import KilledError

T = TypeVar("T")


class DiedError(Exception):
    """The process that was asked died before it answered: what it did is not known."""


class _Selector(selectors.SelectSelector):
    """Never looks at a descriptor: there is nothing outside of this world."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing will ever happen again: everybody waits for somebody else"
        self.now_s += max(timeout, 0.0)
        return []


class Life:
    """One process, from its start to its death. What it began dies with it; nothing of it can act any more."""

    def __init__(self, loop: VirtualLoop, name: str, pause_s: Callable[[], float]) -> None:
        self.name = name
        self.dead = False
        self.pause_s = pause_s
        self._loop = loop
        self._died: asyncio.Future[None] = loop.create_future()
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._context = contextvars.copy_context()
        self._context.run(_LIFE.set, self)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do it in this process."""
        return self._loop.create_task(work, context=self._context.copy())

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work in this process. Raises: DiedError when it dies first."""
        task = self.spawn(work)
        waited: list[asyncio.Future[Any]] = [task, self._died]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if self.dead and (not task.done() or task.cancelled() or isinstance(task.exception(), KilledError)):
            raise DiedError(self.name)
        return task.result()

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """The task is of this process."""
        self._tasks[task] = None
        task.add_done_callback(lambda task: self._tasks.pop(task, None))
        if self.dead:
            task.cancel()

    def kill(self) -> None:
        """SIGKILL. Who holds a handle on the outside world has to look at `dead` before it is used."""
        self.dead = True
        for task in list(self._tasks):
            task.cancel()
        if not self._died.done():
            self._died.set_result(None)


_LIFE: contextvars.ContextVar[Life] = contextvars.ContextVar("life")


class VirtualLoop(asyncio.SelectorEventLoop):
    """See above. `faults`: exceptions that nobody caught, of processes that were alive."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self.faults: list[str] = []
        self._lives: weakref.WeakKeyDictionary[Any, Life] = weakref.WeakKeyDictionary()
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._note_fault)

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual.now_s

    def run_in_executor(  # type: ignore[override] # always a future of this loop, whatever the executor
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """A pause, the work, another pause."""
        done: asyncio.Future[T] = self.create_future()
        life = _LIFE.get(None)
        pause_s = life.pause_s if life is not None else lambda: 0.0

        def work() -> None:
            if life is not None and life.dead:
                done.cancel()
                return
            try:
                result = func(*args)
            # As a thread does: whatever is raised is the future's.
            except Exception as error:  # noqa: BLE001
                self.call_later(pause_s(), _fail, done, error)
            else:
                self.call_later(pause_s(), _finish, done, result)

        self.call_later(pause_s(), work)
        return done

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, T] | Generator[Any, None, T],
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.Task(work, loop=loop, context=context)
        life = _LIFE.get(None) if context is None else context.get(_LIFE)
        if life is not None:
            self._lives[task] = life
            life.adopt(task)
        return task

    def _note_fault(self, _loop: asyncio.AbstractEventLoop, facts: dict[str, Any]) -> None:
        where = facts.get("task") or facts.get("future")
        life = self._lives.get(where) if where is not None else None
        killed = isinstance(facts.get("exception"), KilledError)
        if not killed and (life is None or not life.dead):
            self.faults.append(f"{facts['message']}: {facts.get('exception')!r}")


def _finish(done: asyncio.Future[T], result: T) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)


def run_virtually(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """As asyncio.run, in virtual time."""
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))
