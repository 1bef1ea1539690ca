"""Events: what happened, in order, resumable.

Those of the change log are read from it, whenever they are asked for; soft ones (a host that went away) are kept in
memory, the last thousand of them, beside the revision at which they happened.
"""

from __future__ import annotations

import collections
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from sdn.controller.bell import Bell
from sdn.controller.note import read_note
from sdn.model.ids import Revision
from sdn.model.resources import Value
from sdn.store.interface import OPERATIONS_MAX, Change, Store

SOFT_KEPT = 1000
BATCH_CHANGES = 500
OWNER_KEYS = {"tenant": "id", "network": "tenant", "endpoint": "tenant"}
"""Kinds of events that are a tenant's, and which of their data has its id; all others are nobody's."""


class Event(Value, frozen=True, kw_only=True):
    """`id` is `revision.number`. Events of the change log are durable; soft ones (number from 100) are not.

    Kinds: tenant.created|updated|removed, network.created|updated|removed, host.created|credential|rotated|connected|
    updated|certificate|drained|undrained|forgotten, host.disconnected|authority-not-kept (soft), authority.changed
    (soft), token.created|used|revoked, endpoint.attached|released, endpoint.late (soft). `data`: ids, names, reasons.

    `tenant`: whose it is, "" where nobody's; `number_within`: as `number`, but counted among that tenant's alone.
    """

    revision: int
    number: int
    kind: str
    time_s: float
    actor: str = ""
    data: dict[str, Any] = {}
    tenant: str = ""
    number_within: int = 0

    @property
    def id(self) -> str:
        """`revision.number`, as in Last-Event-ID."""
        return f"{self.revision}.{self.number}"

    def confined(self) -> Event:
        """As its tenant's users see it: numbered among that tenant's, and without VNIs."""
        data = {key: value for key, value in self.data.items() if key != "vni"}
        return msgspec.structs.replace(self, number=self.number_within, data=data)


def owner_of(kind: str, data: dict[str, Any]) -> str:
    """The tenant that an event is about; "": none. An event says it itself: what it is about may be gone."""
    key = OWNER_KEYS.get(kind.partition(".")[0])
    return str(data.get(key, "")) if key else ""


def events_of(change: Change) -> list[Event]:
    """The events of one transaction."""
    note = read_note(change.note)
    counted: collections.Counter[str] = collections.Counter()
    events = []
    for number, happening in enumerate(note.happened):
        tenant = owner_of(happening.kind, happening.data)
        events.append(
            Event(
                revision=change.revision,
                number=number,
                kind=happening.kind,
                time_s=change.time_s,
                actor=note.actor,
                data=happening.data,
                tenant=tenant,
                number_within=counted[tenant],
            )
        )
        counted[tenant] += 1
    return events


class EventLog:
    """Both sorts of events as one sequence."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._soft: collections.deque[Event] = collections.deque(maxlen=SOFT_KEPT)
        self._counted: collections.Counter[str] = collections.Counter()
        """Soft events by tenant, of the revision of the last one."""
        self._bell = Bell()
        self._head = Revision(0)
        self._closed = False

    def committed(self, revision: Revision) -> None:
        """There are changes up to `revision`."""
        self._head = max(self._head, revision)
        self._bell.ring()

    def soft(self, kind: str, **data: Any) -> None:
        """Something happened that no transaction tells of."""
        last = self._soft[-1] if self._soft else None
        if last is None or last.revision != self._head:
            self._counted.clear()
        tenant = owner_of(kind, data)
        event = Event(
            revision=self._head,
            number=OPERATIONS_MAX + self._counted.total(),
            kind=kind,
            time_s=self._clock(),
            actor="controller",
            data=data,
            tenant=tenant,
            number_within=OPERATIONS_MAX + self._counted[tenant],
        )
        self._counted[tenant] += 1
        self._soft.append(event)
        self._bell.ring()

    def close(self) -> None:
        """End every iteration."""
        self._closed = True
        self._bell.ring()

    async def follow(self, since: Revision, number: int, follow: bool) -> AsyncIterator[Event]:
        """See Core.events."""
        cursor = (int(since), number if number >= 0 else OPERATIONS_MAX - 1)
        while not self._closed:
            ring = self._bell.next
            whole = cursor[1] >= OPERATIONS_MAX - 1
            position = Revision(cursor[0] if whole else max(cursor[0] - 1, 0))
            changes = await self._store.changes(position, BATCH_CHANGES)
            read = max(cursor[0], changes[-1].revision if changes else 0)
            self._head = max(self._head, Revision(read))  # a soft event from now on comes after what was read
            found = [event for change in changes for event in events_of(change)]
            found += [event for event in self._soft if event.revision <= read]
            for event in sorted(found, key=lambda event: (event.revision, event.number)):
                if (event.revision, event.number) > cursor:
                    yield event
                    cursor = (event.revision, event.number)
            cursor = max(cursor, (read, OPERATIONS_MAX - 1))
            if len(changes) < BATCH_CHANGES:
                if not follow:
                    return
                await ring.wait()
