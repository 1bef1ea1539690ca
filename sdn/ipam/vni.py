"""VNIs, taken cyclically; one whose network is gone is held back until every host has applied that."""

from __future__ import annotations

from collections.abc import Iterable

from sdn.ipam.bitmap import Bitmap
from sdn.model.errors import conflict, exhausted, invalid
from sdn.model.resources import VNI_MAX

VNI_FIRST_DEFAULT = 4096
"""Above the numbers of VLANs, which people who number VXLANs by hand like to use."""


class VniSource:
    """Which VNIs are in use (`taken`) or `held`; `latest` is the one taken most recently, the search goes on after it.

    `first` and `last` bound the choice; VNIs in use may lie outside of it, from an earlier configuration.
    """

    def __init__(
        self,
        first: int = VNI_FIRST_DEFAULT,
        last: int = VNI_MAX,
        *,
        latest: int | None = None,
        taken: Iterable[int] = (),
        held: Iterable[int] = (),
    ) -> None:
        if not 0 < first <= last <= VNI_MAX:
            raise invalid(f"{first} to {last} is not a range of VNIs", f"choose from 1 to {VNI_MAX}")
        self._first, self._end = first, last + 1
        self._busy = Bitmap(VNI_MAX + 1)
        self._held: set[int] = set()
        for vni in taken:
            self._busy.add(vni)
        for vni in held:
            self.hold(vni)
        self._cursor = self._after(first - 1 if latest is None else latest)

    @property
    def held(self) -> frozenset[int]:
        """Those that are held back."""
        return frozenset(self._held)

    def __contains__(self, vni: int) -> bool:
        """Whether it is taken or held."""
        return vni in self._busy

    def take(self) -> int:
        """The next one that is neither taken nor held. Raises: EXHAUSTED."""
        vni = self._busy.next_absent(self._cursor, self._end)
        if vni is None:
            vni = self._busy.next_absent(self._first, self._cursor)
        if vni is None:
            size = self._end - self._first
            held = sum(self._first <= vni < self._end for vni in self._held)
            raise exhausted(
                f"all {size} VNIs from {self._first} to {self._end - 1} are in use ({size - held}) or held back until"
                f" every host has removed their network ({held})",
                "remove networks, forget hosts that will not come back, or configure a larger range",
                first=self._first,
                last=self._end - 1,
                used=size - held,
                held=held,
            )
        self._busy.add(vni)
        self._cursor = self._after(vni)
        return vni

    def take_static(self, vni: int) -> int:
        """Take this one. Raises: INVALID, CONFLICT (taken or held)."""
        if not 0 < vni <= VNI_MAX:
            raise invalid(f"{vni} is not a VNI", f"choose from 1 to {VNI_MAX}", vni=vni)
        if vni in self._busy:
            why = "held back until every host has removed its last network" if vni in self._held else "taken"
            raise conflict(f"the VNI {vni} is {why}", "choose another, or leave the choice to Hawse", vni=vni)
        self._busy.add(vni)
        return vni

    def hold(self, vni: int) -> None:
        """Its network is gone, but some hosts may not know yet: give it to nobody."""
        self._busy.add(vni)
        self._held.add(vni)

    def release(self, vni: int) -> None:
        """Nobody uses it any more. One that is free is left as it is."""
        self._held.discard(vni)
        self._busy.discard(vni)

    def _after(self, vni: int) -> int:
        return vni + 1 if self._first <= vni + 1 < self._end else self._first
