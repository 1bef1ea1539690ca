"""The protocol's verbs on this root's containers: decode, dispatch, encode, in one place."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any

from runtime.daemon.container import Container
from runtime.daemon.containers import Containers
from runtime.daemon.endings import Endings
from runtime.daemon.executions import Executions
from runtime.daemon.exits import Ended
from runtime.daemon.handed_out import answer, attached, logs
from runtime.daemon.processes import Terminal
from runtime.daemon.starting import start
from runtime.daemon.states import LIVING, Act, next_state
from runtime.daemon.stopping import Stopping
from runtime.daemon.supervision import EXIT_DAEMON
from runtime.daemon.surroundings import Surroundings
from runtime.daemon.top import network_bytes, processes_in
from sdn.model.container import Usage
from sdn.model.errors import HawseError, Kind
from sdn.model.runtime import (
    EventsRequest,
    ExecRequest,
    Exit,
    InspectRequest,
    KillRequest,
    LogsRequest,
    PauseRequest,
    PsRequest,
    RemoveRequest,
    Request,
    RestartRequest,
    RunRequest,
    StartRequest,
    StatsRequest,
    StatusRequest,
    StopRequest,
    TopRequest,
    UnpauseRequest,
    WaitRequest,
    runtime_request_decoder,
)
from sdn.service.contract_server import Answer, Frames, Handler, item_reply, result_reply

Reply = bytes | Answer | Frames
ImageVerbs = Callable[[Request, "int | None"], Awaitable[Reply]]
"""(an IMAGE_ request, its descriptor) -> the reply."""


class Verbs:
    """Answers requests. Those of one container that change it wait for each other; all else is done side by side."""

    def __init__(
        self,
        around: Surroundings,
        containers: Containers,
        endings: Endings,
        executions: Executions,
        images: ImageVerbs,
        version: str,
    ) -> None:
        self._around = around
        self._containers = containers
        self._endings = endings
        self._executions = executions
        self._stopping = Stopping(around, containers)
        self._images = images
        self._version = version
        self._begun: set[asyncio.Future[Reply]] = set()

    def handler(self) -> Handler:
        """For a server."""

        async def handle(payload: bytes, descriptor: int | None) -> Reply:
            return await self.answer(runtime_request_decoder.json(payload), descriptor)

        return handle

    async def answer(self, request: Request, descriptor: int | None) -> Reply:
        """One request. Raises: HawseError."""
        match request:
            case RunRequest():
                return await self._run(request)
            case StartRequest():
                return await self._start(request)
            case StopRequest():
                return _late(self._carry_out(self._stop(request)))
            case RestartRequest():
                return _late(self._carry_out(self._restart(request)))
            case WaitRequest():
                return _late(self._wait(request))
            case ExecRequest():
                return await self._executions.begin(self._containers.find(request.container), request)
            case LogsRequest():
                return await logs(self._around, self._containers.find(request.container), follow=request.follow)
            case EventsRequest():
                return self._events(request)
            case _:
                return await self._answer_plain(request, descriptor)

    async def _answer_plain(self, request: Request, descriptor: int | None) -> Reply:
        match request:
            case KillRequest():
                await self._stopping.kill(self._containers.find(request.container), request.signal)
                return result_reply({})
            case RemoveRequest():
                await self._stopping.remove(self._containers.find(request.container), request.force)
                return result_reply({})
            case InspectRequest():
                return result_reply(self._containers.find(request.container).record.info())
            case PsRequest():
                return result_reply({"items": self._ps(request)})
            case TopRequest():
                return result_reply({"items": self._top(request)})
            case StatsRequest():
                return result_reply({"items": await self._stats(request)})
            case PauseRequest():
                return await self._freeze(request.container, Act.PAUSE, on=True)
            case UnpauseRequest():
                return await self._freeze(request.container, Act.UNPAUSE, on=False)
            case StatusRequest():
                return result_reply(await self._status())
            case _:
                return await self._images(request, descriptor)

    # Starting and ending --------------------------------------------------------------------------------------------

    async def _run(self, request: RunRequest) -> Reply:
        container = await self._containers.create(request.container)
        async with container.lock:
            try:
                if not request.start:
                    container.change()
                    return answer(container, {})
                await start(self._around, container, Terminal(request.rows, request.columns))
                return await attached(self._around, container, attach=request.attach)
            except HawseError as error:
                await self._failed(container, error)
                raise

    async def _failed(self, container: Container, error: HawseError) -> None:
        """A start has failed: who waits for its end has it, and what was to be removed at its end is."""
        record = container.record
        exit_ = Exit(code=int(error.facts.setdefault("exit_code", EXIT_DAEMON)), error=error.message)
        error.facts.setdefault("container", record.id)
        error.facts.setdefault("name", record.name)
        if container.gone or container.living:
            return
        self._around.exits.add(Ended(id=record.id, name=record.name, run=record.run, exit=exit_))
        if record.spec.remove:
            await self._containers.discard(container, exit_)
        container.tell(exit_)

    async def _start(self, request: StartRequest) -> Reply:
        container = self._containers.find(request.container)
        async with container.lock:
            if not container.living:
                container.change(restarts=0, streak=0)
                try:
                    await start(self._around, container, Terminal(request.rows, request.columns))
                except HawseError as error:
                    await self._failed(container, error)
                    raise
            return await attached(self._around, container, attach=request.attach)

    async def _carry_out(self, work: Coroutine[Any, Any, Reply]) -> Reply:
        """To its end, whether or not who asked stays: half a restart is a container that was stopped."""
        task = asyncio.ensure_future(work)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        return await asyncio.shield(task)

    async def _stop(self, request: StopRequest) -> Reply:
        container = self._containers.find(request.container)
        return result_reply(await self._stopping.stop(container, request.timeout_s))

    async def _restart(self, request: RestartRequest) -> Reply:
        container = self._containers.find(request.container)
        container.keep = True
        try:
            await self._stopping.stop(container, request.timeout_s)
            async with container.lock:
                if not container.living:
                    await start(self._around, container)
        finally:
            container.keep = False
        self._around.events.note("restart", container.id, container.record.name)
        return result_reply(container.record.info())

    async def _wait(self, request: WaitRequest) -> Reply:
        if request.execution:
            return result_reply(await self._executions.wait(request.container, request.execution))
        try:
            container = self._containers.find(request.container)
        except HawseError as error:
            gone = self._around.exits.identify(request.container) if error.kind is Kind.NOT_FOUND else None
            exit_ = None if gone is None else self._around.exits.find(gone, request.run)
            if gone is None or exit_ is None:
                raise
            await self._containers.left(gone)
            return result_reply(exit_)
        return result_reply(await self._end_of(container, request.run))

    async def _end_of(self, container: Container, run: int | None) -> Exit:
        record = container.record
        over = record.run > 0 and not container.living and not record.starting and container.timer is None
        if over and record.spec.remove and not container.keep:  # it is being removed: told when it has given all back
            return await container.ending()
        if (over and run is None) or (run is not None and (run < record.run or (over and run == record.run))):
            exit_ = self._around.exits.find(record.id, run)
            if exit_ is not None:
                return exit_
            if over and run in (None, record.run):
                return Exit(code=record.exit_code, oom_killed=record.oom_killed, error=record.error)
            raise HawseError(
                Kind.NOT_FOUND,
                f"how start {run} of container {record.name} ended is not remembered any more",
                hint="leave the number out: the last one is",
            )
        return await container.ending()

    # Looking --------------------------------------------------------------------------------------------------------

    def _ps(self, request: PsRequest) -> list[Any]:
        wanted = [label.partition("=") for label in request.labels]
        found = [
            container.record
            for container in self._containers
            if (request.all or container.living)
            and all(
                name in container.record.spec.labels and (not equals or container.record.spec.labels[name] == value)
                for name, equals, value in wanted
            )
        ]
        return [record.info() for record in sorted(found, key=lambda record: (record.created_s, record.id))]

    def _top(self, request: TopRequest) -> list[dict[str, Any]]:
        record = self._containers.find(request.container).record
        if record.state not in LIVING:
            next_state(record.state, Act.EXEC, record.name)
        return processes_in(f"{self._around.cgroup}/{record.id}")

    async def _stats(self, request: StatsRequest) -> list[Usage]:
        named = [self._containers.find(reference) for reference in request.containers]
        for container in named:
            if not container.living:
                next_state(container.record.state, Act.SIGNAL, container.record.name)
        found = named or [container for container in self._containers if container.living]
        usage = await self._around.supervisor.usage([container.id for container in found])
        items = []
        for container in found:
            if container.id in usage:
                received, sent = network_bytes(container.record.pid)
                items.append(
                    Usage(
                        id=container.id,
                        name=container.record.name,
                        received_bytes=received,
                        sent_bytes=sent,
                        **usage[container.id],
                    )
                )
        return items

    async def _freeze(self, reference: str, act: Act, *, on: bool) -> Reply:
        container = self._containers.find(reference)
        async with container.lock:
            record = container.record
            following = next_state(record.state, act, record.name)
            await self._around.supervisor.freeze(record.id, on=on)
            container.happened(self._around.log, state=following)
        self._around.events.note(act.value, record.id, record.name)
        return result_reply({})

    async def _events(self, request: EventsRequest) -> AsyncGenerator[bytes | Answer, None]:
        container = self._containers.find(request.container).id if request.container else ""
        events = self._around.events.listen(request.since_s, request.follow, container)
        try:
            async for event in events:
                yield item_reply(event)
        finally:
            await events.aclose()
        yield result_reply({})

    async def _status(self) -> dict[str, Any]:
        supervisor = await self._around.supervisor.status()
        return {
            "version": self._version,
            "pid": os.getpid(),
            "supervisor_pid": int(supervisor.get("pid", 0)),
            "supervisor_version": str(supervisor.get("version", "")),
            "containers": self._containers.counts(),
            "images": self._around.images.count(),
        }


async def _late(work: Awaitable[Any]) -> AsyncGenerator[bytes | Answer, None]:
    """An answer that may take any time: a stream of one frame. A client that hangs up ends the wait alone."""
    yield await work
