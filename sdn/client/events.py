"""Server-sent events (WHATWG HTML, section 9.2): bytes as they arrive to events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TypedDict

LINE_BYTES_MAX = 4 << 20


class Event(TypedDict):
    """`id` (`REVISION.N`) is where to resume; `event` is as `network.created`; `data` is the decoded JSON."""

    id: str
    event: str
    data: Any


def parse_events(parts: Iterable[bytes]) -> Iterator[Event]:
    """The events in a body. Comments (keep-alives) are left out; an event cut off by the end is none.

    Raises: ValueError where a line is endless or data is not JSON.
    """
    identity, kind, data = "", "message", list[str]()
    for line in _lines(parts):
        if not line:
            if data:
                yield {"id": identity, "event": kind, "data": json.loads("\n".join(data))}
            kind, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            identity = value
        elif field == "event":
            kind = value
        elif field == "data":
            data.append(value)


def _lines(parts: Iterable[bytes]) -> Iterator[str]:
    """Lines ended by LF or CRLF: what the controller sends; a lone CR, which the standard allows, is not one."""
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise ValueError(f"a line of an event is longer than {LINE_BYTES_MAX} bytes")
        for line in whole:
            yield line.removesuffix(b"\r").decode()
