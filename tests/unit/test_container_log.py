"""The log's laws: what was written is what is read, whatever the chunks, kills, rotation and the reader's pace."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sdn.service import container_log
from sdn.service.container_log import RECORD, Chunk, LogReader, find_cut, find_end, pack

KEEP_SIZE, PUNCH_HOLE = 1, 2
ROOT = Path(__file__).parents[2]
_libc = ctypes.CDLL(None, use_errno=True)

chunk_lists = st.lists(st.tuples(st.integers(0, 1), st.binary(min_size=1, max_size=40)), max_size=60)
text_lists = st.lists(st.tuples(st.integers(0, 1), st.text("ab\n", min_size=1, max_size=12)), max_size=40)


def punch(fd: int, length: int) -> None:
    """Take the first bytes of a file away."""
    if length and _libc.fallocate(fd, KEEP_SIZE | PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


class Log:
    """A log on a disk, with a writer that can be killed anywhere."""

    def __init__(self) -> None:
        self.log_file = tempfile.TemporaryFile()  # noqa: SIM115 closed in close()
        self.index_file = tempfile.TemporaryFile()  # noqa: SIM115 closed in close()
        self.log, self.index = self.log_file.fileno(), self.index_file.fileno()
        self.time_ns = 0
        self.begin()

    def begin(self) -> None:
        self.end, self.count = find_end(self.log, self.index)

    def write(self, stream: int, data: bytes, *, killed_after: int = 3) -> int:
        """Steps: 1 the record, 2 half of the bytes, 3 all. Returns how many bytes got there."""
        self.time_ns += 10
        done = 0
        if killed_after >= 1:
            os.pwrite(self.index, pack(self.end, self.time_ns, stream), self.count * RECORD.size)
        if killed_after >= 2:
            done = len(data) if killed_after >= 3 else len(data) // 2
            os.pwrite(self.log, data[:done], self.end)
        if killed_after < 3:
            self.begin()
        elif data:
            self.end, self.count = self.end + len(data), self.count + 1
        return done

    def rotate(self, keep_bytes: int, *, killed_between: bool = False) -> int:
        number, offset = find_cut(self.index, self.end, self.count, keep_bytes)
        punch(self.index, number * RECORD.size)
        if not killed_between:
            punch(self.log, offset)
        return offset

    def reader(self) -> LogReader:
        return LogReader(self.log, self.index)

    def close(self) -> None:
        self.log_file.close()
        self.index_file.close()


def in_a_log(check: Callable[[Log], None]) -> None:
    log = Log()
    try:
        check(log)
    finally:
        log.close()


def joined(chunks: list[Chunk]) -> bytes:
    return b"".join(chunk.data for chunk in chunks)


def read_all(reader: LogReader, limit_bytes: int = 65536) -> list[Chunk]:
    chunks: list[Chunk] = []
    while more := reader.read(limit_bytes):
        chunks += more
    return chunks


def by_stream(pairs: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """One entry per byte: what a reader's cuts must not change."""
    return [(stream, bytes([byte])) for stream, data in pairs for byte in data]


@given(chunk_lists, st.integers(1, 90))
def test_reads_what_was_written_at_any_pace(chunks: list[tuple[int, bytes]], limit_bytes: int) -> None:
    def check(log: Log) -> None:
        for stream, data in chunks:
            log.write(stream, data)
        read = read_all(log.reader(), limit_bytes)
        assert by_stream([(chunk.stream, chunk.data) for chunk in read]) == by_stream(chunks)
        assert all(len(chunk.data) <= limit_bytes for chunk in read)

    in_a_log(check)


@given(st.lists(st.tuples(st.integers(0, 1), st.binary(min_size=1, max_size=9), st.integers(0, 3)), max_size=40))
def test_a_killed_writer_loses_and_doubles_nothing(steps: list[tuple[int, bytes, int]]) -> None:
    """Killed before the record, after it, or amid the bytes: what got into the file is read once, as its stream's."""

    def check(log: Log) -> None:
        follower, followed, written = log.reader(), [], []
        for stream, data, killed_after in steps:
            done = log.write(stream, data, killed_after=killed_after)
            written.append((stream, data[:done]))
            followed += read_all(follower)
        late = read_all(log.reader())
        for read in (late, followed):
            assert by_stream([(chunk.stream, chunk.data) for chunk in read]) == by_stream(written)

    in_a_log(check)


@given(chunk_lists, st.integers(0, 400), st.booleans(), st.data())
def test_rotation_takes_the_oldest_and_never_a_byte_of_the_rest(
    chunks: list[tuple[int, bytes]], keep_bytes: int, killed_between: bool, data: st.DataObject
) -> None:
    def check(log: Log) -> None:
        read_before = data.draw(st.integers(0, len(chunks)))
        follower, written, seen = log.reader(), b"", b""
        for place, (stream, piece) in enumerate(chunks):
            log.write(stream, piece)
            written += piece
            if place < read_before:
                seen += joined(read_all(follower))
        if not chunks:
            return
        cut = log.rotate(keep_bytes, killed_between=killed_between)
        kept = written[cut:]
        assert joined(read_all(log.reader())) == kept
        assert joined(read_all(follower)) == written[max(cut, len(seen)) :]
        records = log.count - cut_record(log)
        assert records == 1 or len(kept) + records * RECORD.size <= keep_bytes
        log.begin()
        log.write(0, b"more")
        assert joined(read_all(follower)) == b"more"
        assert joined(read_all(log.reader())) == kept + b"more"

    in_a_log(check)


def cut_record(log: Log) -> int:
    return container_log.first_kept(log.index, 0)


@given(text_lists, st.integers(0, 12), st.integers(0, 60))
def test_tail_is_the_last_lines_in_the_order_of_the_file(
    chunks: list[tuple[int, str]], lines: int, keep_bytes: int
) -> None:
    def check(log: Log) -> None:
        for stream, text in chunks:
            log.write(stream, text.encode())
        cut = log.rotate(keep_bytes + 100) if chunks else 0
        kept = "".join(text for _, text in chunks)[cut:]
        expected = "".join(kept.splitlines(keepends=True)[-lines:]) if lines else ""
        reader = log.reader()
        reader.seek_tail(lines)
        assert joined(read_all(reader)).decode() == expected

    in_a_log(check)


@given(chunk_lists, st.integers(0, 700))
def test_since_is_the_first_chunk_of_that_time_or_later(chunks: list[tuple[int, bytes]], time_ns: int) -> None:
    def check(log: Log) -> None:
        for stream, data in chunks:
            log.write(stream, data)
        reader = log.reader()
        reader.seek_since(time_ns)
        later = [data for place, (_, data) in enumerate(chunks, 1) if place * 10 >= time_ns]
        assert joined(read_all(reader)) == b"".join(later)
        reader.seek_end()
        assert reader.read() == []
        log.write(1, b"new")
        assert [(chunk.stream, chunk.data) for chunk in reader.read()] == [(1, b"new")]

    in_a_log(check)


def test_an_extent_that_grows_is_read_on() -> None:
    def check(log: Log) -> None:
        reader = log.reader()
        os.pwrite(log.index, pack(0, 7, 1), 0)
        assert reader.read() == []
        for piece, at in ((b"ab", 0), (b"cd", 2)):
            os.pwrite(log.log, piece, at)
            assert reader.read() == [Chunk(7, 1, piece)]
        assert reader.read() == []

    in_a_log(check)


@settings(max_examples=20)
@given(st.integers(1, 3 * container_log.BATCH_RECORDS), st.integers(1, 2000))
def test_more_records_than_a_batch(count: int, limit_bytes: int) -> None:
    def check(log: Log) -> None:
        for number in range(count):
            log.write(number & 1, b"%d\n" % number)
        assert joined(read_all(log.reader(), limit_bytes)) == b"".join(b"%d\n" % number for number in range(count))
        log.rotate(RECORD.size)
        assert joined(read_all(log.reader())) == b"%d\n" % (count - 1)

    in_a_log(check)


def test_records_far_beyond_the_sampled_size_are_not_skipped(monkeypatch) -> None:
    """The writer goes on between the reader's look at the log's size and its look at the index."""

    def check(log: Log) -> None:
        log.write(0, b"first\n")
        size = log.end
        for number in range(2 * container_log.BATCH_RECORDS):
            log.write(0, b"%d\n" % number)
        reader, real = log.reader(), os.fstat

        def early(fd: int) -> os.stat_result:
            fields = list(real(fd))
            if fd == log.log:
                fields[6] = size
            return os.stat_result(fields)

        monkeypatch.setattr(os, "fstat", early)
        assert joined(read_all(reader)) == b"first\n"
        monkeypatch.undo()
        assert joined(read_all(reader)).count(b"\n") == 2 * container_log.BATCH_RECORDS

    in_a_log(check)


def test_needs_next_to_nothing() -> None:
    """The supervisor imports it without site-packages and pays for what it brings."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import sdn.service.container_log, sdn.service.framing;"
        "print(*sorted(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True).stdout
    heavy = {"typing", "dataclasses", "asyncio", "logging", "msgspec", "enum", "re", "json", "socket"}
    assert not heavy & set(output.split())
    assert {name for name in output.split() if name.startswith("sdn")} == {
        "sdn",
        "sdn.service",
        "sdn.service.container_log",
        "sdn.service.framing",
    }
