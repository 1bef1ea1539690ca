"""The client against the real server: what the controller raised arrives as it was raised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdn.client.client import Client, resource
from sdn.controller import call
from sdn.model.errors import HawseError, Kind
from tests.unit.rest_server import Served, running


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running(tmp_path) as running_controller:
        yield running_controller


async def test_verbs(served: Served) -> None:
    client = Client(f"unix:{served.path}")

    def work() -> None:
        status, headers, body = client.post("/v1/tenants", {"name": "acme"})
        assert (status, body["name"]) == (201, "acme")
        made = client.get(resource("tenants", "acme"))
        assert int(headers["hawse-revision"]) == made.body["revision"]
        changed = client.put(
            "/v1/tenants/acme", {"labels": {"a": "é"}}, headers={"If-Match": str(made.body["revision"])}
        )
        assert changed.body["labels"] == {"a": "é"}
        assert changed.revision == made.body["revision"] + 1
        removed = client.delete("/v1/tenants/acme")
        assert (removed.status, removed.body) == (204, None)
        assert removed.revision == changed.body["revision"] + 1

    await asyncio.to_thread(work)


async def test_a_problem_is_the_error_that_was_raised(served: Served) -> None:
    client = Client(f"unix:{served.path}")
    with pytest.raises(HawseError) as caught:
        await asyncio.to_thread(client.get, "/v1/tenants/defualt")
    shown = (await served.ask("GET", "/v1/tenants/defualt")).body
    error = caught.value
    assert (error.kind, error.message, error.hint, error.facts) == (
        Kind.NOT_FOUND,
        shown["detail"],
        shown["hint"],
        shown["facts"],
    )


async def test_a_body_too_large_is_a_sentence(served: Served) -> None:
    client = Client(f"unix:{served.path}")
    with pytest.raises(HawseError, match="are accepted") as caught:
        await asyncio.to_thread(client.post, "/v1/tenants", {"name": "x" * 4 * call.BODY_BYTES_MAX})
    assert caught.value.kind is Kind.INVALID


async def test_all_items_of_all_pages(served: Served) -> None:
    client = Client(f"unix:{served.path}")
    for number in range(5):
        await served.ask("POST", "/v1/tenants", {"name": f"t{number}", "labels": {"x": "1"}})
    names = await asyncio.to_thread(lambda: [item["name"] for item in client.items("/v1/tenants", limit=2)])
    assert sorted(names) == ["default", "t0", "t1", "t2", "t3", "t4"]
    labelled = await asyncio.to_thread(lambda: list(client.items("/v1/tenants", limit=2, label=["x=1"], tenant=None)))
    assert len(labelled) == 5
