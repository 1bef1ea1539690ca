"""Releasing endpoints: what every way of losing one comes down to."""

from __future__ import annotations

from collections.abc import Sequence

from sdn.controller import keys
from sdn.controller.note import ENDPOINT_RELEASED
from sdn.controller.plan import Draft, Plan
from sdn.controller.state import State
from sdn.model.resources import Endpoint


def release(draft: Draft, state: State, endpoint: Endpoint, reason: str) -> None:
    """Delete an endpoint with everything that it holds. `reason` becomes an event."""
    draft.unchanged("endpoint", endpoint.id)
    draft.delete(keys.endpoint(endpoint.id))
    draft.delete(keys.attachment(endpoint.host, endpoint.container, endpoint.ifname))
    draft.delete(keys.mac(endpoint.network, endpoint.mac))
    for address in endpoint.addresses:
        draft.delete(keys.allocation(endpoint.network, address.partition("/")[0]))
    if endpoint.host in state.switches:
        draft.delete(keys.port(endpoint.host, endpoint.ifname))
    if endpoint.name:
        draft.delete(keys.endpoint_name(endpoint.tenant, endpoint.name))
    network = state.networks[endpoint.network]
    draft.happen(
        ENDPOINT_RELEASED,
        id=endpoint.id,
        name=endpoint.name,
        tenant=endpoint.tenant,
        tenant_name=state.tenants[endpoint.tenant].name,
        network=endpoint.network,
        network_name=network.name,
        host=endpoint.host,
        host_name=state.hosts[endpoint.host].name,
        container=endpoint.container,
        ifname=endpoint.ifname,
        addresses=endpoint.addresses,
        reason=reason,
    )


def cost(state: State, endpoint: Endpoint) -> int:
    """How many operations the release of an endpoint takes."""
    return 5 + len(endpoint.addresses) + (endpoint.host in state.switches)


def release_some(draft: Draft, state: State, endpoints: Sequence[Endpoint], reason: str) -> int:
    """Release as many of `endpoints` as the transaction has room for; how many."""
    for done, endpoint in enumerate(endpoints):
        if draft.room < cost(state, endpoint):
            return done
        release(draft, state, endpoint, reason)
    return len(endpoints)


def release_chunk(state: State, endpoints: Sequence[Endpoint], reason: str, actor: str) -> Plan[int]:
    """A transaction's worth of releases; how many."""
    draft = Draft(state, actor)
    return draft.plan(release_some(draft, state, endpoints, reason))
