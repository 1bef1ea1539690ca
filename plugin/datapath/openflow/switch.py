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
from typing import Any, Final

from plugin.datapath.openflow import infrastructure
from plugin.datapath.openflow.infrastructure import BRIDGE, PHYSICAL
from plugin.datapath.openflow.ports import NewPort, Ports
from plugin.datapath.openflow.session import STEP_S, Session
from plugin.datapath.openflow.way import Way
from plugin.kernel.netlink import NetlinkError
from plugin.kernel.ovsdb import RowChange
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.model.ids import TenantId
from sdn.openflow import cookies
from sdn.openflow.decode import Entry
from sdn.openflow.events import Event, Update
from sdn.openflow.updates import tells_of_ours

DATABASE: Final = Path("/run/openvswitch/db.sock")
"""Where Open vSwitch's packages have it."""
Drifted = Callable[[Sequence[TenantId] | None], None]
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5
_PAUSE_GROWTH: Final = 1.1
"""Small: who was away for a second is found a tenth of it after his return."""
_DEVICE_S: Final = 0.5
"""How long the switch may take to notice that a device is there again."""


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
        self._news: set[TenantId] | None = set()
        self._telling = False
        self._way = Way(place.owner, place.here_ns_fd, self._follow)

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
                pause_s = min(_PAUSE_GROWTH * pause_s, _LONGEST_PAUSE_S)
                continue
            self._session, self._away = session, None
            pause_s = _FIRST_PAUSE_S
            self._tried.set()
            self._changed()
            if again:
                self._tell(None)
            again = True
            refreshing = asyncio.create_task(self._way.refresh(session))
            self._away = await session.wait_over()
            refreshing.cancel()
            self._session, self._made = None, False

    async def _begin(self) -> Session:
        """A session, with the bridges as they should be if there is anything of ours. Raises: HawseError."""
        session = await Session.open(self._place.database, self._rows_changed, self._heard)
        try:
            self.ports = Ports(session.database.rows, self._place.owner)
            self._made = False
            if not self._needed:
                self._way.adopt()
            if self._needed or infrastructure.find(session.database.rows, "Bridge", BRIDGE) is not None:
                await self._restore(session)
        except BaseException:
            session.close()
            raise
        return session

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
            await self.first(STEP_S)
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
        if self._session is not None:
            self._session.close()
        self._way.close()

    # What has to be there -------------------------------------------------------------------------------------------

    async def _make(self, session: Session) -> None:
        """Have the bridges, the way out, and the flows that belong to nobody. Raises: HawseError."""
        kind, owner, rows = session.datapath_type(), self._place.owner, session.database.rows
        infrastructure.operations(rows, owner, self._way.bridges(kind))  # before anything is made: is a name taken?
        if kind == "netdev":
            await self._way.prepare(session)
        wanted = self._way.bridges(kind)
        await session.apply(infrastructure.operations(rows, owner, wanted), f"cannot make the bridge {BRIDGE}")
        await session.settle()
        await session.comes(lambda: not infrastructure.faults(rows, owner, wanted), _DEVICE_S)
        if found := infrastructure.faults(rows, owner, wanted):
            raise unavailable(f"Open vSwitch is not as it has to be: {'; '.join(found)}", "see 'ovs-vsctl show'")
        await session.bridge()
        await session.mend_pipeline()
        if kind == "netdev":
            await session.mend_physical()
            await self._way.connect(session, fresh=True)
        await session.watch_flows()
        self._made = True

    # What others do -------------------------------------------------------------------------------------------------

    def _tell(self, tenants: Sequence[TenantId] | None) -> None:
        """What comes in one turn of the loop is told as one."""
        if tenants is None or self._news is None:
            self._news = None
        else:
            self._news.update(tenants)
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell_now)

    def _tell_now(self) -> None:
        news, self._news, self._telling = self._news, set(), False
        if self.drifted is not None:
            self.drifted(None if news is None else sorted(news))

    def _rows_changed(self, changes: list[RowChange]) -> None:
        if self.ports is None:
            return
        news = self.ports.note(changes)
        if self._made and any(map(infrastructure.is_touched, changes)) and not self._holds():
            self._lose_hold()
        self._changed()
        if news:
            self._tell(self.ports.tenants(news))

    def _holds(self) -> bool:
        """Whether the database says of our bridges what it should."""
        session = self._session
        try:
            return session is None or not infrastructure.faults(
                session.database.rows, self._place.owner, self._way.bridges(session.datapath_type())
            )
        except HawseError:
            return False

    def _heard(self, event: Event) -> None:
        """The flow monitor tells of what others do alone."""
        if isinstance(event, Update) and tells_of_ours(event.data):
            self._lose_hold()

    def _lose_hold(self) -> None:
        """Something that everything needs is not as it should be: the next that needs it mends it."""
        self._made = False
        self._tell(None)

    async def _follow(self) -> None:
        """The host's addresses or routes are others: the way out follows.

        What is being made may have seen the old ones: it is waited for. What was taken away stays so.
        """
        async with self._making:
            session = self._session
            if not self._made or session is None or session.is_over or session.datapath_type() != "netdev":
                return
            try:
                await self._way.follow(session)
            except HawseError:
                self._lose_hold()

    # What is asked for ----------------------------------------------------------------------------------------------

    async def uplink(self, vteps: tuple[str, ...]) -> None:
        """See Vswitch."""
        if vteps != self._way.vteps or not self._made:
            self._way.vteps = vteps
            async with self._needing() as session:
                if session.datapath_type() == "netdev":
                    await self._way.follow(session)

    async def reaches(self, add: Collection[str], remove: Collection[str]) -> None:
        """See Vswitch."""
        members = (self._way.members | set(add)) - set(remove)
        if members != self._way.members or not self._made:
            self._way.members = members
            await self._connect()

    async def guard_networks(self, vnis: set[int]) -> None:
        """See Vswitch."""
        if vnis != self._way.vnis or not self._made:
            self._way.vnis = vnis
            await self._connect()

    async def _connect(self) -> None:
        async with self._needing() as session:
            if session.datapath_type() == "netdev":
                await self._way.connect(session, fresh=False)

    async def change(
        self,
        add: Mapping[str, NewPort],
        remove: Collection[str],
        networks: Mapping[int, tuple[str, str] | None],
    ) -> tuple[Session, dict[str, int], asyncio.Future[Any] | None]:
        """Begin a transaction: (session, numbers, its answer)."""
        async with self._needing() as session:
            ports = self.ports
            assert ports is not None
            again = ports.again(add, remove)
            if again:
                # The switch knows devices by name: of one that goes and comes in one step it keeps the old one open.
                operations, _ = ports.plan({}, again, {})
                operations.append(session.configured())
                await session.apply(operations, f"cannot change the ports of {BRIDGE}")
            operations, numbers = ports.plan(add, set(remove) - set(again), networks)
            if remove:
                operations.append(session.configured())
            return session, numbers, session.database.begin(operations) if operations else None

    async def finish(
        self, session: Session, numbers: Mapping[str, int], answer: asyncio.Future[Any] | None
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
            await self.first(STEP_S)
        if self._session is None or self._away is not None:
            raise _told(self._away or unavailable("the connection to Open vSwitch is lost"))
        return self._session

    async def intact(self) -> list[str]:
        """See Vswitch. Nothing is wrong with what nobody has needed yet."""
        session = await self._reading()
        rows, owner, kind = session.database.rows, self._place.owner, session.datapath_type()
        if not self._needed and infrastructure.find(rows, "Bridge", BRIDGE) is None:
            return []
        found = infrastructure.faults(rows, owner, self._way.bridges(kind))
        if found:
            return found
        if await session.pipeline_changes():
            found.append(f"flows of {BRIDGE} that belong to nobody are not as they should be")
        return found + (await self._way.faults(session) if kind == "netdev" else [])

    async def mend(self) -> None:
        """See Vswitch."""
        await self._reading()
        self._made = False
        async with self._needing():
            pass

    async def vteps(self) -> list[str]:
        """See Vswitch."""
        session = await self._reading()
        return self._way.splice.vteps() if session.datapath_type() == "netdev" else list(self._way.vteps)

    async def guarded(self) -> set[int]:
        """See Vswitch."""
        session = await self._reading()
        return self._way.splice.vnis() if session.datapath_type() == "netdev" else set(self._way.vnis)

    async def malformed(self) -> tuple[int, int]:
        """See Vswitch."""
        return self._way.splice.table.malformed()

    async def purge(self) -> None:
        """See Vswitch. What is the kernel's goes, too, where the switch is away; then its error is raised."""
        self._needed = self._made = False
        if self.ports is not None:
            self.ports.give_up()
        away: HawseError | None = None
        try:
            session = await self._reading()
            async with self._making:
                await self._way.forget(session)
                operations = infrastructure.removal(session.database.rows, self._place.owner)
                session.leave(BRIDGE, PHYSICAL)
                await session.apply(operations, "cannot remove the bridges")
        except HawseError as error:
            away = error
        self._way.remove()
        if away is not None:
            raise away


def _told(error: HawseError) -> HawseError:
    """A copy: an exception that is raised in two threads at once has a muddled traceback."""
    return HawseError(error.kind, error.message, hint=error.hint, facts=error.facts)
