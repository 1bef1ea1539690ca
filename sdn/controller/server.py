"""The listeners: REST on a unix socket; REST and host streams on TCP, in TLS, behind the gate."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sdn.controller.acceptor import LocalGate
from sdn.controller.application import rest_application
from sdn.controller.edge import Edge
from sdn.controller.gate import Gate, close_unproven
from sdn.controller.governor import limits_for
from sdn.controller.http_connection import connections_of
from sdn.controller.listen import Address, OpenflowAddress
from sdn.model.errors import HawseError, conflict, denied, invalid, unavailable

KEEP_ALIVE_S = 20.0
"""Of a connection without a request; it bounds the time that the headers may take, too."""
HEADER_BYTES_MAX = 8190
"""Of the request's line, and of each header."""
HEADERS_MAX = 64
LINGER_S = 1.0
"""How long a refused body is read on, so that its sender gets to the reply."""
SHUTDOWN_TIMEOUT_S = 2.0
"""For handlers that are still at it when everything else has ended."""
BACKLOG = 1024
"""Connections that the kernel holds until the loop turns: a fleet may come back all at once."""


@contextlib.asynccontextmanager
async def serving(
    edge: Edge, path: Path, addresses: Sequence[Address], context: ssl.SSLContext
) -> AsyncIterator[list[Address]]:
    """Listen, and stop listening at the end. Gives the TCP addresses as they were bound (a port 0 is none then).

    Raises: CONFLICT (in use), DENIED, INVALID (not an address of this machine).
    """
    async with contextlib.AsyncExitStack() as stack:
        limits = limits_for(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        listeners = [stack.enter_context(contextlib.closing(_listen_tcp(address))) for address in addresses]
        bound = [Address(listener.getsockname()[0], listener.getsockname()[1]) for listener in listeners]
        public = rest_application(edge)
        public.on_response_prepare.append(close_unproven)
        server = await _run(stack, public)
        http = connections_of(server, **_http_options())
        gate = Gate(context, limits, edge.metrics, edge.log)
        stack.push_async_callback(gate.close)
        for listener in listeners:
            gate.listen(listener, http)
        local = stack.enter_context(contextlib.closing(_listen_unix(path)))
        stack.callback(_unlink, path)
        server = await _run(stack, rest_application(edge))
        local_http = connections_of(server, **_http_options())
        local_gate = LocalGate(local, server, local_http, limits.local, edge.metrics, edge.log)
        stack.callback(local_gate.close)
        yield bound


async def _run(stack: contextlib.AsyncExitStack, application: web.Application) -> web.Server:
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    assert runner.server is not None  # set up
    return runner.server


def _http_options() -> dict[str, Any]:
    return {
        "access_log": None,
        "logger": _http_log(),
        "keepalive_timeout": KEEP_ALIVE_S,
        "lingering_time": LINGER_S,
        "max_line_size": HEADER_BYTES_MAX,
        "max_field_size": HEADER_BYTES_MAX,
        "max_headers": HEADERS_MAX,
        "auto_decompress": False,  # nobody compresses what fits into a megabyte, but for a bomb
    }


def _http_log() -> logging.Logger:
    """Of the HTTP library; what is no HTTP gets its 400 and no line: anybody could fill the log with such."""
    log = logging.getLogger("hawse.http")
    log.filters = [_is_our_fault]
    return log


def _is_our_fault(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _listen_unix(path: Path) -> socket.socket:
    """Bound with mode 0600 from its first moment. The caller holds the root's lock: what is there is a leftover."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        _unlink(path)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _refusal(error, str(path)) from None
    finally:
        os.umask(before)
    return listener


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


@contextlib.asynccontextmanager
async def steering(edge: Edge, addresses: Sequence[OpenflowAddress]) -> AsyncIterator[list[OpenflowAddress]]:
    """Take switches without an agent while inside; where, as it was bound. None asked for is fine.

    Raises: CONFLICT (in use), DENIED, INVALID (not an address of this machine).
    """
    if not addresses:
        yield []
        return
    from sdn.controller.steering.listener import OpenflowListener  # 60 ms, which only who has switches pays

    async with contextlib.AsyncExitStack() as stack:
        sockets = [stack.enter_context(contextlib.closing(_listen_tcp(one.address, "--openflow"))) for one in addresses]
        listener = OpenflowListener(edge.core, edge.identity, edge.metrics, edge.log)
        stack.push_async_callback(listener.close)
        for socket_, one in zip(sockets, addresses, strict=True):
            listener.listen(socket_, one)
        bound = [Address(*socket_.getsockname()[:2]) for socket_ in sockets]
        if not all(one.secure for one in addresses):
            edge.log.warning("switches over plain TCP are believed by their datapath id alone", hint="use ssl:")
        yield [OpenflowAddress(one.secure, where) for one, where in zip(addresses, bound, strict=True)]


def _listen_tcp(address: Address, option: str = "--listen") -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listener.bind((address.host, address.port))
        listener.listen(BACKLOG)  # two sockets may bind one port; only listening finds out
    except OSError as error:
        listener.close()
        raise _refusal(error, str(address), option) from None
    return listener


def _refusal(error: OSError, where: str, option: str = "--listen") -> HawseError:
    what = f"cannot listen on {where}"
    match error.errno:
        case errno.EADDRINUSE:
            return conflict(f"{what}: it is in use", f"stop who listens there, or choose another with {option}")
        case errno.EADDRNOTAVAIL:
            return invalid(f"{what}: this machine does not have that address", "see 'ip address' for those it has")
        case errno.EACCES | errno.EPERM:
            return denied(f"{what}: {error.strerror}", "run as root, or choose another root or port")
        case _:
            return unavailable(f"{what}: {error.strerror or error}", "choose another address or root")
