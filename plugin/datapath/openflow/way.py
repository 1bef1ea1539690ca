"""What is wanted of the way out and in, which outlives sessions: VTEPs, members and VNIs; and how a session gets it.

Only the userspace datapath needs it: the kernel's sends by the host's routes itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

from plugin.datapath.openflow import infrastructure
from plugin.datapath.openflow.guard import PortGuard
from plugin.datapath.openflow.infrastructure import PHYSICAL, SWITCH_END, WantedBridge, wanted_bridges
from plugin.datapath.openflow.session import Session
from plugin.datapath.openflow.splice import Splice, Underlay, survey
from plugin.kernel.netlink import LostEventsError, NetlinkError, NetlinkSocket
from plugin.kernel.route import (
    GROUP_IPV4_ADDRESS,
    GROUP_IPV4_ROUTE,
    GROUP_IPV6_ADDRESS,
    GROUP_IPV6_ROUTE,
)
from plugin.kernel.unixctl import Command
from sdn.model.errors import HawseError, Kind

_GROUPS: Final = GROUP_IPV4_ADDRESS | GROUP_IPV6_ADDRESS | GROUP_IPV4_ROUTE | GROUP_IPV6_ROUTE
_ROUTES_SETTLE_S: Final = 0.1
_NEIGHBOUR_S: Final = 60.0
"""Open vSwitch forgets a tunnel's neighbour after 15 minutes."""
_ADDRESS_S: Final = 2.0
"""How long the switch may take to notice an address of its own device."""
_PAUSE_S: Final = 0.005


class Way:
    """In one event loop. `follow` is run whenever the host's addresses or routes have changed, once at a time."""

    def __init__(self, owner: str, here_ns_fd: int | None, follow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.vteps: tuple[str, ...] = ()
        self.members: set[str] = set()
        self.vnis: set[int] = set()
        self._owner = owner
        self._follow = follow
        self._following: asyncio.Task[None] | None = None
        self._routed: dict[str, str] = {}
        self._kernel_mac = ""
        self._later: asyncio.TimerHandle | None = None
        with contextlib.ExitStack() as undo:
            self.splice = Splice(owner, here_ns_fd)
            undo.callback(self.splice.close)
            self._guard = PortGuard(here_ns_fd)
            undo.callback(self._guard.close)
            self._routes = NetlinkSocket.open(here_ns_fd, _GROUPS)
            undo.callback(self._routes.close)
            self._undo = undo.pop_all()
        asyncio.get_running_loop().add_reader(self._routes.fileno(), self._told)

    def close(self) -> None:
        """Let go of everything; what was made stays."""
        asyncio.get_running_loop().remove_reader(self._routes.fileno())
        if self._later is not None:
            self._later.cancel()
        if self._following is not None:
            self._following.cancel()
        self._undo.close()

    def _told(self) -> None:
        try:
            for _ in self._routes.events():
                pass
        except LostEventsError:
            pass  # which they were does not matter: all is read again
        if self._later is None:
            self._wait()

    def _wait(self) -> None:
        self._later = asyncio.get_running_loop().call_later(_ROUTES_SETTLE_S, self._settled)

    def _settled(self) -> None:
        self._later = None
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow())
        else:
            self._wait()  # it may have looked before this change

    def adopt(self) -> None:
        """What the kernel has of an agent before us stays as it is until we are told otherwise."""
        self.vteps = tuple(self.splice.vteps())
        self.vnis = self.splice.vnis()
        self.members = self.splice.members()

    def bridges(self, kind: str) -> list[WantedBridge]:
        """The bridges that there have to be."""
        return wanted_bridges(kind, self.survey().mtu_bytes)

    def survey(self) -> Underlay:
        """What the host's kernel says of the way. Raises: INTERNAL."""
        try:
            return survey(self.splice.netlink, self.vteps, self.members)
        except (NetlinkError, OSError) as error:
            raise HawseError(Kind.INTERNAL, f"cannot read the host's routes: {error}") from error

    async def prepare(self, session: Session) -> None:
        """Have what must be there before the bridges: the veth, and the kernel's hands off the switch's ports."""
        self._guard.ensure()
        self._kernel_mac = self.splice.prepare(self.survey().mtu_bytes)
        if not self.splice.has_physical():  # the switch makes no bridge's device a second time
            session.leave(PHYSICAL)
            operations = infrastructure.removal(session.database.rows, self._owner, [PHYSICAL])
            await session.apply(operations, f"cannot make {PHYSICAL} anew")
        elif not self.splice.is_listened_to():
            operations = infrastructure.port_removal(session.database.rows, self._owner, PHYSICAL, SWITCH_END)
            await session.apply(operations, f"cannot have {SWITCH_END} listened to")

    async def connect(self, session: Session, *, fresh: bool) -> None:
        """Have packets pass, the bridges being there. `fresh`: the switch is told everything, nothing is remembered."""
        if fresh:
            self.splice.table.read()
        self.splice.connect(self.survey(), self.vteps, self.vnis)
        await self._route(session, fresh)

    async def follow(self, session: Session) -> None:
        """The VTEPs, or the host's links, may be others than before."""
        await self.prepare(session)
        operations = infrastructure.operations(session.database.rows, self._owner, self.bridges("netdev"))
        await session.apply(operations, f"cannot change the bridge {PHYSICAL}")
        await self.connect(session, fresh=False)

    async def _route(self, session: Session, fresh: bool) -> None:
        """Have the switch send to each member by the splice, whose other end is the next hop."""
        own = {":" in vtep: vtep for vtep in self.vteps}
        wanted = {member: own[":" in member] for member in self.members if (":" in member) in own}
        known = {} if fresh else self._routed
        commands: list[Command] = []
        if fresh or set(known.values()) != set(wanted.values()):
            commands += self._neighbours()
        gone = [member for member, vtep in self._routed.items() if wanted.get(member) != vtep]
        new = [member for member, vtep in wanted.items() if known.get(member) != vtep]
        commands += [("ovs/route/del", _prefix(member)) for member in gone]
        commands += [("ovs/route/add", _prefix(member), PHYSICAL, wanted[member]) for member in new]
        await _tell(session, commands)
        self._routed = wanted

    def _neighbours(self) -> list[Command]:
        return [("tnl/neigh/set", PHYSICAL, vtep, self._kernel_mac) for vtep in self.vteps]

    async def refresh(self, session: Session) -> None:
        """Tell the switch of its neighbour again and again, until the session is over."""
        with contextlib.suppress(HawseError):
            while True:
                await asyncio.sleep(_NEIGHBOUR_S)
                if self._kernel_mac:
                    await session.command(self._neighbours())

    async def faults(self, session: Session) -> list[str]:
        """What is not as it should be, as sentences. Raises: HawseError."""
        found = (
            [] if self._guard.is_loaded() else ["the nftables that keep the kernel from the switch's frames are gone"]
        )
        found += await session.physical_faults()
        return found + self.splice.faults(self.survey(), self.vteps, self.vnis)

    async def forget(self, session: Session) -> None:
        """Take back what the switch was told."""
        commands: list[Command] = [("ovs/route/del", _prefix(member)) for member in self._routed]
        self._routed = {}
        await _tell(session, commands)

    def remove(self) -> None:
        """Take back what the kernel was told. Raises: HawseError."""
        self.vteps, self.members, self.vnis = (), set(), set()
        self.splice.remove()
        self._guard.remove()


async def _tell(session: Session, commands: list[Command]) -> None:
    """The switch refuses a route by a device of whose address it has not heard yet: it is asked again."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + _ADDRESS_S
    while commands:
        printed = await session.command(commands)
        refused = {words: said for words, said in zip(commands, printed, strict=True) if isinstance(said, HawseError)}
        commands = [words for words in refused if words[0] == "ovs/route/add"]
        if commands:
            if loop.time() > deadline_s:
                raise refused[commands[0]]
            await asyncio.sleep(_PAUSE_S)


def _prefix(member: str) -> str:
    return f"{member}/{128 if ':' in member else 32}"
