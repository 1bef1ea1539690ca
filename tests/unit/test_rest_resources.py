"""REST: what each resource answers, with the status that HTTP has for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sdn.controller.rest import status as status_module
from sdn.model.stream import Answer, Query, Report
from tests.unit.rest_server import Agent, Served, running


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running(tmp_path) as running_controller:
        yield running_controller


async def make_host(served: Served, name: str) -> str:
    made = await served.ask("POST", "/v1/hosts", {"name": name})
    assert made.status == 201
    return str(made.body["id"])


async def test_a_tenants_life(served: Served) -> None:
    made = await served.ask("POST", "/v1/tenants", {"name": "acme", "labels": {"team": "a"}})
    assert made.status == 201
    assert made.revision == made.body["revision"] == served.core.revision
    got = await served.ask("GET", "/v1/tenants/acme")
    assert (got.status, got.body) == (200, made.body)
    assert got.headers["etag"] == f'"{made.revision}"'
    assert (await served.ask("GET", f"/v1/tenants/{made.body['id']}")).body == made.body

    again = await served.ask("POST", "/v1/tenants", {"name": "acme"})
    assert (again.status, again.body["kind"]) == (409, "conflict")
    equal = await served.ask("PUT", "/v1/tenants/acme", {"labels": {"team": "a"}})
    assert (equal.status, equal.body) == (200, made.body)
    other = await served.ask("PUT", "/v1/tenants/acme", {"labels": {"team": "b"}})
    assert other.status == 409
    assert "difference" in other.body["facts"]
    stale = await served.ask("PUT", "/v1/tenants/acme", {"labels": {"team": "b"}}, If_Match=f'"{made.revision + 7}"')
    assert (stale.status, stale.body["kind"]) == (412, "conflict")
    changed = await served.ask("PUT", "/v1/tenants/acme", {"labels": {"team": "b"}}, If_Match=f'"{made.revision}"')
    assert (changed.status, changed.body["labels"]) == (200, {"team": "b"})
    assert changed.revision == made.revision + 1
    created = await served.ask("PUT", "/v1/tenants/umbrella", {})
    assert (created.status, created.body["name"]) == (201, "umbrella")

    assert (await served.ask("DELETE", "/v1/tenants/acme")).status == 204
    gone = await served.ask("DELETE", "/v1/tenants/acme")
    assert (gone.status, gone.body) == (204, b"")
    assert (await served.ask("GET", "/v1/tenants/acme")).status == 404
    assert (await served.ask("DELETE", "/v1/tenants/default")).status == 409


async def test_a_networks_life(served: Served) -> None:
    await served.ask("POST", "/v1/tenants", {"name": "blue"})
    body = {"name": "web", "tenant": "blue", "subnets": [{"prefix": "10.1.0.0/24", "reserved": ["10.1.0.9"]}]}
    made = await served.ask("POST", "/v1/networks", body)
    assert made.status == 201
    assert made.body["tenant_name"] == "blue"
    assert made.body["subnets"][0]["gateway"] == "10.1.0.1"
    assert "usage" not in made.body
    got = await served.ask("GET", "/v1/networks/blue%2Fweb")
    assert got.status == 200
    (usage,) = got.body["usage"]
    assert usage["prefix"] == "10.1.0.0/24"
    assert usage["free"] + usage["used"] + usage["reserved"] == usage["size"]

    assert (await served.ask("PUT", "/v1/networks/blue%2Fweb", body)).status == 200
    different = {**body, "mtu_bytes": 1400}
    refused = await served.ask("PUT", "/v1/networks/blue%2Fweb", different)
    assert (refused.status, "difference" in refused.body["facts"]) == (409, True)
    labels = await served.ask(
        "PUT", "/v1/networks/blue%2Fweb", {**body, "labels": {"a": "b"}}, If_Match=str(made.revision)
    )
    assert (labels.status, labels.body["labels"]) == (200, {"a": "b"})
    more = await served.ask("POST", "/v1/networks/blue%2Fweb/subnets", {"prefix": "fd00:1::/64"})
    assert (more.status, len(more.body["subnets"])) == (200, 2)
    assert (await served.ask("GET", "/v1/networks/web")).status == 404  # of tenant default

    assert (await served.ask("DELETE", "/v1/tenants/blue")).status == 409
    assert (await served.ask("DELETE", "/v1/networks/blue%2Fweb")).status == 204
    assert (await served.ask("DELETE", "/v1/networks/blue%2Fweb")).status == 204


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "x", "subnets": [{"prefix": "10.1.0.0/24"}]}, 409),  # overlaps
        ({"name": "web"}, 409),  # the name is taken
        ({"name": "x", "tenant": "nobody"}, 404),
        ({"name": "x", "subnets": [{"prefix": "10.2.0.1/24"}]}, 400),
        ({"name": "x", "subnets": [{"prefix": "ten"}]}, 400),
        ({"name": "x", "mtu_bytes": 100}, 400),
        ({"name": "x/y/z"}, 400),
        ({"name": ""}, 400),
        ({"name": "x", "ipv4": False}, 400),
        ({"name": "x", "subnets": [{"prefix": "10.2.0.0/24", "gateway": "10.3.0.1"}]}, 400),
    ],
)
async def test_bad_networks_are_refused_and_nothing_is_made(served: Served, body: dict[str, Any], status: int) -> None:
    await served.ask("POST", "/v1/networks", {"name": "web", "subnets": [{"prefix": "10.1.0.0/24"}]})
    before = served.core.revision
    refused = await served.ask("POST", "/v1/networks", body)
    assert (refused.status, refused.headers["content-type"]) == (status, "application/problem+json")
    assert refused.body["status"] == status
    assert refused.body["detail"]
    assert served.core.revision == before


async def test_pages_cover_everything_once(served: Served) -> None:
    for number in range(7):
        await served.ask("POST", "/v1/tenants", {"name": f"t{number}", "labels": {"odd": str(number % 2), "x": ""}})
    seen, after = [], ""
    while True:
        page = await served.ask("GET", f"/v1/tenants?limit=3{after}")
        assert len(page.body["items"]) <= 3
        assert page.body["revision"] == served.core.revision
        seen += [item["name"] for item in page.body["items"]]
        if "next" not in page.body:
            break
        after = f"&after={page.body['next']}"
    assert sorted(seen) == ["default", *(f"t{number}" for number in range(7))]
    odd = await served.ask("GET", "/v1/tenants?label=odd%3D1&label=x%3D")
    assert [item["name"] for item in odd.body["items"]] == ["t1", "t3", "t5"]


async def test_a_hosts_life(served: Served) -> None:
    host = await make_host(served, "h1")
    credential = await served.ask("POST", "/v1/hosts/h1/credential", {})
    assert credential.status == 201
    assert credential.body["host"] == host
    assert credential.body["fingerprint"] == served.identity.fingerprint
    assert credential.body["authority"] == served.identity.bundle
    assert credential.body["controllers"] == [f"https://{served.address}"]
    assert served.core.custody.authenticate(credential.body["host"], credential.body["secret"]).name == "h1"
    got = await served.ask("GET", "/v1/hosts/h1")
    assert (got.body["connected"], got.body["applied_revision"], got.body["failures"]) == (False, 0, {})
    assert credential.body["secret"] not in str(served.log.lines)

    agent = await Agent.connect(served.core, host)
    assert (await served.ask("GET", "/v1/hosts/h1")).body["connected"] is True
    assert [h["name"] for h in (await served.ask("GET", "/v1/hosts")).body["items"]] == ["h1"]
    assert (await served.ask("DELETE", "/v1/hosts/h1")).status == 409
    assert (await served.ask("DELETE", "/v1/hosts/h1?force=1")).status == 204
    assert (await served.ask("GET", "/v1/hosts/h1")).status == 404
    agent.close()


async def test_endpoints_and_allocations(served: Served) -> None:
    host = await make_host(served, "h1")
    await served.ask("POST", "/v1/networks", {"name": "web", "subnets": [{"prefix": "10.1.0.0/24"}]})
    agent = await Agent.connect(served.core, host)
    first = (await agent.attach("web", "c1", name="one", labels={"role": "a"})).endpoint
    second = (await agent.attach("web", "c2")).endpoint

    listed = await served.ask("GET", "/v1/endpoints?network=web&host=h1&tenant=default")
    assert [item["id"] for item in listed.body["items"]] == [first.id, second.id]
    assert (await served.ask("GET", "/v1/endpoints?label=role%3Da")).body["items"][0]["name"] == "one"
    got = await served.ask("GET", "/v1/endpoints/one")
    names = {name: got.body[name] for name in ("tenant_name", "network_name", "host_name", "mac")}
    assert names == {"tenant_name": "default", "network_name": "web", "host_name": "h1", "mac": first.mac}

    held = await served.ask("GET", "/v1/allocations?network=web")
    by_holder = [(item["address"], item["holder"], item["holder_name"]) for item in held.body["items"]]
    assert ("10.1.0.1", "gateway", "web") in by_holder
    assert (first.addresses[0].partition("/")[0], "endpoint", "one") in by_holder
    paged, after = [], ""
    while True:
        page = (await served.ask("GET", f"/v1/allocations?limit=1{after}")).body
        paged += page["items"]
        if "next" not in page:
            break
        after = f"&after={page['next']}"
    assert paged == held.body["items"]

    used = await served.ask("DELETE", "/v1/networks/web")
    assert used.status == 409
    assert "one" in str(used.body)
    assert (await served.ask("DELETE", f"/v1/endpoints/{second.id}")).status == 204
    assert (await served.ask("DELETE", f"/v1/endpoints/{second.id}")).status == 204
    assert len((await served.ask("GET", "/v1/endpoints")).body["items"]) == 1
    agent.close()


async def test_a_full_subnet_says_how_full(served: Served) -> None:
    host = await make_host(served, "h1")
    await served.ask("POST", "/v1/networks", {"name": "tiny", "subnets": [{"prefix": "10.1.0.0/30"}]})
    agent = await Agent.connect(served.core, host)
    await agent.attach("tiny", "c1")
    failed = await agent.attach("tiny", "c2")
    assert failed.problem.kind == "exhausted"
    agent.close()


async def test_status_and_waiting(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    host = await make_host(served, "h1")
    await served.ask("POST", "/v1/networks", {"name": "web"})
    agent = await Agent.connect(served.core, host)
    attached = await agent.attach("web")
    status = (await served.ask("GET", "/v1/status")).body
    assert status["revision"] == served.core.revision
    assert [(h["name"], h["connected"]) for h in status["hosts"]] == [("h1", True)]
    assert "settled" not in status

    late = (await served.ask("GET", f"/v1/status?revision={attached.revision}&wait=0")).body
    assert (late["settled"], [h["state"] for h in late["hosts"]]) == (False, ["late"])
    monkeypatch.setattr(status_module, "SLICE_S", 0.01)  # several slices pass before the report
    waiting = asyncio.create_task(served.ask("GET", f"/v1/status?revision={attached.revision}&wait=30"))
    await asyncio.sleep(0.05)
    await agent.say(Report(session=agent.session, revision=attached.revision, failures={}))
    done = (await waiting).body
    assert (done["settled"], [h["state"] for h in done["hosts"]]) == (True, ["applied"])
    agent.close()


async def test_drops_are_named(served: Served) -> None:
    host = await make_host(served, "h1")
    await make_host(served, "h2")
    network = (await served.ask("POST", "/v1/networks", {"name": "web"})).body
    agent = await Agent.connect(served.core, host)
    asking = asyncio.create_task(served.ask("GET", "/v1/drops"))
    query = await agent.hear(Query)
    assert query.what == "drops"
    count = {"tenant": network["tenant"], "network": network["id"], "cause": "spoofed-mac", "packets": 3, "bytes": 180}
    await agent.say(Answer(request=query.request, value=[count]))
    answer = await asking
    assert answer.body["away"] == ["h2"]
    assert answer.body["items"] == [{**count, "host": "h1", "tenant": "default", "network": "web"}]
    away = await served.ask("GET", "/v1/drops?host=h2")
    assert (away.status, away.headers["retry-after"]) == (503, "1")
    assert (await served.ask("GET", "/v1/drops?host=h3")).status == 404
    agent.close()
