"""From a raw request to a `Call`: everything about it that can be wrong is refused here."""

from __future__ import annotations

import asyncio
import functools
import pwd
import re
import socket
import struct
from typing import Any

from aiohttp import web

from sdn.controller.edge import Edge
from sdn.controller.principal import Access, Principal
from sdn.controller.problem import RefusedError
from sdn.controller.query import Query
from sdn.controller.route import Call, Route, ScopedCall
from sdn.controller.scope import Scope
from sdn.model.codec import Decoder
from sdn.model.errors import HawseError, Kind, invalid
from sdn.model.ids import Revision

BODY_BYTES_MAX = 1 << 20
STRANGER_BODY_BYTES_MAX = 16 << 10
"""Where nobody need prove anything before the body is read: many can send one at a time."""
BODY_TIMEOUT_S = 10.0
"""For the whole body, from the end of the headers."""
SPECIFICATION_HINT = "GET /openapi.json describes what is accepted"


async def parse_call(edge: Edge, route: Route, request: web.Request, principal: Principal) -> Call | ScopedCall:
    """The request, checked. Raises: INVALID (query, headers, body), with a status of its own where HTTP has one."""
    query = Query(request.query.items() if request.query_string else (), route.query)
    if_match = _if_match(route, request)
    raw = await _read_body(request, STRANGER_BODY_BYTES_MAX if route.access is Access.ANYONE else BODY_BYTES_MAX)
    asked: dict[str, Any] = {
        "request": request,
        "query": query,
        "body": _decode_body(route, request, raw) if route.body is not None else None,
        "reference": request.match_info.get("reference", ""),
        "if_match": if_match,
        "principal": principal,
    }
    if route.access is Access.TENANT:
        return ScopedCall(scope=Scope(edge, principal), **asked)
    return Call(edge=edge, **asked)


def _if_match(route: Route, request: web.Request) -> Revision | None:
    if "If-Match" not in request.headers:
        return None
    values = request.headers.getall("If-Match")
    if not route.conditional:
        raise invalid(f"{route.method} of {route.path} does not take If-Match", "PUT does")
    text = values[0].strip().removeprefix('"').removesuffix('"')
    if len(values) > 1 or not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise invalid(
            f"If-Match: {', '.join(values)} is not a revision", "send the resource's revision, as If-Match: 42"
        )
    return Revision(int(text))


async def _read_body(request: web.Request, bytes_max: int) -> bytes:
    """The body, which is read even where it is not wanted, so that the connection stays usable."""
    if not request.body_exists:
        return b""
    if not request.body_exists:
        return b""
    if (request.content_length or 0) > bytes_max:
        raise too_large(request.content_length, bytes_max)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.clone(client_max_size=bytes_max).read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large(None, bytes_max) from None
    except TimeoutError:
        raise RefusedError(
            408,
            f"the body did not arrive within {BODY_TIMEOUT_S:g} s",
            "send it at once",
            headers={"Connection": "close"},
            timeout_s=BODY_TIMEOUT_S,
        ) from None


def too_large(size: int | None, bytes_max: int = BODY_BYTES_MAX) -> RefusedError:
    """The refusal of a body; `size` in bytes where it is known, `bytes_max` are taken."""
    told = f"the body has {size} bytes" if size is not None else "the body is too large"
    return RefusedError(
        413,
        f"{told}; {bytes_max} are accepted",
        "send less",
        headers={"Connection": "close"},
        limit=bytes_max,
        **({} if size is None else {"bytes": size}),
    )


def _decode_body(route: Route, request: web.Request, raw: bytes) -> Any:
    if request.content_type != "application/json":
        raise RefusedError(
            415,
            f"the body is declared as {request.headers.get('Content-Type') or 'nothing'}, not as JSON",
            "send Content-Type: application/json",
        )
    if not raw:
        raise invalid("the body is empty", SPECIFICATION_HINT)
    try:
        return _decoder(route.body).json(raw)
    except HawseError as error:
        place = re.search(r" - at `(.+)`$", error.message)
        facts = {"place": place.group(1)} if place else {}
        raise HawseError(Kind.INVALID, error.message, hint=SPECIFICATION_HINT, facts=facts) from None


@functools.cache
def _decoder(body: type) -> Decoder[Any]:
    return Decoder(body, f"a {body.__name__}")


def actor_of(request: web.Request) -> str:
    """Who asks: the user of the process at the other end of the unix socket (SO_PEERCRED, unix(7))."""
    peer = request.get_extra_info("socket")
    if peer is None or peer.family != socket.AF_UNIX:
        return "nobody"
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return _user(uid)


@functools.lru_cache(maxsize=256)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
