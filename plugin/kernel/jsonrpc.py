"""JSON-RPC as Open vSwitch's daemons speak it: one JSON object after the other on a stream, requests both ways.

`Framing` finds the objects in bytes and does no I/O; `JsonRpc` is the asyncio end: calls with a future each, what the
peer tells unasked, its `echo` answered. One event loop owns it. A peer that talks nonsense, or more than its bound, is
hung up on with a sentence.

Source: RFC 7047, section 4; JSON-RPC 1.0.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from sdn.model.errors import HawseError, denied, unavailable

MESSAGE_BYTES_MAX: Final = 16 << 20
"""Of one message: the first answer of a monitor tells of everything, half a kilobyte for each port."""
UNSENT_BYTES_MAX: Final = 4 << 20
_decoder: Final = msgspec.json.Decoder(dict[str, Any])
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}"]', re.DOTALL)  # a lone quote: of a string that goes on


class ProtocolError(Exception):
    """What came is no JSON-RPC; the text says what it is instead."""


class RefusedError(Exception):
    """The peer answered a call with an error: `value`, whatever JSON it is."""

    def __init__(self, value: Any) -> None:
        super().__init__(value if isinstance(value, str) else msgspec.json.encode(value).decode())
        self.value = value


class Framing:
    """Bytes in, whole messages out. What is kept is at most one message."""

    def __init__(self, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._limit = message_bytes_max
        self._buffer = b""
        self._scanned = 0
        self._depth = 0

    def receive(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that are complete now. Raises: ProtocolError, after which it is of no use."""
        if not self._buffer and data.startswith(b"{") and data.endswith(b"}"):
            try:
                return _all(data)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                pass  # it ends, or another begins, amid a string or a map: count braces
        buffer = self._buffer + data
        found: list[dict[str, Any]] = []
        begin, depth, scanned = 0, self._depth, len(buffer)
        for token in _TOKEN.finditer(buffer, self._scanned):
            what = buffer[token.start()]
            if what == 0x22:
                if token.end() - token.start() == 1:
                    scanned = token.start()
                    break
            elif what == 0x7B:
                depth += 1
            else:
                depth -= 1
                if depth <= 0:
                    found.append(_decoded(buffer[begin : token.end()]))
                    begin, depth = token.end(), 0
        self._buffer = buffer[begin:]
        self._scanned, self._depth = scanned - begin, depth
        start = self._buffer[:64].lstrip()
        if start and not start.startswith(b"{"):
            raise ProtocolError(f"it sends {start[:24]!r}, which begins no JSON object")
        if len(self._buffer) > self._limit:
            raise ProtocolError(f"it sends a message of more than {self._limit} bytes")
        return found


def _all(data: bytes) -> list[dict[str, Any]]:
    """Whole messages, if it is nothing but such; a part of one is no JSON, wherever it is cut."""
    pieces = data[1:-1].split(b"}{")
    return [_decoder.decode(b"{%b}" % piece) for piece in pieces]


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        value = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"it sends {data[:24]!r}…, which is no JSON: {error}") from None
    return value


class JsonRpc(asyncio.Protocol):
    """One end of a connection. `name`: the peer in sentences, with its place.

    `told(method, params)` is called for what the peer tells unasked; `ended(error)` once, when it is over (None: by
    `close`).
    """

    def __init__(self, name: str, told: Callable[[str, Any], None], ended: Callable[[HawseError | None], None]) -> None:
        self.name = name
        self._told = told
        self._ended = ended
        self._framing = Framing()
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._last = 0
        self._error: HawseError | None = None
        self._over = False

    def call(self, method: str, params: Sequence[Any]) -> asyncio.Future[Any]:
        """Send a request at once; its result comes in time. The future raises RefusedError, UNAVAILABLE."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._transport is None or self._over:
            answer.set_exception(self._error or unavailable(f"{self.name} is not connected"))
            return answer
        self._last += 1
        self._waiting[self._last] = answer
        self._send({"method": method, "params": params, "id": self._last})
        return answer

    async def ask(self, method: str, params: Sequence[Any], timeout_s: float) -> Any:
        """Call, and wait. Raises: RefusedError; HawseError (UNAVAILABLE), also when it takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.call(method, params)
        except TimeoutError:
            raise unavailable(f"{self.name} does not answer {method!r} within {timeout_s:g} s") from None

    def close(self) -> None:
        """Hang up; what waits fails. Twice is fine."""
        self._hang_up(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # of the base class alone where the loop is another

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._over:
            return
        try:
            for message in self._framing.receive(data):
                self._take(message)
        except ProtocolError as error:
            self._hang_up(unavailable(f"what answers at {self.name} speaks no JSON-RPC: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._hang_up(unavailable(f"{self.name} has hung up{f': {error}' if error else ''}"))

    def _take(self, message: dict[str, Any]) -> None:
        method, number = message.get("method"), message.get("id")
        if method == "echo":
            self._send({"result": message.get("params", []), "error": None, "id": number})
        elif isinstance(method, str):
            self._told(method, message.get("params"))
        elif "result" in message or "error" in message:
            answer = self._waiting.pop(number, None) if isinstance(number, int) else None
            if answer is None or answer.done():  # given up on meanwhile
                return
            if message.get("error") is not None:
                answer.set_exception(RefusedError(message["error"]))
            else:
                answer.set_result(message.get("result"))
        else:
            raise ProtocolError(f"it sends {msgspec.json.encode(message)[:48]!r}, neither a call nor an answer")

    def _send(self, message: dict[str, Any]) -> None:
        assert self._transport is not None
        self._transport.write(msgspec.json.encode(message))
        if self._transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            self._hang_up(unavailable(f"{self.name} does not read what it is sent"))

    def _hang_up(self, error: HawseError | None) -> None:
        if self._over:
            return
        self._over, self._error = True, error
        if self._transport is not None:
            self._transport.abort()
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(error or unavailable(f"the connection to {self.name} is closed"))
                answer.exception()  # looked at: nobody may be waiting for it any more
        self._ended(error)


async def connect(
    path: Path,
    name: str,
    told: Callable[[str, Any], None],
    ended: Callable[[HawseError | None], None],
    timeout_s: float,
) -> JsonRpc:
    """Connect to a daemon's unix socket. Raises: UNAVAILABLE (nothing there, nobody listens, too slow), DENIED."""
    loop = asyncio.get_running_loop()
    what = f"{name} at {path}"
    try:
        async with asyncio.timeout(timeout_s):
            _, client = await loop.create_unix_connection(lambda: JsonRpc(what, told, ended), str(path))
    except FileNotFoundError:
        raise unavailable(f"{name} is not there: no socket {path}") from None
    except PermissionError:
        raise denied(f"{what} lets nobody in but root", "run as root") from None
    except TimeoutError:
        raise unavailable(f"{what} takes no connection within {timeout_s:g} s") from None
    except OSError as error:
        raise unavailable(f"nobody answers at {path}, where {name} should: {error.strerror or error}") from None
    return client
