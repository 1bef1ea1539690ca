"""Hosts and their sessions: who may connect, what a newer session, a reboot and forgetting end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sdn.model.codec import encode_msgpack
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import HostId, Revision
from sdn.model.stream import Delta, Facts, Hello, Query, Refused, Report, Sync, Welcome, down_decoder
from sdn.store.interface import Transaction
from sdn.store.memory import MemoryStore
from tests.unit.controller_harness import Agent, Site, only, refused, start


@pytest.fixture
async def site() -> Site:
    site = await Site().start()
    await site.network("web")
    return site


async def test_names_are_unique(site: Site) -> None:
    await site.core.create_host("h1", {"rack": "1"}, "test")
    assert "already" in str(await refused(Kind.CONFLICT, site.core.create_host("h1", {}, "test")))
    assert site.core.state.resolve_host("h1").labels == {"rack": "1"}


async def test_a_credential_is_good_for_its_host_until_the_next(site: Site) -> None:
    host, _ = await site.core.create_host("h1", {}, "test")
    other, _ = await site.core.create_host("h2", {}, "test")
    first = await site.core.mint_credential("h1", "test")
    assert site.core.custody.authenticate(host.id, first) == host
    second = await site.core.mint_credential("h1", "test")
    assert first != second
    assert not [record for record in site.disk.records.values() if second.encode() in record.value]
    assert not [change for change in site.disk.log if second.encode() in change.note]
    await site.start()
    assert site.core.custody.authenticate(host.id, second) == host
    for id_, secret in ((host.id, first), (other.id, second), (HostId("nobody"), second), (host.id, "")):
        with pytest.raises(HawseError) as caught:
            site.core.custody.authenticate(id_, secret)
        assert caught.value.kind is Kind.DENIED


async def test_hello(site: Site) -> None:
    agent = await site.agent("h1", vtep4="192.0.2.1", vtep6="2001:db8::1", routes=("192.0.2.0/24",), mtu_bytes=9000)
    host = site.core.state.hosts[agent.host]
    assert (host.session, host.vtep4, host.vtep6, host.mtu_bytes) == (1, "192.0.2.1", "2001:db8::1", 9000)
    assert [type(message) for message in agent.inbox] == [Welcome, Delta, Sync]
    assert agent.topics == agent.expected()


async def test_a_host_says_only_its_own_hello(site: Site) -> None:
    first, _ = await site.core.create_host("h1", {}, "test")
    second, _ = await site.core.create_host("h2", {}, "test")
    stream = site.core.connect(first.id)
    await stream.receive(encode_msgpack(Hello(host=second.id, incarnation="b:1", mtu_bytes=1500)))
    data = await stream.outgoing()
    assert data is not None
    message = down_decoder.msgpack(data)
    assert isinstance(message, Refused)
    assert message.problem.kind == "denied"
    assert await stream.outgoing() is None


@pytest.mark.parametrize(
    "change",
    [
        {"vtep4": "2001:db8::1"},
        {"vtep6": "192.0.2.1"},
        {"vtep4": "nonsense"},
        {"mtu_bytes": 0},
        {"routes": ("10.0.0.1/8",)},
        {"version": "1.0\x1b[2J"},
        {"incarnation": "boot:" + "x" * 1000},
    ],
)
async def test_a_hello_with_nonsense_is_refused(site: Site, change: dict[str, object]) -> None:
    host, _ = await site.core.create_host("h1", {}, "test")
    agent = Agent(site, host.id, {})
    before = site.core.revision
    assert (await refused(Kind.INVALID, _welcome(agent, **change))).message
    assert site.core.revision == before


async def test_what_is_no_message_ends_the_stream(site: Site) -> None:
    for first, said in (
        (b"\x93", "not a message of an agent"),
        (encode_msgpack(Report(session=1, revision=1)), "hello"),
    ):
        host, _ = await site.core.create_host(f"h{len(said)}", {}, "test")
        stream = site.core.connect(host.id)
        await stream.receive(first)
        data = await stream.outgoing()
        assert data is not None
        message = down_decoder.msgpack(data)
        assert isinstance(message, Refused)
        assert said in message.problem.message


async def test_the_newest_session_wins(site: Site) -> None:
    agent = await site.agent("h1")
    older, session = agent.stream, agent.session
    await agent.hello()
    assert agent.session == session + 1
    data = await older.outgoing()
    assert data is not None
    assert isinstance(down_decoder.msgpack(data), Refused)
    assert await older.outgoing() is None
    await older.receive(encode_msgpack(Report(session=session, revision=99)))
    assert site.core.status().hosts[0].applied_revision == 0, "what an older session says is not heard"
    older.closed()
    assert site.core.status().hosts[0].connected
    await agent.attach("c1")
    await site.start()
    await agent.hello()
    assert agent.session == session + 2, "sessions go on after a restart"


async def test_two_hosts_with_one_vtep(site: Site) -> None:
    first = await site.agent("h1", vtep4="192.0.2.7")
    second = Agent(site, (await site.core.create_host("h2", {}, "test"))[0].id, {"vtep4": "192.0.2.7"})
    error = await refused(Kind.CONFLICT, _welcome(second))
    assert "host h2 says that its VTEP is 192.0.2.7, which is the VTEP of host h1" in str(error)
    assert error.facts["hosts"] == ["h2", "h1"]
    await _welcome(second, vtep4="192.0.2.8")
    assert "VTEP of host h1" in str(await refused(Kind.CONFLICT, _facts(second, vtep4="192.0.2.7")))
    first.stream.closed()
    await _welcome(second, vtep4="192.0.2.7")


async def test_of_two_hosts_that_claim_one_vtep_at_once_one_has_it(site: Site) -> None:
    agents = [await site.agent(name, vtep4=f"192.0.2.{number}") for number, name in enumerate(("h1", "h2"), 1)]
    claims = (agent.stream.receive(encode_msgpack(_claim(agent, "192.0.2.7"))) for agent in agents)
    await asyncio.gather(*claims)
    said = [message for agent in agents for message in await agent.take() if isinstance(message, Refused)]
    assert ["which is the VTEP of host h1" in message.problem.message for message in said] == [True]
    assert [host.vtep4 for host in site.core.state.hosts.values()] == ["192.0.2.7", "192.0.2.2"]


def _claim(agent: Agent, vtep4: str) -> Facts:
    return Facts(session=agent.session, vtep4=vtep4, mtu_bytes=1500)


async def _welcome(agent: Agent, **change: Any) -> Welcome:
    return only(Welcome, await agent.hello(**change))


async def _facts(agent: Agent, **change: Any) -> None:
    for message in await agent.change(**change):
        if isinstance(message, Refused):
            raise HawseError(Kind(message.problem.kind), message.problem.message)


async def test_facts_are_one_write_and_reach_the_members(site: Site) -> None:
    await site.network("db", "10.2.0.0/24")
    first, second, third = [await site.agent(f"h{number}") for number in (1, 2, 3)]
    for network in ("web", "db"):
        await first.attach("c", network, ifname=network)
        await second.attach("c", network, ifname=network)
    for agent in (first, second, third):
        await agent.take()
        agent.inbox.clear()
    before = site.core.revision
    await first.change(vtep4="192.0.2.99")
    assert site.core.revision == before + 1
    await second.take()
    await third.take()
    deltas = [message for message in second.inbox if isinstance(message, Delta)]
    assert [list(delta.puts) for delta in deltas] == [[f"member/{first.host}"]] * 2
    assert second.topics == second.expected()
    assert first.topics == first.expected()
    assert third.inbox == []
    await first.change(vtep4="192.0.2.99")
    assert site.core.revision == before + 1, "the same again is not written"


async def test_a_reboot_releases_what_was_there_before(site: Site) -> None:
    agent, other = await site.agent("h1"), await site.agent("h2")
    for number in range(20):
        await agent.attach(f"c{number}")
    kept = await other.attach("c")
    before = site.core.revision
    await agent.hello(incarnation="boot:2")
    assert list(site.core.state.endpoints) == [kept.id]
    reasons = {
        event.data["reason"]
        async for event in site.core.events(before, follow=False)
        if event.kind == "endpoint.released"
    }
    assert reasons == {"host restarted"}
    await other.take()
    assert other.topics == other.expected()
    assert agent.topics == agent.expected()
    assert (await agent.attach("c1")).incarnation == "boot:2"


async def test_forgetting(site: Site) -> None:
    agent, other = await site.agent("h1"), await site.agent("h2")
    secret = await site.core.mint_credential("h1", "test")
    assert isinstance((await agent.take())[-1], Refused), "a secret that is voided ends what it has opened"
    await agent.hello()
    for number in range(40):
        await agent.attach(f"c{number}", name=f"n{number}")
    await other.attach("c")
    assert "connected" in str(await refused(Kind.CONFLICT, site.core.forget_host("h1", False, "test")))
    host, revision = await site.core.forget_host("h1", True, "test")
    assert host is not None
    assert revision == site.core.revision
    assert isinstance((await agent.take())[-1], Refused)
    await other.take()
    assert other.topics == other.expected()
    assert len(site.core.state.endpoints) == 1
    assert not [key for key in site.disk.records if agent.host in key]
    with pytest.raises(HawseError):
        site.core.custody.authenticate(agent.host, secret)
    await refused(Kind.NOT_FOUND, _welcome(agent))
    assert (await site.core.forget_host("h1", False, "test"))[0] is None


class KilledError(Exception):
    """The controller ends here."""


class Mortal(MemoryStore):
    """Commits so many transactions and no more, as a controller that is killed."""

    def __init__(self, site: Site, commits: int) -> None:
        super().__init__(site.disk)
        self.commits = commits

    async def commit(self, transaction: Transaction) -> Revision:
        self.commits -= 1
        if self.commits < 0:
            raise KilledError
        return await super().commit(transaction)


async def test_forgetting_is_finished_whenever_the_controller_is_killed(site: Site) -> None:
    for commits in (1, 2, 3):
        agent = await site.agent(f"h{commits}")
        for number in range(30):
            await agent.attach(f"c{number}")
        core = await start(Mortal(site, commits))
        with pytest.raises(KilledError):
            await core.forget_host(f"h{commits}", False, "test")
        await site.start()
        assert f"h{commits}" not in site.core.state.names.hosts
        assert not [key for key in site.disk.records if agent.host in key]


async def test_queries(site: Site) -> None:
    agent = await site.agent("h1")
    asked = asyncio.create_task(site.core.query(agent.host, "drops", 5))
    await asyncio.sleep(0)
    await agent.answer([1, 2])
    assert await asked == [1, 2]
    late = await refused(Kind.UNAVAILABLE, site.core.query(agent.host, "drops", 0.01))
    assert "did not answer" in str(late)
    asked = asyncio.create_task(site.core.query(agent.host, "drops", 5))
    await asyncio.sleep(0)
    assert [type(message) for message in await agent.take()] == [Query, Query]
    agent.stream.closed()
    await refused(Kind.UNAVAILABLE, asked)
    assert "h1 is not connected" in str(await refused(Kind.UNAVAILABLE, site.core.query(agent.host, "drops", 1)))


async def test_a_controller_that_stops_says_so(site: Site) -> None:
    agent = await site.agent("h1")
    await site.core.close()
    await site.core.close()
    (message,) = await agent.take()
    assert isinstance(message, Refused)
    assert message.problem.kind == "unavailable"
    assert await agent.stream.outgoing() is None
