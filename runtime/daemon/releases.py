"""Attachments that are to be given back: tried at once, then again and again, and collected after a daemon's death."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from runtime.daemon.attaching import Agent, detach
from runtime.daemon.records import Attachment
from sdn.model.errors import HawseError
from sdn.service.log import get_logger

RETRY_FIRST_S = 0.2
RETRY_MAX_S = 10.0


class Releases:
    """`release` for one container; `run` in a task tries what failed again, and collects once the agent answers.

    The valid ones are asked for at the moment of a collection, and no ADD may begin while one is under way: the agent
    would take what was added after the list was made for a leftover.
    """

    def __init__(self, agent: Agent, valid: Callable[[], Iterable[tuple[str, str]]]) -> None:
        self._agent = agent
        self._valid = valid
        self._pending: dict[str, set[Attachment]] = {}
        self._due = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()
        self._collect = False
        self._turn = asyncio.Lock()  # a DEL that is tried again must not overtake the next start's ADD
        self._log: Any = get_logger("releases")

    async def release(self, container: str, attachments: Sequence[Attachment]) -> None:
        """Give back, now or, where the agent is away, later. Never raises because of the agent."""
        if not attachments:
            return
        problem = await detach(self._agent, container, attachments)
        if problem is not None:
            self._log.warning("not given back yet", container=container, reason=problem.message)
            self._pending.setdefault(container, set()).update(attachments)
            self._due.set()

    def pending(self, container: str) -> bool:
        """Whether something of it has not been given back."""
        return container in self._pending

    async def finish(self, container: str) -> None:
        """Before it is attached again: what is left of it, or of a daemon before this one, must go.

        Raises: the agent's error.
        """
        if self._collect:
            problem = await self._try_collect()
            if problem is not None:
                raise problem
        if container in self._pending:
            async with self._turn:
                problem = await self._try(container)
            if problem is not None:
                raise problem

    async def _try(self, container: str) -> HawseError | None:
        left = sorted(self._pending.get(container, ()), key=lambda one: one.ifname)
        problem = await detach(self._agent, container, left)
        if problem is None:
            self._pending.pop(container, None)
        return problem

    async def until_free(self) -> None:
        """Until no collection is under way."""
        await self._free.wait()

    def collect(self) -> None:
        """A daemon before this one may have left attachments."""
        self._collect = True
        self._due.set()

    async def run(self) -> None:
        """For ever."""
        delay = RETRY_FIRST_S
        while True:
            await self._due.wait()
            if await self._try_all():
                delay = RETRY_FIRST_S
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.sleep(delay)  # nobody tells when the agent is back
            delay = min(delay * 2, RETRY_MAX_S)

    async def _try_all(self) -> bool:
        if self._collect and await self._try_collect() is not None:
            return False
        for container in list(self._pending):
            async with self._turn:
                if await self._try(container) is not None:
                    return False
        if not self._pending and not self._collect:
            self._due.clear()
        return True

    async def _try_collect(self) -> HawseError | None:
        await self._free.wait()
        if not self._collect:
            return None
        self._free.clear()
        try:
            await self._agent.collect(sorted(self._valid()))
        except HawseError as error:
            return error
        finally:
            self._free.set()
        self._collect = False
        return None
