"""`/v1/tenants`."""

from __future__ import annotations

from sdn.controller.query import LABEL, PAGE
from sdn.controller.route import Call, Reply, Route
from sdn.controller.specs import TenantSpec
from sdn.controller.view import Page, TenantView, has_labels, page_of, tenant_view


async def list_tenants(call: Call) -> Reply:
    """Every tenant."""
    labels = call.query.labels()
    found = [tenant for tenant in call.core.state.tenants.values() if has_labels(tenant.labels, labels)]
    return Reply(page_of(call.core, call.query, found, lambda tenant: tenant_view(call.core, tenant)))


async def create_tenant(call: Call) -> Reply:
    """A new one."""
    tenant, revision = await call.core.create_tenant(call.body, call.actor)
    return Reply(tenant_view(call.core, tenant), 201, revision)


async def get_tenant(call: Call) -> Reply:
    """One."""
    view = tenant_view(call.core, call.core.state.resolve_tenant(call.reference))
    return Reply(view, etag=call.core.state.revision_of("tenant", view.id))


async def put_tenant(call: Call) -> Reply:
    """Make it so."""
    tenant, revision, created = await call.core.put_tenant(call.reference, call.body, call.if_match, call.actor)
    return Reply(tenant_view(call.core, tenant), 201 if created else 200, revision)


async def delete_tenant(call: Call) -> Reply:
    """Remove it."""
    _, revision = await call.core.delete_tenant(call.reference, call.actor)
    return Reply(None, 204, revision)


ONE = "/v1/tenants/{reference}"
ROUTES = (
    Route("GET", "/v1/tenants", list_tenants, "list tenants", Page[TenantView], query=(LABEL, *PAGE)),
    Route("POST", "/v1/tenants", create_tenant, "make a tenant", TenantView, TenantSpec, statuses=(201,)),
    Route("GET", ONE, get_tenant, "show a tenant", TenantView),
    Route("PUT", ONE, put_tenant, "make a tenant so", TenantView, TenantSpec, statuses=(200, 201), conditional=True),
    Route("DELETE", ONE, delete_tenant, "remove a tenant; it must have no networks", statuses=(204,)),
)
