"""`/v1/switches`: switches without an agent, which the controller programs over OpenFlow."""

from __future__ import annotations

import time

import msgspec

from sdn.controller.core import Core
from sdn.controller.query import LABEL, PAGE, Parameter
from sdn.controller.route import Call, Reply, Route
from sdn.controller.specs import BindSpec, SwitchSpec
from sdn.controller.status import HostState
from sdn.controller.switches import PortCounts
from sdn.controller.view import EndpointView, Page, endpoint_view, has_labels, page_of
from sdn.model.errors import HawseError
from sdn.model.resources import Endpoint, Host


class PortView(msgspec.Struct, frozen=True, kw_only=True):
    """A port that is bound, or that the switch has (`number` is then not 0). Counters are the switch's own.

    `endpoint` is the id of what is bound there, "" if nothing; the network is `tenant/name`.
    """

    port: str
    number: int = 0
    up: bool = False
    endpoint: str = ""
    name: str = ""
    network: str = ""
    mac: str = ""
    addresses: tuple[str, ...] = ()
    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0


class SwitchView(msgspec.Struct, frozen=True, kw_only=True):
    """A switch and how far it is. `peer`: where it connects from, "" while it is away; `failures`: unit -> sentence.

    `certificate`: SHA-256 of the only one that it may show, "" where none was made. `ports` only of one that is asked
    for; `problem` says why they are without counters.
    """

    id: str
    name: str
    datapath_id: str
    vtep4: str | None
    vtep6: str | None
    mtu_bytes: int
    tunnel_port: str
    certificate: str
    labels: dict[str, str]
    drained_by: str
    version: str
    revision: int
    connected: bool
    peer: str
    bound: int
    applied_revision: int
    failures: dict[str, str]
    ports: list[PortView] | msgspec.UnsetType = msgspec.UNSET
    problem: str | msgspec.UnsetType = msgspec.UNSET


class SwitchCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """What a switch needs for TLS, in PEM. `key` is shown this once; by `authority` it verifies the controller."""

    name: str
    datapath_id: str
    key: str
    certificate: str
    authority: str


async def list_switches(call: Call) -> Reply:
    """Every switch."""
    labels, states, hosts = call.query.labels(), _states(call), call.core.state.hosts
    found = [hosts[id_] for id_ in call.core.state.switches if has_labels(hosts[id_].labels, labels)]
    return Reply(page_of(call.core, call.query, found, lambda host: _view(call.core, host, states.get(host.id))))


async def add_switch(call: Call) -> Reply:
    """A new one, not connected yet."""
    host, revision = await call.core.switches.add(call.body, call.actor)
    return Reply(_view(call.core, host, None), 201, revision)


async def get_switch(call: Call) -> Reply:
    """One, with its ports."""
    host, _ = call.core.switches.resolve(call.reference)
    view = _view(call.core, host, _states(call).get(host.id))
    ports, problem = await _ports(call.core, host)
    shown = msgspec.structs.replace(view, ports=ports, problem=problem)
    return Reply(shown, etag=call.core.state.revision_of("host", host.id))


async def remove_switch(call: Call) -> Reply:
    """Drop it for good."""
    force = call.query.flag("force", False)
    return Reply(None, 204, await call.core.switches.remove(call.reference, force, call.actor))


async def bind_port(call: Call) -> Reply:
    """An endpoint on a port; 200 where it was there already."""
    endpoint, revision, new = await call.core.switches.bind(call.reference, call.body, call.actor)
    return Reply(endpoint_view(call.core, endpoint), 201 if new else 200, revision)


async def unbind_port(call: Call) -> Reply:
    """Release what is on a port."""
    port = call.request.match_info["port"]
    return Reply(None, 204, await call.core.switches.unbind(call.reference, port, call.actor))


async def certify_switch(call: Call) -> Reply:
    """A new key and certificate, which void the ones before."""
    host, made = await call.core.switches.certify(call.reference, call.edge.identity.authority, time.time(), call.actor)
    key, begin, certificate = made.partition("-----BEGIN CERTIFICATE-----")
    switch = call.core.state.switches[host.id]
    shown = SwitchCertificate(
        name=host.name,
        datapath_id=switch.datapath_id,
        key=key,
        certificate=begin + certificate,
        authority=call.edge.authority,
    )
    return Reply(shown, 201, call.core.revision)


def _states(call: Call) -> dict[str, HostState]:
    return {state.id: state for state in call.core.status().hosts}


def _view(core: Core, host: Host, state: HostState | None) -> SwitchView:
    switch, connected = core.state.switches[host.id], core.switches.connected.get(host.id)
    return SwitchView(
        id=host.id,
        name=host.name,
        datapath_id=switch.datapath_id,
        vtep4=host.vtep4,
        vtep6=host.vtep6,
        mtu_bytes=host.mtu_bytes,
        tunnel_port=switch.tunnel_port,
        certificate=switch.certificate,
        labels=host.labels,
        drained_by=host.drained_by,
        version=host.version,
        revision=core.state.revision_of("host", host.id),
        connected=state is not None and state.connected,
        peer=connected.peer if connected is not None else "",
        bound=sum(1 for _ in core.state.endpoints_of(host=host.id)),
        applied_revision=state.applied_revision if state is not None else 0,
        failures=dict(state.failures) if state is not None else {},
    )


async def _ports(core: Core, host: Host) -> tuple[list[PortView], str]:
    """What is bound first, by port; then what else the switch has; and why that is not known."""
    connected = core.switches.connected.get(host.id)
    there: dict[int, PortCounts] = {}
    problem = "" if connected is not None else "the switch is away"
    try:
        if connected is not None:
            there = {port.number: port for port in await connected.ports()}
    except HawseError as error:
        problem = error.message
    views: list[PortView] = []
    for endpoint in sorted(core.state.endpoints_of(host=host.id), key=lambda one: (len(one.ifname), one.ifname)):
        number = connected.number_of(endpoint.ifname) if connected is not None else None
        views.append(_port_view(core, endpoint, there.pop(number, None) if number is not None else None))
    views += [_counted(PortView(port=port.name, number=port.number), port) for port in there.values()]
    return views, problem


def _port_view(core: Core, endpoint: Endpoint, port: PortCounts | None) -> PortView:
    shown = endpoint_view(core, endpoint)
    view = PortView(
        port=endpoint.ifname,
        endpoint=endpoint.id,
        name=endpoint.name,
        network=f"{shown.tenant_name}/{shown.network_name}",
        mac=endpoint.mac,
        addresses=endpoint.addresses,
    )
    return view if port is None else _counted(view, port)


def _counted(view: PortView, port: PortCounts) -> PortView:
    return msgspec.structs.replace(
        view,
        number=port.number,
        up=port.up,
        rx_packets=port.rx_packets,
        rx_bytes=port.rx_bytes,
        tx_packets=port.tx_packets,
        tx_bytes=port.tx_bytes,
    )


FORCE = Parameter("force", "1: even while something is bound, which is released", {"type": "integer", "enum": [0, 1]})
ALL, ONE = "/v1/switches", "/v1/switches/{reference}"
ROUTES = (
    Route("GET", ALL, list_switches, "list switches without an agent", Page[SwitchView], query=(LABEL, *PAGE)),
    Route("POST", ALL, add_switch, "take a switch that may connect", SwitchView, SwitchSpec, statuses=(201,)),
    Route("GET", ONE, get_switch, "show a switch, its ports and what is bound to them", SwitchView),
    Route("DELETE", ONE, remove_switch, "drop a switch", query=(FORCE,), statuses=(204,)),
    Route("POST", f"{ONE}/ports", bind_port, "bind a port to a network", EndpointView, BindSpec, statuses=(200, 201)),
    Route("DELETE", f"{ONE}/ports/{{port}}", unbind_port, "release what is bound to a port", statuses=(204,)),
    Route(
        "POST",
        f"{ONE}/certificate",
        certify_switch,
        "make a key and a certificate for a switch; void those before",
        SwitchCertificate,
        statuses=(201,),
    ),
)
