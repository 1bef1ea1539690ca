"""The world: whole transactions only, exactly the dependent units dirty, and no gap in a topic goes unnoticed."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from sdn.model.codec import encode_msgpack
from sdn.model.ids import EndpointId, TenantId
from sdn.model.resources import Host, Value
from sdn.model.stream import Delta, Drop, Sync
from sdn.reconcile.state import Feed, State
from sdn.reconcile.topics import StreamBrokenError
from sdn.reconcile.unit import EndpointUnit, NetworkUnit, TenantUnit, UnitKey, key_of
from sdn.reconcile.world import World
from tests.states.states import (
    BLUE,
    C1,
    C2,
    C3,
    C4,
    DUAL_STACK,
    EMPTY,
    EQUAL_TENANTS,
    HERE,
    ONE,
    RED,
    REMOTE,
    STATES,
    VTEP_CHANGED,
    WEB,
    endpoint,
    host,
    member,
    moved,
)

TENANT: UnitKey = ("tenant", BLUE.id)
NETWORK: UnitKey = ("network", WEB.id)
WEB_TOPIC = f"network/{WEB.id}"


def world_of(state: State) -> tuple[World, Feed]:
    """A world that holds a state, and the feed to go on with."""
    world, feed = World(state.here.host), Feed()
    world.set_here(state.here.vtep4, state.here.vtep6)
    world.apply(*feed.snapshot(state))
    return world, feed


def raw(value: Value) -> msgspec.Raw:
    """A value as a delta carries it."""
    return msgspec.Raw(encode_msgpack(value))


def key(of: EndpointId) -> UnitKey:
    """An endpoint's unit."""
    return ("endpoint", of)


@pytest.mark.parametrize("name", STATES)
def test_a_snapshot_makes_every_unit(name: str) -> None:
    """What the topics hold are the units, each dirty once; the context shows the same headers."""
    state = STATES[name]
    world = World(state.here.host)
    applied = world.apply(*Feed(41).snapshot(state, chunk_items=2))
    assert applied is not None
    keys: set[UnitKey] = {("tenant", t.id) for t in state.tenants}
    keys |= {("network", n.id) for n in state.networks}
    keys |= {key(e.id) for e in state.endpoints}
    assert (applied.revision, applied.dirty, set(world.unit_keys())) == (42, keys, keys)
    assert {key_of(unit) for unit in world.units()} == keys
    assert dict(world.context().tenants) == {t.id: t for t in state.tenants}
    assert dict(world.context().networks) == {n.id: n for n in state.networks}
    assert dict(world.context().members) == {(n, m.host): m for n, m in state.members}
    assert world.topics() == dict.fromkeys(state.content(), 42)
    assert {e.id for e in world.local_endpoints()} == {e.id for e in state.local_endpoints()}


def test_nothing_shows_before_sync() -> None:
    """A transaction is applied as a whole; until its Sync the world is what it was, its hello too."""
    world = World(HERE.host)
    *deltas, sync = Feed().snapshot(ONE)
    for delta in deltas:
        assert world.apply(delta) is None
        assert not world.complete
        assert not list(world.unit_keys())
        assert world.topics() == {}
    applied = world.apply(sync)
    assert applied is not None
    assert world.complete
    assert world.unit(NETWORK) == NetworkUnit(WEB, (member(1),))
    assert world.unit(TENANT) == TenantUnit(BLUE)


def test_a_unit_needs_its_headers() -> None:
    """An endpoint without its network, a network without its tenant is no unit; they become units as those come."""
    world = World(HERE.host)
    first = world.apply(
        Delta(topic=WEB_TOPIC, previous=0, revision=1, puts={f"endpoint/{C1.id}": raw(C1)}), Sync(revision=1)
    )
    assert first is not None
    assert world.unit(key(C1.id)) is None
    second = world.apply(Delta(topic=WEB_TOPIC, previous=1, revision=2, puts={"network": raw(WEB)}), Sync(revision=2))
    assert second is not None
    assert second.dirty == {NETWORK, key(C1.id)}
    assert world.unit(NETWORK) is None
    third = world.apply(
        Delta(topic=f"tenant/{BLUE.id}", previous=0, revision=3, puts={"tenant": raw(BLUE)}), Sync(revision=3)
    )
    assert third is not None
    assert third.dirty == {TENANT, NETWORK, key(C1.id)}
    assert world.unit(key(C1.id)) == EndpointUnit(C1)


def test_an_endpoint_dirties_itself_alone() -> None:
    """Whatever else is there."""
    world, feed = world_of(REMOTE)
    new = endpoint(50, 1, WEB, "10.1.0.50/24")
    state = State("more", HERE, REMOTE.tenants, REMOTE.networks, REMOTE.members, (*REMOTE.endpoints, new))
    applied = world.apply(*feed.advance(state))
    assert applied is not None
    assert applied.dirty == {key(new.id)}
    gone = world.apply(*feed.advance(REMOTE))
    assert gone is not None
    assert gone.dirty == {key(new.id)}
    assert world.unit(key(new.id)) is None


def test_a_member_dirties_its_network_and_its_endpoints() -> None:
    """Not those of other hosts."""
    world, feed = world_of(REMOTE)
    applied = world.apply(*feed.advance(VTEP_CHANGED))
    assert applied is not None
    assert applied.dirty == {NETWORK, key(C3.id)}
    unit = world.unit(NETWORK)
    assert isinstance(unit, NetworkUnit)
    assert [m.vtep4 for m in unit.members] == ["192.0.2.1", "198.51.100.2", "192.0.2.3"]


def test_a_header_dirties_what_names_it() -> None:
    """A network's header its endpoints; a tenant's its networks and theirs; of other tenants nothing."""
    world, feed = world_of(EQUAL_TENANTS)
    renamed = msgspec.structs.replace(WEB, labels={"a": "b"})
    state = replace(EQUAL_TENANTS, networks=(renamed, *EQUAL_TENANTS.networks[1:]))
    applied = world.apply(*feed.advance(state))
    assert applied is not None
    assert applied.dirty == {NETWORK, key(C1.id), key(C3.id)}
    red = msgspec.structs.replace(RED, name="crimson")
    of_red = [e for e in EQUAL_TENANTS.endpoints if e.tenant == RED.id]
    applied = world.apply(*feed.advance(replace(state, tenants=(BLUE, red))))
    assert applied is not None
    wanted: set[UnitKey] = {("tenant", RED.id), ("network", EQUAL_TENANTS.networks[1].id)}
    assert applied.dirty == wanted | {key(e.id) for e in of_red}


def test_a_topic_that_begins_anew_dirties_only_what_differs() -> None:
    """Equal values do not; what is not sent again is removed at the Sync and no earlier."""
    world, _ = world_of(REMOTE)
    puts = {"network": raw(WEB), f"endpoint/{C1.id}": raw(C1), f"member/{host(1)}": raw(member(1))}
    assert world.apply(Delta(topic=WEB_TOPIC, previous=0, revision=7, puts=puts)) is None
    assert world.unit(key(C4.id)) == EndpointUnit(C4)
    applied = world.apply(Sync(revision=7))
    assert applied is not None
    assert applied.dirty == {NETWORK, key(C2.id), key(C3.id), key(C4.id)}
    assert set(world.unit_keys()) == {TENANT, NETWORK, key(C1.id)}
    assert world.topics()[WEB_TOPIC] == 7


def test_a_dropped_topic_takes_its_units_with_it() -> None:
    """And is not in the next hello."""
    world, _ = world_of(ONE)
    applied = world.apply(Drop(topic=WEB_TOPIC, revision=2), Sync(revision=2))
    assert applied is not None
    assert applied.dirty == {NETWORK, key(C1.id)}
    assert set(world.unit_keys()) == {TENANT}
    assert set(world.topics()) == {f"tenant/{BLUE.id}"}
    assert world.local_endpoint("c1", "eth0") is None


def test_a_topic_may_be_dropped_and_begun_in_one_transaction() -> None:
    """The host's last endpoint of a network went and a new one came."""
    world, _ = world_of(ONE)
    new = endpoint(60, 1, WEB, "10.1.0.60/24")
    anew = Delta(topic=WEB_TOPIC, previous=0, revision=2, puts={"network": raw(WEB), f"endpoint/{new.id}": raw(new)})
    applied = world.apply(Drop(topic=WEB_TOPIC, revision=2), anew, Sync(revision=2))
    assert applied is not None
    assert applied.dirty == {NETWORK, key(C1.id), key(new.id)}
    assert set(world.unit_keys()) == {TENANT, NETWORK, key(new.id)}


def test_not_resumed_voids_what_is_not_sent_again() -> None:
    """Also whole topics, but only at the Sync; what came before the connection was lost is forgotten."""
    world, feed = world_of(EQUAL_TENANTS)
    *unfinished, _ = feed.advance(EMPTY)
    assert world.apply(*unfinished) is None
    world.begin(resumed=False)
    *deltas, sync = Feed(100).snapshot(ONE)
    world.apply(*deltas)
    assert set(world.topics()) == set(EQUAL_TENANTS.content())
    applied = world.apply(sync)
    assert applied is not None
    assert set(world.topics()) == set(ONE.content())
    assert set(world.unit_keys()) == {TENANT, NETWORK, key(C1.id)}
    assert key(C1.id) not in applied.dirty


def test_resumed_goes_on() -> None:
    """From the revisions of the hello, an unfinished transaction forgotten."""
    world, feed = world_of(ONE)
    topics = world.topics()
    messages = feed.advance(REMOTE)
    world.apply(*messages[:-1])
    world.begin(resumed=True)
    assert world.topics() == topics
    assert world.apply(*messages) is not None
    assert world.unit(key(C4.id)) == EndpointUnit(C4)


BROKEN = {
    "a gap": Delta(topic=WEB_TOPIC, previous=5, revision=6),
    "an unknown topic goes on": Delta(topic="network/unknown", previous=1, revision=2),
    "backwards": Delta(topic=WEB_TOPIC, previous=1, revision=0),
    "bytes that are no endpoint": Delta(
        topic=WEB_TOPIC, previous=1, revision=2, puts={f"endpoint/{C2.id}": msgspec.Raw(b"\xc0")}
    ),
    "an endpoint under another's key": Delta(
        topic=WEB_TOPIC, previous=1, revision=2, puts={f"endpoint/{C2.id}": raw(C3)}
    ),
    "a network of another topic": Delta(
        topic=WEB_TOPIC, previous=1, revision=2, puts={"network": raw(EQUAL_TENANTS.networks[1])}
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_fit_breaks_the_stream(name: str) -> None:
    """Nothing of the transaction stays; the whole state, sent anew, mends it."""
    world, feed = world_of(ONE)
    world.apply(*feed.advance(ONE)[:-1])
    good = Delta(topic=WEB_TOPIC, previous=1, revision=1, puts={f"endpoint/{C3.id}": raw(C3)})
    world.apply(good)
    with pytest.raises(StreamBrokenError) as caught:
        world.apply(BROKEN[name])
    assert caught.value.hint
    assert set(world.unit_keys()) == {TENANT, NETWORK, key(C1.id)}
    with pytest.raises(StreamBrokenError):  # only a topic that begins anew is taken now
        world.apply(good)
    world.begin(resumed=False)
    assert world.apply(*Feed(9).snapshot(REMOTE)) is not None
    assert world.unit(key(C3.id)) == EndpointUnit(C3)


def test_what_was_applied_before_the_break_is_not_lost() -> None:
    """Units that a finished transaction dirtied are named by the next one if the call that applied it failed."""
    world, feed = world_of(ONE)
    with pytest.raises(StreamBrokenError):
        world.apply(*feed.advance(REMOTE), BROKEN["a gap"])
    assert world.unit(key(C2.id)) == EndpointUnit(C2)
    applied = world.apply(*Feed(9).snapshot(REMOTE))
    assert applied is not None
    assert key(C2.id) in applied.dirty


def test_several_transactions_at_once() -> None:
    """The last revision, the dirty units of all."""
    world, feed = world_of(ONE)
    applied = world.apply(*feed.advance(REMOTE), *feed.advance(DUAL_STACK))
    assert applied is not None
    assert applied.revision == 3
    assert {key(C2.id), ("endpoint", DUAL_STACK.endpoints[0].id)} <= applied.dirty


def test_a_newer_peers_topics_and_keys_are_ignored() -> None:
    """Their revisions are kept, so that a resume names them."""
    world, _ = world_of(ONE)
    router = Delta(topic="router/r", previous=0, revision=2, puts={"router": msgspec.Raw(b"\x80")})
    policy = Delta(topic=WEB_TOPIC, previous=1, revision=2, puts={"policy/p": msgspec.Raw(b"\x80")})
    applied = world.apply(router, policy, Sync(revision=2))
    assert applied is not None
    assert applied.dirty == set()
    assert world.topics() == {f"tenant/{BLUE.id}": 1, WEB_TOPIC: 2, "router/r": 2}
    again = Delta(topic=WEB_TOPIC, previous=2, revision=3, deletes=("policy/p",))
    assert world.apply(again, Drop(topic="router/r", revision=3), Sync(revision=3)) is not None
    assert "router/r" not in world.topics()


def test_this_hosts_vteps_dirty_everything_once() -> None:
    """The same ones again dirty nothing."""
    world, _ = world_of(REMOTE)
    assert world.set_here(HERE.vtep4, None) == set()
    assert world.set_here(None, "2001:db8::1") == set(world.unit_keys())
    assert world.context().here.vtep6 == "2001:db8::1"


def test_this_hosts_own_topic() -> None:
    """It is kept, and concerns no unit."""
    world, _ = world_of(EMPTY)
    me = Host(id=HERE.host, name="h1")
    applied = world.apply(
        Delta(topic=f"host/{HERE.host}", previous=0, revision=2, puts={"host": raw(me)}), Sync(revision=2)
    )
    assert applied is not None
    assert (applied.dirty, world.host) == (set(), me)


def test_local_endpoints_by_their_key() -> None:
    """(container, ifname) finds those of this host only, also after a move, and ids find all."""
    world, feed = world_of(REMOTE)
    assert world.local_endpoint("c1", "eth0") == C1
    assert world.local_endpoint("c3", "eth0") is None
    assert world.endpoint(C3.id) == C3
    away = replace(REMOTE, endpoints=(moved(C1, 2), C2, moved(C3, 1), C4))
    world.apply(*feed.advance(away))
    assert world.local_endpoint("c1", "eth0") is None
    assert world.local_endpoint("c3", "eth0") == moved(C3, 1)
    again = endpoint(70, 1, WEB, "10.1.0.70/24")
    renamed = msgspec.structs.replace(again, container="c3")
    world.apply(*feed.advance(replace(REMOTE, endpoints=(C1, C2, renamed, C4))))
    assert world.local_endpoint("c3", "eth0") == renamed


def test_a_withdrawn_endpoint_is_absent() -> None:
    """Until the stream removes it, and a snapshot that still has it does not bring it back."""
    world, feed = world_of(REMOTE)
    assert world.withdraw(C3.id) == set()
    assert world.withdraw(EndpointId("unknown")) == set()
    assert world.withdraw(C1.id) == {key(C1.id)}
    assert world.withdraw(C1.id) == set()
    world.begin(resumed=False)
    world.apply(*feed.snapshot(REMOTE))
    assert world.unit(key(C1.id)) is None
    assert world.endpoint(C1.id) is None
    assert world.local_endpoint("c1", "eth0") is None
    assert key(C1.id) not in set(world.unit_keys())
    assert [e.id for e in world.local_endpoints()] == [C2.id]
    world.apply(*feed.advance(replace(REMOTE, endpoints=(C2, C3, C4))))
    world.apply(*feed.advance(REMOTE))
    assert world.endpoint(C1.id) == C1


def test_tenants_do_not_leak_into_units_of_others() -> None:
    """A network whose tenant is another's never appears with it."""
    world, feed = world_of(EQUAL_TENANTS)
    applied = world.apply(*feed.advance(ONE))
    assert applied is not None
    assert world.unit(("tenant", TenantId(RED.id))) is None
    assert not [k for k in world.unit_keys() if k[1] in {e.id for e in EQUAL_TENANTS.endpoints if e.tenant == RED.id}]
