"""The pipeline in a real Open vSwitch: every flow is taken, told back to the byte, and does what the oracle says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from sdn.openflow import pipeline
from sdn.openflow.decode import Entry, entry_of
from sdn.openflow.encode import encode_add
from sdn.openflow.expand import adds_of
from sdn.openflow.recognise import recognise
from sdn.reconcile.datapath import Key, Object
from sdn.reconcile.state import State
from tests.conformance.frame_oracle import Fate, arrival, fate
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
from tests.conformance.vswitch_process import VswitchProcess, vswitch_process
from tests.states.states import STATES, host

pytestmark = pytest.mark.root

SEEDS = range(8)
FRAMES, ARRIVALS = 60, 10
"""Of a seed's topology."""


@pytest.fixture(scope="module")
def process() -> Iterator[VswitchProcess]:
    with vswitch_process(options=OPTIONS) as one:
        yield one


@pytest.fixture
async def switches(process: VswitchProcess) -> AsyncIterator[list[TracedSwitch]]:
    """Of hosts 1 and 2."""
    made = [await TracedSwitch.open(process, f"br{number}") for number in (1, 2)]
    yield made
    for switch in made:
        await switch.close()


def content(entry: Entry) -> tuple[int, int, bytes, int, bytes]:
    return entry.table, entry.priority, entry.match, entry.cookie, entry.instructions


def expect_told_back(told: list[Entry], objects: dict[Key, Object], ports: dict[str, int]) -> None:
    sent = [encode_add(flow) for flow in pipeline.pipeline(TUNNEL_PORT)]
    sent += [message for key, value in objects.items() for message in adds_of(key, value, ports)]
    assert {content(entry) for entry in told} == {content(entry_of(message)) for message in sent}
    assert recognise(told, ports) == objects
    assert pipeline.changes(told, TUNNEL_PORT) == []


@pytest.mark.parametrize("name", STATES)
async def test_flows_are_told_back_to_the_byte(switches: list[TracedSwitch], name: str) -> None:
    state = STATES[name]
    objects, ports = lowered(state), numbers_of(state)
    await switches[0].enter(objects, ports)
    expect_told_back(switches[0].entries, objects, ports)


def view(state: State, number: int) -> State:
    """A state as one of its hosts sees it."""
    one = next(member for _, member in state.members if member.host == host(number))
    return state.seen_from(one.host, one.vtep4, one.vtep6)


def place_of(state: State, one: Sent | Arriving) -> int:
    """On which of the two hosts it happens."""
    where = one.sender.host if isinstance(one, Sent) else one.host
    return 0 if where == host(1) else 1


def wanted_of(
    state: State, one: Sent | Arriving, ports: dict[str, int]
) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
    """Cause, ports, tunnels: what the oracle says, in a switch's words."""
    told: Fate
    if isinstance(one, Arriving):
        told, here = arrival(state, one.host, one.outer_source, one.vni, one.frame), one.host
    else:
        told, here = fate(state, one.sender, one.frame), one.sender.host
    if told.answers:
        assert isinstance(one, Sent)
        return "", (ports[port_name(one.sender)],), ()
    left: list[int] = []
    tunnels: list[str] = []
    for receiver in (each for each in state.endpoints if each.id in told.heard):
        if receiver.host == here:
            left.append(ports[port_name(receiver)])
        else:
            there = next(member for _, member in state.members if member.host == receiver.host)
            left.append(TUNNEL_PORT)
            tunnels.append(str(there.vtep4 or there.vtep6))
    return told.cause, tuple(left), tuple(tunnels)


def seen_of(story: Story) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
    return story.cause, story.ports, story.tunnels


def is_known_difference(one: Sent | Arriving, story: Story) -> bool:
    """What `tables` says that a flow cannot see."""
    packet = Ether(one.frame)
    longer = IPv6 in packet and packet[IPv6].plen > len(packet) - 54
    if IP in packet:
        longer = packet[IP].len > len(packet[IP])
    return bool(longer) and story.cause == "protocol"


@pytest.mark.parametrize("seed", SEEDS)
async def test_frames_go_where_the_oracle_says(switches: list[TracedSwitch], seed: int) -> None:
    state = random_state(seed)
    views = [view(state, 1), view(state, 2)]
    numbers = [numbers_of(one) for one in views]
    for switch, seen, ports in zip(switches, views, numbers, strict=True):
        objects = lowered(seen)
        await switch.enter(objects, ports)
        expect_told_back(switch.entries, objects, ports)
    batch: list[Sent | Arriving] = [*random_frames(state, seed, FRAMES), *random_arrivals(state, seed, ARRIVALS)]
    wrong = []
    for number, switch in enumerate(switches):
        here = [one for one in batch if place_of(state, one) == number]
        ways = [
            (way_in(numbers[number][port_name(one.sender)]), one.frame)
            if isinstance(one, Sent)
            else (way_out_of_tunnel(one.vni, one.outer_source, one.outer_target), one.frame)
            for one in here
        ]
        for one, story in zip(here, await switch.trace(ways), strict=True):
            wanted = wanted_of(state, one, numbers[number])
            if seen_of(story) != wanted and not is_known_difference(one, story):
                wrong.append(f"{one.what}: {Ether(one.frame).summary()}\n  oracle {wanted}\n  switch {story}")
    assert not wrong, "\n".join(wrong)
