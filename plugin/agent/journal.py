"""The journal: releases that the controller has not confirmed, in an append-only file of JSON lines.

A release names an endpoint id, which is never used again, so replaying one twice, or one that was delivered, is
harmless. Therefore only `release` is made durable; confirmations are written without waiting for the disk.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from sdn.model.errors import HawseError, Kind, unavailable
from sdn.model.ids import EndpointId, is_id

EMPTY_BYTES = 1 << 16
"""A file of which nothing is pending is emptied from this size on: on most file systems that costs more than a line."""
COMPACT_BYTES = 1 << 20
"""A file larger than this is written anew when a release comes: about 15 000 lines."""


class Journal:
    """Open with `Journal.open`. `pending`: endpoint id -> reason, oldest first."""

    def __init__(self, path: Path, fd: int, pending: dict[EndpointId, str], size: int) -> None:
        self._path = path
        self._fd = fd
        self._size = size
        self._buffer = b""
        self._appended = 0
        self._durable = 0
        self._lock = asyncio.Lock()
        self.pending = pending

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Read what is there; a last line that was torn by a crash is cut off. Raises: UNAVAILABLE."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                os.ftruncate(fd, len(whole))
            pending = _pending(whole.splitlines())
            if not pending and whole:
                os.ftruncate(fd, 0)
                whole = b""
            _sync_directory(path.parent)
        except OSError as error:
            raise unavailable(f"cannot open the journal {path}: {error.strerror}", "look at the disk") from None
        return cls(path, fd, pending, len(whole))

    async def release(self, endpoints: Iterable[EndpointId], reason: str) -> None:
        """Remember them; when this returns they are on the disk. Several callers share one fsync.

        Raises: UNAVAILABLE (a full disk …); they are pending all the same, for as long as the agent lives.
        """
        for endpoint in endpoints:
            self.pending[endpoint] = reason
            self._append({"release": endpoint, "reason": reason})
        wanted = self._appended
        async with self._lock:
            if self._durable < wanted:
                await self._flush()

    def delivered(self, endpoints: Iterable[EndpointId]) -> None:
        """The controller has confirmed them (or they were unknown to it); unknown ones are fine."""
        for endpoint in endpoints:
            if self.pending.pop(endpoint, None) is not None:
                self._append({"delivered": endpoint})
        if not self.pending and self._size >= EMPTY_BYTES and not self._lock.locked():
            self._empty()

    def close(self) -> None:
        """Write what is buffered, let go of the file. Calling it twice is fine."""
        if self._fd >= 0:
            if not self.pending:
                self._empty()
            elif self._buffer:
                os.write(self._fd, self._buffer)
                self._buffer = b""
            os.close(self._fd)
            self._fd = -1

    def _append(self, record: dict[str, str]) -> None:
        self._buffer += json.dumps(record).encode() + b"\n"
        self._appended += 1

    async def _flush(self) -> None:
        data, self._buffer = self._buffer, b""
        wanted = self._appended
        compact = self._size + len(data) > COMPACT_BYTES
        if compact:
            data = b"".join(
                json.dumps({"release": endpoint, "reason": reason}).encode() + b"\n"
                for endpoint, reason in self.pending.items()
            )
        try:
            await asyncio.to_thread(self._write_anew if compact else self._write, data)
        except OSError as error:
            self._buffer = data + self._buffer
            raise unavailable(
                f"cannot write the journal {self._path}: {error.strerror}", "make room on the disk"
            ) from None
        self._durable = wanted

    def _write(self, data: bytes) -> None:
        written = os.write(self._fd, data)
        if written < len(data):  # a disk that has just become full
            os.ftruncate(self._fd, self._size)
            raise OSError(28, "no space left on device")
        os.fdatasync(self._fd)
        self._size += written

    def _write_anew(self, data: bytes) -> None:
        temporary = self._path.with_suffix(".new")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
            os.fsync(fd)
            os.rename(temporary, self._path)
            _sync_directory(self._path.parent)
        except OSError:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd = fd
        self._size = len(data)

    def _empty(self) -> None:
        """Nothing is undelivered: the file begins anew. Not synced: what a crash brings back is harmless."""
        self._buffer = b""
        self._durable = self._appended
        if self._size and self._fd >= 0:
            os.ftruncate(self._fd, 0)
            self._size = 0


def _pending(lines: Sequence[bytes]) -> dict[EndpointId, str]:
    """What the lines leave undelivered. Raises: INTERNAL where a line is not ours."""
    pending: dict[EndpointId, str] = {}
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            released, delivered = record.get("release"), record.get("delivered")
        except (ValueError, AttributeError):
            raise HawseError(
                Kind.INTERNAL, f"line {number} of the journal cannot be read", hint="remove that line and start again"
            ) from None
        if isinstance(released, str) and is_id(released):
            pending[EndpointId(released)] = str(record.get("reason", ""))
        elif isinstance(delivered, str):
            pending.pop(EndpointId(delivered), None)
    return pending


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
