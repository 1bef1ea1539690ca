"""Exact counts out of any chunks, and decompression that is bounded and notices damage."""

from __future__ import annotations

import gzip
import io
import os
import threading

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.image.configuration import parse_configuration
from runtime.image.stream import CHUNK_BYTES, Ahead, Extent, Hashing, Pipe, Stream, inflated
from sdn.model.errors import HawseError, Kind
from tests.runtime.image_samples import configuration, digest

DATA = os.urandom(300_000) + bytes(3 << 20)


def whole(data: bytes, step: int = 100_000) -> bytes:
    source = io.BytesIO(data)
    read = inflated(source.read(10), lambda count: source.read(min(count, step)), "it")
    parts = []
    while part := read(CHUNK_BYTES):
        assert len(part) <= CHUNK_BYTES
        parts.append(part)
    return b"".join(parts)


def test_inflates_what_is_compressed_and_passes_on_what_is_not():
    members = gzip.compress(DATA[:1000]) + gzip.compress(DATA[1000:])
    frames = zstandard.ZstdCompressor().compress(DATA[:1000]) + zstandard.ZstdCompressor().compress(DATA[1000:])
    for data in (DATA, members, members + bytes(5000), frames):
        for step in (999, 1 << 20):
            assert whole(data, step) == DATA
    assert whole(b"") == whole(gzip.compress(b"")) == b""


@pytest.mark.parametrize(
    "data",
    [gzip.compress(DATA)[:1000], gzip.compress(DATA)[:-9] + b"x" * 9, gzip.compress(DATA) + b"junk",
     b"\x28\xb5\x2f\xfd" + b"junk" * 9, b"BZh91AY", b"\xfd7zXZ\x00"],
)  # fmt: skip
def test_damage_is_told(data):
    with pytest.raises(HawseError) as caught:
        whole(data)
    assert caught.value.kind is Kind.INVALID


@settings(deadline=None, max_examples=60)
@given(
    data=st.binary(max_size=3000),
    step=st.integers(1, 700),
    asked=st.lists(st.tuples(st.sampled_from("tpks"), st.integers(0, 900)), max_size=20),
)
def test_exact_counts_of_any_chunks(data, step, asked):
    source = io.BytesIO(data)
    stream = Stream(lambda: source.read(step), "it")
    at = 0
    for what, count in asked:
        expected = data[at : at + count]
        if what == "k":
            assert stream.peek(count) == expected
            continue
        if len(expected) < count and what != "s":
            break
        if what == "t":
            assert stream.take(count) == expected
        elif what == "p":
            assert b"".join(bytes(piece) for piece in stream.pieces(count)) == expected
        else:
            assert stream.take_some(count) == expected
        at += len(expected)
    assert b"".join(bytes(piece) for piece in stream.rest()) == data[at:]
    with pytest.raises(HawseError, match="ends too early"):
        stream.take(1)
    with pytest.raises(HawseError, match="ends too early"):
        list(stream.pieces(1))


def test_reading_ahead_gives_all_raises_what_was_raised_and_ends():
    before = threading.active_count()
    source = io.BytesIO(DATA)
    ahead = Ahead(source.read)
    assert b"".join(iter(ahead.chunk, b"")) == DATA
    assert ahead.chunk() == b""
    ahead.close()

    def fail(_: int) -> bytes:
        raise OSError("the disk is gone")

    ahead = Ahead(fail)
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"):
            ahead.chunk()
    ahead.close()
    ahead = Ahead(lambda _: b"for ever")
    assert ahead.chunk() == b"for ever"
    ahead.close()
    assert threading.active_count() == before


def test_a_pipe_is_left_when_nobody_wants_what_it_brings():
    reader, writer = os.pipe()
    watched, watch = os.pipe()
    try:
        os.write(writer, b"some")
        pipe = Pipe(reader, watch)
        assert pipe.read(100) == b"some"
        os.close(watched)
        with pytest.raises(BrokenPipeError):
            pipe.read(100)
    finally:
        for fd in (reader, writer, watch):
            os.close(fd)


def test_a_part_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        extent = Extent(fd, 2, 5)
        assert (extent.read(3), extent.read(3), extent.read(3)) == (b"234", b"56", b"")
        extent = Extent(fd, 0, 5)
        extent.skip(9)
        assert extent.read(3) == b""
    finally:
        os.close(fd)


def test_hashing():
    hashing = Hashing(io.BytesIO(DATA).read)
    while hashing.read(70_000):
        pass
    assert (hashing.count, hashing.digest) == (len(DATA), digest(DATA))


# --- configurations ---


def test_chain_ids_are_those_of_the_specification():
    parsed = parse_configuration(configuration([b"a", b"b", b"c"]))
    first = digest(b"a")
    second = digest(f"{first} {digest(b'b')}".encode())
    assert parsed.chain_ids == (first, second, digest(f"{second} {digest(b'c')}".encode()))
    assert parse_configuration(configuration([])).chain_ids == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"config": {"Cmd": "sh"}}, "config.Cmd is no list"),
        ({"config": {"Env": [1]}}, "config.Env is no list"),
        ({"config": {"User": 7}}, "config.User is no text"),
        ({"config": {"Volumes": ["/x"]}}, "config.Volumes is no object"),
        ({"config": []}, None),
        ({"config": "x"}, "config is no object"),
        ({"rootfs": None}, "no list of sha256"),
        ({"rootfs": {"diff_ids": [1]}}, "no list of sha256"),
    ],
)
def test_configurations_that_are_odd(changes, says):
    if says is None:
        assert parse_configuration(configuration([], **changes)).config == {}
        return
    with pytest.raises(HawseError, match=says) as caught:
        parse_configuration(configuration([], **changes))
    assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize("created", [None, "yesterday", 5, "9999999-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"])
def test_a_time_that_is_none(created):
    assert parse_configuration(configuration([], created=created)).created_s <= 0.0
