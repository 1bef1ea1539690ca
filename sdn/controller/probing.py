"""Probes of the underlay: one host asks, the others are told to answer it for a few seconds.

Only hosts with an authenticated, live stream are asked and told, and only the asker's own VTEPs are answered: nobody
else can have a host send anything. What the probes find stays with the host that sent them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sdn.controller.fleet import Fleet
from sdn.controller.ledger import Ledger
from sdn.controller.session import HostStream
from sdn.model.errors import HawseError, exhausted, invalid, not_found
from sdn.model.ids import HostId
from sdn.model.resources import Host
from sdn.model.stream import Peer, Peers, PeersRequest, ProbeOrder

ANSWER_S = 5.0
"""How long the others answer: a doctor is done in two."""
PREPARE_S = 1.0
"""A host that has not said by then that it answers is told of as one that does not."""
PEERS_MAX = 64
"""Of one request: more paths than that are not probed in two seconds."""
REQUESTS_MAX = 16
"""At a time, of all hosts: a fleet that is examined by a timer must not make each host answer all others at once."""
BURST = 5
PER_SECOND = 1.0
"""Of one host: more often than that nobody examines a machine, and one that was taken over must not busy all others."""
COOKIE_BITS = 128


class Probing:
    """Serves `PeersRequest`. What was begun is finished in bounded time, whoever goes away meanwhile."""

    def __init__(self, ledger: Ledger, fleet: Fleet, random_bits: Callable[[int], int]) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._random_bits = random_bits
        self._serving: dict[HostId, asyncio.Task[None]] = {}
        self._spent: dict[HostId, tuple[float, float]] = {}
        """Requests that count still, and since when they fade."""

    def begin(self, stream: HostStream, host: Host, message: PeersRequest) -> None:
        """Serve it in a task of its own: the stream goes on. Raises: EXHAUSTED, NOT_FOUND, INVALID."""
        if host.id in self._serving or len(self._serving) >= REQUESTS_MAX:
            raise exhausted("probes are being prepared already", "try again in a second")
        self._spend(host)
        sources = tuple(vtep for vtep in (host.vtep4, host.vtep6) if vtep is not None)
        if not sources:
            raise invalid(f"host {host.name} has no VTEP to probe from", "give it an address on the underlay")
        chosen, omitted = self._choose(host, message.names)
        order = ProbeOrder(
            cookie=self._random_bits(COOKIE_BITS).to_bytes(COOKIE_BITS // 8, "big"), sources=sources, seconds=ANSWER_S
        )
        task = asyncio.get_running_loop().create_task(self._serve(stream, message.request, chosen, omitted, order))
        self._serving[host.id] = task
        task.add_done_callback(lambda _: self._serving.pop(host.id, None))

    def _spend(self, host: Host) -> None:
        """Count a request. Raises: EXHAUSTED."""
        now = asyncio.get_running_loop().time()
        faded = {id_: (spent - (now - since) * PER_SECOND, now) for id_, (spent, since) in self._spent.items()}
        self._spent = {id_: entry for id_, entry in faded.items() if entry[0] > 0}
        spent, _ = self._spent.get(host.id, (0.0, now))
        if spent > BURST - 1:
            raise exhausted(f"host {host.name} asks for probes too often", "try again in some seconds")
        self._spent[host.id] = (spent + 1, now)

    def _choose(self, asker: Host, names: tuple[str, ...]) -> tuple[list[Host], int]:
        """Whom to ask, by name, and how many there are beyond. Raises: NOT_FOUND."""
        hosts = self._ledger.state.hosts
        others = [host for host in hosts.values() if host.id != asker.id]
        if names:
            unknown = sorted(set(names) - {host.name for host in others})
            if unknown:
                raise not_found(f"there is no other host {', '.join(unknown)}", "'hawse host ls' lists them")
            chosen = [host for host in others if host.name in names]
        else:
            near = self._near(asker)
            agents = self._fleet.streams.keys() - self._ledger.state.switches.keys()
            connected = [host for host in others if host.id in agents]
            chosen = sorted(connected, key=lambda host: (host.id not in near, host.name))
        return sorted(chosen[:PEERS_MAX], key=lambda host: host.name), max(0, len(chosen) - PEERS_MAX)

    def _near(self, asker: Host) -> set[HostId]:
        """The hosts that share a network with this one."""
        state = self._ledger.state
        topics = [topic for topic in state.topics_of(asker.id) if topic.startswith("network/")]
        return {host for topic in topics for host in state.holders_of(topic)}

    async def _serve(
        self, stream: HostStream, request: int, chosen: list[Host], omitted: int, order: ProbeOrder
    ) -> None:
        problems = await asyncio.gather(*(self._order(host, order) for host in chosen))
        peers = tuple(
            Peer(
                name=host.name,
                vtep4=host.vtep4,
                vtep6=host.vtep6,
                mtu_bytes=host.mtu_bytes,
                version=host.version,
                problem=problem,
            )
            for host, problem in zip(chosen, problems, strict=True)
        )
        stream.reply(Peers(request=request, cookie=order.cookie, peers=peers, omitted=omitted))

    async def _order(self, host: Host, order: ProbeOrder) -> str:
        """Why the host does not answer probes; empty: it does."""
        stream = self._fleet.streams.get(host.id)
        if stream is None:
            return "it is not connected to the controller"
        try:
            await stream.query("probe", PREPARE_S, order)
        except HawseError as error:
            return error.message
        return ""
