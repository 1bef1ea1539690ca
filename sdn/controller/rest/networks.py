"""`/v1/networks`."""

from __future__ import annotations

from sdn.controller.query import LABEL, PAGE, TENANT
from sdn.controller.route import Call, Reply, Route
from sdn.controller.specs import NetworkSpec, SubnetSpec
from sdn.controller.view import NetworkView, Page, has_labels, network_view, page_of


async def list_networks(call: Call) -> Reply:
    """Every network."""
    state, labels, reference = call.core.state, call.query.labels(), call.query.text("tenant")
    tenant = state.resolve_tenant(reference).id if reference else None
    found = [
        network
        for network in state.networks.values()
        if tenant in (None, network.tenant) and has_labels(network.labels, labels)
    ]
    return Reply(page_of(call.core, call.query, found, lambda network: network_view(call.core, network)))


async def create_network(call: Call) -> Reply:
    """A new one."""
    network, revision = await call.core.create_network(call.body, call.actor)
    return Reply(network_view(call.core, network), 201, revision)


async def get_network(call: Call) -> Reply:
    """One, with how full its subnets are."""
    network = call.core.state.resolve_network(call.reference)
    view = network_view(call.core, network, with_usage=True)
    return Reply(view, etag=call.core.state.revision_of("network", network.id))


async def put_network(call: Call) -> Reply:
    """Make it so."""
    network, revision, created = await call.core.put_network(call.reference, call.body, call.if_match, call.actor)
    return Reply(network_view(call.core, network), 201 if created else 200, revision)


async def add_subnet(call: Call) -> Reply:
    """One more subnet."""
    network, revision = await call.core.add_subnet(call.reference, call.body, call.actor)
    return Reply(network_view(call.core, network), 200, revision)


async def delete_network(call: Call) -> Reply:
    """Remove it."""
    _, revision = await call.core.delete_network(call.reference, call.actor)
    return Reply(None, 204, revision)


ALL, ONE = "/v1/networks", "/v1/networks/{reference}"
ROUTES = (
    Route("GET", ALL, list_networks, "list networks", Page[NetworkView], query=(TENANT, LABEL, *PAGE)),
    Route("POST", ALL, create_network, "make a network", NetworkView, NetworkSpec, statuses=(201,)),
    Route("GET", ONE, get_network, "show a network and how full it is", NetworkView),
    Route(
        "PUT", ONE, put_network, "make a network so", NetworkView, NetworkSpec, statuses=(200, 201), conditional=True
    ),
    Route("POST", f"{ONE}/subnets", add_subnet, "add a subnet to a live network", NetworkView, SubnetSpec),
    Route("DELETE", ONE, delete_network, "remove a network; it must have no endpoints", statuses=(204,)),
)
