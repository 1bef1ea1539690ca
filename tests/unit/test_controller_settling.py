"""Who has followed a change: Settled for an attachment, the table for a person who waits, events for later."""

from __future__ import annotations

import asyncio

import pytest

from sdn.controller.specs import TenantSpec
from sdn.controller.status import HostState, Step
from sdn.model.ids import Revision
from sdn.model.stream import Attached, Settled
from tests.unit.controller_harness import Agent, Site, until_settled


@pytest.fixture
async def site() -> Site:
    site = await Site().start()
    await site.network("web")
    return site


def settled(agent: Agent) -> list[Settled]:
    return [message for message in agent.inbox if isinstance(message, Settled)]


async def test_settled_at_once_when_nobody_else_is_concerned(site: Site) -> None:
    agent, other = await site.agent("h1"), await site.agent("h2")
    await agent.attach("c1")
    assert [message.late for message in settled(agent)] == [()]
    await other.attach("c1")
    agent.stream.closed()
    await other.attach("c2")
    assert settled(other)[-1].late == (), "a host that is not connected cannot be waited for"


async def test_settled_when_the_others_have_reported(site: Site) -> None:
    agent, second, third = [await site.agent(f"h{number}") for number in (1, 2, 3)]
    for other in (second, third):
        await other.attach("c")
        await other.report()
    await second.take()
    await second.report()
    agent.inbox.clear()
    await agent.attach("c1")
    (attached,) = [message for message in agent.inbox if isinstance(message, Attached)]
    assert settled(agent) == []
    await second.take()
    await second.report(attached.revision - 1)
    await third.take()
    await third.report(attached.revision)
    await agent.take()
    assert settled(agent) == []
    await second.report(attached.revision)
    await agent.take()
    assert [(message.revision, message.late) for message in settled(agent)] == [(attached.revision, ())]


async def test_who_is_late_is_named_and_an_event(site: Site) -> None:
    agent, second, third = [await site.agent(f"h{number}") for number in (1, 2, 3)]
    for other in (second, third):
        await other.attach("c")
        await other.report()
    await second.take()
    await second.report()
    before = site.core.revision
    endpoint = await agent.attach("c1")
    third.stream.closed()
    assert (await until_settled(agent)).late == ("h2", "h3")
    late = [event async for event in site.core.events(before, follow=False) if event.kind == "endpoint.late"]
    assert [(event.data["id"], event.data["hosts"]) for event in late] == [(endpoint.id, ["h2", "h3"])]


async def test_the_table_of_those_who_wait(site: Site) -> None:
    agents = [await site.agent(f"h{number}") for number in (1, 2, 3, 4)]
    for agent in agents[:3]:
        await agent.attach("c")
    for agent in agents:
        await agent.take()
    _, revision = await site.core.create_tenant(TenantSpec(name="blue"), "test")
    assert await site.core.wait_settled(revision, 0) == [], "nobody is concerned"
    await agents[0].attach("d")
    revision = site.core.revision
    await agents[0].report()
    await agents[1].take()
    await agents[1].report(failures={"endpoint/x": "the kernel said no"})
    agents[2].stream.closed()
    table = await site.core.wait_settled(revision, 0)
    assert [(host.name, host.state) for host in table] == [
        ("h1", Step.APPLIED),
        ("h2", Step.FAILED),
        ("h3", Step.NOT_CONNECTED),
    ]
    assert table[1].failures == {"endpoint/x": "the kernel said no"}
    await agents[2].hello(resume=True)
    assert (await site.core.wait_settled(revision, 0))[2].state is Step.LATE
    waiting = asyncio.create_task(site.core.wait_settled(revision, 5))
    await asyncio.sleep(0)
    await agents[2].report()
    assert [host.state for host in await waiting] == [Step.APPLIED, Step.FAILED, Step.APPLIED]
    status = site.core.status()
    assert [(host.name, host.connected, host.state) for host in status.hosts] == [
        (f"h{number}", True, None) for number in (1, 2, 3, 4)
    ]


async def test_those_that_lose_a_topic_are_concerned(site: Site) -> None:
    agent = await site.agent("h1")
    endpoint = await agent.attach("c")
    _, revision = await site.core.delete_endpoint(endpoint.id, "test")
    assert [host.state for host in await site.core.wait_settled(revision, 0)] == [Step.LATE]
    await agent.take()
    await agent.report()
    assert [host.state for host in await site.core.wait_settled(revision, 0)] == [Step.APPLIED]


async def test_a_revision_of_before_the_restart_concerns_everybody(site: Site) -> None:
    agent = await site.agent("h1")
    await site.agent("h2")
    await agent.attach("c")
    revision = site.core.revision
    await site.start()
    table: list[HostState] = await site.core.wait_settled(revision, 0)
    assert [(host.name, host.state) for host in table] == [("h1", Step.NOT_CONNECTED)]
    await agent.hello(resume=True)
    await agent.report()
    assert [host.state for host in await site.core.wait_settled(revision, 0)] == [Step.APPLIED]


async def test_what_a_host_had_applied_counts_no_more_once_it_begins_anew(site: Site) -> None:
    """Its agent restarted, or the machine did: it may have nothing, until it says that it applied the snapshot."""
    agent, other = await site.agent("h1"), await site.agent("h2")
    for one in (agent, other):
        await one.attach("c")
    await agent.take()
    for one in (agent, other):
        await one.report()
    revision = site.core.revision

    async def states() -> list[Step | None]:
        return [host.state for host in await site.core.wait_settled(Revision(revision), 0)]

    await other.hello(resume=True)
    assert await states() == [Step.APPLIED, Step.APPLIED], "who goes on has lost nothing"
    await other.hello()
    assert await states() == [Step.APPLIED, Step.LATE]


async def test_an_attachment_that_is_asked_for_again_waits_for_who_began_anew(site: Site) -> None:
    agent, other = await site.agent("h1"), await site.agent("h2")
    await other.attach("c")
    await agent.attach("c1")
    await other.take()
    await other.report()
    await agent.take()
    other.stream.closed()
    await other.hello()
    agent.inbox.clear()
    await agent.attach("c1")
    assert settled(agent) == []
    await other.report()
    await agent.take()
    assert [message.late for message in settled(agent)] == [()]


async def test_a_host_cannot_report_what_has_not_happened(site: Site) -> None:
    agent = await site.agent("h1")
    await agent.report(10_000)
    assert site.core.status().hosts[0].applied_revision == site.core.revision


async def test_waits_end_when_the_controller_stops(site: Site) -> None:
    agent = await site.agent("h1")
    await agent.attach("c")
    waiting = asyncio.create_task(site.core.wait_settled(site.core.revision, 60))
    following = asyncio.create_task(_count(site, site.core.revision))
    await asyncio.sleep(0)
    await site.core.close()
    async with asyncio.timeout(30):
        assert (await waiting)[0].state in (Step.LATE, Step.NOT_CONNECTED)
        await following


async def _count(site: Site, since: Revision) -> int:
    return len([event async for event in site.core.events(since)])


async def test_events_are_resumable(site: Site) -> None:
    agent = await site.agent("h1")
    for number in range(12):
        await agent.attach(f"c{number}")
    agent.stream.closed()
    await agent.hello()
    everything = [event async for event in site.core.events(Revision(0), follow=False)]
    assert len({event.id for event in everything}) == len(everything)
    kinds = [event.kind for event in everything]
    assert kinds[:4] == ["tenant.created", "network.created", "host.created", "host.connected"]
    assert kinds[-2:] == ["host.disconnected", "host.connected"]
    for position, event in enumerate(everything):
        after = site.core.events(Revision(event.revision), event.number, follow=False)
        assert [later async for later in after] == everything[position + 1 :]
    since = site.core.events(Revision(3), follow=False)
    assert [event async for event in since] == [event for event in everything if event.revision > 3]


async def test_events_go_on(site: Site) -> None:
    events = site.core.events(site.core.revision)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    await site.core.create_tenant(TenantSpec(name="blue"), "ann")
    event = await asyncio.wait_for(waiting, 30)
    assert (event.kind, event.actor, event.data["name"]) == ("tenant.created", "ann", "blue")
    agent = await site.agent("h1")
    agent.stream.closed()
    kinds = [(await asyncio.wait_for(anext(events), 30)).kind for _ in range(3)]
    assert kinds == ["host.created", "host.connected", "host.disconnected"]
