"""Why a packet arrives or does not: the oracle's verdict beside what the hosts on the way find in their own tables.

Hosts are asked side by side, for half a second; one that is away is said to be, and the verdict stands for it. Where
verdict and tables differ, that is said first: somebody has changed an entry, or a host has not followed.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Sequence

import msgspec

from sdn.controller.core import Core
from sdn.controller.finding import find_container, find_destination, parse_protocol, spelled
from sdn.controller.status import HostState
from sdn.controller.why_plan import Trip, plan_trip
from sdn.controller.why_view import (
    AwayView,
    DroppedView,
    LegView,
    PartyView,
    PathView,
    StageView,
    VerdictView,
    WhyView,
)
from sdn.model.errors import HawseError
from sdn.model.explanation import Decision, Explanation, Outcome, Question, Stage, arrives
from sdn.model.ids import HostId, NetworkId, TenantId
from sdn.model.resources import Endpoint
from sdn.reconcile.journey import Journey
from sdn.reconcile.reach import underlay_family

ANSWER_S = 0.5
"""For all hosts together: they are asked side by side."""
CONFINED = {
    Stage.SOURCE: "what the sender may send",
    Stage.RESOLVE: "who has the address",
    Stage.FORWARD: "where the target is",
    Stage.ADMIT: "what comes from the other host",
    Stage.DELIVER: "the target's port",
}
"""What a stage is about, for who may not see a host's own words."""


@dataclasses.dataclass(frozen=True, slots=True)
class Leg:
    """A journey and what was found of it. `stages`: up to where the packet ends. `arrives` None: not known."""

    direction: str
    journey: Journey
    stages: tuple[tuple[HostId, Decision], ...]
    arrives: bool | None

    @property
    def end(self) -> tuple[HostId, Decision] | None:
        """Where the packet ends that does not arrive."""
        return self.stages[-1] if self.arrives is False and self.stages else None


@dataclasses.dataclass(frozen=True, slots=True)
class Heard:
    """What the hosts said: answers by host, and why others gave none."""

    answers: dict[HostId, Explanation]
    away: dict[HostId, str]


async def why(core: Core, within: TenantId | None, source: str, destination: str, protocol: str) -> WhyView:
    """Raises: INVALID, NOT_FOUND, CONFLICT, for what is asked; never for what a host does."""
    state, protocol = core.state, parse_protocol(protocol)
    sources = find_container(state, source, within)
    trip = plan_trip(state, sources, find_destination(state, destination, within), protocol)
    ways = [("there", way) for way in trip.there] + [("back", way) for way in trip.back]
    heard, asked = await _ask(core, [way for _, way in ways])
    legs = [_leg(direction, way, places, heard) for (direction, way), places in zip(ways, asked, strict=True)]
    return _Telling(core, within, trip, legs, heard).view(destination, protocol)


Places = list[tuple[HostId, int]]
"""Which answer of which host is to each question of a journey."""


async def _ask(core: Core, ways: Iterable[Journey]) -> tuple[Heard, list[Places]]:
    """One query a host, with all that it is asked."""
    questions: dict[HostId, list[Question]] = {}
    asked: list[Places] = []
    for way in ways:
        places: Places = []
        for host, question in way.questions:
            listed = questions.setdefault(host, [])
            places.append((host, len(listed)))
            listed.append(question)
        asked.append(places)
    answers = await asyncio.gather(*(_ask_host(core, host, listed) for host, listed in questions.items()))
    heard = Heard({}, {})
    for host, answer in zip(questions, answers, strict=True):
        if isinstance(answer, Explanation):
            heard.answers[host] = answer
        else:
            heard.away[host] = answer
    return heard, asked


async def _ask_host(core: Core, host: HostId, questions: Sequence[Question]) -> Explanation | str:
    """Its answer, or why there is none."""
    try:
        told = await core.query(host, "explain", ANSWER_S, questions=tuple(questions))
        answer = msgspec.convert(told, Explanation)
    except HawseError as error:
        return error.message
    except msgspec.ValidationError as error:
        return f"it answered with what is no explanation: {error}"
    return answer if len(answer.decisions) == len(questions) else "it did not answer every question"


def _leg(direction: str, way: Journey, places: Places, heard: Heard) -> Leg:
    """What is known of a journey; beyond a host that is away, the others still say what they would do."""
    stages: list[tuple[HostId, Decision]] = []
    known = True
    last: tuple[Decision, ...] = ()
    for host, place in places:
        answer = heard.answers.get(host)
        if answer is None:
            known = False
            continue
        last = answer.decisions[place]
        stages += [(host, decision) for decision in last]
        if any(decision.outcome is not Outcome.PASSES for decision in last):
            return Leg(direction, way, tuple(stages), False)
    return Leg(direction, way, tuple(stages), arrives(last) if known else None)


@dataclasses.dataclass(frozen=True, slots=True)
class _Telling:
    """What was found, put into words, for an administrator or (`within`) a tenant's user."""

    core: Core
    within: TenantId | None
    trip: Trip
    legs: list[Leg]
    heard: Heard

    def view(self, to: str, protocol: str) -> WhyView:
        trip = self.trip
        found = all(leg.arrives is not False for leg in self.legs)
        expected = trip.verdict.arrives
        conclusion, hint = self._conclusion(expected, found)
        return WhyView(
            source=self._party(trip.source),
            destination=self._party(trip.target) if trip.target is not None else None,
            to=to,
            protocol=protocol,
            arrives=expected and found,
            agrees=not expected or found,
            conclusion=conclusion,
            hint=hint,
            verdict=VerdictView(arrives=expected, reason=trip.verdict.reason, cause=trip.verdict.cause),
            path=self._path(),
            legs=[self._leg(leg) for leg in self.legs],
            drops=self._drops(),
            away=self._away(),
        )

    # --- in words ---

    def _conclusion(self, expected: bool, found: bool) -> tuple[str, str]:
        verdict, diverted = self.trip.verdict, self.trip.diverted
        if not expected:
            elsewhere = ""
            if diverted is not None:
                elsewhere = f"; in its own network the address is {spelled(self.core.state, diverted)}'s"
            return f"It does not arrive: {verdict.reason}{elsewhere}.", verdict.hint
        if not found:
            return self._broken()
        answer = " and the answer comes back" if any(leg.direction == "back" for leg in self.legs) else ""
        if self.heard.away:
            names = ", ".join(sorted(self._host(host) for host in self.heard.away))
            return f"It should arrive: {verdict.reason}. But {names} could not be asked.", "'hawse host ls'"
        return f"It arrives{answer}: {verdict.reason}.", ""

    def _broken(self) -> tuple[str, str]:
        """What the tables do is not what should be: where, and what to type."""
        leg = next(leg for leg in self.legs if leg.arrives is False)
        family = "IPv6" if ":" in leg.journey.to else "IPv4"
        others = [each for each in self.legs if each.direction == leg.direction and each.arrives]
        over = f" over {family}" if others else ""
        what = f"the packet{over} should arrive" if leg.direction == "there" else f"it arrives, but the answer{over}"
        if leg.end is None:
            return f"{what[0].upper()}{what[1:]}, but nothing delivers it.", "'hawse doctor' looks at all of a host"
        host, decision = leg.end
        name = self._host(host)
        does = "sends it astray" if decision.outcome is Outcome.ASTRAY else "drops it"
        said = CONFINED[decision.stage] if self.within is not None else decision.says
        lost = f"{name} {does} at '{decision.stage}': {said}"
        text = f"{what}, but {lost}." if leg.direction == "there" else f"{what} does not: {lost}."
        return text[0].upper() + text[1:], self._remedy(host, decision, leg.journey)

    def _remedy(self, host: HostId, decision: Decision, way: Journey) -> str:
        if self.within is not None:
            return "its administrators can see why"
        name = self._host(host)
        state = next((each for each in self.core.status().hosts if each.id == host), None)
        failure = self._failure(state, way)
        if failure:
            return f"{name} could not set it up: {failure}; 'hawse host inspect {name}' shows all"
        if state is not None and state.applied_revision < self._revision(way):
            return f"{name} has not applied the last change yet: ask again, or see 'hawse host inspect {name}'"
        end = way.source if decision.stage is Stage.SOURCE else way.target
        at_port = decision.stage in (Stage.SOURCE, Stage.DELIVER) and not decision.missing
        if at_port and end is not None:
            return f"look at {end.ifname} inside {end.container}: is it up? The agent mends its own side"
        subject = spelled(self.core.state, way.target or way.source)
        return (
            f"somebody else has changed an entry; the agent on {name} puts it right when it looks next. If it stays: "
            f"'hawse flow ls {name} --endpoint {subject}', and 'hawse doctor' there"
        )

    @staticmethod
    def _failure(state: HostState | None, way: Journey) -> str:
        ends = [way.source, *([way.target] if way.target is not None else [])]
        units = [f"endpoint/{end.id}" for end in ends] + [
            f"network/{way.source.network}",
            f"tenant/{way.source.tenant}",
        ]
        failures = state.failures if state is not None else {}
        return next((failures[unit] for unit in units if unit in failures), "")

    def _revision(self, way: Journey) -> int:
        """As of when the journey's ends are what they are."""
        ends = [way.source, *([way.target] if way.target is not None else [])]
        return max(self.core.state.revision_of("endpoint", end.id) for end in ends)

    # --- as values ---

    def _host(self, host: HostId) -> str:
        return self.core.state.hosts[host].name if host in self.core.state.hosts else host

    def _party(self, endpoint: Endpoint) -> PartyView:
        state = self.core.state
        return PartyView(
            endpoint=endpoint.id,
            name=spelled(state, endpoint),
            tenant=state.tenants[endpoint.tenant].name,
            network=state.networks[endpoint.network].name,
            host=self._host(endpoint.host),
            container=endpoint.container,
            ifname=endpoint.ifname,
            addresses=endpoint.addresses,
            mac=endpoint.mac,
        )

    def _path(self) -> PathView:
        trip, hosts = self.trip, self.core.state.hosts
        way = trip.there[0] if trip.there else None
        ends = dict.fromkeys([trip.source.host, *(host for host, _ in way.questions)] if way else [trip.source.host])
        family: int = 0
        vteps: tuple[str, ...] = ()
        if len(ends) > 1 and self.within is None:
            one, other = (hosts[host] for host in ends)
            family = underlay_family(one, other) or 0
            vteps = tuple((host.vtep4 if family == 4 else host.vtep6) or "" for host in (one, other))
        return PathView(
            hosts=tuple(map(self._host, ends)),
            vteps=vteps,
            family=family,
            vni=trip.network.vni if self.within is None else 0,
            mtu_bytes=trip.network.mtu_bytes,
        )

    def _leg(self, leg: Leg) -> LegView:
        way = leg.journey
        return LegView(
            direction=leg.direction,
            source=way.address,
            destination=way.to or (way.target.mac if way.target is not None else ""),
            arrives=leg.arrives,
            stages=[self._stage(host, decision) for host, decision in leg.stages],
        )

    def _stage(self, host: HostId, decision: Decision) -> StageView:
        row, open_ = decision.row, self.within is None
        return StageView(
            host=self._host(host),
            stage=decision.stage.value,
            outcome=decision.outcome.value,
            says=decision.says if open_ else CONFINED[decision.stage],
            table=row.table if open_ else "",
            match=row.match if open_ else "",
            action=row.action if open_ else "",
            missing=decision.missing,
            cause=decision.cause,
            packets=row.packets,
            bytes=row.bytes,
            counts=row.counts if open_ else "",
        )

    def _drops(self) -> list[DroppedView]:
        networks = self.core.state.networks
        return [
            DroppedView(
                host=self._host(host),
                network=networks[NetworkId(drop.network)].name,
                cause=drop.cause,
                packets=drop.packets,
            )
            for host, answer in self.heard.answers.items()
            for drop in sorted(answer.drops, key=lambda drop: drop.cause)
            if drop.network == self.trip.network.id and NetworkId(drop.network) in networks
        ]

    def _away(self) -> list[AwayView]:
        said = [
            AwayView(host=self._host(host), why=told if self.within is None else "it does not answer now")
            for host, told in self.heard.away.items()
        ]
        return sorted(said, key=lambda away: away.host)
