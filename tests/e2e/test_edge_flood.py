"""Strangers at a real controller, in numbers: hosts' streams go on, who belongs here gets in, and nothing is left."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import re
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sdn.model.codec import encode_msgpack
from sdn.model.stream import Attached, AttachRequest, Failed, Hello, Sync, Welcome, down_decoder, unpack_frame
from sdn.service.trust import unverified_context, verifying_context
from tests.e2e import test_controller_process as processes
from tests.e2e.test_controller_process import Controller

PATIENCE_S = 30.0
SERIAL = itertools.count(1)
BEAT_S = 0.05
HEADERS = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "
BODY = b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"
RSS_GROWTH_MB_MAX = 150
"""Of 1024 connections with whatever they hold at once; an allocator keeps some of it."""
OWN_DESCRIPTORS = 200


class Host:
    """One that follows a network, as an agent does, but for the kernel."""

    def __init__(self, stream: aiohttp.ClientWebSocketResponse, network: str) -> None:
        self._stream = stream
        self._network = network
        self._received: collections.deque[bytes] = collections.deque()
        self._id = 0
        self._count = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, credential: dict[str, Any], network: str) -> AsyncIterator[Host]:
        """Up to the first sync."""
        headers = {"Authorization": f"Bearer {credential['host']}:{credential['secret']}"}
        url = f"{credential['controllers'][0]}/v1/stream"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, ssl=verifying_context(credential["authority"]), headers=headers) as stream,
        ):
            one = cls(stream, network)
            hello = Hello(
                host=credential["host"], incarnation="boot:1", mtu_bytes=1500, vtep4=f"192.0.2.{next(SERIAL)}"
            )
            await stream.send_bytes(encode_msgpack(hello))
            one._id = (await one.hear(lambda message: isinstance(message, Welcome))).session
            await one.hear(lambda message: isinstance(message, Sync))
            yield one

    async def hear(self, wanted: Callable[[Any], bool]) -> Any:
        """The next message that is wanted."""
        while True:
            while not self._received:
                self._received.extend(unpack_frame(await self._stream.receive_bytes(timeout=PATIENCE_S)))
            message = down_decoder.msgpack(self._received.popleft())
            if wanted(message):
                return message

    async def attach(self) -> int:
        """One more container; the revision of it."""
        self._count += 1
        request = AttachRequest(
            session=self._id,
            request=self._count,
            client="test",
            scope="",
            container=f"c{self._count}",
            ifname="eth0",
            sandbox=self._count,
            network=self._network,
        )
        await self._stream.send_bytes(encode_msgpack(request))
        answer = await self.hear(lambda message: isinstance(message, Attached | Failed))
        assert isinstance(answer, Attached), answer
        return answer.revision


class Fleet:
    """Two hosts whose network changes, and the credential of a third (`late`) that has yet to come."""

    def __init__(self, one: Host, two: Host, late: dict[str, Any], network: str) -> None:
        self._one = one
        self._two = two
        self.late = late
        self._network = network

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, running: Controller) -> AsyncIterator[Fleet]:
        """Both follow the network."""
        number = next(SERIAL)
        network = f"web{number}"
        subnets = [{"prefix": f"10.{number}.0.0/16"}]
        await asyncio.to_thread(running.client.post, "/v1/networks", {"name": network, "subnets": subnets})
        credentials = [await minted(running, f"{name}{number}") for name in ("one", "two", "late")]
        async with Host.connected(credentials[0], network) as one, Host.connected(credentials[1], network) as two:
            await two.attach()
            await one.attach()
            yield cls(one, two, credentials[2], network)

    async def beat(self) -> None:
        """What happens on one is told to the other."""
        revision = await self._one.attach()
        await self._two.hear(lambda message: isinstance(message, Sync) and message.revision >= revision)

    async def joined(self) -> None:
        """The third comes, and is one of them."""
        async with Host.connected(self.late, self._network) as newcomer:
            await newcomer.attach()
            await self.beat()


async def minted(running: Controller, name: str) -> dict[str, Any]:
    """A new host's credential."""
    await asyncio.to_thread(running.client.post, "/v1/hosts", {"name": name})
    body: dict[str, Any] = (await asyncio.to_thread(running.client.post, f"/v1/hosts/{name}/credential")).body
    return body


@contextlib.contextmanager
def many_descriptors() -> Iterator[int]:
    """As many as this process may have; how many of them connections may take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield hard - OWN_DESCRIPTORS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def source(number: int) -> tuple[str, int]:
    """An address to come from: sixteen in turn."""
    return f"127.0.{number % 16 + 1}.1", 0


class Crowd:
    """Connections that are opened, say something, and stay."""

    def __init__(self, credential: dict[str, Any]) -> None:
        host, _, port = credential["controllers"][0].removeprefix("https://").rpartition(":")
        self._where = host, int(port)
        self._sockets: list[socket.socket] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self, number: int, says: bytes) -> None:
        """So many more, without TLS."""
        loop = asyncio.get_running_loop()
        for each in range(number):
            one = socket.socket()
            self._sockets.append(one)
            one.setblocking(False)
            one.bind(source(each))
            with contextlib.suppress(OSError):
                await loop.sock_connect(one, self._where)
                if says:
                    one.send(says)

    async def open_tls(self, number: int, says: bytes) -> None:
        """So many more, with it."""
        context = unverified_context()
        for first in range(0, number, 50):
            found = await asyncio.gather(
                *(self._open_tls(context, each, says) for each in range(first, min(number, first + 50)))
            )
            self._writers += [writer for writer in found if writer is not None]

    async def _open_tls(self, context: ssl.SSLContext, each: int, says: bytes) -> asyncio.StreamWriter | None:
        try:
            _, writer = await asyncio.open_connection(*self._where, ssl=context, local_addr=source(each))
        except OSError:  # displaced
            return None
        writer.write(says)
        return writer

    def close(self) -> None:
        """All are gone."""
        for one in self._sockets:
            one.close()
        for writer in self._writers:
            writer.transport.abort()


def metrics(running: Controller) -> str:
    raw = running.client.get("/metrics").body
    return raw.decode() if isinstance(raw, bytes) else str(raw)


def numbers(running: Controller) -> dict[str, float]:
    """The metrics of connections."""
    found = re.findall(r'^hawse_connections(?:_open|_total)?\{\w+="([\w ]+)"\} (\S+)$', metrics(running), re.MULTILINE)
    return collections.defaultdict(float, {name: float(value) for name, value in found})


def failures(running: Controller) -> float:
    """Authentications that failed."""
    found = re.search(r"^hawse_authentication_failures_total (\S+)$", metrics(running), re.MULTILINE)
    assert found
    return float(found[1])


def rss_mb(running: Controller) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{running.process.pid}/status").read_text())
    assert found
    return int(found[1]) / 1000


def descriptors(running: Controller) -> int:
    return len(list(Path(f"/proc/{running.process.pid}/fd").iterdir()))


async def quiet(running: Controller, descriptors_before: int) -> None:
    """Wait until nobody but the fleet is connected."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await asyncio.to_thread(numbers, running)
            if found["unproven"] == 0 and descriptors(running) <= descriptors_before:
                return
            await asyncio.sleep(0.1)


async def flood(running: Controller, number: int, tls: bool, says: bytes) -> dict[str, float]:
    """A crowd comes while a fleet works; the numbers while it is there."""
    async with Fleet.connected(running) as fleet:
        await fleet.beat()
        before, memory_mb = descriptors(running), rss_mb(running)
        crowd = Crowd(fleet.late)
        try:
            coming = asyncio.create_task((crowd.open_tls if tls else crowd.open)(number, says))
            while not (await asyncio.wait({coming}, timeout=BEAT_S))[0]:
                await fleet.beat()
            await coming
            await fleet.beat()
            await fleet.joined()
            found = await asyncio.to_thread(numbers, running)
            assert rss_mb(running) - memory_mb <= RSS_GROWTH_MB_MAX
        finally:
            crowd.close()
        await fleet.beat()
        await quiet(running, before)
    return found


COMMAND = processes.COMMAND
KINDS = {
    "silent": (False, b""),
    "handshake": (False, b"\x16\x03\x01\x02\x00\x01"),
    "asking nothing": (True, b""),
    "headers": (True, HEADERS),
    "body": (True, BODY),
}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """A controller that may have 256 descriptors, for all crowds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(processes, "COMMAND", ["prlimit", "--nofile=256:256", *COMMAND])
        with processes.controller(tmp_path_factory.mktemp("few") / "r") as running:
            yield running
            running.end(signal.SIGTERM)
    assert "internal error" not in running.log.read_text()
    assert running.process.returncode == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_crowd(few: Controller, kind: str) -> None:
    tls, says = KINDS[kind]
    before = numbers(few)
    with many_descriptors():
        found = await flood(few, 200, tls, says)
    assert found["accepted"] - before["accepted"] >= 200
    assert found["displaced"] - before["displaced"] >= 100
    assert found["unproven"] <= 48
    assert found["accept failed"] == 0
    assert few.log.read_text().count("connections displaced") <= 10


@pytest.mark.parametrize("number", [200, pytest.param(1000, marks=pytest.mark.slow)])
async def test_wrong_tokens(few: Controller, number: int) -> None:
    """From an address from which a host and a user come, too."""
    made = few.client.post("/v1/tokens", {"kind": "user", "name": f"u{number}", "role": "admin"}).body
    right = {"Authorization": f"Bearer {made['word']}"}
    secret = "0" * 32
    wrong = [f"Bearer hawse-user-{secret}", f"Bearer 01hf7yat004tff59tdwh9edd1r:{secret}", f"Bearer {secret}"]
    statuses: collections.Counter[int] = collections.Counter()
    turns = iter(range(number))
    connector = aiohttp.TCPConnector(force_close=True)
    async with Fleet.connected(few) as fleet, aiohttp.ClientSession(connector=connector) as session:
        url, context = f"{fleet.late['controllers'][0]}/v1/tenants", unverified_context()
        before, refused, memory_mb = descriptors(few), failures(few), rss_mb(few)

        async def guess() -> None:
            for turn in turns:
                async with session.get(url, ssl=context, headers={"Authorization": wrong[turn % 3]}) as response:
                    statuses[response.status] += 1
                    assert (response.status == 429) == ("Retry-After" in response.headers)

        guessing = asyncio.gather(*(guess() for _ in range(20)))
        for _ in range(2):
            await fleet.beat()
            await fleet.joined()
            async with session.get(url, ssl=context, headers=right) as response:
                assert response.status == 200
            await guessing
        assert statuses.keys() <= {400, 401, 429}
        assert statuses[429] > statuses[401]
        assert failures(few) - refused >= number
        assert rss_mb(few) - memory_mb <= RSS_GROWTH_MB_MAX
    await quiet(few, before)
    log = few.log.read_text()
    assert secret not in log
    assert log.count(" refused ") <= 10


async def test_the_last_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many streams that none is left: those that are there go on, and the next gets in when one has gone."""
    limit = 72
    monkeypatch.setattr(processes, "COMMAND", ["prlimit", f"--nofile={limit}:{limit}", *COMMAND])
    with processes.controller(tmp_path / "r") as running:
        async with Fleet.connected(running) as fleet:
            credentials = [await minted(running, f"h{number}") for number in range(8)]
            async with contextlib.AsyncExitStack() as stack:
                opened: list[Any] = []
                patience_s = PATIENCE_S  # as long as there is room: a busy machine is slow to open one
                while (one := await streaming(stack, credentials[len(opened) % 8], patience_s)) is not None:
                    opened.append(one)
                    patience_s = PATIENCE_S if descriptors(running) < limit else 0.5
                assert 8 < len(opened) < 64
                await fleet.beat()
            await fleet.joined()
            assert (await asyncio.to_thread(numbers, running))["accept failed"] > 0
        assert "internal error" not in running.log.read_text()
        assert running.end(signal.SIGTERM) == 0


async def streaming(stack: contextlib.AsyncExitStack, credential: dict[str, Any], patience_s: float) -> Any:
    """One more stream, if it could be opened by then."""
    headers = {"Authorization": f"Bearer {credential['host']}:{credential['secret']}"}
    url = f"{credential['controllers'][0]}/v1/stream"
    session = await stack.enter_async_context(aiohttp.ClientSession())
    try:
        async with asyncio.timeout(patience_s):
            return await session.ws_connect(url, ssl=verifying_context(credential["authority"]), headers=headers)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
async def test_ten_thousand(tmp_path: Path, kind: str) -> None:
    tls, says = KINDS[kind]
    with many_descriptors() as room, processes.controller(tmp_path / "r") as running:
        number = min(3000 if tls else 10_000, room)  # of TLS our own side is the slower one
        found = await flood(running, number, tls, says)
        assert found["accepted"] >= number
        assert found["unproven"] <= 1024
        assert found["accept failed"] == 0
        assert "internal error" not in running.log.read_text()
        assert running.end(signal.SIGTERM) == 0
