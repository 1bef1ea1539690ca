"""The agent's core: session, wiring, releases and attachments put together. No socket, clock or chance of its own."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

from plugin.agent.answering import answer_about_packets
from plugin.agent.attachments import SETTLE_MS, Attachments, Namespaces
from plugin.agent.channel import Clock, Dial
from plugin.agent.facts import HostFacts
from plugin.agent.journal import Journal
from plugin.agent.keeper import Keeper
from plugin.agent.releases import Releases
from plugin.agent.session import Session
from plugin.agent.wiring import Wiring
from sdn.model.errors import HawseError, invalid, unavailable
from sdn.model.ids import EndpointId, HostId
from sdn.model.resources import Datapath as DatapathName
from sdn.model.resources import Endpoint
from sdn.model.stream import Credentials, Delta, Drop, Facts, Hello, ProbeOrder, Query, Report, Sync, Welcome
from sdn.reconcile.datapath import Datapath
from sdn.reconcile.loop import Offload, Reconciler
from sdn.service.log import get_logger

GONE = "its network namespace is gone"


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Who this host is to the controller; see resources.Host."""

    host: HostId
    incarnation: str
    version: str
    datapath: DatapathName


class AgentCore:
    """One per host. `start`, then `run` in a task; `attachments` serves the contract from then on."""

    def __init__(
        self,
        identity: Identity,
        facts: HostFacts,
        *,
        dial: Dial,
        datapath: Datapath,
        namespaces: Namespaces,
        journal: Journal,
        clock: Clock,
        random: Callable[[], float],
        settle_ms: int = SETTLE_MS,
        offload: Offload = asyncio.to_thread,
        answer_probes: Callable[[ProbeOrder], None] | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._identity = identity
        self._facts = facts
        self._datapath = datapath
        self._offload = offload
        self._answer_probes = answer_probes
        self._keeper = keeper
        self._clock = clock
        self._log = get_logger("agent")
        self._gone: list[Endpoint] = []
        self._releasing: set[asyncio.Task[None]] = set()
        self._met = asyncio.Event()
        self.name = ""
        """As the controller calls this host; empty until it has been met."""
        self.session = Session(dial, self, clock, random)
        self.wiring = Wiring(
            identity.host,
            datapath,
            lambda on_gone: Reconciler(
                datapath, on_gone=on_gone, offload=offload, clock=clock.time, on_failures=self.session.report
            ),
            released=lambda: journal.pending,
            on_gone=self._note_gone,
        )
        self.releases = Releases(self.session, journal, clock)
        self.attachments = Attachments(self.wiring, self.session, self.releases, datapath, namespaces, clock, settle_ms)

    @property
    def identity(self) -> Identity:
        """Who this host is."""
        return self._identity

    @property
    def facts(self) -> HostFacts:
        """What this host knows of its underlay, as of the last change."""
        return self._facts

    async def start(self) -> None:
        """Read what is there. Nothing is written before the controller has spoken."""
        await self.wiring.reconciler.start()
        self.wiring.set_vteps(self._facts.vtep4, self._facts.vtep6)

    async def run(self) -> None:
        """Converse and repair for ever; ends by being cancelled. What is wired stays wired."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.session.run())
                group.create_task(self.wiring.reconciler.run(self.wiring.world))
        finally:
            for task in self._releasing:
                task.cancel()
            await asyncio.gather(*self._releasing, return_exceptions=True)

    async def first_contact(self) -> None:
        """Wait until the first snapshot was applied, or the controller could not be reached."""
        await self._met.wait()

    def change_facts(self, facts: HostFacts) -> None:
        """The host's addresses, routes or MTU are different now."""
        if facts == self._facts:
            return
        before, self._facts = self._facts, facts
        self._log.info("facts changed", vtep4=facts.vtep4, vtep6=facts.vtep6, mtu_bytes=facts.mtu_bytes)
        if self.wiring.set_vteps(facts.vtep4, facts.vtep6):
            self.session.report()
        if _lost_vtep(before, facts):
            # What is sent from an address that is gone is heard by nobody, and only the heartbeat would notice.
            self.session.end_channel()
            return
        self.session.send(
            Facts(
                session=self.session.number,
                vtep4=facts.vtep4,
                vtep6=facts.vtep6,
                mtu_bytes=facts.mtu_bytes,
                routes=facts.routes,
            )
        )

    # The session's peer ---------------------------------------------------------------------------------------------

    def hello(self, fresh: bool) -> Hello:
        """This host now."""
        return Hello(
            host=self._identity.host,
            incarnation=self._identity.incarnation,
            version=self._identity.version,
            vtep4=self._facts.vtep4,
            vtep6=self._facts.vtep6,
            mtu_bytes=self._facts.mtu_bytes,
            datapath=self._identity.datapath,
            routes=self._facts.routes,
            topics={} if fresh else self.wiring.world.topics(),
            authorities=self._keeper.authorities if self._keeper is not None else (),
            secret_sha256=self._keeper.secret_sha256 if self._keeper is not None else b"",
        )

    def welcomed(self, welcome: Welcome) -> None:
        """Undelivered releases go first, so that no attachment meets what it replaces."""
        self.name = welcome.name
        self.wiring.world.begin(welcome.resumed)
        self.releases.replay()

    def take(self, message: Delta | Drop | Sync) -> bool:
        """The state; whether a report is due."""
        return self.wiring.take(message)

    def report(self, session: int) -> Report:
        """How far this host is."""
        return Report(session=session, revision=self.wiring.world.revision, failures=self.wiring.failures())

    async def answer(self, query: Query) -> Any:
        """Raises: INVALID for a question that this version does not know."""
        match query.what:
            case "drops":
                try:
                    counts = await self._offload(self._datapath.drops)
                except OSError as error:
                    raise unavailable(f"the counters cannot be read: {error}", "see the agent's log") from None
                return [dataclasses.asdict(count) for count in counts]
            case "version":
                return self._identity.version
            case "probe" if query.probe is not None and self._answer_probes is not None:
                self._answer_probes(query.probe)
                return None
            case "explain" | "flows":
                return await self._offload(lambda: answer_about_packets(self._datapath, query))
            case other:
                raise invalid(f"this agent does not know the question {other!r}", "ask for `drops` or `version`")

    async def keep(self, credentials: Credentials) -> None:
        """On the disk, and used for the next connection. Raises: HawseError."""
        if self._keeper is None:
            raise invalid("this agent was given its credentials by hand, and keeps no others", "mint another one")
        await self._keeper.keep(credentials)

    def met(self) -> None:
        """The first snapshot has been taken, or the controller could not be reached."""
        self._met.set()

    # What cannot be wired -------------------------------------------------------------------------------------------

    def _note_gone(self, endpoint: Endpoint) -> None:
        if not self._gone:
            self._clock.call_later(0, self._release_gone)
        self._gone.append(endpoint)

    def _release_gone(self) -> None:
        gone, self._gone = self._gone, []
        for endpoint in gone:
            self._log.warning("gone", endpoint=endpoint.id, container=endpoint.container, ifname=endpoint.ifname)
        self.wiring.release(gone)
        task = asyncio.get_running_loop().create_task(self._give_back([endpoint.id for endpoint in gone]))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _give_back(self, endpoints: list[EndpointId]) -> None:
        try:
            await self.releases.release(endpoints, GONE)
        except HawseError as error:  # neither journal nor controller: the next snapshot brings them up again
            self._log.error("not released", count=len(endpoints), reason=error.message)


def _lost_vtep(before: HostFacts, now: HostFacts) -> bool:
    """Whether an address is gone that the connection to the controller may have come from."""
    vteps = ((before.vtep4, now.vtep4), (before.vtep6, now.vtep6))
    return any(old is not None and old != new for old, new in vteps)
