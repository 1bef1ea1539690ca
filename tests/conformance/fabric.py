"""Two hosts with a wire between them, each on any datapath, whose containers say what they are told and nothing else.

What comes of a batch of frames is told as an `Outcome`: who heard which, what was answered to whom, what was counted.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import select
import socket
import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from plugin.kernel import namespace
from plugin.kernel.nftables import run_libnftables
from sdn.model.address import link_local
from sdn.model.ids import EndpointId, HostId, NetworkId
from sdn.model.resources import Endpoint, Member
from sdn.reconcile.laws import Agent, Site
from sdn.reconcile.state import State
from tests.conformance.frame_oracle import Answer, arrival, fate
from tests.conformance.random_fabrics import Arriving, Sent, station
from tests.packet.frames import udp6
from tests.packet.namespaces import TestNamespace
from tests.states.states import host

WAIT_S = 20.0
ETH_P_ALL = 3
OURS = 0x6877
MUTE = f"""\
table netdev mute
delete table netdev mute
table netdev mute {{
 chain out {{
  type filter hook egress device "eth0" priority 0; policy drop;
  meta mark {OURS} accept
 }}
}}
"""
"""A container's own kernel says nothing; what our sockets say is marked."""

Drop = tuple[int, NetworkId, str]
"""Number of the host, network, cause."""


class PacketSite(Protocol):
    """A site whose namespaces can be entered."""

    here: TestNamespace

    def container(self, endpoint: Endpoint) -> TestNamespace:
        """The endpoint's container's namespace."""


class PacketLawSite(Site, PacketSite, Protocol):
    """What a fabric is made of."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """`heard`: by place in the batch, how often who heard it. `answers`: to whom what. `drops`: how many."""

    heard: dict[int, collections.Counter[EndpointId]]
    answers: dict[EndpointId, collections.Counter[Answer]]
    drops: collections.Counter[Drop]


def expected(state: State, batch: Sequence[Sent | Arriving]) -> Outcome:
    """What the oracle says."""
    wanted = Outcome({}, {}, collections.Counter())
    number_of = {host(number): number for number in (1, 2)}
    for place, one in enumerate(batch):
        if isinstance(one, Sent):
            verdict, where, network = fate(state, one.sender, one.frame), one.sender.host, one.sender.network
        else:
            verdict, where = arrival(state, one.host, one.outer_source, one.vni, one.frame), one.host
            network = next((net.id for net in state.networks if net.vni == one.vni), NetworkId(""))
        if verdict.heard:
            wanted.heard[place] = collections.Counter(verdict.heard)
        if verdict.answers:
            assert isinstance(one, Sent)
            wanted.answers.setdefault(one.sender.id, collections.Counter()).update(verdict.answers)
        if verdict.cause:
            wanted.drops[number_of[where], network, verdict.cause] += 1
    return wanted


class Fabric:
    """Host 1 and host 2, each a site."""

    def __init__(self, name: str, first: Callable[[], PacketLawSite], second: Callable[[], PacketLawSite]) -> None:
        self.name = name
        self._undo = contextlib.ExitStack()
        with self._undo:
            self._sites = [self._undo.enter_context(contextlib.closing(make())) for make in (first, second)]
            _wire([site.here for site in self._sites])
            self._agents: list[Agent] = []
            self._undo = self._undo.pop_all()
        self._ears: dict[EndpointId, _Ear] = {}
        self._controls = 0

    async def enter(self, state: State) -> None:
        """Become what a state says, and fall silent."""
        self._deafen()
        vteps = [_vteps_of(state, host(number)) for number in (1, 2)]
        seen = [state.seen_from(host(number), *vtep) for number, vtep in zip((1, 2), vteps, strict=True)]
        empty = [State("empty", one.here) for one in seen]
        if not self._agents:
            for site, one in zip(self._sites, empty, strict=True):
                agent = Agent(site, one)
                self._undo.callback(agent.close)
                self._agents.append(agent)
                await agent.start(one)
        for agent, nothing, everything in zip(self._agents, empty, seen, strict=True):
            await agent.enter(nothing)
            await agent.enter(everything)
            assert not agent.reconciler.failures, agent.reconciler.failures
        for endpoint in state.endpoints:
            inside = self._site_of(endpoint).container(endpoint)
            run_libnftables(MUTE, inside.fd)
            self._ears[endpoint.id] = _Ear(inside)

    def outcome(self, state: State, batch: Sequence[Sent | Arriving], wanted: Outcome) -> Outcome:
        """Say it, and tell what came of it. `wanted`: what is waited for, so that a slow machine is no difference."""
        for ear in self._ears.values():
            ear.forget()
        before = self._drops()
        places = {one.frame: place for place, one in enumerate(batch)}
        for one in batch:
            if isinstance(one, Sent):
                self._ears[one.sender.id].send(one.frame)
            else:
                self._inject(one)
        controls = self._say_controls(state)
        deadline = time.monotonic() + WAIT_S
        seen = self._sorted(places, controls)
        while (controls or not _has(seen, wanted)) and time.monotonic() < deadline:
            select.select([ear.socket for ear in self._ears.values()], [], [], max(0.0, deadline - time.monotonic()))
            self._sorted(places, controls, seen)
        assert not controls, f"{self.name}: {len(controls)} control frames never came"
        while True:  # some counters are brought up to date from time to time only
            drops = self._drops() - before
            if drops == wanted.drops or time.monotonic() > deadline:
                return dataclasses.replace(seen, drops=drops)
            time.sleep(0.05)

    def close(self) -> None:
        """Remove everything."""
        self._deafen()
        self._undo.close()

    def _site_of(self, endpoint: Endpoint) -> PacketLawSite:
        return self._sites[0 if endpoint.host == host(1) else 1]

    def _deafen(self) -> None:
        for ear in self._ears.values():
            ear.socket.close()
        self._ears.clear()

    def _say_controls(self, state: State) -> set[tuple[EndpointId, bytes]]:
        """An honest frame of everybody to everybody of its network: what comes later than these never comes."""
        controls = set()
        for sender in state.endpoints:
            for receiver in state.endpoints:
                if sender.network == receiver.network and sender.id != receiver.id:
                    self._controls += 1
                    me, to = station(sender), station(receiver)
                    here = dataclasses.replace(me, ip6=link_local(me.mac))
                    there = dataclasses.replace(to, ip6=link_local(to.mac))
                    frame = udp6(here, there, b"control" + self._controls.to_bytes(8, "big"))
                    controls.add((receiver.id, frame))
                    self._ears[sender.id].send(frame)
        return controls

    def _sorted(
        self, places: dict[bytes, int], controls: set[tuple[EndpointId, bytes]], seen: Outcome | None = None
    ) -> Outcome:
        """What was heard since the last call, added to `seen`; controls that came are taken away."""
        seen = seen or Outcome({}, {}, collections.Counter())
        for id_, ear in self._ears.items():
            for frame in ear.heard():
                if (id_, frame) in controls:
                    controls.remove((id_, frame))
                elif frame in places:
                    seen.heard.setdefault(places[frame], collections.Counter())[id_] += 1
                else:
                    seen.answers.setdefault(id_, collections.Counter())[_answer(frame)] += 1
        return seen

    def _inject(self, one: Arriving) -> None:
        """From the other end of the wire, whoever it says that it is from."""
        number = 0 if one.host == host(1) else 1
        target, source = self._sites[number].here, self._sites[1 - number].here
        wire = namespace.socket_in(source.fd, socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        with wire:
            wire.bind(("under", 0))
            wire.send(one.packet(_mac_of(source), _mac_of(target)))

    def _drops(self) -> collections.Counter[Drop]:
        counted: collections.Counter[Drop] = collections.Counter()
        for number, agent in enumerate(self._agents, 1):
            for drop in agent.inner.drops():
                if drop.packets:
                    counted[number, NetworkId(drop.network), drop.cause] += drop.packets
        return counted


def _has(seen: Outcome, wanted: Outcome) -> bool:
    """Whether all came that must."""
    return all(wanted.heard[place] <= seen.heard.get(place, collections.Counter()) for place in wanted.heard) and all(
        wanted.answers[id_] <= seen.answers.get(id_, collections.Counter()) for id_ in wanted.answers
    )


def _vteps_of(state: State, id_: HostId) -> tuple[str | None, str | None]:
    found: Member = next(member for _, member in state.members if member.host == id_)
    return found.vtep4, found.vtep6


def _wire(places: Collection[TestNamespace]) -> None:
    """Between the hosts' namespaces, with both families' addresses."""
    first, second = places
    first.ip(f"link add under type veth peer name under netns {second.name}")
    for number, place in ((1, first), (2, second)):
        place.ip(
            f"link set under up\naddr add 192.0.2.{number}/24 dev under\naddr add 2001:db8::{number}/64 dev under nodad"
        )


def _mac_of(place: TestNamespace) -> str:
    with namespace.socket_in(place.fd, socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as wire:
        wire.bind(("under", 0))
        return bytes(wire.getsockname()[4]).hex(":")


def _answer(frame: bytes) -> Answer:
    """What the network said, or, where it makes no sense, all of it."""
    packet = Ether(frame)
    if ARP in packet and packet[ARP].op == 2 and packet[ARP].hwsrc == packet.src:
        return Answer("arp", packet[ARP].psrc, packet.src)
    if ICMPv6ND_NA in packet and packet[ICMPv6ND_NA].S:
        option = packet.getlayer(ICMPv6NDOptDstLLAddr)  # who asked by unicast knows the MAC, and need not be told it
        if option is None or option.lladdr == packet.src:
            return Answer("nd", packet[ICMPv6ND_NA].tgt, packet.src)
    if ICMP in packet and packet[ICMP].type == 0:
        return Answer("echo", packet.payload.src, packet.src)
    if ICMPv6EchoReply in packet:
        return Answer("echo", packet[IPv6].src, packet.src)
    return Answer("nonsense", packet.summary(), frame.hex())


class _Ear:
    """A packet socket on a container's interface."""

    def __init__(self, inside: TestNamespace) -> None:
        self.socket = namespace.socket_in(
            inside.fd, socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(ETH_P_ALL)
        )
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, OURS)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind(("eth0", ETH_P_ALL))
        self.socket.setblocking(False)

    def send(self, frame: bytes) -> None:
        self.socket.send(frame)

    def heard(self) -> list[bytes]:
        """Since the last call."""
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (_, _, direction, *_) = self.socket.recvfrom(65535)
                if direction != socket.PACKET_OUTGOING:
                    frames.append(bytes(frame))
        return frames

    def forget(self) -> None:
        self.heard()
