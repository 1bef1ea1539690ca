"""What a tenant's user sees of what is shared, and that handlers have no other way to the state."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from typing import Any

import pytest

from sdn.controller import scope as scope_module
from sdn.controller.events import EventLog
from sdn.controller.inside import InsideError
from sdn.controller.options import Options, Pool
from sdn.controller.principal import Access, Principal, Role
from sdn.controller.route import ScopedCall, all_routes
from sdn.controller.scope import NOT_SET_UP, Scope
from sdn.controller.specs import NetworkSpec, SubnetSpec, TenantSpec
from sdn.controller.status import Step
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import Revision, TenantId
from sdn.store.interface import Transaction
from sdn.store.memory import MemoryStore
from tests.unit.controller_harness import Site, refused

ADMINISTRATOR = Principal("root", Role.ADMIN)


class House:
    """A site with two tenants, and the scopes of their users."""

    def __init__(self, options: Options | None = None) -> None:
        self.site = Site(options)
        self.edge: Any
        self.tenants: dict[str, TenantId] = {}

    async def begin(self) -> House:
        await self.site.start()
        self.edge = _Edge(self.site.core)
        for name in ("acme", "globex"):
            self.tenants[name] = (await self.site.core.create_tenant(TenantSpec(name=name), "test"))[0].id
        return self

    def scope(self, tenant: str = "") -> Scope:
        """Of a user of the tenant, or of an administrator."""
        user = Principal(f"user of {tenant}", Role.TENANT, self.tenants[tenant]) if tenant else ADMINISTRATOR
        return Scope(self.edge, user)


class _Edge:
    def __init__(self, core: Any) -> None:
        self.core = core
        self.event_streams: collections.Counter[Any] = collections.Counter()


def test_a_tenants_user_may_call_these_and_nothing_else() -> None:
    open_to_tenants = {(route.method, route.path) for route in all_routes() if route.access is Access.TENANT}
    network, endpoint = "/v1/networks/{reference}", "/v1/endpoints/{reference}"
    assert open_to_tenants == {
        *(("GET", f"/v1/{name}") for name in ("tenants", "networks", "endpoints", "allocations", "status", "events")),
        *(("GET", path) for path in ("/v1/tenants/{reference}", network, endpoint, "/v1/drops", "/v1/why")),
        *(("POST", path) for path in ("/v1/networks", f"{network}/subnets")),
        ("PUT", network),
        ("DELETE", network),
        ("DELETE", endpoint),
    }


def test_handlers_of_tenants_have_the_scope_alone() -> None:
    for route in all_routes():
        call = route.handler.__annotations__["call"]
        assert call == ("ScopedCall" if route.access is Access.TENANT else "Call"), route.path
    assert not {"core", "edge"} & set(dir(ScopedCall))
    assert all(name.startswith("_") for name in Scope.__slots__)


def test_a_user_without_a_tenant_has_no_scope() -> None:
    with pytest.raises(AssertionError):
        Scope(_Edge(None), Principal("nobody", Role.TENANT))  # type: ignore[arg-type]  # enough of an edge
    with pytest.raises(AssertionError):
        Scope(_Edge(None), Principal("nobody"))  # type: ignore[arg-type]


async def test_what_is_shared_is_said_without_what_is_behind_it() -> None:
    house = await House(Options(vni_first=1, vni_last=2, pools=(Pool("10.64.0.0/23", 24),))).begin()
    own, everything = house.scope("acme"), house.scope()
    host = await house.site.agent("secret-host", mtu_bytes=1500, routes=("10.64.0.0/24",))
    with pytest.raises(InsideError) as seen:
        await everything.create_network(NetworkSpec(name="x", tenant="acme", mtu_bytes=1480))
    assert "secret-host" in seen.value.message
    error = await refused(Kind.INVALID, own.create_network(NetworkSpec(name="x", mtu_bytes=1480)))
    assert (error.facts, "secret-host" in str(error)) == ({"mtu_bytes": 1480, "limit_bytes": 1450}, False)

    await own.create_network(NetworkSpec(name="one"))
    error = await refused(Kind.EXHAUSTED, own.create_network(NetworkSpec(name="two")))
    assert "10.64" not in str(error)
    with pytest.raises(InsideError, match=r"10\.64\.0\.0/24"):
        await everything.create_network(NetworkSpec(name="two", tenant="acme"))

    await house.site.network("vault", "10.2.0.0/24", tenant="globex")
    error = await refused(
        Kind.EXHAUSTED, own.create_network(NetworkSpec(name="two", subnets=(SubnetSpec(prefix="10.3.0.0/24"),)))
    )
    assert (error.facts, "VNI" in str(error)) == ({}, False)
    host.stream.closed()


async def test_numbers_of_the_underlay_and_of_the_hosts_are_not_shown() -> None:
    house = await House().begin()
    own, everything = house.scope("acme"), house.scope()
    await house.site.network(tenant="acme")
    agent = await house.site.agent("h1")
    endpoint = await agent.attach("c1", "acme/web", sandbox=99)
    assert (own.network_view(own.network("web")).vni, everything.network_view(own.network("web")).vni) == (0, 1)
    shown, all_of_it = own.endpoint_view(endpoint), everything.endpoint_view(endpoint)
    assert (shown.sandbox, shown.incarnation, shown.host_name) == (0, "", "h1")
    assert (all_of_it.sandbox, all_of_it.incarnation) == (99, "boot:1")
    events = [event async for event in own.events(Revision(0), -1, follow=False)]
    assert [event.kind for event in events] == ["tenant.created", "network.created", "endpoint.attached"]
    assert not any("vni" in event.data for event in events)


async def test_hosts_are_those_with_own_endpoints_and_failures_own_units() -> None:
    house = await House().begin()
    own, core = house.scope("acme"), house.site.core
    networks = {tenant: await house.site.network(tenant=tenant) for tenant in house.tenants}
    agents = [await house.site.agent(name, number) for number, name in enumerate(("h1", "h2"), 1)]
    mine = await agents[0].attach("c1", "acme/web")
    theirs = await agents[0].attach("c2", "globex/web")
    await agents[1].attach("c1", "globex/web")
    foreign = {f"endpoint/{theirs.id}": "theirs", f"network/{networks['globex']}": "x", "tenant/unknown": "x"}
    await agents[0].report(failures=foreign)
    assert [(host.name, host.failures) for host in own.status()] == [("h1", {})]
    attached = core.state.revision_of("endpoint", mine.id)
    (state,) = await own.wait_settled(attached, 0)
    assert (state.state, state.failures) == (Step.APPLIED, {})
    assert (await house.scope().wait_settled(attached, 0))[0].state is Step.FAILED

    await agents[0].report(failures=foreign | {f"endpoint/{mine.id}": "VNI 1 is taken on h1"})
    (state,) = await own.wait_settled(attached, 0)
    assert (state.state, state.failures) == (Step.FAILED, {f"endpoint/{mine.id}": NOT_SET_UP})
    assert [host.name for host in own.hosts()] == ["h1"]
    error = await refused(Kind.NOT_FOUND, _value(own.host, "h2"))
    assert "h2" not in error.hint
    assert str(error).replace("h2", "h9") == str(await refused(Kind.NOT_FOUND, _value(own.host, "h9")))

    # who removed its last endpoint may wait for the host that had it, once more
    _, gone = await core.delete_endpoint(mine.id, "test")
    assert [host.name for host in await own.wait_settled(gone, 0)] == ["h1"]
    assert own.status() == ()
    assert await house.scope("globex").wait_settled(gone, 60) == []


async def _value(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


async def test_a_bare_name_is_the_tenants_own() -> None:
    house = await House().begin()
    ids = {tenant: await house.site.network(tenant=tenant) for tenant in ("acme", "globex", "default")}
    assert [house.scope(tenant).network("web").id for tenant in ("acme", "globex", "")] == list(ids.values())
    made, _ = await house.scope("acme").create_network(NetworkSpec(name="db"))
    put, _, created = await house.scope("globex").put_network("db", NetworkSpec(), None)
    assert (made.tenant, put.tenant, created) == (house.tenants["acme"], house.tenants["globex"], True)


async def test_events_of_one_transaction_are_numbered_within_the_tenant() -> None:
    house = await House().begin()
    for tenant in house.tenants:
        await house.site.network(tenant=tenant)
    agent = await house.site.agent("h1")
    for number in range(3):
        for tenant in ("globex", "acme"):
            await agent.attach(f"{tenant}{number}", f"{tenant}/web")
    agent.stream.closed()
    before = house.site.core.revision
    await house.site.core.forget_host("h1", True, "test")
    own = house.scope("acme")
    events = [event async for event in own.events(before, -1, follow=False)]
    assert [event.number for event in events] == [0, 1, 2]
    assert {event.data["reason"] for event in events} == {"host forgotten"}
    for place, event in enumerate(events):
        rest = [later async for later in own.events(Revision(event.revision), event.number, follow=False)]
        assert rest == events[place + 1 :]


async def test_soft_events_are_numbered_within_the_tenant() -> None:
    store = MemoryStore()
    log = EventLog(store, lambda: 0.0)
    for tenant in ("a", "b", "b", "a", ""):
        log.soft("endpoint.late", tenant=tenant)
    log.soft("host.disconnected", id="h", tenant="a")
    found = [event async for event in log.follow(Revision(0), -1, follow=False)]
    assert [(event.number, event.tenant, event.number_within) for event in found] == [
        (100, "a", 100),
        (101, "b", 100),
        (102, "b", 101),
        (103, "a", 101),
        (104, "", 100),
        (105, "", 101),
    ]
    log.committed(await store.commit(Transaction((), ())))
    log.soft("endpoint.late", tenant="b")
    (last,) = [event async for event in log.follow(Revision(0), 105, follow=False)]
    assert last.id == "1.100"


async def test_each_tenant_has_its_own_streams_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope_module, "TENANT_STREAMS_MAX", 2)
    house = await House().begin()
    with contextlib.ExitStack() as open_streams:
        for _ in range(2):
            open_streams.enter_context(house.scope("acme").event_stream())
        with pytest.raises(HawseError, match="2 streams of events are open"), house.scope("acme").event_stream():
            pass
        with house.scope("globex").event_stream(), house.scope().event_stream():
            assert len(house.edge.event_streams) == 3
    assert not house.edge.event_streams


async def test_drops_are_the_tenants_own() -> None:
    house = await House().begin()
    ids = {tenant: await house.site.network(tenant=tenant) for tenant in house.tenants}
    agent = await house.site.agent("h1")
    await agent.attach("c1", "acme/web")
    own = house.scope("acme")
    counts = [
        {"tenant": tenant, "network": network, "cause": "spoofed-mac", "packets": 1, "bytes": 60}
        for tenant, network in (
            (house.tenants["acme"], ids["acme"]),
            (house.tenants["globex"], ids["globex"]),
            ("", ""),
        )
    ]
    asking = asyncio.create_task(own.drops(own.host("h1")))
    await asyncio.sleep(0)
    await agent.answer(counts)
    assert [(drop.tenant, drop.network) for drop in await asking] == [("acme", "web")]
    agent.stream.closed()
    error = await refused(Kind.UNAVAILABLE, own.drops(own.host("h1")))
    assert error.facts == {"host": "h1"}


async def test_what_a_user_waits_for_ends_with_its_own_hosts() -> None:
    """A host that is late with another tenant's change keeps nobody waiting."""
    house = await House().begin()
    for tenant in house.tenants:
        await house.site.network(tenant=tenant)
    here, there = [await house.site.agent(name, number) for number, name in enumerate(("h1", "h2"), 1)]
    mine = await here.attach("c1", "acme/web")
    await here.report()
    await there.attach("c1", "globex/web")
    revision = house.site.core.state.revision_of("endpoint", mine.id)
    async with asyncio.timeout(30):
        assert [state.state for state in await house.scope("acme").wait_settled(revision, 60)] == [Step.APPLIED]
        assert await house.scope("acme").wait_settled(house.site.core.revision, 60) == []
