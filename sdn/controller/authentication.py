"""From a request to who asks, and whether the route is open to them.

The unix socket is an administrator's, by the user at its other end; only a host has to show who it is there, too. On
TCP a request proves nothing by coming: it shows a user token's word or a host's `HOST:SECRET` as `Authorization: Bearer
…`. A good credential is answered at once,
whatever its address did before; who shows a wrong one waits (`throttle`), here and nowhere else.
"""

from __future__ import annotations

import asyncio
import socket
import time
import weakref
from typing import NoReturn

from aiohttp import web

from sdn.controller.call import actor_of
from sdn.controller.edge import Edge
from sdn.controller.gate import proved
from sdn.controller.plan_tokens import UnprovenError
from sdn.controller.principal import Access, Principal, Role
from sdn.controller.problem import RefusedError
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import HostId
from sdn.model.token import PREFIX

NOBODY = Principal("nobody")
CHALLENGE = {"WWW-Authenticate": "Bearer"}
HINT = "send Authorization: Bearer WORD, with a user token's word: hawse token create --role ROLE makes one"
HOST_HINT = "send Authorization: Bearer HOST:SECRET"
PRINCIPAL = web.RequestKey("principal", Principal)
"""Where a request keeps who asks."""
_locals: weakref.WeakKeyDictionary[asyncio.BaseTransport, Principal | None] = weakref.WeakKeyDictionary()


async def admit(edge: Edge, request: web.Request, access: Access, what: str) -> Principal:
    """Who asks, where a thing of this access is open to them. `what`: its name in the refusal.

    Raises: 401 where nothing, or something wrong, was shown; 403 where it does not reach; 429.
    """
    principal = NOBODY if access is Access.ANYONE else await _principal(edge, request, access)
    request[PRINCIPAL] = principal
    proved(request, principal)
    if not principal.may(access):
        raise _forbidden(edge, principal, access, what)
    return principal


async def refuse(edge: Edge, request: web.Request, error: HawseError) -> NoReturn:
    """Refuse what was shown, with a 401: later and later where it may have been a guess. Raises: 401, 429."""
    edge.metrics.authentication_failures += 1
    edge.quiet.warning("refused", peer=str(request.remote), what=request.path, reason=error.message)
    if isinstance(error, UnprovenError):
        await asyncio.sleep(edge.throttle.failed(request.remote or "", time.monotonic()))
    raise RefusedError(401, error.message, error.hint, headers=CHALLENGE, **error.facts) from None


async def _principal(edge: Edge, request: web.Request, access: Access) -> Principal:
    if access is not Access.HOST and (principal := _local(request)) is not None:
        return principal
    try:
        return _shown(edge, request, access)
    except HawseError as error:
        await refuse(edge, request, error)


def _local(request: web.Request) -> Principal | None:
    """Who is at the other end of the unix socket: found out once for each connection."""
    transport = request.transport
    if transport is None or transport.get_extra_info("sslcontext") is not None:
        return None  # the client is gone; or it is TLS, whose transports uvloop lets nobody refer to weakly
    if transport not in _locals:
        peer = transport.get_extra_info("socket")
        is_local = peer is not None and peer.family == socket.AF_UNIX
        _locals[transport] = Principal(actor_of(request), Role.ADMIN) if is_local else None
    return _locals[transport]


def _shown(edge: Edge, request: web.Request, access: Access) -> Principal:
    hint = HOST_HINT if access is Access.HOST else HINT
    scheme, _, word = request.headers.get("Authorization", "").partition(" ")
    word = word.strip()
    if not scheme:
        raise RefusedError(401, "no credential was sent", hint)
    if scheme.lower() != "bearer" or not word:
        raise RefusedError(401, "what was sent as Authorization is no bearer credential", hint)
    host, colon, secret = word.partition(":")
    if colon:
        return _host(edge, host, secret)
    if word.startswith(PREFIX):
        return edge.core.admission.user(word, edge.fingerprint)
    raise UnprovenError("the credential is neither a user token nor a host's", hint)


def _host(edge: Edge, id_: str, secret: str) -> Principal:
    try:
        host = edge.core.custody.authenticate(HostId(id_), secret)
    except HawseError as error:
        raise UnprovenError(error.message, error.hint) if error.kind is Kind.DENIED else error from None
    return Principal(f"host:{host.name}", host=host.id)


def _forbidden(edge: Edge, principal: Principal, access: Access, what: str) -> RefusedError:
    if principal.host is not None:
        told, hint = f"{what} is for users; this is the credential of a host", "use a user token, or the unix socket"
    elif access is Access.HOST:
        told, hint = f"{what} is for a host, about itself", "only the host's own credential opens it"
    else:
        tenant = edge.core.state.tenants.get(principal.tenant) if principal.tenant else None
        owned = f"tenant {tenant.name}" if tenant is not None else "a tenant"
        told, hint = f"{what} is for administrators; this token is of {owned}", "ask an administrator"
    return RefusedError(403, told, hint)
