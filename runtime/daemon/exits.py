"""How containers ended: also those that were removed since, and runs before the last."""

from __future__ import annotations

from pathlib import Path

from runtime.daemon.ring import Ring
from sdn.model.codec import Decoder
from sdn.model.resources import Value
from sdn.model.runtime import Exit

KEEP = 1000


class Ended(Value, frozen=True, kw_only=True):
    """One end of one run of one container."""

    id: str
    name: str
    run: int
    exit: Exit


_decoder: Decoder[Ended] = Decoder(Ended, "a remembered exit")


class Exits:
    """The last 1000."""

    def __init__(self, path: Path) -> None:
        self._ring: Ring[Ended] = Ring(path, _decoder, KEEP)

    def add(self, ended: Ended) -> None:
        """Remember it."""
        self._ring.add(ended)

    def find(self, container: str, run: int | None = None) -> Exit | None:
        """The last one of a container (or of that run of it), by its id."""
        for ended in reversed(self._ring.values):
            if ended.id == container and run in (None, ended.run):
                return ended.exit
        return None

    def identify(self, reference: str) -> str | None:
        """The id of a container that is gone, by its id, a prefix of it, or its name: the last one that had it."""
        for ended in reversed(self._ring.values):
            if ended.name == reference or ended.id.startswith(reference):
                return ended.id
        return None

    def close(self) -> None:
        """Let go of the file."""
        self._ring.close()
