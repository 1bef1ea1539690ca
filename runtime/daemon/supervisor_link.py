"""`supervision.Supervisor` over the supervisor's client: its errors become starts' errors, its events a listener's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from runtime.daemon.supervision import (
    Ending,
    Executed,
    Held,
    Launched,
    Listener,
    SupervisorLostError,
    knows_stage,
    launch_error,
)
from runtime.plan import ExitRecord, LaunchPlan, ProcessPlan
from runtime.supervisor_answers import SupervisorError
from runtime.supervisor_client import SupervisorClient
from runtime.supervisor_connection import Connection
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.service.roots import Root

ABANDON_S = 10.0
ABANDON_PAUSE_S = 0.005
END_S = 5.0


class SupervisorLink:
    """`async with` one; `listen` in a task. `reconnected` is called when a supervisor took the place of another."""

    def __init__(self, root: Root, reconnected: Callable[[], None]) -> None:
        self._client = SupervisorClient(root, reconnected=reconnected)

    async def __aenter__(self) -> SupervisorLink:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def listen(self, listener: Listener) -> None:
        """Pass events on, for ever."""
        async for event in self._client.events():
            facts = event.facts
            match event.what:
                case "exited":
                    listener.ended(_ending(event.id, facts))
                case "oom":
                    listener.out_of_memory(event.id)
                case "executed":
                    listener.executed(event.id, str(facts["execution"]), int(facts["code"]))

    async def launch(self, plan: LaunchPlan, *, go: bool) -> Launched:
        """See `Supervisor`."""
        with _explained():
            launched = await self._client.launch(plan, go=go)
        return Launched(launched.pid, None if launched.netns < 0 else launched.netns)

    async def go(self, container: str) -> int:
        """See `Supervisor`."""
        with _explained():
            return (await self._client.go(container)).pid

    async def abandon(self, container: str) -> None:
        """See `Supervisor`. Of one that never ran there is no event: it is looked at until it is gone."""
        try:
            async with asyncio.timeout(ABANDON_S):
                while await self._still_there(container):  # noqa: ASYNC110 nobody tells
                    await asyncio.sleep(ABANDON_PAUSE_S)
        except TimeoutError:
            raise unavailable(f"container {container} does not end: it hangs in the kernel") from None

    async def _still_there(self, container: str) -> bool:
        found = [one for one in await self._client.list() if one.id == container]
        if not found:
            return False
        if found[0].state != "exited" and found[0].pid:
            await self._kill(container, found[0].pid)
        with contextlib.suppress(SupervisorError):  # not ended yet
            await self._client.forget(container)
        return True

    async def _kill(self, container: str, pid: int) -> None:
        """By a descriptor of the process that is still listed once we have it: never somebody who got its number."""
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if any(one.id == container and one.pid == pid for one in await self._client.list()):
                signal.pidfd_send_signal(process, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            os.close(process)

    async def execute(self, container: str, execution: str, process: ProcessPlan) -> Executed:
        """See `Supervisor`."""
        with _explained():
            executed = await self._client.execute(container, execution, process)
        names = ("terminal",) if process["tty"] is not None else ("output", "errors", "input")
        return Executed(executed.pid, dict(zip(names, executed.descriptors, strict=False)))

    async def execution(self, execution: str) -> int | None:
        """See `Supervisor`."""
        return await self._client.execution(execution)

    async def signal(self, container: str, number: int, *, every: bool = False) -> None:
        """See `Supervisor`."""
        await self._client.signal(container, number, all_processes=every)

    async def freeze(self, container: str, *, on: bool) -> None:
        """See `Supervisor`."""
        await self._client.freeze(container, on=on)

    async def input(self, container: str, *, keep: bool) -> int:
        """See `Supervisor`."""
        return await self._client.input(container, keep=keep)

    async def follow(self, container: str) -> tuple[int, int, int]:
        """See `Supervisor`."""
        log, index, bell = await self._client.follow(container)
        return log, index, bell

    async def forget(self, container: str) -> None:
        """See `Supervisor`."""
        await self._client.forget(container)

    async def list(self) -> Sequence[Held]:
        """See `Supervisor`."""
        return [
            Held(one.id, one.run, one.pid, one.state, None if one.exit is None else _recorded(one.id, one.exit))
            for one in await self._client.list()
        ]

    async def usage(self, containers: Sequence[str]) -> dict[str, dict[str, int]]:
        """See `Supervisor`."""
        return await self._client.usage(tuple(containers))

    async def status(self) -> dict[str, Any]:
        """See `Supervisor`."""
        return await self._client.status()


def end_supervisor(root: Root) -> None:
    """End supervisor and keeper, once nobody has a `SupervisorLink` any more; while containers live they stay."""
    with contextlib.suppress(HawseError), Connection(root, END_S) as connection:
        connection.request("end")


def _ending(container: str, facts: dict[str, Any]) -> Ending:
    lost = int(facts.get("log_lost_bytes", 0))
    oom_killed = bool(facts.get("oom_killed"))
    return Ending(container, int(facts["run"]), int(facts["code"]), oom_killed, facts["time_ns"] / 1e9, lost)


def _recorded(container: str, record: ExitRecord) -> Ending:
    return Ending(container, record["run"], record["code"], record["oom_killed"], record["time_ns"] / 1e9)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """A stage of a start becomes what it means to a user."""
    try:
        yield
    except SupervisorError as error:
        if not knows_stage(error.stage):
            raise
        raise launch_error(error.stage, error.message) from None
    except HawseError as error:
        if error.kind is not Kind.UNAVAILABLE:
            raise
        raise SupervisorLostError(error.kind, error.message, hint=error.hint) from None
