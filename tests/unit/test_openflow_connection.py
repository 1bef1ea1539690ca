"""Connections over unix sockets, TCP and TLS, from and to a model of a switch; and with peers that are none."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sdn.controller.authority import make_authority
from sdn.model.errors import HawseError, Kind
from sdn.openflow import connection as connections
from sdn.openflow.connection import Connection, connect
from sdn.openflow.errors import RefusedError
from sdn.openflow.events import Asked, Complaint, Ended
from sdn.openflow.framing import ProtocolError, Type
from sdn.openflow.messages import (
    Configuration,
    EchoReply,
    EchoRequest,
    Hello,
    PacketOut,
    Plain,
    Role,
    RoleReply,
    RoleRequest,
    encode,
    output,
)
from sdn.openflow.notices import PacketIn, Port, PortChange, PortStatus
from sdn.openflow.requests import Limits
from sdn.openflow.session import End
from sdn.service.trust import verifying_context
from tests.unit.openflow_switch import FEATURES, ModelSwitch, mod
from tests.unit.tls_peers import certified

PORT = Port(3, "02:00:00:00:00:03", "p3")
QUICK = Limits(request_s=0.05)


def ignore(_: Any) -> None:
    """Events nobody wants."""


class Wired:
    """A model at the end of a connection."""

    def __init__(self, model: ModelSwitch) -> None:
        self.model = model
        self.connections: list[Connection] = []

    def protocol(self) -> Connection:
        """For asyncio."""

        def answer(event: Any) -> None:
            if isinstance(event, Asked):
                for message, xid in self.model.answers(event):
                    connection.send(message, xid)

        connection = Connection(End.SWITCH, own=FEATURES, events=answer)
        self.connections.append(connection)
        return connection

    def says(self, message: Any) -> None:
        """The switch says something unasked."""
        self.connections[-1].send(message)


@contextlib.asynccontextmanager
async def switch(model: ModelSwitch, directory: Path) -> AsyncIterator[tuple[str, Wired]]:
    """A switch that listens on a unix socket."""
    wired = Wired(model)
    server = await asyncio.get_running_loop().create_unix_server(wired.protocol, directory / "mgmt")
    try:
        yield f"unix:{directory / 'mgmt'}", wired
    finally:
        server.close()
        for connection in wired.connections:
            connection.close()


@contextlib.asynccontextmanager
async def raw(directory: Path, serve: Callable[..., Any]) -> AsyncIterator[str]:
    """Something else that listens there."""
    tasks: set[asyncio.Task[Any]] = set()

    async def served(reader: Any, writer: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(served, directory / "raw", limit=1 << 16)
    try:
        yield f"unix:{directory / 'raw'}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def shake(reader, writer) -> None:
    """What a switch does until it is open."""
    writer.write(encode(Hello(), 1) + encode(FEATURES, 2))
    await reader.readexactly(16 + 8)


async def _scenario(directory: Path) -> None:
    model = ModelSwitch(ports=[PORT], refused_at_add={"b"})
    events: list[Any] = []
    async with switch(model, directory) as (address, wired):
        connection = await connect(address, events=events.append)
        assert (connection.features, connection.peer) == (FEATURES, address)
        await _talk(connection, wired, events)
        connection.close()
        connection.close()
        await connection.wait_closed()
        assert events[-1] == Ended(None)
        with pytest.raises(HawseError, match="is not open"):
            await connection.barrier()


async def _talk(connection: Connection, wired: Wired, events: list[Any]) -> None:
    """Everything that a connection does."""
    verdicts = await connection.bundle([[mod("a")], [mod("b")], [], [mod("c"), mod("d")]])
    assert [verdict and verdict.text for verdict in verdicts] == [None, "BAD_MATCH BAD_PREREQ", None, None]
    assert wired.model.done == ["a", "c", "d"]
    assert await connection.bundle([[], []]) == [None, None]
    assert await connection.port_desc() == [PORT]
    assert await connection.request(RoleRequest(Role.EQUAL)) == RoleReply(Role.EQUAL)
    assert await connection.request(EchoRequest(b"x")) == EchoReply(b"x")
    assert await connection.request(Plain(Type.GET_CONFIG_REQUEST)) == Configuration(0, 128)
    with pytest.raises(RefusedError, match="refuses MULTIPART_REQUEST: BAD_REQUEST BAD_MULTIPART"):
        await connection.description()
    connection.packet_out(3, b"frame")
    connection.post(mod("e"), mod("b"))
    wired.says(PacketIn(b"in", 1, 0, 0, total_bytes=2))
    wired.says(PortStatus(PortChange.DELETED, PORT))
    await connection.barrier()
    assert wired.model.frames == [PacketOut(b"frame", output(3))]
    assert wired.model.done[-1] == "e"
    assert events[0] == PacketIn(b"in", 1, 0, 0, total_bytes=2)
    assert events[1] == PortStatus(PortChange.DELETED, PORT)
    assert isinstance(events[2], Complaint)
    assert events[2].error.text == "BAD_MATCH BAD_PREREQ"
    many = [[mod(f"n{number}-{place}", size=90) for place in range(10)] for number in range(500)]
    assert await connection.bundle(many) == [None] * 500
    assert len(wired.model.done) == 4 + 5000


async def test_all_of_it_over_a_unix_socket(tmp_path) -> None:
    await _scenario(tmp_path)


def test_all_of_it_on_the_controllers_loop(tmp_path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_scenario(tmp_path))


@pytest.mark.parametrize("scheme", ["tcp", "ssl"])
@pytest.mark.parametrize("who", ["switch listens", "controller listens"])
async def test_all_of_it_over_tcp_and_tls_either_way_round(tmp_path, scheme, who) -> None:
    loop = asyncio.get_running_loop()
    serving, asking = None, None
    if scheme == "ssl":
        authority = make_authority(time.time())
        serving, asking = certified(authority, tmp_path), verifying_context(authority.certificate.pem)
        asking.check_hostname = False
    wired = Wired(ModelSwitch(ports=[PORT], refused_at_add={"b"}))
    events: list[Any] = []
    opened: asyncio.Future[Connection] = loop.create_future()

    def accepted() -> Connection:
        return Connection(opened=lambda connection: opened.set_result(connection) or events.append)  # type: ignore[func-returns-value]

    server = await loop.create_server(
        wired.protocol if who == "switch listens" else accepted, "127.0.0.1", 0, ssl=serving
    )
    port = server.sockets[0].getsockname()[1]
    if who == "switch listens":
        connection = await connect(f"{scheme}:127.0.0.1:{port}", events=events.append, tls=asking)
    else:
        await loop.create_connection(wired.protocol, "127.0.0.1", port, ssl=asking)
        connection = await asyncio.wait_for(opened, 10)
        assert connection.peer.startswith(f"{scheme}:127.0.0.1:")
    await _talk(connection, wired, events)
    wired.connections[0].close()
    await connection.wait_closed()
    assert events[-1].error.message == f"{connection.peer} has closed the connection"
    assert connection.error is events[-1].error
    server.close()


async def _refused(address: str, **arguments) -> HawseError:
    with pytest.raises(HawseError) as caught:
        await connect(address, events=ignore, **arguments)
    return caught.value


async def test_nobody_there(tmp_path) -> None:
    error = await _refused(f"unix:{tmp_path}/none")
    assert error.message == f"no switch is reached at unix:{tmp_path}/none: No such file or directory"
    (tmp_path / "dead").touch()
    assert "Connection refused" in (await _refused(f"unix:{tmp_path}/dead")).message
    assert "no switch is reached at tcp:127.0.0.1:1: " in (await _refused("tcp:127.0.0.1:1")).message
    assert error.kind is Kind.UNAVAILABLE


async def test_who_never_says_hello_is_given_up(tmp_path) -> None:
    async def silent(reader, _writer) -> None:
        await reader.read()

    async with raw(tmp_path, silent) as address:
        assert (await _refused(address, timeout_s=0.05)).message == f"no switch answers at {address} in 0.05 s"
        bounded = await _refused(address, limits=Limits(handshake_s=0.05))
        assert bounded.message == f"{address} has not answered the hello in 0.05 s"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            b"220 mail.example ESMTP\r\n",
            "message of type 50: version, at byte 0, is 0x32, not 0x04",
        ),
        (encode(Hello(), 1) + encode(FEATURES, 2)[:11], "has closed the connection"),
        (
            encode(Hello(), 1) + encode(Plain(Type.FEATURES_REPLY), 2),
            "FEATURES_REPLY: datapath_id, at byte 8, is cut off",
        ),
        (encode(Hello(4, (1,)), 1), "speaks OpenFlow 1.0, and Hawse 1.3"),
        (
            encode(Hello(), 1) + encode(Plain(Type.BARRIER_REPLY), 3),
            "may not be sent to a controller",
        ),
    ],
)
async def test_a_handshake_that_goes_wrong_says_how(tmp_path, data, text) -> None:
    async def serve(reader, writer) -> None:
        writer.write(data)
        await reader.readexactly(16)

    async with raw(tmp_path, serve) as address:
        error = await _refused(address)
        assert text in error.message
        assert address in error.message


async def test_a_barrier_that_is_never_answered(tmp_path) -> None:
    async with switch(ModelSwitch(silent={Type.BARRIER_REQUEST}), tmp_path) as (address, _):
        connection = await connect(address, events=ignore, limits=QUICK)
        with pytest.raises(HawseError, match=r"has not answered BARRIER_REQUEST in 0.05 s"):
            await connection.barrier()
        with pytest.raises(HawseError, match=r"has not answered a bundle of 1 messages in 0.0502 s"):
            await connection.bundle([[mod("a")]])
        assert await connection.request(EchoRequest(), 10.0) == EchoReply()
        connection.close()


async def test_garbage_ends_it_and_whoever_waits_is_told(tmp_path) -> None:
    async def serve(reader, writer) -> None:
        await shake(reader, writer)
        await reader.readexactly(8)
        writer.write(b"\x04\x14\x00\x03")
        assert (await reader.read())[1] == Type.ERROR

    events: list[Any] = []
    async with raw(tmp_path, serve) as address:
        connection = await connect(address, events=events.append)
        with pytest.raises(ProtocolError, match="BARRIER_REQUEST: length, at byte 2, is 3"):
            await connection.barrier()
        await connection.wait_closed()
        assert [type(event) for event in events] == [Ended]


async def test_a_peer_that_dies_fails_every_request(tmp_path) -> None:
    async def serve(reader, writer) -> None:
        await shake(reader, writer)
        await reader.readexactly(8 * 3)
        writer.transport.abort()

    async with raw(tmp_path, serve) as address:
        connection = await connect(address, events=ignore)
        results = await asyncio.gather(*(connection.barrier() for _ in range(3)), return_exceptions=True)
        assert [result.kind for result in results if isinstance(result, HawseError)] == [Kind.UNAVAILABLE] * 3


async def test_a_peer_that_does_not_read_is_not_written_to_without_end(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Connection, "MOST_UNSENT", 1 << 20)
    monkeypatch.setattr(connections, "_FLUSH_S", 0.05)
    paused = asyncio.Event()

    async def serve(reader, writer) -> None:
        await shake(reader, writer)
        reader._transport.pause_reading()
        paused.set()
        await asyncio.Event().wait()

    async with raw(tmp_path, serve) as address:
        connection = await connect(address, events=ignore, limits=QUICK)
        await paused.wait()

        def post_on() -> None:
            for _ in range(100_000):
                connection.post(mod("a", size=5000))

        with pytest.raises(HawseError, match=r"does not read: \d+ bytes wait for it"):
            post_on()
        assert (1 << 20) < connection._unsent_bytes < (2 << 20)
        with pytest.raises(HawseError, match=r"has not read what it was sent in 0.05 s"):
            await connection.barrier()
        waiting = asyncio.ensure_future(connection.barrier(timeout_s=60))
        await asyncio.sleep(0)
        connection.close()
        with pytest.raises(HawseError, match="is not open"):
            await waiting
        await asyncio.wait_for(connection.wait_closed(), 10)


async def test_of_a_peer_that_asks_and_does_not_read_nothing_is_read(tmp_path) -> None:
    echo = encode(EchoRequest(bytes(992)), 7)
    many, reading = 20_000, asyncio.Event()
    answered = asyncio.get_running_loop().create_future()

    async def serve(reader, writer) -> None:
        await shake(reader, writer)
        reader._transport.pause_reading()
        sending = asyncio.ensure_future(_flood(writer, echo, many))
        await reading.wait()
        reader._transport.resume_reading()
        answers = await reader.readexactly(len(echo) * many)
        await sending
        answered.set_result(answers == encode(EchoReply(bytes(992)), 7) * many)

    async with raw(tmp_path, serve) as address:
        connection = await connect(address, events=ignore)
        while not connection._deaf:  # noqa: ASYNC110  (nobody is told of it)
            await asyncio.sleep(0)
        assert connection._unsent_bytes < 2 << 20
        reading.set()
        assert await asyncio.wait_for(answered, 30)
        assert not connection._deaf
        connection.close()


async def _flood(writer: asyncio.StreamWriter, message: bytes, times: int) -> None:
    for _ in range(times // 100):
        writer.write(message * 100)
        await writer.drain()


async def test_who_waits_no_longer_is_forgotten(tmp_path) -> None:
    async with switch(ModelSwitch(), tmp_path) as (address, _):
        connection = await connect(address, events=ignore)
        waiting = asyncio.ensure_future(connection.barrier())
        await asyncio.sleep(0)
        waiting.cancel()
        await connection.barrier()
        assert connection._waiting == {}
        assert waiting.cancelled()
        connection.close()


async def test_closing_within_an_event_is_its_end(tmp_path) -> None:
    events: list[Any] = []

    def close(event: Any) -> None:
        events.append(event)
        connection.close()

    async with switch(ModelSwitch(), tmp_path) as (address, wired):
        connection = await connect(address, events=close)
        for _ in range(3):
            wired.says(PacketIn(b"in", 1, 0, 0, total_bytes=2))
        await connection.wait_closed()
        assert events == [PacketIn(b"in", 1, 0, 0, total_bytes=2), Ended(None)]


async def test_tls_and_what_it_needs_go_together() -> None:
    assert "needs a certificate" in (await _refused("ssl:127.0.0.1:1")).message
    assert (
        "has no use for"
        in (await _refused("tcp:127.0.0.1:1", tls=verifying_context(make_authority(0).certificate.pem))).message
    )
