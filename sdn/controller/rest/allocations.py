"""`/v1/allocations`: every address that is held, and by whom."""

from __future__ import annotations

from sdn.controller.principal import Access
from sdn.controller.query import NETWORK, PAGE, TENANT
from sdn.controller.route import Reply, Route, ScopedCall
from sdn.controller.view import AllocationView, Page, page_of
from sdn.model.address import address_bytes
from sdn.model.resources import Allocation


async def list_allocations(call: ScopedCall) -> Reply:
    """All, or those of a tenant or network; by network, then family, then address."""
    found = call.scope.allocations(call.query.text("tenant"), call.query.text("network"))
    return Reply(page_of(call.scope, call.query, found, call.scope.allocation_view, _cursor))


def _cursor(allocation: Allocation) -> str:
    """Sorts as addresses do: the length tells the families apart, and hex digits sort as the bytes."""
    packed = address_bytes(allocation.address)
    return f"{allocation.network}.{len(packed):02}.{packed.hex()}"


ROUTES = (
    Route(
        "GET",
        "/v1/allocations",
        list_allocations,
        "list the addresses that are held, and by whom",
        Page[AllocationView],
        query=(TENANT, NETWORK, *PAGE),
        access=Access.TENANT,
    ),
)
