"""One controller and several hosts in one process: the very cores of production, on kernels and disks in memory.

Everything that goes wrong is drawn from one seed: messages are delayed, connections cut, agents and the controller
killed, containers die, hosts reboot. What is killed keeps its disk (and, but for a reboot, its kernel).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from plugin.agent.core import AgentCore, Identity
from plugin.agent.facts import HostFacts
from plugin.agent.journal import Journal
from sdn.controller import topics
from sdn.controller.core import Core
from sdn.controller.options import Options
from sdn.controller.session import HostStream
from sdn.controller.specs import NetworkSpec, SubnetSpec, TenantSpec
from sdn.model.contract import AddRequest, DelRequest
from sdn.model.errors import HawseError, unavailable
from sdn.model.ids import HostId, Revision
from sdn.model.resources import Datapath
from sdn.model.stream import Delta, Sync, down_decoder
from sdn.reconcile.fake import FakeDatapath, FakeKernel
from sdn.reconcile.laws import expect_equal, lower_all
from sdn.reconcile.world import World
from sdn.store.memory import Disk, MemoryStore

NOW_S = 1_700_000_000.0
NETWORKS = ("web", "db", "blue/web")
CALM_S = 30.0
"""Virtual: longer than every backoff, timeout and pause there is but the reread of everything."""
DELAYS_S = (0.0, 0.0, 0.0, 0.0, 0.001, 0.02, 0.3)

Key = tuple[str, str, str]
"""(host name, container, interface name)."""


class Channel:
    """An agent's connection; messages take their time, in order, until it is cut."""

    def __init__(self, stream: HostStream, chance: random.Random) -> None:
        self._stream = stream
        self._chance = chance
        self._up: asyncio.Queue[bytes] = asyncio.Queue()
        self._down: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._lift()), asyncio.create_task(self._lower())]
        self.closed = False

    async def send(self, message: bytes) -> None:
        """See plugin.agent.channel.Channel."""
        if self.closed:
            raise ConnectionResetError("cut")
        self._up.put_nowait(message)

    async def receive(self) -> bytes | None:
        """See plugin.agent.channel.Channel."""
        return await self._down.get()

    async def close(self) -> None:
        """See plugin.agent.channel.Channel."""
        self.cut()

    def cut(self) -> None:
        """What is under way is lost."""
        if not self.closed:
            self.closed = True
            for task in self._tasks:
                task.cancel()
            self._stream.closed()
            self._down.put_nowait(None)

    async def _lift(self) -> None:
        while True:
            message = await self._up.get()
            await asyncio.sleep(self._chance.choice(DELAYS_S))
            await self._stream.receive(message)

    async def _lower(self) -> None:
        while (message := await self._stream.outgoing()) is not None:
            await asyncio.sleep(self._chance.choice(DELAYS_S))
            self._down.put_nowait(message)
        self._down.put_nowait(None)


class Namespaces:
    """A descriptor is its namespace's cookie."""

    def is_namespace(self, fd: int) -> bool:
        """See plugin.agent.attachments.Namespaces."""
        return fd > 0

    def cookie(self, fd: int) -> int:
        """See plugin.agent.attachments.Namespaces."""
        return fd

    def interfaces(self, fd: int) -> set[str]:
        """See plugin.agent.attachments.Namespaces."""
        return {"lo"}


@dataclasses.dataclass(slots=True)
class Container:
    """One that was made: `alive` until its namespace dies."""

    name: str
    cookie: int
    alive: bool = True


class SimHost:
    """A machine: its kernel, its journal, and an agent while one runs."""

    def __init__(self, simulation: Simulation, host: HostId, name: str, number: int) -> None:
        self._simulation = simulation
        self.id = host
        self.name = name
        self.boots = 1
        self.kernel = FakeKernel()
        self.facts = HostFacts(f"192.0.2.{number}", None, 1500, ())
        self.containers: list[Container] = []
        self.channel: Channel | None = None
        self.core: AgentCore | None = None
        self._run: asyncio.Task[None] | None = None
        self._journal: Journal | None = None

    async def start(self) -> None:
        """Start the agent, if none runs."""
        if self.core is not None:
            return
        self._journal = Journal.open(self._simulation.directory / self.name)
        self.core = AgentCore(
            Identity(self.id, f"boot{self.boots}:1", "1", Datapath.FAKE),
            self.facts,
            dial=self._dial,
            datapath=FakeDatapath(self.kernel),
            namespaces=Namespaces(),
            journal=self._journal,
            clock=asyncio.get_running_loop(),
            random=self._simulation.chance.random,
        )
        await self.core.start()
        self._run = asyncio.create_task(self.core.run())

    async def kill(self) -> None:
        """The agent is gone; kernel and journal stay."""
        if self._run is None or self._journal is None:
            return
        self.core = None
        self._run.cancel()
        await asyncio.gather(self._run, return_exceptions=True)
        if self.channel:
            self.channel.cut()
        self._journal.close()
        self._run = None

    async def reboot(self) -> None:
        """The kernel is new, every container gone."""
        await self.kill()
        self.boots += 1
        self.kernel = FakeKernel()
        for container in self.containers:
            container.alive = False
        await self.start()

    def die(self, container: Container) -> None:
        """A container's namespace dies."""
        container.alive = False
        self.kernel.lose_sandbox(container.cookie)

    async def _dial(self) -> Channel:
        core = self._simulation.core
        if core is None:
            raise unavailable("nobody listens")
        self.channel = Channel(core.connect(self.id), self._simulation.chance)
        self._simulation.channels.append(self.channel)
        return self.channel


class Simulation:
    """`wired`: what every ADD, DEL, death and forced release amount to so far; None: its outcome is not known."""

    def __init__(self, seed: int, directory: Path, hosts: int = 3) -> None:
        self.chance = random.Random(seed)
        self.directory = directory
        self.disk = Disk()
        self.core: Core | None = None
        self.hosts: list[SimHost] = []
        self.channels: list[Channel] = []
        self.wired: dict[Key, bool | None] = {}
        self.adds = 0
        self._hosts = hosts
        self._cookies = itertools.count(1)
        self._addresses = itertools.count(1)
        self._requests: set[asyncio.Task[None]] = set()
        self._busy: set[Key] = set()
        self._ended = 0
        """How often something was ended from outside."""

    # --- life ---

    async def begin(self) -> None:
        """A controller with three networks of two tenants, and hosts that are connected."""
        core = await self.start_controller()
        await core.create_tenant(TenantSpec(name="blue"), "sim")
        for reference, prefix in zip(NETWORKS, ("10.1.0.0/26", "10.2.0.0/26", "10.1.0.0/26"), strict=True):
            await core.put_network(reference, NetworkSpec(subnets=(SubnetSpec(prefix=prefix),)), None, "sim")
        for number in range(1, self._hosts + 1):
            host, _ = await core.create_host(f"h{number}", {}, "sim")
            self.hosts.append(SimHost(self, host.id, host.name, number))
            await self.hosts[-1].start()

    async def start_controller(self) -> Core:
        """Start it on what its disk has."""
        loop = asyncio.get_running_loop()
        self.core = await Core.start(
            MemoryStore(self.disk),
            clock=lambda: NOW_S + loop.time(),
            random_bits=self.chance.getrandbits,
            options=Options(lag_transactions=4, resume_changes=30),
        )
        return self.core

    def kill_controller(self) -> None:
        """It is gone, in the middle of whatever it did; its disk stays."""
        self.core = None
        for channel in self.channels:
            channel.cut()
        self.channels.clear()

    # --- one step ---

    async def step(self) -> None:
        """Something happens, then some time passes."""
        steps: tuple[tuple[int, Callable[[SimHost], Awaitable[None]]], ...] = (
            (20, self.add),
            (8, self.delete),
            (2, self.cut),
            (2, self.kill_agent),
            (2, self.death),
            (1, self.reboot),
            (1, self.restart_controller),
            (1, self.move),
            (1, self.force),
            (1, self.grow),
        )
        weights = [weight for weight, _ in steps]
        await self.chance.choices([step for _, step in steps], weights)[0](self.chance.choice(self.hosts))
        await asyncio.sleep(self.chance.choice((0.0, 0.0, 0.001, 0.05, 1.0, 5.0)))

    async def add(self, host: SimHost) -> None:
        """A new container, or an old one's ADD again."""
        if self.chance.random() < 0.8 or not host.containers:
            host.containers.append(Container(f"c{len(host.containers)}", next(self._cookies)))
        container = self.chance.choice(host.containers[-4:])
        if container.alive:
            self._start(host, container, self._add(host, container))

    async def delete(self, host: SimHost) -> None:
        """DEL, with or without the namespace."""
        if host.containers:
            container = self.chance.choice(host.containers)
            self._start(host, container, self._delete(host, container))

    def _start(self, host: SimHost, container: Container, request: Awaitable[None]) -> None:
        key = (host.name, container.name, "eth0")

        async def serve() -> None:
            with contextlib.suppress(HawseError):
                await request
            self._busy.discard(key)

        if key in self._busy or host.core is None:  # a runtime never asks twice at once
            request.close()  # type: ignore[attr-defined] # a coroutine that is not started
            return
        self._busy.add(key)
        task = asyncio.create_task(serve())
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _add(self, host: SimHost, container: Container) -> None:
        assert host.core is not None
        key = (host.name, container.name, "eth0")
        network = NETWORKS[container.cookie % len(NETWORKS)]
        request = AddRequest(client="sim", container=container.name, ifname="eth0", network=network)
        ended = self._ended
        self.wired[key] = None
        await host.core.attachments.add(request, container.cookie)
        self.adds += 1
        if self._ended == ended:  # else something may have ended it meanwhile
            self.wired[key] = True

    async def _delete(self, host: SimHost, container: Container) -> None:
        assert host.core is not None
        fd = container.cookie if container.alive and self.chance.random() < 0.5 else None
        key = (host.name, container.name, "eth0")
        self.wired[key] = None
        await host.core.attachments.delete(DelRequest(client="sim", container=container.name, ifname="eth0"), fd)
        self.wired[key] = False

    async def cut(self, host: SimHost) -> None:
        """The connection breaks."""
        if host.channel:
            host.channel.cut()

    async def kill_agent(self, host: SimHost) -> None:
        """The agent is killed, or comes back."""
        if host.core is None:
            await host.start()
        else:
            await host.kill()
            self._ended += 1
            self._forget_pending(host)

    async def death(self, host: SimHost) -> None:
        """A container's namespace dies without a DEL."""
        alive = [container for container in host.containers if container.alive]
        if alive:
            container = self.chance.choice(alive)
            host.die(container)
            self._end((host.name, container.name, "eth0"))

    async def reboot(self, host: SimHost) -> None:
        """The host loses everything but its journal."""
        await host.reboot()
        self._ended += 1
        self._forget_pending(host)
        for key in self.wired:
            if key[0] == host.name:
                self.wired[key] = False

    def _end(self, key: Key) -> None:
        """It is over, unless a request is under way, which may come before or after."""
        self.wired[key] = None if key in self._busy else False
        self._ended += 1

    def _forget_pending(self, host: SimHost) -> None:
        """Requests to an agent that was killed are answered by nobody."""
        for key in [key for key in self._busy if key[0] == host.name]:
            if self.wired.get(key) is not False:
                self.wired[key] = None

    async def restart_controller(self, _: SimHost) -> None:
        """It is killed, and away for a while."""
        self.kill_controller()
        await asyncio.sleep(self.chance.choice((0.0, 0.1, 3.0)))
        await self.start_controller()

    async def move(self, host: SimHost) -> None:
        """The host's underlay address changes."""
        host.facts = dataclasses.replace(host.facts, vtep4=f"198.51.{next(self._addresses)}.1")
        if host.core is not None:
            host.core.change_facts(host.facts)

    async def force(self, _: SimHost) -> None:
        """A person releases an endpoint: it is not wired again."""
        assert self.core is not None
        if self.core.state.endpoints:
            endpoint = self.core.state.endpoints[self.chance.choice(list(self.core.state.endpoints))]
            name = self.core.state.hosts[endpoint.host].name
            self._end((name, endpoint.container, endpoint.ifname))
            await self.core.delete_endpoint(endpoint.id, "sim")

    async def grow(self, _: SimHost) -> None:
        """A network gets a subnet more."""
        assert self.core is not None
        await self.core.add_subnet("db", SubnetSpec(prefix="fd00:2::/64"), "sim")

    # --- the end ---

    async def calm(self) -> None:
        """Everybody runs, nothing goes wrong any more."""
        for host in self.hosts:
            await host.start()
        await asyncio.sleep(CALM_S)
        assert not self._requests, "every request has been answered"

    async def end(self) -> None:
        """Stop everything."""
        for host in self.hosts:
            await host.kill()
        if self.core is not None:
            await self.core.close()
        self.kill_controller()

    def check(self) -> None:
        """Every kernel is what the controller's state says, and that is what the requests amount to."""
        assert self.core is not None
        state = self.core.state
        there = {(state.hosts[one.host].name, one.container, one.ifname) for one in state.endpoints.values()}
        wanted = {key for key, wired in self.wired.items() if wired}
        unknown = {key for key, wired in self.wired.items() if wired is None}
        assert wanted <= there, f"lost: {sorted(wanted - there)}"
        assert there <= wanted | unknown, f"left over: {sorted(there - wanted - unknown)}"
        status = {host.name: host for host in self.core.status().hosts}
        for host in self.hosts:
            assert status[host.name].connected
            assert status[host.name].failures == {}
            expect_equal(host.kernel.objects, self._expected(host), f"the kernel of {host.name}")
            insides = {(cookie, name): inside.endpoint for (cookie, name), inside in host.kernel.insides.items()}
            mine = [one for one in state.endpoints.values() if one.host == host.id]
            assert insides == {(one.sandbox, one.ifname): one.id for one in mine}

    def _expected(self, host: SimHost) -> dict[tuple[str, ...], object]:
        """What a host that starts from nothing would be told, lowered at once."""
        assert self.core is not None
        state = self.core.state
        world = World(host.id)
        world.set_here(host.facts.vtep4, host.facts.vtep6)
        world.begin(resumed=False)
        for topic in state.topics_of(host.id):
            for message in topics.snapshot(topic, state.revision, state):
                delta = down_decoder.msgpack(message.data)
                assert isinstance(delta, Delta)
                world.apply(delta)
        world.apply(Sync(revision=Revision(state.revision)))
        return dict(lower_all(FakeDatapath(), world.units(), world.context()))
