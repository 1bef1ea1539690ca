"""The web application, of the unix socket and of TCP: REST and host streams; every error a problem document."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from sdn.controller.authentication import CHALLENGE, NOBODY, PRINCIPAL, admit
from sdn.controller.call import BODY_BYTES_MAX, parse_call, too_large
from sdn.controller.edge import Edge
from sdn.controller.http_connection import SERVER
from sdn.controller.metrics import gauges_of
from sdn.controller.open_requests import EndedError
from sdn.controller.principal import Access, Principal
from sdn.controller.problem import CONTENT_TYPE, RefusedError, internal_error, problem_document, status_of
from sdn.controller.route import Reply, Route, all_routes
from sdn.controller.stream_endpoint import serve_stream
from sdn.model.codec import encode_json
from sdn.model.errors import HawseError, Kind

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
BEGUN = web.RequestKey("begun", web.StreamResponse)
"""Where a request keeps the response of which the headers are sent."""
FAREWELL_S = 1.0
"""For the last words of a stream whose token has ended; who reads nothing gets none."""
MEASURED_S_MAX = 300.0
RETRY_AFTER_S = 1
LONG_LIVED = ("/v1/events", "/v1/status", "/v1/stream")
"""Requests whose time says how long somebody waited, not how long the controller took."""


def rest_application(edge: Edge) -> web.Application:
    """REST, host streams, what watches over the controller. Who asks is known by the socket, or by what is shown."""
    application = web.Application(middlewares=[_guard(edge)], client_max_size=BODY_BYTES_MAX)
    application.on_response_prepare.append(_begin)
    routes = all_routes()
    for route in routes:
        application.router.add_route(route.method, route.path, _endpoint(edge, route))
    for path, access, handler in (
        ("/healthz", Access.ANYONE, _health),
        ("/readyz", Access.TENANT, _readiness(edge)),
        ("/openapi.json", Access.TENANT, _description(routes)),
        ("/metrics", Access.ADMIN, _metrics(edge)),
    ):
        application.router.add_get(path, _admitting(edge, path, access, handler))

    async def stream(request: web.Request) -> web.StreamResponse:
        principal = await admit(edge, request, Access.HOST, "a host's stream")
        assert principal.host is not None  # admitted
        return await serve_stream(edge, request, principal.host)

    application.router.add_get("/v1/stream", stream, allow_head=False)
    return application


async def _begin(request: web.Request, response: web.StreamResponse) -> None:
    request[BEGUN] = response
    response.headers["Server"] = SERVER


def _admitting(edge: Edge, path: str, access: Access, handler: Handler) -> Handler:
    async def admitting(request: web.Request) -> web.StreamResponse:
        await admit(edge, request, access, path)
        return await handler(request)

    return admitting


def _endpoint(edge: Edge, route: Route) -> Handler:
    async def handle(request: web.Request, principal: Principal) -> web.StreamResponse:
        call = await parse_call(edge, route, request, principal)
        reply = await route.handler(call)
        return reply if isinstance(reply, web.StreamResponse) else _response(reply)

    async def endpoint(request: web.Request) -> web.StreamResponse:
        principal = await admit(edge, request, route.access, f"{route.method} {route.path}")
        if not principal.token:
            return await handle(request, principal)
        admission = edge.core.admission
        try:
            async with admission.requests.under(principal.token, admission.left_s(principal.token)):
                return await handle(request, principal)
        except EndedError:
            return await _ended(request)

    return endpoint


async def _ended(request: web.Request) -> web.StreamResponse:
    """The request's token has ended while it was handled: its client is told so, in a stream by a last event.

    Raises: 401 where no response had begun.
    """
    error = RefusedError(401, "the token was revoked, or its time is up", "use another one", headers=CHALLENGE)
    if BEGUN not in request:
        raise error
    response = request[BEGUN]
    document = encode_json(problem_document(error, 401))
    try:
        async with asyncio.timeout(FAREWELL_S):
            await response.write(b"event: problem\ndata: " + document + b"\n\n")
            await response.write_eof()
    except (ConnectionError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()  # what waits for a client that does not read is not for it any more
    return response


async def _health(request: web.Request) -> web.StreamResponse:
    return _json({"status": "ok"})


def _response(reply: Reply) -> web.Response:
    headers = {"Hawse-Revision": str(reply.revision)} if reply.revision is not None else {}
    if reply.etag is not None:
        headers["ETag"] = f'"{reply.etag}"'
    if reply.body is None:
        return web.Response(status=reply.status, headers=headers)
    return _json(reply.body, reply.status, headers)


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=encode_json(body), status=status, headers=headers, content_type="application/json")


def _description(routes: list[Route]) -> Handler:
    rendered: list[bytes] = []

    async def description(request: web.Request) -> web.StreamResponse:
        if not rendered:
            from sdn.controller.openapi import describe

            rendered.append(encode_json(describe(routes)))
        return web.Response(body=rendered[0], content_type="application/json")

    return description


def _metrics(edge: Edge) -> Handler:
    async def metrics(request: web.Request) -> web.StreamResponse:
        body, content_type = await asyncio.to_thread(edge.metrics.render, gauges_of(edge.core))
        return web.Response(body=body, headers={"Content-Type": content_type})

    return metrics


def _readiness(edge: Edge) -> Handler:
    async def readyz(request: web.Request) -> web.StreamResponse:
        if not edge.ready:
            raise RefusedError(503, "the controller is starting or stopping", "ask again")
        return _json({"status": "ready", "revision": edge.core.revision})

    return readyz


def _guard(edge: Edge) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        begun_s = time.monotonic()
        try:
            response = await handler(request)
        except HawseError as error:
            response = problem_response(error, request)
        except web.HTTPException as error:
            response = problem_response(_refused(error, request), request)
        except ConnectionError:
            raise  # the client is gone: there is nobody to tell
        except Exception:  # noqa: BLE001 a fault of ours: logged whole here, shown without its inside
            what = f"{request.method} {request.rel_url.raw_path}"
            edge.log.error(
                "internal error", what=what, who=request.get(PRINCIPAL, NOBODY).actor, traceback=traceback.format_exc()
            )
            response = problem_response(internal_error(), request)
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        edge.metrics.requests[request.method if resource is not None else "any", route, response.status] += 1
        if route not in LONG_LIVED:
            edge.metrics.request_s.observe(time.monotonic() - begun_s)
        return response

    return guard


def problem_response(error: HawseError, request: web.Request) -> web.Response:
    """An error as a response."""
    status = status_of(error, "If-Match" in request.headers)
    headers = dict(error.headers) if isinstance(error, RefusedError) else {}
    if status == 503:
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    response = web.Response(body=encode_json(problem_document(error, status)), status=status, headers=headers)
    response.headers["Content-Type"] = CONTENT_TYPE
    if headers.get("Connection") == "close":
        response.force_close()
    return response


def _refused(error: web.HTTPException, request: web.Request) -> HawseError:
    """What the server's own refusals (unknown route, method …) say, in our words."""
    if isinstance(error, web.HTTPNotFound):
        return HawseError(Kind.NOT_FOUND, f"there is nothing at {request.path}", hint="GET /openapi.json lists all")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = sorted(error.allowed_methods)
        return RefusedError(
            405,
            f"{request.path} does not take {request.method}",
            f"it takes {', '.join(allowed)}",
            headers={"Allow": ", ".join(allowed)},
            allowed=allowed,
        )
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return too_large(None)
    return RefusedError(error.status, error.text or error.reason)
