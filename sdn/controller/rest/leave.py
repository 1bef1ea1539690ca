"""`/v1/leave`: a host forgets itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdn.controller.principal import Access
from sdn.controller.route import Call, Route

if TYPE_CHECKING:
    from aiohttp import web


async def leave(call: Call) -> web.StreamResponse:
    """The answer comes first: with the host go its credential, its stream and its endpoints."""
    from aiohttp import web

    host = call.principal.host
    assert host is not None  # who gets here is one
    async with call.core.leaving(host, call.actor) as revision:
        response = web.Response(status=204, headers={"Hawse-Revision": str(revision)})
        await response.prepare(call.request)
        await response.write_eof()
    return response


ROUTES = (
    Route(
        "POST",
        "/v1/leave",
        leave,
        "forget this host, with its endpoints; a host's own credential opens it",
        statuses=(204,),
        access=Access.HOST,
    ),
)
