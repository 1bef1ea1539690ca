"""The units, and the context that lowering may look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from sdn.model.ids import EndpointId, HostId, NetworkId, TenantId
from sdn.model.resources import Endpoint, Member, Network, Tenant

UnitKey = tuple[Literal["tenant", "network", "endpoint"], str]
"""(kind, id); as text in reports: `kind/id`."""


@dataclasses.dataclass(frozen=True, slots=True)
class TenantUnit:
    """A tenant that the host has a network of."""

    tenant: Tenant


@dataclasses.dataclass(frozen=True, slots=True)
class NetworkUnit:
    """A network that the host has endpoints in, with the hosts (this one included) that are its members."""

    network: Network
    members: tuple[Member, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class EndpointUnit:
    """An endpoint of such a network, here or elsewhere."""

    endpoint: Endpoint


Unit = TenantUnit | NetworkUnit | EndpointUnit


@dataclasses.dataclass(frozen=True, slots=True)
class Here:
    """This host: its id and its VTEP per family (None: none)."""

    host: HostId
    vtep4: str | None
    vtep6: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What lowering may look at beside the unit: this host and the headers that the unit names."""

    here: Here
    tenants: Mapping[TenantId, Tenant]
    networks: Mapping[NetworkId, Network]
    members: Mapping[tuple[NetworkId, HostId], Member]


def key_of(unit: Unit) -> UnitKey:
    """The unit's key."""
    match unit:
        case TenantUnit(tenant):
            return ("tenant", tenant.id)
        case NetworkUnit(network):
            return ("network", network.id)
        case EndpointUnit(endpoint):
            return ("endpoint", endpoint.id)


def key_text(key: UnitKey) -> str:
    """`kind/id`."""
    return f"{key[0]}/{key[1]}"


def endpoint_key(endpoint: EndpointId) -> UnitKey:
    """The key of an endpoint's unit."""
    return ("endpoint", endpoint)
