"""The server of local sockets, by the client that the command line uses and by clients that misbehave."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import json
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sdn.model.errors import HawseError, Kind, exhausted, invalid
from sdn.service.contract_client import Connection, request
from sdn.service.contract_server import ContractServer, Limits, result_reply


class Handler:
    """Answers with the request and what the descriptor leads to."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.release = asyncio.Event()
        self.entered = 0
        self.finished = 0

    async def __call__(self, payload: bytes, fd: int | None) -> bytes:
        message = json.loads(payload) if payload.startswith(b"{") else None
        if message is None:
            raise invalid("this is not JSON")
        self.entered += 1
        if fd is not None:
            self.seen.append(fd)
        match message.get("do"):
            case "wait":
                await self.release.wait()
            case "fail":
                raise exhausted("all is used up", "wait", free=0)
            case "break":
                raise RuntimeError("a fault")
            case "large":
                message["blob"] = "x" * 900_000
        self.finished += 1
        return result_reply({"echo": message, "inode": os.fstat(fd).st_ino if fd is not None else None})


@contextlib.asynccontextmanager
async def serving(path: Path, limits: Limits | None = None) -> AsyncIterator[Handler]:
    handler = Handler()
    server = ContractServer(path, handler, limits or Limits())
    await server.start()
    try:
        yield handler
    finally:
        handler.release.set()
        await server.close()


async def ask(path: Path, message: dict[str, Any], fd: int | None = None) -> dict[str, Any]:
    return await asyncio.to_thread(request, path, message, fd, 5.0)


async def raw(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(path)


async def reply_of(reader: asyncio.StreamReader) -> dict[str, Any]:
    async with asyncio.timeout(30):
        (length,) = struct.unpack(">I", await reader.readexactly(4))
        reply: dict[str, Any] = json.loads(await reader.readexactly(length))
        return reply


def framed(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_request_with_a_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    async with serving(path) as handler:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with open(tmp_path / "a", "w") as file:  # noqa: ASYNC230 a descriptor is wanted
            before = open_descriptors()
            reply = await ask(path, {"verb": "ADD"}, file.fileno())
            assert reply == {"echo": {"verb": "ADD"}, "inode": os.fstat(file.fileno()).st_ino}
            for do in ("fail", "break"):
                with pytest.raises(HawseError):
                    await ask(path, {"do": do}, file.fileno())
            await until_descriptors(before)
        assert len(handler.seen) == 3
    assert not path.exists()


async def until_descriptors(count: int) -> None:
    async with asyncio.timeout(30):
        while open_descriptors() > count:  # noqa: ASYNC110 the kernel tells nobody
            await asyncio.sleep(0.001)


async def test_errors_arrive_whole_and_the_connection_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    async with serving(path):

        def converse() -> None:
            with Connection(path, 5.0) as connection:
                with pytest.raises(HawseError) as caught:
                    connection.request({"do": "fail"})
                error = caught.value
                assert (error.kind, error.message, error.hint) == (Kind.EXHAUSTED, "all is used up", "wait")
                assert error.facts == {"free": 0, "code": 102}
                with pytest.raises(HawseError, match="internal error: RuntimeError") as caught:
                    connection.request({"do": "break"})
                assert caught.value.kind is Kind.INTERNAL
                assert len(connection.request({"do": "large"})["echo"]["blob"]) == 900_000
                assert connection.request({"n": 1})["echo"] == {"n": 1}

        await asyncio.to_thread(converse)


async def test_byte_by_byte_and_broken_json(tmp_path: Path) -> None:
    async with serving(tmp_path / "s.sock"):
        reader, writer = await raw(tmp_path / "s.sock")
        for payload in (b"not json", b"", b'{"n": 2}'):
            for byte in framed(payload):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            reply = await reply_of(reader)
            assert ("result" in reply) == (payload == b'{"n": 2}')
        writer.close()


async def test_requests_that_come_at_once_are_answered_in_turn(tmp_path: Path) -> None:
    async with serving(tmp_path / "s.sock"):
        reader, writer = await raw(tmp_path / "s.sock")
        writer.write(b"".join(framed(json.dumps({"n": n}).encode()) for n in range(20)))
        assert [(await reply_of(reader))["result"]["echo"]["n"] for _ in range(20)] == list(range(20))
        writer.close()


async def test_connections_are_served_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with serving(path) as handler:
        waiting = asyncio.create_task(ask(path, {"do": "wait"}))
        assert (await ask(path, {"n": 1}))["echo"] == {"n": 1}
        assert not waiting.done()
        handler.release.set()
        await waiting


async def test_too_large_is_said_before_the_end(tmp_path: Path) -> None:
    async with serving(tmp_path / "s.sock", Limits(message_bytes=100)):
        reader, writer = await raw(tmp_path / "s.sock")
        writer.write(struct.pack(">I", 101))
        assert "101 bytes" in (await reply_of(reader))["error"]["msg"]
        assert await reader.read() == b""
        writer.close()


async def test_two_descriptors_are_refused_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with serving(path):
        before = open_descriptors()

        def converse() -> bytes:
            with socket.socket(socket.AF_UNIX) as client, open("/dev/null") as null:
                client.connect(str(path))
                rights = array.array("i", [null.fileno(), null.fileno()])
                client.sendmsg([framed(b"{}")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                return client.recv(4096)

        assert b"more than one descriptor" in await asyncio.to_thread(converse)
        await until_descriptors(before)


async def test_a_client_that_stalls_is_dropped_one_that_leaves_is_served(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with serving(path, Limits(receive_s=0.05)) as handler:
        reader, writer = await raw(path)
        writer.write(struct.pack(">I", 50) + b"{")
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()
        _, leaver = await raw(path)
        leaver.write(framed(b'{"do": "wait"}'))
        await leaver.drain()
        leaver.close()
        async with asyncio.timeout(30):
            while not handler.entered:  # noqa: ASYNC110 bounded
                await asyncio.sleep(0.001)
            handler.release.set()
            while not handler.finished:  # noqa: ASYNC110 bounded
                await asyncio.sleep(0.001)


async def test_too_many_connections(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with serving(path, Limits(connections=1)):
        _, first = await raw(path)
        reader, second = await raw(path)
        reply = await reply_of(reader)
        assert reply["error"]["kind"] == "unavailable"
        first.close()
        second.close()


async def test_a_handler_that_takes_too_long(tmp_path: Path) -> None:
    async with serving(tmp_path / "s.sock", Limits(handle_s=0.02)):
        with pytest.raises(HawseError, match="was given up") as caught:
            await ask(tmp_path / "s.sock", {"do": "wait"})
        assert caught.value.kind is Kind.UNAVAILABLE


async def test_closing_lets_requests_finish(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    handler = Handler()
    server = ContractServer(path, handler)
    await server.start()
    waiting = asyncio.create_task(ask(path, {"do": "wait"}))
    async with asyncio.timeout(30):
        while not handler.entered:  # noqa: ASYNC110 bounded
            await asyncio.sleep(0.001)
    closing = asyncio.create_task(server.close())
    await asyncio.sleep(0)
    handler.release.set()
    assert (await waiting)["echo"] == {"do": "wait"}
    await closing


async def test_what_a_killed_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    async with serving(path):
        assert (await ask(path, {}))["echo"] == {}


async def test_too_long_a_path_and_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(HawseError, match="bytes; a unix socket's path"):
        await ContractServer(tmp_path / ("x" * 200), Handler()).start()
    with pytest.raises(HawseError, match="cannot listen"):
        await ContractServer(tmp_path / "no" / "s.sock", Handler()).start()


def test_the_daemon_is_away(tmp_path: Path) -> None:
    with pytest.raises(HawseError, match="the agent is not running") as caught:
        request(tmp_path / "agent.sock", {})
    assert caught.value.kind is Kind.UNAVAILABLE
    assert "hawse up -d" in caught.value.hint


def test_a_daemon_that_says_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        with pytest.raises(HawseError, match=r"within 0\.05 s"):
            request(tmp_path / "agent.sock", {}, timeout_s=0.05)


class Full(socket.socket):
    """A listener of a process that has no descriptor left."""

    asked = 0

    def accept(self) -> Any:
        self.asked += 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_without_descriptors_it_does_not_spin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Full] = []

    def make(*arguments: Any) -> Full:
        made.append(Full(*arguments))
        return made[-1]

    server = ContractServer(tmp_path / "s", Handler())
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", make)
        await server.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert 1 <= made[0].asked <= 10
    await server.close()
