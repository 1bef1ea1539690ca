"""`/v1/why`: whether a packet arrives, and which entry of which host decides that."""

from __future__ import annotations

from sdn.controller.principal import Access
from sdn.controller.query import Parameter
from sdn.controller.route import Reply, Route, ScopedCall
from sdn.controller.why_view import WhyView
from sdn.model.errors import invalid


async def get_why(call: ScopedCall) -> Reply:
    """From a container to a container, an address or a MAC."""
    source, destination = call.query.text("source"), call.query.text("destination")
    if source is None or destination is None:
        absent = "source" if source is None else "destination"
        raise invalid(
            f"who is the {absent}?",
            "name a container for the source, and a container, an address or a MAC for the destination",
            parameter=absent,
        )
    return Reply(await call.scope.why(source, destination, call.query.text("protocol") or ""))


ROUTES = (
    Route(
        "GET",
        "/v1/why",
        get_why,
        "why a packet arrives or does not",
        WhyView,
        query=(
            Parameter("source", "who sends: a container's or endpoint's name, tenant/name, HOST:container, or id"),
            Parameter("destination", "to whom: the same, or an address, or a MAC"),
            Parameter("protocol", "tcp/80, udp/53 or icmp"),
        ),
        access=Access.TENANT,
    ),
)
