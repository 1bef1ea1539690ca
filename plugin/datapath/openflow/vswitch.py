"""The host's Open vSwitch as the datapath uses it: ports, flows, the way out, and what has to be there for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sdn.model.errors import HawseError, unavailable
from sdn.model.ids import TenantId

if TYPE_CHECKING:
    from sdn.openflow.decode import Entry

DATABASE: Final = Path("/run/openvswitch/db.sock")
"""Where Open vSwitch's packages have it."""
BRIDGE: Final = "hwint"
TUNNEL: Final = "hwvxlan"
TUNNEL_PORT: Final = 1
"""The number of hwvxlan in hwint."""

Drifted = Callable[[Sequence[TenantId] | None], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where the switch is. `owner`: the root's id, which marks what is ours. `here_ns_fd`: None for this process's."""

    database: Path = DATABASE
    owner: str = "hawse"
    here_ns_fd: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class PortRow:
    """A port of hwint that a container is behind. `number`: 0 while the switch has none; `error`: why it has none."""

    number: int
    external_ids: Mapping[str, str]
    error: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class NewPort:
    """A device of the host's namespace that is to be a port; its number is chosen by `change`."""

    external_ids: Mapping[str, str]


class Change:
    """A transaction that is under way. `numbers`: of the new ports, to be used in flows before it is done."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self.numbers = numbers

    def wait(self) -> dict[str, HawseError]:
        """Until the switch has done it (at most 2 s); what failed, by port.

        Raises: UNAVAILABLE where nothing of it was done.
        """
        return {}


class Vswitch:
    """Calls come from any thread; each is bounded in time and raises HawseError (UNAVAILABLE while the switch is away).

    `changed` is called, from any thread, when `ports` or `networks` tell something new.
    """

    def __init__(self, place: Place, changed: Callable[[], None] = lambda: None) -> None:
        self._place = place
        self._changed = changed

    def wait_ready(self, timeout_s: float) -> None:
        """Until database and switch have answered for the first time. Raises: UNAVAILABLE, saying why they do not."""

    def notify(self, drifted: Drifted) -> None:
        """Call `drifted` (from a thread of its own) for what is not our doing, and when the switch has come back."""

    def ports(self) -> Mapping[str, PortRow]:
        """The ports of hwint, as they were told last."""
        return {}

    def networks(self) -> Mapping[int, tuple[str, str]]:
        """What hwint remembers of VNIs: (network, tenant)."""
        return {}

    def change(
        self,
        *,
        add: Mapping[str, NewPort],
        remove: Collection[str],
        networks: Mapping[int, tuple[str, str] | None],
    ) -> Change:
        """One transaction, under way when this returns. `networks`: None forgets a VNI."""
        raise unavailable("Open vSwitch is away")

    def flows(self, groups: Sequence[Sequence[bytes]]) -> list[HawseError | None]:
        """Groups of encoded flow-mods, in one bundle; a group that is refused is left out, and its error returned."""
        raise unavailable("Open vSwitch is away")

    def dump(self) -> list[Entry]:
        """Every flow of ours in hwint."""
        raise unavailable("Open vSwitch is away")

    def counters(self, cookie: int, mask: int) -> list[Entry]:
        """The flows of hwint with such a cookie."""
        raise unavailable("Open vSwitch is away")

    def packet_out(self, frames: Sequence[tuple[str, bytes]]) -> None:
        """Send frames out of ports, by name."""

    def uplink(self, vtep4: str | None, vtep6: str | None) -> None:
        """Have tunnel packets of these VTEPs leave and arrive."""

    def reaches(self, add: Collection[str], remove: Collection[str]) -> None:
        """Members' VTEPs that are sent to from now on, and no longer."""

    def guard_networks(self, vnis: Collection[int]) -> None:
        """Exactly these VNIs are taken from the underlay."""

    def vteps(self) -> tuple[str | None, str | None]:
        """The VTEPs that tunnel packets leave and arrive by, as the kernel has them now."""
        return None, None

    def guarded(self) -> set[int]:
        """The VNIs that are taken from the underlay, as the kernel has them now."""
        return set()

    def malformed(self) -> tuple[int, int]:
        """(packets, bytes) that the way in has dropped because they do not say their VNI."""
        return 0, 0

    def intact(self) -> list[str]:
        """What is not as it should be of what all of this needs, as sentences."""
        return []

    def mend(self) -> None:
        """Make it so again. Raises: HawseError."""

    def purge(self) -> None:
        """Remove all that is ours from the switch, the kernel and the database; absent is fine."""

    def close(self) -> None:
        """Let go of connections; what was made stays."""
