"""Tenants and networks: what is made, what is refused, what stays when it is asked for again."""

from __future__ import annotations

import pytest

from sdn.controller.options import Options, Pool
from sdn.controller.specs import NetworkSpec, SubnetSpec, TenantSpec
from sdn.model.address import parse_prefix
from sdn.model.errors import Kind
from sdn.model.ids import Revision
from sdn.reconcile.failures import LEFTOVER
from sdn.reconcile.unit import key_text
from tests.unit.controller_harness import Site, refused


@pytest.fixture
async def site() -> Site:
    return await Site().start()


async def test_tenant_default_is_there_and_stays(site: Site) -> None:
    assert site.core.state.resolve_tenant("default").name == "default"
    error = await refused(Kind.CONFLICT, site.core.delete_tenant("default", "test"))
    assert "cannot be removed" in str(error)
    await site.start()
    assert len(site.core.state.tenants) == 1


async def test_tenant_comes_and_goes(site: Site) -> None:
    tenant, revision = await site.core.create_tenant(TenantSpec(name="blue", labels={"a": "b"}), "test")
    assert site.core.state.revision_of("tenant", tenant.id) == revision == site.core.revision
    assert "already" in str(await refused(Kind.CONFLICT, site.core.create_tenant(TenantSpec(name="blue"), "test")))
    await site.network("web", tenant="blue")
    error = await refused(Kind.CONFLICT, site.core.delete_tenant("blue", "test"))
    assert error.facts["networks"] == ["web"]
    await site.core.delete_network("blue/web", "test")
    assert (await site.core.delete_tenant("blue", "test"))[0] == tenant
    assert (await site.core.delete_tenant("blue", "test"))[0] is None


async def test_put_tenant(site: Site) -> None:
    first, revision, created = await site.core.put_tenant("blue", TenantSpec(labels={"a": "1"}), None, "test")
    assert created
    assert await site.core.put_tenant("blue", TenantSpec(labels={"a": "1"}), None, "test") == (first, revision, False)
    error = await refused(Kind.CONFLICT, site.core.put_tenant("blue", TenantSpec(), None, "test"))
    assert error.facts["difference"] == {"labels": {"have": {"a": "1"}, "want": {}}}
    changed, later, _ = await site.core.put_tenant(first.id, TenantSpec(name="blue"), revision, "test")
    assert (changed.id, changed.labels) == (first.id, {})
    assert later > revision
    stale = await refused(Kind.CONFLICT, site.core.put_tenant("blue", TenantSpec(labels={"x": ""}), revision, "test"))
    assert "stale revision" in str(stale)
    assert stale.facts == {"expected": revision, "found": later}
    await refused(Kind.INVALID, site.core.put_tenant("blue", TenantSpec(name="red"), None, "test"))
    await refused(Kind.CONFLICT, site.core.put_tenant("red", TenantSpec(), Revision(3), "test"))


async def test_networks_of_one_tenant_never_overlap_of_two_may(site: Site) -> None:
    await site.network("web", "10.1.0.0/16", "fd00:1::/64")
    error = await refused(Kind.CONFLICT, site.network("db", "10.1.7.0/24"))
    assert "overlaps 10.1.0.0/16 of network web" in str(error)
    assert error.facts["network"] == "web"
    await refused(Kind.CONFLICT, site.network("db", "fd00:1::/80"))
    await refused(Kind.CONFLICT, site.network("db", "10.2.0.0/24", "10.2.0.0/25"))
    await site.core.create_tenant(TenantSpec(name="blue"), "test")
    await site.network("web", "10.1.0.0/16", tenant="blue")
    assert "already" in str(await refused(Kind.CONFLICT, site.network("web", "10.9.0.0/24")))
    assert len(site.core.state.networks) == 2


async def test_automatic_subnets_avoid_routes_and_networks() -> None:
    options = Options(pools=(Pool("10.64.0.0/22", 24), Pool("fd00::/62", 64)))
    site = await Site(options).start()
    await site.agent("h1", routes=("10.64.0.0/23", "0.0.0.0/0", "fd00::/64"))
    network = site.core.state.networks[await site.network_auto("a", ipv6=True)]
    assert [subnet.prefix for subnet in network.subnets] == ["10.64.2.0/24", "fd00:0:0:1::/64"]
    assert network.subnets[0].gateway == "10.64.2.1"
    await site.network_auto("b")
    error = await refused(Kind.EXHAUSTED, site.network_auto("c"))
    assert "10.64.0.0/22" in str(error)
    await site.core.create_tenant(TenantSpec(name="blue"), "test")
    assert site.core.state.networks[await site.network_auto("a", tenant="blue")].subnets[0].prefix == "10.64.2.0/24"
    await refused(Kind.INVALID, site.network_auto("d", ipv4=False))


@pytest.mark.parametrize(
    ("subnet", "said"),
    [
        (SubnetSpec(prefix="10.1.0.5/24"), "did you mean 10.1.0.0/24?"),
        (SubnetSpec(prefix="10.1.0.0"), "not a prefix"),
        (SubnetSpec(prefix="10.1.0.0/24", gateway="10.2.0.1"), "outside"),
        (SubnetSpec(prefix="10.1.0.0/24", gateway="10.1.0.255"), "broadcast"),
        (SubnetSpec(prefix="10.1.0.0/24", range="10.1.0.9-10.1.0.3"), "ends before"),
        (SubnetSpec(prefix="10.1.0.0/24", reserved=("10.1.0.1",)), "gateway"),
        (SubnetSpec(prefix="127.0.0.0/24"), "loopback"),
    ],
)
async def test_bad_subnets(site: Site, subnet: SubnetSpec, said: str) -> None:
    before = site.core.revision
    error = await refused(Kind.INVALID, site.core.create_network(NetworkSpec(name="web", subnets=(subnet,)), "test"))
    assert said in str(error)
    assert site.core.revision == before


@pytest.mark.parametrize("name", ["", "-a", "a b", "x" * 64, "0" * 26, "a/b"])
async def test_bad_names(site: Site, name: str) -> None:
    await refused(Kind.INVALID, site.network(name))
    await refused(Kind.INVALID, site.core.create_tenant(TenantSpec(name=name), "test"))
    await refused(Kind.INVALID, site.core.create_host(name, {}, "test"))


async def test_references(site: Site) -> None:
    id_ = await site.network("web")
    await site.core.create_tenant(TenantSpec(name="blue"), "test")
    other = await site.network("shop", tenant="blue")
    state = site.core.state
    assert {state.resolve_network(ref).id for ref in ("web", "default/web", id_)} == {id_}
    assert state.resolve_network("blue/shop").id == other
    for wrong, near in (("wab", "web"), ("shop", "blue/shop"), ("blue/web", "web")):
        with pytest.raises(Exception, match="there is no network") as caught:
            state.resolve_network(wrong)
        assert f"did you mean {near}?" in str(caught.value)
    with pytest.raises(Exception, match="there is no tenant 'blu'; did you mean blue"):
        state.resolve_network("blu/web")


async def test_mtu_follows_the_underlay(site: Site) -> None:
    async def mtu(name: str, wish: int | None = None) -> int:
        return site.core.state.networks[await site.network(name, f"10.{len(name)}.0.0/24", mtu_bytes=wish)].mtu_bytes

    assert await mtu("a") == 1450
    await site.agent("h1", mtu_bytes=9000)
    assert await mtu("aa") == 8950
    await site.agent("h2", mtu_bytes=1600, vtep4=None, vtep6="fd00::2")
    assert await mtu("aaa") == 1530
    assert await mtu("aaaa", 1400) == 1400
    error = await refused(Kind.INVALID, mtu("aaaaa", 1531))
    assert "1531" in str(error)
    assert "less 70 for VXLAN is 1530" in str(error)
    assert error.facts["host"] == "h2"
    await refused(Kind.INVALID, mtu("aaaaa", 1279))
    await site.agent("h0", mtu_bytes=1580)
    error = await refused(Kind.INVALID, mtu("aaaaa", 1535))
    assert (error.facts["host"], error.facts["limit_bytes"]) == ("h0", 1530), "of equals, the first by name is told"


async def test_put_network(site: Site) -> None:
    spec = NetworkSpec(subnets=(SubnetSpec(prefix="10.1.0.0/24", range="10.1.0.8/29"),), labels={"tier": "1"})
    network, revision, created = await site.core.put_network("web", spec, None, "test")
    assert created
    assert network.subnets[0].range == ("10.1.0.8", "10.1.0.15")
    before = site.core.revision
    assert await site.core.put_network("web", spec, None, "test") == (network, revision, False)
    assert await site.core.put_network(network.id, NetworkSpec(labels={"tier": "1"}), revision, "test") == (
        network,
        revision,
        False,
    )
    assert site.core.revision == before
    more = NetworkSpec(subnets=(*spec.subnets, SubnetSpec(prefix="fd00:1::/64")), mtu_bytes=1300)
    error = await refused(Kind.CONFLICT, site.core.put_network("web", more, None, "test"))
    assert set(error.facts["difference"]) == {"labels", "subnets", "mtu_bytes"}
    error = await refused(Kind.CONFLICT, site.core.put_network("web", more, revision, "test"))
    assert error.facts["difference"] == {"mtu_bytes": {"have": 1450, "want": 1300}}
    changed, later, _ = await site.core.put_network(
        "web", NetworkSpec(subnets=more.subnets, labels={"tier": "2"}), revision, "test"
    )
    assert [subnet.prefix for subnet in changed.subnets] == ["10.1.0.0/24", "fd00:1::/64"]
    assert changed.labels == {"tier": "2"}
    assert "stale" in str(await refused(Kind.CONFLICT, site.core.put_network("web", spec, revision, "test")))
    assert later == site.core.revision
    other_gateway = NetworkSpec(subnets=(SubnetSpec(prefix="10.1.0.0/24", gateway="10.1.0.9"), more.subnets[1]))
    error = await refused(Kind.CONFLICT, site.core.put_network("web", other_gateway, later, "test"))
    assert error.facts["difference"]["subnets 10.1.0.0/24"]["have"]["gateway"] == "10.1.0.1"
    gone = NetworkSpec(subnets=more.subnets[1:], labels={"tier": "2"})
    await refused(Kind.CONFLICT, site.core.put_network("web", gone, later, "test"))
    await refused(Kind.INVALID, site.core.put_network("web", NetworkSpec(name="db"), None, "test"))
    await refused(Kind.NOT_FOUND, site.core.put_network("blue/web", spec, None, "test"))


async def test_a_subnet_is_added_to_a_live_network(site: Site) -> None:
    await site.network("web", "10.1.0.0/30")
    await site.network("db", "10.3.0.0/24")
    agent = await site.agent("h1")
    first = await agent.attach("c1")
    await refused(Kind.EXHAUSTED, agent.attach("c2"))
    await refused(Kind.CONFLICT, site.core.add_subnet("web", SubnetSpec(prefix="10.3.0.0/25"), "test"))
    network, revision = await site.core.add_subnet("web", SubnetSpec(prefix="10.2.0.0/24"), "test")
    assert await site.core.add_subnet("web", SubnetSpec(prefix="10.2.0.0/24"), "test") == (network, revision)
    assert (await agent.attach("c2")).addresses == ("10.2.0.2/24",)
    await site.core.add_subnet("web", SubnetSpec(prefix="fd00:1::/64"), "test")
    assert (await agent.attach("c3")).addresses == ("10.2.0.3/24", "fd00:1::2/64")
    assert site.core.state.endpoints[first.id].addresses == ("10.1.0.2/30",)
    await agent.take()
    assert agent.topics == agent.expected()


async def test_usage_and_allocations(site: Site) -> None:
    subnet = SubnetSpec(prefix="10.1.0.0/28", reserved=("10.1.0.4", "10.1.0.9"))
    network, _ = await site.core.create_network(NetworkSpec(name="web", subnets=(subnet,)), "test")
    agent = await site.agent("h1")
    endpoints = [await agent.attach(f"c{number}") for number in range(3)]
    assert [endpoint.addresses[0] for endpoint in endpoints] == ["10.1.0.2/28", "10.1.0.3/28", "10.1.0.5/28"]
    (usage,) = site.core.usage(network)
    assert (usage.size, usage.used, usage.reserved, usage.free) == (16, 3, 5, 8)
    held = [(allocation.address, str(allocation.holder)) for allocation in site.core.state.allocations(network.id)]
    assert held == [
        ("10.1.0.1", "gateway"),
        ("10.1.0.2", "endpoint"),
        ("10.1.0.3", "endpoint"),
        ("10.1.0.4", "reservation"),
        ("10.1.0.5", "endpoint"),
        ("10.1.0.9", "reservation"),
    ]


async def test_a_network_in_use_is_not_removed(site: Site) -> None:
    await site.network("web")
    agent = await site.agent("h1")
    endpoint = await agent.attach("c1", name="db1")
    error = await refused(Kind.CONFLICT, site.core.delete_network("web", "test"))
    assert "db1" in str(error)
    await agent.detach(endpoint.id)
    assert (await site.core.delete_network("web", "test"))[0] is not None
    assert (await site.core.delete_network("web", "test"))[0] is None
    assert (await site.core.delete_network("nowhere/web", "test"))[0] is None
    assert not [key for key in site.disk.records if "network" in key.split("/")[:2]]


async def test_a_vni_is_held_back_until_every_host_that_had_it_has_applied_the_removal() -> None:
    site = await Site(Options(vni_first=1, vni_last=2, settle_s=0.05)).start()
    await site.network("one", "10.1.0.0/24")
    await site.network("two", "10.2.0.0/24")
    stays, away = await site.agent("h1"), await site.agent("h2")
    for agent in (stays, away):
        await agent.detach((await agent.attach("c", "one")).id)
    assert "all 2 VNIs" in str(await refused(Kind.EXHAUSTED, site.network("x", "10.3.0.0/24")))
    away.stream.closed()
    _, removed = await site.core.delete_network("one", "test")
    await stays.take()
    assert stays.revision == removed, "a host that had the network hears of the removal"
    await refused(Kind.EXHAUSTED, site.network("x", "10.3.0.0/24"))
    await stays.report()
    assert "held back" in str(await refused(Kind.EXHAUSTED, site.network("x", "10.3.0.0/24")))

    await site.start()  # which hosts are waited for survives the controller
    await stays.hello(resume=True)
    await stays.report()
    await refused(Kind.EXHAUSTED, site.network("x", "10.3.0.0/24"))
    await away.hello(resume=True)
    await away.report(removed - 1)
    await refused(Kind.EXHAUSTED, site.network("x", "10.3.0.0/24"))
    await away.report()
    assert site.core.state.networks[await site.network("x", "10.3.0.0/24")].vni == 1


@pytest.mark.parametrize("left", ["its own", "of no unit"])
async def test_a_vni_is_held_back_while_a_host_reports_that_the_removal_failed(left: str) -> None:
    site = await Site(Options(vni_first=5, vni_last=5)).start()
    id_ = await site.network("one")
    agent, other = await site.agent("h1"), await site.agent("h2")
    for host in (agent, other):
        await host.detach((await host.attach("c", "one")).id)
    await site.core.delete_network("one", "test")
    await other.take()
    await other.report(failures={"network/another": "no", "endpoint/e": "no"})  # of what else may fail there
    await agent.take()
    unit = f"network/{id_}" if left == "its own" else key_text(LEFTOVER)  # an agent that restarted knows no better
    await agent.report(failures={unit: "cannot remove hwx5: the device is busy"})
    assert "held back" in str(await refused(Kind.EXHAUSTED, site.network("two")))
    await agent.hello(resume=True)
    assert "held back" in str(await refused(Kind.EXHAUSTED, site.network("two")))
    await agent.report()
    await site.network("two")


async def test_a_forgotten_host_holds_no_vni_back() -> None:
    site = await Site(Options(vni_first=5, vni_last=5)).start()
    await site.network("one")
    agent = await site.agent("h1")
    await agent.attach("c", "one")
    agent.stream.closed()
    await site.core.delete_endpoint(next(iter(site.core.state.endpoints)), "test")
    await site.core.delete_network("one", "test")
    await refused(Kind.EXHAUSTED, site.network("two"))
    await site.core.forget_host("h1", False, "test")
    await site.network("two")


async def test_vnis_are_taken_cyclically_across_a_restart() -> None:
    site = await Site(Options(vni_first=1, vni_last=3)).start()
    taken = []
    for _ in range(5):
        id_ = await site.network("web")
        taken.append(site.core.state.networks[id_].vni)
        await site.core.delete_network("web", "test")
        await site.start()
    assert taken == [1, 2, 3, 1, 2]


def test_prefixes_of_the_default_pools_are_whole() -> None:
    for pool in Options().pools:
        assert parse_prefix(pool.prefix).length < pool.length
