"""Topics: from what a transaction changed to the messages that each host is sent. Pure functions of values.

A topic's delta is encoded once, whatever the number of hosts that hold it; a host that newly holds a topic is sent
the whole of it in chunks; a host that was away is sent one coalesced delta per topic. Cost follows the change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from sdn.controller.effects import Effects, Topic
from sdn.controller.note import ENDPOINT_RELEASED, read_note
from sdn.controller.state import State
from sdn.model.codec import encode_msgpack
from sdn.model.ids import EndpointId, HostId, NetworkId, Revision, TenantId
from sdn.model.resources import Host, Member
from sdn.model.stream import SNAPSHOT_CHUNK_ITEMS, Delta, Drop
from sdn.store.interface import Change, Delete, Put


@dataclasses.dataclass(slots=True)
class TopicChange:
    """What changes in one topic: key -> msgpack of the value, and keys that go."""

    puts: dict[str, msgspec.Raw] = dataclasses.field(default_factory=dict)
    deletes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """A message of the state, encoded. `revision`: what the host has of the topic once it has this.

    A `revision` of 0 means: more of it is to come, so that it would have to be sent anew; None: it holds it no more.
    """

    topic: Topic
    revision: int | None
    data: bytes


def member_of(host: Host) -> Member:
    """A host as the topics of its networks show it."""
    return Member(
        host=host.id,
        name=host.name,
        vtep4=host.vtep4,
        vtep6=host.vtep6,
        mtu_bytes=host.mtu_bytes,
        datapath=host.datapath,
    )


class _Changes(dict[Topic, TopicChange]):
    def put(self, topic: Topic, key: str, value: bytes) -> None:
        self.setdefault(topic, TopicChange()).puts[key] = msgspec.Raw(value)

    def delete(self, topic: Topic, key: str) -> None:
        self.setdefault(topic, TopicChange()).deletes.append(key)


def changes_of(effects: Effects, state: State) -> Mapping[Topic, TopicChange]:
    """What each topic's delta says. `state` is the one after the transaction."""
    changes = _Changes()
    for tenant, value in effects.tenants.items():
        changes.put(f"tenant/{tenant}", "tenant", value)
    for network, value in effects.networks.items():
        changes.put(f"network/{network}", "network", value)
    for id_, value in effects.endpoints.items():
        if endpoint := state.endpoints.get(id_):
            changes.put(f"network/{endpoint.network}", f"endpoint/{id_}", value)
    for endpoint in effects.endpoints_gone:
        changes.delete(f"network/{endpoint.network}", f"endpoint/{endpoint.id}")
    _change_members(changes, effects, state)
    return changes


def _change_members(changes: _Changes, effects: Effects, state: State) -> None:
    for host, (before, value) in effects.hosts.items():
        changes.put(f"host/{host}", "host", value)
        if before is None or member_of(state.hosts[host]) != member_of(before):
            for network in state.networks_of(host):
                _put_member(changes, f"network/{network}", host, state)
    for topic, host in effects.gained:
        if topic.startswith("network/"):
            _put_member(changes, topic, host, state)
    for topic, host in effects.lost:
        if topic.startswith("network/"):
            changes.delete(topic, f"member/{host}")


def _put_member(changes: _Changes, topic: Topic, host: HostId, state: State) -> None:
    changes.put(topic, f"member/{host}", encode_msgpack(member_of(state.hosts[host])))


def encode_delta(topic: Topic, previous: int, revision: int, change: TopicChange) -> bytes:
    """One delta as it travels."""
    delta = Delta(topic=topic, previous=previous, revision=revision, puts=change.puts, deletes=tuple(change.deletes))
    return encode_msgpack(delta)


def encode_drop(topic: Topic, revision: Revision) -> Message:
    """The host holds the topic no longer."""
    return Message(topic, None, encode_msgpack(Drop(topic=topic, revision=revision)))


def items_of(topic: Topic, state: State) -> Iterator[tuple[str, object]]:
    """The whole of a topic: its header first, then members, then endpoints by age."""
    kind, _, id_ = topic.partition("/")
    match kind:
        case "tenant":
            yield "tenant", state.tenants[TenantId(id_)]
        case "host":
            yield "host", state.hosts[HostId(id_)]
        case _:
            network = NetworkId(id_)
            yield "network", state.networks[network]
            for host in sorted(state.holders_of(topic)):
                yield f"member/{host}", member_of(state.hosts[host])
            for endpoint in state.endpoints_of(network):
                yield f"endpoint/{endpoint.id}", endpoint


def snapshot(topic: Topic, revision: int, state: State) -> list[Message]:
    """The whole of a topic, as of its last change `revision`, in chunks."""
    messages: list[Message] = []
    items = [(key, encode_msgpack(value)) for key, value in items_of(topic, state)]
    for start in range(0, len(items), SNAPSHOT_CHUNK_ITEMS):
        chunk = {key: msgspec.Raw(value) for key, value in items[start : start + SNAPSHOT_CHUNK_ITEMS]}
        data = encode_delta(topic, revision if start else 0, revision, TopicChange(puts=chunk))
        last = start + SNAPSHOT_CHUNK_ITEMS >= len(items)
        messages.append(Message(topic, revision if last else 0, data))
    return messages


@dataclasses.dataclass(slots=True)
class Missed:
    """The ids that some changes touched; `gone` are endpoints released, by network, with their host."""

    tenants: set[TenantId] = dataclasses.field(default_factory=set)
    networks: set[NetworkId] = dataclasses.field(default_factory=set)
    hosts: set[HostId] = dataclasses.field(default_factory=set)
    endpoints: dict[NetworkId, set[EndpointId]] = dataclasses.field(default_factory=dict)
    gone: dict[NetworkId, dict[EndpointId, HostId]] = dataclasses.field(default_factory=dict)


def missed_of(changes: Sequence[Change], state: State) -> Missed:
    """What `changes`, which lead up to `state`, have touched."""
    missed = Missed()
    for change in changes:
        for write in change.writes:
            _note_write(write, state, missed)
        for happening in read_note(change.note).happened:
            if happening.kind == ENDPOINT_RELEASED:
                data = happening.data
                missed.gone.setdefault(data["network"], {})[data["id"]] = data["host"]
    return missed


def _note_write(write: Put | Delete, state: State, missed: Missed) -> None:
    kind, _, id_ = write.key.partition("/")
    match kind:
        case "tenant":
            missed.tenants.add(TenantId(id_))
        case "network":
            missed.networks.add(NetworkId(id_))
        case "host":
            missed.hosts.add(HostId(id_))
        case "endpoint":
            endpoint = state.endpoints.get(EndpointId(id_))
            if endpoint is not None:  # else its release is in a note
                missed.endpoints.setdefault(endpoint.network, set()).add(endpoint.id)
        case _:
            pass


def catch_up(
    topics: Iterable[Topic],
    has: Mapping[Topic, int],
    missed: Missed | None,
    revisions: Mapping[Topic, int],
    whole: Callable[[Topic], list[Message]],
    state: State,
) -> list[Message]:
    """What takes a host from what it `has` (topic -> revision, as of one consistent cut) to `state`.

    `missed`: what changed since that cut; None: too much, every topic begins anew. `revisions`: topic -> the revision
    of its last change; `whole`: a topic's snapshot.
    """
    messages: list[Message] = []
    wanted = list(topics)
    for topic in wanted:
        revision = revisions[topic]
        had = has.get(topic, 0)
        if missed is None or had == 0 or had > revision:
            messages += whole(topic)
        elif had != revision:
            change = _missed_change(topic, missed, state)
            messages.append(Message(topic, revision, encode_delta(topic, had, revision, change)))
    messages += [encode_drop(topic, state.revision) for topic in sorted(has.keys() - set(wanted))]
    return messages


def _missed_change(topic: Topic, missed: Missed, state: State) -> TopicChange:
    kind, _, id_ = topic.partition("/")
    change = TopicChange()
    if kind == "tenant":
        if id_ in missed.tenants:
            change.puts["tenant"] = msgspec.Raw(encode_msgpack(state.tenants[TenantId(id_)]))
    elif kind == "host":
        if id_ in missed.hosts:
            change.puts["host"] = msgspec.Raw(encode_msgpack(state.hosts[HostId(id_)]))
    else:
        _missed_in_network(NetworkId(id_), missed, state, change)
    return change


def _missed_in_network(network: NetworkId, missed: Missed, state: State, change: TopicChange) -> None:
    if network in missed.networks:
        change.puts["network"] = msgspec.Raw(encode_msgpack(state.networks[network]))
    holders = state.holders_of(f"network/{network}")
    hosts = missed.hosts & holders
    for id_ in sorted(missed.endpoints.get(network, ())):
        endpoint = state.endpoints[id_]
        change.puts[f"endpoint/{id_}"] = msgspec.Raw(encode_msgpack(endpoint))
        hosts.add(endpoint.host)
    for gone, host in sorted(missed.gone.get(network, {}).items()):
        change.deletes.append(f"endpoint/{gone}")
        hosts.add(host)
    for host in sorted(hosts):
        if host in holders:
            change.puts[f"member/{host}"] = msgspec.Raw(encode_msgpack(member_of(state.hosts[host])))
        else:
            change.deletes.append(f"member/{host}")
