"""`/v1/networks`."""

from __future__ import annotations

from sdn.controller.principal import Access
from sdn.controller.query import LABEL, PAGE, TENANT
from sdn.controller.route import Reply, Route, ScopedCall
from sdn.controller.specs import NetworkSpec, SubnetSpec
from sdn.controller.view import NetworkView, Page, page_of
from sdn.model.ids import Revision


async def list_networks(call: ScopedCall) -> Reply:
    """Every network."""
    labels = call.query.labels()
    found = call.scope.networks(call.query.text("tenant"), labels)
    return Reply(page_of(call.scope, call.query, found, call.scope.network_view))


async def create_network(call: ScopedCall) -> Reply:
    """A new one."""
    network, revision = await call.scope.create_network(call.body)
    return Reply(call.scope.network_view(network), 201, revision)


async def get_network(call: ScopedCall) -> Reply:
    """One, with how full its subnets are."""
    view = call.scope.network_view(call.scope.network(call.reference), with_usage=True)
    return Reply(view, etag=Revision(view.revision))


async def put_network(call: ScopedCall) -> Reply:
    """Make it so."""
    network, revision, created = await call.scope.put_network(call.reference, call.body, call.if_match)
    return Reply(call.scope.network_view(network), 201 if created else 200, revision)


async def add_subnet(call: ScopedCall) -> Reply:
    """One more subnet."""
    network, revision = await call.scope.add_subnet(call.reference, call.body)
    return Reply(call.scope.network_view(network), 200, revision)


async def delete_network(call: ScopedCall) -> Reply:
    """Remove it."""
    return Reply(None, 204, await call.scope.delete_network(call.reference))


ALL, ONE = "/v1/networks", "/v1/networks/{reference}"
ROUTES = (
    Route(
        "GET",
        ALL,
        list_networks,
        "list networks",
        Page[NetworkView],
        query=(TENANT, LABEL, *PAGE),
        access=Access.TENANT,
    ),
    Route(
        "POST",
        ALL,
        create_network,
        "make a network",
        NetworkView,
        NetworkSpec,
        statuses=(201,),
        access=Access.TENANT,
    ),
    Route("GET", ONE, get_network, "show a network and how full it is", NetworkView, access=Access.TENANT),
    Route(
        "PUT",
        ONE,
        put_network,
        "make a network so",
        NetworkView,
        NetworkSpec,
        statuses=(200, 201),
        conditional=True,
        access=Access.TENANT,
    ),
    Route(
        "POST",
        f"{ONE}/subnets",
        add_subnet,
        "add a subnet to a live network",
        NetworkView,
        SubnetSpec,
        access=Access.TENANT,
    ),
    Route(
        "DELETE",
        ONE,
        delete_network,
        "remove a network; it must have no endpoints",
        statuses=(204,),
        access=Access.TENANT,
    ),
)
