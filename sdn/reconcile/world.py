"""The world as the agent knows it: whole transactions of the stream in, dirty units out. Pure.

Deltas are collected until their `Sync`; only then do they become visible, all at once. Equal values dirty nothing, so
a topic that begins anew (a snapshot after a lost connection) costs lowering only where it differs.

Who depends on whom: a tenant's header dirties its networks and their endpoints, a network's header its endpoints, a
member its network and the endpoints of that host in it, an endpoint itself alone, this host's VTEPs everything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import MappingProxyType

from sdn.model.ids import EndpointId, HostId, NetworkId, TenantId
from sdn.model.resources import Endpoint, Host, Member, Network, Tenant
from sdn.model.stream import Delta, Drop, Sync
from sdn.reconcile.topics import Staged, StreamBrokenError, Transaction, Value, split_topic
from sdn.reconcile.unit import Context, EndpointUnit, Here, NetworkUnit, TenantUnit, Unit, UnitKey


@dataclasses.dataclass(frozen=True, slots=True)
class Applied:
    """A transaction took effect: its revision and the units that may lower differently now, or are gone."""

    revision: int
    dirty: set[UnitKey]


class World:
    """Tenants, networks, members and endpoints by the stream's topics; see the module's text.

    `complete`: a whole snapshot has been applied. Before that nothing may be removed from the kernel.
    """

    def __init__(self, here_host: HostId) -> None:
        self.complete = False
        self.revision = 0
        self._revisions: dict[str, int] = {}
        self._anew = True
        self._transaction = Transaction({})
        self._unreported: set[UnitKey] = set()
        self._tenants: dict[TenantId, Tenant] = {}
        self._networks: dict[NetworkId, Network] = {}
        self._members: dict[tuple[NetworkId, HostId], Member] = {}
        self._hosts: dict[HostId, Host] = {}
        self._endpoints: dict[EndpointId, Endpoint] = {}
        self._member_hosts: dict[NetworkId, set[HostId]] = {}
        self._placed: dict[NetworkId, dict[HostId, set[EndpointId]]] = {}
        self._local: dict[tuple[str, str], EndpointId] = {}
        self._withdrawn: set[EndpointId] = set()
        self._context = self._view(Here(here_host, None, None))

    # What the stream says -------------------------------------------------------------------------------------------

    def begin(self, resumed: bool) -> None:
        """A stream has begun (the controller's Welcome): what an earlier one left unfinished is void.

        Not `resumed`: every topic begins anew, and what is not sent again by the first Sync is held no longer. Until
        that Sync the old content stays.
        """
        self._anew = not resumed
        self._transaction = Transaction(self._revisions if resumed else {})

    def apply(self, *messages: Delta | Drop | Sync) -> Applied | None:
        """Take messages in their order; what the last of their transactions did, or None while one is unfinished.

        Several finished transactions are one: the last revision, all dirty units. Raises: StreamBrokenError; then
        nothing of the unfinished transaction stays, and the stream has to begin again with a hello without topics.
        """
        applied: Applied | None = None
        for message in messages:
            try:
                done = self._take(message)
            except StreamBrokenError:
                self.begin(resumed=False)
                if applied:
                    self._unreported |= applied.dirty
                raise
            if done is not None:
                applied = Applied(done.revision, done.dirty | applied.dirty) if applied else done
        if applied:
            applied.dirty.update(self._unreported)
            self._unreported.clear()
        return applied

    def topics(self) -> dict[str, int]:
        """Topic -> revision that is here, for a hello that wants to resume."""
        return dict(self._revisions)

    def _take(self, message: Delta | Drop | Sync) -> Applied | None:
        match message:
            case Delta():
                self._transaction.delta(message)
                return None
            case Drop():
                self._transaction.drop(message)
                return None
            case Sync():
                return Applied(message.revision, self._commit(message.revision))

    def _commit(self, revision: int) -> set[UnitKey]:
        staged = self._transaction.topics
        if self._anew:
            for topic in self._revisions.keys() - staged.keys():
                staged[topic] = Staged(revision, anew=True, dropped=True)
        dirty: set[UnitKey] = set()
        # All removals first: an endpoint that one topic loses and another gets is never removed after it came.
        for topic, change in staged.items():
            gone = {key for key in self._content(topic) if key not in change.puts} if change.anew else change.deletes
            for key in sorted(gone):
                self._remove(topic, key, dirty)
        for topic, change in staged.items():
            for value in change.puts.values():
                self._put(topic, value, dirty)
            if change.dropped:
                self._revisions.pop(topic, None)
            else:
                self._revisions[topic] = change.revision
        self.revision = revision
        self.complete = True
        self._anew = False
        self._transaction = Transaction(self._revisions)
        return dirty

    def _content(self, topic: str) -> Iterator[str]:
        kind, id_ = split_topic(topic)
        network = NetworkId(id_)
        if kind in ("tenant", "host"):
            yield kind
        elif kind == "network":
            yield "network"
            for host in self._member_hosts.get(network, ()):
                yield f"member/{host}"
            for endpoints in self._placed.get(network, {}).values():
                for endpoint in endpoints:
                    yield f"endpoint/{endpoint}"

    def _put(self, topic: str, value: Value, dirty: set[UnitKey]) -> None:
        match value:
            case Tenant():
                if self._tenants.get(value.id) != value:
                    self._tenants[value.id] = value
                    self._dirty_tenant(value.id, dirty)
            case Network():
                if self._networks.get(value.id) != value:
                    self._networks[value.id] = value
                    self._dirty_network(value.id, dirty)
            case Member():
                network = NetworkId(split_topic(topic)[1])
                if self._members.get((network, value.host)) != value:
                    self._members[network, value.host] = value
                    self._member_hosts.setdefault(network, set()).add(value.host)
                    self._dirty_member(network, value.host, dirty)
            case Endpoint():
                old = self._endpoints.get(value.id)
                if old != value:
                    if old is not None:
                        self._unplace(old)
                    self._place(value)
                    dirty.add(("endpoint", value.id))
            case Host():
                self._hosts[value.id] = value

    def _remove(self, topic: str, key: str, dirty: set[UnitKey]) -> None:
        kind, id_ = split_topic(topic)
        part, _, part_id = key.partition("/")
        match kind, part:
            case "tenant", "tenant":
                if self._tenants.pop(TenantId(id_), None) is not None:
                    self._dirty_tenant(TenantId(id_), dirty)
            case "network", "network":
                if self._networks.pop(NetworkId(id_), None) is not None:
                    self._dirty_network(NetworkId(id_), dirty)
            case "network", "member":
                self._remove_member(NetworkId(id_), HostId(part_id), dirty)
            case "network", "endpoint":
                endpoint = self._endpoints.get(EndpointId(part_id))
                if endpoint is not None and endpoint.network == id_:
                    self._unplace(endpoint)
                    self._withdrawn.discard(endpoint.id)
                    dirty.add(("endpoint", endpoint.id))
            case "host", "host":
                self._hosts.pop(HostId(id_), None)
            case _:  # of a kind that a newer peer knows: it was never kept
                pass

    def _remove_member(self, network: NetworkId, host: HostId, dirty: set[UnitKey]) -> None:
        if self._members.pop((network, host), None) is None:
            return
        hosts = self._member_hosts[network]
        hosts.discard(host)
        if not hosts:
            del self._member_hosts[network]
        self._dirty_member(network, host, dirty)

    def _place(self, endpoint: Endpoint) -> None:
        self._endpoints[endpoint.id] = endpoint
        self._placed.setdefault(endpoint.network, {}).setdefault(endpoint.host, set()).add(endpoint.id)
        if endpoint.host == self.here.host:
            self._local[endpoint.container, endpoint.ifname] = endpoint.id

    def _unplace(self, endpoint: Endpoint) -> None:
        del self._endpoints[endpoint.id]
        hosts = self._placed[endpoint.network]
        hosts[endpoint.host].discard(endpoint.id)
        if not hosts[endpoint.host]:
            del hosts[endpoint.host]
        if not hosts:
            del self._placed[endpoint.network]
        if self._local.get((endpoint.container, endpoint.ifname)) == endpoint.id:
            del self._local[endpoint.container, endpoint.ifname]

    # Who depends on whom --------------------------------------------------------------------------------------------

    def _dirty_tenant(self, tenant: TenantId, dirty: set[UnitKey]) -> None:
        dirty.add(("tenant", tenant))
        for network in self._networks.values():
            if network.tenant == tenant:
                self._dirty_network(network.id, dirty)

    def _dirty_network(self, network: NetworkId, dirty: set[UnitKey]) -> None:
        dirty.add(("network", network))
        for endpoints in self._placed.get(network, {}).values():
            dirty.update(("endpoint", endpoint) for endpoint in endpoints)

    def _dirty_member(self, network: NetworkId, host: HostId, dirty: set[UnitKey]) -> None:
        dirty.add(("network", network))
        dirty.update(("endpoint", endpoint) for endpoint in self._placed.get(network, {}).get(host, ()))

    # What this host knows by itself ---------------------------------------------------------------------------------

    def set_here(self, vtep4: str | None, vtep6: str | None) -> set[UnitKey]:
        """This host's VTEPs; the units that depend on them (none when nothing changed)."""
        here = Here(self.here.host, vtep4, vtep6)
        if here == self.here:
            return set()
        self._context = self._view(here)
        return set(self.unit_keys())

    def withdraw(self, endpoint: EndpointId) -> set[UnitKey]:
        """Treat an endpoint of this host as absent, though its release has not come back yet; the dirty units.

        An id is never used again, so this holds until the stream removes it. Unknown ids and remote ones: no effect.
        """
        known = self._endpoints.get(endpoint)
        if known is None or known.host != self.here.host or endpoint in self._withdrawn:
            return set()
        self._withdrawn.add(endpoint)
        return {("endpoint", endpoint)}

    # What is there --------------------------------------------------------------------------------------------------

    @property
    def here(self) -> Here:
        """This host and its VTEPs."""
        return self._context.here

    @property
    def host(self) -> Host | None:
        """This host as the controller knows it; None until its topic has come."""
        return self._hosts.get(self.here.host)

    def context(self) -> Context:
        """What lowering may look at: live views, no copies."""
        return self._context

    def unit_keys(self) -> Iterator[UnitKey]:
        """The key of every unit that exists."""
        for tenant in self._tenants:
            yield ("tenant", tenant)
        for network in self._networks.values():
            if network.tenant in self._tenants:
                yield ("network", network.id)
        for endpoint in self._endpoints.values():
            if self._exists(endpoint):
                yield ("endpoint", endpoint.id)

    def units(self) -> Iterator[Unit]:
        """Every unit that exists, tenants first."""
        for key in self.unit_keys():
            unit = self.unit(key)
            assert unit is not None, key
            yield unit

    def unit(self, key: UnitKey) -> Unit | None:
        """One unit; None when it, or a header that it names, is not there (or it was withdrawn)."""
        match key:
            case ("tenant", id_):
                tenant = self._tenants.get(TenantId(id_))
                return TenantUnit(tenant) if tenant else None
            case ("network", id_):
                network = self._networks.get(NetworkId(id_))
                if network is None or network.tenant not in self._tenants:
                    return None
                hosts = sorted(self._member_hosts.get(network.id, ()))
                return NetworkUnit(network, tuple(self._members[network.id, host] for host in hosts))
            case ("endpoint", id_):
                endpoint = self._endpoints.get(EndpointId(id_))
                return EndpointUnit(endpoint) if endpoint and self._exists(endpoint) else None

    def endpoint(self, endpoint: EndpointId) -> Endpoint | None:
        """An endpoint by its id, here or elsewhere; None when unknown or withdrawn."""
        known = self._endpoints.get(endpoint)
        return None if known is None or self._is_withdrawn(known) else known

    def local_endpoint(self, container: str, ifname: str) -> Endpoint | None:
        """The endpoint of this host by its unique key; None when there is none or it was withdrawn."""
        id_ = self._local.get((container, ifname))
        return None if id_ is None else self.endpoint(id_)

    def local_endpoints(self) -> Iterator[Endpoint]:
        """Every endpoint of this host that was not withdrawn."""
        for id_ in self._local.values():
            endpoint = self.endpoint(id_)
            if endpoint is not None:
                yield endpoint

    def _exists(self, endpoint: Endpoint) -> bool:
        network = self._networks.get(endpoint.network)
        return network is not None and network.tenant in self._tenants and not self._is_withdrawn(endpoint)

    def _is_withdrawn(self, endpoint: Endpoint) -> bool:
        return endpoint.id in self._withdrawn and endpoint.host == self.here.host

    def _view(self, here: Here) -> Context:
        return Context(
            here=here,
            tenants=MappingProxyType(self._tenants),
            networks=MappingProxyType(self._networks),
            members=MappingProxyType(self._members),
        )
