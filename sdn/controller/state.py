"""The decoded copy of the store."""

from __future__ import annotations

from collections.abc import Iterator

from sdn.model.ids import EndpointId, HostId, NetworkId, Revision, TenantId
from sdn.model.resources import Allocation, Endpoint, Host, Network, Tenant, Value


class SubnetUsage(Value, frozen=True, kw_only=True):
    """How full a subnet is, in addresses. `size` counts those that can be held at all."""

    prefix: str
    size: int
    used: int
    reserved: int
    free: int


class State:
    """All resources by id, and the indexes that the plans and topics need."""

    tenants: dict[TenantId, Tenant]
    networks: dict[NetworkId, Network]
    hosts: dict[HostId, Host]
    endpoints: dict[EndpointId, Endpoint]
    revision: Revision

    def revision_of(self, kind: str, id_: str) -> Revision:
        """The revision at which a resource (`tenant`, `network`, `host`, `endpoint`) was last modified."""

    def allocations(self, network: NetworkId) -> Iterator[Allocation]:
        """Every address of a network that is held."""

    def endpoints_of(self, network: NetworkId | None = None, host: HostId | None = None) -> Iterator[Endpoint]:
        """The endpoints of a network, of a host, or of both."""

    def resolve_tenant(self, reference: str) -> Tenant:
        """By name or id. Raises: NOT_FOUND, with the nearest name."""

    def resolve_network(self, reference: str) -> Network:
        """By name (tenant `default`), `tenant/name` or id. Raises: NOT_FOUND, with the nearest name."""

    def resolve_host(self, reference: str) -> Host:
        """By name or id. Raises: NOT_FOUND, with the nearest name."""

    def resolve_endpoint(self, reference: str) -> Endpoint:
        """By id, name or `tenant/name`. Raises: NOT_FOUND; CONFLICT when several tenants have the name."""
