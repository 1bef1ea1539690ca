"""The walk of one packet through a host's tables, stage by stage, the same for every datapath. Pure but for the looks.

A datapath only looks entries up (`Sight`), in its kernel or switch and not in what is remembered; what that means for
the packet is decided and worded here. The walk ends where the packet does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from sdn.model.explanation import (
    Arrival,
    Decision,
    Departure,
    DropsHere,
    Explanation,
    FlowRow,
    Outcome,
    Packet,
    Question,
    Stage,
    refused_cause,
)
from sdn.reconcile.datapath import DropCount


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """Where frames for a MAC go: exactly one of an endpoint's port here, a VTEP, and the gateway itself."""

    endpoint: str = ""
    vtep: str = ""
    gateway: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """One look at an entry. `row`: the entry, or, where it is not there, the one that would decide.

    `mac`, `way`: what it says, where that was asked. `trouble`: what keeps it from working, a sentence of its own.
    `cause`: what the guard counts a packet under that this entry does not let through.
    """

    row: FlowRow
    there: bool
    mac: str = ""
    way: Way | None = None
    trouble: str = ""
    cause: str = ""


class Sight(Protocol):
    """What a datapath looks up for one explanation."""

    def speaks(self, packet: Departure) -> Look:
        """What lets the endpoint's port send as this MAC and address."""

    def refuses(self, packet: Departure, cause: str) -> FlowRow:
        """What drops such packets, whoever sends them."""

    def resolves(self, packet: Departure) -> Look:
        """What answers who has the address: `mac`."""

    def forwards(self, packet: Packet, mac: str) -> Look:
        """Where frames for a MAC go: `way`."""

    def admits(self, packet: Arrival) -> Look:
        """What takes the network's tunnel packets from the VTEP."""

    def delivers(self, packet: Packet) -> Look:
        """The target's port, or, where there is no target, the gateway."""


def explain_all(
    questions: Iterable[Question], sight_of: Callable[[Question], Sight], drops: Iterable[DropCount]
) -> Explanation:
    """The decisions on each question, and of the counts those of the networks that are asked about."""
    asked = tuple(questions)
    networks = {question.network for question in asked}
    return Explanation(
        decisions=tuple(tuple(explain(question, sight_of(question))) for question in asked),
        drops=tuple(
            DropsHere(network=count.network, cause=count.cause, packets=count.packets)
            for count in drops
            if count.network in networks and count.packets
        ),
    )


def explain(question: Question, sight: Sight) -> list[Decision]:
    """What each stage of this host does with the packet, up to the one that ends it here."""
    walk = _departure(question, sight) if isinstance(question, Departure) else _arrival(question, sight)
    decisions: list[Decision] = []
    for decision in walk:
        decisions.append(decision)
        if decision.outcome is not Outcome.PASSES:
            break
    return decisions


def _departure(packet: Departure, sight: Sight) -> Iterator[Decision]:
    source = _decided(Stage.SOURCE, sight.speaks(packet), *_senders(packet))
    cause = refused_cause(packet.to, packet.protocol)
    yield _refused(packet, cause, sight) if cause and source.outcome is Outcome.PASSES else source
    mac = packet.to_mac
    if packet.to:
        look = sight.resolves(packet)
        yield _resolve(packet, look)
        mac = look.mac
    look = sight.forwards(packet, mac)
    yield _forward(packet, mac, packet.vteps, look)
    if look.way is not None and not look.way.vtep:
        yield _deliver(packet, sight.delivers(packet))


def _arrival(packet: Arrival, sight: Sight) -> Iterator[Decision]:
    look = sight.admits(packet)
    refused = f"tunnel packets of the network are not taken from {packet.vtep}"
    yield _decided(Stage.ADMIT, look, f"tunnel packets of the network are taken from {packet.vtep}", refused)
    yield _forward(packet, packet.mac, (), sight.forwards(packet, packet.mac))
    yield _deliver(packet, sight.delivers(packet))


def _senders(packet: Departure) -> tuple[str, str]:
    """What is said of a port that may speak so, and of one that may not."""
    sender = f"{packet.address} and {packet.mac}"
    return f"it speaks for {sender}", f"it may not speak for {sender}"


def _refused(packet: Departure, cause: str, sight: Sight) -> Decision:
    what = f"{packet.to} is a group: that" if cause == "multicast" else f"{packet.protocol} to a container"
    says = f"{what} is dropped, whoever sends it"
    row = sight.refuses(packet, cause)
    return Decision(stage=Stage.SOURCE, outcome=Outcome.DROP, says=says, row=row, cause=cause)


def _resolve(packet: Departure, look: Look) -> Decision:
    wanted = look.mac if packet.gateway else packet.to_mac
    known = f"nothing answers for {packet.to}" if packet.gateway or wanted else f"nobody in the network has {packet.to}"
    if not look.there or look.trouble or look.mac == wanted:
        return _decided(Stage.RESOLVE, look, f"{packet.to} is {look.mac}", known)
    wrong = f"which is not its MAC {wanted}" if wanted else "though nobody in the network has it"
    says = f"{packet.to} is answered with {look.mac}, {wrong}"
    return Decision(stage=Stage.RESOLVE, outcome=Outcome.ASTRAY, says=says, row=look.row)


def _forward(packet: Packet, mac: str, vteps: tuple[str, ...], look: Look) -> Decision:
    way, gateway = look.way or Way(), isinstance(packet, Departure) and packet.gateway
    if way.gateway:
        right, says = gateway, "it is the gateway's own"
    elif way.vtep:
        right, says = way.vtep in vteps, f"it goes into the tunnel to {way.vtep}"
    else:
        right = bool(way.endpoint) and way.endpoint == packet.target
        says = "it goes to the port of its target" if right else "it goes to a port that is not its target's"
    if not look.there or look.trouble or right:
        return _decided(Stage.FORWARD, look, says, f"there is no way to {mac}")
    wrong = ", where its target is not" if way.vtep else ""
    return Decision(stage=Stage.FORWARD, outcome=Outcome.ASTRAY, says=says + wrong, row=look.row)


def _deliver(packet: Packet, look: Look) -> Decision:
    name = "its target's port" if packet.target else "the gateway"
    return _decided(Stage.DELIVER, look, f"{name} takes it", f"{name} is not there")


def _decided(stage: Stage, look: Look, passed: str, refused: str) -> Decision:
    """By an entry that lets the packet through where it is there and nothing is in its way."""
    if look.there and not look.trouble:
        return Decision(stage=stage, outcome=Outcome.PASSES, says=passed, row=look.row)
    says = look.trouble if look.there else ": ".join(filter(None, (refused, look.trouble)))
    return Decision(
        stage=stage, outcome=Outcome.DROP, says=says, row=look.row, missing=not look.there, cause=look.cause
    )
