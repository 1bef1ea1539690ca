"""`/v1/endpoints`."""

from __future__ import annotations

from sdn.controller.principal import Access
from sdn.controller.query import HOST, LABEL, NETWORK, PAGE, TENANT
from sdn.controller.route import Reply, Route, ScopedCall
from sdn.controller.view import EndpointView, Page, page_of
from sdn.model.ids import Revision


async def list_endpoints(call: ScopedCall) -> Reply:
    """Every endpoint, or those of a tenant, network, host."""
    query = call.query
    found = call.scope.endpoints(query.text("tenant"), query.text("network"), query.text("host"), query.labels())
    return Reply(page_of(call.scope, query, found, call.scope.endpoint_view))


async def get_endpoint(call: ScopedCall) -> Reply:
    """One."""
    view = call.scope.endpoint_view(call.scope.endpoint(call.reference))
    return Reply(view, etag=Revision(view.revision))


async def delete_endpoint(call: ScopedCall) -> Reply:
    """Release it, whatever its host says."""
    return Reply(None, 204, await call.scope.delete_endpoint(call.reference))


ALL, ONE = "/v1/endpoints", "/v1/endpoints/{reference}"
FILTERS = (TENANT, NETWORK, HOST, LABEL, *PAGE)
ROUTES = (
    Route("GET", ALL, list_endpoints, "list endpoints", Page[EndpointView], query=FILTERS, access=Access.TENANT),
    Route("GET", ONE, get_endpoint, "show an endpoint", EndpointView, access=Access.TENANT),
    Route("DELETE", ONE, delete_endpoint, "release an endpoint by force", statuses=(204,), access=Access.TENANT),
)
