"""The description is true: what is served fits it, and what it refuses is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sdn.controller.route import all_routes
from tests.unit.rest_server import Agent, Served, running


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running(tmp_path) as running_controller:
        yield running_controller


def check(document: dict[str, Any], method: str, path: str, status: int, body: Any) -> None:
    """The body against the schema of that response; unknown fields count as wrong."""
    responses = document["paths"][path][method]["responses"]
    response = responses.get(str(status), responses["default"])
    (content,) = response["content"].values()
    jsonschema.validate(body, {**content["schema"], "components": document["components"]})


async def test_responses_fit(served: Served) -> None:
    document = (await served.ask("GET", "/openapi.json")).body
    host = (await served.ask("POST", "/v1/hosts", {"name": "h1"})).body
    check(document, "post", "/v1/hosts", 201, host)
    made = await served.ask("POST", "/v1/networks", {"name": "web", "ipv6": True, "labels": {"a": "b"}})
    check(document, "post", "/v1/networks", made.status, made.body)
    agent = await Agent.connect(served.core, host["id"])
    attached = await agent.attach("web")
    spec = {"name": "s1", "datapath_id": "00000000000000a1", "vtep4": "192.0.2.7"}
    added = await served.ask("POST", "/v1/switches", spec)
    check(document, "post", "/v1/switches", added.status, added.body)
    bound = await served.ask("POST", "/v1/switches/s1/ports", {"port": "eth1", "network": "web"})
    check(document, "post", "/v1/switches/{reference}/ports", bound.status, bound.body)
    for path, pattern in (
        ("/v1/tenants", "/v1/tenants"),
        ("/v1/networks", "/v1/networks"),
        ("/v1/networks/web", "/v1/networks/{reference}"),
        ("/v1/hosts", "/v1/hosts"),
        ("/v1/hosts/h1", "/v1/hosts/{reference}"),
        ("/v1/hosts/s1", "/v1/hosts/{reference}"),
        ("/v1/switches", "/v1/switches"),
        ("/v1/switches/s1", "/v1/switches/{reference}"),
        ("/v1/switches/h1", "/v1/switches/{reference}"),
        ("/v1/endpoints", "/v1/endpoints"),
        (f"/v1/endpoints/{attached.endpoint.id}", "/v1/endpoints/{reference}"),
        ("/v1/allocations", "/v1/allocations"),
        ("/v1/status", "/v1/status"),
        (f"/v1/status?revision={attached.revision}&wait=0", "/v1/status"),
        ("/v1/networks/nothing", "/v1/networks/{reference}"),
        ("/v1/tenants?limit=0", "/v1/tenants"),
    ):
        answer = await served.ask("GET", path)
        check(document, "get", pattern, answer.status, answer.body)
    credential = await served.ask("POST", "/v1/hosts/h1/credential")
    check(document, "post", "/v1/hosts/{reference}/credential", credential.status, credential.body)
    certified = await served.ask("POST", "/v1/switches/s1/certificate")
    check(document, "post", "/v1/switches/{reference}/certificate", certified.status, certified.body)
    agent.close()


async def test_a_wrong_response_would_not_fit(served: Served) -> None:
    document = (await served.ask("GET", "/openapi.json")).body
    with pytest.raises(jsonschema.ValidationError):
        check(document, "get", "/v1/tenants/{reference}", 200, {"id": "x", "name": 3, "revision": 1})


async def test_bodies_are_described_as_they_are_checked(served: Served) -> None:
    document = (await served.ask("GET", "/openapi.json")).body
    schema = document["paths"]["/v1/networks"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = {**schema, "components": document["components"]}
    for body in ({"name": "x", "subnets": [{"prefix": "10.9.0.0/24"}]}, {"name": "y", "labels": {"a": "b"}}):
        jsonschema.validate(body, schema)
        assert (await served.ask("POST", "/v1/networks", body)).status == 201
    wrongs: list[Any] = [{"name": 3}, {"name": "x", "colour": 1}, {"name": "x", "subnets": [{}]}, []]
    for wrong in wrongs:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
        assert (await served.ask("POST", "/v1/networks", wrong)).status == 400


async def test_every_route_is_described(served: Served) -> None:
    document = (await served.ask("GET", "/openapi.json")).body
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in all_routes()}
    identifiers = [methods[method]["operationId"] for methods in document["paths"].values() for method in methods]
    assert len(set(identifiers)) == len(identifiers)


async def test_metrics(served: Served) -> None:
    await served.ask("POST", "/v1/tenants", {"name": "acme"})
    await served.ask("GET", "/v1/tenants/acme")
    await served.ask("GET", "/v1/tenants/umbrella")
    await served.ask("GET", "/who/ever/scans")
    answer = await served.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.body.decode().splitlines()
    assert 'hawse_requests_total{method="POST",route="/v1/tenants",status="201"} 1.0' in lines
    assert 'hawse_requests_total{method="GET",route="/v1/tenants/{reference}",status="200"} 1.0' in lines
    assert 'hawse_requests_total{method="GET",route="/v1/tenants/{reference}",status="404"} 1.0' in lines
    assert 'hawse_requests_total{method="any",route="none",status="404"} 1.0' in lines
    assert f"hawse_revision {float(served.core.revision)}" in lines
    assert "hawse_tenants 2.0" in lines
    assert "hawse_hosts_connected 0.0" in lines
    commits = next(line for line in lines if line.startswith("hawse_commit_seconds_count"))
    assert float(commits.split()[1]) >= 2  # tenant default, and this one
