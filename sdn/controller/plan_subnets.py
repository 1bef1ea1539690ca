"""Subnets of a network: as asked for or chosen, and clear of the tenant's others."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from sdn.controller.inside import InsideError
from sdn.controller.options import Options
from sdn.controller.specs import NetworkSpec, SubnetSpec
from sdn.controller.state import State
from sdn.ipam.choice import choose_subnet
from sdn.ipam.subnet import check_disjoint, validate_subnet
from sdn.model.address import Family, Prefix, family_of, parse_prefix
from sdn.model.errors import HawseError, Kind, conflict, exhausted, invalid
from sdn.model.resources import Network, Subnet, Tenant

SUBNETS_MAX = 32
"""Per network. An attachment may hold an address of each, and has to fit one transaction."""

prefix_of = functools.lru_cache(maxsize=4096)(parse_prefix)
"""Every network's prefixes are looked at for every new subnet."""


def validate(spec: SubnetSpec) -> Subnet:
    """Raises: INVALID."""
    return validate_subnet(spec.prefix, spec.gateway, spec.range, spec.reserved)


def check_subnets(state: State, tenant: Tenant, added: tuple[Subnet, ...], network: Network | None = None) -> None:
    """Raises: INVALID (too many); CONFLICT when one overlaps another of the tenant, naming its network."""
    count = len(added) + (len(network.subnets) if network else 0)
    if count > SUBNETS_MAX:
        raise invalid(f"a network cannot have {count} subnets", f"use at most {SUBNETS_MAX}", subnets=count)
    prefixes = [prefix_of(subnet.prefix) for subnet in added]
    check_disjoint(prefixes)
    for other, theirs in _prefixes(state, tenant):
        for prefix in prefixes:
            if prefix.overlaps(theirs):
                raise conflict(
                    f"the subnet {prefix} overlaps {theirs} of network {other.name} in tenant {tenant.name}",
                    "choose another subnet, or another tenant: each has its own address space",
                    prefix=str(prefix),
                    overlaps=str(theirs),
                    network=other.name,
                )


def automatic_subnets(state: State, tenant: Tenant, spec: NetworkSpec, options: Options) -> tuple[Subnet, ...]:
    """One subnet per family asked for, clear of the tenant's others and of all that any host can reach."""
    families: list[Family] = [family for family, asked in ((4, spec.ipv4), (6, spec.ipv6)) if asked]  # type: ignore[misc]
    if not families:
        raise invalid("a network without subnets and without an address family", "ask for IPv4, IPv6 or both")
    avoid = {prefix for _, prefix in _prefixes(state, tenant)}
    avoid |= {prefix_of(route) for host in state.hosts.values() for route in host.routes}
    return tuple(validate_subnet(str(_choose(family, avoid, options))) for family in families)


def _choose(family: Family, avoid: set[Prefix], options: Options) -> Prefix:
    pools = [pool for pool in options.pools if family_of(pool.prefix) == family]
    refused: HawseError = exhausted(f"no pool of IPv{family} subnets is configured", "name a subnet, or configure one")
    for length in dict.fromkeys(pool.length for pool in pools):
        try:
            return choose_subnet([prefix_of(pool.prefix) for pool in pools if pool.length == length], length, avoid)
        except HawseError as error:
            if error.kind is not Kind.EXHAUSTED:
                raise
            refused = error
    outside = exhausted(
        f"no IPv{family} subnet is left to choose from", "name a subnet that you know to be unused, or remove networks"
    )
    raise InsideError(refused, outside)


def subnet_difference(network: Network, wanted: tuple[Subnet, ...], spec: NetworkSpec) -> dict[str, Any]:
    """What of the subnets asked for contradicts those that are there; further ones do not."""
    difference: dict[str, Any] = {}
    have = {subnet.prefix: subnet for subnet in network.subnets}
    if wanted:
        for subnet in wanted:
            mine = have.get(subnet.prefix)
            if mine is not None and mine != subnet:
                difference[f"subnets {subnet.prefix}"] = {"have": _text(mine), "want": _text(subnet)}
        missing = sorted(have.keys() - {subnet.prefix for subnet in wanted})
        if missing:
            difference["subnets"] = {"have": sorted(have), "want": [subnet.prefix for subnet in wanted]}
        return difference
    for field, family, asked in (("ipv4", 4, spec.ipv4), ("ipv6", 6, spec.ipv6)):
        has = any(family_of(prefix) == family for prefix in have)
        if has != asked:
            difference[field] = {"have": has, "want": asked}
    return difference


def _text(subnet: Subnet) -> dict[str, Any]:
    return {
        "gateway": subnet.gateway,
        "range": "-".join(subnet.range) if subnet.range else None,
        "reserved": list(subnet.reserved),
    }


def _prefixes(state: State, tenant: Tenant) -> Iterator[tuple[Network, Prefix]]:
    for network in state.networks.values():
        if network.tenant == tenant.id:
            for subnet in network.subnets:
                yield network, prefix_of(subnet.prefix)
