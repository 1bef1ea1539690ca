"""Topics: what is sent is what changed, once, and what was missed is what is sent on return."""

from __future__ import annotations

import pytest

from sdn.controller import topics
from sdn.controller.options import Options
from sdn.controller.specs import NetworkSpec, SubnetSpec, TenantSpec
from sdn.model.codec import encode_msgpack
from sdn.model.stream import SNAPSHOT_CHUNK_ITEMS, AttachRequest, Delta, Drop, Sync, Welcome
from tests.unit.controller_harness import Agent, Site


@pytest.fixture
async def site() -> Site:
    site = await Site().start()
    await site.network("web", "10.1.0.0/16")
    await site.network("db", "10.2.0.0/16")
    return site


def deltas(agent: Agent) -> list[Delta]:
    return [message for message in agent.inbox if isinstance(message, Delta)]


async def test_a_host_has_what_it_needs_and_nothing_else(site: Site) -> None:
    first, second = await site.agent("h1"), await site.agent("h2")
    mine = await first.attach("c", "web")
    await second.attach("c", "db")
    await first.take()
    state = site.core.state
    tenant = state.resolve_tenant("default").id
    assert set(first.topics) == {f"host/{first.host}", f"tenant/{tenant}", f"network/{mine.network}"}
    assert set(first.topics[f"network/{mine.network}"]) == {"network", f"member/{first.host}", f"endpoint/{mine.id}"}
    second.inbox.clear()
    await first.attach("d", "web")
    await second.take()
    assert second.inbox == [], "it is none of its business"
    for agent in (first, second):
        assert agent.topics == agent.expected()


async def test_a_topic_comes_with_the_first_endpoint_and_goes_with_the_last(site: Site) -> None:
    first, second = await site.agent("h1"), await site.agent("h2")
    theirs = await first.attach("c", "web")
    mine = [await second.attach(name, "web") for name in ("c", "d")]
    await first.take()
    assert f"member/{second.host}" in first.topics[f"network/{theirs.network}"]
    await second.detach(mine[0].id)
    assert second.topics == second.expected()
    second.inbox.clear()
    done = await second.detach(mine[1].id)
    assert [message.topic.partition("/")[0] for message in second.inbox if isinstance(message, Drop)] == [
        "network",
        "tenant",
    ]
    assert [message.revision for message in second.inbox if isinstance(message, Sync)] == [done.revision]
    assert second.topics == second.expected()
    await first.take()
    assert f"member/{second.host}" not in first.topics[f"network/{theirs.network}"]
    assert first.topics == first.expected()


async def test_changed_headers_reach_the_holders(site: Site) -> None:
    agent = await site.agent("h1")
    endpoint = await agent.attach("c", "web")
    agent.inbox.clear()
    await site.core.add_subnet("web", SubnetSpec(prefix="fd00::/64"), "test")
    tenant = site.core.state.tenants[endpoint.tenant]
    revision = site.core.state.revision_of("tenant", tenant.id)
    await site.core.put_tenant("default", TenantSpec(labels={"a": "b"}), revision, "test")
    unheld = site.core.state.revision_of("network", _id(site, "db"))
    await site.core.put_network("db", NetworkSpec(labels={"x": "y"}), unheld, "test")
    await agent.take()
    assert [list(delta.puts) for delta in deltas(agent)] == [["network"], ["tenant"]]
    assert agent.topics == agent.expected()


def _id(site: Site, name: str) -> str:
    return site.core.state.resolve_network(name).id


async def test_a_delta_is_encoded_once_whatever_the_number_of_hosts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = [await site.agent(f"h{number}") for number in range(20)]
    for agent in agents:
        await agent.attach("c", "web")
    for agent in agents:
        await agent.take()
    encoded: list[str] = []
    encode = topics.encode_delta

    def counting(topic: str, previous: int, revision: int, change: topics.TopicChange) -> bytes:
        encoded.append(topic)
        assert len(change.puts) + len(change.deletes) <= 2
        return encode(topic, previous, revision, change)

    monkeypatch.setattr(topics, "encode_delta", counting)
    await agents[0].attach("d", "web")
    assert encoded == [f"network/{_id(site, 'web')}"]
    for agent in agents:
        await agent.take()
        assert agent.topics == agent.expected()


async def test_cost_follows_the_change_and_not_the_state(site: Site) -> None:
    """The bytes on the wire for one attachment beside 12 and beside 1200 others are as many."""
    agent, other = await site.agent("h1"), await site.agent("h2")
    costs = []
    for count in (12, 1200):
        for number in range(count):
            await (agent if number % 4 else other).attach(f"c{count:05}-{number:05}", "web" if number % 3 else "db")
        await agent.take()
        await other.take()
        before = agent.wire_bytes + other.wire_bytes
        await agent.attach(f"d{count:05}-00000", "web")
        await other.take()
        costs.append(agent.wire_bytes + other.wire_bytes - before)
    assert costs[1] <= costs[0] + 32, costs  # numbers take a byte more


async def test_a_large_topic_comes_in_chunks(site: Site) -> None:
    agent, late = await site.agent("h1"), await site.agent("h2")
    for number in range(900):
        await agent.attach(f"c{number}", "web")
    late.inbox.clear()
    await late.attach("c", "web")
    chunks = [delta for delta in deltas(late) if delta.topic.startswith("network/")]
    assert [len(delta.puts) for delta in chunks] == [SNAPSHOT_CHUNK_ITEMS, 904 - SNAPSHOT_CHUNK_ITEMS]
    assert chunks[0].previous == 0
    assert chunks[1].previous == chunks[1].revision == chunks[0].revision
    assert late.topics == late.expected()


# --- away and back ---


async def busy(site: Site, *agents: Agent) -> None:
    """Something of every sort, some of it made and gone again; `agents` are connected."""
    one, two = agents
    mine = await one.attach("x", "web")
    gone = await two.attach("y", "web")
    await two.detach(gone.id)
    await one.attach("x", "db", ifname="eth1")
    await two.attach("z", "db")
    await one.detach(mine.id)
    await one.change(vtep4="192.0.2.200")
    await site.core.add_subnet("web", SubnetSpec(prefix="fd00::/64"), "test")


@pytest.mark.parametrize("restarted", [False, True])
async def test_resume_sends_only_what_was_missed(site: Site, restarted: bool) -> None:
    away, one, two = [await site.agent(f"h{number}") for number in (1, 2, 3)]
    for number in range(600):
        await one.attach(f"c{number}", "web")
    await away.attach("c", "web")
    await away.attach("c", "db", ifname="eth1")
    away.stream.closed()
    await busy(site, one, two)
    if restarted:
        await site.start()
    before = away.wire_bytes
    away.inbox.clear()
    await away.hello(resume=True)
    assert away.topics == away.expected()
    (welcome,) = [message for message in away.inbox if isinstance(message, Welcome)]
    assert welcome.resumed
    assert all(delta.previous for delta in deltas(away)), "nothing begins anew"
    assert away.wire_bytes - before < 3000
    await away.attach("d", "web")
    await away.take()
    assert away.topics == away.expected(), "the next change goes on from there"


async def test_what_is_held_no_longer_is_dropped_on_return(site: Site) -> None:
    away = await site.agent("h1")
    endpoint = await away.attach("c", "web")
    away.stream.closed()
    await site.core.delete_endpoint(endpoint.id, "test")
    away.inbox.clear()
    await away.hello(resume=True)
    assert [message.topic.partition("/")[0] for message in away.inbox if isinstance(message, Drop)] == [
        "network",
        "tenant",
    ]
    assert away.topics == away.expected()


@pytest.mark.parametrize("options", [Options(resume_changes=5), Options()])
async def test_who_missed_too_much_begins_anew(options: Options) -> None:
    site = await Site(options).start()
    await site.network("web", "10.1.0.0/16")
    away, other = await site.agent("h1"), await site.agent("h2")
    await away.attach("c")
    away.stream.closed()
    for number in range(10):
        await other.attach(f"c{number}")
    if options.resume_changes > 10:
        await site.store.compact(site.core.revision)
    away.inbox.clear()
    await away.hello(resume=True)
    (welcome,) = [message for message in away.inbox if isinstance(message, Welcome)]
    assert not welcome.resumed
    assert not [message for message in away.inbox if isinstance(message, Drop)]
    assert away.topics == away.expected()


async def test_a_store_that_was_set_back_begins_anew(site: Site) -> None:
    agent = await site.agent("h1")
    await agent.attach("c", "web")
    agent.revisions = {topic: revision + 1000 for topic, revision in agent.revisions.items()}
    await agent.hello(resume=True)
    assert agent.topics == agent.expected()


async def test_a_slow_host_is_brought_up_to_date_by_one_transaction() -> None:
    site = await Site(Options(lag_transactions=4)).start()
    await site.network("web", "10.1.0.0/16")
    slow, other = await site.agent("h1"), await site.agent("h2")
    await slow.attach("c")
    slow.inbox.clear()
    for number in range(100):
        endpoint = await other.attach(f"c{number}")
        if number % 2:
            await other.detach(endpoint.id)
    assert len(slow.stream.box) <= 2 * 4
    await slow.take()
    assert len([message for message in slow.inbox if isinstance(message, Sync)]) == 1
    assert slow.topics == slow.expected()
    puts = [key for delta in deltas(slow) for key in delta.puts]
    assert len(puts) == len(set(puts)), "coalesced by key"
    await other.attach("more")
    await slow.take()
    assert slow.topics == slow.expected()


async def test_a_reply_of_a_host_that_lags_still_comes_after_what_it_depends_on() -> None:
    site = await Site(Options(lag_transactions=2)).start()
    await site.network("web", "10.1.0.0/16")
    slow, other = await site.agent("h1"), await site.agent("h2")
    await slow.attach("c")
    for number in range(10):
        await other.attach(f"c{number}")
    endpoint = await slow.attach("d")  # takes everything, in order
    kinds = [type(message).__name__ for message in slow.inbox]
    assert kinds.index("Attached", kinds.index("Attached") + 1) > kinds.index("Sync", kinds.index("Settled"))
    assert f"endpoint/{endpoint.id}" in slow.topics[f"network/{endpoint.network}"]


async def test_a_snapshot_that_was_cut_short_begins_anew(site: Site) -> None:
    agent, late = await site.agent("h1"), await site.agent("h2")
    for number in range(900):
        await agent.attach(f"c{number}", "web")
    request_before = late.stream.box.has
    assert set(request_before) == {f"host/{late.host}"}
    box = late.stream.box
    messages = topics.snapshot(f"network/{_id(site, 'web')}", 5, site.core.state)
    box.transaction(messages, site.core.revision)
    box.take()
    assert box.has[f"network/{_id(site, 'web')}"] == 0
    box.lag()
    assert box.lagging
    assert len(box) == 0


async def test_many_hosts_that_begin_anew_share_one_copy(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    agents = [await site.agent(f"h{number}") for number in range(10)]
    for agent in agents:
        await agent.attach("c", "web")
    encoded: list[str] = []
    encode = topics.encode_delta

    def noting(topic: str, previous: int, revision: int, change: topics.TopicChange) -> bytes:
        encoded.append(topic)
        return encode(topic, previous, revision, change)

    monkeypatch.setattr(topics, "encode_delta", noting)
    for agent in agents:
        await agent.hello()
        assert agent.topics == agent.expected()
    assert len([topic for topic in encoded if topic.startswith(("network/", "tenant/"))]) == 2
    await agents[0].attach("d", "web")
    await agents[1].hello()
    assert agents[1].topics == agents[1].expected(), "a copy is never older than the topic"


async def test_a_topic_that_was_dropped_and_is_held_again_begins_anew_also_for_who_lags() -> None:
    site = await Site(Options(lag_transactions=2)).start()
    await site.network("web", "10.1.0.0/16")
    slow, other = await site.agent("h1"), await site.agent("h2")
    first = await slow.attach("c")
    await slow.detach(first.id)  # the Drop has been taken
    await site.core.create_tenant(TenantSpec(name="blue"), "test")
    endpoint = await slow.attach("d")
    await slow.detach(endpoint.id)
    for number in range(3):
        await other.attach(f"c{number}")
    request = AttachRequest(
        session=slow.session,
        request=99,
        client="test",
        scope="",
        container="e",
        ifname="eth0",
        sandbox=1,
        network="web",
    )
    await slow.stream.receive(encode_msgpack(request))
    for number in range(5):
        await other.attach(f"d{number}")
    assert slow.stream.box.lagging
    await slow.take()
    assert slow.topics == slow.expected()
