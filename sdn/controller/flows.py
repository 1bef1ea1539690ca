"""A host's tables, with the names of what each entry is there for."""

from __future__ import annotations

import msgspec

from sdn.controller.core import Core
from sdn.controller.finding import find_container, spelled
from sdn.controller.state import State
from sdn.controller.why_view import FlowsView, FlowView
from sdn.model.address import link_local
from sdn.model.errors import unavailable
from sdn.model.explanation import FlowFilter, FlowOwner, FlowRow, FlowTable
from sdn.model.ids import EndpointId, NetworkId, TenantId
from sdn.model.resources import Endpoint, Host
from sdn.openflow.cookies import of_endpoint
from sdn.reconcile.reach import address_of

ANSWER_S = 10.0
"""A host with ten thousand endpoints of its networks reads its tables in about a second."""


async def flows(core: Core, host: Host, network: str | None, container: str | None, drops: bool) -> FlowsView:
    """What a host has, limited to a network, to a container, to counters of drops. Raises: NOT_FOUND, UNAVAILABLE."""
    state = core.state
    ends = find_container(state, container, None) if container else ()
    chosen = FlowFilter(
        network=state.resolve_network(network).id if network else "",
        owners=tuple(map(_owner, ends)),
        drops=drops,
    )
    answer = await core.query(host.id, "flows", ANSWER_S, flows=chosen)
    try:
        table = msgspec.convert(answer, FlowTable)
    except msgspec.ValidationError as error:
        why = f"host {host.name} answered with what is no table: {error}"
        raise unavailable(why, "see 'hawse host ls'") from None
    names = _Owners(core.state, {NetworkId(row.network) for row in table.rows})
    return FlowsView(items=[_view(core.state, names, row) for row in table.rows], omitted=table.omitted)


def _owner(endpoint: Endpoint) -> FlowOwner:
    return FlowOwner(
        endpoint=endpoint.id, network=endpoint.network, subjects=_subjects(endpoint), cookie=of_endpoint(endpoint.id)
    )


def _subjects(endpoint: Endpoint) -> tuple[str, ...]:
    """What rows about an endpoint are about."""
    return (endpoint.mac, *map(address_of, endpoint.addresses), link_local(endpoint.mac))


class _Owners:
    """Whose a row is, by what the host knows of it."""

    def __init__(self, state: State, networks: set[NetworkId]) -> None:
        self._state = state
        self._by_cookie: dict[int, Endpoint] = {}
        self._by_subject: dict[tuple[str, str], Endpoint] = {}
        for network in networks:
            for endpoint in state.endpoints_of(network) if network in state.networks else ():
                self._by_cookie[of_endpoint(endpoint.id)] = endpoint
                for subject in _subjects(endpoint):
                    self._by_subject[network, subject] = endpoint

    def name(self, row: FlowRow) -> str:
        """Its name; by id what is gone, "" for what is nobody's."""
        found = self._state.endpoints.get(EndpointId(row.endpoint)) or self._by_cookie.get(row.cookie)
        found = found or self._by_subject.get((row.network, row.subject))
        return spelled(self._state, found) if found is not None else row.endpoint


def _view(state: State, owners: _Owners, row: FlowRow) -> FlowView:
    network = state.networks.get(NetworkId(row.network))
    tenant = state.tenants.get(network.tenant if network is not None else TenantId(row.tenant))
    return FlowView(
        table=row.table,
        match=row.match,
        action=row.action,
        owner=owners.name(row),
        tenant=tenant.name if tenant is not None else row.tenant,
        network=network.name if network is not None else row.network,
        cause=row.cause,
        packets=row.packets,
        bytes=row.bytes,
        counts=row.counts,
    )
