"""The host's Open vSwitch, kept as the datapath needs it, in one event loop.

`live` connects, and connects again whenever the session ends. What is wanted (VTEPs, members, VNIs) outlives sessions;
the first call that needs the bridges makes them, and a new session finds or makes them before anybody is told that the
switch is back. While it is away every call fails at once with the sentence that says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from plugin.datapath.openflow import infrastructure
from plugin.datapath.openflow.guard import PortGuard
from plugin.datapath.openflow.infrastructure import BRIDGE, PHYSICAL, TUNNEL, WantedBridge, wanted_bridges
from plugin.datapath.openflow.ports import NewPort, Ports
from plugin.datapath.openflow.session import Session, tells_of_ours
from plugin.datapath.openflow.splice import SWITCH_END, Splice, Underlay, survey
from plugin.kernel.netlink import LostEventsError, NetlinkError, NetlinkSocket
from plugin.kernel.ovsdb import RowChange
from plugin.kernel.route import (
    GROUP_IPV4_ADDRESS,
    GROUP_IPV4_ROUTE,
    GROUP_IPV6_ADDRESS,
    GROUP_IPV6_ROUTE,
)
from plugin.kernel.unixctl import Command
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.model.ids import TenantId
from sdn.openflow import cookies
from sdn.openflow.decode import Entry
from sdn.openflow.events import Event, Update

DATABASE: Final = Path("/run/openvswitch/db.sock")
"""Where Open vSwitch's packages have it."""
Drifted = Callable[[Sequence[TenantId] | None], None]
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5
_NEIGHBOUR_S: Final = 60.0
"""Open vSwitch forgets a tunnel's neighbour after 15 minutes."""
_ROUTES_SETTLE_S: Final = 0.1
_ADDRESS_S: Final = 2.0
"""How long the switch may take to notice an address of its own device."""
_PAUSE_S: Final = 0.005
_GROUPS: Final = GROUP_IPV4_ADDRESS | GROUP_IPV6_ADDRESS | GROUP_IPV4_ROUTE | GROUP_IPV6_ROUTE
_NAMES: Final = frozenset({BRIDGE, TUNNEL, PHYSICAL, SWITCH_END})


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where the switch is. `owner`: the root's id, which marks what is ours. `here_ns_fd`: None for this process's."""

    database: Path = DATABASE
    owner: str = "hawse"
    here_ns_fd: int | None = None


class Switch:
    """Its coroutines raise HawseError; each is bounded by what `Session` allows a step."""

    def __init__(self, place: Place, changed: Callable[[], None]) -> None:
        self._place = place
        self._changed = changed
        self.drifted: Drifted | None = None
        self.ports: Ports | None = None
        self._session: Session | None = None
        self._away: HawseError | None = unavailable("Open vSwitch has not answered yet")
        self._tried = asyncio.Event()
        self._making = asyncio.Lock()
        self._made = False
        self._needed = False
        self._vteps: tuple[str, ...] = ()
        self._members: set[str] = set()
        self._vnis: set[int] = set()
        self._routed: dict[str, str] = {}
        self._kernel_mac = ""
        self._splice = Splice(place.owner, place.here_ns_fd)
        self._guard = PortGuard(place.here_ns_fd)
        self._routes = NetlinkSocket.open(place.here_ns_fd, _GROUPS)
        self._later: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        asyncio.get_running_loop().add_reader(self._routes.fileno(), self._routes_changed)

    # Being there ----------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Keep a session, until cancelled."""
        pause_s, again = _FIRST_PAUSE_S, False
        while True:
            try:
                session = await self._begin()
            except (HawseError, OSError, NetlinkError) as error:
                self._away = error if isinstance(error, HawseError) else HawseError(Kind.INTERNAL, str(error))
                self._tried.set()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            self._session, self._away = session, None
            pause_s = _FIRST_PAUSE_S
            self._tried.set()
            self._changed()
            if again:
                self._tell(None)
            again = True
            refreshing = asyncio.create_task(self._refresh_neighbours())
            self._away = await session.wait_over()
            refreshing.cancel()
            self._session, self._made = None, False

    async def _begin(self) -> Session:
        """A session, with the bridges as they should be if there is anything of ours. Raises: HawseError."""
        session = await Session.open(self._place.database, self._rows_changed, self._heard)
        try:
            self.ports = Ports(session.database.rows, self._place.owner)
            self._made, self._routed = False, {}
            self._adopt()
            if self._needed or infrastructure.find(session.database.rows, "Bridge", BRIDGE) is not None:
                await self._restore(session)
        except BaseException:
            session.close()
            raise
        return session

    def _adopt(self) -> None:
        """What the kernel has of an agent before us stays as it is until we are told otherwise."""
        if not self._needed:
            self._vteps = tuple(self._splice.vteps())
            self._vnis = self._splice.vnis()
            self._members = self._splice.members()

    async def _restore(self, session: Session) -> None:
        """What cannot be made as it should be is told to whoever needs it, unless the switch itself is away."""
        try:
            async with self._making:
                await self._make(session)
        except HawseError as error:
            if session.is_over:
                raise
            self._made = False
            if error.kind is Kind.UNAVAILABLE:
                raise

    async def first(self, timeout_s: float) -> None:
        """Until the first attempt to connect has ended. Raises: why it failed; CONFLICT where hwint is not ours."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._tried.wait()
        if self._away is not None:
            raise _told(self._away)
        if self._session is not None:
            infrastructure.bridge_row(self._session.database.rows, BRIDGE, self._place.owner)

    @contextlib.asynccontextmanager
    async def _needing(self) -> AsyncIterator[Session]:
        """The session, everything made. Raises: HawseError."""
        if not self._tried.is_set():
            await self.first(2.0)
        session = self._session
        if session is None or self._away is not None or session.is_over:
            raise _told(self._away or unavailable("the connection to Open vSwitch is lost"))
        self._needed = True
        if not self._made:
            async with self._making:
                if not self._made:
                    await self._make(session)
        yield session

    def close(self) -> None:
        """Let go of everything; what was made stays."""
        asyncio.get_running_loop().remove_reader(self._routes.fileno())
        for task in self._tasks:
            task.cancel()
        if self._later is not None:
            self._later.cancel()
        if self._session is not None:
            self._session.close()
        self._routes.close()
        self._splice.close()
        self._guard.close()

    # What has to be there -------------------------------------------------------------------------------------------

    async def _make(self, session: Session) -> None:
        """Have the bridges, the way out, and the flows that belong to nobody. Raises: HawseError."""
        kind, owner = session.datapath_type(), self._place.owner
        underlay = self._survey()
        if kind == "netdev":
            infrastructure.operations(session.database.rows, owner, self._wanted(kind, underlay))  # are names taken?
            self._guard.ensure()
            self._kernel_mac = self._splice.prepare(underlay.mtu_bytes)
        wanted = self._wanted(kind, underlay)
        rows = session.database.rows
        await session.apply(infrastructure.operations(rows, owner, wanted), f"cannot make the bridge {BRIDGE}")
        await session.settle()
        found = infrastructure.faults(rows, owner, wanted)
        if found:
            raise unavailable(f"Open vSwitch is not as it has to be: {'; '.join(found)}", "ovs-vsctl show")
        await session.bridge()
        await session.mend_pipeline()
        if kind == "netdev":
            await session.mend_physical()
            self._splice.connect(underlay, self._vteps, self._vnis)
            await self._route(session, fresh=True)
        await session.watch_flows()
        self._made = True

    def _wanted(self, kind: str, underlay: Underlay) -> list[WantedBridge]:
        return wanted_bridges(kind, SWITCH_END, underlay.mtu_bytes)

    def _survey(self) -> Underlay:
        try:
            return survey(self._splice.netlink, self._vteps, self._members)
        except NetlinkError as error:
            raise HawseError(Kind.INTERNAL, f"cannot read the host's routes: {error}") from error

    async def _route(self, session: Session, *, fresh: bool = False) -> None:
        """Have the switch send to each member by the splice. `fresh`: all of it is told anew."""
        own = {4: next((v for v in self._vteps if ":" not in v), ""), 6: next((v for v in self._vteps if ":" in v), "")}
        wanted = {member: own[6 if ":" in member else 4] for member in self._members}
        wanted = {member: vtep for member, vtep in wanted.items() if vtep}
        if fresh:
            self._routed = {}
        commands: list[Command] = [("tnl/neigh/set", PHYSICAL, vtep, self._kernel_mac) for vtep in self._vteps]
        gone = [member for member, vtep in self._routed.items() if wanted.get(member) != vtep]
        commands += [("ovs/route/del", _prefix(member)) for member in gone]
        new = [member for member, vtep in wanted.items() if self._routed.get(member) != vtep]
        commands += [("ovs/route/add", _prefix(member), PHYSICAL, wanted[member]) for member in new]
        if fresh or gone or new:
            await _tell_switch(session, commands)
        self._routed = wanted

    async def _refresh_neighbours(self) -> None:
        while True:
            await asyncio.sleep(_NEIGHBOUR_S)
            if self._made and self._session is not None and self._kernel_mac:
                commands = [("tnl/neigh/set", PHYSICAL, vtep, self._kernel_mac) for vtep in self._vteps]
                with contextlib.suppress(HawseError):  # then the session is over
                    await self._session.command(commands)

    # What others do -------------------------------------------------------------------------------------------------

    def _tell(self, tenants: Sequence[TenantId] | None) -> None:
        if self.drifted is not None:
            self.drifted(tenants)

    def _rows_changed(self, changes: list[RowChange]) -> None:
        if self.ports is None:
            return
        news = self.ports.note(changes)
        if self._made and any(map(_is_infrastructure, changes)):
            session = self._session
            if session is not None:
                wanted = self._wanted(session.datapath_type(), self._survey())
                if infrastructure.faults(session.database.rows, self._place.owner, wanted):
                    self._made = False
                    self._tell(None)
        self._changed()
        if news:
            self._tell(self.ports.tenants(news))

    def _heard(self, event: Event) -> None:
        """The flow monitor tells of what others do alone."""
        if isinstance(event, Update) and tells_of_ours(event.data):
            self._made = False
            self._tell(None)

    def _routes_changed(self) -> None:
        try:
            for _ in self._routes.events():
                pass
        except LostEventsError:
            pass  # which they were does not matter: all is read again
        if self._later is None and self._made:
            self._later = asyncio.get_running_loop().call_later(_ROUTES_SETTLE_S, self._follow_routes)

    def _follow_routes(self) -> None:
        self._later = None
        task = asyncio.create_task(self._follow())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self) -> None:
        if not self._made:  # purged meanwhile, or away: making it looks at the routes anyway
            return
        try:
            async with self._needing() as session:
                if session.datapath_type() == "netdev":
                    await self._connect(session)
        except HawseError:
            self._made = False
            self._tell(None)

    async def _connect(self, session: Session, *, fresh: bool = False) -> None:
        """Bring the way out up to date. `fresh`: the switch is told everything anew."""
        underlay = self._survey()
        rows, owner = session.database.rows, self._place.owner
        wanted = self._wanted("netdev", underlay)
        self._splice.prepare(underlay.mtu_bytes)
        await session.apply(infrastructure.operations(rows, owner, wanted), f"cannot change the bridge {PHYSICAL}")
        self._splice.connect(underlay, self._vteps, self._vnis)
        await self._route(session, fresh=fresh)

    # What is asked for ----------------------------------------------------------------------------------------------

    async def uplink(self, vteps: tuple[str, ...]) -> None:
        """See Vswitch."""
        if vteps == self._vteps and self._made:
            return
        self._vteps = vteps
        async with self._needing() as session:
            if session.datapath_type() == "netdev":
                await self._connect(session, fresh=True)

    async def reaches(self, add: Collection[str], remove: Collection[str]) -> None:
        """See Vswitch."""
        before = set(self._members)
        self._members = (before | set(add)) - set(remove)
        if self._members == before and self._made:
            return
        async with self._needing() as session:
            if session.datapath_type() != "netdev":
                return
            self._splice.connect(self._survey(), self._vteps, self._vnis)
            await self._route(session)

    async def guard_networks(self, vnis: set[int]) -> None:
        """See Vswitch."""
        if vnis == self._vnis and self._made:
            return
        self._vnis = vnis
        async with self._needing() as session:
            if session.datapath_type() == "netdev":
                self._splice.connect(self._survey(), self._vteps, self._vnis)

    async def change(
        self,
        add: Mapping[str, NewPort],
        remove: Collection[str],
        networks: Mapping[int, tuple[str, str] | None],
    ) -> tuple[Session, dict[str, int], asyncio.Future[object] | None]:
        """Begin a transaction: (session, numbers, its answer)."""
        async with self._needing() as session:
            assert self.ports is not None
            operations, numbers = self.ports.plan(add, remove, networks)
            return session, numbers, session.database.begin(operations) if operations else None

    async def finish(
        self, session: Session, numbers: Mapping[str, int], answer: asyncio.Future[object] | None
    ) -> dict[str, HawseError]:
        """Wait for it, and until the switch has decided on every new port; what failed, by port."""
        ports = self.ports
        assert ports is not None
        try:
            await session.answer(answer, f"cannot change the ports of {BRIDGE}")
            await session.until(lambda: all(map(ports.is_decided, numbers)))
        except HawseError:
            ports.decided(numbers, numbers)
            raise
        verdicts = {name: ports.verdict(name, number) for name, number in numbers.items()}
        errors = {name: error for name, error in verdicts.items() if error is not None}
        ports.decided(numbers, errors)
        return errors

    async def flows(self, groups: Sequence[Sequence[bytes]]) -> list[HawseError | None]:
        """See Vswitch."""
        async with self._needing() as session:
            verdicts = await session.write(groups)
            return [None if verdict is None else verdict.as_error(f"flows of {BRIDGE}") for verdict in verdicts]

    async def entries(self, cookie: int, mask: int) -> list[Entry]:
        """Flows of ours; none where there is no bridge."""
        session = await self._reading()
        if infrastructure.bridge_row(session.database.rows, BRIDGE, self._place.owner) is None:
            return []
        found = await session.entries(BRIDGE, cookie, mask)
        return [entry for entry in found if cookies.is_ours(entry.cookie)]

    async def counters(self, cookie: int, mask: int) -> list[Entry]:
        """The same, with counts that are up to date."""
        session = await self._reading()
        if infrastructure.bridge_row(session.database.rows, BRIDGE, self._place.owner) is not None:
            await session.count()
        return await self.entries(cookie, mask)

    async def packet_out(self, frames: Sequence[tuple[str, bytes]]) -> None:
        """See Vswitch."""
        async with self._needing() as session:
            there = await session.bridge()
            for name, frame in frames:
                row = self.ports.there.get(name) if self.ports else None
                if row is not None and row.number:
                    there.packet_out(row.number, frame)

    # What there is --------------------------------------------------------------------------------------------------

    async def _reading(self) -> Session:
        """The session, nothing made. Raises: UNAVAILABLE."""
        if not self._tried.is_set():
            await self.first(2.0)
        if self._session is None or self._away is not None:
            raise _told(self._away or unavailable("the connection to Open vSwitch is lost"))
        return self._session

    async def intact(self) -> list[str]:
        """See Vswitch. Nothing is wrong with what nobody has needed yet."""
        session = await self._reading()
        rows, owner, kind = session.database.rows, self._place.owner, session.datapath_type()
        if not self._needed and infrastructure.find(rows, "Bridge", BRIDGE) is None:
            return []
        underlay = self._survey()
        found = infrastructure.faults(rows, owner, self._wanted(kind, underlay))
        if found:
            return found
        if await session.pipeline_changes():
            found.append(f"flows of {BRIDGE} that belong to nobody are not as they should be")
        if kind == "netdev":
            if not self._guard.is_loaded():
                found.append("the nftables tables that keep the kernel from the switch's frames are gone")
            found += await session.physical_faults()
            found += self._splice.faults(underlay, self._vteps, self._vnis)
        return found

    async def mend(self) -> None:
        """See Vswitch."""
        await self._reading()
        self._made = False
        async with self._needing():
            pass

    async def vteps(self) -> list[str]:
        """See Vswitch."""
        session = await self._reading()
        return self._splice.vteps() if session.datapath_type() == "netdev" else list(self._vteps)

    async def guarded(self) -> set[int]:
        """See Vswitch."""
        session = await self._reading()
        return self._splice.vnis() if session.datapath_type() == "netdev" else set(self._vnis)

    async def malformed(self) -> tuple[int, int]:
        """See Vswitch."""
        return self._splice.table.malformed()

    async def purge(self) -> None:
        """See Vswitch. What is the kernel's goes, too, where the switch is away; then its error is raised."""
        self._needed = self._made = False
        self._vteps, self._members, self._vnis = (), set(), set()
        if self.ports is not None:
            self.ports.give_up()
        away: HawseError | None = None
        try:
            session = await self._reading()
            async with self._making:
                operations = infrastructure.removal(session.database.rows, self._place.owner)
                await session.command([("ovs/route/del", _prefix(member)) for member in self._routed])
                session.let_go()
                await session.apply(operations, "cannot remove the bridges")
        except HawseError as error:
            away = error
        self._splice.remove()
        self._guard.remove()
        self._routed = {}
        if away is not None:
            raise away


async def _tell_switch(session: Session, commands: list[Command]) -> None:
    """The switch refuses a route by a device of whose address it has not heard yet: it is asked again."""
    deadline_s = asyncio.get_running_loop().time() + _ADDRESS_S
    while commands:
        printed = await session.command(commands)
        refused = {words: said for words, said in zip(commands, printed, strict=True) if isinstance(said, HawseError)}
        commands = [words for words in refused if words[0] == "ovs/route/add"]
        if commands:
            if asyncio.get_running_loop().time() > deadline_s:
                raise _told(refused[commands[0]])
            await asyncio.sleep(_PAUSE_S)


def _told(error: HawseError) -> HawseError:
    """A copy: an exception that is raised in two threads at once has a muddled traceback."""
    return HawseError(error.kind, error.message, hint=error.hint, facts=error.facts)


def _prefix(member: str) -> str:
    return f"{member}/{128 if ':' in member else 32}"


def _is_infrastructure(change: RowChange) -> bool:
    row = change.after or change.before or {}
    if change.table == "Bridge" and change.before is not None and change.after is not None:
        # Ports of containers and VNIs come and go.
        same = all(change.before[name] == change.after[name] for name in ("datapath_type", "fail_mode", "controller"))
        marks = [each["external_ids"].get(infrastructure.OWNER) for each in (change.before, change.after)]
        return row["name"] in _NAMES and not (same and marks[0] == marks[1])
    return row.get("name") in _NAMES
