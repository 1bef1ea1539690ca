"""`/v1/endpoints`."""

from __future__ import annotations

from sdn.controller.query import HOST, LABEL, NETWORK, PAGE, TENANT
from sdn.controller.route import Call, Reply, Route
from sdn.controller.view import EndpointView, Page, endpoint_view, has_labels, page_of


async def list_endpoints(call: Call) -> Reply:
    """Every endpoint, or those of a tenant, network, host."""
    state, query, labels = call.core.state, call.query, call.query.labels()
    tenant_text, network_text, host_text = query.text("tenant"), query.text("network"), query.text("host")
    tenant = state.resolve_tenant(tenant_text).id if tenant_text else None
    network = state.resolve_network(network_text).id if network_text else None
    host = state.resolve_host(host_text).id if host_text else None
    found = [
        endpoint
        for endpoint in state.endpoints_of(network, host)
        if tenant in (None, endpoint.tenant) and has_labels(endpoint.labels, labels)
    ]
    return Reply(page_of(call.core, query, found, lambda endpoint: endpoint_view(call.core, endpoint)))


async def get_endpoint(call: Call) -> Reply:
    """One."""
    endpoint = call.core.state.resolve_endpoint(call.reference)
    return Reply(endpoint_view(call.core, endpoint), etag=call.core.state.revision_of("endpoint", endpoint.id))


async def delete_endpoint(call: Call) -> Reply:
    """Release it, whatever its host says."""
    _, revision = await call.core.delete_endpoint(call.reference, call.actor)
    return Reply(None, 204, revision)


ALL, ONE = "/v1/endpoints", "/v1/endpoints/{reference}"
FILTERS = (TENANT, NETWORK, HOST, LABEL, *PAGE)
ROUTES = (
    Route("GET", ALL, list_endpoints, "list endpoints", Page[EndpointView], query=FILTERS),
    Route("GET", ONE, get_endpoint, "show an endpoint", EndpointView),
    Route("DELETE", ONE, delete_endpoint, "release an endpoint by force", statuses=(204,)),
)
