"""A connected switch as a datapath: what the loop wants written is queued at once, and what is refused comes back.

`write` never waits: it hands flow-mods to the pump, which has one bundle under way at a time. What the switch refuses
is remembered by object, and everything is read again: the object's next attempt then meets the refusal at once, as its
error, and it is tried anew after a while.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from sdn.controller.steering.flows import Naming, lower
from sdn.controller.steering.ports import PortTable
from sdn.model.errors import HawseError, Kind
from sdn.model.explanation import Explanation, FlowRow, Question
from sdn.model.ids import NetworkId, TenantId
from sdn.model.resources import Endpoint, Network
from sdn.openflow import cookies, pipeline
from sdn.openflow.connection import Connection
from sdn.openflow.decode import Entry, decode_entries
from sdn.openflow.encode import encode_delete_all
from sdn.openflow.objects import rank
from sdn.reconcile.datapath import DropCount, Key, LocalPort, Object, Operation, Sandbox, Verb
from sdn.reconcile.unit import Context, Unit

REFUSAL_KEPT_S = 30.0
"""How long an object that the switch refused is not sent again: a full table, say, may have room by then."""
DUMP_TIMEOUT_S = 10.0
"""For all flows of a switch: a hundred thousand of them are told in one second."""
GROUPS_MAX = 4000
"""Of one bundle, so that the first answer is soon there, and a timeout means something."""
DROPS = cookies.make(cookies.Kind.DROP, 0)
DROPS_MASK = cookies.TAG_MASK | 0xFF << 40


@dataclasses.dataclass(frozen=True, slots=True)
class _Refused:
    after: Object | None
    error: HawseError
    until_s: float


class SwitchDatapath:
    """A `sdn.reconcile.datapath.Datapath`, all on the loop's thread, but for `read`, which looks at the last dump.

    `networks`: the world's, a live view.
    """

    def __init__(
        self, connection: Connection, name: str, tunnel: str, ports: PortTable, networks: Mapping[NetworkId, Network]
    ) -> None:
        self._ports = ports
        self._naming = Naming(ports, (), tunnel)
        self._connection = connection
        self._name = name
        self._tunnel = tunnel
        self._networks = networks
        self._entries: list[Entry] = []
        self._queue: list[tuple[Operation, list[bytes]]] = []
        self._waiting = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._refused: dict[Key, _Refused] = {}
        self._refused_anew = False
        self._over = False
        self._drifted: Callable[[Sequence[TenantId] | None], None] = lambda _: None
        self._retry: asyncio.TimerHandle | None = None

    # --- pure ---

    def lower(self, unit: Unit, context: Context) -> dict[Key, Object]:
        """See Datapath."""
        return lower(unit, context)

    def rank(self, key: Key) -> int:
        """See Datapath."""
        return rank(key)

    def in_place(self, before: Object, after: Object) -> bool:
        """See Datapath: flows can always be written over."""
        return True

    def renamed(self, bound: Iterable[str]) -> None:
        """Other ports are bound, or the ports have changed."""
        self._naming = Naming(self._ports, bound, self._tunnel)

    # --- what is there ---

    async def look(self) -> None:
        """Take the flows of the switch in, for `read`; what belongs to nobody is mended. Raises: UNAVAILABLE, …"""
        await self.settled()
        self._entries = await self.dump()
        mending = pipeline.changes(self._entries, self._naming.tunnel_number)
        if mending and not self._over:
            (refusal,) = await self._connection.bundle([mending])
            if refusal is not None:
                why = f"switch {self._name} does not take the flows that every network needs: {refusal.text}"
                raise HawseError(Kind.UNAVAILABLE, why, hint="is it an Open vSwitch of 2.13 or later?")

    async def dump(self, cookie: int = cookies.TAG, mask: int = cookies.TAG_MASK) -> list[Entry]:
        """The flows with such a cookie; by default all that are ours. Raises: UNAVAILABLE."""
        bodies = await self._connection.flow_stats(cookie, mask, timeout_s=DUMP_TIMEOUT_S)
        try:
            return await asyncio.to_thread(_decoded, bodies)
        except ValueError as error:
            raise HawseError(Kind.UNAVAILABLE, f"switch {self._name} tells its flows wrongly: {error}") from None

    def read(self, tenants: Sequence[TenantId] | None = None) -> dict[Key, Object]:
        """See Datapath: of what `look` has seen, whoever is asked for: whose a VNI was, only the world has known."""
        entries, self._entries = self._entries, []
        return self._naming.recognised(entries)

    # --- what is to be there ---

    def write(self, operations: Sequence[Operation]) -> dict[Key, Exception]:
        """See Datapath. Returns before anything is done: what fails afterwards shows at the next read."""
        errors: dict[Key, Exception] = {}
        if self._over:
            return errors
        now_s = time.monotonic()
        for operation in operations:
            refused = self._refused.get(operation.key)
            if refused is not None and refused.after == operation.after and now_s < refused.until_s:
                errors[operation.key] = refused.error
                continue
            self._refused.pop(operation.key, None)
            try:
                messages = self._naming.messages(operation)
            except HawseError as error:
                errors[operation.key] = error
                messages = self._withdrawal(operation)
            if messages:
                self._queue.append((operation, messages))
        if self._queue:
            self._idle.clear()
            self._waiting.set()
        return errors

    def _withdrawal(self, operation: Operation) -> list[bytes]:
        """What is left of something whose port has gone: its number may be another's soon."""
        if operation.before is None or operation.after is None:
            return []
        self._drifted(None)  # the loop believes that it is there still
        gone = Operation(Verb.DELETE, operation.key, operation.before, None)
        try:
            return self._naming.messages(gone)
        except HawseError:  # its old name means nothing now: the read finds it by its number
            return []

    async def pump(self) -> None:
        """Send what is queued, a bundle at a time, for ever. Raises: UNAVAILABLE where the switch does not answer."""
        while True:
            await self._waiting.wait()
            batch, self._queue = self._queue[:GROUPS_MAX], self._queue[GROUPS_MAX:]
            verdicts = await self._connection.bundle([messages for _, messages in batch])
            for (operation, _), verdict in zip(batch, verdicts, strict=True):
                if verdict is not None:
                    self._refuse(operation, verdict.text)
            if not self._queue:
                self._waiting.clear()
                self._idle.set()

    async def settled(self) -> None:
        """Until everything that was queued is done, or refused."""
        await self._idle.wait()

    def take_refused(self) -> bool:
        """Whether the switch has refused anything since this was asked last: then a read is due."""
        anew, self._refused_anew = self._refused_anew, False
        return anew

    def _refuse(self, operation: Operation, why: str) -> None:
        error = HawseError(Kind.UNAVAILABLE, f"switch {self._name} refuses {' '.join(operation.key)}: {why}")
        loop = asyncio.get_running_loop()
        self._refused[operation.key] = _Refused(operation.after, error, time.monotonic() + REFUSAL_KEPT_S)
        self._refused_anew = True
        if self._retry is None:
            self._retry = loop.call_later(REFUSAL_KEPT_S, self._try_again)
        self._drifted(None)

    def _try_again(self) -> None:
        self._retry = None
        self._refused.clear()
        self._drifted(None)

    async def clear(self) -> None:
        """Take everything of ours off the switch, and write nothing from here on. Raises: UNAVAILABLE."""
        self._over = True
        await self.settled()
        await self._connection.bundle([[encode_delete_all(cookies.TAG, cookies.TAG_MASK)]])

    def count_drops(self, entries: Iterable[Entry]) -> list[DropCount]:
        """What a dump of the drops' flows says, by network."""
        networks = {network.vni: network for network in self._networks.values()}
        counts: list[DropCount] = []
        for entry in entries:
            kind, number = cookies.split(entry.cookie)
            if kind == cookies.Kind.DROP:
                cause, vni = cookies.cause_of(number)
                network = networks.get(vni)
                tenant, id_ = (network.tenant, network.id) if network is not None else ("", "")
                counts.append(DropCount(tenant, id_, cause, entry.packets, entry.bytes))
        return counts

    # --- what a switch without an agent has not ---

    def offer(self, endpoint: Endpoint, sandbox: Sandbox | None) -> None:
        """See Datapath: nothing is made inside of what hangs on a port."""

    def check(self, endpoint: Endpoint, mtu_bytes: int, sandbox: Sandbox) -> list[str]:
        """See Datapath."""
        return []

    def local_ports(self, objects: Mapping[Key, Object]) -> list[LocalPort]:
        """See Datapath: nobody attaches here."""
        return []

    def drops(self) -> list[DropCount]:
        """See Datapath: they are asked for by `dump`."""
        return []

    def explain(self, questions: Sequence[Question]) -> Explanation:
        """See Datapath: who asks is answered by `answering`, which may wait."""
        return Explanation(decisions=((),) * len(questions))

    def flows(self) -> Sequence[FlowRow]:
        """See Datapath."""
        return ()

    def notify(self, drifted: Callable[[Sequence[TenantId] | None], None]) -> None:
        """See Datapath."""
        self._drifted = drifted

    def purge(self) -> int:
        """See Datapath: see `clear`."""
        return 0

    def close(self) -> None:
        """See Datapath."""
        if self._retry is not None:
            self._retry.cancel()


def _decoded(bodies: Sequence[bytes]) -> list[Entry]:
    """Raises: ValueError."""
    return [entry for body in bodies for entry in decode_entries(body)]
