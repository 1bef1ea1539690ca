"""The interpreter of flow tables agrees with Open vSwitch: about every step of a trace, and every byte that leaves."""

from __future__ import annotations

import collections
import ipaddress
from collections.abc import AsyncIterator, Iterator

import pytest

from sdn.openflow import pipeline
from sdn.openflow.decode import flow_of
from sdn.openflow.fields import Field
from sdn.openflow.flow import Flow
from tests.conformance.flow_interpreter import FlowTables, Verdict
from tests.conformance.random_fabrics import Arriving, Sent, random_arrivals, random_frames, random_state
from tests.conformance.traced_switch import (
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

SEEDS = range(100, 104)
FRAMES, ARRIVALS = 150, 10


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


async def test_each_byte_is_the_switchs(switch: TracedSwitch) -> None:
    """What leaves by ports of the switch: forwarded as it came, and answers of the switch itself."""
    state = random_state(7)
    ports = numbers_of(state)
    await switch.enter(lowered(state), ports)
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
    assert answers > 10

    def now() -> dict[int, collections.Counter[bytes]]:
        return {port: collections.Counter(switch.sent(port)[count:]) for port, count in heard.items()}

    wait_until(
        lambda: sum(now()[port].total() for port in now()) >= sum(each.total() for each in wanted.values()), "all"
    )
    assert now() == wanted
