"""The desk: what the controller does with each message of an agent."""

from __future__ import annotations

from collections.abc import Callable

from sdn.controller.custody import Custody
from sdn.controller.events import EventLog
from sdn.controller.fleet import Fleet
from sdn.controller.ledger import Ledger
from sdn.controller.plan import Plan
from sdn.controller.plan_endpoints import Attachment, attach
from sdn.controller.plan_hosts import facts, hello
from sdn.controller.plan_networks import release_vnis
from sdn.controller.plan_release import release_chunk
from sdn.controller.probing import Probing
from sdn.controller.session import HostStream, Phase
from sdn.controller.state import State
from sdn.model.address import parse_address
from sdn.model.errors import denied, not_found
from sdn.model.ids import EndpointId, HostId, Revision
from sdn.model.resources import Endpoint, Host
from sdn.model.stream import (
    Attached,
    AttachRequest,
    Detached,
    DetachRequest,
    Facts,
    Hello,
    PeersRequest,
    Report,
    Settled,
    Welcome,
)


class AgentDesk:
    """See session.Desk."""

    def __init__(
        self,
        ledger: Ledger,
        fleet: Fleet,
        events: EventLog,
        ids: Callable[[], str],
        settle_s: float,
        random_bits: Callable[[int], int],
        custody: Custody,
    ) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._events = events
        self._ids = ids
        self._settle_s = settle_s
        self._custody = custody
        self._probing = Probing(ledger, fleet, random_bits)

    # --- sessions ---

    async def hello(self, stream: HostStream, message: Hello) -> None:
        """Begin a session: the host's record, what a reboot has ended, then what the agent lacks."""
        if message.host != stream.host:
            raise denied(
                f"the credential is of host {stream.host}, the hello of {message.host}",
                "give each host its own configuration",
                authenticated=stream.host,
                hello=message.host,
            )
        await self._ledger.exclusively(lambda: self._begin_session(stream, message))

    async def _begin_session(self, stream: HostStream, message: Hello) -> None:
        host = self._host(stream.host)
        self._fleet.check_newest(host, stream)
        vteps = (message.vtep4 and parse_address(message.vtep4), message.vtep6 and parse_address(message.vtep6))
        self._fleet.check_vteps(host, *vteps)
        actor = f"host:{host.name}"
        host, _ = await self._ledger.write_held(lambda state: hello(state, state.hosts[host.id], message, actor), actor)
        await self._release_older(host, actor)
        if stream.phase is Phase.OVER:  # the connection broke meanwhile
            return
        has = {topic: revision for topic, revision in message.topics.items() if revision > 0}
        synced = Revision(max(has.values(), default=0))
        messages, kept = await self._fleet.catch_up(host.id, has, synced)
        if not kept:  # the agent has nothing now: there is nothing that it could drop
            has, messages = {}, [entry for entry in messages if entry.revision is not None]
        stream.begin(host.session)
        self._fleet.join(stream, kept)
        revision = self._ledger.state.revision
        stream.box.begin(has, synced)
        stream.reply(Welcome(host=host.id, name=host.name, session=host.session, revision=revision, resumed=kept))
        stream.box.transaction(messages, revision)
        stream.wake()
        self._custody.greeted(stream, message)
        self._fleet.progressed.ring()

    async def _release_older(self, host: Host, actor: str) -> None:
        """Endpoints of an older incarnation: their namespaces went with the boot, or with the host's namespace."""

        def older(state: State) -> list[Endpoint]:
            mine = state.endpoints_of(host=host.id)
            return [endpoint for endpoint in mine if endpoint.incarnation != host.incarnation]

        while older(self._ledger.state):
            await self._ledger.write_held(
                lambda state: release_chunk(state, older(state), "host restarted", actor), actor
            )

    def _host(self, id_: HostId) -> Host:
        state = self._ledger.state
        if id_ not in state.hosts or id_ in state.forgetting:
            raise not_found("this host is not known (any more)", "create it and give it a new credential", host=id_)
        return state.hosts[id_]

    async def catch_up(self, stream: HostStream) -> None:
        """Bring a host that lags up to date by one coalesced transaction."""
        await self._ledger.exclusively(lambda: self._refill(stream))

    async def _refill(self, stream: HostStream) -> None:
        messages, _ = await self._fleet.catch_up(stream.host, stream.box.has, stream.box.synced)
        stream.box.catch_up(messages, self._ledger.state.revision)

    def over(self, stream: HostStream) -> None:
        """The conversation is over."""
        self._fleet.leave(stream)

    async def facts(self, stream: HostStream, message: Facts) -> None:
        """What changed about the host."""
        host = self._host(stream.host)
        vteps = (message.vtep4 and parse_address(message.vtep4), message.vtep6 and parse_address(message.vtep6))
        actor = f"host:{host.name}"

        def plan(state: State) -> Plan[Host]:
            self._fleet.check_vteps(host, *vteps)  # now, in turn: of two that claim one at once, one comes later
            return facts(state, state.hosts[host.id], message, actor)

        await self._ledger.write(plan, actor)

    # --- requests ---

    async def attach(self, stream: HostStream, message: AttachRequest) -> None:
        """Allocate, answer, and say later who has not followed in time."""
        host = self._host(stream.host)
        actor = f"host:{host.name}"
        id_ = EndpointId(self._ids())
        wished = Attachment.parse(message)
        endpoint, revision = await self._ledger.write(
            lambda state: attach(state, state.hosts[host.id], wished, id_, actor), actor
        )
        state = self._ledger.state
        stream.reply(
            Attached(
                request=message.request,
                revision=revision,
                endpoint=endpoint,
                network=state.networks[endpoint.network],
                tenant=state.tenants[endpoint.tenant],
            )
        )
        self._settle(stream, message.request, endpoint, revision)

    def _settle(self, stream: HostStream, request: int, endpoint: Endpoint, revision: Revision) -> None:
        """The attaching host wires by itself before it answers; the others have to say that they did."""

        def done(late: list[HostId]) -> None:
            hosts = self._ledger.state.hosts
            names = tuple(sorted(hosts[host].name for host in late if host in hosts))
            stream.reply(Settled(request=request, revision=revision, late=names))
            if names:
                self._events.soft(
                    "endpoint.late",
                    id=endpoint.id,
                    name=endpoint.name,
                    tenant=endpoint.tenant,
                    network=endpoint.network,
                    hosts=list(names),
                )

        others = (self._fleet.concerned(revision) & self._fleet.streams.keys()) - {stream.host}
        self._fleet.settling.wait(revision, others, self._settle_s, done)

    async def detach(self, stream: HostStream, message: DetachRequest) -> None:
        """Release by id, and only what is this host's: a late release never touches a newer endpoint."""
        host = self._host(stream.host)
        actor = f"host:{host.name}"

        def mine(state: State) -> list[Endpoint]:
            known = [state.endpoints[id_] for id_ in dict.fromkeys(message.endpoints) if id_ in state.endpoints]
            return [endpoint for endpoint in known if endpoint.host == host.id]

        revision = self._ledger.state.revision
        while mine(self._ledger.state):
            _, revision = await self._ledger.write(
                lambda state: release_chunk(state, mine(state), message.reason or "detached", actor), actor
            )
        stream.reply(Detached(request=message.request, revision=revision))

    async def peers(self, stream: HostStream, message: PeersRequest) -> None:
        """Have other hosts answer this one's probes."""
        self._probing.begin(stream, self._host(stream.host), message)

    async def report(self, stream: HostStream, message: Report) -> None:
        """How far the host is; it may be the one that a removed network's VNI was held back for."""
        revision = Revision(min(message.revision, self._ledger.state.revision))
        self._fleet.settling.report(stream.host, revision, message.failures)
        self._fleet.progressed.ring()
        await self.release_vnis()

    async def release_vnis(self) -> None:
        """Free the VNIs of removed networks that no host can have any more."""
        while self._ledger.state.held:
            freed, _ = await self._ledger.write(
                lambda state: release_vnis(state, self._fleet.settling.removed, "controller"), "controller"
            )
            if not freed:
                return
