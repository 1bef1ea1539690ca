"""The description of the API, from the very types that check requests and make replies (OpenAPI 3.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from sdn.controller.principal import Access
from sdn.controller.problem import CONTENT_TYPE, ProblemDocument
from sdn.controller.route import Route
from sdn.model.version import VERSION

TEMPLATE = "#/components/schemas/{name}"
DESCRIPTION = """\
A reference in a path is an id, a name (of tenant `default`, or of the tenant that the caller's token is confined to) or
`tenant/name`, percent-encoded. `x-access` says who may call what: `anyone`, without a credential; `host`, a host about
itself; `tenant`, users of a tenant, for whom other tenants' things do not exist, and administrators; `admin`,
administrators alone. On the unix socket everybody is an administrator. Every write's reply has
`Hawse-Revision`, the revision at which it was committed: `/v1/status?revision=R&wait=S` waits until the hosts are in
step with it. Errors are problem documents (RFC 9457)."""

SCHEMES = {
    "user": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "hawse-user-…",
        "description": "A user token's word; its role and tenant say what it opens. Not needed on the unix socket.",
    },
    "host": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "HOST:SECRET",
        "description": "A host's own id and secret.",
    },
}
SECURITY: dict[Access, list[dict[str, list[str]]]] = {
    Access.ANYONE: [],
    Access.HOST: [{"host": []}],
    Access.TENANT: [{"user": []}],
    Access.ADMIN: [{"user": []}],
}


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """The document."""
    types: list[Any] = [ProblemDocument]
    types += [type_ for route in routes for type_ in (route.body, route.reply) if type_ is not None]
    unique = [type_ for place, type_ in enumerate(types) if type_ not in types[:place]]
    schemas, components = msgspec.json.schema_components(unique, ref_template=TEMPLATE)
    schema_of = dict(zip(map(repr, unique), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Hawse controller", "version": VERSION, "description": DESCRIPTION},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": SCHEMES},
    }


def _operation(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "security": SECURITY[route.access],
        "x-access": route.access.value,
        "parameters": _parameters(route),
        "responses": {str(status): _success(route, schema_of) for status in route.statuses},
    }
    problem = {"schema": schema_of[repr(ProblemDocument)]}
    operation["responses"]["default"] = {"description": "why not", "content": {CONTENT_TYPE: problem}}
    if route.body is not None:
        content = {"application/json": {"schema": schema_of[repr(route.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    for parameter in route.query:
        schema = {"type": "array", "items": dict(parameter.schema)} if parameter.repeated else dict(parameter.schema)
        found.append({"name": parameter.name, "in": "query", "description": parameter.summary, "schema": schema})
    if route.conditional:
        text = "the revision that the resource must have"
        found.append({"name": "If-Match", "in": "header", "description": text, "schema": {"type": "string"}})
    return found


def _success(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": route.summary}
    if route.method != "GET":
        text = {"description": "the revision of this write", "schema": {"type": "integer"}}
        response["headers"] = {"Hawse-Revision": text}
    if route.reply is not None:
        response["content"] = {route.media: {"schema": schema_of[repr(route.reply)]}}
    elif route.method == "GET":
        response["content"] = {route.media: {"schema": {"type": "string"}}}
    return response
