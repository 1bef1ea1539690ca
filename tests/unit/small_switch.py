"""A switch that is nothing but tables and ports, at the other end of a real connection; and a controller for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from sdn.controller.listen import Address, OpenflowAddress
from sdn.controller.steering.flows import lower
from sdn.controller.steering.listener import OpenflowListener
from sdn.controller.topics import snapshot
from sdn.model.errors import HawseError
from sdn.model.stream import Delta, Sync
from sdn.openflow import cookies, pipeline
from sdn.openflow.bundle import BundleAdd, BundleControl, Verb
from sdn.openflow.connection import Connection
from sdn.openflow.decode import Entry, entry_of
from sdn.openflow.encode import encode_add
from sdn.openflow.errors import Error
from sdn.openflow.events import Asked, Event
from sdn.openflow.expand import adds_of
from sdn.openflow.framing import Type
from sdn.openflow.messages import Features, Plain
from sdn.openflow.multipart import MultipartReply, MultipartRequest, Part
from sdn.openflow.notices import Port, PortChange, PortStatus
from sdn.openflow.objects import TUNNEL
from sdn.openflow.session import End
from sdn.reconcile.world import World
from sdn.store.memory import Disk
from tests.unit.openflow_objects import FOREIGN, Tables
from tests.unit.rest_server import Answer, Served, running

DATAPATH_ID = 0xA1
WAIT_S = 30.0
DELETE = 3
TABLE_FULL = (5, 1)
_STATS = struct.Struct(">HBxIIHHHH4xQQQ")
_PART_BYTES = 20_000
_delta = msgspec.msgpack.Decoder(Delta)
_DONE = {
    Verb.OPEN: Verb.OPENED,
    Verb.CLOSE: Verb.CLOSED,
    Verb.COMMIT: Verb.COMMITTED,
    Verb.DISCARD: Verb.DISCARDED,
}


class SmallSwitch:
    """`refuses`: flows that it does not take. `deaf`: it answers no barrier. `written`: flow-mods that were done."""

    def __init__(self, datapath_id: int = DATAPATH_ID, ports: tuple[str, ...] = ("hwvxlan",)) -> None:
        self.tables = Tables([FOREIGN])
        self.ports: dict[int, Port] = {}
        self.written = 0
        self.commits = 0
        self.deaf = False
        self.refuses: Callable[[Entry], bool] = lambda _: False
        self.connection: Connection | None = None
        self._features = Features(datapath_id)
        self._bundles: dict[int, list[bytes]] = {}
        for number, name in enumerate(ports, 1):
            self.ports[number] = Port(number, "0a:00:00:00:00:01", name)

    async def connect(self, port: int, tls: ssl.SSLContext | None = None) -> Connection:
        """To a controller on loopback."""
        connection = Connection(End.SWITCH, own=self._features, events=self._heard)
        await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", port, ssl=tls)
        self.connection = connection
        return connection

    async def leave(self) -> None:
        """End the connection."""
        assert self.connection is not None
        self.connection.close()
        await self.connection.wait_closed()

    def change(self, what: PortChange, number: int, name: str) -> None:
        """A port comes, goes or changes; who is connected is told."""
        port = Port(number, "0a:00:00:00:00:01", name)
        if what is PortChange.DELETED:
            del self.ports[number]
        else:
            self.ports[number] = port
        with contextlib.suppress(HawseError):  # it is not connected: it tells of all ports when it is
            if self.connection is not None:
                self.connection.send(PortStatus(what, port))

    def ours(self) -> set[tuple[Any, ...]]:
        """The flows of Hawse's, without counts."""
        found = (entry for entry in self.tables.told() if cookies.is_ours(entry.cookie))
        return {(e.table, e.priority, e.match, e.cookie, e.instructions) for e in found}

    def _heard(self, event: Event) -> None:
        if isinstance(event, Asked):
            self._answer(event.xid, event.message)

    def _answer(self, xid: int, message: Any) -> None:
        assert self.connection is not None
        match message:
            case MultipartRequest():
                parts = self._multipart(message)
                for place, data in enumerate(parts):
                    more = place < len(parts) - 1
                    self.connection.send(MultipartReply(message.part, data, int(more)), xid)
            case BundleControl():
                self._control(message)
                if not self.deaf:
                    self.connection.send(BundleControl(message.bundle, _DONE[message.verb]).message(), xid)
            case BundleAdd():
                self._add(xid, message)
            case Plain(Type.BARRIER_REQUEST) if not self.deaf:
                self.connection.send(Plain(Type.BARRIER_REPLY), xid)

    def _control(self, message: BundleControl) -> None:
        if message.verb is Verb.OPEN:
            self._bundles[message.bundle] = []
        elif message.verb in (Verb.COMMIT, Verb.DISCARD):
            staged = self._bundles.pop(message.bundle)
            if message.verb is Verb.COMMIT:
                self.commits += 1
                self.written += len(staged)
                for flow_mod in staged:
                    self._do(flow_mod)

    def _do(self, flow_mod: bytes) -> None:
        if flow_mod[25] != DELETE:
            self.tables.take([flow_mod])
            return
        cookie, mask = (int.from_bytes(flow_mod[at : at + 8], "big") for at in (8, 16))
        kept = [entry for entry in self.tables.told() if (entry.cookie ^ cookie) & mask]
        self.tables = Tables(kept)

    def _add(self, xid: int, message: BundleAdd) -> None:
        assert self.connection is not None
        if message.message[25] == 0 and self.refuses(entry_of(message.message)):
            self.connection.send(Error(*TABLE_FULL, message.message[:64]), xid)
        else:
            self._bundles[message.bundle].append(message.message)

    def _multipart(self, request: MultipartRequest) -> list[bytes]:
        match request.part:
            case Part.FLOW:
                cookie, mask = struct.unpack_from(">16xQQ", request.data)
                told = [_stats(e) for e in self.tables.told() if not (e.cookie ^ cookie) & mask]
                return _parts(told)
            case Part.PORT_DESCRIPTION:
                return [b"".join(port.encode() for port in self.ports.values())]
            case Part.PORT_STATS:
                return [b"".join(struct.pack(">I4xQQQQ72x", n, 1, 2, 3, 4) for n in self.ports)]
            case Part.DESCRIPTION:
                return [struct.pack("256s256s256s32s256s", b"Tests", b"Small \x1b[2J", b"1.0", b"", b"")]
            case Part.EXPERIMENTER:
                return [b""]  # it will tell of its flows: nobody else touches them
            case other:
                raise AssertionError(other)


def _stats(entry: Entry) -> bytes:
    size = _STATS.size + len(entry.match) + len(entry.instructions)
    head = _STATS.pack(size, entry.table, 1, 0, entry.priority, 0, 0, 0, entry.cookie, entry.packets, entry.bytes)
    return head + entry.match + entry.instructions


def _parts(told: list[bytes]) -> list[bytes]:
    parts = [b""]
    for one in told:
        if len(parts[-1]) + len(one) > _PART_BYTES:
            parts.append(b"")
        parts[-1] += one
    return parts


class Centre:
    """A controller that small switches connect to, plainly or in TLS; a network `web`."""

    def __init__(self, served: Served, listener: OpenflowListener, plain: int, secure: int) -> None:
        self.served = served
        self.listener = listener
        self.plain = plain
        self.secure = secure

    async def ask(self, method: str, path: str, body: Any = None, status: int | None = None) -> Any:
        """A request that has to succeed, or to have that status; the body of its reply."""
        answer: Answer = await self.served.ask(method, path, body)
        assert answer.status == status if status else answer.status < 300, answer
        return answer.body

    async def add(self, name: str = "s1", number: int = DATAPATH_ID, **more: Any) -> Any:
        """`switch add`."""
        spec = {"name": name, "datapath_id": f"{number:016x}", "vtep4": f"192.0.2.{number & 0xFF}", **more}
        return await self.ask("POST", "/v1/switches", spec)

    async def bind(self, port: str, network: str = "web", switch: str = "s1", **more: Any) -> Any:
        """`switch bind`."""
        return await self.ask("POST", f"/v1/switches/{switch}/ports", {"port": port, "network": network, **more})

    async def settled(self) -> list[dict[str, Any]]:
        """Wait until the switches that the last revision concerns are in step; how they are. Agents need not be."""
        path = f"/v1/status?revision={self.served.core.revision}&wait=0"
        switches = self.served.core.state.switches
        async with asyncio.timeout(WAIT_S):
            while True:
                hosts = [host for host in (await self.ask("GET", path))["hosts"] if host["id"] in switches]
                if all(host["state"] in ("applied", "failed") for host in hosts):
                    return hosts
                await asyncio.sleep(0.01)

    def expected(self, switch: SmallSwitch, name: str = "s1") -> set[tuple[Any, ...]]:
        """The flows that a switch should have, by the core's state alone. All that is bound must be a port of it."""
        state = self.served.core.state
        host = state.hosts[state.names.hosts[name]]
        world = World(host.id)
        world.begin(resumed=False)
        world.set_here(host.vtep4, host.vtep6)
        for topic in state.topics_of(host.id):
            for message in snapshot(topic, 1, state):
                world.apply(_delta.decode(message.data))
        world.apply(Sync(revision=1))
        numbers = {port.name: port.number for port in switch.ports.values()}
        numbers |= {TUNNEL: numbers[state.switches[host.id].tunnel_port]}
        objects = [lower(unit, world.context()) for unit in world.units()]
        messages = [m for each in objects for key, value in each.items() for m in adds_of(key, value, numbers)]
        messages += map(encode_add, pipeline.pipeline(numbers[TUNNEL]))
        told = map(entry_of, messages)
        return {(e.table, e.priority, e.match, e.cookie, e.instructions) for e in told}

    async def converged(self, switch: SmallSwitch, name: str = "s1") -> None:
        """Wait until it has what it should."""
        try:
            async with asyncio.timeout(WAIT_S):
                while switch.ours() != self.expected(switch, name):  # noqa: ASYNC110 it is a look from outside
                    await asyncio.sleep(0.01)
        except TimeoutError:
            there, wanted = switch.ours(), self.expected(switch, name)
            raise AssertionError(f"too much: {there - wanted}\nmissing: {wanted - there}") from None

    async def until(self, ready: Callable[[Any], bool], what: str, switch: str = "s1") -> Any:
        """Look at a switch, as the API shows it, until it is so."""
        shown: Any = None
        try:
            async with asyncio.timeout(WAIT_S):
                while not ready(shown := await self.ask("GET", f"/v1/switches/{switch}")):  # noqa: ASYNC110 from outside
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"it never came to this: {what}: {shown}; {self.served.log.lines[-5:]}") from None
        return shown

    async def connected(self, switch: SmallSwitch, name: str = "s1") -> Any:
        """Have it connect, plainly, and wait until it is programmed."""
        await switch.connect(self.plain)
        return await self.until(lambda shown: shown["connected"] and shown["applied_revision"], "connected", name)

    async def logged(self, event: str) -> dict[str, Any]:
        """Wait until the log says this; the fields of the first line that does."""
        async with asyncio.timeout(WAIT_S):
            while not (lines := self.served.log.named(event)):  # noqa: ASYNC110 it is a look from outside
                await asyncio.sleep(0.01)
        return lines[0]


@contextlib.asynccontextmanager
async def centre(directory: Path, disk: Disk | None = None) -> AsyncIterator[Centre]:
    """One, ended whatever happens."""
    async with running(directory, disk=disk) as served:
        listener = OpenflowListener(served.core, served.identity, served.edge.metrics, served.log)
        ports: list[int] = []
        for secure in (False, True):
            one = socket.create_server(("127.0.0.1", 0))
            listener.listen(one, OpenflowAddress(secure, Address(*one.getsockname())))
            ports.append(one.getsockname()[1])
        try:
            made = Centre(served, listener, ports[0], ports[1])
            if "web" not in {network.name for network in served.core.state.networks.values()}:
                await made.ask("POST", "/v1/networks", {"name": "web", "subnets": [{"prefix": "10.1.0.0/16"}]})
            yield made
        finally:
            await listener.close()
