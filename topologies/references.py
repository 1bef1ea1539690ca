"""References to networks inside a topology file."""

from __future__ import annotations

from topologies.document import Place
from topologies.values import DEFAULT_TENANT, NetworkSpec


def resolve_network(at: Place, networks: tuple[NetworkSpec, ...]) -> NetworkSpec:
    """`tenant/name`, or a name alone where that is clear (the default tenant's comes first). Raises: INVALID."""
    text = at.text()
    found = [network for network in networks if text in (network.reference, network.name)]
    own = [network for network in found if network.tenant == DEFAULT_TENANT]
    if len(found) == 1 or own:
        return (own or found)[0]
    if found:
        raise at.refuse(
            f"{text!r} is a network of several tenants", "name the tenant too", allowed=[n.reference for n in found]
        )
    raise at.unknown(text, "network", [network.reference for network in networks])
