"""Copying between descriptors, and what a log looks like on its way to people."""

from __future__ import annotations

import json
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn.cli import attached
from sdn.cli.attached import (
    CopiedInput,
    Copying,
    Detached,
    FollowedLog,
    HungUp,
    PipeOutput,
    merge,
    write_all,
    write_chunks,
)
from sdn.cli.container_logs import JsonLines, Stamper
from sdn.cli.container_usage import Sample, used
from sdn.service.container_log import STDERR, STDOUT, Chunk, LogReader, pack


class Pipes:
    """Pipes that are closed at the end."""

    def __init__(self) -> None:
        self.open: set[int] = set()

    def __call__(self) -> tuple[int, int]:
        made = os.pipe()
        self.open |= set(made)
        return made

    def close(self, descriptor: int) -> None:
        self.open.discard(descriptor)
        os.close(descriptor)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes()
    yield made
    for descriptor in made.open:
        os.close(descriptor)


def test_neighbours_of_one_stream_are_one_write():
    chunks = [Chunk(1, 0, b"a"), Chunk(2, 0, b"b"), Chunk(3, 1, b"c"), Chunk(4, 0, b"d")]
    assert merge(chunks) == [(0, b"ab"), (1, b"c"), (0, b"d")]
    assert merge([]) == []


# --- input ---


def test_input_goes_through_and_ends(pipes):
    (source, typing), (reading, target) = pipes(), pipes()
    copying = Copying()
    pipes.open.discard(target)  # the copying closes it
    CopiedInput(copying, source, target)
    os.write(typing, b"one")
    copying.turn()
    assert os.read(reading, 100) == b"one"
    pipes.close(typing)
    copying.turn()
    assert os.read(reading, 100) == b""


def test_a_container_that_does_not_read_gets_it_all_later_and_holds_nobody_up(pipes):
    (source, typing), (reading, target) = pipes(), pipes()
    pipes.open.discard(target)
    copying = Copying()
    CopiedInput(copying, source, target)
    sent = os.urandom(300_000)
    ready, making_ready = pipes()
    os.write(making_ready, b"!")
    others: list[int] = []
    copying.watch(ready, lambda: others.append(1))

    def type_all() -> None:
        write_all(typing, sent)
        pipes.close(typing)

    thread = threading.Thread(target=type_all)
    thread.start()
    for _ in range(10):
        copying.turn()  # nobody reads
    assert len(others) == 10
    got = b""
    while len(got) < len(sent):
        copying.turn()
        while select.select([reading], [], [], 0)[0] and (part := os.read(reading, 65536)):
            got += part
    thread.join()
    assert got == sent


def test_input_that_nobody_reads_any_more_is_let_go(pipes):
    (source, typing), (reading, target) = pipes(), pipes()
    pipes.open.discard(target)
    pipes.close(reading)
    copying = Copying()
    CopiedInput(copying, source, target)
    os.write(typing, b"x")
    copying.turn()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(target)


def test_the_detach_keys_leave_and_what_came_before_them_is_passed_on(pipes):
    (source, typing), (reading, target) = pipes(), pipes()
    copying = Copying()
    CopiedInput(copying, source, target, b"\x10\x11", tty=True)
    os.write(typing, b"ls\x10")
    copying.turn()
    assert os.read(reading, 100) == b"ls"
    os.write(typing, b"\x11rest")
    with pytest.raises(Detached):
        copying.turn()
    assert not select.select([reading], [], [], 0)[0]


def test_a_terminal_that_ends_is_a_hang_up(pipes):
    (source, typing), (_, target) = pipes(), pipes()
    copying = Copying()
    CopiedInput(copying, source, target, b"", tty=True)
    pipes.close(typing)
    with pytest.raises(HungUp):
        copying.turn()


# --- output ---


class Log:
    """A container's log, and the bell that is rung for it."""

    def __init__(self, directory: Path) -> None:
        self.log = os.open(directory / "log", os.O_RDWR | os.O_CREAT)
        self.index = os.open(directory / "index", os.O_RDWR | os.O_CREAT)
        self.bell, self.ringing = os.pipe()

    def say(self, data: bytes, stream: int = STDOUT) -> None:
        end = os.fstat(self.log).st_size
        os.pwrite(self.index, pack(end, 1, stream), os.fstat(self.index).st_size)
        os.pwrite(self.log, data, end)
        os.write(self.ringing, b"!")

    def close(self) -> None:
        for descriptor in (self.log, self.index, self.bell):
            os.close(descriptor)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.close()


def test_a_log_is_followed_until_the_bell_is_let_go(log):
    copying = Copying()
    written: list[Chunk] = []
    log.say(b"before\n")
    followed = FollowedLog(copying, LogReader(log.log, log.index), log.bell, written.extend)
    copying.turn()
    followed.copy()
    assert [chunk.data for chunk in written] == [b"before\n"]
    log.say(b"bad\n", STDERR)
    log.say(b"last\n")
    os.close(log.ringing)
    while not followed.ended:
        copying.turn()
        followed.copy()
    assert [(chunk.stream, chunk.data) for chunk in written] == [(0, b"before\n"), (1, b"bad\n"), (0, b"last\n")]


def test_a_pipe_that_a_grandchild_keeps_open_is_drained_and_left(pipes, monkeypatch):
    source, writing = pipes()
    written: list[bytes] = []
    monkeypatch.setattr(attached, "write_stream", lambda stream, data: written.append(data))
    output = PipeOutput(Copying(), source, 0)
    os.write(writing, b"x" * 10)
    output.drain()
    assert (b"".join(written), output.ended) == (b"x" * 10, False)
    pipes.close(writing)
    output.drain()
    assert output.ended


def test_output_that_somebody_made_non_blocking_is_written_all_the_same(pipes):
    reading, writing = pipes()
    os.set_blocking(writing, False)
    got: list[bytes] = []

    def read() -> None:
        while part := os.read(reading, 65536):
            got.append(part)

    thread = threading.Thread(target=read)
    thread.start()
    write_all(writing, b"y" * 1_000_000)
    pipes.close(writing)
    thread.join()
    assert b"".join(got) == b"y" * 1_000_000


def test_bytes_reach_both_streams_as_they_are(capfdbinary):
    write_chunks([Chunk(1, STDOUT, b"\xff\x00"), Chunk(2, STDERR, b"\xfe"), Chunk(3, STDOUT, b"\x1b[2J")])
    assert capfdbinary.readouterr() == (b"\xff\x00\x1b[2J", b"\xfe")


# --- what people see of a log ---


def test_each_line_begins_with_the_time_of_its_first_byte():
    stamper = Stamper()
    chunks = [
        Chunk(1_500_000_000, STDOUT, b"one\ntw"),
        Chunk(2_000_000_001, STDERR, b"bad\n"),
        Chunk(3_000_000_000, STDOUT, b"o\n\nthree"),
        Chunk(4_000_000_000, STDOUT, b"\n"),
    ]
    assert b"".join(stamper.stamped(chunk) for chunk in chunks).decode().splitlines() == [
        "1970-01-01T00:00:01.500000000Z one",
        "1970-01-01T00:00:01.500000000Z tw1970-01-01T00:00:02.000000001Z bad",  # on a terminal, both streams
        "o",
        "1970-01-01T00:00:03.000000000Z ",
        "1970-01-01T00:00:03.000000000Z three",
    ]


@given(text=st.binary(max_size=40).map(lambda data: data.replace(b"x", b"\n")), cuts=st.lists(st.integers(1, 40)))
def test_stamps_are_one_for_each_line_however_it_was_cut(text, cuts):
    stamper, pieces, begin = Stamper(), [], 0
    for cut in [*sorted(cuts), len(text)]:
        if cut > begin:
            pieces.append(text[begin:cut])
            begin = cut
    stamped = b"".join(stamper.stamped(Chunk(0, STDOUT, piece)) for piece in pieces)
    stamp = b"1970-01-01T00:00:00.000000000Z "
    lines = text.split(b"\n")
    expected = b"\n".join(stamp + line for line in lines[:-1]) + (b"\n" if lines[:-1] else b"")
    assert stamped == expected + (stamp + lines[-1] if lines[-1] else b"")


def test_a_log_for_programs(capfdbinary):
    JsonLines().write([Chunk(5, STDERR, b"\xff\n"), Chunk(6, STDOUT, "ä".encode())])
    lines = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert lines == [
        {"time_ns": 5, "stream": "stderr", "text": "\\xff\n"},
        {"time_ns": 6, "stream": "stdout", "text": "ä"},
    ]


# --- usage ---


def test_cpu_is_of_the_time_between_two_samples():
    before: Sample = (10.0, {"a": {"id": "a", "cpu_ns": 1_000_000_000}, "c": {"id": "c", "cpu_ns": 9}})
    now: Sample = (12.0, {"a": {"id": "a", "cpu_ns": 4_000_000_000}, "b": {"id": "b", "cpu_ns": 5}, "c": {"id": "c"}})
    assert [(item["id"], item["cpu_percent"]) for item in used(before, now)] == [("a", 150.0), ("b", None), ("c", None)]
