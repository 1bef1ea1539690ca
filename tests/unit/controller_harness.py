"""A controller's core on a store in memory, and agents that keep what they are sent and object to what does not fit."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable
from typing import Any, TypeVar

import msgspec
import pytest

from sdn.controller.core import Core
from sdn.controller.options import Options
from sdn.controller.session import HostStream
from sdn.controller.specs import NetworkSpec, SubnetSpec
from sdn.controller.topics import items_of
from sdn.model.codec import encode_msgpack
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import HostId, NetworkId
from sdn.model.resources import Endpoint
from sdn.model.stream import (
    Answer,
    Attached,
    AttachRequest,
    Delta,
    Detached,
    DetachRequest,
    Down,
    Drop,
    Facts,
    Failed,
    Hello,
    Query,
    Refused,
    Report,
    Settled,
    Sync,
    Up,
    Welcome,
    down_decoder,
)
from sdn.store.interface import Store
from sdn.store.memory import Disk, MemoryStore

M = TypeVar("M")
NOW_S = 1_700_000_000.0


async def start(store: Store, options: Options | None = None, seed: int = 0) -> Core:
    """A core whose clock ticks a millisecond a call and whose chance is seeded."""
    ticks = itertools.count()
    chance = random.Random(seed)
    return await Core.start(
        store,
        clock=lambda: NOW_S + next(ticks) / 1000,
        random_bits=chance.getrandbits,
        options=options or Options(settle_s=0.05),
    )


class Site:
    """One controller that can be killed and started again on what it left on its disk."""

    def __init__(self, options: Options | None = None) -> None:
        self.disk = Disk()
        self.store = MemoryStore(self.disk)
        self.options = options
        self.core: Core
        self.starts = 0

    async def start(self) -> Site:
        """Start, or start again; streams and soft state are lost."""
        self.starts += 1
        self.store = MemoryStore(self.disk)
        self.core = await start(self.store, self.options, self.starts)
        return self

    async def network(self, name: str = "web", *prefixes: str, tenant: str = "", **more: Any) -> NetworkId:
        """The id of a new network."""
        subnets = tuple(SubnetSpec(prefix=prefix) for prefix in prefixes or ("10.1.0.0/24",))
        network, _ = await self.core.create_network(
            NetworkSpec(name=name, tenant=tenant, subnets=subnets, **more), "test"
        )
        return network.id

    async def network_auto(self, name: str, **more: Any) -> NetworkId:
        """The id of a new network whose subnets the controller chooses."""
        return (await self.core.create_network(NetworkSpec(name=name, **more), "test"))[0].id

    async def agent(self, name: str, number: int = 0, **hello: Any) -> Agent:
        """A new host whose agent has said hello; `number` makes its VTEP."""
        host, _ = await self.core.create_host(name, {}, "test")
        agent = Agent(self, host.id, {"vtep4": f"192.0.2.{number or self.starts + len(self.core.state.hosts)}"} | hello)
        await agent.hello()
        return agent


class Agent:
    """One host. Takes everything that is there after each of its messages; `topics` is what was applied."""

    def __init__(self, site: Site, host: HostId, facts: dict[str, Any]) -> None:
        self.site = site
        self.host = host
        self.facts: dict[str, Any] = {"incarnation": "boot:1", "mtu_bytes": 1500} | facts
        self.session = 0
        self.revision = 0
        self.topics: dict[str, dict[str, Any]] = {}
        self.revisions: dict[str, int] = {}
        self.inbox: list[Down] = []
        self.wire_bytes = 0
        self.stream: HostStream
        self._staged: list[Delta | Drop] = []
        self._requests = itertools.count(1)

    async def hello(self, resume: bool = False, **change: Any) -> list[Down]:
        """A new stream; with `resume` it goes on from what was applied."""
        self.facts |= change
        self.stream = self.site.core.connect(self.host)
        self._staged.clear()
        topics = dict(self.revisions) if resume else {}
        return await self.say(Hello(host=self.host, topics=topics, **self.facts))

    async def say(self, message: Up) -> list[Down]:
        """Send it; what came back."""
        await self.stream.receive(encode_msgpack(message))
        return await self.take()

    async def take(self) -> list[Down]:
        """Everything that is there now."""
        came: list[Down] = []
        while len(self.stream.box) or self.stream.box.lagging:
            data = await self.stream.outgoing()
            assert data is not None
            came.append(down_decoder.msgpack(data))
            if isinstance(came[-1], Delta | Drop | Sync):
                self.wire_bytes += len(data)
            self._handle(came[-1])
        self.inbox += came
        return came

    def _handle(self, message: Down) -> None:
        match message:
            case Welcome():
                self.session = message.session
                if not message.resumed:
                    self.topics, self.revisions = {}, {}
            case Delta() | Drop():
                self._staged.append(message)
            case Sync():
                assert message.revision >= self.revision or self.session == 0
                self._apply()
                self.revision = message.revision
            case _:
                pass

    def _apply(self) -> None:
        for message in self._staged:
            if isinstance(message, Drop):
                self.topics.pop(message.topic, None)
                self.revisions.pop(message.topic, None)
                continue
            if message.previous == 0:
                self.topics[message.topic] = {}
            else:
                assert self.revisions[message.topic] == message.previous, message
            content = self.topics[message.topic]
            for key in message.deletes:
                content.pop(key, None)
            for key, raw in message.puts.items():
                content[key] = msgspec.msgpack.decode(bytes(raw))
            self.revisions[message.topic] = message.revision
        self._staged.clear()

    async def ask(self, kind: type[M], message: Up) -> M:
        """A request and its answer. Raises what a Failed says."""
        return only(kind, await self.say(message))

    async def attach(self, container: str, network: str = "web", ifname: str = "eth0", **more: Any) -> Endpoint:
        """Raises: HawseError, as the controller refused it."""
        request = AttachRequest(
            session=self.session,
            request=next(self._requests),
            client="test",
            scope="",
            container=container,
            ifname=ifname,
            network=network,
            **{"sandbox": 7} | more,
        )
        return (await self.ask(Attached, request)).endpoint

    async def detach(self, *endpoints: str, reason: str = "") -> Detached:
        """Release by id."""
        message = DetachRequest(
            session=self.session,
            request=next(self._requests),
            endpoints=endpoints,  # type: ignore[arg-type] # ids are text here
            reason=reason,
        )
        return await self.ask(Detached, message)

    async def report(self, revision: int | None = None, failures: dict[str, str] | None = None) -> None:
        """All up to `revision` (None: the last Sync) was attempted."""
        reached = self.revision if revision is None else revision
        await self.say(Report(session=self.session, revision=reached, failures=failures or {}))

    async def change(self, **facts: Any) -> list[Down]:
        """The host's facts are different now."""
        self.facts |= facts
        kept = {key: self.facts[key] for key in ("vtep4", "vtep6", "mtu_bytes", "routes") if key in self.facts}
        return await self.say(Facts(session=self.session, **kept))

    async def answer(self, value: Any) -> None:
        """Reply to the query that has come."""
        (query,) = [message for message in await self.take() if isinstance(message, Query)]
        await self.say(Answer(request=query.request, value=value))

    def expected(self) -> dict[str, dict[str, Any]]:
        """What the state says that this host should have."""
        state = self.site.core.state
        return {
            topic: {key: msgspec.msgpack.decode(encode_msgpack(value)) for key, value in items_of(topic, state)}
            for topic in state.topics_of(self.host)
        }


def only(kind: type[M], messages: list[Down]) -> M:
    """The one message of a kind. Raises what a Failed or Refused says."""
    for message in messages:
        if isinstance(message, Failed | Refused):
            problem = message.problem
            raise HawseError(Kind(problem.kind), problem.message, hint=problem.hint, facts=problem.facts)
    (found,) = [message for message in messages if isinstance(message, kind)]
    return found


async def refused(kind: Kind, wrong: Awaitable[object]) -> HawseError:
    """The error, which must be of this kind and say what to do."""
    with pytest.raises(HawseError) as caught:
        await wrong
    assert caught.value.kind is kind, caught.value
    assert caught.value.message
    return caught.value


async def until_settled(agent: Agent) -> Settled:
    """The next Settled: it comes by a timer."""
    async with asyncio.timeout(30):
        while True:
            data = await agent.stream.outgoing()
            assert data is not None
            message = down_decoder.msgpack(data)
            agent._handle(message)
            if isinstance(message, Settled):
                return message
