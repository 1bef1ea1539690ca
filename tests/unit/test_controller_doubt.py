"""A commit that fails may have been written: the controller finds out by itself, and so do the hosts."""

from __future__ import annotations

import asyncio

import pytest

from sdn.controller import ledger
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.model.ids import Revision
from sdn.store.interface import Transaction
from sdn.store.memory import MemoryStore
from tests.unit.agent_harness import until
from tests.unit.controller_harness import Site, refused, start


class Doubtful(MemoryStore):
    """`written`: whether the next commit that fails is; `unreadable`: how many reads fail after it."""

    fail, written, unreadable, loads = False, False, 0, 0

    async def commit(self, transaction: Transaction) -> Revision:
        """See Store."""
        if not self.fail:
            return await super().commit(transaction)
        self.fail = False
        if self.written:
            await super().commit(transaction)
        raise unavailable("cannot tell whether it was written")

    async def changes(self, since, limit=1000):
        """See Store."""
        if self.unreadable:
            self.unreadable -= 1
            raise unavailable("cannot read")
        return await super().changes(since, limit)

    async def load(self, prefix=""):
        """See Store."""
        self.loads += 1
        return await super().load(prefix)


async def site_of() -> tuple[Site, Doubtful]:
    """A site whose store can be made to fail."""
    site = Site()
    store = Doubtful(site.disk)
    site.store, site.core, site.starts = store, await start(store), 1
    return site, store


@pytest.mark.parametrize("unreadable", [0, 2])
async def test_what_was_written_reaches_the_hosts_without_another_write(
    unreadable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "RESOLVE_PAUSE_S", 0.001)
    site, store = await site_of()
    await site.network("web")
    agent = await site.agent("h1")
    endpoint = await agent.attach("c1")
    store.fail = store.written = True
    store.unreadable = unreadable
    await refused(Kind.UNAVAILABLE, site.core.delete_endpoint(endpoint.id, "test"))
    await until(lambda: endpoint.id not in site.core.state.endpoints)
    await agent.take()
    assert agent.topics == agent.expected()


async def test_what_was_not_written_costs_no_reading_of_everything() -> None:
    site, store = await site_of()
    await site.network("web")
    store.fail, store.loads = True, 0
    with pytest.raises(HawseError, match="cannot tell"):
        await site.network("db", "10.2.0.0/24")
    await site.network("db", "10.2.0.0/24")
    assert store.loads == 0


async def test_a_controller_that_stops_does_not_wait_for_its_store() -> None:
    site, store = await site_of()
    store.fail, store.unreadable = True, 1_000_000
    with pytest.raises(HawseError, match="cannot tell"):
        await site.network("web")
    await site.core.close()
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if "_resolve_soon" in repr(task) and not task.cancelling()]
