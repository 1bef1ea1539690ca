"""What waits to be sent to one host: in order, and bounded by the state.

Each transaction adds its messages and a Sync. Where a host takes them too slowly, what waits is thrown away (replies
excepted) and the box says that it lags: it is then brought up to date by one coalesced transaction.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable

from sdn.controller.effects import Topic
from sdn.controller.topics import Message
from sdn.model.codec import encode_msgpack
from sdn.model.ids import Revision
from sdn.model.stream import Sync

Entry = Message | Revision | bytes
"""A message of the state, the end of a transaction (Sync), or a reply."""


class Outbox:
    """`has` is what the host has of each topic, counting what was taken out; `synced` the last Sync taken out."""

    def __init__(self, lag_transactions: int) -> None:
        self.has: dict[Topic, int] = {}
        self.synced = Revision(0)
        self.lagging = False
        self._bound = lag_transactions
        self._entries: collections.deque[Entry] = collections.deque()
        self._transactions = 0

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, has: dict[Topic, int], synced: Revision) -> None:
        """What the host says that it has, as of one consistent cut `synced`."""
        self.has = dict(has)
        self.synced = synced

    def transaction(self, messages: Iterable[Message], revision: Revision) -> None:
        """Add a transaction's messages; while the host lags there is no use in that."""
        if self.lagging:
            return
        if self._transactions >= self._bound:
            self._entries = collections.deque(entry for entry in self._entries if isinstance(entry, bytes))
            self._transactions = 0
            self.lagging = True
            return
        self._entries.extend(messages)
        self._entries.append(revision)
        self._transactions += 1

    def lag(self) -> None:
        """Throw away what waits of the state: it is to be computed anew."""
        bound, self._bound, self.lagging = self._bound, 0, False
        self.transaction((), self.synced)
        self._bound = bound

    def catch_up(self, messages: Iterable[Message], revision: Revision) -> None:
        """Go on after a lag: the replies that waited come after what they depend on."""
        replies = self._entries
        self._entries = collections.deque(messages)
        self._entries.append(revision)
        self._entries.extend(replies)
        self._transactions = 1
        self.lagging = False

    def reply(self, data: bytes) -> None:
        """Add a reply; replies are bounded by the agent's own requests."""
        self._entries.append(data)

    def take(self) -> bytes:
        """The next message. There must be one, and no lag."""
        entry = self._entries.popleft()
        if isinstance(entry, bytes):
            return entry
        if isinstance(entry, Message):
            if entry.revision is None:
                self.has.pop(entry.topic, None)
            else:
                self.has[entry.topic] = entry.revision
            return entry.data
        self.synced = entry
        self._transactions -= 1
        return encode_msgpack(Sync(revision=entry))
