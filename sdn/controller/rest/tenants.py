"""`/v1/tenants`."""

from __future__ import annotations

from sdn.controller.principal import Access
from sdn.controller.query import LABEL, PAGE
from sdn.controller.route import Call, Reply, Route, ScopedCall
from sdn.controller.specs import TenantSpec
from sdn.controller.view import Page, TenantView, page_of, tenant_view
from sdn.model.ids import Revision


async def list_tenants(call: ScopedCall) -> Reply:
    """Every tenant."""
    found = call.scope.tenants(call.query.labels())
    return Reply(page_of(call.scope, call.query, found, call.scope.tenant_view))


async def create_tenant(call: Call) -> Reply:
    """A new one."""
    tenant, revision = await call.core.create_tenant(call.body, call.actor)
    return Reply(tenant_view(call.core, tenant), 201, revision)


async def get_tenant(call: ScopedCall) -> Reply:
    """One."""
    view = call.scope.tenant_view(call.scope.tenant(call.reference))
    return Reply(view, etag=Revision(view.revision))


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
    Route(
        "GET", "/v1/tenants", list_tenants, "list tenants", Page[TenantView], query=(LABEL, *PAGE), access=Access.TENANT
    ),
    Route("POST", "/v1/tenants", create_tenant, "make a tenant", TenantView, TenantSpec, statuses=(201,)),
    Route("GET", ONE, get_tenant, "show a tenant", TenantView, access=Access.TENANT),
    Route("PUT", ONE, put_tenant, "make a tenant so", TenantView, TenantSpec, statuses=(200, 201), conditional=True),
    Route("DELETE", ONE, delete_tenant, "remove a tenant; it must have no networks", statuses=(204,)),
)
