"""The listeners: REST on a unix socket, host streams on TCP in TLS."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sdn.controller.application import rest_application, stream_application
from sdn.controller.edge import Edge
from sdn.controller.listen import Address
from sdn.model.errors import HawseError, conflict, denied, invalid, unavailable

KEEP_ALIVE_S = 20.0
"""Of a connection without a request; it bounds the time that the headers may take, too."""
HEADER_BYTES_MAX = 8190
LINGER_S = 1.0
"""How long a refused body is read on, so that its sender gets to the reply."""
SHUTDOWN_TIMEOUT_S = 2.0
"""For handlers that are still at it when everything else has ended."""
BACKLOG = 512
HANDSHAKE_TIMEOUT_S = 10.0
TLS_SHUTDOWN_TIMEOUT_S = 1.0


@contextlib.asynccontextmanager
async def serving(
    edge: Edge, path: Path, addresses: Sequence[Address], context: ssl.SSLContext
) -> AsyncIterator[list[Address]]:
    """Listen, and stop listening at the end. Gives the TCP addresses as they were bound (a port 0 is none then).

    Raises: CONFLICT (in use), DENIED, INVALID (not an address of this machine).
    """
    async with contextlib.AsyncExitStack() as stack:
        listeners = [stack.enter_context(contextlib.closing(_listen_tcp(address))) for address in addresses]
        bound = [Address(listener.getsockname()[0], listener.getsockname()[1]) for listener in listeners]
        streams = await _run(stack, stream_application(edge))
        for listener in listeners:
            await _serve_tls(stack, streams, listener, context)
        local = stack.enter_context(contextlib.closing(_listen_unix(path)))
        stack.callback(_unlink, path)
        rest = await _run(stack, rest_application(edge))
        await web.SockSite(rest, local, backlog=BACKLOG).start()
        yield bound


async def _run(stack: contextlib.AsyncExitStack, application: web.Application) -> web.AppRunner:
    runner = web.AppRunner(
        application,
        access_log=None,
        logger=_http_log(),
        handle_signals=False,
        keepalive_timeout=KEEP_ALIVE_S,
        lingering_time=LINGER_S,
        max_line_size=HEADER_BYTES_MAX,
        max_field_size=HEADER_BYTES_MAX,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner


async def _serve_tls(
    stack: contextlib.AsyncExitStack, runner: web.AppRunner, listener: socket.socket, context: ssl.SSLContext
) -> None:
    assert runner.server is not None  # set up above
    server = await asyncio.get_running_loop().create_server(
        runner.server,
        sock=listener,
        ssl=context,
        backlog=BACKLOG,
        ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,  # an aiohttp site would leave these at 60 and 30 s
        ssl_shutdown_timeout=TLS_SHUTDOWN_TIMEOUT_S,
    )
    stack.callback(server.close)


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
    except OSError as error:
        listener.close()
        raise _refusal(error, str(path)) from None
    finally:
        os.umask(before)
    return listener


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _listen_tcp(address: Address) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listener.bind((address.host, address.port))
        listener.listen(BACKLOG)  # two sockets may bind one port; only listening finds out
    except OSError as error:
        listener.close()
        raise _refusal(error, str(address)) from None
    return listener


def _refusal(error: OSError, where: str) -> HawseError:
    what = f"cannot listen on {where}"
    match error.errno:
        case errno.EADDRINUSE:
            return conflict(f"{what}: it is in use", "stop who listens there, or choose another with --listen")
        case errno.EADDRNOTAVAIL:
            return invalid(f"{what}: this machine does not have that address", "see 'ip address' for those it has")
        case errno.EACCES | errno.EPERM:
            return denied(f"{what}: {error.strerror}", "run as root, or choose another root or port")
        case _:
            return unavailable(f"{what}: {error.strerror or error}", "choose another address or root")
