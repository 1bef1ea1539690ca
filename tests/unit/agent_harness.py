"""A controller that does as it is told, for the agent's core: channels in memory, no sockets, no real time needed."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from plugin.agent.attachments import Namespaces
from plugin.agent.channel import Cancellable, Channel, Clock
from plugin.agent.core import AgentCore, Identity
from plugin.agent.facts import HostFacts
from plugin.agent.journal import Journal
from sdn.model.codec import encode_msgpack
from sdn.model.contract import AddRequest
from sdn.model.errors import unavailable
from sdn.model.ids import EndpointId, HostId, NetworkId, TenantId
from sdn.model.resources import Datapath, Endpoint, Member, Network, Subnet, Tenant
from sdn.model.stream import (
    Attached,
    AttachRequest,
    Detached,
    DetachRequest,
    Down,
    Failed,
    Hello,
    Problem,
    Report,
    Settled,
    Up,
    Welcome,
    up_decoder,
)
from sdn.reconcile.datapath import Sandbox
from sdn.reconcile.fake import FakeDatapath, FakeKernel
from sdn.reconcile.state import Feed, State
from sdn.reconcile.unit import Here

HOST = HostId("0" * 25 + "1")
OTHER_HOST = HostId("0" * 25 + "2")
TENANT = Tenant(id=TenantId("0" * 25 + "3"), name="default")
NETWORK = Network(
    id=NetworkId("0" * 25 + "4"),
    tenant=TENANT.id,
    name="web",
    vni=7,
    subnets=(Subnet(prefix="10.1.0.0/24", gateway="10.1.0.1"),),
    mtu_bytes=1450,
)
HERE = Here(HOST, "192.0.2.1", None)
FACTS = HostFacts("192.0.2.1", None, 1500, ("192.0.2.0/24",))


async def until(condition: Callable[[], object]) -> None:
    """Wait for it, at most five seconds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 many kinds of condition, one bounded wait
            await asyncio.sleep(0.001)


class MemoryChannel:
    """The agent's end; what it sends is handled by the controller before `send` returns."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.down: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.closed = False

    async def send(self, message: bytes) -> None:
        if self.closed:
            raise ConnectionResetError("closed")
        self._controller.handle(self, up_decoder.msgpack(message))

    async def receive(self) -> bytes | None:
        return await self.down.get()

    async def close(self) -> None:
        self.closed = True
        self.down.put_nowait(None)


class Controller:
    """One network `web`; allocates 10.1.0.2 and on. Switches say how it misbehaves."""

    def __init__(self) -> None:
        self.feed = Feed()
        self.endpoints: dict[EndpointId, Endpoint] = {}
        self.received: list[Up] = []
        self.channel: MemoryChannel | None = None
        self.session = 0
        self.dials = 0
        self.reachable = True
        self.greets = True
        self.resumes = False
        self.snapshots = True
        self.answers_detach = True
        self.settles = True
        self.decides = True
        self.problem: Problem | None = None
        self.missed: list[Down] = []

    async def dial(self) -> Channel:
        self.dials += 1
        if not self.reachable:
            raise unavailable("cannot reach https://controller: refused")
        self.channel = MemoryChannel(self)
        return self.channel

    def hang_up(self, reachable: bool = False) -> None:
        """The connection breaks; `reachable`: the next dial succeeds."""
        self.reachable = reachable
        channel, self.channel = self.channel, None
        assert channel is not None
        channel.closed = True
        channel.down.put_nowait(None)

    def say(self, *messages: Down) -> None:
        if self.channel is None:
            self.missed += messages
            return
        for message in messages:
            self.channel.down.put_nowait(encode_msgpack(message))

    def state(self) -> State:
        endpoints = tuple(self.endpoints.values())
        hosts = {endpoint.host for endpoint in endpoints}
        members = (
            Member(host=HOST, name="h1", vtep4="192.0.2.1", mtu_bytes=1500),
            Member(host=OTHER_HOST, name="h2", vtep4="192.0.2.2", mtu_bytes=1500),
        )
        if HOST not in hosts:
            return State("empty", HERE)
        return State("web", HERE, (TENANT,), (NETWORK,), tuple((NETWORK.id, member) for member in members), endpoints)

    def advance(self) -> int:
        """What changed, as one transaction; the revision."""
        self.say(*self.feed.advance(self.state()))
        return self.feed.revision

    def handle(self, channel: MemoryChannel, message: Up) -> None:
        self.received.append(message)
        match message:
            case Hello() if self.greets:
                self.session += 1
                resumed = self.resumes and bool(message.topics)
                self.say(
                    Welcome(host=HOST, name="h1", session=self.session, revision=self.feed.revision, resumed=resumed)
                )
                missed, self.missed = self.missed, []
                if resumed or self.snapshots:
                    self.say(*(missed if resumed else self.feed.snapshot(self.state())))
            case AttachRequest() if self.decides:
                self.attach(message)
            case DetachRequest() if self.answers_detach:
                for endpoint in message.endpoints:
                    self.endpoints.pop(endpoint, None)
                self.say(Detached(request=message.request, revision=self.advance()))
            case _:
                pass

    def attach(self, request: AttachRequest) -> None:
        if self.problem is not None:
            self.say(Failed(request=request.request, problem=self.problem))
            return
        key = (request.container, request.ifname)
        known = [e for e in self.endpoints.values() if (e.container, e.ifname) == key and e.host == HOST]
        if known:
            endpoint, revision = known[0], self.feed.revision
        else:
            endpoint = self.make(request.container, request.ifname, request.sandbox, request.client, request.scope)
            revision = self.advance()
        self.say(
            Attached(request=request.request, revision=revision, endpoint=endpoint, network=NETWORK, tenant=TENANT)
        )
        if self.settles:
            self.say(Settled(request=request.request, revision=revision))

    def make(
        self, container: str, ifname: str, sandbox: int, client: str = "cni", scope: str = "", host: HostId = HOST
    ) -> Endpoint:
        """An endpoint, not yet told to the host."""
        number = 2 + sum(1 for message in self.received if isinstance(message, AttachRequest)) + len(self.endpoints)
        endpoint = Endpoint(
            id=EndpointId(f"{number:026d}"),
            host=host,
            incarnation="boot:1",
            sandbox=sandbox,
            container=container,
            ifname=ifname,
            tenant=TENANT.id,
            network=NETWORK.id,
            mac=f"0a:00:0a:01:00:{number:02x}",
            addresses=(f"10.1.0.{number}/24",),
            client=client,
            scope=scope,
        )
        self.endpoints[endpoint.id] = endpoint
        return endpoint

    def of(self, kind: type[Up]) -> list[Up]:
        """What came of one kind."""
        return [message for message in self.received if isinstance(message, kind)]

    def reports(self) -> list[Report]:
        return [message for message in self.received if isinstance(message, Report)]

    def detached(self) -> list[str]:
        return [id_ for message in self.received if isinstance(message, DetachRequest) for id_ in message.endpoints]


class FakeNamespaces:
    """A descriptor is its namespace's cookie."""

    def __init__(self) -> None:
        self.names: dict[int, set[str]] = {}

    def is_namespace(self, fd: int) -> bool:
        return fd > 0

    def open(self, fd: int) -> Sandbox:
        return Sandbox(fd, fd)

    def interfaces(self, fd: int) -> set[str]:
        return {"lo", *self.names.get(fd, set())}


@dataclasses.dataclass(slots=True)
class _Timer:
    due_s: float
    callback: Callable[[], object]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """Time passes when the test says so; what is due at once fires at the next turn of the loop."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timers: list[_Timer] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Cancellable:
        timer = _Timer(self.now_s + delay, lambda: callback(*args))
        self.timers.append(timer)
        if delay <= 0:
            asyncio.get_running_loop().call_soon(self.advance, 0)
        return timer

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        due = [timer for timer in self.timers if timer.due_s <= self.now_s]
        self.timers = [timer for timer in self.timers if timer.due_s > self.now_s]
        for timer in sorted(due, key=lambda timer: timer.due_s):
            if not timer.cancelled:
                timer.callback()

    def waiting(self) -> list[float]:
        """How long each live timer still has."""
        return [timer.due_s - self.now_s for timer in self.timers if not timer.cancelled]


class Agent:
    """A core that runs, on a kernel that outlives it."""

    def __init__(
        self, controller: Controller, directory: Path, kernel: FakeKernel | None = None, clock: Clock | None = None
    ) -> None:
        self.controller = controller
        self.kernel = kernel if kernel is not None else FakeKernel()
        self.datapath = FakeDatapath(self.kernel)
        self.namespaces = FakeNamespaces()
        self.journal = Journal.open(directory / "journal")
        checked: Namespaces = self.namespaces
        self.core = AgentCore(
            Identity(HOST, "boot:1", "1", Datapath.FAKE),
            FACTS,
            dial=controller.dial,
            datapath=self.datapath,
            namespaces=checked,
            journal=self.journal,
            clock=clock if clock is not None else asyncio.get_running_loop(),
            random=lambda: 0.0,
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Agent:
        await self.core.start()
        self._task = asyncio.create_task(self.core.run())
        async with asyncio.timeout(30):
            await self.core.first_contact()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.journal.close()
        self.datapath.close()

    def ports(self) -> set[str]:
        """The containers that have a port in the kernel."""
        return {port.container for port in self.datapath.local_ports(self.kernel.objects)}


def add(container: str, ifname: str = "eth0", settle_ms: int | None = None, scope: str = "") -> AddRequest:
    return AddRequest(client="cni", scope=scope, container=container, ifname=ifname, network="web", settle_ms=settle_ms)
