"""The client itself: requests, problems, pages and events over the controller's unix socket."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any, NamedTuple

from sdn.client.events import Event, parse_events
from sdn.client.http import ProtocolError, ReplyReader, request_bytes
from sdn.model.errors import HawseError, Kind, denied, invalid, unavailable

TIMEOUT_S = 30.0
SOCKET_PATH_BYTES_MAX = 107
"""`sun_path` less its final zero, unix(7)."""
KEEP_ALIVE_S = 15.0
"""How often the controller says something on a stream of events."""
START_HINT = "start it with: hawse controller"

_KINDS_BY_STATUS = {
    400: Kind.INVALID,
    401: Kind.DENIED,
    403: Kind.DENIED,
    404: Kind.NOT_FOUND,
    409: Kind.CONFLICT,
    412: Kind.CONFLICT,
    503: Kind.UNAVAILABLE,
}
"""Only for replies that are no problem document of ours, from something between."""


class Reply(NamedTuple):
    """`headers` have names in lower case; `body` is the decoded JSON, None where there is none."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def revision(self) -> int | None:
        """The revision at which a write was committed."""
        text = self.headers.get("hawse-revision", "")
        return int(text) if text.isdecimal() else None


class Client:
    """Speaks to one controller. Every call opens its own connection, so threads may share a client.

    `url` is `unix:/path/to/controller.sock`; `timeout_s` bounds each wait for bytes. Errors: the `HawseError` of the
    controller; UNAVAILABLE where it does not run or does not answer in time.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url
        self._path = _socket_path(url)
        self._timeout_s = timeout_s

    def get(
        self, path: str, headers: Mapping[str, str] | None = None, *, timeout_s: float | None = None, **query: Any
    ) -> Reply:
        """`query` becomes the query string: None is left out, a list repeats its name."""
        return self.request("GET", path, None, headers, timeout_s=timeout_s, query=query)

    def post(
        self, path: str, body: Any = None, headers: Mapping[str, str] | None = None, *, timeout_s: float | None = None
    ) -> Reply:
        """Create or do; `body` is encoded as JSON."""
        return self.request("POST", path, {} if body is None else body, headers, timeout_s=timeout_s)

    def put(
        self, path: str, body: Any = None, headers: Mapping[str, str] | None = None, *, timeout_s: float | None = None
    ) -> Reply:
        """Make it so; with `If-Match` in headers, replace that revision."""
        return self.request("PUT", path, {} if body is None else body, headers, timeout_s=timeout_s)

    def delete(
        self, path: str, headers: Mapping[str, str] | None = None, *, timeout_s: float | None = None, **query: Any
    ) -> Reply:
        """Remove; what is absent is removed already."""
        return self.request("DELETE", path, None, headers, timeout_s=timeout_s, query=query)

    def items(self, path: str, **filters: Any) -> Iterator[Any]:
        """Every item of a list, page by page. A label filter is `label="k=v"` or a list of such."""
        after = filters.pop("after", None)
        while True:
            page = self.get(path, after=after, **filters).body
            yield from page["items"]
            after = page.get("next")
            if not after:
                return

    def events(self, path: str = "/v1/events", **query: Any) -> Iterator[Event]:
        """Events as they happen: from `since` (a revision, or the id of the last event seen), else from now.

        Ends only with `follow=0` in the query. Raises: UNAVAILABLE when the connection is lost or silent: call again
        with the id of the last event.
        """
        timeout_s = KEEP_ALIVE_S * 3  # three silent keep-alives are a lost controller
        with closing(self._connect(timeout_s)) as connection:
            try:
                reply = self._exchange(connection, "GET", with_query(path, query), {}, None)
                if reply.status != 200:
                    raise _error(reply.status, _decode(reply))
                yield from parse_events(reply.parts())
            except (OSError, ProtocolError, ValueError) as error:
                raise self._lost(error, timeout_s) from None

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Reply:
        """One request of any method; a status of 400 and above is raised."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        raw = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        sent = {"Accept": "application/json", **({} if raw is None else {"Content-Type": "application/json"})}
        sent.update(headers or {})
        with closing(self._connect(timeout_s)) as connection:
            try:
                reply = self._exchange(connection, method, with_query(path, query or {}), sent, raw)
                content = _decode(reply)
            except (OSError, ProtocolError, ValueError) as error:
                raise self._lost(error, timeout_s) from None
        if reply.status >= 400:
            raise _error(reply.status, content)
        return Reply(reply.status, reply.headers, content)

    def _connect(self, timeout_s: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED):
                raise unavailable(
                    f"the controller is not running: nothing answers on {self._path}", START_HINT, socket=self._path
                ) from None
            if error.errno in (errno.EACCES, errno.EPERM):
                raise denied(
                    f"no permission to use the controller's socket {self._path}",
                    "run this as the user that runs the controller, usually root",
                    socket=self._path,
                ) from None
            raise self._lost(error, timeout_s) from None
        return connection

    @staticmethod
    def _exchange(
        connection: socket.socket, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> ReplyReader:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before it was read whole: the reply says why
            connection.sendall(request_bytes(method, target, headers, body))
        return ReplyReader(connection.recv)

    def _lost(self, error: Exception, timeout_s: float) -> HawseError:
        if isinstance(error, TimeoutError):
            return unavailable(
                f"the controller on {self._path} did not answer within {timeout_s:g} s",
                "look at its log; it may be overloaded or stopped",
                timeout_s=timeout_s,
            )
        return unavailable(f"the connection to the controller on {self._path} failed: {error}", "try again")


def quote(text: str) -> str:
    """Percent-encoded for a path segment or a query value (RFC 3986: all but the unreserved). Raises: INVALID."""
    safe = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    try:
        raw = text.encode()
    except UnicodeEncodeError:  # a command line's bytes that are not UTF-8 arrive as lone surrogates
        raise invalid(f"{text!r} is not text in UTF-8", "write it in UTF-8") from None
    return "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in raw)


def resource(kind: str, *segments: str) -> str:
    """The path of a resource: `resource("networks", "blue/web")` is `/v1/networks/blue%2Fweb`."""
    return "/".join(["/v1", kind, *(quote(segment) for segment in segments)])


def with_query(path: str, query: Mapping[str, Any]) -> str:
    """The path with its query string; None is left out, True and False are 1 and 0, a list repeats its name."""
    pairs = [f"{quote(name)}={quote(_text(one))}" for name, value in query.items() for one in _values(value)]
    return f"{path}{'&' if '?' in path else '?'}{'&'.join(pairs)}" if pairs else path


def _values(value: Any) -> Iterable[Any]:
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _socket_path(url: str) -> str:
    path = url.removeprefix("unix:").removeprefix("//")
    if not url.startswith("unix:") or not path.startswith("/"):
        raise invalid(
            f"{url!r} is not an address of a controller", "write it as unix:/run/hawse/controller.sock", controller=url
        )
    length = len(path.encode())
    if length > SOCKET_PATH_BYTES_MAX:
        raise invalid(
            f"the socket path {path} has {length} bytes, more than the {SOCKET_PATH_BYTES_MAX} that a socket can have",
            "choose a shorter root",
            bytes=length,
            limit=SOCKET_PATH_BYTES_MAX,
        )
    return path


def _decode(reply: ReplyReader) -> Any:
    raw = reply.body()
    if not raw:
        return None
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return json.loads(raw)
    return raw.decode(errors="replace")


def _error(status: int, content: Any) -> HawseError:
    """The error in a problem document, or the best that can be said of a reply that is none."""
    if isinstance(content, dict) and content.get("kind") in list(Kind):
        facts = content.get("facts")
        return HawseError(
            Kind(content["kind"]),
            str(content.get("detail") or content.get("title") or f"status {status}"),
            hint=str(content.get("hint") or ""),
            facts=facts if isinstance(facts, dict) else {},
        )
    kind = _KINDS_BY_STATUS.get(status, Kind.INTERNAL if status >= 500 else Kind.INVALID)
    text = content.strip() if isinstance(content, str) else ""
    return HawseError(kind, f"the controller answered with status {status}{': ' + text[:200] if text else ''}")
