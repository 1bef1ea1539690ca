"""ADD, DEL, CHECK, GC and STATUS on the agent's core, with the controller there."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from plugin.agent.core import GONE
from sdn.model.contract import AddRequest, CheckRequest, DelRequest, GcRequest, Handover, StatusRequest
from sdn.model.errors import HawseError, Kind
from sdn.model.stream import Answer, AttachRequest, DetachRequest, Problem, Query, Report, Settled
from sdn.reconcile.datapath import DropCount
from tests.unit.agent_harness import NETWORK, OTHER_HOST, Agent, Controller, ManualClock, add, until


async def test_an_attachment_is_wired_when_it_is_answered(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        result = await agent.core.attachments.add(add("a"), 11)
        assert result.addresses == ("10.1.0.3/24",)
        assert result.gateways == ("10.1.0.1",)
        assert (result.mtu_bytes, result.sandbox, result.ifname, result.late) == (1450, 11, "eth0", ())
        assert agent.kernel.insides[11, "eth0"].addresses == ("10.1.0.3/24",)
        await until(lambda: controller.reports() and controller.reports()[-1].revision == result.revision)
        await agent.core.attachments.check(CheckRequest(client="cni", container="a", ifname="eth0"), 11)


async def test_the_same_again_is_the_same(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        first = await agent.core.attachments.add(add("a"), 11)
        writes = agent.kernel.operations
        again = await agent.core.attachments.add(add("a"), 11)
        assert again.endpoint == first.endpoint
        assert agent.kernel.operations == writes


async def test_same_container_one_after_another_others_side_by_side(tmp_path: Path) -> None:
    controller = Controller()
    controller.decides = False
    async with Agent(controller, tmp_path) as agent:
        waiting = [asyncio.create_task(agent.core.attachments.add(add(name), 11 + n)) for n, name in enumerate("aab")]
        await until(lambda: len(controller.of(AttachRequest)) == 2)
        controller.decides = True
        asked = [request for request in controller.received if isinstance(request, AttachRequest)]
        assert [request.container for request in asked] == ["a", "b"]
        for request in asked:
            controller.attach(request)
        results = await asyncio.gather(*waiting)
        assert results[0].endpoint == results[1].endpoint != results[2].endpoint
        assert agent.ports() == {"a", "b"}


async def test_the_controllers_reason_passes_through(tmp_path: Path) -> None:
    controller = Controller()
    controller.problem = Problem(
        kind="exhausted", message="web has 1000 endpoints here", hint="h", facts={"limit": 1000}
    )
    async with Agent(controller, tmp_path) as agent:
        with pytest.raises(HawseError) as caught:
            await agent.core.attachments.add(add("a"), 11)
        assert (caught.value.kind, caught.value.message, caught.value.hint, caught.value.facts) == (
            Kind.EXHAUSTED,
            "web has 1000 endpoints here",
            "h",
            {"limit": 1000},
        )


async def test_what_cannot_be_wired_is_released_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        create = agent.kernel.create

        def refuse(key: tuple[str, ...], object_: object, offered: object) -> None:
            if key[0] == "port":
                raise OSError(errno.EEXIST, "eth0 exists in the namespace")
            create(key, object_, offered)  # type: ignore[arg-type] # passed on as it came

        monkeypatch.setattr(agent.kernel, "create", refuse)
        with pytest.raises(HawseError, match="eth0 exists in the namespace"):
            await agent.core.attachments.add(add("a"), 11)
        assert len(controller.detached()) == 1
        assert controller.endpoints == {}
        assert agent.ports() == set()
        assert agent.journal.pending == {}
        monkeypatch.undo()
        await agent.core.attachments.add(add("a"), 11)
        assert agent.ports() == {"a"}


async def test_late_hosts_are_named_after_the_bound(tmp_path: Path) -> None:
    controller = Controller()
    controller.settles = False
    clock = ManualClock()
    async with Agent(controller, tmp_path, clock=clock) as agent:
        adding = asyncio.create_task(agent.core.attachments.add(add("a"), 11))
        await until(lambda: any(abs(left - 0.02) < 1e-9 for left in clock.waiting()))
        assert not adding.done()
        clock.advance(0.02)
        assert (await adding).late == ("h2",)
        assert (await agent.core.attachments.add(add("b", settle_ms=0), 12)).late == ()


async def test_who_the_controller_calls_late(tmp_path: Path) -> None:
    controller = Controller()
    controller.settles = False
    async with Agent(controller, tmp_path, clock=ManualClock()) as agent:
        adding = asyncio.create_task(agent.core.attachments.add(add("a"), 11))
        await until(lambda: agent.ports() == {"a"})
        request = controller.of(AttachRequest)[0]
        assert isinstance(request, AttachRequest)
        controller.say(Settled(request=request.request, revision=2, late=("h9",)))
        assert (await adding).late == ("h9",)


async def test_names_are_found_where_none_were_given(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        agent.namespaces.names[11] = {"eth0"}
        result = await agent.core.attachments.add(AddRequest(client="cli", network="web"), 11)
        assert result.ifname == "eth1"
        assert agent.ports() == {"netns-11"}
        await agent.core.attachments.delete(DelRequest(client="cli", network="default/web"), 11)
        assert agent.ports() == set()


async def test_detach_leaves_what_is_in_another_network(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        result = await agent.core.attachments.add(add("a", "eth0"), 11)
        for ifname in ("", "eth0"):
            other = DelRequest(client="cli", container="a", ifname=ifname, network="default/db")
            assert (await agent.core.attachments.delete(other, 11)).endpoint == ""
        assert agent.ports() == {"a"}
        said = DelRequest(client="cli", container="a", ifname="eth0", network="default/web")
        gone = await agent.core.attachments.delete(said, 11)
        assert (gone.endpoint, gone.ifname, gone.addresses) == (result.endpoint, "eth0", result.addresses)
        assert agent.ports() == set()


async def test_detach_without_a_name_needs_one_candidate(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        await agent.core.attachments.add(add("a", "eth0"), 11)
        await agent.core.attachments.add(add("a", "eth1"), 11)
        with pytest.raises(HawseError, match="eth0, eth1") as caught:
            await agent.core.attachments.delete(DelRequest(client="cli", container="a", network="web"), None)
        assert caught.value.kind is Kind.CONFLICT


@pytest.mark.parametrize(
    ("request_", "fd", "sentence"),
    [
        (add("a"), None, "without the container's namespace"),
        (add("a"), -5, "not of a network namespace"),
        (add("a", "a name/"), 11, "not a name for an interface"),
        (add("a", "x" * 16), 11, "not a name for an interface"),
        (AddRequest(client="docker", container="a", ifname="e", network="web", handover=Handover.HOST), 11, "hands"),
    ],
)
async def test_a_wrong_request_is_refused(tmp_path: Path, request_: AddRequest, fd: int | None, sentence: str) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        with pytest.raises(HawseError, match=sentence) as caught:
            await agent.core.attachments.add(request_, fd)
        assert caught.value.kind is Kind.INVALID
        assert controller.of(AttachRequest) == []


async def test_detach_is_local_first_then_told_and_repeatable(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        result = await agent.core.attachments.add(add("a"), 11)
        controller.answers_detach = False
        deleting = asyncio.create_task(
            agent.core.attachments.delete(DelRequest(client="cni", container="a", ifname="eth0"), 11)
        )
        await until(lambda: controller.detached() == [result.endpoint])
        assert agent.ports() == set()
        assert (11, "eth0") not in agent.kernel.insides
        assert not deleting.done()
        controller.answers_detach = True
        detach = controller.of(DetachRequest)[0]
        assert controller.channel is not None
        controller.handle(controller.channel, detach)
        await deleting
        assert agent.journal.pending == {}
        await agent.core.attachments.delete(DelRequest(client="cni", container="a", ifname="eth0"), None)
        await agent.core.attachments.delete(DelRequest(client="cni", container="unknown", ifname="eth0"), -5)


async def test_gc_stays_in_its_scope(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        for number, (name, scope) in enumerate([("a", "x"), ("b", "x"), ("c", "y")]):
            await agent.core.attachments.add(add(name, scope=scope), 11 + number)
        await agent.core.attachments.collect(GcRequest(client="cni", scope="x", valid=(("a", "eth0"),)))
        assert agent.ports() == {"a", "c"}
        assert {endpoint.container for endpoint in controller.endpoints.values()} == {"a", "c"}


async def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        await agent.core.attachments.add(add("a"), 11)
        request = CheckRequest(client="cni", container="a", ifname="eth0")
        with pytest.raises(HawseError, match="not the namespace") as caught:
            await agent.core.attachments.check(request, 12)
        assert caught.value.kind is Kind.CONFLICT
        agent.kernel.insides.clear()
        with pytest.raises(HawseError, match="no eth0"):
            await agent.core.attachments.check(request, 11)
        with pytest.raises(HawseError, match="no attachment eth9") as caught:
            await agent.core.attachments.check(CheckRequest(client="cni", container="a", ifname="eth9"), 11)
        assert caught.value.kind is Kind.NOT_FOUND


async def test_a_namespace_that_dies_is_released(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        result = await agent.core.attachments.add(add("a"), 11)
        agent.kernel.lose_sandbox(11)
        await until(lambda: controller.detached() == [result.endpoint])
        detach = controller.of(DetachRequest)[0]
        assert isinstance(detach, DetachRequest)
        assert detach.reason == GONE
        await until(lambda: agent.journal.pending == {})
        with pytest.raises(HawseError, match="no attachment"):
            await agent.core.attachments.check(CheckRequest(client="cni", container="a", ifname="eth0"), None)


async def test_an_endpoint_elsewhere_is_wired_and_reported(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        await agent.core.attachments.add(add("a"), 11)
        remote = controller.make("r", "eth0", 99, host=OTHER_HOST)
        revision = controller.advance()
        await until(lambda: controller.reports()[-1].revision == revision)
        assert ("tunnel", remote.tenant, NETWORK.id, remote.mac) in agent.kernel.objects


async def test_transactions_that_come_together_cost_one_report(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        await agent.core.attachments.add(add("a"), 11)
        await until(lambda: controller.reports()[-1].revision == controller.feed.revision)
        before = len(controller.of(Report))
        for number in range(20):
            controller.make(f"r{number}", "eth0", 100 + number, host=OTHER_HOST)
            controller.advance()
        await until(lambda: controller.reports()[-1].revision == controller.feed.revision)
        assert len(controller.of(Report)) == before + 1


async def test_questions(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        agent.kernel.drop_counts.append(DropCount("t", "n", "spoofed-mac", 3, 180))
        controller.say(Query(request=1, what="drops"), Query(request=2, what="version"), Query(request=3, what="x"))
        await until(lambda: len(controller.of(Answer)) == 3)
        answers = {message.request: message for message in controller.received if isinstance(message, Answer)}
        assert answers[1].value == [{"tenant": "t", "network": "n", "cause": "spoofed-mac", "packets": 3, "bytes": 180}]
        assert answers[2].value == "1"
        problem = answers[3].problem
        assert problem is not None
        assert problem.kind == "invalid"


async def test_status(tmp_path: Path) -> None:
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        status = await agent.core.attachments.status(StatusRequest(client="cni"))
        assert status["revision"] == controller.feed.revision
