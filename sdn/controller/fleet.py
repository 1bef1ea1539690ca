"""The fleet: which hosts are connected, what each is to be sent after a transaction, and how far it is."""

from __future__ import annotations

from collections.abc import Iterable

from sdn.controller import topics
from sdn.controller.bell import Bell
from sdn.controller.effects import Effects, Topic
from sdn.controller.events import EventLog
from sdn.controller.ledger import Ledger
from sdn.controller.session import HostStream
from sdn.controller.settling import Concern, Settling
from sdn.controller.snapshots import Snapshots
from sdn.controller.status import HostState, Status, Step
from sdn.controller.topics import Message, Missed
from sdn.model.errors import conflict
from sdn.model.ids import HostId, Revision, TenantId
from sdn.model.resources import Host
from sdn.store.interface import CompactedError


class Fleet:
    """Hears of every transaction from the ledger and puts each host's part into its box."""

    def __init__(self, ledger: Ledger, events: EventLog, resume_changes: int) -> None:
        self.streams: dict[HostId, HostStream] = {}
        self.settling = Settling()
        self._newest: dict[HostId, int] = {}
        """The number of each host's newest connection that has said hello."""
        self.progressed = Bell()
        self._ledger = ledger
        self._events = events
        self._resume_changes = resume_changes
        self._snapshots = Snapshots()
        self._revisions: dict[Topic, Revision] = {}
        self._floor = ledger.state.revision
        """Topics that have not changed since the state was read are taken to have changed just then."""
        ledger.listener = self

    # --- after a transaction ---

    def applied(self, effects: Effects, revision: Revision) -> None:
        """See ledger.Listener."""
        state = self._ledger.state
        sent: dict[HostId, list[Message]] = {}
        changes = topics.changes_of(effects, state)
        for topic, change in changes.items():
            previous = self.revision_of(topic)
            self._revisions[topic] = revision
            self._snapshots.forget(topic)
            hosts = [host for host in state.holders_of(topic) if self._follows(host, topic, effects)]
            if hosts:
                message = Message(topic, revision, topics.encode_delta(topic, previous, revision, change))
                for host in hosts:
                    sent.setdefault(host, []).append(message)
        self._begin_topics(effects, sent)
        for topic, host in sorted(effects.lost):
            sent.setdefault(host, []).append(topics.encode_drop(topic, revision))
        others = self._others(effects)
        for _, host in others:
            sent.setdefault(host, [])
        self.settling.concern(revision, Concern(tuple(changes), others))
        for host, messages in sent.items():
            if stream := self.streams.get(host):
                stream.box.transaction(messages, revision)
                stream.wake()
        self._forget(effects)
        self._events.committed(revision)

    def reloaded(self) -> None:
        """See ledger.Listener: every host is brought up to date from the change log."""
        self._revisions.clear()
        self._snapshots.clear()
        self._floor = self._ledger.state.revision
        for stream in self.streams.values():
            stream.box.lag()
            stream.wake()
        self._events.committed(self._floor)

    def _follows(self, host: HostId, topic: Topic, effects: Effects) -> bool:
        return host in self.streams and (topic, host) not in effects.gained

    def _begin_topics(self, effects: Effects, sent: dict[HostId, list[Message]]) -> None:
        whole: dict[Topic, list[Message]] = {}
        for topic, host in sorted(effects.gained):
            if host in self.streams:
                if topic not in whole:
                    whole[topic] = topics.snapshot(topic, self.revision_of(topic), self._ledger.state)
                sent.setdefault(host, []).extend(whole[topic])

    def _others(self, effects: Effects) -> frozenset[tuple[TenantId, HostId]]:
        """The hosts that lost a topic of a tenant, or ever had a network that is removed.

        Each has to say that it applied the removal.
        """
        state = self._ledger.state
        found = {
            (endpoint.tenant, endpoint.host)
            for endpoint in effects.endpoints_gone
            if (f"network/{endpoint.network}", endpoint.host) in effects.lost
        }
        for network in effects.networks_gone:
            if record := state.vnis.get(network.vni):
                found |= {(network.tenant, host) for host in record.hosts if host in state.hosts}
        return frozenset(found)

    def _forget(self, effects: Effects) -> None:
        for network in effects.networks_gone:
            self._revisions.pop(f"network/{network.id}", None)
            self._snapshots.forget(f"network/{network.id}")
        for host in effects.hosts_gone:
            self._revisions.pop(f"host/{host}", None)
            self._snapshots.forget(f"host/{host}")
            self.settling.forget(host)
            self._newest.pop(host, None)
            if stream := self.streams.get(host):
                stream.refuse(conflict("this host was forgotten", "create it again and give it a new credential"))

    def revision_of(self, topic: Topic) -> Revision:
        """The revision of the last change of a topic; never less than the true one."""
        return self._revisions.get(topic, self._floor)

    # --- resume ---

    async def catch_up(self, host: HostId, has: dict[Topic, int], synced: Revision) -> tuple[list[Message], bool]:
        """What takes a host from what it has to the present, and whether it can keep what it has.

        To be called while nobody writes. `synced`: the cut as of which it has that.
        """
        state = self._ledger.state
        wanted = state.topics_of(host)
        revisions = {topic: self.revision_of(topic) for topic in wanted}
        missed = await self._missed(synced) if has else None
        return topics.catch_up(wanted, has, missed, revisions, self._whole, state), missed is not None

    def _whole(self, topic: Topic) -> list[Message]:
        return self._snapshots.of(topic, self.revision_of(topic), self._ledger.state)

    async def _missed(self, synced: Revision) -> Missed | None:
        state = self._ledger.state
        if synced > state.revision or state.revision - synced > self._resume_changes:
            return None
        try:
            changes = await self._ledger.store.changes(synced, self._resume_changes)
        except CompactedError:
            return None
        return topics.missed_of(changes, state)

    # --- sessions ---

    def check_newest(self, host: Host, stream: HostStream) -> None:
        """Raises: CONFLICT for a hello that a dead agent said, and that comes after its successor's."""
        if stream.number < self._newest.get(host.id, 0):
            raise conflict(
                f"a newer connection of host {host.name} has said hello already",
                "connect again, if this is not the agent of before",
                host=host.name,
            )

    def join(self, stream: HostStream, resumed: bool) -> None:
        """The stream is the host's conversation from now on; an older one is over.

        Not `resumed`: the host has nothing until it says that it has applied the snapshot.
        """
        older = self.streams.get(stream.host)
        self.streams[stream.host] = stream
        self._newest[stream.host] = stream.number
        if older is not None:
            older.refuse(conflict("a newer session of this host has begun", "is the agent started twice?"))
        if not resumed:
            self.settling.anew(stream.host)

    def leave(self, stream: HostStream) -> None:
        """The stream is over."""
        if self.streams.get(stream.host) is not stream:
            return
        del self.streams[stream.host]
        self.settling.gone(stream.host)
        self.progressed.ring()
        if host := self._ledger.state.hosts.get(stream.host):
            self._events.soft("host.disconnected", id=host.id, name=host.name, session=stream.session)

    def check_vteps(self, host: Host, vtep4: str | None, vtep6: str | None) -> None:
        """Raises: CONFLICT when another host has one of these: one that is connected, has endpoints, or just joined.

        To whom the VTEP is, goes what is meant for the endpoints of its host, also while that is away. Who was here
        and has nothing may come back with another address: it keeps none from others meanwhile.
        """
        state = self._ledger.state
        for other in state.hosts.values():
            idle = other.session and other.id not in self.streams and len(state.topics_of(other.id)) < 2
            if other.id == host.id or idle:
                continue
            for vtep, theirs in ((vtep4, other.vtep4), (vtep6, other.vtep6)):
                if vtep is not None and vtep == theirs:
                    raise conflict(
                        f"host {host.name} says that its VTEP is {vtep}, which is the VTEP of host {other.name}",
                        "give each host its own underlay address, or name another with --vtep; "
                        f"if that host is gone: hawse host forget {other.name}",
                        vtep=vtep,
                        hosts=[host.name, other.name],
                    )

    # --- how far ---

    def concerned(self, revision: Revision, within: TenantId | None = None) -> set[HostId]:
        """The hosts that a revision concerns; where that is not known any more, all that hold anything.

        `within`: only those that it concerns because of this tenant.
        """
        state = self._ledger.state
        known = self.settling.concerned(revision)
        if known is None:
            return {
                host
                for host in state.hosts
                if (len(state.topics_of(host)) > 1 if within is None else host in state.holders_of(f"tenant/{within}"))
            }
        touched = [topic for topic in known.topics if within is None or state.tenant_of(topic) == within]
        hosts = {host for topic in touched for host in state.holders_of(topic)}
        hosts |= {host for tenant, host in known.others if within in (None, tenant)}
        return {host for host in hosts if host in state.hosts}

    def status(self) -> Status:
        """Every host, by name."""
        state = self._ledger.state
        return Status(revision=state.revision, hosts=tuple(self._table(state.hosts, None)))

    def table(self, revision: Revision, within: TenantId | None = None) -> list[HostState]:
        """The hosts that `revision` concerns (because of tenant `within`), by name, and where each is with it."""
        return self._table(self.concerned(revision, within), revision)

    def _table(self, hosts: Iterable[HostId], revision: Revision | None) -> list[HostState]:
        chosen = [self._ledger.state.hosts[host] for host in hosts]
        return [self._host_state(host, revision) for host in sorted(chosen, key=lambda host: host.name)]

    def _host_state(self, host: Host, revision: Revision | None) -> HostState:
        progress = self.settling.progress.get(host.id)
        applied = progress.applied if progress else Revision(0)
        failures = progress.failures if progress else {}
        connected = host.id in self.streams
        state: Step | None = None
        if revision is not None:
            if applied >= revision:
                state = Step.FAILED if failures else Step.APPLIED
            else:
                state = Step.LATE if connected else Step.NOT_CONNECTED
        return HostState(
            id=host.id, name=host.name, connected=connected, applied_revision=applied, failures=failures, state=state
        )
