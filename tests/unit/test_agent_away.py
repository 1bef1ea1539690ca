"""The agent while the controller is away, when it comes back, and after a restart of the agent itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from plugin.agent.facts import HostFacts
from sdn.model.contract import CheckRequest, DelRequest, GcRequest, StatusRequest
from sdn.model.errors import HawseError, Kind
from sdn.model.stream import AttachRequest, Delta, DetachRequest, Facts, Hello, Problem, Refused, Sync
from tests.unit.agent_harness import NETWORK, OTHER_HOST, Agent, Controller, ManualClock, add, until


def delete(container: str) -> DelRequest:
    return DelRequest(client="cni", container=container, ifname="eth0")


async def test_away_nothing_is_added_and_everything_else_answers(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        await agent.core.attachments.add(add("a"), 11)
        await agent.core.attachments.add(add("b"), 12)
        controller.hang_up()
        await until(lambda: not agent.core.session.live)
        with pytest.raises(HawseError, match="try again") as caught:
            await agent.core.attachments.add(add("c"), 13)
        assert caught.value.kind is Kind.UNAVAILABLE
        with pytest.raises(HawseError, match="away") as caught:
            await agent.core.attachments.status(StatusRequest(client="cni"))
        assert caught.value.kind is Kind.UNAVAILABLE
        await agent.core.attachments.check(CheckRequest(client="cni", container="a", ifname="eth0"), 11)
        await agent.core.attachments.delete(delete("a"), 11)
        assert agent.ports() == {"b"}
        assert len(agent.journal.pending) == 1
        await agent.core.attachments.collect(GcRequest(client="cni"))
        assert agent.ports() == set()
        controller.reachable = True
        await until(lambda: controller.endpoints == {} and agent.journal.pending == {})
    assert (tmp_path / "journal").read_bytes() == b""


async def test_an_add_that_loses_the_controller_is_undone_when_it_is_back(tmp_path: Path) -> None:
    controller = Controller()
    controller.decides = False
    async with Agent(controller, tmp_path) as agent:
        adding = asyncio.create_task(agent.core.attachments.add(add("a"), 11))
        await until(lambda: controller.of(AttachRequest))
        lost = controller.make("a", "eth0", 11)  # committed, but the news never arrive
        controller.hang_up(reachable=True)
        with pytest.raises(HawseError) as caught:
            await adding
        assert caught.value.kind is Kind.UNAVAILABLE
        await until(lambda: controller.detached() == [lost.id])
        assert agent.ports() == set()
        controller.decides = True
        await agent.core.attachments.add(add("a"), 11)
        assert agent.ports() == {"a"}


async def test_the_controller_that_never_decides(tmp_path: Path) -> None:
    controller = Controller()
    controller.decides = False
    clock = ManualClock()
    async with Agent(controller, tmp_path, clock=clock) as agent:
        adding = asyncio.create_task(agent.core.attachments.add(add("a"), 11))
        await until(lambda: any(left > 9 for left in clock.waiting()))
        clock.advance(10)
        with pytest.raises(HawseError, match="within 10 s"):
            await adding


async def test_resume_says_what_is_here_and_continues(tmp_path: Path) -> None:
    controller = Controller()
    controller.resumes = True
    async with Agent(controller, tmp_path) as agent:
        await agent.core.attachments.add(add("a"), 11)
        known = controller.feed.revision
        controller.hang_up()
        controller.make("r", "eth0", 99, host=OTHER_HOST)
        revision = controller.advance()
        writes = agent.kernel.operations
        controller.reachable = True
        await until(lambda: controller.reports()[-1].revision == revision)
        hello = controller.of(Hello)[-1]
        assert isinstance(hello, Hello)
        assert hello.topics[f"network/{NETWORK.id}"] == known
        assert 0 < agent.kernel.operations - writes < 6, "only the new endpoint was written"


async def test_nothing_is_reported_before_the_snapshot(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        await agent.core.attachments.add(add("a"), 11)
        await until(controller.reports)
        controller.received.clear()
        controller.snapshots = False
        controller.hang_up(reachable=True)
        await until(lambda: agent.core.session.live and controller.of(Hello))
        agent.core.session.report()
        for _ in range(2):  # the first goes before a report that is due, the second after it
            agent.core.session.send(Facts(session=controller.session, mtu_bytes=1500))
            await until(lambda: controller.of(Facts))
            if not controller.reports():
                controller.received.clear()
        assert controller.reports() == [], "what this host had applied may be ahead of a store that was set back"
        controller.say(*controller.feed.snapshot(controller.state()))
        await until(controller.reports)
        assert controller.reports()[0].session == controller.session


async def test_what_does_not_fit_is_asked_for_anew(tmp_path: Path) -> None:
    controller = Controller()
    controller.resumes = True
    async with Agent(controller, tmp_path) as agent:
        await agent.core.attachments.add(add("a"), 11)
        controller.say(Delta(topic=f"network/{NETWORK.id}", previous=900, revision=901), Sync(revision=901))
        controller.reachable = True
        await until(lambda: len(controller.of(Hello)) == 2)
        hello = controller.of(Hello)[-1]
        assert isinstance(hello, Hello)
        assert hello.topics == {}
        await until(lambda: agent.core.session.live)
        assert agent.ports() == {"a"}


async def test_rubbish_on_the_stream_is_no_end(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        assert controller.channel is not None
        controller.channel.down.put_nowait(b"\xc1 rubbish")
        await until(lambda: len(controller.of(Hello)) == 2)
        await until(lambda: agent.core.session.live)


async def test_a_host_that_is_refused_says_so_and_waits(tmp_path: Path) -> None:
    controller = Controller()
    clock = ManualClock()
    async with Agent(controller, tmp_path, clock=clock) as agent:
        controller.reachable = False
        controller.say(Refused(problem=Problem(kind="denied", message="this host was forgotten", hint="join again")))
        await until(lambda: not agent.core.session.live)
        with pytest.raises(HawseError, match="forgotten; join again"):
            await agent.core.attachments.add(add("a"), 11)
        await until(lambda: 2.5 in clock.waiting())


async def test_back_off_grows_to_a_bound(tmp_path: Path) -> None:
    controller = Controller()
    controller.reachable = False
    clock = ManualClock()
    async with Agent(controller, tmp_path, clock=clock):
        waits = []
        for dial in range(1, 10):
            await until(lambda dial=dial: controller.dials == dial and clock.waiting())  # type: ignore[misc]
            waits.append(max(clock.waiting()))
            clock.advance(waits[-1])
        assert waits == sorted(waits)
        assert waits[0] == pytest.approx(0.05)
        assert waits[-1] == pytest.approx(2.5), "half of the bound: this test's chance is always 0"


async def test_a_controller_that_does_not_greet_is_left(tmp_path: Path) -> None:
    controller = Controller()
    controller.greets = False
    clock = ManualClock()
    agent = Agent(controller, tmp_path, clock=clock)
    await agent.core.start()
    running = asyncio.create_task(agent.core.run())
    await until(lambda: 10.0 in clock.waiting())
    assert not agent.core.session.live
    clock.advance(10)
    await until(lambda: agent.core.session.away.message.count("did not answer the hello"))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    agent.journal.close()


async def test_a_restart_keeps_what_is_there(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        await agent.core.attachments.add(add("a"), 11)
        await agent.core.attachments.add(add("b"), 12)
        kernel = agent.kernel
    gone = next(endpoint for endpoint in controller.endpoints.values() if endpoint.container == "b")
    kernel.lose_sandbox(12)
    before, writes = dict(kernel.objects), kernel.operations
    controller.reachable = False
    async with Agent(controller, tmp_path, kernel) as agent:
        assert kernel.objects == before
        assert kernel.operations == writes, "nothing is touched before the controller has spoken"
        controller.reachable = True
        await until(lambda: controller.detached() == [gone.id])
        assert agent.ports() == {"a"}
        hello = controller.of(Hello)[-1]
        assert isinstance(hello, Hello)
        assert hello.topics == {}


async def test_after_a_restart_without_a_controller_the_kernel_knows_enough(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        result = await agent.core.attachments.add(add("a"), 11)
        await agent.core.attachments.add(add("b"), 12)
        kernel = agent.kernel
    controller.reachable = False
    async with Agent(controller, tmp_path, kernel) as agent:
        await agent.core.attachments.check(CheckRequest(client="cni", container="a", ifname="eth0"), 11)
        with pytest.raises(HawseError, match="not known yet"):
            await agent.core.attachments.collect(GcRequest(client="cni"))
        with pytest.raises(HawseError, match="is in network default/db is not known before"):
            await agent.core.attachments.delete(DelRequest(client="cli", container="a", network="default/db"), 11)
        assert agent.ports() == {"a", "b"}
        assert (await agent.core.attachments.delete(delete("a"), 11)).endpoint == result.endpoint
        assert (await agent.core.attachments.delete(delete("a"), 11)).endpoint == ""
        assert agent.ports() == {"b"}
        with pytest.raises(HawseError, match="no attachment"):
            await agent.core.attachments.check(CheckRequest(client="cni", container="a", ifname="eth0"), 11)
        assert list(agent.journal.pending) == [result.endpoint]
    async with Agent(controller, tmp_path, kernel) as agent:  # and once more: the journal remembers
        assert list(agent.journal.pending) == [result.endpoint]
        controller.reachable = True
        await until(lambda: agent.journal.pending == {})
        assert controller.detached() == [result.endpoint]
        assert agent.ports() == {"b"}
        assert not any(key[-1].startswith("10.1.0.3") for key in kernel.objects), "what lay idle is gone"


async def test_a_release_that_is_under_way_does_not_come_back(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        await agent.core.attachments.add(add("a"), 11)
        await agent.core.attachments.add(add("b"), 12)
        controller.hang_up()
        await until(lambda: not agent.core.session.live)
        await agent.core.attachments.delete(delete("a"), None)
        kernel = agent.kernel
    controller.reachable = True
    controller.answers_detach = False
    async with Agent(controller, tmp_path, kernel) as agent:
        await until(lambda: agent.core.wiring.world.complete)
        assert agent.ports() == {"b"}
        assert len(controller.of(DetachRequest)) == 1


async def test_changed_facts_are_told_and_followed(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        await agent.core.attachments.add(add("a"), 11)
        facts = HostFacts("192.0.2.1", "2001:db8::1", 1400, ())
        agent.core.change_facts(facts)
        agent.core.change_facts(facts)
        await until(lambda: controller.of(Facts))
        assert controller.of(Facts) == [Facts(session=1, vtep4="192.0.2.1", vtep6="2001:db8::1", mtu_bytes=1400)]
        assert controller.dials == 1


@pytest.mark.parametrize("vtep4", ["192.0.2.7", None])
async def test_a_vtep_that_vanished_ends_the_channel_that_may_have_stood_on_it(
    tmp_path: Path, vtep4: str | None
) -> None:
    """What is said into a dead connection is heard by nobody: the next hello says it."""
    controller = Controller()
    controller.resumes = True
    async with Agent(controller, tmp_path) as agent:
        await agent.core.attachments.add(add("a"), 11)
        old = controller.channel
        assert old is not None
        agent.core.change_facts(HostFacts(vtep4, "2001:db8::7", 1500, ()))
        await until(lambda: controller.dials == 2 and agent.core.session.live)
        assert old.closed
        assert controller.of(Facts) == []
        hello = controller.of(Hello)[-1]
        assert isinstance(hello, Hello)
        assert (hello.vtep4, hello.vtep6) == (vtep4, "2001:db8::7")
        assert hello.topics
        vxlan = next(value for key, value in agent.kernel.objects.items() if key[0] == "vxlan")
        assert msgspec.to_builtins(vxlan)["local"] == (vtep4 or "2001:db8::7")


async def test_a_vtep_that_vanishes_while_the_controller_is_away(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        controller.hang_up()
        await until(lambda: not agent.core.session.live)
        agent.core.change_facts(HostFacts("192.0.2.7", None, 1500, ()))
        controller.reachable = True
        await until(lambda: agent.core.session.live)
        hello = controller.of(Hello)[-1]
        assert isinstance(hello, Hello)
        assert hello.vtep4 == "192.0.2.7"


async def test_a_vtep_that_vanishes_at_the_hello(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        controller.greets = False
        controller.hang_up(reachable=True)
        await until(lambda: len(controller.of(Hello)) == 2)
        agent.core.change_facts(HostFacts("192.0.2.7", None, 1500, ()))
        controller.greets = True
        await until(lambda: agent.core.session.live)
        hellos = controller.of(Hello)
        assert [hello.vtep4 for hello in hellos if isinstance(hello, Hello)] == ["192.0.2.1"] * 2 + ["192.0.2.7"]


async def test_an_old_sandbox_is_not_wired_into_a_new_one(tmp_path: Path) -> None:
    """The container came again in another namespace while its first attachment was never released."""
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        old = controller.make("a", "eth0", 5)
        with pytest.raises(HawseError):
            await agent.core.attachments.add(add("a"), 11)
        assert agent.kernel.insides == {}
        await until(lambda: old.id in controller.detached())
        await agent.core.attachments.add(add("a"), 11)
        assert set(agent.kernel.insides) == {(11, "eth0")}
