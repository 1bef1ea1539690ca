"""The client's HTTP reader: a reply is read the same whatever pieces it arrives in; what is no reply is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn.client.events import parse_events
from sdn.client.http import ProtocolError, ReplyReader, request_bytes

COUNTED = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nHawse-Revision: 7\r\n\r\nhello world"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n1;name=value\r\n \r\n5\r\nworld\r\n0\r\nTrailer: x\r\n\r\n"
)
TO_THE_END = b"HTTP/1.0 200 OK\r\n\r\nhello world"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + COUNTED
REPLIES = [COUNTED, CHUNKED, TO_THE_END, INTERIM]


def pieces(raw: bytes, cuts: list[int]) -> Callable[[int], bytes]:
    """A `receive` that gives `raw` cut at some places, then the end."""
    edges = sorted({0, len(raw), *(cut % len(raw) for cut in cuts)})
    parts = [raw[a:b] for a, b in itertools.pairwise(edges)]

    def receive(count: int) -> bytes:
        return parts.pop(0) if parts else b""

    return receive


@given(st.sampled_from(REPLIES), st.lists(st.integers(min_value=0, max_value=1000), max_size=30))
def test_every_cut_reads_the_same(raw: bytes, cuts: list[int]) -> None:
    reader = ReplyReader(pieces(raw, cuts))
    assert reader.status == 200
    assert reader.body() == b"hello world"


@pytest.mark.parametrize("raw", REPLIES)
def test_byte_by_byte(raw: bytes) -> None:
    assert ReplyReader(pieces(raw, list(range(len(raw))))).body() == b"hello world"


@pytest.mark.parametrize("raw", [COUNTED, CHUNKED])
def test_every_truncation_is_an_error(raw: bytes) -> None:
    for length in range(len(raw)):
        with pytest.raises(ProtocolError):
            ReplyReader(pieces(raw[:length] or b" ", [])).body()


def test_header_names_are_lower_case() -> None:
    assert ReplyReader(pieces(COUNTED, [])).headers == {"content-length": "11", "hawse-revision": "7"}


def test_no_content_has_no_body() -> None:
    assert ReplyReader(pieces(b"HTTP/1.1 204 No Content\r\n\r\n", [])).body() == b""


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n0123456789",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_reply_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        ReplyReader(pieces(raw, [])).body()


def test_a_request() -> None:
    assert request_bytes("PUT", "/v1/x", {"If-Match": "3"}, b"{}") == (
        b"PUT /v1/x HTTP/1.1\r\nHost: hawse\r\nConnection: close\r\nIf-Match: 3\r\nContent-Length: 2\r\n\r\n{}"
    )
    with pytest.raises(ValueError, match="line break"):
        request_bytes("GET", "/v1/x", {"X": "a\r\nEvil: 1"}, None)


EVENTS = (
    b': keep-alive\n\nid: 3.0\nevent: network.created\ndata: {"name":\ndata: "blue"}\n\n'
    b"id: 4.1\r\nevent: host.late\r\ndata: {}\r\n\r\nid: 5.0\ndata: {}\n"
)


@given(st.lists(st.integers(min_value=0, max_value=1000), max_size=20))
def test_events_in_any_pieces(cuts: list[int]) -> None:
    receive = pieces(EVENTS, cuts)
    assert list(parse_events(iter(lambda: receive(0), b""))) == [
        {"id": "3.0", "event": "network.created", "data": {"name": "blue"}},
        {"id": "4.1", "event": "host.late", "data": {}},
    ]


def test_an_endless_line_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than"):
        list(parse_events(b"x" * 65536 for _ in range(100)))
