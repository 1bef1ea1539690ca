"""`/v1/hosts/{reference}/flows`: the entries that decide about packets on a host."""

from __future__ import annotations

from sdn.controller.flows import flows
from sdn.controller.query import NETWORK, Parameter
from sdn.controller.route import Call, Reply, Route
from sdn.controller.why_view import FlowsView


async def get_flows(call: Call) -> Reply:
    """Of one host, which must be connected."""
    host = call.core.state.resolve_host(call.reference)
    query = call.query
    return Reply(
        await flows(call.core, host, query.text("network"), query.text("endpoint"), query.flag("drops", False))
    )


ROUTES = (
    Route(
        "GET",
        "/v1/hosts/{reference}/flows",
        get_flows,
        "list a host's entries",
        FlowsView,
        query=(
            NETWORK,
            Parameter("endpoint", "only a container's: as /v1/why takes it"),
            Parameter("drops", "only what counts drops", {"type": "boolean"}),
        ),
    ),
)
