"""What is in an archive, however it comes: a directory, a file that can be read anywhere, or a stream.

Small files are had by name; layers are unpacked on demand. A stream names its layers after it has passed, so each one
is unpacked as it comes by, and found again by its name: nothing is spooled.
"""

from __future__ import annotations

import dataclasses
import io
import os
import posixpath
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from runtime.image.configuration import CONFIGURATION_BYTES_MAX
from runtime.image.layers import TREE
from runtime.image.manifest import LayerPlan
from runtime.image.recipe import RecipeWriter
from runtime.image.stream import CHUNK_BYTES, Ahead, Extent, Hashing, Pipe, Read, Stream, inflated
from runtime.image.tar import DIRECTORY, LINK, REGULAR, SYMLINK, Entry, TarReader
from runtime.image.unpack import Unpacked, unpack
from sdn.model.errors import HawseError, invalid

ARCHIVE_ENTRIES_MAX = 100_000
TEXTS_BYTES_MAX = 64 << 20
"""Of all small files of a stream, which are kept in memory until their turn comes."""
_LINKS_MAX = 8
_HEADER_BYTES = 4096

Report = Callable[[str, int, int, bool], None]
"""(what, done, total, finished): how far it is."""


@dataclasses.dataclass(slots=True)
class Staged:
    """A layer, unpacked but not yet in its place. `digest`: of the bytes as they were stored."""

    directory: Path
    digest: str
    diff_id: str
    stored_bytes: int
    archive_bytes: int
    unpacked: Unpacked


class Contents(Protocol):
    """An archive."""

    def text(self, name: str) -> bytes | None:
        """A small file; None where it is absent. Raises: INVALID."""

    def stage(self, layer: LayerPlan, title: str) -> Staged:
        """Unpack a layer; the directory is the caller's. `title`: for sentences. Raises: INVALID, OSError."""


class Stage:
    """Unpacks layers into directories of their own below one."""

    def __init__(self, directory: Path, report: Report) -> None:
        self._directory = directory
        self._report = report
        self._count = 0

    def directory(self) -> Path:
        """A new one."""
        self._count += 1
        path = self._directory / str(self._count)
        path.mkdir(mode=0o700)
        return path

    def unpack(self, read: Read, size_bytes: int, what: str) -> Staged:
        """Unpack what `read` gives, to its end. Raises: INVALID, OSError."""
        directory = self.directory()
        (directory / TREE).mkdir()
        (directory / TREE).chmod(0o755)
        name = f"the layer {what}"
        stored = Hashing(self._reported(read, size_bytes, what))
        recipe = RecipeWriter(directory)
        try:
            content = Hashing(inflated(stored.read(CHUNK_BYTES), stored.read, name))
            ahead = Ahead(content.read)
            try:
                unpacked = unpack(Stream(ahead.chunk, name), directory / TREE, recipe, name)
            finally:
                ahead.close()
            recipe.close()
        finally:
            recipe.close(complete=False)
        self._report(what, stored.count, stored.count, True)
        return Staged(directory, stored.digest, content.digest, stored.count, content.count, unpacked)

    def _reported(self, read: Read, size_bytes: int, what: str) -> Read:
        done = 0

        def read_reported(count: int) -> bytes:
            nonlocal done
            data = read(count)
            done += len(data)
            self._report(what, done, size_bytes, False)
            return data

        return read_reported


def _clean(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


class LayoutDirectory:
    """An OCI layout (or an unpacked `docker save`) in a directory."""

    def __init__(self, fd: int, stage: Stage) -> None:
        self._fd = fd
        self._stage = stage

    def _open(self, name: str) -> int | None:
        name = _clean(name)
        if ".." in name.split("/"):
            raise invalid(f"{name[:120]!r} leads out of the directory", "this is no image that can be trusted")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self._fd)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        except OSError as error:
            raise invalid(
                f"{name[:120]!r} cannot be read: {error.strerror}", "an image is made of plain files"
            ) from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise invalid(f"{name[:120]!r} is no plain file", "an image is made of plain files")
        return fd

    def text(self, name: str) -> bytes | None:
        """See `Contents`."""
        fd = self._open(name)
        if fd is None:
            return None
        with open(fd, "rb") as file:
            data = file.read(CONFIGURATION_BYTES_MAX + 1)
        return _bounded(data, name)

    def stage(self, layer: LayerPlan, title: str) -> Staged:
        """See `Contents`."""
        fd = self._open(layer.blob)
        if fd is None:
            raise _lacks(layer)
        try:
            size = os.fstat(fd).st_size
            _check_size(layer, size, title)
            return self._stage.unpack(Extent(fd, 0, size).read, size, title)
        finally:
            os.close(fd)


class ArchiveFile:
    """An uncompressed archive in a file that can be read anywhere: its headers first, then what is needed."""

    def __init__(self, fd: int, offset: int, size: int, stage: Stage) -> None:
        self._fd = fd
        self._stage = stage
        self._places: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        for entry, at in _headers(fd, offset, size):
            name = _clean(os.fsdecode(entry.name))
            if entry.kind == REGULAR:
                if at + entry.stored_bytes > offset + size:
                    raise invalid(f"the archive ends in the middle of {name[:120]!r}", "it was not copied as a whole")
                self._places[name] = (at, entry.stored_bytes)
                self._links.pop(name, None)
            else:
                _note_link(self._links, name, entry)

    def _place(self, name: str) -> tuple[int, int] | None:
        return self._places.get(_follow(name, self._links))

    def text(self, name: str) -> bytes | None:
        """See `Contents`."""
        place = self._place(name)
        if place is None:
            return None
        return _bounded(os.pread(self._fd, min(place[1], CONFIGURATION_BYTES_MAX + 1), place[0]), name)

    def stage(self, layer: LayerPlan, title: str) -> Staged:
        """See `Contents`."""
        place = self._place(layer.blob)
        if place is None:
            raise _lacks(layer)
        _check_size(layer, place[1], title)
        return self._stage.unpack(Extent(self._fd, *place).read, place[1], title)


def _headers(fd: int, offset: int, size: int) -> Iterator[tuple[Entry, int]]:
    """Entries and where their payload is, with small reads and leaps over what is large."""
    stream = _LeapingStream(fd, offset, size)
    for count, entry in enumerate(TarReader(stream, "the archive").entries()):
        if count >= ARCHIVE_ENTRIES_MAX:
            raise invalid(f"the archive has more than {ARCHIVE_ENTRIES_MAX} entries", "this is no archive of images")
        if entry.pieces is not None:
            raise invalid("the archive has a sparse file in it", "save the image again")
        yield entry, stream.position


class _LeapingStream(Stream):
    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._extent = Extent(fd, offset, size)
        self.position = offset
        super().__init__(lambda: self._extent.read(_HEADER_BYTES), "the archive")

    def take_some(self, count: int) -> bytes:
        data = super().take_some(count)
        self.position += len(data)
        return data

    def skip(self, count: int) -> None:
        self.position += count
        self.leap(count, self._extent)


class ArchiveStream:
    """An archive that passes by once: texts are kept, layers unpacked on the spot."""

    def __init__(self, stream: Stream, stage: Stage) -> None:
        self._stage = stage
        self._texts: dict[str, bytes] = {}
        self._links: dict[str, str] = {}
        self._staged: dict[str, Staged | HawseError] = {}
        self._used: set[str] = set()
        self._kept_bytes = 0
        reader = TarReader(stream, "the archive")
        for count, entry in enumerate(reader.entries()):
            if count >= ARCHIVE_ENTRIES_MAX:
                raise invalid(
                    f"the archive has more than {ARCHIVE_ENTRIES_MAX} entries", "this is no archive of images"
                )
            name = _clean(os.fsdecode(entry.name))
            if entry.kind == REGULAR and entry.pieces is None:
                self._take(name, entry.stored_bytes, stream, reader)
                self._links.pop(name, None)
            else:
                _note_link(self._links, name, entry)

    def _take(self, name: str, size: int, stream: Stream, reader: TarReader) -> None:
        if size <= CONFIGURATION_BYTES_MAX and not _is_layer(stream.peek(min(size, 512))):
            self._kept_bytes += size
            if self._kept_bytes > TEXTS_BYTES_MAX:
                raise invalid("the archive has too many files that are no layers", "this is no archive of images")
            self._texts[name] = b"".join(bytes(piece) for piece in reader.payload())
            return
        pieces, left = reader.payload(), size

        def read(_: int) -> bytes:
            nonlocal left
            data = bytes(next(pieces, b""))
            left -= len(data)
            return data

        try:
            self._staged[name] = self._stage.unpack(read, size, _name_title(name))
        except HawseError as error:
            while read(0):
                pass
            if left:  # it is the archive that ended
                raise
            self._staged[name] = error  # perhaps no image needs it

    def text(self, name: str) -> bytes | None:
        """See `Contents`."""
        return self._texts.get(_follow(name, self._links))

    def stage(self, layer: LayerPlan, title: str) -> Staged:
        """See `Contents`."""
        name = _follow(layer.blob, self._links)
        staged = self._staged.get(name)
        if staged is None and name in self._texts:  # small, and it does not look like one
            staged = self._stage.unpack(io.BytesIO(self._texts[name]).read, len(self._texts[name]), title)
        if staged is None:
            raise _lacks(layer)
        if isinstance(staged, HawseError):
            raise staged
        _check_size(layer, staged.stored_bytes, title)
        if name in self._used:  # the same layer above other ones
            return self._copy(staged)
        self._used.add(name)
        return staged

    def _copy(self, staged: Staged) -> Staged:
        directory = self._stage.directory()
        subprocess.run(["cp", "-a", "--", f"{staged.directory}/.", os.fspath(directory)], check=True)
        return dataclasses.replace(staged, directory=directory)


def open_contents(fd: int, stage: Stage, watch: int | None) -> Contents:
    """What a descriptor is of. Raises: INVALID."""
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        return LayoutDirectory(fd, stage)
    read: Read
    if stat.S_ISREG(status.st_mode):
        offset = os.lseek(fd, 0, os.SEEK_CUR)
        if not _is_compressed(os.pread(fd, 512, offset)):
            return ArchiveFile(fd, offset, status.st_size - offset, stage)
        read = Extent(fd, offset, status.st_size - offset).read
    else:
        read = Pipe(fd, watch).read
    ahead = Ahead(inflated(read(CHUNK_BYTES), read, "the archive"))
    try:
        return ArchiveStream(Stream(ahead.chunk, "the archive"), stage)
    finally:
        ahead.close()


def _is_compressed(head: bytes) -> bool:
    return head[257:262] != b"ustar" and head[:2] in (b"\x1f\x8b", b"\x28\xb5", b"BZ", b"\xfd7")


def _is_layer(head: bytes) -> bool:
    """By its looks: compressed, or a tar archive, be it an empty one."""
    return head[257:262] == b"ustar" or head[:4] == b"\x28\xb5\x2f\xfd" or head[:2] == b"\x1f\x8b" or head == bytes(512)


def _note_link(links: dict[str, str], name: str, entry: Entry) -> None:
    if entry.kind == SYMLINK:
        links[name] = _clean(posixpath.join(posixpath.dirname(name), os.fsdecode(entry.link)))
    elif entry.kind == LINK:
        links[name] = _clean(os.fsdecode(entry.link))
    elif entry.kind != DIRECTORY:
        raise invalid(f"the archive has {name[:120]!r} in it, which is no plain file", "save the image again")


def _follow(name: str, links: dict[str, str]) -> str:
    name = _clean(name)
    for _ in range(_LINKS_MAX):
        if name not in links:
            return name
        name = links[name]
    raise invalid(f"the links of {name[:120]!r} lead in a circle", "this is no image that can be trusted")


def _bounded(data: bytes, name: str) -> bytes:
    if len(data) > CONFIGURATION_BYTES_MAX:
        raise invalid(f"{name[:120]!r} has more than {CONFIGURATION_BYTES_MAX} bytes", "no image has such a file")
    return data


def _check_size(layer: LayerPlan, size: int, title: str) -> None:
    if layer.size_bytes is not None and layer.size_bytes != size:
        raise invalid(f"the layer {title} has {size} bytes and not {layer.size_bytes}", "it was not copied as a whole")


def _name_title(name: str) -> str:
    """What a layer is called in a sentence: a digest's beginning, where its name is one."""
    stem = name.removesuffix("/layer.tar").removesuffix(".tar").rpartition("/")[2]
    return stem[:12]


def _lacks(layer: LayerPlan) -> HawseError:
    return invalid(f"the archive lacks the layer {layer.blob[:120]!r}", "it was not saved or copied as a whole")
