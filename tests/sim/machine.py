"""A host: its kernel and its journal, which last, and its agent, which comes and goes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from plugin.agent.channel import Channel
from plugin.agent.core import AgentCore, Identity
from plugin.agent.facts import HostFacts
from plugin.agent.journal import Journal
from sdn.model.errors import unavailable
from sdn.model.ids import HostId
from sdn.model.resources import Datapath
from sdn.reconcile.datapath import Key, Operation, Sandbox, Verb
from sdn.reconcile.fake import FakeDatapath, FakeKernel
from sdn.reconcile.fake_objects import Port
from sdn.reconcile.faults import KilledError
from tests.sim.virtual_time import Life
from tests.sim.wire import Wire

T = TypeVar("T")
STOP_TURNS, STOP_TURN_S = 40, 0.05
TROUBLE_S = 10.0
"""Longer than the pauses between the attempts at a repair, together."""


class Surroundings(Protocol):
    """What a machine needs of the world."""

    def life(self, name: str, slowness: Callable[[], float]) -> Life:
        """A new process."""

    def say(self, text: str) -> None:
        """Write something into the trace."""

    def fail(self, text: str) -> None:
        """An invariant does not hold."""

    async def dial(self, machine: Machine) -> Channel:
        """Open a connection to the controller. Raises: HawseError."""

    def chance(self) -> float:
        """Of the one source of randomness."""


class Namespaces:
    """A descriptor is its namespace's cookie."""

    def is_namespace(self, fd: int) -> bool:
        """See plugin.agent.attachments.Namespaces."""
        return fd > 0

    def open(self, fd: int) -> Sandbox:
        """See plugin.agent.attachments.Namespaces."""
        return Sandbox(fd, fd)

    def interfaces(self, fd: int) -> set[str]:
        """See plugin.agent.attachments.Namespaces."""
        return {"lo"}


class WatchedDatapath(FakeDatapath):
    """The fake, whose writes fail or are the agent's last; what may not be written is noticed at once."""

    def __init__(self, machine: Machine, life: Life) -> None:
        super().__init__(machine.kernel)
        self._machine = machine
        self._life = life

    def write(self, operations: Sequence[Operation]) -> dict[Key, Exception]:
        """See Datapath."""
        if self._life.dead:
            return {}
        self._machine.judge(operations)
        errors: dict[Key, Exception] = {}
        for operation in operations:
            self._machine.fail_in -= 1
            self._machine.die_in -= 1
            if self._machine.die_in == -1:
                self._machine.kill("in the middle of a write")
                raise KilledError
            if self._machine.fail_in == -1:
                self._machine.trouble()
                errors[operation.key] = OSError(5, f"cannot {operation.verb.value} {' '.join(operation.key)}")
                if operation.verb is Verb.DELETE:
                    self._machine.stuck.add(operation.key)
            elif operation.key not in errors:
                errors |= super().write([operation])
                self._machine.stuck.discard(operation.key)
        self._machine.judge_ports()
        return errors


class Machine:
    """`fail_in`, `die_in`: how many writes from now one fails, or is not survived; negative: none."""

    def __init__(self, world: Surroundings, host: HostId, name: str, secret: str, directory: Path, vteps: str) -> None:
        self.host = host
        self.name = name
        self.secret = secret
        self.kernel = FakeKernel()
        self.boots = 1
        self.slowness = 1.0
        self.reachable = True
        self.forgotten = False
        self.fail_in = -1
        self.die_in = -1
        self.requests = 0
        """Of clients, under way."""
        self.serving = False
        self.troubled_until_s = 0.0
        """Until then its kernel may lack something without anybody being at fault: the world saw to it."""
        self.stuck: set[Key] = set()
        """What the world did not let go: the controller has given its names to others by now."""
        self.blind: set[str] = set()
        """Containers that a DEL may take out before the controller has spoken."""
        self.wire: Wire | None = None
        self.life: Life | None = None
        self.core: AgentCore | None = None
        self.facts = HostFacts(
            vtep4="192.0.2." + name[1:] if "4" in vteps else None,
            vtep6="2001:db8::" + name[1:] if "6" in vteps else None,
            mtu_bytes=1500,
            routes=(),
        )
        self._world = world
        self._journal_path = directory / f"journal-{name}"
        self._journal: Journal | None = None
        self._journals: list[Journal] = []
        self._running: asyncio.Task[None] | None = None

    # Its agent's life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the agent, unless it runs."""
        if self.life is None:
            self.life = self._world.life(f"agent {self.name}", lambda: self.slowness)
            self._world.say(f"{self.name}: the agent starts")
            self._running = self.life.spawn(self._run(self.life))

    async def _run(self, life: Life) -> None:
        self._journal = journal = Journal.open(self._journal_path)
        self._journals.append(journal)  # a killed agent's is closed at the world's end
        core = AgentCore(
            Identity(self.host, f"{self.name}:{self.boots}", "1", Datapath.FAKE),
            self.facts,
            dial=lambda: self._world.dial(self),
            datapath=WatchedDatapath(self, life),
            namespaces=Namespaces(),
            journal=journal,
            clock=asyncio.get_running_loop(),
            random=self._world.chance,
        )
        self.core = core
        try:
            await core.start()
            self.serving = True
            await core.run()
        except asyncio.CancelledError:
            raise
        except KilledError:
            return
        # A fault of the agent's: whatever it is, it is reported with the seed.
        except BaseException as error:  # noqa: BLE001
            if not life.dead:
                self._world.fail(f"the agent of {self.name} ended by itself: {error!r}")

    def kill(self, why: str) -> None:
        """SIGKILL of the agent: the kernel and the journal's file stay."""
        if self.life is None:
            return
        self._world.say(f"{self.name}: the agent is killed {why}")
        self.life.kill()
        self.serving = False
        self.life = self.core = self._running = self._journal = None
        self.kernel._listeners.clear()
        if self.wire is not None:
            self.wire.hang_up()
        self.die_in = -1

    async def stop(self) -> None:
        """SIGTERM: an orderly end."""
        running, journal, life = self._running, self._journal, self.life
        if running is None or life is None or journal is None or not self.serving:
            return
        self._world.say(f"{self.name}: the agent is stopped")
        self.serving = False
        for _ in range(STOP_TURNS):  # no more requests are taken, those under way are given some time
            if not self.requests:
                break
            await asyncio.sleep(STOP_TURN_S)
        running.cancel()
        await asyncio.wait([running])
        if self.life is life:
            journal.close()
            self.kill("and gone")

    def reboot(self) -> None:
        """The machine: every namespace goes."""
        self.kill("with its machine")
        self.boots += 1
        self.kernel = FakeKernel()

    def close(self) -> None:
        """The world ends."""
        self.kill("with the world")
        for journal in self._journals:
            if journal._fd >= 0:  # not by its own `close`, which would write what a killed agent never wrote
                os.close(journal._fd)

    def trouble(self) -> None:
        """Something was done to its kernel that takes a while to be made good."""
        self.troubled_until_s = asyncio.get_running_loop().time() + TROUBLE_S

    async def ask(self, ask: Callable[[AgentCore], Coroutine[Any, Any, T]]) -> T:
        """A request on its agent's socket. Raises: HawseError; DiedError when it is not known what came of it."""
        core, life = self.core, self.life
        if core is None or life is None or not self.serving:
            raise unavailable(f"the agent of {self.name} is not running", "start it")
        self.requests += 1
        try:
            return await life.call(ask(core))
        finally:
            self.requests -= 1

    def change(self, facts: HostFacts) -> None:
        """The host's own network is different now."""
        self.facts = facts
        if self.core is not None:
            self.core.change_facts(facts)

    # What may never be ------------------------------------------------------------------------------------------------

    def judge(self, operations: Sequence[Operation]) -> None:
        """Nothing is removed before the first complete snapshot, but what a DEL asked for."""
        if self.core is not None and self.core.wiring.world.complete:
            return
        for operation in operations:
            port = operation.before
            asked = isinstance(port, Port) and port.container in self.blind
            if operation.verb is not Verb.CREATE and not asked:
                self._world.fail(f"{self.name} removes or changes {operation.key} before it knows what is wanted")

    def judge_ports(self) -> None:
        """No address and no MAC of a network is twice in one kernel."""
        seen: dict[tuple[str, str], Key] = {}
        for key, port in self.kernel.objects.items():
            if isinstance(port, Port) and key not in self.stuck:
                for name in (port.mac, *port.addresses):
                    other = seen.setdefault((port.network, name), key)
                    if other != key:
                        self._world.fail(f"{name} is twice in the kernel of {self.name}: {other} and {key}")
