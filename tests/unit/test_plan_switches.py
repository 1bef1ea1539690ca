"""Switches without an agent in the core: unique as they have to be, their ports endpoints like any other."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn.controller import keys
from sdn.controller.ledger import load_state
from sdn.controller.plan_switches import PORT_NUMBER_MAX, parse_datapath_id, parse_port
from sdn.controller.specs import BindSpec, SwitchSpec
from sdn.controller.switches import Switches
from sdn.model.codec import encode_msgpack
from sdn.model.errors import HawseError, Kind
from sdn.model.resources import Datapath, Endpoint, Host, Switch
from sdn.model.stream import Welcome
from sdn.store.interface import Put, Transaction
from tests.unit.controller_harness import Site, only, refused

ID = "00000000000000a1"


@pytest.fixture
async def site() -> Site:
    return await Site().start()


async def add(site: Site, name: str = "s1", number: int = 0xA1, **more: Any) -> Host:
    spec = {"name": name, "datapath_id": f"{number:016x}", "vtep4": f"192.0.2.{number & 0xFF}", **more}
    return (await site.core.switches.add(SwitchSpec(**spec), "test"))[0]


async def bind(site: Site, port: str, network: str = "web", switch: str = "s1", **more: Any) -> Endpoint:
    return (await site.core.switches.bind(switch, BindSpec(port=port, network=network, **more), "test"))[0]


def switches(site: Site) -> Switches:
    return site.core.switches


async def test_a_switch_is_a_host_that_others_know_as_one(site: Site) -> None:
    await site.network()
    host = await add(site)
    agent = await site.agent("h1")
    await agent.attach("c1")
    endpoint = await bind(site, "eth1", name="printer")
    await agent.take()
    (topic,) = [content for topic, content in agent.topics.items() if topic.startswith("network/")]
    assert topic[f"endpoint/{endpoint.id}"]["addresses"] == list(endpoint.addresses)
    assert topic[f"member/{host.id}"]["vtep4"] == "192.0.2.161"
    assert topic[f"member/{host.id}"]["datapath"] == Datapath.OPENFLOW  # the word that every agent knows
    assert (endpoint.container, endpoint.ifname) == ("printer", "eth1")
    await site.core.switches.unbind("s1", "eth1", "test")
    await agent.take()
    assert f"endpoint/{endpoint.id}" not in next(c for t, c in agent.topics.items() if t.startswith("network/"))


async def test_what_is_one_switchs_is_no_others(site: Site) -> None:
    await site.network()
    await add(site)
    agent = await site.agent("h1", 7)
    about = switches(site)
    specs: tuple[tuple[dict[str, Any], str], ...] = (
        ({"name": "s2", "datapath_id": ID, "vtep4": "192.0.2.2"}, "is switch s1's already"),
        ({"name": "s1", "datapath_id": "00000000000000b2", "vtep4": "192.0.2.2"}, "two hosts cannot have one name"),
        ({"name": "h1", "datapath_id": "00000000000000b2", "vtep4": "192.0.2.2"}, "two hosts cannot have one name"),
        ({"name": "s2", "datapath_id": "00000000000000b2", "vtep4": "192.0.2.161"}, "the VTEP of switch s1"),
        ({"name": "s2", "datapath_id": "00000000000000b2", "vtep4": "192.0.2.7"}, "which is the VTEP of host h1"),
    )
    for spec, words in specs:
        error = await refused(Kind.CONFLICT, about.add(SwitchSpec(**spec), "test"))
        assert words in error.message
        assert error.hint
    with pytest.raises(HawseError, match="which is the VTEP of host s1"):
        only(Welcome, await agent.hello(vtep4="192.0.2.161"))
    revision = site.core.revision
    assert await site.core.switches.remove("s1", False, "test") > revision
    await add(site, "s2")  # all that it had is free again


async def test_bad_words(site: Site) -> None:
    good: dict[str, Any] = {"name": "s1", "datapath_id": ID, "vtep4": "192.0.2.1"}
    wrong: list[dict[str, Any]] = [
        {"name": "a b"}, {"name": ""}, {"datapath_id": ""}, {"datapath_id": "a1"}, {"datapath_id": "0" * 16},
        {"datapath_id": "0" * 15 + "g"}, {"datapath_id": "٣" * 16}, {"vtep4": None}, {"vtep4": "fd00::1"},
        {"vtep6": "192.0.2.2"}, {"tunnel_port": ""}, {"tunnel_port": "0"}, {"tunnel_port": "x" * 16},
        {"tunnel_port": "a b"}, {"tunnel_port": "-1"}, {"tunnel_port": "LOCAL"}, {"mtu_bytes": 0},
        {"mtu_bytes": 1 << 31}, {"mtu_bytes": 1329}, {"vtep4": "127.0.0.1"}, {"vtep4": "0.0.0.0"},
        {"vtep4": "224.0.0.1"}, {"vtep4": "255.255.255.255"}, {"vtep6": "::1"}, {"vtep6": "fe80::1"},
        {"labels": {"": "x"}},
    ]  # fmt: skip
    for change in wrong:
        error = await refused(Kind.INVALID, switches(site).add(SwitchSpec(**good | change), "test"))
        assert error.message, change
    assert not site.core.state.switches


@pytest.mark.parametrize("text", [ID, ID.upper(), f"0x{ID}", "00:00:00:00:00:00:00:a1", f' "{ID}"\n'])
def test_a_datapath_id_as_it_is_written(text: str) -> None:
    assert parse_datapath_id(text) == ID


@given(st.text(max_size=24))
def test_a_port_is_kept_as_it_is_written_or_refused(text: str) -> None:
    parsed = ""
    with contextlib.suppress(HawseError):
        parsed = parse_port(text)
    if not parsed:
        with pytest.raises(HawseError) as caught:
            parse_port(text)
        assert (caught.value.kind, bool(caught.value.hint)) == (Kind.INVALID, True)
        return
    assert parse_port(parsed) == parsed
    assert parsed == text or (text.isdecimal() and 0 < int(parsed) <= PORT_NUMBER_MAX)


async def test_one_endpoint_a_port(site: Site) -> None:
    await site.network()
    await site.network("db", "10.2.0.0/24")
    await add(site)
    endpoint = await bind(site, "eth1", mac="0a:00:00:00:00:01", addresses=("10.1.0.9",), name="printer")
    revision = site.core.revision
    for wish in ({}, {"mac": "0a:00:00:00:00:01"}, {"addresses": ("10.1.0.9",)}, {"name": "printer"}):
        assert await bind(site, "eth1", **wish) == endpoint
    assert site.core.revision == revision
    for network, wish in (
        ("db", {}),
        ("web", {"mac": "0a:00:00:00:00:02"}),
        ("web", {"addresses": ("10.1.0.8",)}),
        ("web", {"name": "scanner"}),
    ):
        error = await refused(Kind.CONFLICT, bind(site, "eth1", network, **wish))
        assert error.hint == "unbind it first: hawse switch unbind s1 eth1"
    for port in ("hwvxlan",):
        await refused(Kind.CONFLICT, bind(site, port))
    await refused(Kind.NOT_FOUND, bind(site, "eth2", "nothing"))
    await refused(Kind.NOT_FOUND, bind(site, "eth2", switch="s9"))
    await site.agent("h1")
    error = await refused(Kind.INVALID, bind(site, "eth2", switch="h1"))
    assert "is a host with an agent" in error.message
    taken = await refused(Kind.CONFLICT, bind(site, "eth2", mac="0a:00:00:00:00:01"))
    assert "is taken by endpoint printer on host s1" in taken.message
    await site.core.drain_host("s1", False, "test")
    await refused(Kind.CONFLICT, bind(site, "eth2"))
    assert await bind(site, "eth1") == endpoint


async def test_an_mtu_that_its_underlay_cannot_carry(site: Site) -> None:
    await site.network("big", mtu_bytes=8000)
    await add(site)
    await refused(Kind.CONFLICT, bind(site, "eth1", "big"))
    await add(site, "s2", 0xB2, mtu_bytes=9000)
    await bind(site, "eth1", "big", "s2")


async def test_every_key_goes_with_what_it_was_of(site: Site) -> None:
    before = {record.key for record in (await site.store.load("")).records}
    await site.network()
    await add(site)
    for number in range(120):  # more than one transaction takes
        await bind(site, str(number + 1))
    for port in ("1", "2"):
        await site.core.switches.unbind("s1", port, "test")
    await site.core.delete_endpoint(site.core.state.bound[next(iter(site.core.state.switches)), "3"], "test")
    await refused(Kind.CONFLICT, switches(site).remove("s1", False, "test"))
    await switches(site).remove("s1", True, "test")
    await site.core.delete_network("web", "test")
    left = {record.key for record in (await site.store.load("")).records} - before
    assert {key.partition("/")[0] for key in left} <= {"vni", "cursor", "subnets"}, left
    assert not site.core.state.bound
    assert not site.core.state.datapaths


async def test_it_is_all_there_after_a_restart_and_old_stores_open(site: Site) -> None:
    await site.network()
    host = await add(site, tunnel_port="4")
    endpoint = await bind(site, "7")
    state = (await Site.start(site)).core.state
    assert state.switches == {host.id: Switch(host=host.id, datapath_id=ID, tunnel_port="4")}
    assert (state.datapaths, state.bound) == ({ID: host.id}, {(host.id, "7"): endpoint.id})
    # A store of before: nothing in it knows of switches. And one of a later version: a switch has more to it.
    older = await Site().start()
    await older.network()
    assert not any(record.key.startswith(("switch/", "port/")) for record in (await older.store.load("")).records)
    later = encode_msgpack({**msgspec.to_builtins(state.switches[host.id]), "colour": "blue"})
    await site.store.commit(Transaction((), (Put(keys.switch(host.id), later),), b""))
    assert (await load_state(site.store)).switches == state.switches


async def test_nobody_gives_a_switch_a_secret_or_speaks_for_it(site: Site) -> None:
    host = await add(site)
    attempts: list[Awaitable[object]] = [site.core.mint_credential("s1", "t"), site.core.custody.rotate("s1", "t")]
    for attempt in attempts:
        error = await refused(Kind.INVALID, attempt)
        assert "hawse switch certificate s1" in error.hint
    await refused(Kind.CONFLICT, site.core.forget_host("s1", False, "test"))
    agent = await site.agent("h1")
    with pytest.raises(HawseError, match="no agent programs a switch without an agent"):
        only(Welcome, await agent.hello(datapath=Datapath.SWITCH))
    assert host.id in site.core.state.switches
    await site.core.forget_host("s1", True, "test")
    assert not site.core.state.switches


async def test_one_that_is_away_cannot_be_asked(site: Site) -> None:
    host = await add(site)
    error = await refused(Kind.UNAVAILABLE, site.core.query(host.id, "drops", 1))
    assert (error.message, "agent" in error.hint) == ("switch s1 is not connected", False)


async def test_of_two_controllers_one_binds_a_port(site: Site) -> None:
    """The second has not seen what the first has written: the keys tell it."""
    await site.network()
    await add(site)
    other = Site()
    other.disk, other.store = site.disk, site.store
    await other.start()
    first = await bind(site, "eth1", name="one")
    error = await refused(Kind.CONFLICT, bind(other, "eth1", name="two"))
    assert "is bound to network web already" in error.message
    assert (await bind(other, "eth1")).id == first.id
