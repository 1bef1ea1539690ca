"""What fails half way leaves nothing: ADDs whose reply is lost, releases that are not taken at once, ports cut off."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from plugin.agent.releases import AGAIN_S
from sdn.model.contract import DelRequest
from sdn.model.errors import HawseError, Kind
from sdn.model.stream import AttachRequest, DetachRequest, Failed, Problem, Up
from sdn.reconcile.datapath import Key
from sdn.reconcile.fake import FakeKernel
from sdn.reconcile.fake_objects import FakeObject
from tests.unit.agent_harness import Agent, Controller, ManualClock, MemoryChannel, add, until


class Forgetful(Controller):
    """Commits and tells of it, but the replies get lost; or does not take releases."""

    def __init__(self) -> None:
        super().__init__()
        self.replies = True
        self.takes = True

    def handle(self, channel: MemoryChannel, message: Up) -> None:
        if isinstance(message, AttachRequest) and not self.replies:
            self.received.append(message)
            self.make(message.container, message.ifname, message.sandbox, message.client, message.scope)
            self.advance()
        elif isinstance(message, DetachRequest) and not self.takes:
            self.received.append(message)
            problem = Problem(kind=Kind.UNAVAILABLE.value, message="the disk is full")
            self.say(Failed(request=message.request, problem=problem))
        else:
            super().handle(channel, message)


def delete(container: str) -> DelRequest:
    return DelRequest(client="cni", container=container, ifname="eth0")


async def test_an_add_that_was_wired_before_its_reply_was_lost_leaves_nothing(tmp_path: Path) -> None:
    controller = Forgetful()
    controller.replies = False
    async with Agent(controller, tmp_path) as agent:
        adding = asyncio.create_task(agent.core.attachments.add(add("a"), 11))
        await until(lambda: agent.ports() == {"a"})
        controller.hang_up(reachable=True)
        with pytest.raises(HawseError, match="away"):
            await adding
        assert agent.ports() == set()
        await until(lambda: controller.endpoints == {} and not agent.journal.pending)


async def test_a_repeated_add_that_fails_takes_nothing_away(tmp_path: Path) -> None:
    controller = Forgetful()
    async with Agent(controller, tmp_path) as agent:
        await agent.core.attachments.add(add("a"), 11)
        controller.problem = Problem(kind="conflict", message="it is attached to another network")
        with pytest.raises(HawseError, match="another network"):
            await agent.core.attachments.add(add("a"), 11)
        assert agent.ports() == {"a"}
        assert controller.detached() == []


async def test_a_release_that_is_not_taken_is_sent_again(tmp_path: Path) -> None:
    controller, clock = Forgetful(), ManualClock()
    async with Agent(controller, tmp_path, clock=clock) as agent:
        await agent.core.attachments.add(add("a", settle_ms=0), 11)
        controller.takes = False
        await agent.core.attachments.delete(delete("a"), 11)
        assert agent.ports() == set()
        assert len(agent.journal.pending) == 1
        controller.takes = True
        clock.advance(AGAIN_S)
        await until(lambda: controller.endpoints == {} and not agent.journal.pending)


async def test_an_add_after_a_release_that_was_not_taken(tmp_path: Path) -> None:
    """The release goes first, so that the attachment does not meet what it replaces."""
    controller, clock = Forgetful(), ManualClock()
    async with Agent(controller, tmp_path, clock=clock) as agent:
        first = await agent.core.attachments.add(add("a", settle_ms=0), 11)
        controller.takes = False
        await agent.core.attachments.delete(delete("a"), 11)
        with pytest.raises(HawseError, match="released meanwhile; try again") as caught:
            await agent.core.attachments.add(add("a", settle_ms=0), 11)
        assert caught.value.kind is Kind.UNAVAILABLE
        controller.takes = True
        second = await agent.core.attachments.add(add("a", settle_ms=0), 11)
        assert second.endpoint != first.endpoint
        assert agent.ports() == {"a"}


async def test_a_port_severed_while_it_is_read_stays_gone(tmp_path: Path) -> None:
    """A DEL before the first snapshot, in the middle of a read that saw the port: the read is older than the DEL."""
    controller = Controller()
    async with Agent(controller, tmp_path) as agent:
        await agent.core.attachments.add(add("a"), 11)
        kernel = agent.kernel
    controller.reachable = False
    async with Agent(controller, tmp_path, kernel) as agent:
        reconciler = agent.core.wiring.reconciler
        read = agent.datapath.read
        saw, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(work: object) -> object:
            assert callable(work)
            result = work()
            saw.set()
            await go_on.wait()
            return result

        reconciler._offload = slowly  # type: ignore[assignment] # a read whose end the test decides
        reading = asyncio.create_task(reconciler.full(agent.core.wiring.world))
        await saw.wait()
        await agent.core.attachments.delete(delete("a"), None)
        assert agent.ports() == set()
        go_on.set()
        await reading
        assert ports(reconciler.mirror) == ports(read()) == set()
        assert isinstance(kernel, FakeKernel)


def ports(objects: dict[Key, FakeObject]) -> set[Key]:
    return {key for key in objects if key[0] == "port"}
