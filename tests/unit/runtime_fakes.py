"""A supervisor, an agent and an image store that live in memory: what the runtime's daemon is tried against."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.daemon.attaching import Agent
from runtime.daemon.containers import Containers
from runtime.daemon.endings import Endings
from runtime.daemon.events import Events
from runtime.daemon.executions import Executions
from runtime.daemon.exits import Exits
from runtime.daemon.plans import ImageView
from runtime.daemon.processes import Confinement
from runtime.daemon.records import Records
from runtime.daemon.recovery import Recovery
from runtime.daemon.releases import Releases
from runtime.daemon.supervision import Ending, Executed, Held, Launched, launch_error
from runtime.daemon.surroundings import Surroundings
from runtime.daemon.verbs import Verbs
from runtime.plan import LaunchPlan, ProcessPlan
from sdn.model.contract import AddRequest, AddResult
from sdn.model.errors import HawseError, conflict, not_found, unavailable
from sdn.service.roots import Root

CONFIG = {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin", "A=1"], "WorkingDir": "/srv"}


class FakeSupervisor:
    """Containers are entries of a table. `end` ends one; `refuse` makes launches fail at a stage."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self.plans: dict[str, LaunchPlan] = {}
        self.signals: list[tuple[str, int]] = []
        self.refuse = ""
        self.away = False
        self.deaf: set[int] = set()
        """Signals that end nothing."""
        self.executions: dict[str, int | None] = {}
        self.listener: Endings | None = None
        self.time_s = 1000.0
        self._pids = itertools.count(100)

    def _reach(self) -> None:
        if self.away:
            raise unavailable("the supervisor is away")

    async def launch(self, plan: LaunchPlan, *, go: bool) -> Launched:
        self._reach()
        await asyncio.sleep(0)
        identity = plan["id"]
        assert identity not in self.held, "launched twice"
        if self.refuse:
            raise launch_error(self.refuse, f"{plan['process']['argv'][0]} was refused")
        self.plans[identity] = plan
        pid = next(self._pids) if go else 0
        self.held[identity] = Held(identity, plan["run"], pid, "running" if go else "waiting", None)
        return Launched(pid, None if go else os.open("/dev/null", os.O_RDONLY))

    async def go(self, container: str) -> int:
        self._reach()
        await asyncio.sleep(0)
        pid = next(self._pids)
        self.held[container] = self.held[container]._replace(state="running", pid=pid)
        return pid

    async def abandon(self, container: str) -> None:
        self._reach()
        await asyncio.sleep(0)
        self.held.pop(container, None)

    async def execute(self, container: str, execution: str, process: ProcessPlan) -> Executed:
        self._reach()
        self.executions[execution] = None
        reader, writer = os.pipe()
        os.close(writer)
        return Executed(next(self._pids), {"output": reader})

    async def execution(self, execution: str) -> int | None:
        self._reach()
        if execution not in self.executions:
            raise not_found("no such execution")
        return self.executions[execution]

    async def signal(self, container: str, number: int, *, every: bool = False) -> None:
        self._reach()
        held = self.held.get(container)
        if held is None or held.ending is not None:
            raise not_found(f"{container} does not run")
        self.signals.append((container, number))
        if number not in self.deaf:
            self.end(container, 128 + number)

    async def freeze(self, container: str, *, on: bool) -> None:
        self._reach()
        self.held[container] = self.held[container]._replace(state="frozen" if on else "running")

    async def input(self, container: str, *, keep: bool) -> int:
        return os.open("/dev/null", os.O_WRONLY)

    async def follow(self, container: str) -> tuple[int, int, int]:
        if container not in self.held:
            raise not_found("not here")
        return tuple(os.open("/dev/null", os.O_RDONLY) for _ in range(3))  # type: ignore[return-value] # three of them

    async def forget(self, container: str) -> None:
        self._reach()
        if container in self.held and self.held[container].ending is not None:
            del self.held[container]

    async def list(self) -> Sequence[Held]:
        self._reach()
        return list(self.held.values())

    async def usage(self, containers: Sequence[str]) -> dict[str, dict[str, int]]:
        return {container: {"cpu_ns": 1} for container in containers if container in self.held}

    async def status(self) -> dict[str, Any]:
        return {"pid": 1}

    def end(self, container: str, code: int, *, oom_killed: bool = False) -> None:
        """A container ends; told at once where somebody listens."""
        held = self.held[container]
        ending = Ending(container, held.run, code, oom_killed, self.time_s)
        self.held[container] = held._replace(state="exited", ending=ending)
        if self.listener is not None:
            self.listener.note(ending)

    def tell_again(self) -> None:
        """As at a new connection."""
        assert self.listener is not None
        for held in list(self.held.values()):
            if held.ending is not None:
                self.listener.note(held.ending)


class FakeAgent(Agent):
    """Attachments are a set. `refused` networks fail; names in `taken` are a conflict."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.attached: dict[tuple[str, str], str] = {}
        self.named: dict[str, str] = {}
        self.refused: set[str] = set()
        self.taken: set[str] = set()
        self.away = False
        self.collected: list[list[tuple[str, str]]] = []

    async def add(self, request: AddRequest, namespace_fd: int) -> AddResult:
        await asyncio.sleep(0)
        if self.away:
            raise unavailable("the agent is away")
        if request.network in self.refused:
            raise not_found(f"there is no network {request.network}", "make it")
        if request.name in self.taken:
            raise conflict(f"the name {request.name} is taken")
        self.attached[request.container, request.ifname] = request.network
        self.named[request.network] = request.name
        return AddResult(
            endpoint="e", network="n", tenant="t", revision=1, ifname=request.ifname, mac="0a:00:00:00:00:01",
            mtu_bytes=1450, sandbox=1, addresses=("10.1.0.2/24",), gateways=("10.1.0.1",),
        )  # fmt: skip

    async def delete(self, container: str, ifname: str) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise unavailable("the agent is away")
        self.attached.pop((container, ifname), None)

    async def collect(self, valid: Sequence[tuple[str, str]]) -> None:
        if self.away:
            raise unavailable("the agent is away")
        self.collected.append(list(valid))
        self.attached = {key: network for key, network in self.attached.items() if key in valid}


class FakeImages:
    """One image, `base`."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = dict(CONFIG)

    def resolve(self, reference: str) -> ImageView:
        if reference not in ("base", "sha256:1"):
            raise not_found(f"there is no image {reference!r}", "hawse image ls")
        return ImageView("sha256:1", self.config, ("/nowhere/layer",))

    def count(self) -> int:
        return 1


class World:
    """A daemon without a socket, on a directory, with fakes around it. `again` is what follows a kill -9."""

    def __init__(self, directory: Path, supervisor: FakeSupervisor, agent: FakeAgent) -> None:
        self.directory, self.supervisor, self.agent = directory, supervisor, agent
        self.images = FakeImages()
        root = Root(directory / "state", directory / "run")
        held: list[Containers] = []
        releases = Releases(agent, lambda: held[0].attachments())
        self.around = Surroundings(
            root=root,
            records=Records(root.containers),
            events=Events(root.state / "runtime/events", self.clock),
            exits=Exits(root.state / "runtime/exits"),
            supervisor=supervisor,
            agent=agent,
            releases=releases,
            images=self.images,
            confine=lambda spec: Confinement((1, 2), "/filter"),
            clock=self.clock,
            cpus_online=2,
            cgroup="hawse/12345678",
        )
        self.containers = Containers(self.around)
        held.append(self.containers)
        for record in self.around.records.load():
            self.containers.add(record)
        self.endings = Endings(self.around, self.containers)
        self.recovery = Recovery(self.around, self.containers, self.endings)
        self.executions = Executions(self.around)
        self.verbs = Verbs(self.around, self.containers, self.endings, self.executions, _no_images, "0")
        supervisor.listener = self.endings
        self._releasing = asyncio.ensure_future(releases.run())

    def clock(self) -> float:
        self.supervisor.time_s += 0.001
        return self.supervisor.time_s

    async def begin(self) -> World:
        """As the daemon does at its start."""
        await self.recovery.recover()
        self.supervisor.tell_again()
        return self

    async def again(self) -> World:
        """The daemon dies, and another one starts."""
        await self.close()
        return await World(self.directory, self.supervisor, self.agent).begin()

    async def close(self) -> None:
        self.supervisor.listener = None
        self._releasing.cancel()
        for container in self.containers:
            container.cancel_timer()
        await self.around.tasks.end()
        self.around.events.close()
        self.around.exits.close()


async def _no_images(request: Any, descriptor: int | None) -> bytes:
    raise HawseError(*not_found("no images here").args)
