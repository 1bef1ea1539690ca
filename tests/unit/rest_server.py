"""A whole controller for tests of its edges: a real server on a unix socket and on loopback, a store in memory."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from sdn.controller.core import Core
from sdn.controller.edge import Edge
from sdn.controller.listen import Address, advertised
from sdn.controller.measured import MeasuredStore
from sdn.controller.metrics import Metrics
from sdn.controller.options import Options
from sdn.controller.server import serving
from sdn.controller.session import HostStream
from sdn.controller.tls import Identity, open_identity
from sdn.model.codec import encode_msgpack
from sdn.model.ids import HostId
from sdn.model.stream import Attached, AttachRequest, Down, Failed, Hello, Sync, Up, Welcome, down_decoder
from sdn.store.interface import Store
from sdn.store.memory import Disk, MemoryStore

NOW_S = 1_700_000_000.0
BASE = "http://hawse"


class Log:
    """Keeps what was logged, as (event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        """Keep it."""
        self.lines.append((event, fields))

    warning = error = info

    def named(self, event: str) -> list[dict[str, Any]]:
        """The fields of every line of that event."""
        return [fields for name, fields in self.lines if name == event]


@dataclasses.dataclass(slots=True)
class Answer:
    """A reply, read whole."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def revision(self) -> int:
        """Of the write."""
        return int(self.headers["hawse-revision"])


@dataclasses.dataclass(slots=True)
class Served:
    """A running controller and a session to its REST socket."""

    core: Core
    store: Store
    edge: Edge
    log: Log
    path: Path
    identity: Identity
    address: Address
    session: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str
    ) -> Answer:
        """One request; header names are given with underscores."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            raw, sent = msgspec.json.encode(body), {"Content-Type": "application/json", **sent}
        async with self.session.request(method, URL(BASE + path, encoded=True), data=raw, headers=sent) as response:
            content = await response.read()
            decoded = msgspec.json.decode(content) if "json" in response.content_type and content else content
            return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, decoded)


@contextlib.asynccontextmanager
async def running(directory: Path, options: Options | None = None, disk: Disk | None = None) -> AsyncIterator[Served]:
    """Start one, and stop it."""
    ticks = itertools.count()
    metrics, log, identity = Metrics(), Log(), open_identity(directory / "tls")
    store = MeasuredStore(MemoryStore(disk), metrics.commit_s.observe, lambda: 0.0)
    core = await Core.start(
        store,
        clock=lambda: NOW_S + next(ticks) / 1000,
        random_bits=random.Random(7).getrandbits,
        options=options or Options(),
    )
    edge, path = Edge(core, identity, log, metrics), directory / "s"
    try:
        async with serving(edge, path, [Address("127.0.0.1", 0)], identity.server_context()) as bound:
            edge.controllers = advertised((), bound)
            edge.ready = True
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
                yield Served(core, store, edge, log, path, identity, bound[0], session)
            await core.close()
    finally:
        await core.close()
        await store.close()


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
    """Wait for what the server does by itself, after a connection ended."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 the server has no event for its tests to wait on
            await asyncio.sleep(0.01)


class Agent:
    """An agent's side of a stream, message by message."""

    def __init__(self, stream: HostStream, host: str) -> None:
        self._stream = stream
        self._host = HostId(host)
        self._request = itertools.count(1)
        self.session = 0

    @classmethod
    async def connect(cls, core: Core, host: str, **facts: Any) -> Agent:
        """Say hello, and read up to the first sync."""
        agent = cls(core.connect(HostId(host)), host)
        hello = {"host": HostId(host), "incarnation": f"boot:{host}", "mtu_bytes": 1500, "vtep4": "192.0.2.1", **facts}
        await agent.say(Hello(**hello))
        welcome = await agent.hear(Welcome)
        agent.session = welcome.session
        await agent.hear(Sync)
        return agent

    async def say(self, message: Up) -> None:
        """Send."""
        await self._stream.receive(encode_msgpack(message))

    async def hear(self, kind: type[Any]) -> Any:
        """The next message of a kind; others are skipped."""
        while True:
            raw = await self._stream.outgoing()
            assert raw is not None, f"the stream ended before a {kind.__name__}"
            message: Down = down_decoder.msgpack(raw)
            if isinstance(message, kind):
                return message

    async def attach(self, network: str, container: str = "c1", **more: Any) -> Any:
        """Ask for an endpoint; the Attached or Failed."""
        request = AttachRequest(
            session=self.session,
            request=next(self._request),
            client="test",
            scope="",
            container=container,
            ifname="eth0",
            sandbox=hash(container) & 0xFFFF,
            network=network,
            **more,
        )
        await self.say(request)
        return await self.hear((Attached, Failed))  # type: ignore[arg-type]  # isinstance takes a tuple

    def close(self) -> None:
        """The connection is gone."""
        self._stream.closed()
