"""The controller steers a real Open vSwitch that has no agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.steered import Steered, steered

pytestmark = pytest.mark.root


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Steered]:
    async with steered(tmp_path) as one:
        yield one


async def two_containers(site: Steered) -> tuple:
    one = await site.bind("p1", name="one")
    two = await site.bind("p2", name="two")
    insides = [await site.container(e["ifname"], e["addresses"], e["mac"]) for e in (one, two)]
    return one, two, *insides


async def test_what_is_bound_reaches_the_others_of_its_network(site: Steered) -> None:
    await site.add()
    await site.point()
    await site.connected()
    one, two, first, second = await two_containers(site)
    await site.until(lambda shown: not shown["failures"], "programmed")
    assert await site.settled()
    assert await site.ping(first, two["addresses"][0].partition("/")[0]) == 3
    assert await site.ping(second, one["addresses"][0].partition("/")[0]) == 3
