"""Probes: the packets, the filter that takes them, and how a host has the others answer them."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from plugin.agent import probe
from plugin.agent.core import AgentCore
from sdn.controller.probing import BURST, PEERS_MAX
from sdn.model.address import Family
from sdn.model.errors import HawseError, Kind
from sdn.model.stream import Answer, Failed, Peers, PeersRequest, ProbeOrder, Query
from tests.unit.controller_harness import Agent, Site

COOKIE = bytes(range(16))


def ip_packet(family: Family, payload: bytes, source: int = 40000, target: int = probe.PORT) -> bytes:
    """As a raw socket receives it: IPv4 with its header (here with an option), IPv6 without."""
    udp = probe.with_udp(payload, source, target)
    return (bytes([0x46]) + bytes(23) if family == 4 else b"") + udp


def takes(program: list[tuple[int, int, int, int]], data: bytes) -> int:
    """What a classic filter returns for a packet; a load beyond its end returns nothing (net/core/filter.c)."""
    accumulator = index = at = 0
    loads = {0x48: "!H", 0x40: "!I", 0x50: "!B"}
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        match code:
            case 0xB1:
                if not data:
                    return 0
                index = 4 * (data[operand] & 0xF)
            case 0x01:
                index = operand
            case 0x48 | 0x40 | 0x50:
                if index + operand + struct.calcsize(loads[code]) > len(data):
                    return 0
                (accumulator,) = struct.unpack_from(loads[code], data, index + operand)
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x06:
                return operand
            case _:
                raise AssertionError(hex(code))


@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_is_read_as_it_was_written(family: Family) -> None:
    whole = probe.encode(family, probe.PROBE, 7, COOKIE, 1400)
    assert probe.IP_BYTES[family] + 8 + len(whole) == 1400
    raw = ip_packet(family, whole)
    read = probe.decode_raw(family, raw[:128])  # a filter cuts off what is behind
    assert read == probe.Packet(probe.PROBE, 7, 1400, COOKIE, 40000)
    smallest = probe.encode(family, probe.ACK, 7, COOKIE)
    assert probe.IP_BYTES[family] + 8 + len(smallest) == probe.SMALLEST_BYTES[family]
    assert probe.decode_payload(smallest) == probe.Packet(probe.ACK, 7, 0, COOKIE, probe.PORT)
    for cut in range(len(smallest)):
        assert probe.decode_payload(smallest[:cut]) is None
        probe.decode_raw(family, raw[:cut])


@pytest.mark.parametrize("family", [4, 6])
def test_the_filter_takes_nothing_but_probes(family: Family) -> None:
    program = probe.filter_program(family, probe.PROBE)
    good = probe.encode(family, probe.PROBE, 1, COOKIE)
    assert takes(program, ip_packet(family, good)) > 64
    assert not takes(program, ip_packet(family, good, target=53))
    assert not takes(program, ip_packet(family, probe.encode(family, probe.ECHO, 1, COOKIE)))
    tunnel = b"\x08\0\0\0\0\0\x05\0" + good[8:]
    assert not takes(program, ip_packet(family, tunnel))  # of a network: none of our business
    assert not takes(program, ip_packet(family, good[:20] + b"\x08\x00" + good[22:]))
    for cut in range(len(good)):
        takes(program, ip_packet(family, good)[:cut])


@pytest.fixture
async def site() -> Site:
    return await Site().start()


async def asked(agent: Agent) -> ProbeOrder:
    """The order that came to a host."""
    query = await later(agent, Query)
    assert query.what == "probe"
    assert isinstance(query.probe, ProbeOrder)
    await agent.say(Answer(request=query.request))
    return query.probe


async def later(agent: Agent, kind: type[Any]) -> Any:
    """What comes once the controller's tasks have run."""
    for _ in range(20):
        await asyncio.sleep(0)
        for message in await agent.take():
            if isinstance(message, kind):
                return message
    raise AssertionError(f"no {kind}")


async def test_other_hosts_are_told_to_answer_this_ones_probes(site: Site) -> None:
    h1, h2, h3 = [await site.agent(f"h{number}", number) for number in (1, 2, 3)]
    h3.stream.closed()
    await h1.say(PeersRequest(session=h1.session, request=5, names=("h2", "h3")))
    order = await asked(h2)
    assert order.sources == ("192.0.2.1",)
    reply = await later(h1, Peers)
    assert reply.request == 5
    assert reply.cookie == order.cookie
    assert len(order.cookie) == probe.COOKIE_BYTES
    assert [(peer.name, peer.vtep4, peer.problem) for peer in reply.peers] == [
        ("h2", "192.0.2.2", ""),
        ("h3", "192.0.2.3", "it is not connected to the controller"),
    ]


async def test_without_names_all_that_are_connected_and_neighbours_first(site: Site) -> None:
    await site.network()
    h1 = await site.agent("h1", 1)
    others = [await site.agent(f"x{number:03}", number + 2) for number in range(PEERS_MAX + 1)]
    await h1.attach("c1")
    await others[-1].attach("c2")
    await h1.say(PeersRequest(session=h1.session, request=1))
    first = await later(others[0], Query)
    await others[0].say(Answer(request=first.request))
    for other in others[1:]:
        queries = [message for message in await other.take() if isinstance(message, Query)]
        assert len(queries) == (0 if other is others[-2] else 1)
        for query in queries:
            await other.say(Answer(request=query.request))
    reply = await later(h1, Peers)
    assert len(reply.peers) == PEERS_MAX
    assert reply.omitted == 1
    assert reply.peers[-1].name == f"x{PEERS_MAX:03}"


async def test_requests_that_are_refused(site: Site) -> None:
    h1 = await site.agent("h1", 1)
    h2 = await site.agent("h2", 2)
    unknown = PeersRequest(session=h1.session, request=1, names=("h9",))
    (failed,) = [message for message in await h1.say(unknown) if isinstance(message, Failed)]
    assert failed.problem.kind == Kind.NOT_FOUND
    assert "h9" in failed.problem.message
    await h1.say(PeersRequest(session=h1.session, request=2))
    again = await h1.say(PeersRequest(session=h1.session, request=3))
    (failed,) = [message for message in again if isinstance(message, Failed)]
    assert failed.problem.kind == Kind.EXHAUSTED
    for number in range(BURST - 1):  # two were counted already: the last one is too many
        await asked(h2)
        await later(h1, Peers)
        await asyncio.sleep(0)  # the task ends after its reply
        again = await h1.say(PeersRequest(session=h1.session, request=10 + number, names=("h2",)))
    (failed,) = [message for message in again if isinstance(message, Failed)]
    assert "too often" in failed.problem.message
    blind = await site.agent("h3", vtep4=None)
    none = await blind.say(PeersRequest(session=blind.session, request=1))
    (failed,) = [message for message in none if isinstance(message, Failed)]
    assert failed.problem.kind == Kind.INVALID


async def test_an_agent_that_cannot_answer_probes_says_so() -> None:
    core = AgentCore.__new__(AgentCore)
    core._answer_probes = None
    with pytest.raises(HawseError, match="does not know the question"):
        await core.answer(Query(request=1, what="probe", probe=ProbeOrder(cookie=COOKIE, sources=(), seconds=1)))
