"""Routes: one table that makes the server and its description."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from sdn.controller import rest
from sdn.controller.core import Core
from sdn.controller.edge import Edge
from sdn.controller.principal import Access, Principal
from sdn.controller.query import Parameter, Query
from sdn.controller.scope import Scope
from sdn.model.ids import Revision

if TYPE_CHECKING:
    from aiohttp import web


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, checked. `body` is of the route's body type; `reference` is what the path names ("" if nothing).

    `principal` is who asks. `if_match` is the revision that the resource must have.
    """

    request: web.Request
    query: Query
    body: Any
    reference: str
    if_match: Revision | None
    principal: Principal

    @property
    def actor(self) -> str:
        """Who asks, for the audit."""
        return self.principal.actor


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScopedCall(Asked):
    """What a handler of a TENANT route gets, whoever asks: the state through the scope, and no other way."""

    scope: Scope


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call(Asked):
    """What all other handlers get."""

    edge: Edge

    @property
    def core(self) -> Core:
        """The core."""
        return self.edge.core


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """What goes back. `body` None: nothing. `revision` of a write goes into `Hawse-Revision`; `etag` into `ETag`."""

    body: Any = None
    status: int = 200
    revision: Revision | None = None
    etag: Revision | None = None


Handler = Callable[[Any], Awaitable["Reply | web.StreamResponse"]]
"""Takes a ScopedCall where the route's access is TENANT, else a Call."""


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. `reply` None: no content, or (with `media`) something that is not JSON.

    `statuses` are the successful ones; every route may answer with a problem document. `conditional`: takes If-Match.
    `access`: who may call it.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    reply: Any = None
    body: Any = None
    query: tuple[Parameter, ...] = ()
    statuses: tuple[int, ...] = (200,)
    conditional: bool = False
    access: Access = Access.ADMIN
    media: str = "application/json"


def all_routes() -> list[Route]:
    """The routes of every module in `rest`: a new resource is one new module there."""
    routes: list[Route] = []
    for found in pkgutil.iter_modules(rest.__path__):
        module = importlib.import_module(f"{rest.__name__}.{found.name}")
        routes.extend(module.ROUTES)
    return routes
