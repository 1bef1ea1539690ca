"""Layers as trees: the same as another tool unpacks them, hidden what the layer hides, and nothing outside touched."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.image import unpack
from runtime.image.store import ImageStore
from sdn.model.errors import HawseError, Kind
from tests.runtime.image_samples import TIME_S, directory, docker_archive, entry, layer, oci_files, write_files
from tests.runtime.image_stores import assert_empty, facts, load, load_layers, merged

pytestmark = pytest.mark.root

NET_BIND = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""A file capability, as the kernel keeps it (struct vfs_cap_data, revision 2)."""


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE, **fields):
    return entry(name, kind, link=to, **fields)


def rich_layers() -> list[bytes]:
    """Every feature that an honest image has."""
    long = "/".join(["a-rather-long-directory-name"] * 8)
    directories = [directory(f"deep/{'/'.join(long.split('/')[: n + 1])}") for n in range(8)]
    lowest = layer(
        directory("./"),
        directory("bin", uid=3, gid=4),
        entry("bin/tool", content=b"#!" * 5000, mode=0o4755),
        link("bin/same", "bin/tool", tarfile.LNKTYPE),
        entry("bin/group", content=b"x", mode=0o2711, uid=1000, gid=50),
        entry("bin/net", content=b"y", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": text(NET_BIND)}),
        directory("tmp", mode=0o1777),
        entry("tmp/empty"),
        entry("tmp/note", content=b"n", pax_headers={"SCHILY.xattr.user.note": "a note", "mtime": "1600000000.25"}),
        link("lib", "usr/lib"),
        directory("usr"),
        directory("usr/lib", mode=0o2775, gid=7, mtime=TIME_S - 9),
        entry("usr/lib/so", content=os.urandom(70_000)),
        directory("gone"),
        entry("gone/a", content=b"a"),
        directory("kept"),
        entry("kept/hidden", content=b"h"),
        entry("kept/seen", content=b"s"),
        directory("dev"),
        entry("dev/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3),
        entry("dev/disk", tarfile.BLKTYPE, mode=0o660, gid=6, devmajor=7, devminor=300),
        entry("dev/fifo", tarfile.FIFOTYPE, mode=0o600),
        directory("deep"),
        *directories,
        entry(f"deep/{long}/ü-file", content=b"deep"),
        directory("replaced"),
        entry("replaced/x", content=b"x"),
        entry("becomes-a-directory", content=b"1"),
    )
    middle = layer(
        entry(".wh.gone"),
        directory("kept"),
        entry("kept/.wh.hidden"),
        directory("replaced"),
        entry("replaced/.wh..wh..opq"),
        entry("replaced/y", content=b"y"),
        directory("becomes-a-directory", mode=0o700),
        entry("becomes-a-directory/z", content=b"z"),
        entry("usr/lib/implied", content=b"the directories above are those of the layer below"),
        entry("bin/tool", content=b"new", mode=0o755),
    )
    top = layer(directory("gone", mode=0o750), entry("gone/b", content=b"b"), link("kept/link", "/etc/passwd"))
    return [lowest, middle, top]


def text(data: bytes) -> str:
    """Bytes in a PAX header as tarfile takes them."""
    return data.decode("utf-8", "surrogateescape")


def without_times(found: dict[str, Any], *paths: str) -> dict[str, Any]:
    return {
        path: {key: value for key, value in fact.items() if key != "mtime_ns" or path not in paths}
        for path, fact in found.items()
    }


def test_unpacks_as_umoci_does(store, tmp_path):
    layout = write_files(oci_files(rich_layers(), names=["it"]), tmp_path / "layout")
    subprocess.run(
        ["umoci", "unpack", "--image", f"{layout}:it", str(tmp_path / "bundle")], check=True, capture_output=True
    )
    theirs = facts(tmp_path / "bundle" / "rootfs")
    load(store, layout, name="it")
    ours = merged(list(store.resolve("it").layers), tmp_path)
    assert len(theirs) > 35
    # umoci leaves the time of its own last change where it removed or added something below
    touched = (".", "bin", "usr/lib", "kept", "replaced", "gone")
    assert without_times(ours, *touched) == without_times(theirs, *touched)


def test_times_of_directories_are_those_of_the_archive_or_of_the_layer_below(store, tmp_path):
    found = merged(load_layers(store, *rich_layers()), tmp_path)
    assert {path: found[path]["mtime_ns"] for path in ("usr/lib", "kept", "gone")} == {
        "usr/lib": (TIME_S - 9) * 10**9, "kept": TIME_S * 10**9, "gone": TIME_S * 10**9,
    }  # fmt: skip
    assert found["tmp/note"]["mtime_ns"] == 1_600_000_000_250_000_000


def test_what_a_layer_implies_is_as_it_was_below(store, tmp_path):
    below = layer(
        directory("home", mode=0o711, uid=5, gid=6),
        directory("home/a", mode=0o700, uid=8, gid=9, pax_headers={"SCHILY.xattr.user.of": "a"}),
        entry("file", content=b"f"),
    )
    above = layer(entry("home/a/b", content=b"b"), entry("new/c", content=b"c"), entry("file/d", content=b"d"))
    found = merged(load_layers(store, below, above), tmp_path)
    assert (found["home"]["mode"], found["home"]["owner"]) == ("0o40711", [5, 6])
    assert (found["home/a"]["mode"], found["home/a"]["owner"]) == ("0o40700", [8, 9])
    assert found["home/a"]["attributes"] == {"user.of": b"a".hex()}
    assert (found["new"]["mode"], found["new"]["owner"], found["new"]["mtime_ns"]) == ("0o40755", [0, 0], 0)
    assert found["file"]["mode"] == "0o40755"


def seen(store: ImageStore, tmp_path: Path, *layers: bytes) -> set[str]:
    return set(merged(load_layers(store, *layers), tmp_path)) - {"."}


BELOW = layer(directory("a"), entry("a/old", content=b"1"), entry("b", content=b"2"), directory("c"), entry("c/d"))


@pytest.mark.parametrize(
    ("above", "expected"),
    [
        ([entry(".wh.a"), entry(".wh.b")], {"c", "c/d"}),
        ([entry(".wh.a"), directory("a"), entry("a/new")], {"a", "a/new", "b", "c", "c/d"}),
        ([directory("a"), entry("a/new"), entry(".wh.a")], {"a", "a/new", "b", "c", "c/d"}),
        ([entry(".wh.a"), entry("a/new")], {"a", "a/new", "b", "c", "c/d"}),
        ([entry("b", content=b"mine"), entry(".wh.b")], {"a", "a/old", "b", "c", "c/d"}),
        ([entry(".wh.b"), entry("b", content=b"mine")], {"a", "a/old", "b", "c", "c/d"}),
        ([entry("a/.wh..wh..opq"), entry("a/new")], {"a", "a/new", "b", "c", "c/d"}),
        ([directory("a"), entry("a/new"), entry("a/.wh..wh..opq")], {"a", "a/new", "b", "c", "c/d"}),
        ([entry(".wh..wh..opq"), directory("a"), entry("a/new")], {"a", "a/new"}),
        ([entry(".wh..wh.plnk", content=b"x" * 600), entry(".wh..wh.aufs")], {"a", "a/old", "b", "c", "c/d"}),
        ([entry("c/.wh.d"), entry(".wh.nothing")], {"a", "a/old", "b", "c"}),
        ([entry("x/y/.wh.z")], {"a", "a/old", "b", "c", "c/d", "x", "x/y"}),
    ],
)
def test_whiteouts(above, expected, store, tmp_path):
    assert seen(store, tmp_path, BELOW, layer(*above)) == expected


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([entry("x", content=b"1"), entry("x", content=b"2")], {"x": b"2"}),
        ([directory("x"), entry("x/y", content=b"1"), entry("x", content=b"2")], {"x": b"2"}),
        ([directory("x"), entry("x/y", content=b"1"), link("x", "z"), directory("z")], {"x": "z", "z": None}),
        (
            [directory("z"), link("x", "z"), directory("x"), entry("x/y", content=b"1")],
            {"z": None, "x": None, "x/y": b"1"},
        ),
        ([directory("z"), link("x", "z"), entry("x/y", content=b"1")], {"z": None, "x": "z", "z/y": b"1"}),
        ([link("x", "usr/x"), entry("x/y", content=b"1")], {"x": "usr/x", "usr": None, "usr/x": None, "usr/x/y": b"1"}),
        ([entry("x", content=b"1"), link("y", "x", tarfile.LNKTYPE), entry("x", content=b"2")], {"x": b"2", "y": b"1"}),
        ([entry("x", content=b"1"), entry("x", tarfile.FIFOTYPE), entry("x", content=b"3")], {"x": b"3"}),
        (
            [entry("/etc/x", content=b"1"), entry("./y//z", content=b"2")],
            {"etc": None, "etc/x": b"1", "y": None, "y/z": b"2"},
        ),
    ],
)  # fmt: skip
def test_later_entries_take_the_place_of_earlier_ones(entries, expected, store):
    (tree,) = load_layers(store, layer(*entries))
    found = {}
    for path in facts(tree):
        if path != ".":
            full = tree / path
            is_link = full.is_symlink()
            found[path] = os.readlink(full) if is_link else None if full.is_dir() else full.read_bytes()
    assert found == expected


# --- what an archive must not do ---


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Files beside the store, which stay as they are."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    os.chmod(victim, 0o600)
    before = os.lstat(victim)
    yield victim
    after = os.lstat(victim)
    assert victim.read_bytes() == b"untouched"
    same = ("st_mode", "st_uid", "st_nlink", "st_mtime_ns", "st_ctime_ns", "st_ino")
    assert [getattr(before, name) for name in same] == [getattr(after, name) for name in same]


UP = "../" * 12


def refused(victim: Path) -> dict[str, list[Any]]:
    path = str(victim).lstrip("/")
    return {
        "a path that leads up": [entry(f"{UP}{path}", content=b"evil")],
        "a path that leads up in its middle": [directory("a"), entry(f"a/../{UP}{path}", content=b"evil")],
        "a hard link that leads up": [link("x", f"{UP}{path}", tarfile.LNKTYPE)],
        "a hard link to an absolute path": [link("x", f"/{path}", tarfile.LNKTYPE)],
        "a hard link through a link": [link("up", "/" + UP), link("x", f"up/{path}", tarfile.LNKTYPE)],
        "a hard link to itself": [entry("x"), link("x", "x", tarfile.LNKTYPE)],
        "a hard link to a directory": [directory("d"), link("x", "d", tarfile.LNKTYPE)],
        "a hard link to the root": [link("x", ".", tarfile.LNKTYPE)],
        "a root that is a link": [link("./", str(victim.parent))],
        "a root that is a file": [entry(".", content=b"evil")],
        "a file as a directory": [entry("x"), entry("x/y")],
        "links in a circle": [link("a", "b"), link("b", "a"), entry("a/x", content=b"evil")],
        "a link to nothing": [link("x", "")],
        "a whiteout of no name": [entry("a/.wh.")],
        "a whiteout of the directory": [entry("a/.wh..")],
        "a whiteout of the one above": [entry("a/.wh...")],
        "a name that is too long": [entry("x" * 300)],
        "a path that is too long": [entry("x/" * 3000 + "y")],
        "an impossible owner": [entry("x", uid=2**32 - 1, pax_headers={"uid": str(2**32 - 1)})],
        "an unknown kind": [entry("x", b"Z")],
        "an attribute that is too large": [entry("x", pax_headers={"SCHILY.xattr.user.a": "x" * 70_000})],
        "a capability that is none": [entry("x", pax_headers={"SCHILY.xattr.security.capability": "junk"})],
    }


@pytest.mark.parametrize("what", refused(Path("/victim")))
def test_is_refused_with_a_sentence_and_leaves_nothing(what, store, outside):
    with pytest.raises(HawseError) as caught:
        load(store, docker_archive([layer(*refused(outside)[what])]))
    assert caught.value.kind is Kind.INVALID
    assert "cannot be unpacked" in caught.value.message
    assert_empty(store)


def harmless(victim: Path) -> dict[str, list[Any]]:
    path = str(victim).lstrip("/")
    return {
        "an absolute path": [entry(f"/{path}", content=b"evil")],
        "a link that leads up": [link("up", UP), entry(f"up/{path}", content=b"evil")],
        "a link that is absolute": [link("root", "/"), entry(f"root/{path}", content=b"evil")],
        "a link in the place of a directory": [
            directory("d"), entry("d/x"), link("d", str(victim.parent)), entry(f"d/{victim.name}", content=b"evil"),
        ],
        "a link that is written through": [link("x", str(victim)), entry("x", content=b"evil")],
        "a directory entry over a link": [link("d", str(victim.parent)), directory("d", mode=0o777, uid=1)],
        "a whiteout through a link": [link("up", str(victim.parent)), entry(f"up/.wh.{victim.name}")],
        "an opaque mark through a link": [link("up", str(victim.parent)), entry("up/.wh..wh..opq")],
        "a device through a link": [
            link("up", str(victim.parent)), entry(f"up/{victim.name}", tarfile.BLKTYPE, devmajor=8, devminor=0),
        ],
        "attributes of a link": [link("x", str(victim), uid=5, pax_headers={"SCHILY.xattr.user.a": "b"})],
    }  # fmt: skip


@pytest.mark.parametrize("what", harmless(Path("/victim")))
def test_stays_inside(what, store, outside):
    above = set(os.listdir(outside.parent))
    load_layers(store, layer(*harmless(outside)[what]))
    assert set(os.listdir(outside.parent)) == above


@pytest.mark.parametrize(
    "name",
    ["trusted.overlay.redirect", "trusted.overlay.opaque", "trusted.overlay.metacopy", "user.overlay.opaque",
     "security.selinux", "system.posix_acl_access"],
)  # fmt: skip
def test_attributes_that_steer_the_host_are_left_out(name, store, tmp_path):
    attributes = {f"SCHILY.xattr.{name}": "/../secret", "SCHILY.xattr.user.kept": "1"}
    (tree,) = load_layers(store, layer(directory("d", pax_headers=attributes), entry("d/f", pax_headers=attributes)))
    for path in (tree / "d", tree / "d/f"):
        assert os.listxattr(path) == ["user.kept"]


def test_devices_are_made_where_nobody_but_root_comes(store):
    disk = entry("disk", tarfile.BLKTYPE, mode=0o666, devmajor=7, devminor=0)
    (tree,) = load_layers(store, layer(disk, entry("su", content=b"x", mode=0o6755)))
    assert stat.S_ISBLK(os.lstat(tree / "disk").st_mode)
    assert os.lstat(tree / "su").st_mode & 0o7777 == 0o6755
    assert os.stat(store.directory / "layers").st_mode & 0o077 == 0


def test_an_image_cannot_have_its_own_python_run(store, tmp_path):
    """The worker imports nothing while its root is the image's: it would find the image's modules."""
    evil = b"open('/owned', 'w')"
    roots = {str(Path(module.__file__ or "").parent).lstrip("/") for module in (os, pytest, unpack)}
    modules = ["zstandard/__init__.py", "encodings/idna.py", "stringprep.py", "traceback.py", "linecache.py"]
    entries = [entry(f"{root}/{name}", content=evil) for root in sorted(roots) for name in modules]
    trees = load_layers(store, layer(*entries, entry("x", uid=5, pax_headers={"SCHILY.xattr.user.ü": "ü"})))
    assert not (trees[0] / "owned").exists()


def test_an_archive_of_too_many_entries_is_refused(store, monkeypatch, tmp_path):
    monkeypatch.setattr(unpack, "ENTRIES_MAX", 100)
    from runtime.image.stream import Stream

    data = [layer(*(entry(f"f{number}") for number in range(200)))]
    tree = tmp_path / "tree"
    tree.mkdir()
    with pytest.raises(HawseError, match="more than 100 entries"):
        unpack.unpack(Stream(lambda: data.pop() if data else b"", "it"), tree, None, "it")
    assert len(os.listdir(tree)) == 100


def test_a_tree_deeper_than_python_recurses_is_made_and_removed(store):
    deep = "/".join("d" * 1500)
    load_layers(store, layer(entry(f"{deep}/file", content=b"x"), entry("d", content=b"instead")))
    assert store.remove("test:1")["removed"][0] == "test:1"
    store.sweep()
    assert_empty(store)
