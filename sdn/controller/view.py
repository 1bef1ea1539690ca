"""Resources as REST shows them: the model's values, with their revision, names beside ids, and nothing left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from sdn.controller.core import Core
from sdn.controller.query import Query
from sdn.controller.state import SubnetUsage
from sdn.controller.status import HostState
from sdn.model.ids import EndpointId, NetworkId, TenantId
from sdn.model.resources import Allocation, Datapath, Endpoint, Holder, Host, Network, Tenant

Item = TypeVar("Item")
View = TypeVar("View")


class Page(msgspec.Struct, Generic[Item], frozen=True, kw_only=True, omit_defaults=True):
    """A part of a list, in a stable order. `next` is the cursor of the following page; without it this is the last."""

    items: list[Item]
    revision: int
    next: str = ""


class TenantView(Tenant, frozen=True, kw_only=True, omit_defaults=False):
    """A tenant."""

    revision: int


class NetworkView(Network, frozen=True, kw_only=True, omit_defaults=False):
    """A network. `usage` only where one network is asked for."""

    revision: int
    tenant_name: str
    usage: list[SubnetUsage] | msgspec.UnsetType = msgspec.UNSET


class HostView(Host, frozen=True, kw_only=True, omit_defaults=False):
    """A host and how far it is. `failures`: unit (`endpoint/ID`) -> sentence."""

    revision: int
    connected: bool
    applied_revision: int
    failures: dict[str, str]


class EndpointView(Endpoint, frozen=True, kw_only=True, omit_defaults=False):
    """An endpoint."""

    revision: int
    tenant_name: str
    network_name: str
    host_name: str


class AllocationView(Allocation, frozen=True, kw_only=True, omit_defaults=False):
    """An address and its holder; `holder_name` is the endpoint's name, or its container where it has none."""

    tenant: str
    tenant_name: str
    network_name: str
    holder_name: str


class DropCount(msgspec.Struct, frozen=True):
    """A guard's counter as an agent sends it: tenant and network are ids."""

    tenant: str
    network: str
    cause: str
    packets: int
    bytes: int


class DropView(msgspec.Struct, frozen=True, kw_only=True):
    """One cause in one network of one host, all by name."""

    host: str
    tenant: str
    network: str
    cause: str
    packets: int
    bytes: int


def tenant_view(core: Core, tenant: Tenant) -> TenantView:
    """A tenant, shown."""
    return TenantView(**msgspec.structs.asdict(tenant), revision=core.state.revision_of("tenant", tenant.id))


def network_view(core: Core, network: Network, with_usage: bool = False) -> NetworkView:
    """A network, shown."""
    return NetworkView(
        **msgspec.structs.asdict(network),
        revision=core.state.revision_of("network", network.id),
        tenant_name=core.state.tenants[network.tenant].name,
        usage=core.usage(network) if with_usage else msgspec.UNSET,
    )


def host_view(core: Core, host: Host, state: HostState | None) -> HostView:
    """A host, shown; `state` is its line of the fleet's status."""
    shown = msgspec.structs.replace(host, datapath=Datapath.SWITCH) if host.id in core.state.switches else host
    return HostView(
        **msgspec.structs.asdict(shown),
        revision=core.state.revision_of("host", host.id),
        connected=state is not None and state.connected,
        applied_revision=state.applied_revision if state is not None else 0,
        failures=dict(state.failures) if state is not None else {},
    )


def endpoint_view(core: Core, endpoint: Endpoint) -> EndpointView:
    """An endpoint, shown."""
    host = core.state.hosts.get(endpoint.host)
    return EndpointView(
        **msgspec.structs.asdict(endpoint),
        revision=core.state.revision_of("endpoint", endpoint.id),
        tenant_name=core.state.tenants[endpoint.tenant].name,
        network_name=core.state.networks[endpoint.network].name,
        host_name=host.name if host is not None else "",
    )


def allocation_view(core: Core, allocation: Allocation) -> AllocationView:
    """An address, shown."""
    network = core.state.networks[allocation.network]
    holder_name = network.name
    if allocation.holder is Holder.ENDPOINT:
        endpoint = core.state.endpoints.get(EndpointId(allocation.holder_id))
        holder_name = (endpoint.name or endpoint.container) if endpoint is not None else ""
    return AllocationView(
        **msgspec.structs.asdict(allocation),
        tenant=network.tenant,
        tenant_name=core.state.tenants[network.tenant].name,
        network_name=network.name,
        holder_name=holder_name,
    )


def drop_view(core: Core, host: Host, count: DropCount) -> DropView:
    """A counter, shown; by id what is gone."""
    tenant = core.state.tenants.get(TenantId(count.tenant))
    network = core.state.networks.get(NetworkId(count.network))
    return DropView(
        host=host.name,
        tenant=tenant.name if tenant is not None else count.tenant,
        network=network.name if network is not None else count.network,
        cause=count.cause,
        packets=count.packets,
        bytes=count.bytes,
    )


def has_labels(labels: dict[str, str], wanted: dict[str, str]) -> bool:
    """Whether all that is wanted is there."""
    return all(labels.get(key) == value for key, value in wanted.items())


class Revised(Protocol):
    """Something as of a revision."""

    @property
    def revision(self) -> int:
        """Which."""


def page_of(
    source: Revised,
    query: Query,
    found: Iterable[Item],
    view: Callable[[Item], View],
    cursor: Callable[[Item], Any] = lambda item: item.id,  # type: ignore[attr-defined]  # resources sort by their id
) -> Page[View]:
    """The page asked for of what was found. `cursor` gives the text after which the next page goes on, in order."""
    after, limit = query.text("after"), query.limit()
    ordered = sorted(((cursor(item), item) for item in found), key=lambda pair: pair[0])
    rest = [pair for pair in ordered if after is None or pair[0] > after]
    return Page(
        items=[view(item) for _, item in rest[:limit]],
        revision=source.revision,
        next=rest[limit - 1][0] if len(rest) > limit else "",
    )
