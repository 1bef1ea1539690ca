"""`/v1/drops`: what the hosts' guards dropped, by cause."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from sdn.controller.query import HOST
from sdn.controller.route import Call, Reply, Route
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.model.ids import NetworkId, TenantId
from sdn.model.resources import Host

QUERY_TIMEOUT_S = 5.0
"""For one host; they are asked side by side."""
HINT = "see 'hawse host ls'"


class Count(msgspec.Struct, frozen=True):
    """As an agent sends it: tenant and network are ids."""

    tenant: str
    network: str
    cause: str
    packets: int
    bytes: int


class DropView(msgspec.Struct, frozen=True, kw_only=True):
    """One cause in one network of one host, all by name."""

    host: str
    tenant: str
    network: str
    cause: str
    packets: int
    bytes: int


class DropsView(msgspec.Struct, frozen=True, kw_only=True):
    """`away`: names of the hosts that could not be asked."""

    items: list[DropView]
    away: list[str]


async def get_drops(call: Call) -> Reply:
    """Of one host, which must be connected, or of all that are."""
    reference = call.query.text("host")
    if reference:
        return Reply(DropsView(items=await _drops(call, call.core.state.resolve_host(reference)), away=[]))
    hosts = sorted(call.core.state.hosts.values(), key=lambda host: host.name)
    answers = await asyncio.gather(*(_drops_or_none(call, host) for host in hosts))
    items = [drop for answer in answers for drop in answer or ()]
    return Reply(
        DropsView(items=items, away=[h.name for h, answer in zip(hosts, answers, strict=True) if answer is None])
    )


async def _drops_or_none(call: Call, host: Host) -> list[DropView] | None:
    try:
        return await _drops(call, host)
    except HawseError as error:
        if error.kind is not Kind.UNAVAILABLE:
            raise
        return None


async def _drops(call: Call, host: Host) -> list[DropView]:
    answer = await call.core.query(host.id, "drops", QUERY_TIMEOUT_S)
    try:
        counts: list[Count] = msgspec.convert(answer, list[Count])
    except msgspec.ValidationError as error:
        raise unavailable(f"host {host.name} answered with what is no list of drops: {error}", HINT) from None
    return sorted((_view(call, host, count) for count in counts), key=_order)


def _view(call: Call, host: Host, count: Count) -> DropView:
    tenant = call.core.state.tenants.get(TenantId(count.tenant))
    network = call.core.state.networks.get(NetworkId(count.network))
    return DropView(
        host=host.name,
        tenant=tenant.name if tenant is not None else count.tenant,
        network=network.name if network is not None else count.network,
        cause=count.cause,
        packets=count.packets,
        bytes=count.bytes,
    )


def _order(drop: DropView) -> Any:
    return (drop.tenant, drop.network, drop.cause)


ROUTES = (Route("GET", "/v1/drops", get_drops, "what the guards dropped, by cause", DropsView, query=(HOST,)),)
