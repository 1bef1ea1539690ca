"""The API, fuzzed from its own description: whatever is sent, the answer is one that the description has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdn.controller.openapi import describe
from sdn.controller.route import all_routes
from tests.unit.api_fuzzing import Api, Exchange, fuzz, operations, serving_api

EXAMPLES = 6
EXAMPLES_LONG = 1000
DOCUMENT: dict[str, Any] = describe(all_routes())


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    directory: Path = tmp_path_factory.mktemp("fuzz")
    with serving_api(directory) as served:
        yield served


def fuzz_all(api: Api, exchange: Exchange, examples: int) -> None:
    """Each operation; nothing of it may be a fault of ours."""
    for operation in operations(DOCUMENT):
        fuzz(operation, exchange, examples)
        assert api.served.log.named("internal error") == [], operation.label


def as_tenant(api: Api) -> Exchange:
    return Exchange(api.remote, DOCUMENT, {"Authorization": f"Bearer {api.token}"})


def test_as_a_tenants_user_over_tls(api: Api) -> None:
    exchange = as_tenant(api)
    fuzz_all(api, exchange, EXAMPLES)
    assert {200, 201, 204, 400, 403, 404, 409} <= exchange.statuses
    assert 401 not in exchange.statuses


def test_as_an_administrator_on_the_unix_socket(api: Api) -> None:
    exchange = Exchange(api.local, DOCUMENT, {})
    fuzz_all(api, exchange, EXAMPLES)
    assert {200, 201, 204, 400, 401, 404, 409} <= exchange.statuses  # 401: a host's own
    assert 403 not in exchange.statuses


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_for_long(tmp_path: Path) -> None:
    with serving_api(tmp_path) as api:
        fuzz_all(api, as_tenant(api), EXAMPLES_LONG)
        fuzz_all(api, Exchange(api.local, DOCUMENT, {}), EXAMPLES_LONG)
