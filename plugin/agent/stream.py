"""The stream's transport: a WebSocket over TLS whose certificate is pinned by its fingerprint."""

from __future__ import annotations

import asyncio
import collections
import contextlib

from plugin.agent.configuration import Configuration
from sdn.model.errors import HawseError, Kind, denied, unavailable
from sdn.model.stream import unpack_frame
from sdn.service.startup import lean_imports

with lean_imports():
    import aiohttp

PATH = "/v1/stream"
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
        self._fingerprint = bytes.fromhex(configuration.fingerprint)
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
        connector = aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(self._fingerprint), limit=1)
        session = aiohttp.ClientSession(connector=connector)
        try:
            async with asyncio.timeout(CONNECT_S):
                socket = await session.ws_connect(
                    url.rstrip("/") + PATH,
                    headers={"Authorization": self._authorization},
                    heartbeat=HEARTBEAT_S,
                    max_msg_size=MESSAGE_BYTES_MAX,
                    compress=0,
                )
        except BaseException as error:
            await session.close()
            explained = _explain(url, error)
            if explained is None:
                raise
            raise explained from None
        return WebSocketChannel(session, socket)


def _explain(url: str, error: BaseException) -> HawseError | None:
    match error:
        case aiohttp.ServerFingerprintMismatch():
            return denied(
                f"{url} has another certificate than the one that was pinned",
                "if the controller was made anew, mint this host's credential again; if not, somebody is in between",
            )
        case aiohttp.WSServerHandshakeError(status=401 | 403):
            return denied(
                f"{url} does not accept this host's credential", "mint a new one: POST /v1/hosts/NAME/credential"
            )
        case aiohttp.WSServerHandshakeError():
            return unavailable(f"{url} answered {error.status} to the stream", "is this a controller?")
        case TimeoutError():
            return unavailable(f"{url} did not answer within {CONNECT_S:g} s", "is the controller running?")
        case aiohttp.ClientError() | OSError():
            return unavailable(f"cannot reach {url}: {_reason(error)}", "is the controller running?")
        case _:
            return None


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
