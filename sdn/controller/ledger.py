"""The ledger: the one writer. Plan, commit, apply, tell; one request at a time.

A plan that lost a race against another controller is made once more from what the store has now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

import structlog

from sdn.controller import keys
from sdn.controller.effects import Effects
from sdn.controller.note import Happening
from sdn.controller.plan import Plan
from sdn.controller.state import State
from sdn.model.errors import HawseError, unavailable
from sdn.model.ids import Revision
from sdn.store.interface import CompactedError, CompareFailedError, Record, Store

T = TypeVar("T")
AUDIT_AFTER_S = 0.001
RESOLVE_PAUSE_S = 1.0
"""Between two attempts to learn whether a commit was written, while the store does not even say that."""
LOAD_ATTEMPTS = 10
"""Another controller may write between the parts of a load; ten times in a row it does not."""

_log = structlog.get_logger("audit")


class Listener(Protocol):
    """Who is told of what the ledger did."""

    def applied(self, effects: Effects, revision: Revision) -> None:
        """A transaction is committed and in the state."""

    def reloaded(self) -> None:
        """The state was read anew: anything may be different."""


class Ledger:
    """The store, its decoded copy, and the lock between them."""

    def __init__(self, store: Store, state: State) -> None:
        self.store = store
        self.state = state
        self.listener: Listener | None = None
        self._lock = asyncio.Lock()
        self._doubtful = False
        self._resolving: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Nothing more is to be learnt of the store."""
        if self._resolving is not None:
            self._resolving.cancel()

    async def write(self, planner: Callable[[State], Plan[T]], actor: str) -> tuple[T, Revision]:
        """Plan, commit, apply. Raises: what the planner raises; CONFLICT, UNAVAILABLE of the store."""
        return await self.exclusively(lambda: self.write_held(planner, actor))

    async def exclusively(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work` while nobody else writes. A caller that gives up does not stop it half way."""

        async def locked() -> T:
            async with self._lock:
                return await work()

        task = asyncio.create_task(locked())
        task.add_done_callback(_look_at_error)
        return await asyncio.shield(task)

    async def write_held(self, planner: Callable[[State], Plan[T]], actor: str) -> tuple[T, Revision]:
        """`write` for work that holds the lock already."""
        await self._resolve()
        try:
            return await self._attempt(planner, actor)
        except CompareFailedError:  # another controller was quicker
            await self._reload()
            return await self._attempt(planner, actor)

    async def _attempt(self, planner: Callable[[State], Plan[T]], actor: str) -> tuple[T, Revision]:
        plan = planner(self.state)
        if plan.transaction is None:
            return plan.result, plan.revision
        try:
            revision = await self.store.commit(plan.transaction)
        except CompareFailedError:
            raise
        except BaseException as error:
            self._doubtful = True  # whether it was written is not known
            if isinstance(error, Exception) and (self._resolving is None or self._resolving.done()):
                self._resolving = asyncio.create_task(self._resolve_soon())
            raise
        if revision != self.state.revision + 1:  # another controller wrote what this plan did not depend on
            await self._reload()
        else:
            effects = self.state.apply(plan.transaction.writes, revision)
            if self.listener:
                self.listener.applied(effects, revision)
        # Once the hosts' streams have been served: it must not delay an attachment. The note in the store is the truth.
        asyncio.get_running_loop().call_later(AUDIT_AFTER_S, _audit, plan.happened, actor, revision)
        return plan.result, revision

    async def _resolve_soon(self) -> None:
        """Nobody may write for a long time: the hosts are to hear of what was written all the same."""
        while self._doubtful:
            try:
                await self.exclusively(self._resolve)
            except HawseError as error:
                _log.warning("store.doubtful", error=error.message)
                await asyncio.sleep(RESOLVE_PAUSE_S)

    async def _resolve(self) -> None:
        """Learn whether the commit that failed was written. To be called while nobody writes."""
        if not self._doubtful:
            return
        try:
            written = bool(await self.store.changes(self.state.revision, 1))
        except CompactedError:
            written = True
        if written:
            await self._reload()
        self._doubtful = False

    async def _reload(self) -> None:
        self.state = await load_state(self.store)
        self._doubtful = False
        if self.listener:
            self.listener.reloaded()


async def load_state(store: Store) -> State:
    """Read the state, part by part (the whole at once would be in memory twice), as of one revision."""
    for _ in range(LOAD_ATTEMPTS):
        records: list[Record] = []
        revisions: set[Revision] = set()
        for prefix in keys.LOADED:
            part = await store.load(prefix)
            records += part.records
            revisions.add(part.revision)
        if len(revisions) == 1:
            return State.load(records, revisions.pop())
    raise unavailable("the store changes too quickly to be read", "stop the other controller")


def _audit(happened: Iterable[Happening], actor: str, revision: Revision) -> None:
    for happening in happened:
        _log.info(happening.kind, actor=actor, revision=revision, **happening.data)


def _look_at_error(task: asyncio.Task[T]) -> None:
    """The caller may be gone; an error that nobody fetches would be reported as a leak."""
    if not task.cancelled() and isinstance(error := task.exception(), Exception) and not isinstance(error, HawseError):
        _log.error("write.failed", error=repr(error))
