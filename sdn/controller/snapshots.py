"""Whole topics, encoded once for as many hosts as ask for them at the same state.

After a power cut every host of a network asks for the same topic at once: what waits for them is then one copy.
"""

from __future__ import annotations

from sdn.controller.effects import Topic
from sdn.controller.state import State
from sdn.controller.topics import Message, snapshot
from sdn.model.ids import Revision

KEPT_BYTES = 8 << 20
"""Two networks of 10 000 endpoints; more would be kept for nobody in quiet times."""


class Snapshots:
    """topic -> its messages, as long as the topic is as it was."""

    def __init__(self) -> None:
        self._kept: dict[Topic, tuple[Revision, list[Message]]] = {}
        self._bytes = 0

    def of(self, topic: Topic, revision: Revision, state: State) -> list[Message]:
        """The whole of a topic whose last change was `revision`."""
        kept = self._kept.get(topic)
        if kept is not None and kept[0] == revision:
            return kept[1]
        messages = snapshot(topic, revision, state)
        self._keep(topic, revision, messages)
        return messages

    def forget(self, topic: Topic) -> None:
        """The topic is about to change, or is gone."""
        kept = self._kept.pop(topic, None)
        if kept is not None:
            self._bytes -= sum(len(message.data) for message in kept[1])

    def clear(self) -> None:
        """Anything may have changed."""
        self._kept.clear()
        self._bytes = 0

    def _keep(self, topic: Topic, revision: Revision, messages: list[Message]) -> None:
        self.forget(topic)
        size = sum(len(message.data) for message in messages)
        if self._bytes + size > KEPT_BYTES:
            self.clear()
        self._kept[topic] = (revision, messages)
        self._bytes += size
