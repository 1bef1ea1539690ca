"""The layers, unpacked, each once: `layers/<chain id>/` with the tree `fs`, the `recipe` of its archive and its facts.

A layer is there once its directory has its name. Who loads holds the shared lock of `layers.lock` all the while, who
collects needs the exclusive one and goes on without where somebody loads: so a layer that was found is not lost before
the image that needs it is recorded.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec

from runtime.image.files import locked, locked_if_free, staging

TREE = "fs"
RECIPE = "recipe"
SPARE = "spare"
FACTS = "layer.json"


class LayerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`size_bytes`: of the files, unpacked. `archive_bytes`: of the archive that it came from, uncompressed."""

    diff_id: str
    size_bytes: int
    archive_bytes: int


class Layers:
    """All layers below one directory."""

    def __init__(self, directory: Path) -> None:
        self._layers = directory / "layers"
        self._lock = directory / "layers.lock"
        self._staging = directory / "tmp"
        self._trash = directory / "trash"
        self._facts: dict[str, LayerFacts] = {}

    def directory(self, chain_id: str) -> Path:
        """Where a layer is, or would be."""
        return self._layers / chain_id.removeprefix("sha256:")

    def tree(self, chain_id: str) -> Path:
        """A layer's files, as overlayfs takes them."""
        return self.directory(chain_id) / TREE

    def has(self, chain_id: str) -> bool:
        """Whether it is there."""
        return self.tree(chain_id).is_dir()

    def facts(self, chain_id: str) -> LayerFacts:
        """Of a layer that is there."""
        if chain_id not in self._facts:
            data = (self.directory(chain_id) / FACTS).read_bytes()
            self._facts[chain_id] = msgspec.json.decode(data, type=LayerFacts)
        return self._facts[chain_id]

    @contextlib.contextmanager
    def loading(self) -> Iterator[Path]:
        """A directory for what is being unpacked, gone afterwards; no layer is collected meanwhile."""
        with locked(self._lock, shared=True), staging(self._staging) as directory:
            yield directory

    @contextlib.contextmanager
    def unused(self) -> Iterator[bool]:
        """Whether nobody loads; nobody begins to meanwhile."""
        with locked_if_free(self._lock) as free:
            yield free

    def add(self, staged: Path, chain_id: str, facts: LayerFacts) -> Path:
        """Give an unpacked layer its name; where somebody else was first, theirs stays. Returns where it is."""
        (staged / FACTS).write_bytes(msgspec.json.encode(facts))
        try:
            os.rename(staged, self.directory(chain_id))
        except OSError:
            if not self.has(chain_id):
                raise
        return self.directory(chain_id)

    def collect(self, used: set[str]) -> list[Path]:
        """Take away the layers that no image uses, unless somebody loads. Returns what is to be deleted."""
        with self.unused() as free:
            if free:
                keep = {chain_id.removeprefix("sha256:") for chain_id in used}
                for name in os.listdir(self._layers):
                    if name not in keep:
                        os.rename(self._layers / name, self._trash / secrets.token_hex(8))
                self._facts.clear()
        return self.trash()

    def trash(self) -> list[Path]:
        """What nobody uses any more, and what loads that were killed have left."""
        dead = [self._trash / name for name in os.listdir(self._trash)]
        for name in os.listdir(self._staging):
            with contextlib.suppress(FileNotFoundError), locked_if_free(self._staging / name) as free:
                if free:
                    dead.append(self._staging / name)
        return dead
