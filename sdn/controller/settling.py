"""Who has attempted which revision, and who waits for it.

The reports of the agents are soft state: after a restart, the controller's or the agent's, each host's first report
says it again. A session that resumes goes on from what the one before has said.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Callable, Iterable

from sdn.controller.effects import Topic
from sdn.model.ids import HostId, NetworkId, Revision, TenantId
from sdn.reconcile.failures import LEFTOVER
from sdn.reconcile.unit import key_text

REVISIONS_KEPT = 4096
"""For how many of the last revisions the hosts concerned are known; an older one is taken to concern every host."""


NO_REVISION = Revision(0)


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far one host has said that it is."""

    applied: Revision = NO_REVISION
    failures: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Concern:
    """A revision concerns the holders of these topics, and other hosts: those that lost something of a tenant."""

    topics: tuple[Topic, ...]
    others: frozenset[tuple[TenantId, HostId]]


@dataclasses.dataclass(eq=False, slots=True)
class Wait:
    """One wait for some hosts to attempt a revision. `done` is called once, with those that were late."""

    revision: Revision
    pending: set[HostId]
    done: Callable[[list[HostId]], None]
    late: set[HostId] = dataclasses.field(default_factory=set)
    timer: asyncio.TimerHandle | None = None


class Settling:
    """Reports in, waits ended."""

    def __init__(self) -> None:
        self.progress: dict[HostId, Progress] = {}
        self._waits: dict[HostId, dict[Wait, None]] = {}
        """In the order in which they began: who waited first is told first."""
        self._concerned: dict[Revision, Concern] = {}
        self._order: collections.deque[Revision] = collections.deque()
        self._oldest = Revision(0)

    def concern(self, revision: Revision, concern: Concern) -> None:
        """Whom a revision concerns."""
        self._concerned[revision] = concern
        self._order.append(revision)
        if len(self._order) > REVISIONS_KEPT:
            self._oldest = self._order.popleft()
            del self._concerned[self._oldest]

    def concerned(self, revision: Revision) -> Concern | None:
        """Whom a revision concerns; None: not known any more."""
        return self._concerned.get(revision)

    def applied(self, host: HostId) -> Revision:
        """The revision that a host has attempted."""
        progress = self.progress.get(host)
        return progress.applied if progress else Revision(0)

    def removed(self, host: HostId, network: NetworkId, revision: Revision) -> bool:
        """Whether a host has attempted the removal of a network, at `revision`, and nothing says that it failed.

        What an agent that restarted since cannot remove it reports as of no unit: that may be of this network.
        """
        progress = self.progress.get(host, Progress())
        failed = {key_text(("network", network)), key_text(LEFTOVER)} & progress.failures.keys()
        return progress.applied >= revision and not failed

    def report(self, host: HostId, revision: Revision, failures: dict[str, str]) -> None:
        """All up to `revision` was attempted on the host. Reports of one session never go back."""
        self.progress[host] = Progress(revision, failures)
        for wait in [wait for wait in self._waits.get(host, ()) if wait.revision <= revision]:
            self._leave(host, wait)

    def anew(self, host: HostId) -> None:
        """A session has begun with nothing: what an earlier one said counts no more, and whoever waits goes on to."""
        self.progress.pop(host, None)

    def wait(
        self, revision: Revision, hosts: Iterable[HostId], timeout_s: float, done: Callable[[list[HostId]], None]
    ) -> Wait:
        """Call `done` once each of `hosts` has attempted `revision`, or after `timeout_s` with those that have not.

        At once, before this returns, where there is nobody to wait for.
        """
        pending = {host for host in hosts if self.applied(host) < revision}
        wait = Wait(revision, pending, done)
        for host in pending:
            self._waits.setdefault(host, {})[wait] = None
        if pending:
            wait.timer = asyncio.get_running_loop().call_later(timeout_s, self._time_up, wait)
        else:
            done([])
        return wait

    def gone(self, host: HostId) -> None:
        """The host is not connected any more: whoever waits for it need not, and counts it as late."""
        for wait in list(self._waits.get(host, ())):
            wait.late.add(host)
            self._leave(host, wait)

    def forget(self, host: HostId) -> None:
        """The host exists no more."""
        self.gone(host)
        self.progress.pop(host, None)

    def cancel(self, wait: Wait) -> None:
        """Nobody cares any more; `done` is not called."""
        for host in wait.pending:
            self._waits[host].pop(wait, None)
            if not self._waits[host]:
                del self._waits[host]
        wait.pending.clear()
        if wait.timer:
            wait.timer.cancel()

    def _leave(self, host: HostId, wait: Wait) -> None:
        wait.pending.discard(host)
        self._waits[host].pop(wait, None)
        if not self._waits[host]:
            del self._waits[host]
        if not wait.pending:
            if wait.timer:
                wait.timer.cancel()
            wait.done(sorted(wait.late))

    def _time_up(self, wait: Wait) -> None:
        late = sorted(wait.late | wait.pending)
        self.cancel(wait)
        wait.done(late)
