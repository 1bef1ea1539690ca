"""One connection's HTTP: the library's, but that what it refuses by itself is told in our words, and who answers is us.

Its own words name the library and its version, and repeat what was sent: a header's line may be a credential.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, InvalidURLError

from sdn.controller.problem import CONTENT_TYPE, RefusedError, internal_error, problem_document
from sdn.model.codec import encode_json

SERVER = "hawse"
"""As which every answer names who answers; a version would tell strangers which faults to try."""


class HttpConnection(web.RequestHandler):
    """See aiohttp."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no request, as a problem document; logged as ever, and the last of its connection."""
        super().handle_error(request, status, exc, message)
        error = internal_error() if status >= 500 else RefusedError(status, f"this is no request: {_reason(exc)}")
        response = web.Response(body=encode_json(problem_document(error, status)), status=status)
        response.headers.update({"Content-Type": CONTENT_TYPE, "Server": SERVER})
        response.force_close()
        return response


def _reason(error: BaseException | None) -> str:
    if isinstance(error, InvalidURLError) or not isinstance(error, HttpProcessingError):
        return "its address cannot be read" if error is not None else "it cannot be read"
    return error.message.partition(":")[0].strip() or "it cannot be read"  # behind the colon: what was sent


def connections_of(server: web.Server, **options: Any) -> Callable[[], HttpConnection]:
    """What makes the protocol of each connection. `options`: see RequestHandler."""
    loop = asyncio.get_running_loop()
    return lambda: HttpConnection(server, loop=loop, **options)
