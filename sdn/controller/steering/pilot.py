"""The pilot: what an agent is to its host, for one connected switch, in the controller's own process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from sdn.controller.core import Core
from sdn.controller.plan_hosts import WORD_CHARACTERS_MAX
from sdn.controller.session import HostStream, error_of, problem_of
from sdn.controller.steering.answering import Answering
from sdn.controller.steering.datapath import DROPS, DROPS_MASK, SwitchDatapath
from sdn.controller.steering.ports import PORTS_MAX, PortTable, counters_request
from sdn.controller.switches import PortCounts
from sdn.model.codec import encode_msgpack
from sdn.model.errors import HawseError, exhausted, unavailable
from sdn.model.explanation import Explanation, FlowTable
from sdn.model.ids import EndpointId
from sdn.model.resources import Datapath, Host, Switch
from sdn.model.stream import (
    Answer,
    Credentials,
    Delta,
    Down,
    Drop,
    Hello,
    Query,
    Refused,
    Report,
    Sync,
    Up,
    Welcome,
    down_decoder,
)
from sdn.openflow.connection import Connection
from sdn.openflow.errors import RefusedError
from sdn.openflow.events import Event, Update
from sdn.openflow.messages import Configuration
from sdn.openflow.multipart import monitor_request
from sdn.openflow.notices import PortStatus
from sdn.openflow.tables import FRAGMENTS_WITH_PORTS
from sdn.openflow.updates import tells_of_ours
from sdn.reconcile.loop import Reconciler
from sdn.reconcile.unit import Context, Unit, UnitKey, key_text
from sdn.reconcile.world import World

T = TypeVar("T")
SLICE_UNITS = 200
"""Units that are lowered in one turn of the controller's loop: others wait some milliseconds."""
PURGE_TIMEOUT_S = 3.0
FOREIGN_PAUSE_S = 0.5
"""From the first foreign change of our flows to a look at all: whoever goes on changing them keeps nobody busy."""


class Unfinished:
    """A world of which a part is still to be looked at: nothing is removed for its sake. See reconcile.loop.Source."""

    complete = False

    def __init__(self, world: World) -> None:
        self._world = world

    def unit(self, key: UnitKey) -> Unit | None:
        """One unit, or None when it is not there."""
        return self._world.unit(key)

    def unit_keys(self) -> Iterable[UnitKey]:
        """The key of every unit."""
        return self._world.unit_keys()

    def context(self) -> Context:
        """What lowering may look at."""
        return self._world.context()


class Pilot:
    """One per connection; `run` is its life, `heard` gets what the switch says by itself."""

    def __init__(self, core: Core, host: Host, switch: Switch, connection: Connection) -> None:
        self.peer = connection.peer
        self._core = core
        self._host = host
        self._tunnel = switch.tunnel_port
        self._connection = connection
        self._world = World(host.id)
        self._ports = PortTable(host.name)
        self._early: list[PortStatus] | None = []
        """What comes before the list of all ports has; then None."""
        self._bound: dict[EndpointId, str] = {}
        self._clash = False
        self._before: list[int | None] | None = None
        """The numbers of the ports that count, from before what is heard in this turn."""
        self._foreign: asyncio.TimerHandle | None = None
        networks = self._world.context().networks
        self._datapath = SwitchDatapath(connection, host.name, switch.tunnel_port, self._ports, networks)
        self._reconciler = Reconciler(
            self._datapath, on_gone=lambda _: None, offload=self._offload, on_failures=self._tell
        )
        self._session = 0
        self._reached = 0
        self._news = asyncio.Event()
        self._tasks = asyncio.TaskGroup()

    # --- what others want of it: see switches.Connected ---

    def number_of(self, port: str) -> int | None:
        """By name or number."""
        return self._ports.number_of(port)

    async def ports(self) -> list[PortCounts]:
        """With their counters."""
        return self._ports.counted(await self._connection.multipart(counters_request()))

    async def purge(self) -> None:
        """Take everything of ours off the switch, and write nothing more."""
        try:
            async with asyncio.timeout(PURGE_TIMEOUT_S):
                await self._datapath.clear()
        except TimeoutError:
            raise unavailable(f"switch {self._host.name} does not answer", "") from None

    def heard(self, event: Event) -> None:
        """Something that the switch says by itself."""
        if isinstance(event, PortStatus):
            self._heard_of_port(event)
        elif isinstance(event, Update) and self._foreign is None and tells_of_ours(event.data):
            self._foreign = asyncio.get_running_loop().call_later(FOREIGN_PAUSE_S, self._look_again)

    def _look_again(self) -> None:
        self._foreign = None
        self._reconciler.drifted(None)

    def _heard_of_port(self, event: PortStatus) -> None:
        if self._early is not None:
            self._early.append(event)
            if len(self._early) > PORTS_MAX:
                self._connection.close(exhausted(f"switch {self._host.name} tells of ports without an end", ""))
            return
        if self._before is None:
            self._before = self._numbers()
            asyncio.get_running_loop().call_soon(self._judge_ports)
        self._ports.apply(event)

    def _judge_ports(self) -> None:
        """Once for all that was heard in one turn: a switch whose ports flap must not busy the controller."""
        before, self._before = self._before, None
        self._datapath.renamed(self._by_age())
        if self._numbers() != before:
            self._reconciler.drifted(None)

    def _by_age(self) -> list[str]:
        """The ports that are bound, from the oldest endpoint on: ids grow with time."""
        return [self._bound[id_] for id_ in sorted(self._bound)]

    def _numbers(self) -> list[int | None]:
        return [self._ports.number_of(reference) for reference in (self._tunnel, *self._bound.values())]

    # --- its life ---

    async def run(self) -> None:
        """Until the switch, or the host's stream, is gone. Raises: HawseError, saying why it ended."""
        connected, id_ = self._core.switches.connected, self._host.id
        stream: HostStream | None = None
        try:
            version = await self._prepare()
            stream = self._core.connect(id_)
            connected[id_] = self
            async with self._tasks as tasks:
                work = (self._datapath.pump(), self._follow(stream), self._report(stream))
                for one in (*work, self._reconciler.run(self._world), self._end()):
                    tasks.create_task(one)
                await self._say(stream, self._hello(version))
        except BaseExceptionGroup as group:
            error = next(_leaves(group), None)
            if error is None:
                raise
            raise error from None
        finally:
            if connected.get(id_) is self:
                del connected[id_]
            if stream is not None:
                stream.closed()
            if self._foreign is not None:
                self._foreign.cancel()
            self._datapath.close()
            self._connection.close()

    async def _prepare(self) -> str:
        """What the switch has, ports and flows, before anything is wanted of it; what it calls itself."""
        self._connection.send(Configuration(FRAGMENTS_WITH_PORTS))
        description = await self._connection.description()
        for port in await self._connection.port_desc():
            self._ports.put(port)
        with contextlib.suppress(RefusedError):  # an older Open vSwitch cannot tell: a read finds it some time
            await self._connection.multipart(monitor_request(1))
        early, self._early = self._early, None
        for status in early or ():
            self._ports.apply(status)
        self._bound = {one.id: one.ifname for one in self._core.state.endpoints_of(host=self._host.id)}
        self._datapath.renamed(self._by_age())
        await self._reconciler.start()
        text = f"{description.hardware} {description.software}"
        return "".join(c for c in text if c.isprintable()).strip()[:WORD_CHARACTERS_MAX]

    async def _end(self) -> None:
        """Ends all that goes on here once the switch is gone."""
        await self._connection.wait_closed()
        raise self._connection.error or unavailable(f"switch {self._host.name} is let go", "")

    async def _offload(self, read: Callable[[], T]) -> T:
        """A read: the dump of flows, for which nobody blocks, then the making sense of it, in a thread."""
        await self._datapath.look()
        return await asyncio.to_thread(read)

    # --- what the core says ---

    def _hello(self, version: str) -> Hello:
        return Hello(
            host=self._host.id,
            incarnation=self._host.incarnation,
            version=version,
            vtep4=self._host.vtep4,
            vtep6=self._host.vtep6,
            mtu_bytes=self._host.mtu_bytes,
            datapath=Datapath.OPENFLOW,
        )

    async def _say(self, stream: HostStream, message: Up) -> None:
        await stream.receive(encode_msgpack(message))

    async def _follow(self, stream: HostStream) -> None:
        """Until it says no more."""
        while (data := await stream.outgoing()) is not None:
            await self._handle(stream, down_decoder.msgpack(data))
        self._connection.close()

    async def _handle(self, stream: HostStream, message: Down) -> None:
        match message:
            case Welcome():
                self._session = message.session
                self._world.begin(message.resumed)
                self._world.set_here(self._host.vtep4, self._host.vtep6)
            case Delta() | Drop() | Sync():
                applied = self._world.apply(message)
                if applied is not None:
                    await self._reconcile(list(applied.dirty))
                    self._reached = applied.revision
                    self._tell()
            case Query() | Credentials():
                self._tasks.create_task(self._answer(stream, message))
            case Refused():
                self._connection.close(error_of(message.problem))
            case _:  # replies to what only agents ask
                pass

    async def _reconcile(self, units: list[UnitKey]) -> None:
        """In slices: other hosts' streams, and REST, have their turn between them."""
        self._note_bound(units)
        while len(units) > SLICE_UNITS:
            self._reconciler.reconcile(units[:SLICE_UNITS], Unfinished(self._world))
            units = units[SLICE_UNITS:]
            await asyncio.sleep(0)
        self._reconciler.reconcile(units, self._world)

    def _note_bound(self, units: Iterable[UnitKey]) -> None:
        changed = False
        if not self._reached:  # what was bound as the flows were read may not be any more
            self._bound = {one.id: one.ifname for one in self._world.local_endpoints()}
            changed = True
        for kind, id_ in units:
            endpoint = self._world.endpoint(EndpointId(id_)) if kind == "endpoint" else None
            if endpoint is not None and endpoint.host == self._host.id:
                changed |= self._bound.get(endpoint.id) != endpoint.ifname
                self._bound[endpoint.id] = endpoint.ifname
            elif kind == "endpoint":
                changed |= self._bound.pop(EndpointId(id_), None) is not None
        if changed:
            clashed, self._clash = self._clash, self._ports.clash(self._bound.values())
            self._datapath.renamed(self._by_age())
            if clashed or self._clash:  # who has the port may be another one now
                self._reconciler.drifted(None)

    async def _answer(self, stream: HostStream, message: Query | Credentials) -> None:
        try:
            value = await self._value(message)
        except HawseError as error:
            await self._say(stream, Answer(request=message.request, problem=problem_of(error)))
        else:
            await self._say(stream, Answer(request=message.request, value=value))

    async def _value(self, message: Query | Credentials) -> object:
        """Raises: UNAVAILABLE."""
        what = message.what if isinstance(message, Query) else ""
        if what == "drops":
            return self._datapath.count_drops(await self._datapath.dump(DROPS, DROPS_MASK))
        if isinstance(message, Query) and what in ("explain", "flows"):
            return await self._look_up(message)
        raise unavailable(f"{self._host.name} is a switch without an agent: nobody there can do this", "")

    async def _look_up(self, query: Query) -> Explanation | FlowTable:
        """Raises: INVALID, UNAVAILABLE."""
        entries, counts = await self._datapath.dump(), await self.ports()
        networks = list(self._world.context().networks.values())
        known = Answering(entries, self._ports, self._tunnel, self._bound, networks)
        if query.what == "flows":
            return await asyncio.to_thread(known.flows, query.flows)
        drops = self._datapath.count_drops(entries)
        return await asyncio.to_thread(known.explanation, query.questions, counts, drops)

    # --- what it is told ---

    def _tell(self) -> None:
        self._news.set()

    async def _report(self, stream: HostStream) -> None:
        """How far the switch is: what was queued for a revision is done, or its refusal is known."""
        told: tuple[int, dict[str, str]] | None = None
        while True:
            await self._news.wait()
            self._news.clear()
            reached = self._reached
            await self._datapath.settled()
            while self._datapath.take_refused():
                await self._reconciler.work(self._world)  # reads, and so learns what failed
                await self._datapath.settled()
            failures = {key_text(unit): failure.text for unit, failure in self._reconciler.failures.items()}
            if reached and (reached, failures) != told:
                told = reached, failures
                await self._say(stream, Report(session=self._session, revision=reached, failures=failures))


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[HawseError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        elif isinstance(error, HawseError):
            yield error
