"""Attachments: one transaction that holds everything, or one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from sdn.controller.specs import TenantSpec
from sdn.model.errors import Kind
from sdn.model.resources import ENDPOINTS_PER_NETWORK_AND_HOST_MAX
from sdn.model.stream import Attached, AttachRequest, Delta, Detached, Settled, Sync
from tests.unit.controller_harness import Agent, Site, refused


@pytest.fixture
async def site() -> Site:
    return await Site().start()


@pytest.fixture
async def agent(site: Site) -> Agent:
    await site.network("web", "10.1.0.0/24", "fd00:1::/64")
    return await site.agent("h1")


async def test_everything_the_answer_depends_on_came_before_it(site: Site, agent: Agent) -> None:
    agent.inbox.clear()
    endpoint = await agent.attach("c1", name="one", aliases=("db",), labels={"a": "b"})
    assert [type(message) for message in agent.inbox] == [Delta, Delta, Sync, Attached, Settled]
    attached = agent.inbox[3]
    assert isinstance(attached, Attached)
    assert agent.revision == attached.revision == site.core.revision
    assert attached.network.name == "web"
    assert attached.tenant.name == "default"
    assert endpoint.addresses == ("10.1.0.2/24", "fd00:1::2/64")
    assert endpoint.mac.startswith("0a:")
    assert endpoint.mac.endswith("0a:01:00:02")
    assert (endpoint.incarnation, endpoint.sandbox, endpoint.name) == ("boot:1", 7, "one")
    assert agent.topics == agent.expected()
    assert site.core.state.endpoints[endpoint.id] == endpoint


async def test_an_attachment_is_one_transaction(site: Site, agent: Agent) -> None:
    before = site.core.revision
    await agent.attach("c1", name="one")
    (change,) = await site.store.changes(before)
    assert sorted(write.key.partition("/")[0] for write in change.writes) == [
        "allocation",
        "allocation",
        "attachment",
        "endpoint",
        "mac",
        "name",
        "vni",
    ]


async def test_the_same_again_is_the_same(site: Site, agent: Agent) -> None:
    endpoint = await agent.attach("c1")
    before = site.core.revision
    assert await agent.attach("c1", "default/web") == endpoint
    assert await agent.attach("c1", endpoint.network) == endpoint
    assert site.core.revision == before


async def test_a_container_made_again_takes_the_place_of_the_old_one(site: Site, agent: Agent) -> None:
    old = await agent.attach("c1", name="one", addresses=("10.1.0.9",), mac="0a:00:00:00:00:09")
    before = site.core.revision
    new = await agent.attach("c1", name="one", addresses=("10.1.0.9",), mac="0a:00:00:00:00:09", sandbox=8)
    assert site.core.revision == before + 1, "one transaction"
    assert new.id != old.id
    assert (new.addresses, new.mac, new.sandbox) == (("10.1.0.9/24", "fd00:1::3/64"), old.mac, 8)
    assert list(site.core.state.endpoints) == [new.id]
    assert agent.topics == agent.expected()
    released = [event async for event in site.core.events(before, follow=False)]
    assert [(event.kind, event.data["id"]) for event in released] == [
        ("endpoint.released", old.id),
        ("endpoint.attached", new.id),
    ]
    await agent.detach(old.id)
    assert list(site.core.state.endpoints) == [new.id], "a late release never frees a newer endpoint"


async def test_a_container_made_again_fits_into_a_full_subnet(site: Site, agent: Agent) -> None:
    await site.network("tiny", "10.2.0.0/30")
    old = await agent.attach("c1", "tiny", name="only")
    new = await agent.attach("c1", "tiny", name="only", sandbox=8)
    assert new.id != old.id
    assert new.addresses == old.addresses
    assert new.mac == old.mac


async def test_the_key_with_another_network_is_a_conflict(site: Site, agent: Agent) -> None:
    await site.network("db", "10.2.0.0/24")
    await agent.attach("c1")
    error = await refused(Kind.CONFLICT, agent.attach("c1", "db"))
    assert "attached to network web, not db" in str(error)
    await agent.attach("c1", "db", ifname="eth1")
    other = await site.agent("h2")
    await other.attach("c1", "db")


@pytest.mark.parametrize(
    ("wish", "kind", "said"),
    [
        (
            {"addresses": ("10.1.0.2",)},
            Kind.CONFLICT,
            "the address 10.1.0.2 of network web is taken by endpoint one on",
        ),
        ({"addresses": ("10.1.0.1",)}, Kind.INVALID, "the gateway"),
        ({"addresses": ("10.1.0.0",)}, Kind.INVALID, "network address"),
        ({"addresses": ("10.1.0.255",)}, Kind.INVALID, "broadcast"),
        ({"addresses": ("10.2.0.2",)}, Kind.INVALID, "outside of network web, which has 10.1.0.0/24, fd00:1::/64"),
        ({"addresses": ("10.1.0.8", "10.1.0.9")}, Kind.INVALID, "one address per subnet"),
        ({"addresses": ("10.1.0",)}, Kind.INVALID, "not an IP address"),
        (
            {"mac": "0a:00:00:00:00:01"},
            Kind.CONFLICT,
            "the MAC 0a:00:00:00:00:01 of network web is taken by endpoint one",
        ),
        ({"mac": "01:00:00:00:00:01"}, Kind.INVALID, "unicast"),
        ({"mac": "x"}, Kind.INVALID, "not a MAC"),
        ({"name": "one"}, Kind.CONFLICT, "tenant default has an endpoint one already, on host h1"),
        ({"name": "a b"}, Kind.INVALID, "not a name"),
        ({"network": "wab"}, Kind.NOT_FOUND, "did you mean web?"),
        ({"network": "blu/web"}, Kind.NOT_FOUND, "there is no tenant 'blu'"),
        ({"ifname": "a/b"}, Kind.INVALID, "interface name"),
        ({"ifname": "x" * 16}, Kind.INVALID, "interface name"),
        ({"container": ""}, Kind.INVALID, "container id"),
        ({"container": "a/b"}, Kind.INVALID, "container id"),
        ({"labels": {"": "x"}}, Kind.INVALID, "label"),
    ],
)
async def test_bad_wishes(site: Site, agent: Agent, wish: dict[str, Any], kind: Kind, said: str) -> None:
    await agent.attach("c1", name="one", mac="0a:00:00:00:00:01")
    before, kept = site.core.revision, dict(site.disk.records)
    error = await refused(kind, agent.attach(**{"container": "c2"} | wish))
    assert said in str(error)
    assert site.core.revision == before
    assert site.disk.records == kept
    assert (await agent.attach("c2")).addresses == ("10.1.0.3/24", "fd00:1::3/64"), "nothing half-made"


async def test_a_wish_takes_the_place_of_its_familys_choice(agent: Agent) -> None:
    assert (await agent.attach("c1", addresses=("10.1.0.77",))).addresses == ("10.1.0.77/24", "fd00:1::2/64")
    assert (await agent.attach("c2", addresses=("fd00:1::f",))).addresses == ("10.1.0.2/24", "fd00:1::f/64")
    assert (await agent.attach("c3", addresses=("fd00:1::9", "10.1.0.9"))).addresses == (
        "10.1.0.9/24",
        "fd00:1::9/64",
    )


async def test_a_full_subnet_says_by_whom(site: Site, agent: Agent) -> None:
    await site.network("tiny", "10.2.0.0/29")
    other = await site.agent("h2")
    for number in range(4):
        await agent.attach(f"c{number}", "tiny")
    last = await other.attach("c", "tiny")
    error = await refused(Kind.EXHAUSTED, other.attach("d", "tiny"))
    assert "5 used, 3 reserved, 0 free of 8" in str(error)
    assert "held by endpoints on h1 (4), h2 (1)" in str(error)
    assert error.facts["used"] == 5
    assert error.facts["holders"] == {"h1": 4, "h2": 1}
    await other.detach(last.id)
    assert (await agent.attach("d", "tiny")).addresses == last.addresses


async def test_a_freed_address_comes_back_last_and_the_search_survives_a_restart(site: Site, agent: Agent) -> None:
    first = await agent.attach("c1")
    await agent.attach("c2")
    await agent.detach(first.id)
    assert (await agent.attach("c3")).addresses[0] == "10.1.0.4/24"
    await site.start()
    await agent.hello()
    assert (await agent.attach("c4")).addresses[0] == "10.1.0.5/24"


async def test_a_large_subnet_is_no_slower_to_search(site: Site, agent: Agent) -> None:
    id_ = await site.network("wide", "10.16.0.0/12")
    assert (await agent.attach("c1", "wide")).addresses == ("10.16.0.2/12",)
    (usage,) = site.core.usage(site.core.state.networks[id_])
    assert usage.free == 2**20 - 4


async def test_default_macs_of_ipv6_alone_never_collide(site: Site, agent: Agent) -> None:
    await site.network("six", "fd00:6::/64")
    macs = {(await agent.attach(f"c{number}", "six")).mac for number in range(50)}
    assert len(macs) == 50
    taken = await agent.attach("x", mac="0a:00:00:00:00:07")
    assert taken.mac not in macs


async def test_a_host_that_cannot_carry_the_network_is_refused_with_the_numbers(site: Site) -> None:
    await site.network("web", mtu_bytes=1450)
    small = await site.agent("h1", mtu_bytes=1499)
    error = await refused(Kind.CONFLICT, small.attach("c1"))
    assert "its MTU of 1450 needs 1500 bytes with VXLAN, the host's underlay has 1499" in str(error)
    six = await site.agent("h2", mtu_bytes=1500, vtep4=None, vtep6="fd00::2")
    assert "needs 1520" in str(await refused(Kind.CONFLICT, six.attach("c1")))
    await small.change(mtu_bytes=1500)
    await small.attach("c1")


async def test_endpoint_names_are_of_their_tenant(site: Site, agent: Agent) -> None:
    await site.core.create_tenant(TenantSpec(name="blue"), "test")
    await site.network("web", tenant="blue")
    one = await agent.attach("c1", name="one")
    other = await agent.attach("c1", "blue/web", ifname="eth1", name="one")
    state = site.core.state
    assert state.resolve_endpoint("blue/one") == other
    assert state.resolve_endpoint("default/one") == one
    assert state.resolve_endpoint(one.id) == one
    with pytest.raises(Exception, match="2 tenants have an endpoint named one; say which: blue/one, default/one"):
        state.resolve_endpoint("one")
    with pytest.raises(Exception, match="did you mean blue/one"):
        state.resolve_endpoint("blue/on")
    await agent.detach(other.id)
    assert state.resolve_endpoint("one") == one


async def test_the_1001st_endpoint_of_a_network_on_a_host(site: Site) -> None:
    await site.network("web", "10.1.0.0/16")
    agent, other = await site.agent("h1"), await site.agent("h2")
    for number in range(ENDPOINTS_PER_NETWORK_AND_HOST_MAX):
        await agent.attach(f"c{number}")
    error = await refused(Kind.EXHAUSTED, agent.attach("one-more"))
    assert "host h1 has 1000 endpoints in network web" in str(error)
    await agent.attach("c7", sandbox=8)  # what takes the place of another adds nothing
    await other.attach("one-more")


async def test_detach(site: Site, agent: Agent) -> None:
    other = await site.agent("h2")
    endpoints = [await agent.attach(f"c{number}", name=f"n{number}") for number in range(30)]
    foreign = await other.attach("c")
    await agent.take()
    done = await agent.detach(*(endpoint.id for endpoint in endpoints), foreign.id, "nothing", endpoints[0].id)
    assert isinstance(done, Detached)
    assert done.revision == agent.revision == site.core.revision
    assert list(site.core.state.endpoints) == [foreign.id], "only its own"
    assert agent.topics == agent.expected()
    before = site.core.revision
    await agent.detach(endpoints[3].id)
    assert site.core.revision == before
    left = [key for key in site.disk.records if key.split("/")[0] in ("allocation", "mac", "attachment")]
    assert len(left) == 4, left
    assert not [key for key in site.disk.records if key.startswith("name/endpoint")]


async def test_forced_release(site: Site, agent: Agent) -> None:
    endpoint = await agent.attach("c1", name="one")
    before = site.core.revision
    assert (await site.core.delete_endpoint("one", "ann"))[0] == endpoint
    assert (await site.core.delete_endpoint("one", "ann"))[0] is None
    await agent.take()
    assert agent.topics == agent.expected()
    (event,) = [event async for event in site.core.events(before, follow=False)]
    assert (event.kind, event.actor, event.data["reason"]) == ("endpoint.released", "ann", "removed by ann")


async def test_a_request_of_another_session_ends_the_stream(agent: Agent) -> None:
    request = AttachRequest(
        session=agent.session + 1,
        request=1,
        client="test",
        scope="",
        container="c",
        ifname="eth0",
        sandbox=1,
        network="web",
    )
    error = await refused(Kind.CONFLICT, agent.ask(Attached, request))
    assert "say hello again" in str(error)
    assert await agent.stream.outgoing() is None
