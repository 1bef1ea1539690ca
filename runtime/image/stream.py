"""Bytes on their way in: read from a file, a part of one or a pipe, decompressed, hashed, and taken in exact counts.

Reading, inflating and hashing happen in a thread of their own (they let go of the interpreter), while the consumer
writes files.
"""

from __future__ import annotations

import collections
import hashlib
import os
import select
import threading
from collections.abc import Callable, Iterator
from typing import Any

import zstandard
from isal import isal_zlib

from sdn.model.errors import HawseError, invalid

CHUNK_BYTES = 1 << 20
_QUEUE_CHUNKS = 4
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_DAMAGED: Any = isal_zlib.error  # its stub takes the class for an instance
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}

Read = Callable[[int], bytes]
"""At most so many bytes, none at the end."""


def truncated(what: str) -> HawseError:
    """The sentence for bytes that should have come."""
    return invalid(f"{what} ends too early", "it was not copied or downloaded as a whole")


class Stream:
    """Exact counts out of chunks. `chunk` gives the next one, empty at the end."""

    def __init__(self, chunk: Callable[[], bytes], what: str) -> None:
        self._next = chunk
        self._what = what
        self._view = memoryview(b"")
        self._at = 0

    def _refill(self) -> bool:
        self._view = memoryview(self._next())
        self._at = 0
        return len(self._view) > 0

    def take(self, count: int) -> bytes:
        """Exactly so many bytes. Raises: INVALID (it ends before)."""
        data = self.take_some(count)
        if len(data) < count:
            raise truncated(self._what)
        return data

    def take_some(self, count: int) -> bytes:
        """So many bytes, fewer only at the end."""
        at = self._at
        end = at + count
        if end <= len(self._view):
            self._at = end
            return bytes(self._view[at:end])
        data = bytearray(self._view[at:])
        self._at = len(self._view)
        while len(data) < count and self._refill():
            self._at = min(count - len(data), len(self._view))
            data += self._view[: self._at]
        return bytes(data)

    def peek(self, count: int) -> bytes:
        """As `take_some`; the bytes stay."""
        while len(self._view) - self._at < count:
            rest = bytes(self._view[self._at :])
            if not self._refill():
                self._view = memoryview(rest)
                break
            self._view = memoryview(rest + self._view)
        return bytes(self._view[self._at : self._at + count])

    def pieces(self, count: int) -> Iterator[memoryview]:
        """Exactly so many bytes, in pieces that are valid until the next. Raises: INVALID."""
        while count:
            if self._at == len(self._view) and not self._refill():
                raise truncated(self._what)
            piece = self._view[self._at : self._at + count]
            self._at += len(piece)
            count -= len(piece)
            yield piece

    def skip(self, count: int) -> None:
        """Raises: INVALID."""
        for _ in self.pieces(count):
            pass

    def leap(self, count: int, extent: Extent) -> None:
        """As `skip`, where the chunks come from a file: what is not here yet is not read."""
        here = min(count, len(self._view) - self._at)
        self._at += here
        extent.skip(count - here)

    def rest(self) -> Iterator[memoryview]:
        """All that is left."""
        while self._at < len(self._view) or self._refill():
            piece, self._at = self._view[self._at :], len(self._view)
            yield piece


class Extent:
    """A part of a regular file, read by position: nobody else's reading moves it."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._offset = offset
        self._end = offset + size

    def read(self, count: int) -> bytes:
        """At most so many bytes."""
        data = os.pread(self._fd, max(0, min(count, self._end - self._offset)), self._offset)
        self._offset += len(data)
        return data

    def skip(self, count: int) -> None:
        """Go on so many bytes later."""
        self._offset += count


class Pipe:
    """A pipe, socket or terminal. When the other end of `watch` is closed, the reading ends (BrokenPipeError)."""

    def __init__(self, fd: int, watch: int | None = None) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._watch = watch
        if watch is not None:
            self._poll.register(watch, 0)  # POLLERR and POLLHUP always come

    def read(self, count: int) -> bytes:
        """At most so many bytes; waits for the first."""
        while True:
            ready = dict(self._poll.poll())
            if self._watch in ready:
                raise BrokenPipeError("whoever asked for it is gone")
            try:
                return os.read(self._fd, count)
            except BlockingIOError:
                continue


class Hashing:
    """Counts and hashes what is read through it."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._hash = hashlib.sha256()
        self.count = 0

    def read(self, count: int = -1) -> bytes:
        """At most so many bytes."""
        data = self._read(count if count > 0 else CHUNK_BYTES)
        self._hash.update(data)
        self.count += len(data)
        return data

    @property
    def digest(self) -> str:
        """Of what was read so far."""
        return f"sha256:{self._hash.hexdigest()}"


def inflated(head: bytes, read: Read, what: str) -> Read:
    """Decompressed if it begins as gzip or zstd do. `head`: its first bytes, which were read already.

    Raises: INVALID (another compression), also later, when it is read.
    """
    pending = [head] if head else []

    def read_all(count: int = -1) -> bytes:
        if not pending:
            return read(count if count > 0 else CHUNK_BYTES)
        data = pending.pop()
        if 0 < count < len(data):
            pending.append(data[count:])
            data = data[:count]
        return data

    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise invalid(f"{what} is compressed by {name}", "decompress it first: plain, gzip and zstd are taken")
    if head.startswith(_GZIP):
        return _gunzip(read_all, what)
    if head.startswith(_ZSTD):
        return _unzstd(read_all, what)
    return read_all


def _gunzip(read: Read, what: str) -> Read:
    """All members; zero padding behind the last is fine (RFC 1952, section 2.2)."""
    inflate = isal_zlib.decompressobj(wbits=31)
    pending = b""

    def read_inflated(count: int) -> bytes:
        nonlocal inflate, pending
        try:
            while True:
                if inflate.eof:
                    pending = (inflate.unused_data or read(CHUNK_BYTES)).lstrip(b"\0")
                    while not pending:
                        pending = read(CHUNK_BYTES)
                        if not pending:
                            return b""
                        pending = pending.lstrip(b"\0")
                    inflate = isal_zlib.decompressobj(wbits=31)
                data = inflate.decompress(pending, count)
                pending = inflate.unconsumed_tail
                if data:
                    return data
                if not pending and not inflate.eof:
                    pending = read(CHUNK_BYTES)
                    if not pending:
                        raise truncated(what)
        except _DAMAGED as error:
            raise invalid(f"{what} is damaged: {error}", "it was not copied or downloaded as a whole") from None

    return read_inflated


class _Readable:
    """What zstandard reads from."""

    def __init__(self, read: Read) -> None:
        self.read = read


def _unzstd(read: Read, what: str) -> Read:
    source: Any = _Readable(read)  # no more of IO is used
    reader = zstandard.ZstdDecompressor().stream_reader(source, read_size=CHUNK_BYTES, read_across_frames=True)

    def read_inflated(count: int) -> bytes:
        try:
            return reader.read(count)
        except zstandard.ZstdError as error:
            raise invalid(f"{what} is damaged: {error}", "it was not copied or downloaded as a whole") from None

    return read_inflated


class Ahead:
    """Reads ahead in a thread: `chunk` gives what was read. To be closed."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._chunks: collections.deque[bytes | BaseException] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        chunk: bytes | BaseException = b"-"
        while chunk:
            try:
                chunk = self._read(CHUNK_BYTES)
            except BaseException as error:  # noqa: BLE001 raised again where the chunk is taken
                chunk = error
            with self._changed:
                self._changed.wait_for(lambda: len(self._chunks) < _QUEUE_CHUNKS or self._closed)
                self._chunks.append(chunk)
                self._changed.notify_all()
                if self._closed or isinstance(chunk, BaseException):
                    return

    def chunk(self) -> bytes:
        """The next, empty at the end. Raises: whatever the reading raised."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._chunks))
            chunk = self._chunks[0]
            if chunk and not isinstance(chunk, BaseException):  # the end stays, for who asks again
                self._chunks.popleft()
                self._changed.notify_all()
        if isinstance(chunk, BaseException):
            raise chunk
        return chunk

    def close(self) -> None:
        """End the thread: at the latest when the read that it is in returns."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
