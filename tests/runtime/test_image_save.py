"""What is saved is what was loaded, to the byte, and what other tools take."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from runtime.image import verbs
from runtime.image.store import ImageStore
from sdn.model.errors import HawseError, Kind
from sdn.model.runtime import ImageSaveRequest
from tests.runtime.image_samples import digest, directory, docker_archive, entry, layer
from tests.runtime.image_stores import last, load, save
from tests.runtime.test_image_unpack import rich_layers

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind, link=to)


def sparse(tmp_path: Path, version: str) -> bytes:
    with open(tmp_path / "holes", "wb") as file:
        for at in range(0, 8 << 20, 1 << 20):
            file.seek(at)
            file.write(b"x" * 9000)
    how = ["--format=gnu"] if version == "gnu" else ["--format=pax", f"--sparse-version={version}"]
    command = ["tar", "-c", "--sparse", *how, "-C", str(tmp_path), "holes"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def odd_layers(tmp_path: Path) -> dict[str, bytes]:
    """What a second archive of the same tree would not be like."""
    data = layer(directory("d"), entry("d/f", content=b"f" * 700))
    return {
        "padding that is not zero": data.replace(b"f" * 700 + bytes(68), b"f" * 700 + b"p" * 68),
        "no end mark": data[:-9728],
        "more behind the end": data + b"trailing" * 5000,
        "the same name twice": layer(entry("x", content=b"1" * 900), entry("x", content=b"2" * 900)),
        "a name that was two files": layer(
            entry("x", content=b"1" * 900), link("y", "x", tarfile.LNKTYPE), entry("x", content=b"2"), entry("y"),
        ),
        "a directory in a file's place": layer(
            entry("x", content=b"1" * 900), directory("x"), entry("x/y", content=b"2"),
        ),
        "a file in a directory's place": layer(
            directory("x/y"), entry("x/y/z", content=b"1" * 900), entry("x/w", content=b"3"), entry("x", content=b"2"),
        ),
        "content in what is no file": layer(
            entry(".wh.gone", content=b"c" * 600), entry(".wh..wh.aufs", content=b"d" * 600),
        ),
        "files through a link": layer(directory("real"), link("way", "real"), entry("way/f", content=b"f" * 600)),
        "holes, GNU": sparse(tmp_path, "gnu"),
        "holes, PAX 0.1": sparse(tmp_path, "0.1"),
        "holes, PAX 1.0": sparse(tmp_path, "1.0"),
        "GNU's long names": layer(entry("n" * 200, content=b"1"), link("l", "t" * 300), form=tarfile.GNU_FORMAT),
        "nothing": layer(),
        "not even an end": b"",
    }  # fmt: skip


@pytest.mark.parametrize("what", [
    "padding that is not zero", "no end mark", "more behind the end", "the same name twice",
    "a name that was two files", "a directory in a file's place", "a file in a directory's place",
    "content in what is no file", "files through a link", "holes, GNU", "holes, PAX 0.1", "holes, PAX 1.0",
    "GNU's long names", "nothing", "not even an end",
])  # fmt: skip
def test_a_layer_is_saved_to_the_byte(what, store, tmp_path):
    data = odd_layers(tmp_path)[what]
    load(store, docker_archive([data]))
    with tarfile.open(save(store, tmp_path / "saved", "test:1")) as saved:
        file = saved.extractfile(f"blobs/sha256/{digest(data)[7:]}")
        assert file is not None
        assert file.read() == data


def test_saved_and_loaded_it_is_the_same(store, tmp_path):
    (first,) = load(store, docker_archive(rich_layers(), ["web:1", "other:2"]))
    load(store, docker_archive([layer(entry("x"))], ["db:1"]))
    saved = save(store, tmp_path / "saved", "web:1", first.id, "db:1")
    again = ImageStore(tmp_path / "again")
    for source in (saved, saved.read_bytes()):
        assert {info.id: info.names for info in load(again, source)} == {
            first.id: ("other:2", "web:1"), store.find("db:1"): ("db:1",),
        }  # fmt: skip
    assert [layer.parent.name for layer in again.resolve("web:1").layers] == [
        layer.parent.name for layer in store.resolve("web:1").layers
    ]
    assert save(again, tmp_path / "twice", "web:1", first.id, "db:1").read_bytes() == saved.read_bytes()


def test_other_tools_take_what_is_saved(store, tmp_path):
    load(store, docker_archive(rich_layers(), ["web:1"]))
    saved = save(store, tmp_path / "saved", "web:1")
    for source in (f"docker-archive:{saved}", f"docker-archive:{saved}:web:1", f"oci-archive:{saved}:web:1"):
        target = tmp_path / f"layout-{source.partition(':')[0]}"
        command = ["skopeo", "--insecure-policy", "copy", "-q", source, f"oci:{target}:web"]
        subprocess.run(command, check=True, capture_output=True)
        subprocess.run(
            ["umoci", "unpack", "--image", f"{target}:web", str(tmp_path / f"bundle-{len(source)}")],
            check=True, capture_output=True,
        )  # fmt: skip
    command = ["skopeo", "inspect", "--raw", "--config", f"docker-archive:{saved}"]
    said = subprocess.run(command, check=True, capture_output=True)
    assert json.loads(said.stdout)["config"]["Cmd"] == ["/bin/true"]


def test_a_layer_that_was_changed_is_not_saved(store, tmp_path):
    load(store, docker_archive([layer(entry("x", content=b"1" * 5000))]))
    (tree,) = store.resolve("test:1").layers
    (tree / "x").write_bytes(b"2" * 5000)
    with pytest.raises(HawseError, match="no longer as it was loaded") as caught:
        save(store, tmp_path / "saved", "test:1")
    assert caught.value.kind is Kind.INVALID
    (tree / "x").unlink()
    with pytest.raises(HawseError, match="no longer as it was loaded"):
        save(store, tmp_path / "saved", "test:1")
    (tree / "x").symlink_to("/etc/passwd")
    with pytest.raises(HawseError, match="no longer as it was loaded"):
        save(store, tmp_path / "saved", "test:1")


def test_what_cannot_be_saved(store, tmp_path):
    for references, sentence in (((), "no image is named"), (("web",), "no image 'web'"), (("host",), "be saved")):
        with pytest.raises(HawseError, match=sentence):
            save(store, tmp_path / "saved", *references)


async def test_a_reader_that_goes_away_ends_the_worker(store):
    load(store, docker_archive([layer(entry("x", content=os.urandom(1 << 20)))]))
    reader, writer = os.pipe2(os.O_NONBLOCK)
    os.close(reader)
    with pytest.raises(HawseError, match="the worker ended"):
        await last(verbs.save(store, ImageSaveRequest(images=("test:1",)), writer))
    os.close(writer)
    assert os.listdir(store.directory / "tmp") == []


def test_the_small_files_come_first(store, tmp_path):
    load(store, docker_archive([layer(entry("x"))]))
    with tarfile.open(save(store, tmp_path / "saved", "test:1")) as saved:
        names = saved.getnames()
    assert names[:3] == ["oci-layout", "index.json", "manifest.json"]
    assert len(names) == 6
