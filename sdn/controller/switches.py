"""Switches without an agent, as the core has them: what is asked of them, and which of them are connected.

Who programs a connected switch is `sdn.controller.steering`; here it is known by the few things that others want of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Protocol

from sdn.controller import plan_hosts, plan_switches
from sdn.controller.authority import Authority, issue_switch
from sdn.controller.ledger import Ledger
from sdn.controller.plan import Plan
from sdn.controller.specs import BindSpec, SwitchSpec
from sdn.controller.state import State
from sdn.model.certificate import parse_certificates
from sdn.model.errors import HawseError, Kind, denied, unavailable
from sdn.model.ids import EndpointId, HostId, Revision
from sdn.model.resources import Endpoint, Host, Switch


@dataclasses.dataclass(frozen=True, slots=True)
class PortCounts:
    """A port of a connected switch: what it is, and what it has carried since the switch knows it."""

    number: int
    name: str
    up: bool
    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0


def not_connected(state: State, host: HostId) -> HawseError:
    """What is said of one that cannot be asked, and what to do there."""
    name = plan_hosts.name_of(state, host)
    if host in state.switches:
        return unavailable(f"switch {name} is not connected", "'hawse help switches' has what to type on it", host=name)
    return unavailable(f"host {name} is not connected", "start its agent", host=name)


class Connected(Protocol):
    """A switch that is connected now."""

    @property
    def peer(self) -> str:
        """Where it connects from: `ssl:192.0.2.1:40112`."""

    def number_of(self, port: str) -> int | None:
        """The number of a port by its name or number; None: it is not there."""

    async def ports(self) -> list[PortCounts]:
        """Its ports with their counters. Raises: UNAVAILABLE."""

    async def purge(self) -> None:
        """Take everything of Hawse's off it. Raises: UNAVAILABLE."""


class Switches:
    """A part of the core; one per controller."""

    def __init__(
        self,
        ledger: Ledger,
        ids: Callable[[], str],
        cut: Callable[[HostId, HawseError], None],
        forget: Callable[[HostId, str], Awaitable[Revision]],
    ) -> None:
        """`cut` ends a host's stream; `forget` finishes what `begin_removing` began."""
        self.connected: dict[HostId, Connected] = {}
        self._ledger = ledger
        self._ids = ids
        self._cut = cut
        self._forget = forget

    @property
    def _state(self) -> State:
        return self._ledger.state

    def resolve(self, reference: str) -> tuple[Host, Switch]:
        """By name or id. Raises: NOT_FOUND; INVALID for a host with an agent."""
        return plan_switches.resolve_switch(self._state, reference)

    async def add(self, spec: SwitchSpec, actor: str) -> tuple[Host, Revision]:
        """Raises: INVALID; CONFLICT where its name, VTEP or datapath id is another's."""
        id_ = HostId(self._ids())
        return await self._ledger.write(lambda state: plan_switches.add_switch(state, spec, id_, actor), actor)

    async def bind(self, reference: str, spec: BindSpec, actor: str) -> tuple[Endpoint, Revision, bool]:
        """What is on the port from now on, and whether that is new. The same again is fine.

        Raises: NOT_FOUND (switch, network); INVALID; CONFLICT (port, address, MAC, name, MTU); EXHAUSTED.
        """
        id_ = EndpointId(self._ids())
        wished = plan_switches.parse_bind(spec)

        def plan(state: State) -> Plan[Endpoint]:
            host, _ = plan_switches.resolve_switch(state, reference)
            connected = self.connected.get(host.id)
            known = (connected.number_of,) if connected is not None else ()
            return plan_switches.bind(state, host, wished, id_, actor, *known)

        endpoint, revision = await self._ledger.write(plan, actor)
        return endpoint, revision, endpoint.id == id_

    async def unbind(self, reference: str, port: str, actor: str) -> Revision:
        """Release what is on a port; nothing there is fine. Raises: NOT_FOUND (switch)."""

        def plan(state: State) -> Plan[Endpoint]:
            host, _ = plan_switches.resolve_switch(state, reference)
            return plan_switches.unbind(state, host, port, actor)

        self.resolve(reference)
        try:
            _, revision = await self._ledger.write(plan, actor)
        except HawseError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return self._state.revision
        return revision

    async def remove(self, reference: str, force: bool, actor: str) -> Revision:
        """Drop it, and, where it is connected, what it was programmed with. Absent is fine.

        Raises: CONFLICT while something is bound, unless `force`.
        """

        def plan(state: State) -> Plan[Host]:
            host, _ = plan_switches.resolve_switch(state, reference)
            return plan_switches.begin_removing(state, host, force, actor)

        try:
            host, _ = await self._ledger.write(plan, actor)
        except HawseError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return self._state.revision
        try:
            if (connected := self.connected.get(host.id)) is not None:
                await connected.purge()
        except HawseError:
            pass  # it is away meanwhile: what is left there is told of in 'hawse help switches'
        finally:
            revision = await self._forget(host.id, actor)
        return revision

    async def certify(self, reference: str, authority: Authority, now_s: float, actor: str) -> tuple[Host, str]:
        """A new key and certificate for a switch, in PEM; what it had before is void."""
        host, _ = self.resolve(reference)
        made = issue_switch(authority, host.name, now_s)
        fingerprint = parse_certificates(made)[0].fingerprint

        def plan(state: State) -> Plan[Switch]:
            host, _ = plan_switches.resolve_switch(state, reference)
            return plan_switches.set_certificate(state, host, fingerprint, authority.certificate.fingerprint, actor)

        await self._ledger.write(plan, actor)
        self._cut(host.id, denied("this switch was given another certificate", "have it use the new one"))
        return host, made

    def lacking(self, authority: str) -> list[Host]:
        """Those whose certificate another authority has signed, by name."""
        found = [id_ for id_, one in self._state.switches.items() if one.certificate and one.authority != authority]
        return sorted((self._state.hosts[id_] for id_ in found), key=lambda host: host.name)
