"""A container's log: the bytes of both streams as they came, and beside them an index of when and from which.

    log        bytes, only ever appended
    log.index  records of 16 bytes, little endian: offset in `log`, then `time_ns << 1 | stream` (0 stdout, 1 stderr)

A record is written before the bytes that it describes. Its extent ends where the next one's begins, or at the end of
`log`; it is empty when the writer was killed in between, or when the disk was full. What is oldest is taken away by
punching holes into both files, the index first: offsets never change, a reader never opens anew, and a record that is
all zero is one that went. Times are those of the clock on the wall; they may step.

The supervisor writes (`pack`, `find_end`, `find_cut`), the daemon and the command read (`LogReader`). Standard library
only, and little of that: the supervisor's memory is measured.
"""

from __future__ import annotations

import os
import struct
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

RECORD = struct.Struct("<QQ")
STDOUT, STDERR = 0, 1
BATCH_RECORDS = 512
"""Read of the index at a time."""
TAIL_BLOCK_BYTES = 64 << 10
"""Read at a time on the way back from the end."""

if TYPE_CHECKING:

    class Chunk(NamedTuple):
        """Bytes that came together. `stream`: `STDOUT` or `STDERR`."""

        time_ns: int
        stream: int
        data: bytes

else:
    Chunk = namedtuple("Chunk", ("time_ns", "stream", "data"))


def pack(offset: int, time_ns: int, stream: int) -> bytes:
    """A record as it is written, before the bytes that it describes."""
    return RECORD.pack(offset, time_ns << 1 | stream)


def find_end(log_fd: int, index_fd: int) -> tuple[int, int]:
    """Where the next bytes and the next record (counted in records) belong, after any kind of end of the last writer.

    A last record without bytes, or one that is not whole, is written over.
    """
    end = os.fstat(log_fd).st_size
    count = os.fstat(index_fd).st_size // RECORD.size
    if count and _record(index_fd, count - 1)[0] >= end:
        count -= 1
    return end, count


def find_cut(index_fd: int, end: int, count: int, keep_bytes: int) -> tuple[int, int]:
    """The first record to keep, and the offset of its bytes, so that both files together keep at most `keep_bytes`.

    `end`, `count`: as `find_end` gives them. The last record is always kept.
    """
    low, high = first_kept(index_fd, 0), count - 1
    while low < high:
        middle = (low + high) // 2
        if end - _record(index_fd, middle)[0] + (count - middle) * RECORD.size <= keep_bytes:
            high = middle
        else:
            low = middle + 1
    return low, _record(index_fd, low)[0]


def first_kept(index_fd: int, start: int) -> int:
    """The first record from `start` on that was not taken away, or the number of records."""
    count = os.fstat(index_fd).st_size // RECORD.size
    while start < count:
        try:  # whole blocks that went are skipped without a look; the position of the descriptor is nobody's
            start = max(start, os.lseek(index_fd, start * RECORD.size, os.SEEK_DATA) // RECORD.size)
        except OSError:  # ENXIO: holes to the end
            return count
        block = os.pread(index_fd, BATCH_RECORDS * RECORD.size, start * RECORD.size)
        zeros = len(block) - len(block.lstrip(b"\0"))
        whole = len(block) // RECORD.size
        if zeros // RECORD.size < whole:
            return start + zeros // RECORD.size
        start += max(whole, 1)
    return count


def _record(index_fd: int, number: int) -> tuple[int, int]:
    data = os.pread(index_fd, RECORD.size, number * RECORD.size)
    return RECORD.unpack(data) if len(data) == RECORD.size else (0, 0)


class LogReader:
    """Reads a log from a position on, while it is written and while its oldest part goes. Begins at the oldest.

    The descriptors stay the caller's. Any number of readers may share them.
    """

    def __init__(self, log_fd: int, index_fd: int) -> None:
        self._log = log_fd
        self._index = index_fd
        self._number = 0  # the record that the next byte belongs to
        self._offset = 0  # of the next byte

    def read(self, limit_bytes: int = 65536) -> list[Chunk]:
        """What comes next, `limit_bytes` at most; [] at the end of what there is so far."""
        while True:
            # The size before the index: every byte below it is described by records that were there before.
            end = os.fstat(self._log).st_size
            records = self._records(self._number)
            if not records:
                return []
            if records[0][1] == 0:
                self._number = first_kept(self._index, self._number + 1)
                continue
            extents, number, offset = self._extents(records, end, max(limit_bytes, 1))
            chunks = self._chunks(extents) if extents else []
            progress = number != self._number or offset != self._offset
            self._number, self._offset = number, offset
            if chunks or not progress:
                return chunks

    def _records(self, number: int) -> list[tuple[int, int]]:
        """Those from `number` on; one more than a batch, for the end of the last."""
        data = os.pread(self._index, (BATCH_RECORDS + 1) * RECORD.size, number * RECORD.size)
        return list(RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size]))

    def _extents(
        self, records: list[tuple[int, int]], end: int, limit_bytes: int
    ) -> tuple[list[tuple[int, int, int, int]], int, int]:
        """(record's number, stamp, start, stop) of what is to be read, and the position after it."""
        extents: list[tuple[int, int, int, int]] = []
        number, offset = self._number, self._offset
        for place, (begin, stamp) in enumerate(records[:BATCH_RECORDS]):
            if begin >= end or limit_bytes <= 0:
                break
            number = self._number + place
            start = max(begin, offset)
            stop = min(records[place + 1][0], end) if place + 1 < len(records) else end
            stop = min(stop, start + limit_bytes)
            if stop > start:
                extents.append((number, stamp, start, stop))
                offset = stop
                limit_bytes -= stop - start
        else:
            if len(records) > BATCH_RECORDS:
                number = self._number + BATCH_RECORDS
        return extents, number, offset

    def _chunks(self, extents: list[tuple[int, int, int, int]]) -> list[Chunk]:
        """Their bytes, without those that went while they were read."""
        first, begin, stop = extents[0][0], extents[0][2], extents[-1][3]
        data = os.pread(self._log, stop - begin, begin)
        still = self._records(first)  # the index goes first: what is in it now had its bytes when they were read
        return [
            Chunk(stamp >> 1, stamp & 1, data[start - begin : stop - begin])
            for number, stamp, start, stop in extents
            if number - first < len(still) and still[number - first][1] != 0
        ]

    def seek_end(self) -> None:
        """After what there is now: only what is still to come will be read."""
        end = os.fstat(self._log).st_size
        self._seek_offset(end)

    def seek_since(self, time_ns: int) -> None:
        """To the first chunk that came at that time or later; it may begin amid a line."""
        low, high = first_kept(self._index, 0), os.fstat(self._index).st_size // RECORD.size
        while low < high:
            middle = (low + high) // 2
            if _record(self._index, middle)[1] >> 1 < time_ns:
                low = middle + 1
            else:
                high = middle
        count = os.fstat(self._index).st_size // RECORD.size
        if low < count:
            self._number, self._offset = low, _record(self._index, low)[0]
        else:
            self.seek_end()

    def seek_tail(self, lines: int) -> None:
        """To the beginning of the last so many lines of both streams together, in the order in which they came.

        What follows the last line feed counts as a line.
        """
        end = os.fstat(self._log).st_size
        kept = first_kept(self._index, 0)
        floor = _record(self._index, kept)[0]
        at, wanted = end, lines + 1
        if lines <= 0:
            self._seek_offset(end)
            return
        if end > floor and os.pread(self._log, 1, end - 1) != b"\n":
            wanted -= 1
        while at > floor:
            begin = max(floor, at - TAIL_BLOCK_BYTES)
            block = os.pread(self._log, at - begin, begin)
            found = block.count(b"\n")
            if found >= wanted:
                place = len(block)
                for _ in range(wanted):
                    place = block.rfind(b"\n", 0, place)
                self._seek_offset(begin + place + 1)
                return
            wanted -= found
            at = begin
        self._seek_offset(floor)

    def _seek_offset(self, offset: int) -> None:
        """To a byte: its record is the last one that begins at it or before."""
        low, high = first_kept(self._index, 0), os.fstat(self._index).st_size // RECORD.size
        while low < high:
            middle = (low + high) // 2
            if _record(self._index, middle)[0] <= offset:
                low = middle + 1
            else:
                high = middle
        self._number, self._offset = max(low - 1, 0), offset
