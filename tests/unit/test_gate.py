"""The gate: what strangers do to a listener, stage by stage, and what it does to those who have shown a credential."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sdn.controller import acceptor as accepting
from sdn.controller import call, gate, server
from sdn.controller.governor import Limits
from sdn.controller.quiet_log import QuietLog
from sdn.model.codec import encode_msgpack
from sdn.model.stream import Hello
from sdn.service.trust import unverified_context
from tests.unit.rest_server import Log, Served, running, until

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running(tmp_path) as one:
        yield one


@pytest.fixture
async def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """One with room for hardly anybody."""
    limits = Limits(unproven=4, users=3, per_user=2, per_host=2, local=4)
    monkeypatch.setattr(server, "limits_for", lambda _: limits)
    async with running(tmp_path) as one:
        yield one


@contextlib.asynccontextmanager
async def tcp(served: Served, source: str = "127.0.0.1") -> AsyncIterator[Streams]:
    """A connection, of which nothing is known."""
    address = served.address
    reader, writer = await asyncio.open_connection(address.host, address.port, local_addr=(source, 0))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def tls(served: Served, source: str = "127.0.0.1", **more: Any) -> AsyncIterator[Streams]:
    """One whose handshake is done."""
    address = served.address
    context = more.pop("context", None) or unverified_context()
    reader, writer = await asyncio.open_connection(
        address.host, address.port, ssl=context, local_addr=(source, 0), **more
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """All that still comes; an end with a reset is an end, too."""
    found = bytearray()
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(20):
            while data := await reader.read(65536):
                found += data
    return bytes(found)


async def status_of(reader: asyncio.StreamReader) -> int:
    return int((await reader.readuntil(b"\r\n")).split()[1])


async def token(served: Served, role: str = "admin") -> str:
    """A user token's word."""
    answer = await served.ask("POST", "/v1/tokens", {"kind": "user", "name": f"t{role}", "role": role})
    assert answer.status == 201, answer.body
    return str(answer.body["word"])


async def host(served: Served, name: str = "h1") -> dict[str, Any]:
    """A host's credential."""
    await served.ask("POST", "/v1/hosts", {"name": name})
    found: dict[str, Any] = (await served.ask("POST", f"/v1/hosts/{name}/credential")).body
    return found


def bearer(credential: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential['host']}:{credential['secret']}"}


@contextlib.asynccontextmanager
async def stream(served: Served, credential: dict[str, Any]) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A host's, up to its welcome."""
    url = f"https://{served.address}/v1/stream"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, ssl=unverified_context(), headers=bearer(credential)) as one,
    ):
        hello = Hello(host=credential["host"], incarnation="boot:1", mtu_bytes=1500, vtep4="192.0.2.1")
        await one.send_bytes(encode_msgpack(hello))
        await one.receive_bytes(timeout=10)
        yield one


def counted(served: Served, what: str) -> int:
    return served.edge.metrics.connections[what]


def open_(served: Served) -> dict[str, int]:
    return served.edge.metrics.connections_open()


async def all_gone(served: Served) -> None:
    async def gone() -> bool:
        return set(open_(served).values()) == {0}

    await until(gone)


# --- before TLS ---


@pytest.mark.parametrize("said", [GET, b"\x00" * 100, b"\x15\x03\x01\x00\x02\x02\x28", b"x" * 100_000])
async def test_what_is_not_tls_gets_not_a_byte(served: Served, said: bytes) -> None:
    async with tcp(served) as (reader, writer):
        writer.write(said)
        assert await rest_of(reader) == b""
    assert counted(served, "not TLS") == 1
    await all_gone(served)


async def test_who_says_nothing_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "GREETING_S", 0.05)
    async with running(tmp_path) as served, tcp(served) as (reader, _):
        assert await rest_of(reader) == b""
        assert counted(served, "silent") == 1
        await all_gone(served)


async def test_who_hangs_up_at_once_is_forgotten(served: Served) -> None:
    for _ in range(5):
        async with tcp(served):
            pass
    await all_gone(served)
    assert counted(served, "accepted") == 5


@pytest.mark.parametrize("said", [b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
async def test_a_handshake_that_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(gate, "HANDSHAKE_S", 0.05)
    async with running(tmp_path) as served, tcp(served) as (reader, writer):
        writer.write(said)
        assert await rest_of(reader) == b""
        await all_gone(served)
        assert counted(served, "handshake") == 1


async def test_tls_below_1_3_is_refused(served: Served) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        async with tls(served, context=old):
            pass
    await all_gone(served)
    assert counted(served, "handshake") == 1


@pytest.mark.parametrize("name", ["localhost", "xn--bcher-kva.example", "a" * 63 + "." + "b" * 63])
async def test_any_name_and_any_client_certificate_do_no_harm(served: Served, name: str) -> None:
    context = unverified_context()
    context.load_cert_chain(served.path.with_name("tls") / "server.pem")
    async with tls(served, context=context, server_hostname=name) as (reader, writer):
        writer.write(GET)
        assert await status_of(reader) == 200


async def test_handshakes_begin_in_turn(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of one source wait, another's is among the next."""
    begun: list[str] = []
    begin = gate.Guest.shake_hands

    def note(self: gate.Guest) -> None:
        begun.append(self.peer)
        begin(self)

    monkeypatch.setattr(gate.Guest, "shake_hands", note)
    monkeypatch.setattr(gate, "HANDSHAKE_PAUSE_S", 0.2)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            _, writer = await stack.enter_async_context(tcp(served, "127.0.0.2"))
            writer.write(b"\x16")
        async with tls(served, "127.0.0.3") as (reader, writer):
            writer.write(GET)
            assert await status_of(reader) == 200
        assert begun.index("127.0.0.3") <= 2 * gate.HANDSHAKES_AT_ONCE + 1
    await all_gone(served)


# --- HTTP before a credential ---


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ", b"\r\n\r\n\r\n"])
async def test_headers_that_do_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(gate, "HEADERS_S", 0.1)
    async with running(tmp_path) as served, tls(served) as (reader, writer):
        writer.write(said)
        assert await rest_of(reader) == b""
        assert counted(served, "headers") == 1
        await all_gone(served)


async def test_a_body_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "BODY_TIMEOUT_S", 0.1)
    async with running(tmp_path) as served, tls(served) as (reader, writer):
        writer.write(b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 100\r\n\r\n{")
        assert await status_of(reader) == 408
        await rest_of(reader)
        await all_gone(served)


async def test_an_answer_that_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "REQUEST_S", 0.1)
    monkeypatch.setattr(call, "BODY_TIMEOUT_S", 30.0)
    async with running(tmp_path) as served, tls(served) as (reader, writer):
        writer.write(b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert await rest_of(reader) == b""
        assert counted(served, "request") == 1
        await all_gone(served)


@pytest.mark.parametrize(
    "headers",
    [
        b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(40)),
        b"".join(b"X-%d: x\r\n" % number for number in range(100)),
        b"X: " + b"x" * 9000 + b"\r\n",
        b"X" * 9000,
    ],
    ids=["in all", "many", "one", "a name"],
)
async def test_headers_too_large(served: Served, headers: bytes) -> None:
    async with tls(served) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
        assert b" 200 " not in await rest_of(reader)
    await all_gone(served)


async def test_a_request_line_too_long(served: Served) -> None:
    async with tls(served) as (reader, writer):
        writer.write(b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " not in await rest_of(reader)


@pytest.mark.parametrize(
    "said",
    [
        GET,
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HIDDEN\r\n\r\n",
        b"GET /HIDDEN HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET http://[HIDDEN/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer HIDDEN\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer HIDDEN" + b"x" * 9000 + b"\r\n\r\n",
        b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: HIDDEN\r\n\r\n",
        b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nHIDDEN\r\n\r\n",
    ],
)
async def test_no_answer_says_what_is_behind_it_or_what_it_was_shown(served: Served, said: bytes) -> None:
    async with tls(served) as (reader, writer):
        writer.write(said)
        answer = await rest_of(reader)
    assert b"\r\nServer: hawse\r\n" in answer
    assert b" 200 OK\r\n" in answer or b"\r\nContent-Type: application/problem+json\r\n" in answer
    for hidden in (b"aiohttp", b"python", b"hidden"):
        assert hidden not in answer.lower()
    assert "HIDDEN" not in str(served.log.lines)


async def test_blank_lines_do_not_hide_headers(served: Served) -> None:
    async with tls(served) as (reader, writer):
        writer.write(b"\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n")
        writer.write(b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(40)))
        assert b" 200 " not in await rest_of(reader)
    assert counted(served, "headers") == 1


async def test_who_proves_nothing_has_one_request(served: Served) -> None:
    async with tls(served) as (reader, writer):
        writer.write(GET * 50)
        said = await rest_of(reader)
        assert said.count(b"HTTP/1.1 200") == 1
        assert b"connection: close" in said.lower()
    await all_gone(served)


async def test_an_unproven_body_is_not_taken_in(served: Served) -> None:
    async with tls(served) as (reader, writer):
        writer.write(b"POST /v1/networks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 900000000\r\n\r\n")
        assert await status_of(reader) == 401
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                writer.write(bytes(65536))
                await writer.drain()
        await rest_of(reader)
    await all_gone(served)


@pytest.mark.parametrize(
    "smuggled",
    [
        b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 9\r\n\r\n{}  ",
        b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\n{}  ",
        b"POST /v1/join HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST /v1/join HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"POST /v1/join HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
        b"GET /healthz HTTP/1.1\nHost: x\n\n",
        b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
    ],
)
async def test_two_readings_of_one_request_are_none(served: Served, smuggled: bytes) -> None:
    async with tls(served) as (reader, writer):
        writer.write(smuggled + GET)
        said = await rest_of(reader)
        assert said.split()[1] == b"400", said[:200]
        assert said.count(b"\r\nServer: ") == 1
    await all_gone(served)


async def test_a_body_in_chunks_is_a_body(served: Served) -> None:
    word = await token(served)
    body = json.dumps({"name": "blue"}).encode()
    async with tls(served) as (reader, writer):
        writer.write(
            b"POST /v1/tenants HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
            b"Transfer-Encoding: chunked\r\nAuthorization: Bearer " + word.encode() + b"\r\n\r\n"
        )
        assert await status_of(reader) == 100
        await reader.readuntil(b"\r\n")
        for byte in body:
            writer.write(b"1;extension=x\r\n" + bytes([byte]) + b"\r\n")
        writer.write(b"0\r\nTrailer: x\r\n\r\n")
        assert await status_of(reader) == 201


async def test_an_endless_body_in_chunks(served: Served) -> None:
    word = await token(served)
    async with tls(served) as (reader, writer):
        writer.write(
            b"POST /v1/tenants HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\nAuthorization: Bearer " + word.encode() + b"\r\n\r\n"
        )
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
                await writer.drain()
        assert b" 413 " in (await rest_of(reader))[:20]


async def test_an_unknown_expectation(served: Served) -> None:
    async with tls(served) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: a miracle\r\n\r\n")
        assert await status_of(reader) == 417
        await rest_of(reader)


# --- whom it counts ---


async def test_a_user_keeps_the_connection(served: Served) -> None:
    word = await token(served)
    request = b"GET /v1/tenants HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + word.encode() + b"\r\n\r\n"
    async with tls(served) as (reader, writer):
        for _ in range(3):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head
            assert b"close" not in head.lower()
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        assert open_(served) == {"unproven": 0, "users": 1, "hosts": 0}
    await all_gone(served)


async def test_the_greedy_displace_their_own(small: Served) -> None:
    credential = await host(small)
    async with contextlib.AsyncExitStack() as stack, stream(small, credential) as one:
        other = await stack.enter_async_context(tcp(small, "127.0.0.2"))
        idle = [await stack.enter_async_context(tcp(small, "127.0.0.3")) for _ in range(20)]
        for reader, _ in idle[:-2]:
            assert await rest_of(reader) == b""
        async with stream(small, await host(small, "h2")):  # who comes after them gets in
            assert open_(small)["hosts"] == 2
        assert counted(small, "displaced") >= 18
        await small.ask("POST", "/v1/tenants", {"name": "blue"})
        assert not one.closed
        assert len(small.log.named("connections displaced")) == 1  # of a second, too
        other[1].write(b"\x16")
        assert not other[0].at_eof()
    await all_gone(small)


async def test_a_user_has_so_many_and_no_more(small: Served) -> None:
    word = await token(small)
    request = b"GET /v1/tenants HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + word.encode() + b"\r\n\r\n"
    async with contextlib.AsyncExitStack() as stack:
        statuses = []
        for _ in range(3):
            reader, writer = await stack.enter_async_context(tls(small))
            writer.write(request)
            statuses.append(await status_of(reader))
        assert statuses == [200, 200, 429]
        assert b"retry-after: 1" in (await rest_of(reader)).lower()
    await all_gone(small)


async def test_of_a_host_the_newest_stay(small: Served) -> None:
    credential = await host(small)
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(stream(small, credential)) for _ in range(3)]
        with contextlib.suppress(ConnectionError):
            while (await streams[0].receive(timeout=10)).type is aiohttp.WSMsgType.BINARY:
                pass
        assert streams[0].closed
        assert (await small.ask("GET", "/v1/hosts/h1")).body["connected"] is True
    await all_gone(small)


async def test_local_connections_are_bounded(small: Served) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            _, writer = await asyncio.open_unix_connection(str(small.path))
            stack.callback(writer.close)
        assert (await small.ask("GET", "/healthz")).status == 200

        async def refused() -> bool:
            reader, writer = await asyncio.open_unix_connection(str(small.path))
            try:
                return await reader.read() == b""
            finally:
                writer.close()

        assert await refused()
    assert counted(small, "local refused") >= 1


async def test_who_reads_nothing_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel: whatever is sent and not taken, it is not ours to wait for."""
    monkeypatch.setattr(gate, "READER_GONE_MS", 300)
    async with running(tmp_path) as served:
        word = await token(served)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + word.encode() + b"\r\n\r\n"
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect((served.address.host, served.address.port))
        raw.setblocking(False)
        _, writer = await asyncio.open_connection(sock=raw, ssl=unverified_context(), server_hostname="x")
        writer.write(request * 30)

        async def came() -> bool:
            return open_(served)["users"] == 1

        await until(came)
        await all_gone(served)
        writer.transport.abort()


async def test_numbers_are_shown(served: Served) -> None:
    async with tcp(served) as (reader, writer):
        writer.write(GET)
        await rest_of(reader)
    text = (await served.ask("GET", "/metrics")).body.decode()
    assert 'hawse_connections_total{what="accepted"} 1.0' in text
    assert 'hawse_connections_total{what="not TLS"} 1.0' in text
    assert 'hawse_connections_open{of="unproven"} 0.0' in text


# --- streams ---


def frame(first: int, payload: bytes, length: bytes = b"") -> bytes:
    """A client's frame (RFC 6455, section 5.2), masked with zeros; `length` to say something else than the truth."""
    size = len(payload)
    if not length:
        length = (
            bytes([size])
            if size < 126
            else b"\x7e" + size.to_bytes(2)
            if size < 1 << 16
            else b"\x7f" + size.to_bytes(8)
        )
    return bytes([first, length[0] | 0x80]) + length[1:] + bytes(4) + payload


@contextlib.asynccontextmanager
async def websocket(served: Served, credential: dict[str, Any]) -> AsyncIterator[Streams]:
    """A host's stream, byte by byte."""
    async with tls(served) as (reader, writer):
        writer.write(
            f"GET /v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer(credential)['Authorization']}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        assert await status_of(reader) == 101
        await reader.readuntil(b"\r\n\r\n")
        yield reader, writer


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([frame(0x82, b"", b"\x7f" + (1 << 40).to_bytes(8))], 1009),
        ([frame(0x02, b"x"), *[frame(0x00, bytes(65535))] * 80], 1009),
        ([frame(0x89, bytes(126))], 1002),
        ([frame(0x09, b"")], 1002),
        ([frame(0x83, b"")], 1002),
        ([frame(0x00, b"x")], 1002),
        ([frame(0xC2, b"x")], 1002),
    ],
    ids=["large", "endless", "large ping", "half a ping", "no opcode", "goes on with nothing", "compressed"],
)
async def test_frames_that_cannot_be(served: Served, frames: list[bytes], code: int) -> None:
    async with websocket(served, await host(served)) as (reader, writer):
        with contextlib.suppress(ConnectionError):
            for one in frames:
                writer.write(one)
                await writer.drain()
        said = await rest_of(reader)
        assert (said[:1], int.from_bytes(said[2:4])) == (b"\x88", code)
    await all_gone(served)


async def test_a_flood_of_pings_ends_its_stream_alone(served: Served) -> None:
    async with stream(served, await host(served, "h2")) as other, websocket(served, await host(served)) as (_, writer):
        with contextlib.suppress(ConnectionError):  # nobody reads the pongs
            for _ in range(50):
                writer.write(frame(0x89, b"x") * 10_000)
                await writer.drain()
        assert not other.closed

        async def one_left() -> bool:
            return open_(served)["hosts"] == 1

        await until(one_left)
        await other.ping()
        assert (await served.ask("GET", "/v1/hosts/h2")).body["connected"] is True


async def test_pings_are_answered(served: Served) -> None:
    async with websocket(served, await host(served)) as (reader, writer):
        writer.write(frame(0x89, b"hello") + frame(0x8A, b""))
        assert await reader.readexactly(7) == b"\x8a\x05hello"


# --- accepting ---


class Full(socket.socket):
    """A listener of a process that has no descriptor left."""

    asked = 0
    full = True

    def accept(self) -> Any:
        self.asked += 1
        if self.full:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


async def test_without_descriptors_it_neither_spins_nor_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "ACCEPT_PAUSE_S", 0.02)
    listener = Full(socket.AF_INET)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    accepted: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
    failures: list[OSError] = []
    acceptor = accepting.Acceptor(listener, lambda connection, _: accepted.set_result(connection), failures.append)
    begun_s = time.monotonic()

    async def failed_again() -> bool:
        return len(failures) >= 3

    with socket.create_connection(listener.getsockname()):
        for _ in range(1000):
            await asyncio.sleep(0)
        await until(failed_again)
        assert listener.asked <= (time.monotonic() - begun_s) / 0.02 + 1
        listener.full = False
        async with asyncio.timeout(10):
            (await accepted).close()
    acceptor.close()


def test_strangers_do_not_fill_the_log() -> None:
    log, now_s = Log(), [0.0]
    quiet = QuietLog(log, 10.0, lambda: now_s[0])
    for step in range(1000):
        now_s[0] = step / 10
        quiet.warning("knocked", peer="192.0.2.1")
        quiet.warning("other")
    assert [line.get("unsaid", 0) for line in log.named("knocked")] == [0] + [99] * 9
    assert len(log.named("other")) == 10
