"""Images and paths that a topology brings along: found beside its file, or refused with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdn.model.container import MountKind, MountSpec, NetworkWish
from sdn.model.errors import HawseError, Kind
from topologies.containers import SLEEP, run_request
from topologies.images import FoundImage, Images, _choose, find_images, needed
from topologies.schema import parse_topology
from topologies.values import Topology


def topology(text: str) -> Topology:
    return parse_topology(f"hosts: h1\nnetworks: [web]\ncontainers:\n  c: {{{text}}}\n", "f.yaml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A topology's path, with an archive, a root file system and an OCI layout beside it."""
    (tmp_path / "web.tar").touch()
    (tmp_path / "Root_FS/bin").mkdir(parents=True)
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout/oci-layout").touch()
    return tmp_path / "f.yaml"


def found(text: str, file: Path) -> FoundImage | None:
    return find_images(topology(text), str(file))["c"]


def test_what_is_there_says_how_it_becomes_an_image(file: Path) -> None:
    base = file.parent
    assert found("", file) is None
    assert found("image: web.tar", file) == FoundImage(str(base / "web.tar"), imported=False, name="")
    assert found("image: ./layout", file) == FoundImage(str(base / "layout"), imported=False, name="")
    assert found("image: Root_FS/", file) == FoundImage(str(base / "Root_FS"), imported=True, name="root-fs")
    assert found("image: {import: web.tar}", file) == FoundImage(str(base / "web.tar"), imported=True, name="web")
    assert found(f"image: {{import: {base}/web.tar, name: 'a:1'}}", file) == FoundImage(
        str(base / "web.tar"), imported=True, name="a:1"
    )


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("image: wev.tar", "containers.c.image: there is no 'wev.tar'", "did you mean 'web.tar'?"),
        ("image: no/such/place.tar", "there is no 'no/such/place.tar'", "relative to the file"),
        ("image: {load: Root_FS}", "the directory Root_FS has no file oci-layout", "import it"),
        ("image: {import: layout}", "layout is an OCI layout", "load it"),
        ("volumes: './lay:/d'", "containers.c.volumes: there is no './lay'", "did you mean"),
    ],
)
def test_what_is_not_there_is_refused_with_file_and_line(text: str, says: str, hint: str, file: Path) -> None:
    with pytest.raises(HawseError) as caught:
        find_images(topology(text), str(file))
    assert caught.value.kind is Kind.INVALID
    assert caught.value.message.startswith(f"{file}:4: ")
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_an_image_is_brought_once_per_host() -> None:
    one, other = FoundImage("/a", imported=False, name=""), FoundImage("/b", imported=True, name="b")
    images: Images = {"a": one, "b": one, "c": None, "d": other}
    containers = parse_topology("hosts: h1\ncontainers: [a, b, c, d]\n").containers
    assert needed(images, list(containers)) == [one, other]


def test_of_several_images_in_an_archive_the_named_one_is_meant() -> None:
    def image(name: str) -> dict[str, Any]:
        return {"id": f"sha256:{name}", "names": [f"{name}:latest"]}

    def wish(name: str) -> FoundImage:
        return FoundImage("/a", imported=False, name=name)

    assert _choose([image("a")], wish("")) == "a:latest"
    assert _choose([{"id": "sha256:5", "names": []}], wish("")) == "sha256:5"
    assert _choose([image("a"), image("b")], wish("b")) == "b:latest"
    for name in ("", "c"):
        with pytest.raises(HawseError, match=r"2 images \(a:latest, b:latest\)"):
            _choose([image("a"), image("b")], wish(name))


def test_what_is_asked_of_the_runtime() -> None:
    text = "networks: {network: web, ifname: eth7}, memory: 64M, env: {A: b}, volumes: ['./d:/d', 'v:/v']"
    (container,) = topology(text).containers
    spec = run_request(container, "", Path("/base")).container
    assert (spec.image, spec.name, spec.hostname, spec.command) == ("host", "c", "c", SLEEP)
    assert spec.stop_signal == "SIGKILL"
    assert spec.networks == (NetworkWish(network="default/web", ifname="eth7"),)
    assert (spec.memory_bytes, spec.env) == (64 << 20, ("A=b",))
    assert spec.mounts == (
        MountSpec(kind=MountKind.BIND, source="/base/d", target="/d"),
        MountSpec(kind=MountKind.VOLUME, source="v", target="/v"),
    )
    (own,) = topology("image: web.tar").containers
    spec = run_request(own, "web:1", Path("/base")).container
    assert (spec.image, spec.command, spec.stop_signal) == ("web:1", (), "")
