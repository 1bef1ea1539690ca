"""The whole of it: a controller and some machines in one process, and everything that can happen to them by chance."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Coroutine, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from plugin.agent.channel import Channel
from sdn.controller import topics
from sdn.controller.core import Core
from sdn.controller.options import Options
from sdn.controller.specs import NetworkSpec, SubnetSpec, TenantSpec
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.model.ids import HostId
from tests.sim.centre import Centre
from tests.sim.clients import Clients, Slot
from tests.sim.invariants import Disks, judge_quiet
from tests.sim.machine import Machine
from tests.sim.virtual_time import DiedError, Life, VirtualLoop
from tests.sim.wire import Wire

QUIET_S = 60.0
"""Virtual. Above every bound and back-off of the product but the periodic read of everything."""
LEARNS_S = (0.0, 0.0, 0.01, 1.0, 15.0)
"""When an end learns that its connection is cut; the last is the heartbeat's bound."""
PAUSES_S = (0.0, 0.0, 0.0, 0.0, 0.0001, 0.0005, 0.002, 0.03)


class BrokenWorldError(AssertionError):
    """An invariant does not hold. The text has the seed and the end of the trace."""


@dataclasses.dataclass(slots=True)
class Known:
    """What the administrator knows of a network's name: its id, "" when there is none, None: unknown.

    `busy`: a request about it is under way; two at once would leave nobody any the wiser.
    """

    id: str | None = ""
    busy: bool = False


class World:
    """Everything that happens is drawn from one seed; `trace` is what happened."""

    def __init__(self, loop: VirtualLoop, directory: Path, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.trace: list[str] = []
        self.failures: list[str] = []
        self.machines: list[Machine] = []
        self.forgotten: list[Machine] = []
        self.clients = Clients(self)
        self.networks: dict[str, Known] = {}
        options = Options(
            vni_first=1,
            vni_last=self.rng.choice((4, 8, 100)),
            settle_s=self.rng.choice((0.005, 1.0)),
            lag_transactions=self.rng.choice((1, 3, 128)),
            resume_changes=self.rng.choice((2, 20, 1000)),
        )
        self.centre = Centre(self, options, self.rng.choice((3, 30, 10_000)), self._committed)
        self.disks = Disks(self.centre.disk)
        self._loop = loop
        self._directory = directory
        self._begun = 0
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._undo = pytest.MonkeyPatch()
        self._log = structlog.get_config()

    # What everybody needs ---------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Write something into the trace."""
        self.trace.append(f"{self._loop.time():10.6f} {text}")

    def fail(self, text: str) -> None:
        """An invariant does not hold."""
        self.say(f"BROKEN: {text}")
        self.failures.append(text)

    def chance(self) -> float:
        """Of the one source of randomness."""
        return self.rng.random()

    def bits(self, count: int) -> int:
        """Of the one source of randomness."""
        return self.rng.getrandbits(count)

    def life(self, name: str, slowness: Callable[[], float]) -> Life:
        """A new process."""
        return Life(self._loop, name, lambda: self.rng.choice(PAUSES_S) * self.rng.random() * slowness())

    async def dial(self, machine: Machine) -> Channel:
        """Open a connection to the controller."""
        agent = machine.life
        assert agent is not None
        await asyncio.sleep(agent.pause_s())
        core, centre = self.centre.core, self.centre.life
        if not machine.reachable or core is None or centre is None:
            raise unavailable("cannot reach the controller", "is it running?")
        core.custody.authenticate(machine.host, machine.secret)
        stream = core.connect(machine.host)
        wire = Wire(stream, agent, centre, agent.pause_s, lambda: self.centre.wires.remove(wire))
        self.centre.wires.append(wire)
        machine.wire = wire
        return wire

    def _committed(self) -> None:
        for sentence in self.disks.judge(self.machines):
            self.fail(sentence)

    def _tap(self, _logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        self.say(f"    {method} {event}")
        if event["event"] == "write.failed":
            self.fail(f"a fault of the controller: {event}")
        raise structlog.DropEvent

    def judge(self) -> None:
        """Raises: BrokenWorldError when something was wrong up to now."""
        self.failures += [f"nobody caught {fault}" for fault in self._loop.faults]
        self._loop.faults.clear()
        if self.failures:
            tail = "\n".join(self.trace[-60:])
            raise BrokenWorldError(f"{tail}\nseed {self.seed} (python -m tests.sim {self.seed}): {self.failures[0]}")

    # Its life ---------------------------------------------------------------------------------------------------------

    async def begin(self, machines: int) -> None:
        """A controller, some machines, two tenants."""
        structlog.configure(processors=[self._tap])
        self._undo.setattr(topics, "SNAPSHOT_CHUNK_ITEMS", self.rng.choice((1, 2, 500)))
        self.centre.start()
        await self.until(lambda: self.centre.core is not None, "the controller runs")
        await self.centre.call(lambda core: core.create_tenant(TenantSpec(name="blue"), "admin"))
        for _ in range(machines):
            await self.add_machine()

    def end(self) -> None:
        """Kill everybody."""
        for machine in (*self.machines, *self.forgotten):
            machine.close()
        self.centre.kill("with the world")
        self._undo.undo()
        structlog.configure(**self._log)

    async def add_machine(self) -> None:
        """A new host, with some slots for containers."""
        name = f"h{len(self.machines) + len(self.forgotten) + 1}"
        try:
            host, _ = await self.centre.call(lambda core: core.create_host(name, {}, "admin"))
            secret = await self.centre.call(lambda core: core.mint_credential(name, "admin"))
        except (HawseError, DiedError) as error:
            self.say(f"no new host: {error}")
            return
        vteps = self.rng.choice(("4", "4", "4", "46", "6"))
        machine = Machine(self, HostId(host.id), name, secret, self._directory, vteps)
        self.machines.append(machine)
        for number in range(4):
            for ifname in ("eth0", "eth1") if number == 0 else ("eth0",):
                scope = "pods" if number < 2 else "jobs"
                self.clients.slots.append(Slot(machine, f"{name}-c{number}", ifname, scope))
        machine.start()

    async def until(self, condition: Callable[[], object], what: str, timeout_s: float = QUIET_S) -> None:
        """Wait for it, in virtual time."""
        deadline_s = self._loop.time() + timeout_s
        while not condition():
            if self._loop.time() > deadline_s:
                self.fail(f"not within {timeout_s:g} s: {what}")
                self.judge()
            await asyncio.sleep(0.05)

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something happen beside everything else."""
        task = self._loop.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda task: self._tasks.pop(task, None))

    async def calm(self) -> None:
        """Let everything heal and come to its end, then compare everything with everything."""
        self.say("calm")
        self.centre.faults.before = self.centre.faults.after = -1
        for machine in self.machines:
            machine.reachable, machine.slowness, machine.fail_in, machine.die_in = True, 1.0, -1, -1
        await self.until(lambda: not self._tasks, "every request is answered")
        self.centre.start()
        for machine in self.machines:
            machine.start()
        await self.until(lambda: self.centre.core is not None, "the controller runs")
        for machine in self.forgotten:
            machine.kill("for good")
            await self.centre.call(lambda core, name=machine.name: core.forget_host(name, True, "admin"))  # type: ignore[misc]
        await asyncio.sleep(QUIET_S)
        self.judge()
        core = self.centre.core
        assert core is not None
        for machine in self.machines:
            if machine.core is None or not machine.core.session.live or not machine.core.wiring.world.complete:
                self.fail(f"{machine.name} is not connected")
            elif machine.core.wiring.failures():
                self.fail(f"{machine.name} fails: {machine.core.wiring.failures()}")
        for sentence in await judge_quiet(self.centre.disk, core.state, {m.host: m for m in self.machines}):
            self.fail(sentence)
        await self.clients.judge_quiet()
        self._judge_networks(core)
        self.judge()

    def _judge_networks(self, core: Core) -> None:
        for name, known in self.networks.items():
            tenant, _, plain = name.rpartition("/")
            owner = core.state.names.tenants[tenant or "default"]
            found = core.state.names.networks.get((owner, plain), "")
            if known.id is not None and found != known.id:
                self.fail(f"network {name} is to be {known.id!r}, but is {found!r}")

    async def clear(self) -> None:
        """Remove everything; nothing may be left of it anywhere."""
        self.say("clear")
        for slot in self.clients.slots:
            if not slot.machine.forgotten:
                await self.clients.delete(slot)
        core = self.centre.core
        assert core is not None
        for id_ in list(core.state.networks):
            await self.centre.call(lambda core, id_=id_: core.delete_network(id_, "admin"))  # type: ignore[misc]
        await asyncio.sleep(QUIET_S)
        if core.state.endpoints or core.state.vnis or core.state.held:
            self.fail(f"left in the store: {core.state.endpoints} {core.state.vnis} {core.state.held}")
        for machine in self.machines:
            if machine.kernel.objects or machine.kernel.insides:
                self.fail(f"left in the kernel of {machine.name}:\n{machine.kernel.text()}")
            if machine.core is not None and machine.core.releases._journal.pending:
                self.fail(f"left in the journal of {machine.name}")
        self.judge()

    # What administrators do -------------------------------------------------------------------------------------------

    async def create_network(self, name: str, prefixes: tuple[str, ...], ipv6: bool = False) -> None:
        """Make a network, as far as that is possible."""
        tenant, _, plain = name.rpartition("/")
        subnets = tuple(SubnetSpec(prefix=prefix) for prefix in prefixes)
        spec = NetworkSpec(name=plain, tenant=tenant, subnets=subnets, ipv6=ipv6)
        known = self.networks.setdefault(name, Known())
        before, known.id, known.busy = known.id, None, True
        try:
            network, _ = await self.centre.call(lambda core: core.create_network(spec, "admin"))
        except (HawseError, DiedError) as error:
            self.say(f"network {name} is not made: {type(error).__name__} {error}")
            if isinstance(error, HawseError) and error.kind is not Kind.UNAVAILABLE:
                known.id = before
        else:
            self.say(f"network {name} is made with VNI {network.vni}")
            known.id = network.id
        known.busy = False

    async def delete_network(self, name: str) -> None:
        """Remove a network, unless it is used."""
        known = self.networks.setdefault(name, Known())
        before, known.id, known.busy = known.id, None, True
        try:
            await self.centre.call(lambda core: core.delete_network(name, "admin"))
        except (HawseError, DiedError) as error:
            self.say(f"network {name} is not removed: {type(error).__name__} {error}")
            if isinstance(error, HawseError) and error.kind is not Kind.UNAVAILABLE:
                known.id = before
        else:
            self.say(f"network {name} is removed")
            known.id = ""
        known.busy = False

    async def ask(self, what: str, ask: Callable[[Core], Coroutine[Any, Any, object]]) -> None:
        """Some other request, whatever comes of it."""
        try:
            await self.centre.call(ask)
        except (HawseError, DiedError) as error:
            self.say(f"{what}: {type(error).__name__} {error}")
        else:
            self.say(f"{what}: done")

    async def forget(self, machine: Machine) -> None:
        """Forget a host for good, and take a new one into service."""
        machine.forgotten = True
        self.machines.remove(machine)
        self.forgotten.append(machine)
        await self.ask(f"forget {machine.name}", lambda core: core.forget_host(machine.name, True, "admin"))
        await self.add_machine()

    # What happens by itself -------------------------------------------------------------------------------------------

    def cut(self, machine: Machine) -> None:
        """The connection of a machine is lost."""
        if machine.wire is not None:
            self.say(f"{machine.name}: the connection is cut")
            machine.wire.cut(self.rng.choice(LEARNS_S), self.rng.choice(LEARNS_S))

    async def part(self, machine: Machine, seconds: float) -> None:
        """A machine is cut off for some time."""
        machine.reachable = False
        self.cut(machine)
        await asyncio.sleep(seconds)
        machine.reachable = True

    async def slow(self, machine: Machine, factor: float, seconds: float) -> None:
        """Everything takes a machine longer for some time."""
        self.say(f"{machine.name} is slow: {factor:g}")
        machine.slowness = factor
        await asyncio.sleep(seconds)
        machine.slowness = 1.0

    async def restart(self, machine: Machine, how: str, pause_s: float) -> None:
        """The agent ends in some way (or its machine does), and comes back."""
        if machine.forgotten:
            return
        if how == "stop":
            await machine.stop()
        elif how == "reboot":
            machine.reboot()
            self.clients.rebooted(machine)
        else:
            machine.kill("at once")
        await asyncio.sleep(pause_s)
        if not machine.forgotten:
            machine.start()

    async def restart_centre(self, how: str, pause_s: float) -> None:
        """The controller ends in some way, and comes back."""
        if how == "stop":
            await self.centre.stop()
        else:
            self.centre.kill("at once")
        await asyncio.sleep(pause_s)
        self.centre.start()
