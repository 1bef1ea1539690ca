"""Events over REST: from a revision, resumed after a lost connection, bounded; and the client that reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sdn.client.client import Client
from sdn.client.events import parse_events
from sdn.controller import scope, sse
from sdn.model.errors import HawseError, Kind
from tests.unit.rest_server import BASE, Served, running, until


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running(tmp_path) as running_controller:
        yield running_controller


async def read(served: Served, query: str, last: str = "") -> list[Any]:
    """The events that are there."""
    answer = await served.ask("GET", f"/v1/events?follow=0{query}", Last_Event_ID=last)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream"
    return list(parse_events([answer.body]))


async def test_from_a_revision(served: Served) -> None:
    first = (await served.ask("POST", "/v1/tenants", {"name": "one"})).revision
    second = (await served.ask("POST", "/v1/tenants", {"name": "two"})).revision
    events = await read(served, f"&since={first - 1}")
    assert [(event["id"], event["event"]) for event in events] == [
        (f"{first}.0", "tenant.created"),
        (f"{second}.0", "tenant.created"),
    ]
    assert events[0]["data"]["name"] == "one"
    assert events[0]["data"]["actor"] not in ("", "nobody")
    assert events[0]["data"]["time_s"] > 0
    assert [event["id"] for event in await read(served, f"&since={first}")] == [f"{second}.0"]
    assert await read(served, f"&since={second}") == []


async def test_resumed_by_the_last_id(served: Served) -> None:
    first = (await served.ask("POST", "/v1/tenants", {"name": "one"})).revision
    second = (await served.ask("POST", "/v1/tenants", {"name": "two"})).revision
    assert [event["id"] for event in await read(served, f"&since={first}.0")] == [f"{second}.0"]
    # a browser repeats its address and adds the header, which therefore wins
    resumed = await read(served, "&since=0", last=f"{first}.0")
    assert [event["id"] for event in resumed] == [f"{second}.0"]


async def test_followed_from_now_on(served: Served) -> None:
    await served.ask("POST", "/v1/tenants", {"name": "before"})
    async with served.session.get(BASE + "/v1/events") as response:
        await served.ask("POST", "/v1/tenants", {"name": "after"})
        text = b""
        while b"event: tenant.created\n" not in text or not text.endswith(b"\n\n"):
            text += await response.content.readany()
    assert b"after" in text
    assert b"before" not in text


async def test_a_quiet_stream_says_that_it_lives(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.01)
    async with served.session.get(BASE + "/v1/events") as response:
        text = b""
        while text.count(b": keep-alive\n\n") < 3:
            text += await response.content.readany()


async def test_streams_are_bounded_and_given_back(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "STREAMS_MAX", 1)
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.01)
    async with served.session.get(BASE + "/v1/events") as response:
        assert response.status == 200
        refused = await served.ask("GET", "/v1/events")
        assert (refused.status, refused.body["facts"]) == (503, {"limit": 1})
        assert refused.headers["retry-after"] == "1"

    async def given_back() -> bool:  # the server notices at its next keep-alive
        return not served.edge.event_streams

    await until(given_back)
    assert await read(served, "&since=0")


async def test_changes_no_longer_kept_are_a_problem(served: Served) -> None:
    for name in ("one", "two", "three"):
        await served.ask("POST", "/v1/tenants", {"name": name})
    await served.store.compact(served.core.revision)
    answer = await served.ask("GET", "/v1/events?since=1")
    assert (answer.status, answer.body["kind"]) == (404, "not-found")


async def test_a_shutdown_ends_the_stream(tmp_path: Path) -> None:
    async with running(tmp_path) as served, served.session.get(BASE + "/v1/events") as response:
        await served.core.close()
        assert (await response.content.read()).startswith(b": hawse\n\n")


async def test_the_client_reads_and_resumes(served: Served) -> None:
    client = Client(f"unix:{served.path}")
    for name in ("one", "two"):
        await asyncio.to_thread(client.post, "/v1/tenants", {"name": name})

    def first_after(since: int | str) -> Any:
        events = client.events(since=since)
        try:
            return next(events)
        finally:
            events.close()  # type: ignore[attr-defined]  # a generator: closing it closes the connection

    before = served.core.revision - 2
    one = await asyncio.to_thread(first_after, before)
    two = await asyncio.to_thread(first_after, one["id"])
    assert [one["data"]["name"], two["data"]["name"]] == ["one", "two"]
    ended = await asyncio.to_thread(lambda: list(client.events("/v1/events?follow=0", since=before)))
    assert ended == [one, two]
    with pytest.raises(HawseError) as caught:
        await asyncio.to_thread(lambda: list(client.events(since="x")))
    assert caught.value.kind is Kind.INVALID
