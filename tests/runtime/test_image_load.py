"""Archives of every form give the same image; what is damaged, foreign, too large or interrupted leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from runtime.image import verbs
from runtime.image.files import staging
from runtime.image.layers import Layers
from runtime.image.store import ImageStore
from sdn.model.container import ImageInfo
from sdn.model.errors import HawseError, Kind
from sdn.model.runtime import (
    ImageImportRequest,
    ImageInspectRequest,
    ImageListRequest,
    ImageLoadRequest,
    ImageRemoveRequest,
    Progress,
)
from tests.runtime.image_samples import (
    archive,
    configuration,
    descriptor,
    digest,
    directory,
    docker_archive,
    entry,
    layer,
    oci_files,
    write_files,
)
from tests.runtime.image_stores import assert_empty, facts, import_tree, last, load, load_layers, workers

pytestmark = pytest.mark.root

EMPTY = layer()
LAYERS = [
    layer(directory("bin"), entry("bin/a", content=b"a" * 3000, mode=0o755)),
    EMPTY,
    layer(entry("bin/b", content=os.urandom(1 << 20))),
    EMPTY,
]
"""Two of them are the same: what `RUN true` makes."""


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def file_of(data: bytes, directory: Path) -> Path:
    (directory / "archive").write_bytes(data)
    return directory / "archive"


def packed(files: dict[str, bytes]) -> bytes:
    return archive(files.items())


FORMS: dict[str, bytes] = {
    "docker": docker_archive(LAYERS),
    "docker, gzip": gzip.compress(docker_archive(LAYERS), 1),
    "docker, zstd": zstandard.ZstdCompressor().compress(docker_archive(LAYERS)),
    "docker, gzip of several members": b"".join(
        gzip.compress(docker_archive(LAYERS)[at : at + 300_000], 1) for at in range(0, 2 << 20, 300_000)
    ),
    "oci, layers gzip": packed(oci_files(LAYERS, "gzip")),
    "oci, layers zstd": packed(oci_files(LAYERS, "zstd")),
    "oci, layers plain": packed(oci_files(LAYERS, "")),
    "oci, an index in the index": packed(oci_files(LAYERS, "gzip", nested=True, names=())),
    "oci, gzip": gzip.compress(packed(oci_files(LAYERS, "zstd")), 1),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("through", ["pipe", "file"])
def test_every_form_gives_the_same_image(form, through, store, tmp_path):
    file = tmp_path / "archive"
    file.write_bytes(FORMS[form])
    (info,) = load(store, FORMS[form] if through == "pipe" else file, name="test:1" if "index" in form else "")
    config = configuration(LAYERS)
    assert info.id == digest(config)
    assert info.names == ("test:1",)
    assert store.catalog.data(info.id) == config
    assert info.config["Env"] == ["A=b"]
    assert info.created_s == pytest.approx(1704164645.12, abs=0.01)
    assert info.layers == tuple(map(digest, LAYERS))
    trees = store.resolve("test:1").layers
    assert len(trees) == 4
    assert (trees[1] / "bin/b").stat().st_size == 1 << 20
    assert (trees[3] / "bin/a").read_bytes() == b"a" * 3000
    assert os.listdir(store.directory / "tmp") == []


@pytest.mark.parametrize("how", ["gzip", "zstd", ""])
def test_a_layouts_directory(how, store, tmp_path):
    layout = write_files(oci_files(LAYERS, how, names=["web:1", "web:latest"]), tmp_path / "layout")
    (info,) = load(store, layout)
    assert info.names == ("web:1", "web:latest")
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    assert store.find(f"web@{manifest}") == store.find("web") == store.find(info.id[7:15]) == info.id


def test_what_is_there_is_not_read_again(store, tmp_path):
    files = oci_files(LAYERS, "gzip")
    layout = write_files(files, tmp_path / "layout")
    load(store, layout)
    for name, data in files.items():
        if len(data) > 500_000:
            (layout / name).unlink()
    (info,) = load(store, layout, name="again")
    assert info.names == ("again:latest", "test:1")


def test_several_images_share_layers_and_a_name_moves_on(store):
    both = layer(entry("x", content=b"x"))
    first, second = [LAYERS[0], both], [LAYERS[0], both, LAYERS[2]]
    load(store, docker_archive(first, ["web:1", "web:latest"]))
    load(store, docker_archive(second, ["web:2", "web:latest"]))
    assert [info.names for info in store.images()[:-1]] in (
        [("web:1",), ("web:2", "web:latest")],
        [("web:2", "web:latest"), ("web:1",)],
    )
    assert len(os.listdir(store.directory / "layers")) == 3
    assert store.remove("web:2")["removed"] == ["web:2"]
    assert store.remove("web:latest")["removed"][0] == "web:latest"
    assert len(os.listdir(store.directory / "layers")) == 2
    store.sweep()
    assert os.listdir(store.directory / "trash") == []
    assert (store.resolve("web:1").layers[0] / "x").read_bytes() == b"x"


def changed(**changes: Any) -> dict[str, bytes]:
    return oci_files(LAYERS[:1], "gzip", **changes)


def with_manifest(change) -> dict[str, bytes]:
    """An OCI layout whose manifest is another one."""
    files = changed()
    index = json.loads(files["index.json"])
    name = f"blobs/sha256/{index['manifests'][0]['digest'][7:]}"
    manifest = json.loads(files.pop(name))
    change(manifest)
    data = json.dumps(manifest).encode()
    files[f"blobs/sha256/{digest(data)[7:]}"] = data
    files["index.json"] = json.dumps(
        {"manifests": [descriptor(data, "application/vnd.oci.image.manifest.v1+json")]}
    ).encode()
    return files


def with_index(*descriptors: Any) -> dict[str, bytes]:
    return {**changed(), "index.json": json.dumps({"manifests": descriptors}).encode()}


def set_layer(**fields: Any):
    return with_manifest(lambda manifest: manifest["layers"][0].update(fields))


def circle() -> dict[str, bytes]:
    """An index that names itself could only be made with a broken hash; one that is nested too deeply can."""
    files = changed()
    value: Any = json.loads(files["index.json"])
    for _ in range(6):
        data = json.dumps(value).encode()
        files[f"blobs/sha256/{digest(data)[7:]}"] = data
        value = {"manifests": [descriptor(data, "application/vnd.oci.image.index.v1+json")]}
    return {**files, "index.json": json.dumps(value).encode()}


FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
ENCRYPTED = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
WHOLE = docker_archive(LAYERS[:1])

REFUSED: dict[str, tuple[bytes | dict[str, bytes], str]] = {
    "nothing": (b"", "neither manifest.json nor index.json"),
    "text": (b"hello\n" * 500, "no proper tar archive"),
    "a root file system": (layer(entry("etc/passwd")), "hawse image import"),
    "xz": (b"\xfd7zXZ\x00" + bytes(600), "compressed by xz"),
    "damaged gzip": (gzip.compress(WHOLE, 1)[:600] + b"junk" * 200, "is damaged"),
    "half of gzip": (gzip.compress(docker_archive(LAYERS), 1)[:500_000], "ends too early"),
    "half of zstd": (zstandard.ZstdCompressor().compress(docker_archive(LAYERS))[:500_000], "ends too early"),
    "half an archive": (docker_archive(LAYERS)[:500_000], "ends "),
    "another machine's": (docker_archive(LAYERS[:1], architecture="s390x"), "for 's390x', this machine is"),
    "another system's": (docker_archive(LAYERS[:1], os="windows"), "for 'windows'"),
    "a layer that is another": (WHOLE.replace(b"a" * 3000, b"b" * 3000), "not what its digest says"),
    "a configuration that is another": (WHOLE.replace(b"/bin/true", b"/bin/evil"), "not what its digest says"),
    "an impossible name": (docker_archive(LAYERS[:1], ["UPPER:1"]), "no name of an image"),
    "the machine's own name": (docker_archive(LAYERS[:1], ["host"]), "this machine's own"),
    "a manifest that is no list": (archive([("manifest.json", b"{}")]), "no list of 1 to"),
    "a manifest that is no JSON": (archive([("manifest.json", b"{")]), "no JSON"),
    "a manifest of deep JSON": (archive([("manifest.json", b"[" * 100_000)]), "no JSON"),
    "a manifest without fields": (archive([("manifest.json", b"[{}]")]), "does not tell"),
    "a manifest of what is not there": (
        archive([("manifest.json", b'[{"Config": "x.json", "Layers": []}]')]), "lacks 'x.json'",
    ),
    "1000 layers": (docker_archive([], rootfs={"diff_ids": [digest(b"")] * 1000}), "1000 layers"),
    "fewer layers than told": (docker_archive([], rootfs={"diff_ids": [digest(b"")]}), "0 layers"),
    "diff ids that are none": (docker_archive([], rootfs={"diff_ids": ["../../x"]}), "no list of sha256 digests"),
    "a link in a circle": (
        archive([("a", "b"), ("b", "a"), ("manifest.json", b'[{"Config": "a", "Layers": []}]')]), "in a circle",
    ),
    "a device in the archive": (layer(entry("x", b"3")), "no plain file"),
    "an index of other machines": (
        with_index(descriptor(b"{}", "application/vnd.oci.image.manifest.v1+json",
                              platform={"os": "linux", "architecture": "s390x"})),
        "the archive holds linux/s390x, this machine is linux/",
    ),
    "an index of nothing": (with_index(), "nothing that runs"),
    "an index nested too deeply": (circle(), "nested too deeply"),
    "an index of unknown things": (with_index(descriptor(b"{}", "application/x-chart")), "no image that is known"),
    "a digest of an unknown kind": (with_index({"digest": "sha512:ff", "size": 1}), "only sha256"),
    "a digest that is a path": (with_index({"digest": "sha256:../../../etc/shadow", "size": 1}), "only sha256"),
    "a negative size": (with_index({"digest": digest(b""), "size": -1}), "is said to have -1 bytes"),
    "a manifest of a lying size": (
        with_index({**descriptor(b"{}", "application/vnd.oci.image.manifest.v1+json"), "size": 1 << 40}),
        "which no manifest has",
    ),
    "a missing manifest": (
        with_index(descriptor(b"x", "application/vnd.oci.image.manifest.v1+json")), "the archive lacks",
    ),
    "a layer kept elsewhere": (set_layer(mediaType=FOREIGN), "is kept elsewhere"),
    "a layer of an unknown kind": (set_layer(mediaType=ENCRYPTED), "of the unknown kind"),
    "a layer of a lying size": (set_layer(size=7), "bytes and not 7"),
    "a layer of another digest": (set_layer(digest=digest(b"other")), "lacks the layer"),
    "a missing layer": ({k: v for k, v in changed().items() if v[:2] != b"\x1f\x8b"}, "lacks the layer"),
    "a damaged layer": (
        {k: v[:-6] + b"\0\0" + v[-4:] if v[:2] == b"\x1f\x8b" else v for k, v in changed().items()}, "the layer",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("what", "through"),
    [
        (what, through)
        for what, (archived, _) in REFUSED.items()
        for through in ("pipe", "file", "directory")
        if through != "directory" or isinstance(archived, dict)
    ],
)
def test_is_refused_with_a_sentence_and_leaves_nothing(what, through, store, tmp_path):
    archived, sentence = REFUSED[what]
    data = archived if isinstance(archived, bytes) else packed(archived)
    source: bytes | Path = data
    if through == "file":
        source = file_of(data, tmp_path)
    elif through == "directory":
        assert isinstance(archived, dict)
        source = write_files(archived, tmp_path / "layout")
    with pytest.raises(HawseError) as caught:
        load(store, source)
    assert caught.value.kind is Kind.INVALID
    assert sentence in str(caught.value)
    assert_empty(store)


def test_an_archive_that_grows_a_layer_beyond_its_size_is_refused(store, tmp_path):
    bomb = gzip.compress(layer(entry("x", content=bytes(64 << 20))), 9)
    files = {name: bomb if data[:2] == b"\x1f\x8b" else data for name, data in changed().items()}
    with pytest.raises(HawseError, match="bytes and not"):
        load(store, write_files(files, tmp_path / "layout"))
    assert_empty(store)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    at = tmp_path / "small"
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


@pytest.mark.parametrize("through", ["pipe", "file"])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(through, small_disk, tmp_path):
    store = ImageStore(small_disk / "images")
    layers = [layer(entry(f"f{number}", content=os.urandom(2 << 20))) for number in range(4)]
    file = tmp_path / "archive"
    file.write_bytes(docker_archive(layers))
    with pytest.raises(HawseError) as caught:
        load(store, file if through == "file" else file.read_bytes())
    assert caught.value.kind is Kind.EXHAUSTED
    assert "cannot load: No space left on device" in caught.value.message
    assert_empty(store)
    load(store, docker_archive(layers[:2]))  # there is room again
    assert store.find("test:1")


async def heard(directory: Path, data: bytes, ask: Callable[[int], verbs.Loading]) -> ImageInfo:
    fd = os.open(file_of(data, directory), os.O_RDONLY)
    try:
        *progress, result = [answer async for answer in ask(fd)]
    finally:
        os.close(fd)
    finished = [one.finished for one in progress if isinstance(one, Progress)]
    assert len(finished) == len(progress)
    assert finished[-1]
    assert isinstance(result, dict)
    (info,) = result["items"]
    return info


async def test_the_verbs(store, tmp_path):
    """As the daemon calls them: progress, then the result."""
    request = ImageImportRequest(name="web", command=("sh", "-c", "x"), env=("A=1",), workdir="/bin", user="7")
    await heard(tmp_path, docker_archive(LAYERS), lambda fd: verbs.load(store, ImageLoadRequest(name="name"), fd))
    info = await heard(tmp_path, LAYERS[0], lambda fd: verbs.import_tree(store, request, fd))
    assert info.config == {"Cmd": ["sh", "-c", "x"], "Env": ["A=1"], "WorkingDir": "/bin", "User": "7"}
    (listed,) = [answer async for answer in verbs.ls(store, ImageListRequest())]
    assert [image.names for image in listed["items"]] == [("web:latest",), ("name:latest", "test:1"), ("host:latest",)]
    (inspected,) = [answer async for answer in verbs.inspect(store, ImageInspectRequest(image="web"))]
    assert inspected == info
    with pytest.raises(HawseError, match="no descriptor came"):
        await last(verbs.load(store, ImageLoadRequest(), None))


async def until(condition) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true")


async def test_a_client_that_hangs_up_ends_the_worker_and_nothing_is_left(store):
    reader, writer = os.pipe()
    data = docker_archive(LAYERS)
    feeding = threading.Thread(target=os.write, args=(writer, data[: len(data) // 2]))
    feeding.start()
    answers = verbs.load(store, ImageLoadRequest(), reader)
    try:
        assert isinstance(await anext(answers), Progress)
        assert workers(store)
        await answers.aclose()
        assert not workers(store)
        assert_empty(store)
    finally:
        os.close(reader)
        feeding.join()
        os.close(writer)


async def test_a_worker_that_is_killed_is_a_sentence_and_leaves_nothing(store):
    reader, writer = os.pipe()
    feeding = threading.Thread(target=os.write, args=(writer, docker_archive(LAYERS)[: 1 << 20]))
    feeding.start()
    answers = verbs.load(store, ImageLoadRequest(), reader)
    try:
        assert isinstance(await anext(answers), Progress)
        (worker,) = workers(store)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(HawseError, match="the worker ended by signal 9"):
            await last(answers)
        assert_empty(store)
    finally:
        os.close(reader)
        feeding.join()
        os.close(writer)


async def test_a_worker_whose_daemon_is_gone_ends_though_its_archive_does_not(store):
    reader, writer = os.pipe()
    report, told = os.pipe()
    job = {"do": "load", "name": "", "store": str(store.directory), "archive": reader, "report": told}
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-m", "runtime.image.worker", json.dumps(job), pass_fds=(reader, told)
    )
    os.close(told)
    try:
        await until(lambda: os.listdir(store.directory / "tmp"))
        os.close(report)
        async with asyncio.timeout(20):
            await worker.wait()
        assert_empty(store)
    finally:
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
        os.close(reader)
        os.close(writer)


async def test_the_same_image_is_loaded_by_several_at_once(store, tmp_path):
    file = tmp_path / "archive"
    file.write_bytes(docker_archive(LAYERS))

    async def one(number: int) -> str:
        fd = os.open(file, os.O_RDONLY)
        try:
            result = await last(verbs.load(store, ImageLoadRequest(name=f"name:{number}"), fd))
        finally:
            os.close(fd)
        return str(result["items"][0].id)

    ids = await asyncio.gather(*(one(number) for number in range(4)))
    assert len(set(ids)) == 1
    assert store.inspect("test:1").names == ("name:0", "name:1", "name:2", "name:3", "test:1")
    assert len(os.listdir(store.directory / "layers")) == 4
    assert os.listdir(store.directory / "tmp") == []


def test_what_a_kill_left_goes_at_the_next_start_and_what_is_loading_stays(store):
    load_layers(store, *LAYERS)
    (store.directory / "tmp/dead/1/fs").mkdir(parents=True)
    (store.directory / "trash/dead/fs").mkdir(parents=True)
    (store.directory / f"layers/{'0' * 64}/fs").mkdir(parents=True)
    (store.directory / f"records/{'1' * 64}").write_bytes(b"{half")
    (store.directory / "records/.half").write_bytes(b"")
    with staging(store.directory / "tmp") as busy:
        store.sweep()
        assert os.listdir(store.directory / "tmp") == [busy.name]
    assert os.listdir(store.directory / "trash") == []
    assert len(os.listdir(store.directory / "layers")) == 4
    assert len(os.listdir(store.directory / "records")) == 1
    assert store.resolve("test:1").layers


def test_no_layer_is_collected_while_somebody_loads(store):
    load_layers(store, *LAYERS)
    with Layers(store.directory).loading():
        store.remove("test:1")
        assert len(os.listdir(store.directory / "layers")) == 4
    store.sweep()
    assert_empty(store)


async def test_removing(store):
    await asyncio.to_thread(load, store, docker_archive(LAYERS, ["web:1", "web:2"]))
    image = store.find("web:1")

    async def rm(reference: str, force: bool = False, users: tuple[str, ...] = ()) -> list[str]:
        request = ImageRemoveRequest(image=reference, force=force)
        answer = await last(verbs.remove(store, request, None, {image: users}))
        return list(answer["removed"])

    with pytest.raises(HawseError, match="has 2 names: web:1, web:2"):
        await rm(image)
    assert await rm("web:2", users=("db",)) == ["web:2"]
    with pytest.raises(HawseError, match="'web:1' is used by api, db") as caught:
        await rm("web:1", users=("db", "api"))
    assert caught.value.kind is Kind.CONFLICT
    assert await rm("web:1", force=True, users=("db",)) == ["web:1"]
    assert store.resolve(image).layers[0].is_dir()
    assert await rm(image) == [image]
    assert_empty(store)
    with pytest.raises(HawseError) as caught:
        await rm("web:1")
    assert caught.value.kind is Kind.NOT_FOUND
    with pytest.raises(HawseError, match="this machine itself"):
        await rm("host")


# --- import ---


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd", "file", "directory"])
def test_a_root_file_system_becomes_an_image(how, store, tmp_path):
    data = layer(directory("bin"), entry("bin/sh", content=b"#!", mode=0o4755), entry("bin/x", b"2", link="sh"))
    source: bytes | Path = data
    match how:
        case "gzip":
            source = gzip.compress(data)
        case "zstd":
            source = zstandard.ZstdCompressor().compress(data)
        case "file":
            source = file_of(data, tmp_path)
        case "directory":
            top = source = tmp_path / "rootfs"
            top.mkdir()
            subprocess.run(["tar", "-xpf", "-", "-C", str(top)], input=data, check=True)
    info = import_tree(store, source, "web")
    assert info.names == ("web:latest",)
    (tree,) = store.resolve("web").layers
    found = facts(tree)
    assert set(found) == {".", "bin", "bin/sh", "bin/x"}
    assert (found["bin/sh"]["mode"], found["bin/x"]["link"]) == ("0o104755", "sh")


def test_the_same_directory_gives_the_same_layer(store, tmp_path):
    top = tmp_path / "rootfs"
    for name in ("b", "a", "c/d"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(name.encode())
    first = import_tree(store, top, "one")
    (top / "a").read_bytes()
    assert import_tree(store, top, "two").layers == first.layers


@pytest.mark.parametrize("data", [b"", layer(), b"hello" * 300])
def test_an_import_of_nothing_is_refused(data, store):
    with pytest.raises(HawseError) as caught:
        import_tree(store, data)
    assert caught.value.kind is Kind.INVALID
    assert_empty(store)


def test_a_record_is_the_configuration_to_the_byte(store):
    config = b" " + configuration(LAYERS[:1]) + b"\n"
    name = hashlib.sha256(config).hexdigest()
    manifest = json.dumps([{"Config": f"{name}.json", "RepoTags": ["a:1"], "Layers": ["l.tar"]}]).encode()
    load(store, archive([("l.tar", LAYERS[0]), (f"{name}.json", config), ("manifest.json", manifest)]))
    assert store.catalog.data(f"sha256:{name}") == config
