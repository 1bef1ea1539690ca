"""`/v1/events`: what happened, and what happens, as server-sent events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdn.controller.principal import Access
from sdn.controller.query import Parameter
from sdn.controller.route import Route, ScopedCall
from sdn.model.errors import invalid
from sdn.model.ids import Revision

if TYPE_CHECKING:
    from aiohttp import web


async def stream_events(call: ScopedCall) -> web.StreamResponse:
    """From a revision, or from the event after one that was seen, or from now."""
    from sdn.controller.sse import respond

    since = call.request.headers.get("Last-Event-ID") or call.query.text("since")
    revision, number = parse_event_id(since) if since else (call.scope.revision, -1)
    if revision > call.scope.revision:
        raise invalid(
            f"revision {revision} does not exist yet",
            f"the last one is {call.scope.revision}",
            since=revision,
            last=call.scope.revision,
        )
    return await respond(call.scope, call.request, revision, number, call.query.flag("follow", True))


def parse_event_id(text: str) -> tuple[Revision, int]:
    """`R` or `R.N` as (revision, number of the last event seen; -1: all of the revision was). Raises: INVALID."""
    revision, dot, number = text.partition(".")
    parts = [revision, number] if dot else [revision]
    if not all(part.isascii() and part.isdecimal() and len(part) < 19 for part in parts):
        raise invalid(f"{text!r} is neither a revision nor an event's id", "write 42 or 42.0", since=text)
    return Revision(int(revision)), int(number) if dot else -1


ROUTES = (
    Route(
        "GET",
        "/v1/events",
        stream_events,
        "what happened and what happens, as server-sent events; resumable with Last-Event-ID",
        query=(
            Parameter("since", "a revision, or the id of the last event seen; else from now"),
            Parameter("follow", "0: end after what is there", {"type": "integer", "enum": [0, 1]}),
        ),
        media="text/event-stream",
        access=Access.TENANT,
    ),
)
