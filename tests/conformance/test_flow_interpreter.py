"""The interpreter of flow tables agrees with Open vSwitch: about every step of a trace, and every byte that leaves."""

from __future__ import annotations

import collections
import ipaddress
from collections.abc import AsyncIterator, Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from sdn.openflow import pipeline
from sdn.openflow.connection import connect
from sdn.openflow.decode import flow_of
from sdn.openflow.encode import encode_add, encode_delete_all
from sdn.openflow.fields import Field
from sdn.openflow.flow import IN_PORT, Flow, Output, Term
from sdn.openflow.match import NEEDS, match, put, term
from sdn.openflow.text import flow_text
from tests.conformance.flow_interpreter import FlowTables, Verdict
from tests.conformance.packet_fields import extract
from tests.conformance.random_fabrics import Arriving, Sent, random_arrivals, random_frames, random_state
from tests.conformance.traced_switch import (
    FIRST_PORT,
    OPTIONS,
    TUNNEL_PORT,
    Story,
    TracedSwitch,
    lowered,
    numbers_of,
    port_name,
    way_in,
    way_out_of_tunnel,
)
from tests.conformance.vswitch_process import VswitchProcess, vswitch_process, wait_until

pytestmark = pytest.mark.root

SEEDS = range(100, 103)
FRAMES, ARRIVALS = 100, 10
UNSETTABLE = {Field.ETH_TYPE, Field.IP_PROTO, Field.IP_FRAG, Field.IP_DSCP, Field.IP_ECN, Field.IPV6_LABEL}


@pytest.fixture(scope="module")
def process() -> Iterator[VswitchProcess]:
    with vswitch_process(options=OPTIONS) as one:
        yield one


@pytest.fixture
async def switch(process: VswitchProcess) -> AsyncIterator[TracedSwitch]:
    made = await TracedSwitch.open(process, "br1")
    yield made
    await made.close()


def tables_of(switch: TracedSwitch) -> FlowTables:
    """The switch's own flows, read back from it."""
    flows = [flow_of(entry) for entry in switch.entries]
    assert len(flows) > len(pipeline.pipeline(TUNNEL_PORT))
    return FlowTables((flow for flow in flows if isinstance(flow, Flow)), tunnels=[TUNNEL_PORT])


def verdict_of(tables: FlowTables, one: Sent | Arriving, ports: dict[str, int]) -> Verdict:
    if isinstance(one, Sent):
        return tables.run(one.frame, ports[port_name(one.sender)])
    four = ":" not in one.outer_source
    fields = (Field.TUN_IPV4_SRC, Field.TUN_IPV4_DST) if four else (Field.TUN_IPV6_SRC, Field.TUN_IPV6_DST)
    ends = (int(ipaddress.ip_address(text)) for text in (one.outer_source, one.outer_target))
    return tables.run(one.frame, TUNNEL_PORT, {Field.TUN_ID: one.vni, **dict(zip(fields, ends, strict=True))})


def way_of(one: Sent | Arriving, ports: dict[str, int]) -> str:
    if isinstance(one, Sent):
        return way_in(ports[port_name(one.sender)])
    return way_out_of_tunnel(one.vni, one.outer_source, one.outer_target)


def told_of(story: Story) -> tuple[object, ...]:
    tunnels = tuple(int(ipaddress.ip_address(text)) for text in story.tunnels)
    return story.steps, story.ports, tunnels


def seen_of(verdict: Verdict) -> tuple[object, ...]:
    steps = tuple((flow.table, flow.priority, flow.cookie) for flow in verdict.path)
    ports = tuple(each.port for each in verdict.leaving)
    return steps, ports, tuple(each.tunnel for each in verdict.leaving if each.tunnel)


@pytest.mark.parametrize("seed", SEEDS)
async def test_each_step_is_the_switchs(switch: TracedSwitch, seed: int) -> None:
    state = random_state(seed)
    ports = numbers_of(state)
    await switch.enter(lowered(state), ports)
    tables = tables_of(switch)
    here = {endpoint.id for endpoint in state.local_endpoints()}
    batch: list[Sent | Arriving] = [one for one in random_frames(state, seed, FRAMES) if one.sender.id in here]
    batch += [one for one in random_arrivals(state, seed, ARRIVALS) if one.host == state.here.host]
    assert len(batch) > FRAMES / 4
    stories = await switch.trace([(way_of(one, ports), one.frame) for one in batch])
    wrong = []
    for one, story in zip(batch, stories, strict=True):
        verdict = verdict_of(tables, one, ports)
        if seen_of(verdict) != told_of(story):
            wrong.append(
                f"{one.what} {one.frame.hex()}\n  switch      {told_of(story)}\n  interpreter {seen_of(verdict)}"
            )
    assert not wrong, "\n".join(wrong)
    assert sum(tables.packets.values()) == sum(len(story.steps) for story in stories)


async def test_each_byte_is_the_switchs(switch: TracedSwitch, process: VswitchProcess) -> None:
    """What leaves by ports of the switch: forwarded as it came, and answers of the switch itself."""
    state = random_state(7)
    ports = numbers_of(state)
    await switch.enter(lowered(state), ports)
    process.appctl("revalidator/wait")  # what was cached of earlier flows is forgotten
    tables = tables_of(switch)
    heard = {port: len(switch.sent(port)) for port in ports.values() if port != TUNNEL_PORT}
    wanted: dict[int, collections.Counter[bytes]] = {port: collections.Counter() for port in heard}
    here = {endpoint.id for endpoint in state.local_endpoints()}
    answers = 0
    for one in random_frames(state, 7, 400):
        if one.sender.id not in here:
            continue
        port = ports[port_name(one.sender)]
        verdict = tables.run(one.frame, port)
        for leaving in verdict.leaving:
            if leaving.port in wanted:
                wanted[leaving.port][leaving.frame] += 1
                answers += leaving.port == port
        await switch.receive(port, one.frame)
    assert answers > 3

    def now() -> dict[int, collections.Counter[bytes]]:
        return {port: collections.Counter(switch.sent(port)[count:]) for port, count in heard.items()}

    wait_until(
        lambda: sum(now()[port].total() for port in now()) >= sum(each.total() for each in wanted.values()), "all"
    )
    assert now() == wanted


# Flows that are not the pipeline's: each field of each kind of packet, overwritten ------------------------------------


def packets() -> dict[str, bytes]:
    """One of each kind; where it matters, of odd length, without a checksum, with a wrong one, in pieces."""
    macs = Ether(src="0a:00:00:00:00:01", dst="0a:00:00:00:00:02")
    four, six = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
    odd, even = Raw(b"seven b"), Raw(b"eight by")
    ask, answer = ICMPv6ND_NS(tgt="fd00::3"), ICMPv6ND_NA(tgt="fd00::3")
    mine, theirs = ICMPv6NDOptSrcLLAddr(lladdr="0a:00:00:00:00:01"), ICMPv6NDOptDstLLAddr(lladdr="0a:00:00:00:00:03")
    pieces = fragment(four / UDP(sport=1, dport=2) / Raw(bytes(range(64))), fragsize=40)
    made = {
        "tcp": four / TCP(sport=1, dport=2) / odd,
        "udp": four / UDP(sport=1, dport=2) / odd,
        "udp without a checksum": four / UDP(sport=1, dport=2, chksum=0) / even,
        "udp with a wrong checksum": four / UDP(sport=1, dport=2, chksum=1) / even,
        "echo": four / ICMP() / odd,
        "options": IP(src="10.0.0.1", dst="10.0.0.2", options=[IPOption_Router_Alert()]) / UDP(sport=1, dport=2),
        "first piece": pieces[0],
        "tcp6": six / TCP(sport=1, dport=2) / even,
        "udp6": six / UDP(sport=1, dport=2) / odd,
        "echo6": six / ICMPv6EchoRequest(data=b"seven b"),
        "extension": six / IPv6ExtHdrDestOpt() / UDP(sport=1, dport=2) / odd,
        "solicitation": six / ask / mine,
        "solicitation, bare": six / ask,
        "advertisement": six / answer / theirs,
        "arp": ARP(op=1, hwsrc="0a:00:00:00:00:01", psrc="10.0.0.1", pdst="10.0.0.2"),
    }
    return {name: bytes(macs / packet).ljust(60, b"\0") for name, packet in made.items()}


def overwriting(field: Field, values: dict[Field, int]) -> Flow | None:
    """A flow for such a packet that sets the field and sends it on; None where the switch takes no such flow."""
    known = {each: Term(each, values[each].to_bytes(each.size, "big")) for each in (field, Field.ETH_SRC)}
    waiting = [field]
    while waiting:
        for other, allowed in NEEDS.get(waiting.pop(), ()):
            if other not in values or (allowed and values[other] not in allowed):
                return None
            known[other] = Term(other, values[other].to_bytes(other.size, "big"))
            waiting.append(other)
    changed = (values[field] ^ 0x5A5A5A5A5A5A) & (1 << field.bits) - 1
    if field is Field.ARP_OP:
        changed = 2
    if field is Field.ND_OPTIONS_TYPE:
        changed = 3 - values[field]
    return Flow(0, 5, match(*known.values()), (put(term(field, changed)), Output(FIRST_PORT + 1), Output(IN_PORT)))


def cases() -> dict[bytes, Flow]:
    """Frames, each from a MAC of its own, and the flow that overwrites one field of it."""
    found: dict[bytes, Flow] = {}
    for packet in packets().values():
        for field in extract(packet)[0]:
            frame = packet[:6] + b"\x0a\x01" + len(found).to_bytes(4, "big") + packet[12:]
            flow = None if field in UNSETTABLE else overwriting(field, extract(frame)[0])
            if flow is not None:
                found[frame] = flow
    return found


async def test_each_field_is_overwritten_as_the_switch_does_it(process: VswitchProcess) -> None:
    here, other = FIRST_PORT, FIRST_PORT + 1
    switch = await TracedSwitch.open(process, "br9")
    connection = await connect(f"unix:{process.directory}/br9.mgmt", events=lambda _: None)
    try:
        messages = [encode_add(flow) for flow in cases().values()]
        assert await connection.bundle([[encode_delete_all(), *messages]]) == [None]
        for frame in cases():
            await switch.receive(here, frame)
        wait_until(lambda: len(switch.sent(here)) == len(switch.sent(other)) == len(cases()), "all of them")
    finally:
        connection.close()
        await connection.wait_closed()
        await switch.close()
    left = {here: collections.Counter(switch.sent(here)), other: collections.Counter(switch.sent(other))}
    assert len(cases()) > 80
    wrong = []
    for frame, flow in cases().items():
        for told in FlowTables([flow]).run(frame, here).leaving:
            if not left[told.port][told.frame]:
                wrong.append(f"{flow_text(flow)}\n  {frame.hex()}\n  {told.frame.hex()}")
            left[told.port][told.frame] -= 1
    assert not wrong, "\n".join([*wrong, *(frame.hex() for frame, count in left[here].items() if count > 0)])
