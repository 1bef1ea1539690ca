"""A store that measures its commits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from sdn.model.ids import Revision
from sdn.store.interface import Change, Record, Snapshot, Store, Transaction


class MeasuredStore:
    """Passes everything on; `observe` gets the seconds that each commit took, successful or not."""

    def __init__(self, store: Store, observe: Callable[[float], None], monotonic: Callable[[], float]) -> None:
        self._store = store
        self._observe = observe
        self._monotonic = monotonic

    async def commit(self, transaction: Transaction) -> Revision:
        """See Store."""
        begun_s = self._monotonic()
        try:
            return await self._store.commit(transaction)
        finally:
            self._observe(self._monotonic() - begun_s)

    async def load(self, prefix: str = "") -> Snapshot:
        """See Store."""
        return await self._store.load(prefix)

    async def get(self, key: str) -> Record | None:
        """See Store."""
        return await self._store.get(key)

    async def changes(self, since: Revision, limit: int = 1000) -> Sequence[Change]:
        """See Store."""
        return await self._store.changes(since, limit)

    def watch(self, since: Revision) -> AsyncIterator[Change]:
        """See Store."""
        return self._store.watch(since)

    async def compact(self, before: Revision) -> None:
        """See Store."""
        await self._store.compact(before)

    async def put_soft(self, key: str, value: bytes) -> None:
        """See Store."""
        await self._store.put_soft(key, value)

    async def load_soft(self, prefix: str = "") -> dict[str, bytes]:
        """See Store."""
        return await self._store.load_soft(prefix)

    async def close(self) -> None:
        """See Store."""
        await self._store.close()
