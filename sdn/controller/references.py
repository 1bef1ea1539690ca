"""References: a name, `tenant/name` or an id, to the id it means; or a sentence with the nearest name.

`within` confines to one tenant: what is another's is not there, in every way. A name without a tenant means tenant
`default`, or the one that is confined to.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping

from sdn.model.errors import HawseError, conflict, not_found
from sdn.model.ids import EndpointId, HostId, NetworkId, TenantId, is_id
from sdn.model.resources import Endpoint, Network, Tenant

DEFAULT_TENANT = "default"
Tenants = Mapping[TenantId, Tenant]


class Names:
    """name -> id for each kind; names of networks and endpoints are unique within their tenant."""

    def __init__(self) -> None:
        self.tenants: dict[str, TenantId] = {}
        self.hosts: dict[str, HostId] = {}
        self.networks: dict[tuple[TenantId, str], NetworkId] = {}
        self.endpoints: dict[str, dict[TenantId, EndpointId]] = {}

    def tenant(self, reference: str, known: Tenants, within: TenantId | None = None) -> TenantId:
        """Raises: NOT_FOUND."""
        found = TenantId(reference) if is_id(reference) and TenantId(reference) in known else None
        found = found or self.tenants.get(reference)
        if found is None or within not in (None, found):
            raise missing("tenant", reference, (name for name, id_ in self.tenants.items() if within in (None, id_)))
        return found

    def host(self, reference: str, known: Collection[HostId]) -> HostId:
        """One of `known`. Raises: NOT_FOUND."""
        found = HostId(reference) if is_id(reference) else None
        if found not in known:
            found = self.hosts.get(reference)
        if found is None or found not in known:
            raise missing("host", reference, (name for name, id_ in self.hosts.items() if id_ in known))
        return found

    def network(
        self, reference: str, known: Mapping[NetworkId, Network], tenants: Tenants, within: TenantId | None = None
    ) -> NetworkId:
        """Raises: NOT_FOUND, of the network or of the tenant."""
        if is_id(reference) and (network := known.get(NetworkId(reference))) and within in (None, network.tenant):
            return network.id
        owner, name = self.split(reference, tenants, within)
        found = self.networks.get((owner, name))
        if found is None:
            raise missing("network", reference, _spelled(self.networks, tenants, within))
        return found

    def endpoint(
        self, reference: str, known: Mapping[EndpointId, Endpoint], tenants: Tenants, within: TenantId | None = None
    ) -> EndpointId:
        """Raises: NOT_FOUND; CONFLICT when several tenants have an endpoint of the name."""
        if is_id(reference) and (endpoint := known.get(EndpointId(reference))) and within in (None, endpoint.tenant):
            return endpoint.id
        if "/" in reference or within is not None:
            owner, name = self.split(reference, tenants, within)
            if found := self.endpoints.get(name, {}).get(owner):
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
        owned = ((owner, name) for name, owners in self.endpoints.items() for owner in owners)
        raise missing("endpoint", reference, _spelled(owned, tenants, within))

    def split(self, reference: str, tenants: Tenants, within: TenantId | None) -> tuple[TenantId, str]:
        """`tenant/name` or `name` as (tenant, name). Raises: NOT_FOUND, of the tenant."""
        tenant, slash, name = reference.rpartition("/")
        if within is not None and not slash:
            return within, reference
        return self.tenant(tenant if slash else DEFAULT_TENANT, tenants, within), name


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


def _spelled(owned: Iterable[tuple[TenantId, str]], tenants: Tenants, within: TenantId | None) -> Iterator[str]:
    """As references: with the tenant where a bare name would mean another's."""
    for owner, name in owned:
        if within is None:
            tenant = tenants[owner].name
            yield name if tenant == DEFAULT_TENANT else f"{tenant}/{name}"
        elif within == owner:
            yield name
