"""Streams and descriptors on the local socket: items then a result, and what happens when somebody hangs up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdn.model.errors import HawseError, Kind, conflict
from sdn.service.contract_client import Connection
from sdn.service.contract_server import Answer, ContractServer, Frames, item_reply, result_reply


class Streams:
    """Counts, hands out pipes, and knows when it was ended from outside."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, payload: bytes, fd: int | None) -> bytes | Answer | Frames:
        message = json.loads(payload)
        match message["do"]:
            case "count":
                return self._count(message["to"], message.get("fail", False), fd)
            case "follow":
                return self._follow()
            case "pipes":
                pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(message["number"])]
                for number, (_, writer) in enumerate(pipes):
                    os.write(writer, bytes([number]))
                    os.close(writer)
                return Answer(result_reply({"pad": "x" * message["pad"]}), tuple(reader for reader, _ in pipes))
        return result_reply({})

    async def _count(self, to: int, fail: bool, fd: int | None) -> Frames:
        for number in range(to):
            yield item_reply(number)
        if fail:
            raise conflict("no more numbers", "take fewer")
        yield result_reply({"inode": None if fd is None else os.fstat(fd).st_ino})

    async def _follow(self) -> Frames:
        self.begun.set()
        try:
            yield item_reply("first")
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@contextlib.asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[tuple[Streams, Path]]:
    streams = Streams()
    path = directory / "s"
    server = ContractServer(path, streams)
    await server.start()
    try:
        yield streams, path
    finally:
        await server.close()


def conversation(path: Path, message: dict[str, object], fd: int | None = None) -> tuple[list[object], object]:
    items: list[object] = []
    with Connection(path, 5.0) as connection:
        for _ in range(2):  # a connection goes on after a stream
            items.clear()
            talk = connection.converse(message, fd)
            while True:
                try:
                    items.append(next(talk))
                except StopIteration as end:
                    result = end.value
                    break
    return items, result


async def test_items_then_a_result_and_the_descriptor_is_open_all_the_while(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, path):
        fd = os.open(tmp_path, os.O_RDONLY)
        try:
            items, result = await asyncio.to_thread(conversation, path, {"do": "count", "to": 3000}, fd)
        finally:
            os.close(fd)
    assert items == list(range(3000))
    assert result == {"inode": os.stat(tmp_path).st_ino}


async def test_an_error_in_the_middle_ends_a_stream_with_a_sentence(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, path):
        with pytest.raises(HawseError, match="no more numbers") as caught:
            await asyncio.to_thread(conversation, path, {"do": "count", "to": 2, "fail": True})
    assert (caught.value.kind, caught.value.hint) == (Kind.CONFLICT, "take fewer")


async def test_who_hangs_up_ends_the_stream(tmp_path: Path) -> None:
    async with serving(tmp_path) as (streams, path):
        reader, writer = await asyncio.open_unix_connection(path)
        payload = b'{"do": "follow"}'
        writer.write(len(payload).to_bytes(4) + payload)
        async with asyncio.timeout(30):
            await streams.begun.wait()
            await reader.readexactly(4)
            assert not streams.ended.is_set()
            writer.close()
            await streams.ended.wait()


async def test_a_stop_of_the_server_ends_a_stream(tmp_path: Path) -> None:
    streams = Streams()
    server = ContractServer(tmp_path / "s", streams)
    await server.start()
    _, writer = await asyncio.open_unix_connection(tmp_path / "s")
    payload = b'{"do": "follow"}'
    writer.write(len(payload).to_bytes(4) + payload)
    await asyncio.wait_for(streams.begun.wait(), 30)
    await asyncio.wait_for(server.close(), 20)
    assert streams.ended.is_set()
    writer.close()


@pytest.mark.parametrize("pad", [0, 900_000])
async def test_descriptors_come_with_a_reply_and_none_stays_behind(pad: int, tmp_path: Path) -> None:
    def exchange(path: Path) -> list[bytes]:
        with Connection(path, 5.0) as connection:
            _, readers = connection.exchange({"do": "pipes", "number": 4, "pad": pad})
            try:
                return [os.read(reader, 8) for reader in readers]
            finally:
                for reader in readers:
                    os.close(reader)

    async with serving(tmp_path) as (_, path):
        await asyncio.to_thread(exchange, path)  # the first opens what stays open
        gc.collect()
        before = sorted(os.listdir("/proc/self/fd"))
        assert await asyncio.to_thread(exchange, path) == [b"\0", b"\1", b"\2", b"\3"]
        with Connection(path, 5.0) as connection:  # who does not want them need not know of them
            assert "pad" in await asyncio.to_thread(connection.request, {"do": "pipes", "number": 2, "pad": pad})
        for _ in range(100):
            if sorted(os.listdir("/proc/self/fd")) == before:
                break
            await asyncio.sleep(0.01)
        assert sorted(os.listdir("/proc/self/fd")) == before
