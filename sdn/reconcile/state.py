"""A whole desired state as one value, and the messages that lead an agent from one to the next.

Tests name states; `Feed` plays the controller: the snapshot of a state, the one transaction between two, or the same
difference torn into one transaction per change in any order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from sdn.model.codec import encode_msgpack
from sdn.model.ids import HostId, NetworkId
from sdn.model.resources import Endpoint, Member, Network, Tenant
from sdn.model.stream import Delta, Drop, Sync
from sdn.reconcile.unit import Here

Message = Delta | Drop | Sync
Content = dict[str, dict[str, bytes]]
"""Topic -> key -> value, encoded."""


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """What a host is to look like. `members`: by network, this host included. All that is named must be there."""

    name: str
    here: Here
    tenants: tuple[Tenant, ...] = ()
    networks: tuple[Network, ...] = ()
    members: tuple[tuple[NetworkId, Member], ...] = ()
    endpoints: tuple[Endpoint, ...] = ()

    def local_endpoints(self) -> Iterator[Endpoint]:
        """Those of this host."""
        return (endpoint for endpoint in self.endpoints if endpoint.host == self.here.host)

    def seen_from(self, host: HostId, vtep4: str | None, vtep6: str | None) -> State:
        """The same state on another host."""
        return dataclasses.replace(self, here=Here(host, vtep4, vtep6))

    def content(self) -> Content:
        """What its topics hold."""
        content: Content = {f"tenant/{t.id}": {"tenant": encode_msgpack(t)} for t in self.tenants}
        for network in self.networks:
            content[f"network/{network.id}"] = {"network": encode_msgpack(network)}
        for network_id, member in self.members:
            content[f"network/{network_id}"][f"member/{member.host}"] = encode_msgpack(member)
        for endpoint in self.endpoints:
            content[f"network/{endpoint.network}"][f"endpoint/{endpoint.id}"] = encode_msgpack(endpoint)
        return content


@dataclasses.dataclass(frozen=True, slots=True)
class Edit:
    """One change: a key's new value, or None: it goes."""

    topic: str
    key: str
    value: bytes | None


class Feed:
    """A controller for one host: remembers what the host has, and raises the revision with each transaction."""

    def __init__(self, revision: int = 0) -> None:
        self.revision = revision
        self._content: Content = {}
        self._revisions: dict[str, int] = {}

    def snapshot(self, state: State, chunk_items: int = 500) -> list[Message]:
        """The state to a host that says it has nothing (or starts again)."""
        self.revision += 1
        self._content = state.content()
        self._revisions = dict.fromkeys(self._content, self.revision)
        messages: list[Message] = []
        for topic, values in self._content.items():
            previous = 0
            for chunk in _chunks(list(values.items()), chunk_items):
                puts = {key: msgspec.Raw(value) for key, value in chunk}
                messages.append(Delta(topic=topic, previous=previous, revision=self.revision, puts=puts))
                previous = self.revision
        return [*messages, Sync(revision=self.revision)]

    def advance(self, state: State) -> list[Message]:
        """One transaction from what the host has to the state."""
        return self.transaction(self.edits(state))

    def edits(self, state: State) -> list[Edit]:
        """What differs between what the host has and the state."""
        after = state.content()
        edits: list[Edit] = []
        for topic in sorted(self._content.keys() | after.keys()):
            old, new = self._content.get(topic, {}), after.get(topic, {})
            edits += [Edit(topic, key, None) for key in sorted(old.keys() - new.keys())]
            edits += [Edit(topic, key, value) for key, value in new.items() if old.get(key) != value]
        return edits

    def transaction(self, edits: Iterable[Edit]) -> list[Message]:
        """Some edits as one transaction; a topic that is empty afterwards is dropped."""
        self.revision += 1
        by_topic: dict[str, list[Edit]] = {}
        for edit in edits:
            by_topic.setdefault(edit.topic, []).append(edit)
        messages: list[Message] = []
        for topic, changes in by_topic.items():
            values = self._content.setdefault(topic, {})
            for edit in changes:
                if edit.value is None:
                    values.pop(edit.key, None)
                else:
                    values[edit.key] = edit.value
            messages.append(self._message(topic, changes))
        return [*messages, Sync(revision=self.revision)]

    def _message(self, topic: str, changes: Sequence[Edit]) -> Message:
        previous = self._revisions.pop(topic, 0)
        if not self._content[topic]:
            del self._content[topic]
            return Drop(topic=topic, revision=self.revision)
        self._revisions[topic] = self.revision
        return Delta(
            topic=topic,
            previous=previous,
            revision=self.revision,
            puts={edit.key: msgspec.Raw(edit.value) for edit in changes if edit.value is not None},
            deletes=tuple(edit.key for edit in changes if edit.value is None),
        )


def _chunks(items: list[tuple[str, bytes]], size: int) -> Iterator[list[tuple[str, bytes]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
