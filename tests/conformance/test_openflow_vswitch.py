"""The session against a real Open vSwitch: what it answers, what it refuses and when, and when it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from sdn.model.errors import HawseError, Kind
from sdn.openflow.connection import Connection, connect
from sdn.openflow.encode import encode_add, encode_delete
from sdn.openflow.errors import Refusal
from sdn.openflow.events import Complaint, Ended, Unasked, Update
from sdn.openflow.flow import Flow, Output
from sdn.openflow.framing import Type
from sdn.openflow.match import eth_dst, in_port, match
from sdn.openflow.messages import CONTROLLER, Configuration, PacketOut, Plain, Role, RoleReply, RoleRequest
from sdn.openflow.multipart import MultipartRequest, Part, monitor_request, tables_of
from sdn.openflow.notices import FlowRemoved, PacketIn, PortChange, PortStatus
from sdn.openflow.requests import Limits
from tests.conformance.vswitch_process import VswitchProcess, vswitch_process, wait_until

pytestmark = pytest.mark.root

BOUND_S = 10.0
FRAME = bytes.fromhex("ffffffffffff 020000000001 88b5") + bytes(46)
UNKNOWN_GROUP = 22


@pytest.fixture(scope="module")
def switch() -> Iterator[VswitchProcess]:
    with vswitch_process() as process:
        yield process


@pytest.fixture
def bridge(switch) -> Iterator[str]:
    """One of a test's own; its management socket's address is what `at` says."""
    switch.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail_mode=secure")
    switch.vsctl("set", "bridge", "br0", "other_config:datapath-id=00000000000000ab", "protocols=OpenFlow13")
    yield "br0"
    switch.vsctl("del-br", "br0")


@contextlib.asynccontextmanager
async def connected(
    switch: VswitchProcess, events: Callable[[Any], None] = lambda _: None, **limits: float
) -> AsyncIterator[Connection]:
    """To br0."""
    bounds = Limits(**limits)  # type: ignore[arg-type]
    connection = await connect(f"unix:{switch.directory}/br0.mgmt", events=events, timeout_s=BOUND_S, limits=bounds)
    try:
        yield connection
    finally:
        connection.close()
        await connection.wait_closed()


class Heard:
    """Events, and waiting for one."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()

    def __call__(self, event: Any) -> None:
        self.queue.put_nowait(event)

    async def next(self, kind: type) -> Any:
        """The next of a kind; others before it are passed over."""
        async with asyncio.timeout(BOUND_S):
            while not isinstance(event := await self.queue.get(), kind):
                pass
            return event


def flow(number: int, table: int = 0) -> Flow:
    """One of many that differ."""
    return Flow(
        table, 100, match(eth_dst(f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}")), (Output(1),), cookie=number
    )


def bad(number: int) -> bytes:
    """One whose action names a group that is not there: refused as it is added."""
    encoded = bytearray(encode_add(flow(number)))
    encoded[-16:] = struct.pack(">HHI", UNKNOWN_GROUP, 8, 77)
    encoded[2:4] = (len(encoded)).to_bytes(2, "big")
    instruction = bytearray(encoded)
    at = instruction.rindex(struct.pack(">HH", 4, 24))
    instruction[at : at + 4] = struct.pack(">HH", 4, 16)
    return bytes(instruction)


def cookies(switch: VswitchProcess) -> set[int]:
    """Of the flows that are there, in ovs-ofctl's words."""
    lines = switch.ofctl("dump-flows", f"unix:{switch.directory}/br0.mgmt").splitlines()
    return {int(line.split("cookie=")[1].split(",")[0], 16) for line in lines if "cookie=" in line}


def words(verdicts: list[Refusal | None]) -> list[Any]:
    """As a person sees them."""
    return [verdict and (verdict.message, verdict.text) for verdict in verdicts]


def _listens(switch: VswitchProcess) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(f"{switch.directory}/br0.mgmt") == 0


async def test_what_a_switch_is(switch, bridge) -> None:
    async with connected(switch) as connection:
        assert connection.features.datapath_id == 0xAB
        assert connection.features.tables == 254
        assert (await connection.description()).hardware == "Open vSwitch"
        (port,) = await connection.port_desc()
        assert port.name == "br0"
        tables = tables_of(await connection.multipart(MultipartRequest(Part.TABLE)))
        assert [table.table for table in tables] == list(range(254))
        assert (await connection.aggregate()).flows == 0
        assert await connection.request(RoleRequest(Role.EQUAL)) == RoleReply(Role.EQUAL, (1 << 64) - 1)
        assert isinstance(await connection.request(Plain(Type.GET_CONFIG_REQUEST)), Configuration)


async def test_a_bundle_is_done_without_the_groups_of_which_it_refuses_something(switch, bridge) -> None:
    async with connected(switch) as connection:
        groups = [[encode_add(flow(1)), encode_add(flow(2))], [encode_add(flow(3)), bad(4)], [encode_add(flow(5))]]
        verdicts = await connection.bundle(groups)
        assert words(verdicts) == [None, (1, "BAD_ACTION BAD_OUT_GROUP"), None]
        assert cookies(switch) == {1, 2, 5}
        assert await connection.bundle([[encode_delete(flow(1)), encode_add(flow(6))]]) == [None]
        assert cookies(switch) == {2, 5, 6}
        assert (await connection.aggregate(cookie=5, cookie_mask=(1 << 64) - 1)).flows == 1
        assert b"".join(await connection.flow_stats(cookie=2, cookie_mask=(1 << 64) - 1))


async def test_a_full_table_is_told_for_each_that_has_no_place(switch, bridge) -> None:
    full = ["--", "--id=@full", "create", "Flow_Table", "flow_limit=20", "overflow_policy=refuse"]
    switch.vsctl(*full, "--", "set", "bridge", "br0", "flow_tables:7=@full")
    async with connected(switch) as connection:
        groups = [[encode_add(flow(number, 7)), encode_add(flow(number + 100, 7))] for number in range(1, 31)]
        verdicts = await connection.bundle([*groups, [encode_add(flow(999))]])
        refused = [verdict for verdict in verdicts if verdict is not None]
        assert {verdict.text for verdict in refused} == {"FLOW_MOD_FAILED TABLE_FULL"}
        assert refused[0].as_error("the flows of e1").kind is Kind.EXHAUSTED
        done = {number for number, verdict in enumerate(verdicts[:-1], 1) if verdict is None}
        assert len(done) == 10
        assert cookies(switch) == done | {number + 100 for number in done} | {999}


async def test_many_at_once_and_a_dump_in_many_parts(switch, bridge) -> None:
    async with connected(switch, request_s=BOUND_S) as connection:
        assert set(await connection.bundle([[encode_add(flow(number))] for number in range(1, 4001)])) == {None}
        bodies = await connection.flow_stats()
        assert len(bodies) > 1
        assert (await connection.aggregate()).flows == 4000


async def test_what_a_switch_tells_unasked(switch, bridge) -> None:
    heard = Heard()
    async with connected(switch, heard) as connection:
        connection.send(Configuration())  # whoever has not asked for anything gets no events on this socket
        await connection.barrier()
        to_us = struct.pack(">HHIH6x", 0, 16, CONTROLLER, 0xFFFF)
        connection.send(PacketOut(FRAME, to_us, in_port=0xFFFFFFFE))
        packet = await heard.next(PacketIn)
        assert (packet.frame, packet.in_port, packet.total_bytes) == (FRAME, 0xFFFFFFFE, len(FRAME))
        switch.vsctl("add-port", "br0", "dummy", "--", "set", "interface", "dummy", "type=internal", "ofport_request=9")
        while (status := await heard.next(PortStatus)).port.name != "dummy":
            pass
        assert (status.change, status.port.number) == (PortChange.ADDED, 9)
        address = f"unix:{switch.directory}/br0.mgmt"
        switch.ofctl("add-flow", address, "cookie=0x5,send_flow_rem,in_port=9,actions=drop")
        switch.ofctl("del-flows", address)
        removed = await heard.next(FlowRemoved)
        assert (removed.cookie, removed.reason, removed.match) == (5, 2, bytes.fromhex("8000000400000009"))
        connection.post(bad(1))
        assert (await heard.next(Complaint)).error.text == "BAD_ACTION BAD_OUT_GROUP"


async def test_changes_by_others_are_told_and_of_our_own_the_xid(switch, bridge) -> None:
    heard = Heard()
    async with connected(switch, heard) as connection:
        await connection.multipart(monitor_request(1))
        assert await connection.bundle([[encode_add(flow(1))]]) == [None]
        own = await heard.next(Update)
        others = "cookie=0x1234567812345678,in_port=9,actions=drop"
        switch.ofctl("add-flow", f"unix:{switch.directory}/br0.mgmt", others)
        foreign = await heard.next(Update)
        assert own.part == foreign.part == Part.EXPERIMENTER
        assert own.data[8:12] == bytes.fromhex("0008 0003")  # no more than the xid
        assert (0x1234567812345678).to_bytes(8, "big") in foreign.data
        await connection.barrier()
        assert heard.queue.empty()


async def test_another_version_is_named(switch, bridge) -> None:
    switch.vsctl("set", "bridge", "br0", "protocols=OpenFlow10,OpenFlow15")
    with pytest.raises(HawseError) as caught:
        async with connected(switch):
            pass
    assert caught.value.kind is Kind.CONFLICT
    assert caught.value.message.endswith("br0.mgmt speaks OpenFlow 1.0, 1.5, and Hawse 1.3")
    assert "protocols=OpenFlow13" in caught.value.hint


async def test_a_switch_that_stands_still_is_given_up_and_may_come_back(switch, bridge) -> None:
    heard = Heard()
    async with connected(switch, heard, request_s=0.1) as connection:
        with switch.stopped():
            with pytest.raises(HawseError, match=r"br0.mgmt has not answered BARRIER_REQUEST in 0.1 s"):
                await connection.barrier()
            with pytest.raises(HawseError, match=r"no switch answers at .*br0.mgmt in 0.1 s"):
                await connect(f"unix:{switch.directory}/br0.mgmt", events=heard, timeout_s=0.1)
        assert (await heard.next(Unasked)).type is Type.BARRIER_REPLY
        await connection.barrier(BOUND_S)


async def test_a_killed_switch_is_noticed_at_once_and_another_is_connected_to(switch, bridge) -> None:
    heard = Heard()
    async with connected(switch, heard) as connection:
        assert await connection.bundle([[encode_add(flow(1))]]) == [None]
        switch.kill_vswitchd()
        assert "has closed the connection" in (await heard.next(Ended)).error.message
        with pytest.raises(HawseError, match="is not open"):
            await connection.barrier()
        with pytest.raises(HawseError, match="no switch is reached at"):
            await connect(f"unix:{switch.directory}/br0.mgmt", events=heard)
        switch.start_vswitchd()
        await asyncio.to_thread(wait_until, lambda: _listens(switch), "its bridge is there again")
    async with connected(switch) as connection:
        assert (await connection.aggregate()).flows == 0
        assert await connection.bundle([[encode_add(flow(1))]]) == [None]


async def test_what_was_in_a_bundle_when_the_connection_ended_is_not_done(switch, bridge) -> None:
    async with connected(switch) as connection:
        first, rest = [encode_add(flow(1))], in_port(4)
        waiting = asyncio.ensure_future(connection.bundle([first, [encode_add(Flow(0, 5, match(rest), cookie=8))]]))
        await asyncio.sleep(0)
        connection._transport.abort()  # type: ignore[union-attr]
        with pytest.raises(HawseError, match="has closed the connection"):
            await waiting
    async with connected(switch) as connection:
        assert await connection.bundle([[encode_add(flow(3))]]) == [None]
    assert cookies(switch) in ({3}, {1, 8, 3})  # all or nothing
