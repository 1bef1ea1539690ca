"""The client itself: requests, problems, pages and events."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any, NamedTuple, Protocol

from sdn.client.events import Event, parse_events
from sdn.client.http import ProtocolError, ReplyReader, request_bytes
from sdn.client.local import LocalConnector
from sdn.model.errors import HawseError, Kind, invalid, unavailable

TIMEOUT_S = 30.0
KEEP_ALIVE_S = 15.0
"""How often the controller says something on a stream of events."""

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


class Connector(Protocol):
    """Opens connections to one controller."""

    where: str
    """The other end, as sentences name it."""

    def connect(self, timeout_s: float) -> socket.socket:
        """One on which each wait is bounded by `timeout_s`. Raises: HawseError, OSError."""


class Client:
    """Speaks to one controller. Every call opens its own connection, so threads may share a client.

    `url` is `unix:/path/to/controller.sock` or `https://ADDRESS:PORT`; that one is verified by `authority` (PEM), or by
    the `fingerprint` of one that is then fetched. `token` is shown there, if given. `timeout_s` bounds each wait for
    bytes. Errors: the `HawseError` of the controller; UNAVAILABLE where it does not run, cannot be reached or does not
    answer in time; DENIED where it is not whom the authority means.
    """

    def __init__(
        self, url: str, timeout_s: float = TIMEOUT_S, *, authority: str = "", fingerprint: str = "", token: str = ""
    ) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._connector = _connector(url, authority, fingerprint)
        self._headers = {"Authorization": f"Bearer {token}"} if token and url.startswith("https:") else {}

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
        with the id of the last event; what the controller says of why it ends it.
        """
        timeout_s = KEEP_ALIVE_S * 3  # three silent keep-alives are a lost controller
        with closing(self._connect(timeout_s)) as connection:
            try:
                reply = self._exchange(connection, "GET", with_query(path, query), self._headers, None)
                if reply.status != 200:
                    raise _error(reply.status, _decode(reply))
                for event in parse_events(reply.parts()):
                    if event["event"] == "problem":  # too late for a status: a token that was revoked meanwhile …
                        raise _error(200, event["data"])
                    yield event
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
        sent.update(self._headers)
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
        try:
            return self._connector.connect(timeout_s)
        except OSError as error:
            raise self._lost(error, timeout_s) from None

    @staticmethod
    def _exchange(
        connection: socket.socket, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> ReplyReader:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before it was read whole: the reply says why
            connection.sendall(request_bytes(method, target, headers, body))
        return ReplyReader(connection.recv)

    def _lost(self, error: Exception, timeout_s: float) -> HawseError:
        where = self._connector.where
        if isinstance(error, TimeoutError):
            return unavailable(
                f"the controller on {where} did not answer within {timeout_s:g} s",
                "look at its log; it may be overloaded or stopped",
                timeout_s=timeout_s,
            )
        return unavailable(f"the connection to the controller on {where} failed: {error}", "try again")


def _connector(url: str, authority: str, fingerprint: str) -> Connector:
    if not url.startswith("https:"):
        return LocalConnector(url)
    from sdn.client.remote import RemoteConnector  # ssl alone takes longer than most commands

    return RemoteConnector(url, authority, fingerprint)


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
