"""From a container's pipes into its log, and the bells of those who follow it.

The record, then the bytes by splice(2) from the pipe to their place in the file: a supervisor killed anywhere in
between has lost nothing and doubled nothing. Where the disk is full the output is read, dropped and counted: a
container never waits for a disk, nor dies of it.
"""

from __future__ import annotations

import errno
import os
import select
import time

from runtime import syscall
from runtime.supervisor.own_log import say
from sdn.service.container_log import RECORD, find_cut, find_end, first_kept, pack

SPLICE_BYTES = 1 << 20
"""More than a pipe has by default."""
OPEN_MAX = 256
"""Logs that are open at a time: a container that was quiet for long has none open."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOENT)


class Log:
    """One container's log: where it is, and, between output and long silence, its descriptors."""

    __slots__ = ("_bells", "_cut", "_directory", "_fds", "_limit", "_place", "_rung", "lost_bytes")

    _opened: dict[Log, None] = {}

    def __init__(self, directory: str, limit_bytes: int) -> None:
        self._directory = directory
        self._limit = limit_bytes
        self._fds: tuple[int, int] | None = None
        self._place = (0, 0)  # of the next byte and the next record
        self._cut = (0, 0)  # of the first byte and the first record that are kept
        self._bells: dict[int, int] | None = None
        self._rung = 0
        self.lost_bytes = 0

    def open(self) -> tuple[int, int]:
        """The descriptors of log and index, made if they are missing. Raises: OSError."""
        if self._fds is None:
            log = _open(f"{self._directory}/log", os.O_RDWR | os.O_CREAT)
            try:
                index = _open(f"{self._directory}/log.index", os.O_RDWR | os.O_CREAT)
            except OSError:
                os.close(log)
                raise
            self._fds = (log, index)
            self._place = find_end(log, index)
            kept = first_kept(index, 0)
            data = os.pread(index, RECORD.size, kept * RECORD.size)
            self._cut = (RECORD.unpack(data)[0], kept) if len(data) == RECORD.size else self._place
            self._opened[self] = None
            if len(self._opened) > OPEN_MAX:
                next(iter(self._opened)).close()
        return self._fds

    def close(self) -> None:
        """Close the files; they are opened again when needed."""
        if self._fds is not None:
            del self._opened[self]
            for fd in self._fds:
                os.close(fd)
            self._fds = None

    def splice(self, pipe: int, stream: int) -> bool:
        """Once: what the pipe has. Returns: False at its end. Raises: BlockingIOError when it is empty."""
        if self._fds is None and not _has_bytes(pipe):
            return False
        try:
            log, index = self.open()
            offset, number = self._place
            os.pwrite(index, pack(offset, time.time_ns(), stream), number * RECORD.size)
            count = os.splice(
                pipe, log, SPLICE_BYTES, offset_dst=offset, flags=syscall.SPLICE_F_NONBLOCK | syscall.SPLICE_F_MOVE
            )
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in FULL:
                raise
            return self._drop(pipe)
        self._wrote(count)
        return count > 0

    def write(self, data: bytes, stream: int) -> None:
        """What was read from a terminal, which cannot be spliced."""
        try:
            log, index = self.open()
            offset, number = self._place
            os.pwrite(index, pack(offset, time.time_ns(), stream), number * RECORD.size)
            self._wrote(written := os.pwrite(log, data, offset))
            self.lost_bytes += len(data) - written
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.lost_bytes += len(data)

    def _wrote(self, count: int) -> None:
        if not count:
            return
        offset, number = self._place
        self._place = offset, number = offset + count, number + 1
        first, kept = self._cut
        if self._limit and offset - first + (number - kept) * RECORD.size > self._limit + (self._limit >> 3):
            self._rotate()
        if self._bells:
            self._ring()

    def _drop(self, pipe: int) -> bool:
        count = len(os.read(pipe, SPLICE_BYTES))
        self.lost_bytes += count
        return count > 0

    def _rotate(self) -> None:
        """Take the oldest away, the index first: a reader trusts bytes whose record is there after it read them."""
        log, index = self.open()
        number, offset = find_cut(index, *self._place, self._limit)
        mode = syscall.FALLOC_FL_PUNCH_HOLE | syscall.FALLOC_FL_KEEP_SIZE
        try:
            if number and offset:
                syscall.fallocate(index, mode, 0, number * RECORD.size)
                syscall.fallocate(log, mode, 0, offset)
        except OSError as error:
            say(
                f"{self._directory}/log stays longer than it should: this file system makes no holes ({error.strerror})"
            )
            self._limit = 0
        self._cut = (offset, number)

    def follow(self) -> tuple[int, int, int]:
        """A new bell: (its number, our end, the follower's end). Raises: OSError."""
        listening, ringing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._rung += 1
        self.add_bell(self._rung, ringing)
        return self._rung, ringing, listening

    def add_bell(self, number: int, ringing: int) -> None:
        """One that was there before."""
        self._rung = max(self._rung, number)
        if self._bells is None:
            self._bells = {}
        self._bells[ringing] = number

    @property
    def bells(self) -> dict[int, int]:
        """Our end of each follower's bell, and its number."""
        return self._bells or {}

    def _ring(self) -> None:
        for ringing in self.bells:
            try:
                os.write(ringing, b"\0")
            except OSError:
                continue  # full: the follower knows already; broken: epoll says so

    def reader_fds(self) -> tuple[int, int]:
        """Fresh descriptors for a reader, read only. Raises: OSError."""
        self.open()
        log = _open(f"{self._directory}/log", os.O_RDONLY)
        try:
            return log, _open(f"{self._directory}/log.index", os.O_RDONLY)
        except OSError:
            os.close(log)
            raise


def _has_bytes(pipe: int) -> bool:
    """False: it is at its end. Nothing is made for a container that says nothing. Raises: BlockingIOError."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    ready = poll.poll(0)
    if not ready:
        raise BlockingIOError
    return bool(ready[0][1] & select.POLLIN)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
