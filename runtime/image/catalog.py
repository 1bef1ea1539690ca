"""Which images there are and what they are called: their configurations as files, and one file of names.

`records/<hex>` is an image's configuration, byte for byte, so its name is its digest; an image is there once that file
is. `names.json` maps names, and the digests of manifests that an archive named, to ids.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from runtime.image.configuration import Configuration, parse_configuration
from runtime.image.files import locked, write_whole
from sdn.model.errors import unavailable


class Names(msgspec.Struct):
    """`names`: `repository:tag` → id. `digests`: of manifests → id."""

    names: dict[str, str] = {}
    digests: dict[str, str] = {}

    def of(self, image: str) -> tuple[str, ...]:
        """An image's names."""
        return tuple(sorted(name for name, other in self.names.items() if other == image))


class Catalog:
    """Records and names below one directory. What has been read is kept: records never change, names are compared."""

    def __init__(self, directory: Path) -> None:
        self._records = directory / "records"
        self._path = directory / "names.json"
        self._lock = directory / "names.lock"
        self._known: dict[str, Configuration] = {}
        self._names = Names()
        self._stamp: tuple[int, int] = (0, 0)

    def ids(self) -> list[str]:
        """Of all images."""
        return [f"sha256:{name}" for name in os.listdir(self._records) if not name.startswith(".")]

    def data(self, image: str) -> bytes:
        """An image's configuration as it came."""
        return self._record(image).read_bytes()

    def configuration(self, image: str) -> Configuration:
        """An image's configuration."""
        if image not in self._known:
            self._known[image] = parse_configuration(self.data(image))
        return self._known[image]

    def names(self) -> Names:
        """All names, as they are now. Not to be changed: see `editing`."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return Names()
        stamp = (status.st_ino, status.st_mtime_ns)
        if stamp != self._stamp:
            try:
                self._names = msgspec.json.decode(self._path.read_bytes(), type=Names)
            except msgspec.DecodeError as error:
                raise unavailable(f"{self._path} is damaged: {error}", "remove it and load the images again") from None
            self._stamp = stamp
        return self._names

    @contextlib.contextmanager
    def editing(self) -> Iterator[Names]:
        """All names, to be changed; written when it ends, unless by an exception."""
        with locked(self._lock):
            self._stamp = (0, 0)
            names = self.names()
            yield names
            write_whole(self._path, msgspec.json.encode(names))

    def add(self, data: bytes, names: Iterable[str] = (), digests: Iterable[str] = ()) -> str:
        """Record an image whose layers are there. Returns its id. Raises: INVALID, OSError."""
        configuration = parse_configuration(data)
        if not self._record(configuration.id).exists():
            write_whole(self._record(configuration.id), data)
        with self.editing() as known:
            known.names.update(dict.fromkeys(names, configuration.id))
            known.digests.update(dict.fromkeys(digests, configuration.id))
        return configuration.id

    def remove(self, image: str) -> None:
        """Forget an image and its names; absent is fine."""
        with self.editing() as known:
            for table in (known.names, known.digests):
                for name in [name for name, other in table.items() if other == image]:
                    del table[name]
        self._record(image).unlink(missing_ok=True)
        self._known.pop(image, None)

    def sweep(self) -> None:
        """Drop what is no record: what a kill or a power cut left in the middle. Nobody may be loading."""
        for entry in list(os.scandir(self._records)):
            if hashlib.sha256(Path(entry.path).read_bytes()).hexdigest() != entry.name:
                os.unlink(entry.path)
        with locked(self._lock):
            for entry in list(os.scandir(self._records.parent)):
                if entry.name.startswith(".names.json."):
                    os.unlink(entry.path)

    def _record(self, image: str) -> Path:
        return self._records / image.removeprefix("sha256:")
