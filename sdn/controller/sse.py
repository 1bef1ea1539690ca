"""Server-sent events (WHATWG HTML, section 9.2): the core's events as a response that goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from sdn.controller.events import Event
from sdn.controller.problem import problem_document, status_of
from sdn.controller.scope import Scope
from sdn.model.codec import encode_json
from sdn.model.errors import HawseError
from sdn.model.ids import Revision

KEEP_ALIVE_S = 15.0
"""Something is said this often, so that both ends notice a lost connection."""
WRITE_TIMEOUT_S = 30.0
"""Who reads nothing for so long is cut off; it resumes where it was."""
FIRST_STEP_S = 1.0
"""The log's answer is there at once; the bound only keeps a stuck store from holding back the headers."""


async def respond(scope: Scope, request: web.Request, since: Revision, number: int, follow: bool) -> web.StreamResponse:
    """Send events until they end, the client goes or stops reading. Raises: UNAVAILABLE, NOT_FOUND (compacted)."""
    with scope.event_stream():
        async with _stepping(scope.events(since, number, follow)) as events:
            if since < scope.revision:
                await events.peek(FIRST_STEP_S)
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
            response.headers["Hawse-Revision"] = str(scope.revision)
            await response.prepare(request)
            with contextlib.suppress(ConnectionError, TimeoutError):  # the client is gone or reads nothing
                await _send_all(response, events)
            return response


class _Steps:
    """An iterator whose next step can be awaited with a bound, without being lost when the bound is reached."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._events = events
        self._step: asyncio.Future[Event] | None = None

    async def peek(self, timeout_s: float) -> bool:
        """Whether the next step is done (an event, the end or an error) in time. Raises the step's HawseError."""
        if self._step is None:
            self._step = asyncio.ensure_future(anext(self._events))
        done, _ = await asyncio.wait({self._step}, timeout=timeout_s)
        if done and isinstance(error := self._step.exception(), HawseError):
            raise error
        return bool(done)

    def take(self) -> Event | None:
        """The step that `peek` found done; None: that was the end."""
        assert self._step is not None
        step, self._step = self._step, None
        try:
            return step.result()
        except StopAsyncIteration:
            return None

    async def close(self) -> None:
        """Give up the step under way and end the iterator."""
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait({self._step})
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()


@contextlib.asynccontextmanager
async def _stepping(events: AsyncIterator[Event]) -> AsyncIterator[_Steps]:
    steps = _Steps(events)
    try:
        yield steps
    finally:
        await steps.close()


async def _send_all(response: web.StreamResponse, events: _Steps) -> None:
    await _write(response, b": hawse\n\n")
    while True:
        try:
            if not await events.peek(KEEP_ALIVE_S):
                await _write(response, b": keep-alive\n\n")
                continue
        except HawseError as error:  # too late for a status: the stream itself says why it ends
            document = encode_json(problem_document(error, status_of(error, False)))
            await _write(response, b"event: problem\ndata: " + document + b"\n\n")
            return
        event = events.take()
        if event is None:
            return
        await _write(response, event_bytes(event))


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_TIMEOUT_S):
        await response.write(data)


def event_bytes(event: Event) -> bytes:
    """One event on the wire. JSON has no line breaks of its own, so `data` is one line."""
    data = encode_json({"time_s": event.time_s, "actor": event.actor, **event.data})
    return f"id: {event.id}\nevent: {event.kind}\ndata: ".encode() + data + b"\n\n"
