"""What a principal sees and may name.

An administrator sees everything. For a tenant's user there is one tenant, and what is another's was never there: by
no name, id, filter, cursor, revision, event or sentence can it be told from what nobody ever made. Such a user sees of

    hosts       name and id of those that have endpoints of the tenant (or had, for the revision that removed them),
                whether they are connected, and whether they have attempted a revision that is asked about
                (`applied_revision` is that one, else 0); no labels, addresses, routes or versions
    failures    which units of the tenant's own a host could not set up, without the host's own words
    VNIs        nothing: they are numbers of the underlay, counted over all tenants; a network's `vni` is 0
    endpoints   all but `sandbox` and `incarnation` (0 and empty), which count what else a host has made
    revisions   as they are: they count every change of the controller. One that is not about the tenant concerns nobody
    events      of the tenant, its networks and endpoints, numbered among themselves
    pools       that they are used up, not by whom
    why         of its own endpoints: which host and stage; no entries, no addresses of hosts, none of a host's words

What is shared stays shared: subnets that are chosen keep clear of what the hosts can reach, MTUs of what they carry,
VNIs and the controller's time are for all.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from typing import TypeVar

import msgspec

from sdn.controller.edge import Edge
from sdn.controller.events import Event
from sdn.controller.inside import InsideError
from sdn.controller.principal import Principal, Role
from sdn.controller.problem import RefusedError
from sdn.controller.specs import NetworkSpec, SubnetSpec
from sdn.controller.state import State
from sdn.controller.status import HostState, Step
from sdn.controller.view import (
    AllocationView,
    DropCount,
    DropView,
    EndpointView,
    NetworkView,
    TenantView,
    allocation_view,
    drop_view,
    endpoint_view,
    has_labels,
    network_view,
    tenant_view,
)
from sdn.controller.why import why
from sdn.controller.why_view import WhyView
from sdn.model.errors import HawseError, conflict, unavailable
from sdn.model.ids import EndpointId, NetworkId, Revision, TenantId
from sdn.model.resources import Allocation, Endpoint, Host, Network, Tenant
from sdn.store.interface import CompareFailedError

T = TypeVar("T")
STREAMS_MAX = 64
"""Streams of events of all administrators."""
TENANT_STREAMS_MAX = 16
"""Of all users of one tenant: each tenant has its own, so that none takes those of another."""
DROPS_TIMEOUT_S = 5.0
"""For one host's answer."""
NOT_SET_UP = "the host cannot set this up; its administrators can see why"


class Scope:
    """All that a handler of a TENANT route has of the state. References are as `references` says."""

    __slots__ = ("_actor", "_core", "_edge", "_within")

    def __init__(self, edge: Edge, principal: Principal) -> None:
        assert principal.role is Role.ADMIN or principal.tenant is not None, principal
        self._edge = edge
        self._core = edge.core
        self._actor = principal.actor
        self._within = None if principal.role is Role.ADMIN else principal.tenant

    @property
    def revision(self) -> Revision:
        """The controller's."""
        return self._core.revision

    @property
    def _state(self) -> State:
        return self._core.state

    # --- by reference, and lists ---

    def tenant(self, reference: str) -> Tenant:
        """Raises: NOT_FOUND."""
        return self._state.resolve_tenant(reference, self._within)

    def network(self, reference: str) -> Network:
        """Raises: NOT_FOUND."""
        return self._state.resolve_network(reference, self._within)

    def endpoint(self, reference: str) -> Endpoint:
        """Raises: NOT_FOUND; CONFLICT when several tenants have the name."""
        return self._state.resolve_endpoint(reference, self._within)

    def host(self, reference: str) -> Host:
        """Raises: NOT_FOUND."""
        known = self._state.hosts if self._within is None else self._state.holders_of(f"tenant/{self._within}")
        return self._state.hosts[self._state.names.host(reference, known)]

    def hosts(self) -> list[Host]:
        """All, by name."""
        hosts = self._state.hosts
        ids = hosts if self._within is None else self._state.holders_of(f"tenant/{self._within}")
        return sorted((hosts[id_] for id_ in ids), key=lambda host: host.name)

    def tenants(self, labels: dict[str, str]) -> list[Tenant]:
        """Those with these labels."""
        found = (tenant for id_, tenant in self._state.tenants.items() if self._within in (None, id_))
        return [tenant for tenant in found if has_labels(tenant.labels, labels)]

    def networks(self, tenant: str | None, labels: dict[str, str]) -> list[Network]:
        """Those of a tenant (None: all), with these labels. Raises: NOT_FOUND."""
        return [network for network in self._networks(tenant, None) if has_labels(network.labels, labels)]

    def _networks(self, tenant: str | None, network: str | None) -> Iterator[Network]:
        owner = self.tenant(tenant).id if tenant else self._within
        found: Iterable[Network] = [self.network(network)] if network else self._state.networks.values()
        return (one for one in found if owner in (None, one.tenant))

    def endpoints(
        self, tenant: str | None, network: str | None, host: str | None, labels: dict[str, str]
    ) -> list[Endpoint]:
        """Those of a tenant, network, host (None: any), with these labels. Raises: NOT_FOUND."""
        networks = self._networks(tenant, network)
        on = self.host(host).id if host else None
        if self._within is None and not tenant and not network:
            found: Iterable[Endpoint] = self._state.endpoints_of(None, on)
        else:
            found = (endpoint for one in networks for endpoint in self._state.endpoints_of(one.id, on))
        return [endpoint for endpoint in found if has_labels(endpoint.labels, labels)]

    def allocations(self, tenant: str | None, network: str | None) -> Iterator[Allocation]:
        """The addresses held in a tenant's networks, or in one. Raises: NOT_FOUND."""
        networks = self._networks(tenant, network)
        return (allocation for one in networks for allocation in self._state.allocations(one.id))

    # --- shown ---

    def tenant_view(self, tenant: Tenant) -> TenantView:
        """As REST shows it."""
        return tenant_view(self._core, tenant)

    def network_view(self, network: Network, with_usage: bool = False) -> NetworkView:
        """As REST shows it."""
        shown = network if self._within is None else msgspec.structs.replace(network, vni=0)
        return network_view(self._core, shown, with_usage)

    def endpoint_view(self, endpoint: Endpoint) -> EndpointView:
        """As REST shows it."""
        shown = endpoint if self._within is None else msgspec.structs.replace(endpoint, sandbox=0, incarnation="")
        return endpoint_view(self._core, shown)

    def allocation_view(self, allocation: Allocation) -> AllocationView:
        """As REST shows it."""
        return allocation_view(self._core, allocation)

    async def drops(self, host: Host) -> list[DropView]:
        """What a host's guard dropped. Raises: UNAVAILABLE (not connected, too slow, no answer that is one)."""
        try:
            answer = await self._core.query(host.id, "drops", DROPS_TIMEOUT_S)
            counts = msgspec.convert(answer, list[DropCount])
        except msgspec.ValidationError as error:
            why = f"host {host.name} answered with what is no list of drops: {error}"
            raise unavailable(why, "see 'hawse host ls'") from None
        except HawseError:
            if self._within is None:
                raise
            raise unavailable(f"host {host.name} does not answer now", "try again", host=host.name) from None
        return [drop_view(self._core, host, count) for count in counts if self._within in (None, count.tenant)]

    async def why(self, source: str, destination: str, protocol: str) -> WhyView:
        """Whether a packet arrives, and what decides. Raises: INVALID, NOT_FOUND, CONFLICT."""
        return await why(self._core, self._within, source, destination, protocol)

    # --- changes ---

    async def create_network(self, spec: NetworkSpec) -> tuple[Network, Revision]:
        """See Core."""
        return await self._told(self._core.create_network(spec, self._actor, self._within))

    async def put_network(
        self, reference: str, spec: NetworkSpec, if_match: Revision | None
    ) -> tuple[Network, Revision, bool]:
        """See Core."""
        return await self._told(self._core.put_network(reference, spec, if_match, self._actor, self._within))

    async def add_subnet(self, reference: str, spec: SubnetSpec) -> tuple[Network, Revision]:
        """See Core."""
        return await self._told(self._core.add_subnet(reference, spec, self._actor, self._within))

    async def delete_network(self, reference: str) -> Revision:
        """See Core."""
        return (await self._told(self._core.delete_network(reference, self._actor, self._within)))[1]

    async def delete_endpoint(self, reference: str) -> Revision:
        """See Core."""
        return (await self._told(self._core.delete_endpoint(reference, self._actor, self._within)))[1]

    async def _told(self, change: Awaitable[T]) -> T:
        """A change whose errors are told as they may be."""
        try:
            return await change
        except InsideError as error:
            raise error if self._within is None else error.outside from None
        except CompareFailedError as error:  # its key may be a VNI's
            if self._within is None:
                raise
            raise conflict("somebody else changed this meanwhile", error.hint) from None

    # --- status and events ---

    def status(self) -> tuple[HostState, ...]:
        """See Core."""
        hosts = self._core.status().hosts
        if self._within is None:
            return hosts
        own = self._state.holders_of(f"tenant/{self._within}")
        return tuple(self._confined(state, Revision(0)) for state in hosts if state.id in own)

    async def wait_settled(self, revision: Revision, timeout_s: float) -> list[HostState]:
        """See Core."""
        table = await self._core.wait_settled(revision, timeout_s, self._within)
        return table if self._within is None else [self._confined(state, revision) for state in table]

    def _confined(self, state: HostState, revision: Revision) -> HostState:
        """`applied_revision` is `revision` or 0: what a host has applied beyond it may be another's."""
        failures = {unit: NOT_SET_UP for unit in state.failures if self._owns(unit)}
        step = Step.APPLIED if state.state is Step.FAILED and not failures else state.state
        applied = revision if state.applied_revision >= revision else 0
        return msgspec.structs.replace(state, failures=failures, state=step, applied_revision=applied)

    def _owns(self, unit: str) -> bool:
        kind, _, id_ = unit.partition("/")
        if kind == "endpoint":
            endpoint = self._state.endpoints.get(EndpointId(id_))
            return endpoint is not None and endpoint.tenant == self._within
        if kind == "network":
            network = self._state.networks.get(NetworkId(id_))
            return network is not None and network.tenant == self._within
        return kind == "tenant" and TenantId(id_) == self._within

    async def events(self, since: Revision, number: int, follow: bool) -> AsyncIterator[Event]:
        """See Core. `number` is as the ids of the events that come out of here have it."""
        async with contextlib.aclosing(self._core.events(since, number, follow)) as events:  # type: ignore[type-var]  # it is a generator
            async for event in events:
                if self._within is None:
                    yield event
                elif event.tenant == self._within and (event.revision > since or event.number_within > number):
                    # Who asks for what is after N of this revision gets at least that from the core: an event's
                    # number among its tenant's is never greater than among all.
                    yield event.confined()

    @contextlib.contextmanager
    def event_stream(self) -> Iterator[None]:
        """A seat for one stream of events. Raises: UNAVAILABLE when all are taken."""
        taken, limit = self._edge.event_streams, STREAMS_MAX if self._within is None else TENANT_STREAMS_MAX
        if taken[self._within] >= limit:
            raise RefusedError(
                503,
                f"{limit} streams of events are open already",
                "close one, or read with follow=0",
                limit=limit,
            )
        taken[self._within] += 1
        try:
            yield
        finally:
            taken[self._within] -= 1
            if not taken[self._within]:
                del taken[self._within]
