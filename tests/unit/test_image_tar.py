"""The tar reader against Python's own as the oracle, and against what no archive should be."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.image.stream import Stream
from runtime.image.tar import BLOCK, REGULAR, Entry, TarReader
from sdn.model.errors import HawseError, Kind

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
KINDS = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)


def chunks(data: bytes, size: int) -> Callable[[], bytes]:
    source = io.BytesIO(data)
    return lambda: source.read(size)


def content(reader: TarReader, entry: Entry) -> bytes:
    """A file as it would be on disk."""
    if entry.pieces is None:
        return b"".join(bytes(piece) for piece in reader.payload())
    data = bytearray(entry.size_bytes)
    for offset, size in entry.pieces:
        data[offset : offset + size] = b"".join(bytes(piece) for piece in reader.pieces(size))
    return bytes(data)


def read(data: bytes, chunk: int = 1 << 16) -> list[tuple[Entry, bytes]]:
    reader = TarReader(Stream(chunks(data, chunk), "it"), "it")
    return [(entry, content(reader, entry)) for entry in reader.entries()]


names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=40).filter(
    lambda name: name.strip(".")
)
paths = st.lists(names, min_size=1, max_size=8).map("/".join)


@st.composite
def members(draw: st.DrawFn) -> list[tuple[tarfile.TarInfo, bytes]]:
    found = []
    for _ in range(draw(st.integers(0, 5))):
        info = tarfile.TarInfo(draw(paths))
        info.type = draw(st.sampled_from(KINDS))
        info.mode = draw(st.integers(0, 0o7777))
        info.uid, info.gid = draw(st.integers(0, 2**31)), draw(st.integers(0, 70000))
        info.mtime = draw(st.integers(0, 2**34) | st.decimals(1, 10**9, places=6).map(float))
        if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info.linkname = draw(paths)
        if info.type == tarfile.CHRTYPE:
            info.devmajor, info.devminor = draw(st.integers(0, 4095)), draw(st.integers(0, 2**20))
        data = draw(st.binary(max_size=1500)) if info.type == tarfile.REGTYPE else b""
        info.size = len(data)
        if draw(st.booleans()):
            info.pax_headers = {"SCHILY.xattr.user.note": draw(names)}
        found.append((info, data))
    return found


def written(found: list[tuple[tarfile.TarInfo, bytes]], form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8") as archive:
        for info, data in found:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@settings(deadline=None, max_examples=60)
@given(found=members(), form=st.sampled_from(["gnu", "pax"]), chunk=st.sampled_from([1, 7, 512, 1000, 1 << 20]))
def test_reads_what_tarfile_reads(found, form, chunk):
    data = written(found, FORMS[form])
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as oracle:
        expected = oracle.getmembers()
        mine = read(data, chunk)
        assert len(mine) == len(expected)
        for (entry, held), info in zip(mine, expected, strict=True):
            assert (entry.name.rstrip(b"/").decode(), bytes([entry.kind])) == (info.name, info.type)
            assert (entry.mode, entry.uid, entry.gid) == (info.mode, info.uid, info.gid)
            assert abs(entry.mtime_ns / 1e9 - info.mtime) < 1e-5
            assert entry.link.decode() == info.linkname
            if info.ischr():
                assert (entry.major, entry.minor) == (info.devmajor, info.devminor)
            note = info.pax_headers.get("SCHILY.xattr.user.note")
            assert entry.xattrs == ({} if note is None else {b"user.note": note.encode()})
            if info.isreg():
                file = oracle.extractfile(info)
                assert file is not None
                assert held == file.read()


@settings(deadline=None, max_examples=50)
@given(found=members(), form=st.sampled_from(list(FORMS)[1:]), taken=st.booleans())
def test_what_is_no_payload_is_kept_to_the_byte(found, form, taken):
    data = written(found, FORMS[form])
    stream = Stream(chunks(data, 1000), "it")
    reader = TarReader(stream, "it", keep=True)
    again = bytearray()
    for _ in reader.entries():
        if taken:
            payload = b"".join(bytes(piece) for piece in reader.payload())
            again += reader.literal + payload
            reader.literal.clear()
    again += reader.literal
    for piece in stream.rest():
        again += piece
    assert bytes(again) == data


@settings(deadline=None, max_examples=120)
@given(
    found=members(),
    form=st.sampled_from(["gnu", "pax"]),
    changes=st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 1 << 14),
    mended=st.booleans(),
)
def test_a_damaged_archive_is_read_or_refused_and_nothing_else(found, form, changes, cut, mended):
    data = bytearray(written(found, FORMS[form]))
    for at, value in changes:
        block = at % len(data) // BLOCK * BLOCK
        data[at % len(data)] = value
        if mended:  # the sum is right: what is wrong is inside
            data[block + 148 : block + 156] = b" " * 8
            data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + BLOCK])
    with contextlib.suppress(HawseError):
        read(bytes(data[: max(cut, 1)]))


@pytest.mark.parametrize("version", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_files_of_every_form(version, tmp_path):
    holes = tmp_path / "holes"
    with open(holes, "wb") as file:
        for at in range(0, 40 << 20, 4 << 20):
            file.seek(at)
            file.write(b"x" * 70_000)
        file.truncate(41 << 20)
    (tmp_path / "plain").write_bytes(b"y" * 100)
    (tmp_path / "empty").touch()
    with open(tmp_path / "empty", "r+b") as file:
        file.truncate(1 << 20)
    how = ["--format=gnu"] if version == "gnu" else ["--format=pax", f"--sparse-version={version}"]
    command = ["tar", "-c", "--sparse", *how, "-C", str(tmp_path), "holes", "plain", "empty"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(data) < 3 << 20
    found = {entry.name: (entry, held) for entry, held in read(data)}
    assert set(found) == {b"holes", b"plain", b"empty"}
    for name, (entry, held) in found.items():
        assert entry.kind == REGULAR
        assert held == Path(tmp_path / name.decode()).read_bytes()


def header(name: bytes = b"a", size: bytes = b"00000000000\0", kind: bytes = b"0", mode: bytes = b"0000644\0") -> bytes:
    block = bytearray(BLOCK)
    block[:100] = name.ljust(100, b"\0")
    block[100:108], block[108:116], block[116:124] = mode, b"0000000\0", b"0000000\0"
    block[124:136], block[136:148], block[148:156] = size, b"00000000000\0", b" " * 8
    block[156:157], block[257:265] = kind, b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return b"%d %s=%s\n" % (length, key, value)


def extended(*records: bytes) -> bytes:
    data = b"".join(records)
    return header(b"x", b"%011o\0" % len(data), b"x") + data.ljust(len(data) + -len(data) % BLOCK, b"\0")


REFUSED = {
    "a wrong sum": header()[:-1] + b"x" + bytes(1024),
    "half a header": header() + b"a" * 100,
    "half a payload": header(size=b"00000002000\0") + b"a" * 100,
    "a negative size": header(size=b"\xff" + b"\xff" * 11) + bytes(1024),
    "a size of 2^90": header(size=b"\x84" + b"\xff" * 11) + bytes(1024),
    "a size in letters": header(size=b"0000000 x00\0") + bytes(1024),
    "a mode with a sign": header(mode=b"-000644\0") + bytes(1024),
    "entries after a block of zeros": header() + bytes(BLOCK) + header() + bytes(1024),
    "a header of a gigabyte": header(size=b"10000000000\0", kind=b"x"),
    "a long name of a gigabyte": header(size=b"10000000000\0", kind=b"L"),
    "an end after an extended header": extended(record(b"path", b"b")) + bytes(1024),
    "a record without a length": extended(b"path=b\n") + header() + bytes(1024),
    "a record longer than its header": extended(b"99 path=b\n") + header() + bytes(1024),
    "a record of length 0": extended(b"0 path=b\n") + header() + bytes(1024),
    "a zero byte in a path": extended(record(b"path", b"a\0b")) + header() + bytes(1024),
    "a zero byte in an attribute": extended(record(b"SCHILY.xattr.user.\0", b"")) + header() + bytes(1024),
    "an owner in letters": extended(record(b"uid", b"root")) + header() + bytes(1024),
    "a time in letters": extended(record(b"mtime", b"now")) + header() + bytes(1024),
    "a sparse file without a size": extended(record(b"GNU.sparse.map", b"0,0")) + header() + bytes(1024),
    "a sparse map that is odd": extended(record(b"GNU.sparse.size", b"9"), record(b"GNU.sparse.map", b"1,2,3"))
    + header()
    + bytes(1024),
    "pieces outside of a sparse file": extended(
        record(b"GNU.sparse.size", b"9"), record(b"GNU.sparse.map", b"5,10"), record(b"size", b"10")
    )
    + header()
    + bytes(1024),
    "more pieces than are stored": extended(
        record(b"GNU.sparse.size", b"900"), record(b"GNU.sparse.map", b"5,10"), record(b"size", b"9")
    )
    + header()
    + bytes(1024),
    "an endless sparse map": extended(
        record(b"GNU.sparse.major", b"1"), record(b"GNU.sparse.minor", b"0"), record(b"GNU.sparse.realsize", b"9")
    )
    + header(size=b"00000001000\0")
    + b"1" * 512
    + bytes(1024),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refuses(what):
    with pytest.raises(HawseError) as caught:
        read(REFUSED[what])
    assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize(
    ("field", "size"), [(b"\x80" + b"\0" * 9 + b"\x02\x00", 512), (b" 1000 \0    ", 512), (b"\0" * 12, 0)]
)
def test_numbers_of_every_writer(field, size):
    (entry, held), *_ = read(header(size=field.ljust(12, b"\0")[:12]) + b"z" * size + bytes(1024))
    assert (entry.size_bytes, held) == (size, b"z" * size)


def test_signed_sums_of_old_writers():
    block = bytearray(header("ä".encode()))
    block[148:156] = b" " * 8
    signed = sum(byte - 256 if byte > 127 else byte for byte in block)
    block[148:156] = b"%06o\0 " % signed
    ((entry, _),) = read(bytes(block) + bytes(1024))
    assert entry.name == "ä".encode()


def test_an_archive_may_end_without_its_mark():
    assert [entry.name for entry, _ in read(header(b"a") + header(b"b"))] == [b"a", b"b"]
    assert read(b"") == []


def test_the_last_of_two_records_counts_and_a_global_one_is_the_default():
    data = extended(record(b"path", b"one"), record(b"path", b"two")) + header()
    assert [entry.name for entry, _ in read(data)] == [b"two"]
    wide = extended(record(b"mtime", b"-1.25"))
    data = b"g".join((wide[:156], wide[157:]))
    data = header(b"x", b"%011o\0" % len(record(b"mtime", b"-1.25")), b"g") + wide[BLOCK:] + header() + header(b"b")
    assert [entry.mtime_ns for entry, _ in read(data)] == [-1_250_000_000] * 2
