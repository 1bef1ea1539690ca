"""Whatever other tenants have and do, a tenant's user gets the same answers: nothing can be seen, guessed, affected."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from sdn.model.ids import encode_id
from tests.unit.tenant_worlds import FIRST_REVISION, FOREIGN, HOSTS, OWN, World, as_tenant

NETWORKS = ("web", "db", "vault")
PREFIXES = ("", "10.1.0.0/29", "10.1.0.0/24", "10.2.0.0/24")
NAMES = ("", "one", "secret")
CONTAINERS = ("c1", "c2")
NEVER = ("nothing", encode_id(7 << 80), "nobody/web", "globex/", "/web", "a/b/c", "acme", "globe", "h9", "acme/web")


def operations(hosts: int) -> st.SearchStrategy[tuple[Any, ...]]:
    """What somebody does on the first so many hosts."""
    host, container, network = st.integers(0, hosts - 1), st.sampled_from(CONTAINERS), st.sampled_from(NETWORKS)
    return st.one_of(
        st.tuples(st.just("create"), network, st.sampled_from(PREFIXES)),
        st.tuples(st.just("attach"), host, container, network, st.sampled_from(NAMES)),
        st.tuples(st.just("detach"), host, container),
        st.tuples(st.just("subnet"), network, st.sampled_from(PREFIXES[1:])),
        st.tuples(st.just("remove"), network),
        st.tuples(st.sampled_from(("fail", "mute", "bounce")), host),
    )


foreign = st.lists(st.tuples(st.sampled_from(FOREIGN), operations(HOSTS + 1)), max_size=3)
story = st.lists(st.tuples(operations(HOSTS), foreign, foreign), max_size=10)

BUSY: Any = [
    (("create", "web", "10.1.0.0/24"), [], [("globex", ("create", "web", "10.1.0.0/24"))]),
    (("attach", 0, "c1", "web", "one"), [], [("globex", ("attach", 0, "c1", "web", "one"))]),
    (("mute", 1), [], [("globex", ("attach", 1, "c1", "web", "secret"))]),
    (("attach", 1, "c1", "web", ""), [], [("default", ("create", "vault", ""))]),
    (("attach", 0, "c2", "web", ""), [], [("globex", ("attach", HOSTS, "c2", "web", ""))]),
    (("bounce", 1), [], [("globex", ("fail", 0)), ("default", ("attach", 2, "c1", "vault", "secret"))]),
    (("fail", 1), [], [("globex", ("fail", 1)), ("globex", ("detach", 0, "c1"))]),
    (("detach", 1, "c1"), [], [("globex", ("detach", 1, "c1"))]),
]


UNSHRUNK = [Phase.explicit, Phase.generate]
"""A story is short; finding a shorter one would cost minutes."""


@settings(max_examples=4, phases=UNSHRUNK)
@given(story)
@example(BUSY)
def test_other_tenants_do_not_show(script: list[Any]) -> None:
    asyncio.run(compare(script))


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=200, phases=UNSHRUNK)
@given(story)
def test_other_tenants_do_not_show_for_long(script: list[Any]) -> None:
    asyncio.run(compare(script))


async def compare(script: list[Any]) -> None:
    worlds = [World(1), World(2)]
    for world in worlds:
        await world.begin()
    for own, *others in script:
        for world, foreign_steps in zip(worlds, others, strict=True):
            for tenant, step in foreign_steps:
                await world.step(tenant, step)
            await world.step(OWN, own)
    assert [len(world.own) for world in worlds] == [len(worlds[0].own)] * 2
    foreign_names = [reference for world in worlds for reference in world.foreign_references()]
    with as_tenant(worlds):
        for request in requests(worlds[0], dict.fromkeys(foreign_names)):
            answers = [await world.ask(*request) for world in worlds]
            assert answers[0] == answers[1], request
        for since in [f"{{r{place}}}" for place in range(len(worlds[0].own))]:
            told = [[text for _, text in await world.events(since)] for world in worlds]
            assert told[0] == told[1], since
        for world in worlds:
            await assert_foreign_revisions_concern_nobody(world)
            await assert_events_resume(world)
    for world in worlds:
        await world.core.close()


def requests(world: World, foreign_names: dict[str, None]) -> list[tuple[Any, ...]]:
    """Everything that a user can ask, of what is its own, another's, and nobody's; reads first."""
    own = ["{" + name[1:-1] + "}" for name in world.names.values() if not name.startswith("<mac")]
    own += [OWN, *NETWORKS, *NAMES[1:], *(f"{OWN}/{name}" for name in (*NETWORKS, *NAMES[1:]))]
    own += [f"h{number}" for number in range(HOSTS)]
    references = [reference.replace("/", "%2F") for reference in dict.fromkeys([*own, *foreign_names, *NEVER])]
    reads = [f"/v1/{kind}" for kind in ("tenants", "networks", "endpoints", "allocations", "status", "hosts", "tokens")]
    reads += [f"/v1/{kind}?limit=1" for kind in ("tenants", "networks", "endpoints", "allocations")]
    reads += [f"/v1/status?revision={{r{place}}}" for place in range(len(world.own))]
    reads += ["/v1/status?revision=99999999", "/v1/events?since=99999999", "/v1/drops?host=h9", "/metrics"]
    for reference in references:
        reads += [f"/v1/{kind}/{reference}" for kind in ("tenants", "networks", "endpoints", "hosts") if reference]
        reads += [f"/v1/networks?tenant={reference}"]
        if reference in foreign_names or reference in NEVER:  # of an own host the answer would be waited for
            reads += [f"/v1/drops?host={reference}"]
            reads += [f"/v1/why?source={reference}&destination=10.1.0.2"]
            reads += [f"/v1/why?source={OWN}-c1&destination={reference}"]
        reads += [f"/v1/endpoints?{by}={reference}" for by in ("tenant", "network", "host")]
        reads += [f"/v1/allocations?{by}={reference}" for by in ("tenant", "network")]
        if reference not in foreign_names:  # a cursor is compared as text: where another's id sorts is chance
            reads += [f"/v1/{kind}?after={reference}" for kind in ("networks", "endpoints", "allocations")]
    asked: list[tuple[Any, ...]] = [("GET", path) for path in reads]
    revision = {"If-Match": "7"}
    for reference in references:
        one = f"/v1/networks/{reference}"
        asked += [
            ("POST", f"{one}/subnets", {"prefix": "10.9.0.0/29"}),
            ("PUT", one, {"labels": {"a": reference}}),
            ("PUT", one, {"labels": {"a": "b"}}, revision),
            ("PUT", "/v1/networks/web", {"tenant": reference}),
            ("POST", "/v1/networks", {"name": "x", "tenant": reference}),
            ("POST", "/v1/networks", {"name": reference, "mtu_bytes": 9000}),
            ("POST", "/v1/networks", {"name": reference, "subnets": [{"prefix": "10.1.0.0/29"}]}),
            ("POST", "/v1/tenants", {"name": reference}),
            ("PUT", f"/v1/tenants/{reference}", {"labels": {}}),
            ("DELETE", f"/v1/endpoints/{reference}"),
            ("DELETE", one),
            ("DELETE", f"/v1/tenants/{reference}"),
        ]
    return [*asked, ("GET", "/v1/networks"), ("GET", "/v1/endpoints"), ("GET", "/v1/allocations")]


async def assert_events_resume(world: World) -> None:
    events = await world.events(str(FIRST_REVISION))
    for place, (id_, _) in enumerate(events):
        assert await world.events(id_) == events[place + 1 :]


async def assert_foreign_revisions_concern_nobody(world: World) -> None:
    for revision in world.foreign:
        answer = await world.ask("GET", f"/v1/status?revision={revision}&wait=60")
        assert re.search(r'"hosts":\[\].*"settled":true', answer), answer
