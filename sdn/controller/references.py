"""References: a name, `tenant/name` or an id, to the id it means; or a sentence with the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping

from sdn.model.errors import HawseError, conflict, not_found
from sdn.model.ids import EndpointId, HostId, NetworkId, TenantId, is_id
from sdn.model.resources import Tenant

DEFAULT_TENANT = "default"


class Names:
    """name -> id for each kind; names of networks and endpoints are unique within their tenant."""

    def __init__(self) -> None:
        self.tenants: dict[str, TenantId] = {}
        self.hosts: dict[str, HostId] = {}
        self.networks: dict[tuple[TenantId, str], NetworkId] = {}
        self.endpoints: dict[str, dict[TenantId, EndpointId]] = {}

    def tenant(self, reference: str, known: Collection[TenantId]) -> TenantId:
        """Raises: NOT_FOUND."""
        if is_id(reference) and TenantId(reference) in known:
            return TenantId(reference)
        if reference in self.tenants:
            return self.tenants[reference]
        raise missing("tenant", reference, self.tenants)

    def host(self, reference: str, known: Collection[HostId]) -> HostId:
        """Raises: NOT_FOUND."""
        if is_id(reference) and HostId(reference) in known:
            return HostId(reference)
        if reference in self.hosts:
            return self.hosts[reference]
        raise missing("host", reference, self.hosts)

    def network(self, reference: str, known: Collection[NetworkId], tenants: Mapping[TenantId, Tenant]) -> NetworkId:
        """Raises: NOT_FOUND, of the network or of the tenant."""
        if is_id(reference) and NetworkId(reference) in known:
            return NetworkId(reference)
        tenant, name = split_reference(reference)
        found = self.networks.get((self.tenant(tenant, tenants), name))
        if found is None:
            raise missing("network", reference, [_spell(tenants, owner, name) for owner, name in self.networks])
        return found

    def endpoint(self, reference: str, known: Collection[EndpointId], tenants: Mapping[TenantId, Tenant]) -> EndpointId:
        """Raises: NOT_FOUND; CONFLICT when several tenants have an endpoint of the name."""
        if is_id(reference) and EndpointId(reference) in known:
            return EndpointId(reference)
        if "/" in reference:
            tenant, name = split_reference(reference)
            if found := self.endpoints.get(name, {}).get(self.tenant(tenant, tenants)):
                return found
        elif owners := self.endpoints.get(reference):
            if len(owners) > 1:
                spelled = sorted(f"{tenants[owner].name}/{reference}" for owner in owners)
                raise conflict(
                    f"{len(owners)} tenants have an endpoint named {reference}",
                    f"say which: {', '.join(spelled[:5])}",
                    reference=reference,
                    candidates=spelled,
                )
            return next(iter(owners.values()))
        spelled = [_spell(tenants, owner, name) for name, owners in self.endpoints.items() for owner in owners]
        raise missing("endpoint", reference, spelled)


def split_reference(reference: str) -> tuple[str, str]:
    """`tenant/name` or `name` (of tenant `default`) as (tenant, name)."""
    tenant, slash, name = reference.rpartition("/")
    return (tenant, name) if slash else (DEFAULT_TENANT, reference)


def missing(kind: str, reference: str, names: Iterable[str]) -> HawseError:
    """A NOT_FOUND error with the nearest name; a name that another tenant has counts as near."""
    known = sorted(names)
    near = [name for name in known if name.rpartition("/")[2] == reference.rpartition("/")[2]]
    near = near or difflib.get_close_matches(reference, known, n=1)
    if near:
        hint = f"did you mean {' or '.join(near[:3])}?"
    elif known:
        hint = f"there are: {', '.join(known[:5])}{', …' if len(known) > 5 else ''}"
    else:
        hint = f"there is no {kind} yet"
    return not_found(f"there is no {kind} {reference!r}", hint, kind=kind, reference=reference, nearest=near[:1])


def _spell(tenants: Mapping[TenantId, Tenant], owner: TenantId, name: str) -> str:
    tenant = tenants[owner].name
    return name if tenant == DEFAULT_TENANT else f"{tenant}/{name}"
