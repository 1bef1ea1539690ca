"""The little of HTTP/1.1 (RFC 9112) that one request and its reply need. No I/O of its own: `receive` is passed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

HEADER_BYTES_MAX = 64 << 10
LINE_BYTES_MAX = 64 << 10
"""Of a chunk's size line."""
BODY_BYTES_MAX = 256 << 20


class ProtocolError(Exception):
    """What arrived is not an HTTP reply, or it ends too early."""


def request_bytes(method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """One request, complete. `target` is the path and query, percent-encoded."""
    lines = [f"{method} {target} HTTP/1.1", "Host: hawse", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a line break in a request line or header")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


class ReplyReader:
    """Reads one reply from `receive(n)`, which returns at most n bytes and b"" at the end.

    `status` and `headers` (names in lower case) are there once the constructor returns. Raises: ProtocolError.
    """

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._buffer = b""
        self.status, self.headers = self._head()
        while 100 <= self.status < 200:  # RFC 9110, section 15.2: an interim reply precedes the final one
            self.status, self.headers = self._head()

    def body(self) -> bytes:
        """The whole body."""
        parts: list[bytes] = []
        size = 0
        for part in self.parts():
            size += len(part)
            if size > BODY_BYTES_MAX:
                raise ProtocolError(f"the reply is larger than {BODY_BYTES_MAX} bytes")
            parts.append(part)
        return b"".join(parts)

    def parts(self) -> Iterator[bytes]:
        """The body as it arrives (RFC 9112, section 6.3)."""
        if self.status in (204, 304):
            return
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
        elif "content-length" in self.headers:
            yield from self._counted(self._number(self.headers["content-length"], 10))
        else:
            yield from self._rest()

    def _head(self) -> tuple[int, dict[str, str]]:
        raw = self._until(b"\r\n\r\n", HEADER_BYTES_MAX)
        first, *lines = raw.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not (
            rest[:3].isascii() and rest[:3].isdecimal() and len(rest[:3]) == 3
        ):
            raise ProtocolError(f"{first[:80]!r} is not the first line of an HTTP reply")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise ProtocolError(f"{line[:80]!r} is not a header")
            headers[name.strip().lower()] = value.strip()
        return int(rest[:3]), headers

    def _chunks(self) -> Iterator[bytes]:
        while size := self._number(self._until(b"\r\n", LINE_BYTES_MAX).partition(b";")[0].decode("latin-1"), 16):
            yield from self._counted(size)
            if self._until(b"\r\n", LINE_BYTES_MAX):
                raise ProtocolError("a chunk is longer than it says")
        while self._until(b"\r\n", LINE_BYTES_MAX):  # trailers: nobody needs them
            pass

    def _counted(self, count: int) -> Iterator[bytes]:
        while count:
            if not self._buffer:
                self._fill()
            part, self._buffer = self._buffer[:count], self._buffer[count:]
            count -= len(part)
            yield part

    def _rest(self) -> Iterator[bytes]:
        while part := self._buffer or self._receive(65536):
            self._buffer = b""
            yield part

    def _until(self, mark: bytes, limit: int) -> bytes:
        while (found := self._buffer.find(mark)) < 0 and len(self._buffer) <= limit:
            self._fill()
        if not 0 <= found <= limit:
            raise ProtocolError(f"no end of line within {limit} bytes")
        head, self._buffer = self._buffer[:found], self._buffer[found + len(mark) :]
        return head

    def _fill(self) -> None:
        more = self._receive(65536)
        if not more:
            raise ProtocolError("the connection ended in the middle of the reply")
        self._buffer += more

    @staticmethod
    def _number(text: str, base: int) -> int:
        digits = text.strip()
        if not digits or any(c not in "0123456789abcdefABCDEF" for c in digits):
            raise ProtocolError(f"{text[:80]!r} is not a length")
        try:
            return int(digits, base)
        except ValueError:
            raise ProtocolError(f"{text[:80]!r} is not a length") from None
