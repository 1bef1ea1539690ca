"""Who may hold how many connections, and who has to go when there are too many.

A connection is *unproven* until somebody has shown a credential over it. The unproven ones are bounded, in all and of
one source (an address; IPv6: a /64); one too many displaces the oldest of the source that has the most. So who opens
thousands displaces his own, and whoever comes after him still gets in: an honest client shows its credential within a
second and is never displaced afterwards. Hosts and users are bounded by who they are, not by where they come from.

No sockets, no clock: connections are any hashable things. The gate does what is decided here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Generic, Literal, TypeVar

C = TypeVar("C", bound=Hashable)
Holder = tuple[Literal["user", "host"], str]

OWN_DESCRIPTORS = 64
"""Of the process itself: the store, the log, listeners, the loop."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Connections. One that shakes hands costs 100 KB: a thousand are bearable, and a fleet that comes back at once.

    A source may hold half of the unproven ones: there may be a NAT between.
    """

    unproven: int = 1024
    users: int = 1024
    per_user: int = 128
    per_host: int = 8
    local: int = 512

    @property
    def per_source(self) -> int:
        """Of the unproven."""
        return max(1, self.unproven // 2)


def limits_for(descriptors: int) -> Limits:
    """The limits of a process that may have so many descriptors: at least half of them are left for hosts' streams."""
    half = max(8, (descriptors - OWN_DESCRIPTORS) // 2)
    most = Limits()
    return Limits(
        unproven=min(most.unproven, half // 2),
        users=min(most.users, half // 4),
        per_user=min(most.per_user, half // 8),
        local=min(most.local, half // 4),
    )


class Governor(Generic[C]):
    """The table of connections that have not proved anything, and of those of each user and host. All in O(1)."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._source_of: dict[C, str] = {}
        self._sources: dict[str, dict[C, None]] = {}
        """The connections of each source, the oldest first."""
        self._ranks: dict[int, dict[str, None]] = {}
        """The sources that have so many."""
        self._most = 0
        self._holder_of: dict[C, Holder] = {}
        self._held: dict[Holder, dict[C, None]] = {}
        self.users = 0
        self.hosts = 0

    @property
    def unproven(self) -> int:
        """How many have proved nothing."""
        return len(self._source_of)

    def arrived(self, connection: C, source: str) -> C | None:
        """Take in a new one; the one that has to go for it, which is forgotten already."""
        self._source_of[connection] = source
        mine = self._sources.setdefault(source, {})
        self._rank(source, len(mine), len(mine) + 1)
        mine[connection] = None
        if len(mine) > self.limits.per_source:
            return self._oldest(source)
        if len(self._source_of) > self.limits.unproven:
            return self.displaced()
        return None

    def displaced(self) -> C | None:
        """The oldest of the source that has the most, forgotten; None where there is none."""
        return self._oldest(next(iter(self._ranks[self._most]))) if self._most else None

    def user(self, connection: C, user: str) -> bool:
        """It is this user's from now on; whether there was room. Without, it stays what it was."""
        holder: Holder = ("user", user)
        if self._holder_of.get(connection) == holder:
            return True
        if self.users >= self.limits.users or len(self._held.get(holder, ())) >= self.limits.per_user:
            return False
        self._hold(connection, holder)
        return True

    def host(self, connection: C, host: str) -> C | None:
        """It is this host's from now on; the one that has to go: the host's oldest, which nobody serves any more."""
        holder: Holder = ("host", host)
        if self._holder_of.get(connection) == holder:
            return None
        self._hold(connection, holder)
        mine = self._held[holder]
        if len(mine) <= self.limits.per_host:
            return None
        oldest = next(iter(mine))
        self.left(oldest)
        return oldest

    def left(self, connection: C) -> None:
        """It is gone. One that is not known is fine."""
        source = self._source_of.pop(connection, None)
        if source is not None:
            mine = self._sources[source]
            del mine[connection]
            self._rank(source, len(mine) + 1, len(mine))
            if not mine:
                del self._sources[source]
        holder = self._holder_of.pop(connection, None)
        if holder is not None:
            del self._held[holder][connection]
            if not self._held[holder]:
                del self._held[holder]
            self._count(holder, -1)

    def _oldest(self, source: str) -> C:
        oldest = next(iter(self._sources[source]))
        self.left(oldest)
        return oldest

    def _hold(self, connection: C, holder: Holder) -> None:
        self.left(connection)
        self._holder_of[connection] = holder
        self._held.setdefault(holder, {})[connection] = None
        self._count(holder, 1)

    def _count(self, holder: Holder, change: int) -> None:
        if holder[0] == "user":
            self.users += change
        else:
            self.hosts += change

    def _rank(self, source: str, before: int, now: int) -> None:
        """A source has one more, or one less."""
        if before:
            del self._ranks[before][source]
            if not self._ranks[before]:
                del self._ranks[before]
        if now:
            self._ranks.setdefault(now, {})[source] = None
        if now > self._most or self._most not in self._ranks:
            self._most = now
