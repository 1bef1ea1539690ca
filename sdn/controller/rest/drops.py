"""`/v1/drops`: what the hosts' guards dropped, by cause."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from sdn.controller.principal import Access
from sdn.controller.query import HOST
from sdn.controller.route import Reply, Route, ScopedCall
from sdn.controller.scope import Scope
from sdn.controller.view import DropView
from sdn.model.errors import HawseError, Kind
from sdn.model.resources import Host


class DropsView(msgspec.Struct, frozen=True, kw_only=True):
    """`away`: names of the hosts that could not be asked."""

    items: list[DropView]
    away: list[str]


async def get_drops(call: ScopedCall) -> Reply:
    """Of one host, which must be connected, or of all that are, asked side by side."""
    reference = call.query.text("host")
    if reference:
        return Reply(DropsView(items=await _drops(call.scope, call.scope.host(reference)), away=[]))
    hosts = call.scope.hosts()
    answers = await asyncio.gather(*(_drops_or_none(call.scope, host) for host in hosts))
    items = [drop for answer in answers for drop in answer or ()]
    return Reply(
        DropsView(items=items, away=[h.name for h, answer in zip(hosts, answers, strict=True) if answer is None])
    )


async def _drops_or_none(scope: Scope, host: Host) -> list[DropView] | None:
    try:
        return await _drops(scope, host)
    except HawseError as error:
        if error.kind is not Kind.UNAVAILABLE:
            raise
        return None


async def _drops(scope: Scope, host: Host) -> list[DropView]:
    return sorted(await scope.drops(host), key=_order)


def _order(drop: DropView) -> Any:
    return (drop.tenant, drop.network, drop.cause)


ROUTES = (
    Route(
        "GET",
        "/v1/drops",
        get_drops,
        "what the guards dropped, by cause",
        DropsView,
        query=(HOST,),
        access=Access.TENANT,
    ),
)
