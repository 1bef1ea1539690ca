"""How this host is, as its agent knows it: what `hawse doctor` begins with."""

from __future__ import annotations

import asyncio
import collections
import os
from collections.abc import Callable

from plugin.agent.channel import Clock, wait_bounded
from plugin.agent.configuration import Configuration
from plugin.agent.core import AgentCore
from sdn.model.contract import ExamineRequest, ExamineResult, NetworkHere, Probed
from sdn.model.errors import HawseError, unavailable
from sdn.model.stream import Peers, PeersRequest
from sdn.reconcile.unit import EndpointUnit, NetworkUnit

PEERS_S = 1.4
"""The controller bounds its own asking by one second; who waits here waits for no more than two."""


class Examination:
    """Serves EXAMINE."""

    def __init__(
        self, core: AgentCore, configuration: Callable[[], Configuration], namespace: int, clock: Clock
    ) -> None:
        """`configuration`: as of now; `namespace`: the cookie of the agent's."""
        self._core = core
        self._configuration = configuration
        self._namespace = namespace
        self._clock = clock

    async def examine(self, request: ExamineRequest) -> ExamineResult:
        """See ExamineRequest. That the controller is away is an answer too."""
        core, configuration = self._core, self._configuration()
        probed, problem = await self._probed(request.hosts) if request.probe else (None, "")
        networks = self._networks()
        away = None if core.session.live else core.session.away
        return ExamineResult(
            host=core.identity.host,
            name=core.name or configuration.name,
            version=core.identity.version,
            pid=os.getpid(),
            namespace=self._namespace,
            controllers=configuration.controllers,
            authority=configuration.authority,
            away=away.message if away else "",
            away_hint=away.hint if away else "",
            session=core.session.number,
            revision=core.wiring.world.revision,
            vtep4=core.facts.vtep4,
            vtep6=core.facts.vtep6,
            mtu_bytes=core.facts.mtu_bytes,
            endpoints=sum(network.endpoints for network in networks),
            networks=networks,
            failures=core.wiring.failures(),
            probed=probed,
            probe_problem=problem,
        )

    def _networks(self) -> tuple[NetworkHere, ...]:
        world = self._core.wiring.world
        context = world.context()
        units = list(world.units())
        counts = collections.Counter(unit.endpoint.network for unit in units if isinstance(unit, EndpointUnit))
        found = []
        for unit in units:
            if isinstance(unit, NetworkUnit):
                network = unit.network
                tenant = context.tenants.get(network.tenant)
                found.append(
                    NetworkHere(
                        name=f"{tenant.name if tenant else network.tenant}/{network.name}",
                        tenant=network.tenant,
                        vni=network.vni,
                        mtu_bytes=network.mtu_bytes,
                        endpoints=counts[network.id],
                        peers=tuple(sorted(one.name for one in unit.members if one.host != world.here.host)),
                    )
                )
        return tuple(sorted(found, key=lambda network: network.name))

    async def _probed(self, hosts: tuple[str, ...]) -> tuple[Probed | None, str]:
        session = self._core.session
        try:
            pending = session.request(
                lambda number, request: PeersRequest(session=number, request=request, names=hosts)
            )
            try:
                peers = await self._peers(pending.reply)
            finally:
                session.forget(pending)
        except HawseError as error:
            return None, error.message
        return Probed(cookie=peers.cookie.hex(), peers=peers.peers, omitted=peers.omitted), ""

    async def _peers(self, reply: asyncio.Future[Peers]) -> Peers:
        if not await wait_bounded(self._clock, reply, PEERS_S):
            raise unavailable(f"the controller did not say within {PEERS_S:g} s which hosts answer probes", "try again")
        return reply.result()
