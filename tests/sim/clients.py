"""Who attaches containers, and what each was told: the records that the end is compared with.

A slot is a place for an attachment: (machine, container, interface name). What a client knows of it is a fact: it was
told that it is there, it was told that it is not, or it does not know (the agent died, or the answer was an error about
something that had been there).
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import Iterable
from typing import Protocol

from sdn.model.contract import AddRequest, AddResult, CheckRequest, DelRequest, GcRequest
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import EndpointId
from sdn.reconcile.reach import address_of
from tests.sim.centre import Centre
from tests.sim.invariants import Disks
from tests.sim.machine import Machine
from tests.sim.virtual_time import DiedError
from tests.sim.wire import Wire


class Fact(enum.Enum):
    """What a client knows of a slot."""

    ABSENT = "absent"
    THERE = "there"
    UNKNOWN = "unknown"


class Outcome(enum.Enum):
    """How a request ended."""

    DONE = "done"
    REFUSED = "refused"
    LOST = "lost"


@dataclasses.dataclass(eq=False, slots=True)
class Slot:
    """`sandbox`: the cookie of its namespace, 0 while there is none; `doomed`: those that die when nobody uses them."""

    machine: Machine
    container: str
    ifname: str
    scope: str
    sandbox: int = 0
    fact: Fact = Fact.ABSENT
    result: AddResult | None = None
    busy: int = 0
    doomed: set[int] = dataclasses.field(default_factory=set)
    left: set[int] = dataclasses.field(default_factory=set)
    """Namespaces of earlier containers that somebody still holds open."""
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    before: Fact = Fact.ABSENT

    @property
    def name(self) -> str:
        """For the trace."""
        return f"{self.machine.name}/{self.container}:{self.ifname}"


class Surroundings(Protocol):
    """What clients need of the world."""

    @property
    def machines(self) -> list[Machine]:
        """All that are not forgotten."""

    @property
    def centre(self) -> Centre:
        """Where the controller runs."""

    @property
    def disks(self) -> Disks:
        """What is on the controller's disk."""

    def say(self, text: str) -> None:
        """Write something into the trace."""

    def fail(self, text: str) -> None:
        """An invariant does not hold."""


class Clients:
    """All clients of all machines."""

    def __init__(self, world: Surroundings) -> None:
        self.slots: list[Slot] = []
        self.added = 0
        self._world = world
        self._cookies = 100

    def of(self, machine: Machine) -> list[Slot]:
        """The slots of a machine."""
        return [slot for slot in self.slots if slot.machine is machine]

    def new_sandbox(self, slot: Slot, old_dies: bool) -> None:
        """The container is made (again)."""
        if slot.sandbox:
            (slot.doomed if old_dies else slot.left).add(slot.sandbox)
        self._cookies += 1
        slot.sandbox = self._cookies

    # Verbs ------------------------------------------------------------------------------------------------------------

    async def add(
        self, slot: Slot, network: str, *, settle_ms: int | None = None, address: str = "", times: int = 1
    ) -> None:
        """ADD, several times at once where a client is impatient."""
        request = AddRequest(
            client="cni",
            scope=slot.scope,
            container=slot.container,
            ifname=slot.ifname,
            network=network,
            addresses=(address,) if address else (),
            settle_ms=settle_ms,
        )
        self._begin(slot)
        results = await asyncio.gather(*[self._add_once(slot, request) for _ in range(times)])
        found = {result.endpoint for result in results if result is not None}
        if len(found) > 1:
            self._world.fail(f"{slot.name}: the same ADD was answered with {found}")
        if set(slot.outcomes) == {Outcome.DONE}:
            slot.fact, slot.result = Fact.THERE, results[0]
        elif set(slot.outcomes) == {Outcome.REFUSED} and slot.before is Fact.ABSENT:
            slot.fact = Fact.ABSENT
        self._end(slot)

    async def _add_once(self, slot: Slot, request: AddRequest) -> AddResult | None:
        sandbox, boots = slot.sandbox, slot.machine.boots
        watching = self._witnesses(slot.machine)
        try:
            result = await slot.machine.ask(lambda core: core.attachments.add(request, sandbox))
        except (HawseError, DiedError) as error:
            self._note(slot, f"ADD {request.network}", error)
            return None
        self._world.say(f"{slot.name}: ADD gave {result.addresses} {result.mac} late {result.late}")
        slot.outcomes.append(Outcome.DONE)
        self.added += 1
        if slot.machine.boots == boots and not slot.machine.forgotten:
            self._judge_added(slot, result)
            if request.settle_ms != 0:
                self._judge_settled(slot, result, watching)
        return result

    async def delete(self, slot: Slot, *, with_sandbox: bool = True, times: int = 1) -> None:
        """DEL, several times at once where a client is impatient."""
        self._begin(slot)
        await asyncio.gather(*[self._delete_once(slot, slot.sandbox if with_sandbox else None) for _ in range(times)])
        if Outcome.DONE in slot.outcomes:
            slot.fact, slot.result = Fact.ABSENT, None
        self._end(slot)

    async def _delete_once(self, slot: Slot, fd: int | None) -> None:
        machine = slot.machine
        request = DelRequest(client="cni", scope=slot.scope, container=slot.container, ifname=slot.ifname)
        machine.blind.add(slot.container)
        try:
            await machine.ask(lambda core: core.attachments.delete(request, fd or None))
        except (HawseError, DiedError) as error:
            self._note(slot, "DEL", error)
            if isinstance(error, HawseError) and machine.serving and not self._troubled(machine):
                self._world.fail(f"{slot.name}: DEL failed: {error}")
            return
        finally:
            machine.blind.discard(slot.container)
        self._world.say(f"{slot.name}: DEL done")
        slot.outcomes.append(Outcome.DONE)
        if not self._troubled(machine) and self._ports(slot):
            self._world.fail(f"{slot.name}: DEL was answered, but {self._ports(slot)} is there")

    async def collect(self, machine: Machine, scope: str, dropped: Iterable[Slot]) -> None:
        """GC of a scope: all of its slots but some are valid."""
        gone = list(dropped)
        mine = [slot for slot in self.of(machine) if slot.scope == scope]
        valid = tuple((slot.container, slot.ifname) for slot in mine if slot not in gone)
        facts = {slot: (slot.fact, slot.result) for slot in mine}
        for slot in mine:
            self._begin(slot)
        try:
            await machine.ask(lambda core: core.attachments.collect(GcRequest(client="cni", scope=scope, valid=valid)))
            done = True
        except (HawseError, DiedError) as error:
            self._world.say(f"{machine.name}: GC {type(error).__name__} {error}")
            done = False
        for slot in mine:
            if slot not in gone:
                slot.fact, slot.result = facts[slot]
            elif done:
                slot.fact, slot.result = Fact.ABSENT, None
            self._end(slot)

    async def remove(self, slot: Slot) -> None:
        """An administrator releases the endpoint by force."""
        if slot.result is None:
            return
        id_ = slot.result.endpoint
        self._begin(slot)
        try:
            await self._world.centre.call(lambda core: core.delete_endpoint(id_, "admin"))
        except (HawseError, DiedError) as error:
            self._note(slot, "forced release", error)
        else:
            self._world.say(f"{slot.name}: released by force")
            slot.fact, slot.result = Fact.ABSENT, None
        self._end(slot)

    def lose(self, slot: Slot) -> None:
        """The container dies."""
        if slot.sandbox:
            slot.doomed.add(slot.sandbox)
            slot.sandbox = 0
            if not slot.busy:
                self._bury(slot)

    def rebooted(self, machine: Machine) -> None:
        """Every container of the machine is gone."""
        for slot in self.of(machine):
            slot.sandbox = 0
            slot.doomed.clear()
            slot.left.clear()
            slot.fact = Fact.UNKNOWN if slot.busy else Fact.ABSENT
            slot.before, slot.result = Fact.UNKNOWN, None

    # The end ----------------------------------------------------------------------------------------------------------

    async def judge_quiet(self) -> None:
        """What clients were told is so."""
        for slot in self.slots:
            if slot.machine.forgotten:
                continue
            found = [
                endpoint
                for endpoint in self._world.disks.endpoints.values()
                if (endpoint.host, endpoint.container, endpoint.ifname)
                == (slot.machine.host, slot.container, slot.ifname)
            ]
            if slot.fact is Fact.ABSENT and (found or self._ports(slot)):
                self._world.fail(f"{slot.name} is to be absent, but there are {found} and {self._ports(slot)}")
            if slot.fact is Fact.THERE:
                assert slot.result is not None
                if [endpoint.id for endpoint in found] != [slot.result.endpoint]:
                    self._world.fail(f"{slot.name} is to be {slot.result.endpoint}, but there are {found}")
                await self._judge_check(slot)

    async def _judge_check(self, slot: Slot) -> None:
        request = CheckRequest(client="cni", scope=slot.scope, container=slot.container, ifname=slot.ifname)
        try:
            await slot.machine.ask(lambda core: core.attachments.check(request, slot.sandbox))
        except HawseError as error:
            self._world.fail(f"{slot.name}: CHECK says {error}")

    # Inside -----------------------------------------------------------------------------------------------------------

    def _begin(self, slot: Slot) -> None:
        slot.busy += 1
        slot.outcomes = []
        slot.before, slot.fact = slot.fact, Fact.UNKNOWN

    def _end(self, slot: Slot) -> None:
        slot.busy -= 1
        if not slot.busy and slot.doomed:
            self._bury(slot)

    def _bury(self, slot: Slot) -> None:
        doomed, slot.doomed = slot.doomed, set()
        for cookie in sorted(doomed):
            self._world.say(f"{slot.name}: namespace {cookie} is gone")
            slot.machine.kernel.lose_sandbox(cookie)
        if not slot.sandbox:
            slot.fact, slot.result = Fact.UNKNOWN if slot.left else Fact.ABSENT, None

    def _note(self, slot: Slot, what: str, error: HawseError | DiedError) -> None:
        self._world.say(f"{slot.name}: {what}: {type(error).__name__} {error}")
        slot.outcomes.append(Outcome.REFUSED if isinstance(error, HawseError) else Outcome.LOST)
        if isinstance(error, HawseError) and error.kind is Kind.INTERNAL and not self._troubled(slot.machine):
            self._world.fail(f"{slot.name}: {what}: {error}")

    def _troubled(self, machine: Machine) -> bool:
        return asyncio.get_running_loop().time() < machine.troubled_until_s

    def _ports(self, slot: Slot) -> list[EndpointId]:
        machine = slot.machine
        return [
            EndpointId(key[2])
            for key, port in machine.kernel.objects.items()
            if key[0] == "port" and (port.container, port.ifname) == (slot.container, slot.ifname)  # type: ignore[union-attr]
        ]

    def _judge_added(self, slot: Slot, result: AddResult) -> None:
        """At the very moment of the answer."""
        if EndpointId(result.endpoint) not in self._world.disks.endpoints:
            self._world.fail(f"{slot.name}: ADD was answered, but the store has no {result.endpoint}")
        if not self._troubled(slot.machine) and result.endpoint not in self._ports(slot):
            self._world.fail(f"{slot.name}: ADD was answered, but there is no port of {result.endpoint}")
        for other in self.slots:
            theirs = other.result if other.fact is Fact.THERE and not other.machine.forgotten else None
            if other is slot or theirs is None or theirs.network != result.network:
                continue
            if theirs.mac == result.mac or set(theirs.addresses) & set(result.addresses):
                self._world.fail(f"{slot.name} and {other.name} were both given one of {result.addresses} {result.mac}")

    def _witnesses(self, mine: Machine) -> dict[Machine, Wire]:
        """Other machines that are connected, and by what."""
        return {
            machine: machine.wire
            for machine in self._world.machines
            if machine is not mine and machine.core and machine.core.session.live and machine.wire
        }

    def _judge_settled(self, slot: Slot, result: AddResult, watching: dict[Machine, Wire]) -> None:
        """Who was there all the time, has the network and is not late knows the address: no packet is lost."""
        holders = self._world.disks.holders.get(result.network, {})
        for machine, wire in watching.items():
            if machine.wire is not wire or not wire.heard or self._troubled(machine) or machine.name in result.late:
                continue
            if holders.get(machine.host, result.revision) >= result.revision:
                continue
            for address in result.addresses:
                if ("neighbour", result.tenant, result.network, address_of(address)) not in machine.kernel.objects:
                    self._world.fail(f"{slot.name}: {machine.name} is not late, but does not know {address}")
