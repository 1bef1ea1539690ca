"""What happens in a world by chance: a table of weights, and what each draws."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

from sdn.controller.specs import SubnetSpec
from tests.sim.clients import Fact, Slot
from tests.sim.machine import Machine
from tests.sim.virtual_time import VirtualLoop, run_virtually
from tests.sim.world import World

NETWORKS = ("web", "db", "blue/web", "blue/db")
PREFIXES = ("10.1.0.0/29", "10.1.0.0/28", "10.2.0.0/24", "fd00:1::/64")
STEPS = 150
BETWEEN_S = (0.0, 0.0, 0.0, 0.001, 0.01, 0.1, 0.3, 1.0)
DISTURBED = ("bridge", "vxlan", "peer", "guard", "frame", "tunnel", "neighbour")
"""Not ports and not tenants: what is inside of containers goes with these, and is not made good."""


class Happenings:
    """Draws from the world's seed, and lets it happen."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        self._table: dict[Callable[[], None], int] = {
            self.attach: 60,
            self.detach: 24,
            self.die: 4,
            self.make_again: 4,
            self.collect: 2,
            self.remove_endpoint: 2,
            self.create_network: 6,
            self.delete_network: 5,
            self.change_network: 2,
            self.forget: 1,
            self.restart_agent: 4,
            self.restart_controller: 2,
            self.cut: 4,
            self.part: 2,
            self.slow: 2,
            self.change_facts: 2,
            self.fail_write: 2,
            self.fail_commit: 2,
            self.disturb: 2,
        }

    def step(self) -> None:
        """One more thing happens."""
        (happening,) = self._rng.choices(list(self._table), list(self._table.values()))
        happening()

    def machine(self) -> Machine | None:
        """One of them."""
        return self._rng.choice(self._world.machines) if self._world.machines else None

    def slot(self, *facts: Fact) -> Slot | None:
        """One that nobody is busy with, of which one of these facts is known."""
        free = [
            slot
            for slot in self._world.clients.slots
            if not slot.busy and not slot.machine.forgotten and slot.fact in facts
        ]
        return self._rng.choice(free) if free else None

    def network(self) -> str:
        """One that is known to be there, or rarely any."""
        there = [name for name, known in self._world.networks.items() if known.id]
        return self._rng.choice(there if there and self._rng.random() < 0.9 else NETWORKS)

    # Clients ----------------------------------------------------------------------------------------------------------

    def attach(self) -> None:
        """ADD in a new namespace, or once more in the one that is there."""
        slot = self.slot(Fact.ABSENT, Fact.ABSENT, Fact.UNKNOWN, Fact.THERE)
        if slot is None:
            return
        if not slot.sandbox:
            self._world.clients.new_sandbox(slot, old_dies=False)
        address = self._rng.choice(("10.1.0.3", "10.2.0.7")) if self._rng.random() < 0.1 else ""
        network = self.network()
        times = self._rng.choice((1, 1, 1, 2))
        settle_ms = self._rng.choice((None, None, 0, 2000))
        self._world.do(self._world.clients.add(slot, network, settle_ms=settle_ms, address=address, times=times))

    def detach(self) -> None:
        """DEL, with or without the namespace."""
        slot = self.slot(Fact.THERE, Fact.UNKNOWN)
        if slot is not None:
            times, with_sandbox = self._rng.choice((1, 1, 1, 2)), self._rng.random() < 0.7
            self._world.do(self._world.clients.delete(slot, with_sandbox=with_sandbox, times=times))

    def die(self) -> None:
        """A container dies, perhaps within a request."""
        slots = [slot for slot in self._world.clients.slots if slot.sandbox and not slot.machine.forgotten]
        if slots:
            self._world.clients.lose(self._rng.choice(slots))

    def make_again(self) -> None:
        """A container is made again without a DEL, and attached."""
        slot = self.slot(Fact.THERE, Fact.UNKNOWN)
        if slot is not None:
            self._world.clients.new_sandbox(slot, old_dies=self._rng.random() < 0.7)
            self._world.do(self._world.clients.add(slot, self.network()))

    def collect(self) -> None:
        """GC, of a machine whose client does nothing else."""
        machine = self.machine()
        if machine is None:
            return
        scope = self._rng.choice(("pods", "jobs"))
        mine = [slot for slot in self._world.clients.of(machine) if slot.scope == scope]
        if not any(slot.busy for slot in mine):
            dropped = [slot for slot in mine if self._rng.random() < 0.4]
            self._world.do(self._world.clients.collect(machine, scope, dropped))

    def remove_endpoint(self) -> None:
        """An administrator releases an endpoint by force."""
        slot = self.slot(Fact.THERE)
        if slot is not None:
            self._world.do(self._world.clients.remove(slot))

    # Administrators ---------------------------------------------------------------------------------------------------

    def create_network(self) -> None:
        """With subnets that two tenants may share, or automatic ones."""
        known = self._world.networks
        free = [name for name in NETWORKS if name not in known or (known[name].id == "" and not known[name].busy)]
        if free:
            prefixes = tuple(self._rng.sample(PREFIXES, self._rng.choice((0, 1, 1, 2))))
            ipv6 = self._rng.random() < 0.3
            self._world.do(self._world.create_network(self._rng.choice(free), prefixes, ipv6))

    def delete_network(self) -> None:
        """One that may be used."""
        used = [name for name, known in self._world.networks.items() if known.id != "" and not known.busy]
        if used:
            self._world.do(self._world.delete_network(self._rng.choice(used)))

    def change_network(self) -> None:
        """A further subnet."""
        name, prefix = self._rng.choice(NETWORKS), f"10.3.{self._rng.randrange(4)}.0/28"
        self._world.do(
            self._world.ask(
                f"add {prefix} to {name}", lambda core: core.add_subnet(name, SubnetSpec(prefix=prefix), "admin")
            )
        )

    def forget(self) -> None:
        """A host is given up."""
        machine = self.machine()
        if machine is not None and len(self._world.machines) > 1:
            self._world.do(self._world.forget(machine))

    # What breaks ------------------------------------------------------------------------------------------------------

    def restart_agent(self) -> None:
        """At once, in the middle of a write, in good order, or with the whole machine."""
        machine = self.machine()
        if machine is None:
            return
        how = self._rng.choice(("kill", "kill", "write", "stop", "reboot"))
        pause_s = self._rng.choice((0.0, 0.1, 5.0))
        if how == "write":
            machine.die_in = self._rng.randrange(8)
            how, pause_s = "kill", 2.0
        self._world.do(self._world.restart(machine, how, pause_s))

    def restart_controller(self) -> None:
        """At once or in good order."""
        how, pause_s = self._rng.choice(("kill", "stop")), self._rng.choice((0.0, 0.1, 5.0))
        self._world.do(self._world.restart_centre(how, pause_s))

    def cut(self) -> None:
        """A connection is lost."""
        machine = self.machine()
        if machine is not None:
            self._world.cut(machine)

    def part(self) -> None:
        """A machine is cut off for some time."""
        machine = self.machine()
        if machine is not None:
            self._world.do(self._world.part(machine, self._rng.choice((0.05, 2.0, 20.0))))

    def slow(self) -> None:
        """A machine is slow for some time."""
        machine = self.machine()
        if machine is not None:
            factor, seconds = self._rng.choice((30.0, 300.0)), self._rng.choice((0.5, 5.0))
            self._world.do(self._world.slow(machine, factor, seconds))

    def change_facts(self) -> None:
        """A host gets another address, or another MTU."""
        machine = self.machine()
        if machine is None:
            return
        number = 100 + self._rng.randrange(100)
        facts = machine.facts
        if self._rng.random() < 0.7:
            facts = dataclasses.replace(facts, vtep4=f"192.0.2.{number}" if facts.vtep4 else None)
        else:
            facts = dataclasses.replace(facts, mtu_bytes=self._rng.choice((1500, 9000)))
        if any(other.facts.vtep4 == facts.vtep4 for other in self._world.machines if other is not machine):
            return
        self._world.say(f"{machine.name} is {facts} now")
        machine.change(facts)

    def fail_write(self) -> None:
        """One of the next writes fails."""
        machine = self.machine()
        if machine is not None:
            machine.fail_in = self._rng.randrange(8)

    def fail_commit(self) -> None:
        """One of the next commits fails, or succeeds and says that it failed."""
        faults, count = self._world.centre.faults, self._rng.randrange(4)
        if self._rng.random() < 0.5:
            faults.before = count
        else:
            faults.after = count

    def disturb(self) -> None:
        """Somebody else removes something from a kernel."""
        machine = self.machine()
        keys = [key for key in machine.kernel.objects if key[0] in DISTURBED] if machine else []
        if machine is not None and keys:
            key = self._rng.choice(sorted(keys))
            self._world.say(f"{machine.name}: somebody removes {' '.join(key)}")
            machine.trouble()
            machine.kernel.disturb(key)


def simulate(seed: int, directory: Path, steps: int) -> World:
    """A whole world, from its seed to its end. Raises: BrokenWorldError."""

    async def run(loop: VirtualLoop) -> World:
        world = World(loop, directory, seed)
        try:
            await world.begin(machines=world.rng.choice((2, 3, 4)))
            happenings = Happenings(world)
            for name in NETWORKS[::2]:
                await world.create_network(name, (world.rng.choice(PREFIXES[:3]),))
            for _ in range(steps):
                await asyncio.sleep(world.rng.choice(BETWEEN_S) * world.rng.random())
                happenings.step()
                world.judge()
            await world.calm()
            await world.clear()
        finally:
            world.end()
        return world

    return run_virtually(run)
