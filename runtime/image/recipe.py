"""How a layer's archive is written again, to the byte: everything that is not a file's content, and where that belongs.

A recipe is zstd-compressed: records of a fixed part, `literal` bytes of the archive, and the path of the file whose
`size` bytes at `offset` follow them in the archive. The file is the layer's; where another entry of the same archive
took its place, it is in `spare/<number>`. Headers are regular: a recipe has about 2 % of its archive's size.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from runtime.image.confine import confined
from runtime.image.layers import RECIPE, SPARE, TREE
from runtime.image.stream import CHUNK_BYTES, Stream
from sdn.model.errors import HawseError, invalid

_RECORD = struct.Struct("<IIQQH")
"""Bytes of literal, number of the file, offset, size, bytes of the path (0: no file)."""


class RecipeWriter:
    """Writes a recipe while a layer is unpacked, and remembers which file is which."""

    def __init__(self, directory: Path) -> None:
        self._file: BinaryIO = open(directory / RECIPE, "wb")  # noqa: SIM115 closed by `close`
        self._zstd: Any = zstandard.ZstdCompressor(level=1).stream_writer(self._file, closefd=True)
        self._spare = directory / SPARE
        self._spare.mkdir()
        self._spare_fd = os.open(self._spare, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._pending = bytearray()
        self._inodes = array("Q")

    def literal(self, data: bytearray) -> None:
        """Bytes of the archive; the array is emptied."""
        self._record(data, 0, 0, 0, b"")

    def file(self, inode: int) -> int:
        """The number of a new file."""
        self._inodes.append(inode)
        return len(self._inodes) - 1

    def payload(self, literal: bytearray, number: int, path: bytes, offset: int, size: int) -> None:
        """So much of a file, after the literal bytes, which are taken."""
        self._record(literal, number, offset, size, path)

    def _record(self, literal: bytearray, number: int, offset: int, size: int, path: bytes) -> None:
        self._pending += _RECORD.pack(len(literal), number, offset, size, len(path))
        self._pending += literal
        self._pending += path
        literal.clear()
        if len(self._pending) > CHUNK_BYTES:
            self._zstd.write(self._pending)
            self._pending.clear()

    def keep(self, path: bytes, inode: int) -> None:
        """A file's name is given to something else: its content is still needed, if it was one of ours."""
        try:
            number = self._inodes.index(inode)
        except ValueError:
            return
        try:
            os.link(path, str(number).encode(), dst_dir_fd=self._spare_fd, follow_symlinks=False)
        except FileExistsError:  # it had several names, and this is not the first to go
            return

    def close(self, complete: bool = True) -> None:
        """Write what is pending; twice is fine. Raises: OSError."""
        if self._spare_fd < 0:
            return
        os.close(self._spare_fd)
        self._spare_fd = -1
        try:
            if complete:
                self._zstd.write(self._pending)
                self._zstd.close()
        finally:
            self._file.close()
        if not os.listdir(self._spare):
            self._spare.rmdir()


def write_archive(layer: Path, diff_id: str, write: Callable[[bytes], object], what: str) -> None:
    """Write a layer's archive again. Needs a process of its own. Raises: INVALID, where the layer is not as it was."""
    digest = hashlib.sha256()

    def emit(data: bytes) -> None:
        digest.update(data)
        write(data)

    try:
        spare = os.open(layer / SPARE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        spare = -1
    try:
        with (
            open(layer / RECIPE, "rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file) as reader,
            confined(layer / TREE),
        ):
            _follow(Stream(lambda: reader.read(CHUNK_BYTES), f"the recipe of {what}"), spare, emit, what)
    finally:
        if spare >= 0:
            os.close(spare)
    if f"sha256:{digest.hexdigest()}" != diff_id:
        raise _changed(what)


def _follow(recipe: Stream, spare: int, emit: Callable[[bytes], None], what: str) -> None:
    while head := recipe.take_some(_RECORD.size):
        literal, number, offset, size, path_bytes = _RECORD.unpack(head)
        for piece in recipe.pieces(literal):
            emit(bytes(piece))
        if path_bytes:
            _content(recipe.take(path_bytes), number, (offset, size), spare, emit, what)


def _content(
    path: bytes, number: int, extent: tuple[int, int], spare: int, emit: Callable[[bytes], None], what: str
) -> None:
    offset, left = extent
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            fd = os.open(str(number), flags, dir_fd=spare) if spare >= 0 else os.open(path, flags)
        except FileNotFoundError:
            fd = os.open(path, flags)
    except OSError:
        raise _changed(what) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _changed(what)
        while left:
            data = os.pread(fd, min(left, CHUNK_BYTES), offset)
            if not data:
                raise _changed(what)
            emit(data)
            offset += len(data)
            left -= len(data)
    finally:
        os.close(fd)


def _changed(what: str) -> HawseError:
    return invalid(f"{what} is no longer as it was loaded", "remove the image and load it again")
