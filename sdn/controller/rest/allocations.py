"""`/v1/allocations`: every address that is held, and by whom."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sdn.controller.query import NETWORK, PAGE, TENANT
from sdn.controller.route import Call, Reply, Route
from sdn.controller.view import AllocationView, Page, page_of
from sdn.model.address import address_bytes
from sdn.model.ids import EndpointId
from sdn.model.resources import Allocation, Holder


async def list_allocations(call: Call) -> Reply:
    """All, or those of a tenant or network; by network, then family, then address."""
    state, query = call.core.state, call.query
    tenant_text, network_text = query.text("tenant"), query.text("network")
    tenant = state.resolve_tenant(tenant_text).id if tenant_text else None
    networks = [state.resolve_network(network_text)] if network_text else state.networks.values()
    found: Iterable[Allocation] = (
        allocation
        for network in networks
        if tenant in (None, network.tenant)
        for allocation in state.allocations(network.id)
    )
    return Reply(page_of(call.core, query, found, lambda allocation: _view(call, allocation), _cursor))


def _cursor(allocation: Allocation) -> str:
    """Sorts as addresses do: the length tells the families apart, and hex digits sort as the bytes."""
    packed = address_bytes(allocation.address)
    return f"{allocation.network}.{len(packed):02}.{packed.hex()}"


def _view(call: Call, allocation: Allocation) -> AllocationView:
    state = call.core.state
    network = state.networks[allocation.network]
    holder_name = network.name
    if allocation.holder is Holder.ENDPOINT:
        endpoint = state.endpoints.get(EndpointId(allocation.holder_id))
        holder_name = (endpoint.name or endpoint.container) if endpoint is not None else ""
    return AllocationView(
        **msgspec.structs.asdict(allocation),
        tenant=network.tenant,
        tenant_name=state.tenants[network.tenant].name,
        network_name=network.name,
        holder_name=holder_name,
    )


ROUTES = (
    Route(
        "GET",
        "/v1/allocations",
        list_allocations,
        "list the addresses that are held, and by whom",
        Page[AllocationView],
        query=(TENANT, NETWORK, *PAGE),
    ),
)
