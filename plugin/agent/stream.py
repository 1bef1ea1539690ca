"""The stream's transport: a WebSocket over TLS, to who has a certificate of a trusted authority.

On the controller's own machine it may be its unix socket, whose directory says who it is.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ssl
import time

from plugin.agent.configuration import Configuration, controller_address, local_socket
from sdn.model.errors import HawseError, Kind, denied, unavailable
from sdn.model.stream import unpack_frame
from sdn.service.startup import lean_imports
from sdn.service.trust import (
    IDENTITY_BYTES_MAX,
    IDENTITY_PATH,
    Sighting,
    mistrust,
    sighting_of,
    unverified_context,
    verifying_context,
)

with lean_imports():
    import aiohttp

PATH = "/v1/stream"
LOCAL = "http://hawse"
"""What a URL begins with where a socket's path says whom it means."""
CONNECT_S = 5.0
HEARTBEAT_S = 10.0
"""A peer that vanished without a word is noticed after one and a half of these."""
CLOSE_S = 1.0
"""For the courtesy of a closing handshake; nothing depends on it, and the peer may be gone."""
MESSAGE_BYTES_MAX = 16 << 20
"""A snapshot's chunk has 500 items of a few hundred bytes; a label may make one large."""


class WebSocketChannel:
    """See channel.Channel."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._session = session
        self._socket = socket
        self._received: collections.deque[bytes] = collections.deque()

    async def send(self, message: bytes) -> None:
        """Raises: OSError when the connection is gone."""
        await self._socket.send_bytes(message)  # aiohttp's ClientConnectionResetError is an OSError

    async def receive(self) -> bytes | None:
        """See Channel. Raises: INVALID when what came is no frame."""
        while not self._received:
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                return None  # closed, broken, or text, which nobody sends
            self._received.extend(unpack_frame(message.data))
        return self._received.popleft()

    async def close(self) -> None:
        """See Channel."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close()
        await self._session.close()  # what is left of the connection is aborted


class Dialer:
    """Tries the controllers in turn; the one that answered last comes first."""

    def __init__(self, configuration: Configuration) -> None:
        self._urls = list(configuration.controllers)
        self.use(configuration)

    def use(self, configuration: Configuration) -> None:
        """Connect as this one says from now on; its controllers stay those that there were."""
        self._authority = configuration.authority
        self._context = verifying_context(configuration.authority)
        self._authorization = f"Bearer {configuration.host}:{configuration.secret}"

    async def __call__(self) -> WebSocketChannel:
        """A channel. Raises: DENIED (credential or certificate), UNAVAILABLE, with what each controller said."""
        errors: list[HawseError] = []
        for url in list(self._urls):
            try:
                channel = await self._dial(url)
            except HawseError as error:
                errors.append(error)
                continue
            self._urls.remove(url)
            self._urls.insert(0, url)
            return channel
        if len(errors) == 1 or any(error.kind is Kind.DENIED for error in errors):
            raise next((error for error in errors if error.kind is Kind.DENIED), errors[0])
        raise unavailable("; ".join(error.message for error in errors), errors[0].hint)

    async def _dial(self, url: str) -> WebSocketChannel:
        path = local_socket(url)
        connector = aiohttp.UnixConnector(path) if path else aiohttp.TCPConnector(ssl=self._context, limit=1)
        session = aiohttp.ClientSession(connector=connector)
        try:
            async with asyncio.timeout(CONNECT_S):
                socket = await session.ws_connect(
                    (LOCAL if path else url.rstrip("/")) + PATH,
                    headers={"Authorization": self._authorization},
                    heartbeat=HEARTBEAT_S,
                    max_msg_size=MESSAGE_BYTES_MAX,
                    compress=0,
                )
        except BaseException as error:
            await session.close()
            if isinstance(error, aiohttp.ClientConnectorCertificateError):
                raise await self._mistrust(url, error.certificate_error) from None
            explained = _explain(url, error)
            if explained is None:
                raise
            raise explained from None
        return WebSocketChannel(session, socket)

    async def _mistrust(self, url: str, error: Exception) -> HawseError:
        if not isinstance(error, ssl.SSLCertVerificationError):  # aiohttp allows for more than there is
            return denied(f"{url} has no certificate that can be verified: {error}", "is this a controller?")
        return mistrust(url, error, self._authority, await _sight(url), time.time())


async def _sight(url: str) -> Sighting:
    """What that end shows to anybody: for the sentence that says why it is not trusted."""
    host, port = controller_address(url)
    server, reply = None, b""
    with contextlib.suppress(OSError, TimeoutError):  # what came until then is shown
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=unverified_context())
            try:
                server = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                writer.write(f"GET {IDENTITY_PATH} HTTP/1.1\r\nHost: hawse\r\nConnection: close\r\n\r\n".encode())
                while len(reply) < IDENTITY_BYTES_MAX and (part := await reader.read(IDENTITY_BYTES_MAX)):
                    reply += part
            finally:
                writer.close()
    return sighting_of(server, reply.partition(b"\r\n\r\n")[2])


def _explain(url: str, error: BaseException) -> HawseError | None:
    match error:
        case aiohttp.WSServerHandshakeError(status=401 | 403):
            return denied(
                f"{url} does not accept this host's credential",
                "if the host was forgotten there: hawse leave, and hawse join with a new token",
            )
        case aiohttp.WSServerHandshakeError():
            return unavailable(f"{url} answered {error.status} to the stream", "is this a controller?")
        case aiohttp.ClientConnectorSSLError():
            return unavailable(
                f"{url} does not speak TLS 1.3 as a controller does: {_tls_reason(error.os_error)}",
                "is this a controller?",
            )
        case TimeoutError():
            return unavailable(f"{url} did not answer within {CONNECT_S:g} s", "is the controller running?")
        case aiohttp.ClientError() | OSError():
            return unavailable(f"cannot reach {url}: {_reason(error)}", "is the controller running?")
        case _:
            return None


def _tls_reason(error: OSError) -> str:
    return (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
