"""The host's Open vSwitch as the datapath uses it: calls from any thread, bounded in time, to one thread that keeps it.

That thread has the event loop in which `Switch` lives; a call hands its coroutine over and waits.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

import uvloop

from plugin.datapath.openflow.infrastructure import BRIDGE, TUNNEL, TUNNEL_PORT
from plugin.datapath.openflow.ports import NewPort, PortRow
from plugin.datapath.openflow.session import REMEDY
from plugin.datapath.openflow.switch import DATABASE, Drifted, Place, Switch
from plugin.kernel.netlink import NetlinkError
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.openflow import cookies
from sdn.openflow.decode import Entry

__all__ = ["BRIDGE", "DATABASE", "TUNNEL", "TUNNEL_PORT", "Change", "NewPort", "Place", "PortRow", "Vswitch"]

T = TypeVar("T")
_CALL_S: Final = 30.0
"""Each step of a call has a bound of its own (`STEP_S`); this one is for a fault of ours."""


class Change:
    """A transaction that is under way. `numbers`: of the new ports, to be used in flows before it is done."""

    def __init__(self, numbers: Mapping[str, int], wait: Callable[[], dict[str, HawseError]]) -> None:
        self.numbers = numbers
        self._wait = wait

    def wait(self) -> dict[str, HawseError]:
        """Until the switch has done it (at most 2 s); what failed, by port.

        Raises: UNAVAILABLE where nothing of it was done.
        """
        return self._wait()


class Vswitch:
    """Calls come from any thread; each is bounded in time and raises HawseError (UNAVAILABLE while the switch is away).

    `changed` is called, from a thread of its own, when `ports` or `networks` tell something new.
    """

    def __init__(self, place: Place, changed: Callable[[], None] = lambda: None) -> None:
        self._loop = uvloop.new_event_loop()
        self._closed = False
        self._lock = threading.Lock()
        made: concurrent.futures.Future[Switch] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._serve, args=(place, changed, made), name="hawse-vswitch", daemon=True
        )
        self._thread.start()
        try:
            self._switch = made.result()
        except BaseException:
            self._closed = True
            self._thread.join()
            raise

    def _serve(self, place: Place, changed: Callable[[], None], made: concurrent.futures.Future[Switch]) -> None:
        try:
            self._loop.run_until_complete(self._keep(place, changed, made))
        finally:
            self._loop.close()

    async def _keep(self, place: Place, changed: Callable[[], None], made: concurrent.futures.Future[Switch]) -> None:
        try:
            switch = Switch(place, changed)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that asked
            made.set_exception(error)
            return
        self._living = asyncio.create_task(switch.live())
        made.set_result(switch)
        try:
            await self._living
        except asyncio.CancelledError:
            pass
        finally:
            switch.close()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._closed or not self._thread.is_alive():
                coroutine.close()
                raise unavailable("the connection to Open vSwitch is closed")
            under_way = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return under_way.result(_CALL_S)
        except TimeoutError:
            under_way.cancel()
            raise unavailable(f"Open vSwitch takes longer than {_CALL_S:g} s", REMEDY) from None
        except concurrent.futures.CancelledError:
            raise unavailable("the connection to Open vSwitch is closed") from None
        except (OSError, NetlinkError) as error:
            raise HawseError(Kind.INTERNAL, f"cannot do what Open vSwitch needs of the kernel: {error}") from error

    def wait_ready(self, timeout_s: float) -> None:
        """Until database and switch have answered for the first time. Raises: UNAVAILABLE, saying why they do not."""
        self._call(self._switch.first(timeout_s))

    def notify(self, drifted: Drifted) -> None:
        """Call `drifted` (from a thread of its own) for what is not our doing, and when the switch has come back."""
        self._switch.drifted = drifted

    def ports(self) -> Mapping[str, PortRow]:
        """The ports of hwint that containers are behind, as they were told last."""
        ports = self._switch.ports
        return {} if ports is None else ports.there.copy()

    def strangers(self, names: Collection[str]) -> set[str]:
        """Those of some devices' names that the database knows as ports of somebody else's bridge."""
        ports = self._switch.ports
        return set() if ports is None else ports.strangers(names)

    def networks(self) -> Mapping[int, tuple[str, str]]:
        """What hwint remembers of VNIs: (network, tenant)."""
        ports = self._switch.ports
        return {} if ports is None else ports.networks

    def change(
        self,
        *,
        add: Mapping[str, NewPort],
        remove: Collection[str],
        networks: Mapping[int, tuple[str, str] | None],
    ) -> Change:
        """One transaction, under way when this returns. `networks`: None forgets a VNI."""
        session, numbers, answer = self._call(self._switch.change(add, remove, networks))
        return Change(numbers, lambda: self._call(self._switch.finish(session, numbers, answer)))

    def flows(self, groups: Sequence[Sequence[bytes]]) -> list[HawseError | None]:
        """Groups of encoded flow-mods, in one bundle; a group that is refused is left out, and its error returned."""
        return self._call(self._switch.flows(groups))

    def dump(self) -> list[Entry]:
        """Every flow of ours in hwint."""
        return self._call(self._switch.entries(cookies.TAG, cookies.TAG_MASK))

    def counters(self, cookie: int, mask: int) -> list[Entry]:
        """The flows of ours in hwint with such a cookie, and what they have counted until now."""
        return self._call(self._switch.counters(cookie, mask))

    def packet_out(self, frames: Sequence[tuple[str, bytes]]) -> None:
        """Send frames out of ports, by name."""
        self._call(self._switch.packet_out(frames))

    def uplink(self, vtep4: str | None, vtep6: str | None) -> None:
        """Have tunnel packets of these VTEPs leave and arrive."""
        self._call(self._switch.uplink(tuple(vtep for vtep in (vtep4, vtep6) if vtep)))

    def reaches(self, add: Collection[str], remove: Collection[str]) -> None:
        """Members' VTEPs that are sent to from now on, and no longer."""
        self._call(self._switch.reaches(add, remove))

    def guard_networks(self, vnis: Collection[int]) -> None:
        """Exactly these VNIs are taken from the underlay."""
        self._call(self._switch.guard_networks(set(vnis)))

    def vteps(self) -> tuple[str | None, str | None]:
        """The VTEPs that tunnel packets leave and arrive by, as the kernel has them now."""
        found = self._call(self._switch.vteps())
        return next((vtep for vtep in found if ":" not in vtep), None), next((v for v in found if ":" in v), None)

    def guarded(self) -> set[int]:
        """The VNIs that are taken from the underlay, as the kernel has them now."""
        return self._call(self._switch.guarded())

    def malformed(self) -> tuple[int, int]:
        """(packets, bytes) that the way in has dropped because they do not say their VNI."""
        return self._call(self._switch.malformed())

    def intact(self) -> list[str]:
        """What is not as it should be of what all of this needs, as sentences."""
        return self._call(self._switch.intact())

    def mend(self) -> None:
        """Make it so again. Raises: HawseError."""
        self._call(self._switch.mend())

    def purge(self) -> None:
        """Remove all that is ours from the switch, the kernel and the database; absent is fine."""
        self._call(self._switch.purge())

    def close(self) -> None:
        """Let go of connections; what was made stays. Twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._living.cancel)
        self._thread.join()
