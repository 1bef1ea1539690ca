"""The two web applications: REST for the unix socket, host streams for TCP; every error of both a problem document."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from sdn.controller.call import BODY_BYTES_MAX, actor_of, parse_call, too_large
from sdn.controller.edge import Edge
from sdn.controller.metrics import gauges_of
from sdn.controller.principal import Principal, Role
from sdn.controller.problem import CONTENT_TYPE, RefusedError, internal_error, problem_document, status_of
from sdn.controller.route import Reply, Route, all_routes
from sdn.controller.stream_endpoint import serve_stream
from sdn.model.codec import encode_json
from sdn.model.errors import HawseError, Kind

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MEASURED_S_MAX = 300.0
RETRY_AFTER_S = 1
LONG_LIVED = ("/v1/events", "/v1/status", "/v1/stream")
"""Requests whose time says how long somebody waited, not how long the controller took."""


def rest_application(edge: Edge) -> web.Application:
    """REST and what watches over the controller; for the unix socket only: it asks for no credential."""
    application = _application(edge)
    routes = all_routes()
    for route in routes:
        application.router.add_route(route.method, route.path, _endpoint(edge, route))
    application.router.add_get("/openapi.json", _description(routes))
    application.router.add_get("/metrics", _metrics(edge))
    application.router.add_get("/readyz", _readiness(edge))
    return application


def stream_application(edge: Edge) -> web.Application:
    """Host streams; for TCP, in TLS."""
    application = _application(edge)

    async def stream(request: web.Request) -> web.StreamResponse:
        return await serve_stream(edge, request)

    application.router.add_get("/v1/stream", stream, allow_head=False)
    return application


def _application(edge: Edge) -> web.Application:
    async def healthz(request: web.Request) -> web.StreamResponse:
        return _json({"status": "ok"})

    application = web.Application(middlewares=[_guard(edge)], client_max_size=BODY_BYTES_MAX)
    application.router.add_get("/healthz", healthz)
    return application


def _endpoint(edge: Edge, route: Route) -> Handler:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        call = await parse_call(edge, route, request, Principal(actor_of(request), Role.ADMIN))
        reply = await route.handler(call)
        if isinstance(reply, web.StreamResponse):
            return reply
        return _response(reply)

    return endpoint


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
            edge.log.error("internal error", what=what, who=actor_of(request), traceback=traceback.format_exc())
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
        return HawseError(
            Kind.NOT_FOUND, f"there is nothing at {request.path}", hint="GET /openapi.json on the unix socket lists all"
        )
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
