"""One connection to a host's Open vSwitch: its database, its control socket, and OpenFlow to our bridges.

It lives in one event loop and ends as a whole: with the first of its parts that is lost or too slow. What it raises
then is one sentence that says what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from plugin.datapath.openflow.infrastructure import BRIDGE, COLUMNS, PHYSICAL, TUNNEL_PORT, UPLINK_PORT
from plugin.kernel import jsonrpc, ovsdb, unixctl
from plugin.kernel.ovsdb import Database, Operation, RowChange
from plugin.kernel.unixctl import Command, Control
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.openflow import connection as openflow
from sdn.openflow import cookies, multipart, pipeline
from sdn.openflow.connection import Connection
from sdn.openflow.decode import Entry, decode_entries, entry_of
from sdn.openflow.encode import encode_add, encode_delete_all
from sdn.openflow.errors import Refusal, RefusedError
from sdn.openflow.events import Ended, Event
from sdn.openflow.flow import LOCAL, Flow, Output
from sdn.openflow.match import in_port, match
from sdn.openflow.messages import Configuration
from sdn.openflow.tables import FRAGMENTS_WITH_PORTS

STEP_S: Final = 2.0
"""How long the switch may take for one thing that it is asked."""
REMEDY: Final = "'systemctl status openvswitch-switch' tells why"
_KERNEL_MODULE: Final = Path("/sys/module/openvswitch")
_COOKIE: Final = cookies.make(cookies.Kind.PIPELINE, 0)
_KIND_MASK: Final = cookies.TAG_MASK | 0xFF << 40
_ALL_BITS: Final = (1 << 64) - 1
_THROUGH: Final = (
    Flow(0, 1, match(in_port(LOCAL)), (Output(UPLINK_PORT),), cookie=_COOKIE),
    Flow(0, 1, match(in_port(UPLINK_PORT)), (Output(LOCAL),), cookie=_COOKIE),
)
"""hwphy: what the switch's tunnels send goes out, what comes in is for them."""


class Session:
    """Made by `open`. `changed` is called with each change of the database, `heard` with each event of hwint."""

    def __init__(self, path: Path, changed: Callable[[list[RowChange]], None], heard: Callable[[Event], None]) -> None:
        self._path = path
        self._changed = changed
        self._heard = heard
        self._over: asyncio.Future[HawseError] = asyncio.get_running_loop().create_future()
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._connections: dict[str, Connection] = {}
        self._control: Control | None = None
        self._watched: Connection | None = None
        self.database: Database

    @classmethod
    async def open(
        cls, path: Path, changed: Callable[[list[RowChange]], None], heard: Callable[[Event], None]
    ) -> Session:
        """Connect to the database. Raises: UNAVAILABLE, DENIED."""
        session = cls(path, changed, heard)
        session.database = await Database.connect(path, COLUMNS, session._noted, session._ended, STEP_S)
        if not session.database.rows["Open_vSwitch"]:
            session.close()
            raise unavailable(f"Open vSwitch's database at {path} is not initialised", "'ovs-vsctl init' does it")
        return session

    async def wait_over(self) -> HawseError:
        """Why it ended, when it has."""
        return await self._over

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._over.done()

    def lose(self, error: HawseError) -> HawseError:
        """It is of no use any more; the error that says so to a user."""
        if not error.hint:
            error.hint = REMEDY
        if not self._over.done():
            self._over.set_result(error)
        self.close()
        return error

    def close(self) -> None:
        """Hang up everywhere. Twice is fine."""
        if not self._over.done():
            self._over.set_result(unavailable("the connection to Open vSwitch is closed"))
        if hasattr(self, "database"):
            self.database.close()
        if self._control is not None:
            self._control.close()
        for each in self._connections.values():
            each.close()
        for _, waiting in self._waiting:
            waiting.cancel()

    # The database ---------------------------------------------------------------------------------------------------

    def datapath_type(self) -> str:
        """`system` where the kernel has Open vSwitch's module, else `netdev`."""
        row = next(iter(self.database.rows["Open_vSwitch"].values()))
        return "system" if "system" in ovsdb.elements(row["datapath_types"]) and _KERNEL_MODULE.exists() else "netdev"

    async def transact(self, operations: Sequence[Operation], attempt: str) -> None:
        """All of it or nothing. Raises: what the database refuses; UNAVAILABLE, and then the session is over."""
        await self.answer(self.database.begin(operations), attempt)

    async def answer(self, begun: asyncio.Future[Any] | None, attempt: str) -> None:
        """Wait for a transaction that was begun. Raises: what the database refuses; UNAVAILABLE, and it is over."""
        if begun is None:
            return
        try:
            async with asyncio.timeout(STEP_S):
                ovsdb.results_of(await begun, attempt)
        except TimeoutError:
            text = f"{attempt}: Open vSwitch's database does not answer within {STEP_S:g} s"
            raise self.lose(unavailable(text)) from None
        except jsonrpc.RefusedError as error:
            raise HawseError(Kind.INTERNAL, f"{attempt}: {error}") from None
        except HawseError as error:
            if error.kind is Kind.UNAVAILABLE:
                self.lose(error)
            raise

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds of the rows. Raises: UNAVAILABLE, and then the session is over."""
        if not await self.comes(holds, STEP_S):
            text = f"ovs-vswitchd does not act within {STEP_S:g} s on what its database {self._path} says"
            raise self.lose(unavailable(text))

    async def comes(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Whether it holds in time. Raises: UNAVAILABLE where the session ends meanwhile."""
        if holds():
            return True
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (holds, waiting)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                await waiting
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            if self._over.done() and waiting.cancelled():
                raise self._over.result() from None
            raise
        finally:
            self._waiting.remove(entry)
        return True

    async def apply(self, operations: Sequence[Operation], attempt: str) -> None:
        """A transaction that says `next_cfg += 1`, done by the switch when this returns."""
        if operations:
            await self.transact(operations, attempt)
            await self.settle()

    def configured(self) -> Operation:
        """Has the switch say when it has done what a transaction says."""
        return ovsdb.mutate("Open_vSwitch", next(iter(self.database.rows["Open_vSwitch"])), ("next_cfg", "+=", 1))

    async def settle(self) -> None:
        """Wait until the switch has done what the database says."""
        rows = self.database.rows["Open_vSwitch"]
        row = next(iter(rows))
        target = rows[row]["next_cfg"]
        await self.until(lambda: row in rows and rows[row]["cur_cfg"] >= target)

    def _noted(self, changes: list[RowChange]) -> None:
        self._changed(changes)
        for holds, waiting in self._waiting:
            if not waiting.done() and holds():
                waiting.set_result(None)

    def _ended(self, error: HawseError | None) -> None:
        if error is not None:
            self.lose(error)

    # The switch -----------------------------------------------------------------------------------------------------

    async def bridge(self, name: str = BRIDGE) -> Connection:
        """OpenFlow to one of our bridges. Raises: UNAVAILABLE, CONFLICT (another version); then the session is over."""
        known = self._connections.get(name)
        if known is not None:
            return known
        address = f"unix:{self._path.parent / name}.mgmt"

        def hear(event: Event) -> None:
            if isinstance(event, Ended) and event.error is not None:
                self.lose(HawseError(event.error.kind, event.error.message, hint=REMEDY, facts=event.error.facts))
            elif name == BRIDGE:
                self._heard(event)

        try:
            made = self._connections[name] = await openflow.connect(address, events=hear, timeout_s=STEP_S)
        except HawseError as error:
            text = f"Open vSwitch does not answer on {address.partition(':')[2]}: {error.message}"
            raise self.lose(HawseError(error.kind, text, hint=error.hint or REMEDY, facts=error.facts)) from None
        if name == BRIDGE:
            made.send(Configuration(FRAGMENTS_WITH_PORTS))
        return made

    def leave(self, *names: str) -> None:
        """Hang up on bridges that are about to go."""
        for name in names:
            known = self._connections.pop(name, None)
            if known is not None:
                known.close()

    async def command(self, commands: Sequence[Command]) -> list[str | HawseError]:
        """What `ovs-appctl` would; what each prints, or why it is refused. Raises: UNAVAILABLE; the session is over."""
        if not commands:
            return []
        try:
            if self._control is None:
                self._control = await Control.connect(unixctl.find(self._path.parent), STEP_S)
            return await self._control.run_all(commands, STEP_S)
        except HawseError as error:
            raise self.lose(error) from None

    async def entries(self, bridge: str, cookie: int, mask: int) -> list[Entry]:
        """The flows of a bridge with such a cookie. Raises: UNAVAILABLE, and then the session is over."""
        there = await self.bridge(bridge)
        try:
            bodies = await there.flow_stats(cookie, mask)
            return [entry for body in bodies for entry in decode_entries(body)]
        except HawseError as error:
            if error.kind is Kind.UNAVAILABLE:
                self.lose(error)
            raise
        except ValueError as error:
            raise self.lose(unavailable(f"Open vSwitch tells of flows in a way that makes no sense: {error}")) from None

    async def count(self) -> None:
        """Have hwint's flows say of all packets so far that they have matched them. Raises: UNAVAILABLE; it is over.

        By itself the switch adds up what its cache has carried twice a second. It does so at once where a table has
        changed, by nothing too, and tells who waits for it then.
        """
        waiting = asyncio.ensure_future(self.command([("revalidator/wait",)]))
        try:
            there = await self.bridge()
            there.post(encode_delete_all(_ALL_BITS, _ALL_BITS))  # nobody's
            await there.barrier(STEP_S)
        except HawseError as error:
            raise self.lose(error) from None
        finally:
            await waiting

    async def mend_pipeline(self) -> None:
        """Have hwint the flows that belong to nobody. Raises: HawseError."""
        missing = await self.pipeline_changes()
        if missing:
            await self.write([missing])

    async def pipeline_changes(self) -> list[bytes]:
        """The flow-mods that hwint needs to have the flows that belong to nobody."""
        found = await self.entries(BRIDGE, _COOKIE, _KIND_MASK)
        found += await self.entries(BRIDGE, cookies.of_drop("unknown-port", 0), _ALL_BITS)
        return pipeline.changes(found, TUNNEL_PORT)

    async def write(self, groups: Sequence[Sequence[bytes]]) -> list[Refusal | None]:
        """Groups of flow-mods to hwint, in a bundle. Raises: UNAVAILABLE, and then the session is over."""
        there = await self.bridge()
        try:
            return await there.bundle(groups)
        except HawseError as error:
            if error.kind is Kind.UNAVAILABLE:
                self.lose(error)
            raise

    async def watch_flows(self) -> None:
        """Be told of what others do to hwint's flows; an older Open vSwitch cannot, and then a read finds it."""
        there = await self.bridge()
        if self._watched is not there:
            self._watched = there
            with contextlib.suppress(RefusedError):
                await there.multipart(multipart.monitor_request(1))

    async def physical_faults(self) -> list[str]:
        """What is wrong with hwphy's flows."""
        entries = await self.entries(PHYSICAL, 0, 0)
        there = {entry._replace(packets=0, bytes=0) for entry in entries}
        wrong = there != {entry_of(encode_add(flow)) for flow in _THROUGH}
        return [f"the bridge {PHYSICAL} has other flows than the two that let tunnels through"] if wrong else []

    async def mend_physical(self) -> None:
        """Have hwphy let tunnels through."""
        if await self.physical_faults():
            there = await self.bridge(PHYSICAL)
            await there.bundle([[encode_delete_all()], [encode_add(flow) for flow in _THROUGH]])
