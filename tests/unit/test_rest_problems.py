"""REST: everything that can be wrong with a request gets one problem document, with the right status."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdn.controller import call, server
from sdn.model.errors import Kind
from tests.unit.rest_server import Answer, Served, running


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running(tmp_path) as running_controller:
        yield running_controller


def assert_problem(answer: Answer, status: int, kind: Kind) -> None:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.body
    assert (answer.status, body["status"], body["kind"]) == (status, status, kind.value)
    assert set(body) == {"type", "title", "status", "detail", "kind", "hint", "facts"}
    assert body["type"] == f"urn:hawse:problem:{kind.value}"
    assert "Traceback" not in str(body)


async def test_what_is_not_there(served: Served) -> None:
    for path in ("/", "/v1", "/v1/nothing", "/v1/networks/a/b"):
        assert_problem(await served.ask("GET", path), 404, Kind.NOT_FOUND)
    missing = await served.ask("GET", "/v1/tenants/defualt")
    assert_problem(missing, 404, Kind.NOT_FOUND)
    assert "default" in missing.body["hint"]


async def test_a_method_that_is_not_taken(served: Served) -> None:
    answer = await served.ask("PATCH", "/v1/tenants/default")
    assert_problem(answer, 405, Kind.INVALID)
    assert {"GET", "PUT", "DELETE"} <= set(answer.headers["allow"].split(", "))


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"\xff\xfe", None),
        (b'{"name": 3}', "$.name"),
        (b'{"name": "x", "colour": "red"}', None),
        (b'{"name": "x", "subnets": [{"prefix": "10.1.0.0/24"}, {"prefix": 7}]}', "$.subnets[1].prefix"),
        (b'{"name": "x", "labels": {"a": 1}}', "$.labels[...]"),
    ],
)
async def test_wrong_json_says_where(served: Served, raw: bytes, place: str | None) -> None:
    answer = await served.ask("POST", "/v1/networks", raw=raw, Content_Type="application/json")
    assert_problem(answer, 400, Kind.INVALID)
    assert answer.body["facts"].get("place") == place


async def test_an_unknown_field_is_named(served: Served) -> None:
    answer = await served.ask("POST", "/v1/tenants", {"name": "x", "lables": {}})
    assert_problem(answer, 400, Kind.INVALID)
    assert "lables" in answer.body["detail"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
async def test_other_content_types(served: Served, content_type: str) -> None:
    answer = await served.ask("POST", "/v1/tenants", raw=b'{"name": "x"}', Content_Type=content_type)
    assert_problem(answer, 415, Kind.INVALID)


async def test_too_large_a_body_declared(served: Served) -> None:
    answer = await served.ask(
        "POST", "/v1/tenants", raw=b" " * (call.BODY_BYTES_MAX + 1), Content_Type="application/json"
    )
    assert_problem(answer, 413, Kind.INVALID)
    assert answer.body["facts"] == {"limit": call.BODY_BYTES_MAX, "bytes": call.BODY_BYTES_MAX + 1}


async def test_the_largest_body_is_read(served: Served) -> None:
    raw = b'{"name": "x"}'.ljust(call.BODY_BYTES_MAX)
    assert (await served.ask("POST", "/v1/tenants", raw=raw, Content_Type="application/json")).status == 201


async def exchange(served: Served, *parts: bytes) -> bytes:
    """Send raw bytes; everything that comes back until the server closes."""
    reader, writer = await asyncio.open_unix_connection(str(served.path))
    for part in parts:
        writer.write(part)
        await writer.drain()
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_too_large_a_body_undeclared(served: Served) -> None:
    head = (
        b"POST /v1/tenants HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"80000\r\n" + b" " * 0x80000 + b"\r\n"
    answer = await exchange(served, head, chunk, chunk, chunk, b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer


async def test_a_body_that_does_not_come(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "BODY_TIMEOUT_S", 0.05)
    head = b"POST /v1/tenants HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    answer = await exchange(served, head, b'{"n')
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"kind":"unavailable"' in answer


async def test_headers_that_do_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_S", 0.05)
    async with running(tmp_path) as served:
        assert await exchange(served, b"GET /v1/tenants HT") == b""


async def test_headers_too_large(served: Served) -> None:
    answer = await exchange(served, b"GET /v1/tenants HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n")
    assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))


@pytest.mark.parametrize("raw", [b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
async def test_what_is_no_http(served: Served, raw: bytes) -> None:
    answer = await exchange(served, raw)
    assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
    assert (await served.ask("GET", "/healthz")).status == 200


@pytest.mark.parametrize(
    "query",
    [
        "colour=red",
        "limit=0",
        "limit=1001",
        "limit=ten",
        "limit=-1",
        "limit=1&limit=2",
        "label=novalue",
        "label=%3Dx",
        "label=a%3D1&label=a%3D2",
    ],
)
async def test_wrong_queries(served: Served, query: str) -> None:
    assert_problem(await served.ask("GET", f"/v1/tenants?{query}"), 400, Kind.INVALID)


async def test_an_unknown_query_parameter_says_what_is_allowed(served: Served) -> None:
    answer = await served.ask("GET", "/v1/tenants?name=x")
    assert answer.body["facts"] == {"parameter": "name", "allowed": ["after", "label", "limit"]}
    assert_problem(await served.ask("POST", "/v1/tenants?limit=1", {"name": "x"}), 400, Kind.INVALID)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/status?wait=1",
        "/v1/status?revision=99999&wait=1",
        "/v1/status?revision=0&wait=3601",
        "/v1/status?revision=0&wait=nan",
        "/v1/events?since=x",
        "/v1/events?since=1.x",
        "/v1/events?since=99999",
        "/v1/events?follow=2",
    ],
)
async def test_wrong_revisions(served: Served, path: str) -> None:
    assert_problem(await served.ask("GET", path), 400, Kind.INVALID)


@pytest.mark.parametrize("value", ["x", "-1", '"1", "2"', "*", ""])
async def test_wrong_preconditions(served: Served, value: str) -> None:
    assert_problem(await served.ask("PUT", "/v1/tenants/t", {}, If_Match=value), 400, Kind.INVALID)


async def test_a_precondition_where_none_is_taken(served: Served) -> None:
    assert_problem(await served.ask("DELETE", "/v1/tenants/t", If_Match="1"), 400, Kind.INVALID)


@pytest.mark.parametrize("kind", ["tenants", "networks", "hosts", "endpoints"])
async def test_filters_by_what_is_unknown(served: Served, kind: str) -> None:
    assert_problem(await served.ask("GET", f"/v1/{kind}/nothing"), 404, Kind.NOT_FOUND)
    if kind in ("networks", "endpoints"):
        assert_problem(await served.ask("GET", f"/v1/{kind}?tenant=nobody"), 404, Kind.NOT_FOUND)


async def test_a_fault_of_ours_shows_nothing_of_it(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(served.core, "status", fail)
    answer = await served.ask("GET", "/v1/status")
    assert_problem(answer, 500, Kind.INTERNAL)
    assert "secret" not in str(answer.body)
    (line,) = served.log.named("internal error")
    assert "ZeroDivisionError: secret detail" in line["traceback"]
    assert line["what"] == "GET /v1/status"


async def test_ready_and_healthy(served: Served) -> None:
    assert (await served.ask("GET", "/healthz")).body == {"status": "ok"}
    assert (await served.ask("GET", "/readyz")).body["status"] == "ready"
    served.edge.ready = False
    assert_problem(await served.ask("GET", "/readyz"), 503, Kind.UNAVAILABLE)
    assert (await served.ask("GET", "/healthz")).status == 200


async def test_the_socket_is_private(served: Served) -> None:
    assert stat.S_IMODE(served.path.stat().st_mode) == 0o600


async def test_bytes_that_are_no_text_are_refused_as_any_other(served: Served) -> None:
    """Written by hand: a client's library would not send them."""
    reader, writer = await asyncio.open_unix_connection(str(served.path))
    writer.write(b"PUT /v1/networks/web HTTP/1.1\r\nHost: hawse\r\nConnection: close\r\nContent-Length: 2\r\n")
    writer.write(b"Content-Type: application/json\r\nIf-Match: \xfc\xa1\r\n\r\n{}")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"If-Match: ?" in answer
