"""What a writer has to know of the switch as a whole, as it was read last and written since."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping

from plugin.datapath.openflow.objects import Uplink
from sdn.openflow.objects import Speaker
from sdn.reconcile.datapath import Key, Object


class Memory:
    """Filled by every read of everything, kept by every write.

    `owners`: the tenant that a VNI had last: what is left of it is still read as that tenant's. `uplinks`: the VNIs
    whose tunnels are taken. `members`: how many networks reach a VTEP. `speakers`: by port.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes = 0
        self.owners: dict[int, str] = {}
        self.uplinks: set[int] = set()
        self.members: Counter[str] = Counter()
        self.speakers: dict[str, Speaker] = {}

    def mark(self) -> int:
        """To be given to `replace`: now a read begins."""
        return self._changes

    def replace(self, found: Mapping[Key, Object], mark: int) -> None:
        """As it was read, all of it; nothing where something was written meanwhile."""
        uplinks, speakers = set[int](), dict[str, Speaker]()
        members: Counter[str] = Counter()
        for key, object_ in found.items():
            kind = key[0]
            if kind == "member":
                members[key[2]] += 1
            elif kind == "speaker" and isinstance(object_, Speaker):
                speakers[key[1]] = object_
            elif isinstance(object_, Uplink):
                uplinks.add(int(key[1]))
        seen = {int(key[1]) for key in found if key[1].isdecimal()}
        with self._lock:
            if self._changes == mark:
                self.uplinks, self.members, self.speakers = uplinks, members, speakers
                self.owners = {vni: tenant for vni, tenant in self.owners.items() if vni in seen}

    def stations(self, vni: int) -> list[tuple[str, Speaker]]:
        """The ports of a network's stations here."""
        with self._lock:
            return [(port, speaker) for port, speaker in self.speakers.items() if speaker.vni == vni]

    def note_owners(self, names: Mapping[int, tuple[str, str]]) -> Mapping[int, str]:
        """What the database says of VNIs, (network, tenant); the tenants of all that are known."""
        with self._lock:
            self.owners = self.owners | {vni: tenant for vni, (_, tenant) in names.items()}
            return self.owners

    def note_speaker(self, port: str, speaker: Speaker | None) -> None:
        """A port that speaks so from now on, or (None) not at all."""
        with self._lock:
            self._changes += 1
            if speaker is None:
                self.speakers.pop(port, None)
            else:
                self.speakers[port] = speaker

    def enter(self, vteps: Iterable[str]) -> list[str]:
        """VTEPs that one network more reaches; those that none did before."""
        with self._lock:
            self._changes += 1
            new = []
            for vtep in vteps:
                if not self.members[vtep]:
                    new.append(vtep)
                self.members[vtep] += 1
            return new

    def leave(self, vteps: Iterable[str]) -> list[str]:
        """VTEPs that one network less reaches; those that none does any more."""
        with self._lock:
            self._changes += 1
            gone = []
            for vtep in vteps:
                self.members[vtep] -= 1
                if self.members[vtep] <= 0:
                    del self.members[vtep]
                    gone.append(vtep)
            return gone

    def turn(self, vnis: Iterable[int], *, taken: bool) -> set[int]:
        """VNIs whose tunnels are taken from now on, or not any more; all that are then."""
        with self._lock:
            self._changes += 1
            self.uplinks = self.uplinks | set(vnis) if taken else self.uplinks - set(vnis)
            return set(self.uplinks)
