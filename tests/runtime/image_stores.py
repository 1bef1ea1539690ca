"""A store of images for a test, worked on in processes of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from runtime.image import verbs, worker
from runtime.image.store import ImageStore
from sdn.model.container import ImageInfo
from sdn.model.errors import HawseError, Kind
from sdn.model.runtime import ImageSaveRequest, Progress
from tests.runtime.image_samples import docker_archive

TREE_FACTS = "tests.runtime.image_tree"


async def last(answers: AsyncIterator[Any]) -> Any:
    """The result after all progress."""
    answer = None
    async for one in answers:
        answer = one
    assert answer is not None
    assert not isinstance(answer, Progress)
    return answer


def load(store: ImageStore, source: bytes | Path, name: str = "") -> list[ImageInfo]:
    """Load an archive from a pipe (bytes), or from a file or directory."""
    return [store.inspect(image) for image in _work(store, source, {"do": "load", "name": name})]


def _work(store: ImageStore, source: bytes | Path, job: dict[str, Any]) -> list[str]:
    """What a worker does, in a forked process: a third of a second less than a new interpreter takes."""
    report, told = os.pipe()
    archive, feed = os.pipe() if isinstance(source, bytes) else (os.open(source, os.O_RDONLY), -1)
    job |= {"store": str(store.directory), "archive": archive, "report": told}
    child = os.fork()
    if not child:
        try:
            for fd in (report, feed):
                with contextlib.suppress(OSError):
                    os.close(fd)
            worker.main(["worker", json.dumps(job)])
        finally:
            os._exit(0)
    os.close(told)
    os.close(archive)
    if isinstance(source, bytes):
        with contextlib.suppress(BrokenPipeError), open(feed, "wb") as file:
            file.write(source)
    with open(report, "rb") as lines:
        (answer,) = [line for line in map(json.loads, lines) if "progress" not in line]
    os.waitpid(child, 0)
    if "error" in answer:
        error = answer["error"]
        raise HawseError(Kind(error["kind"]), error["message"], hint=error["hint"], facts=error["facts"])
    return list(answer["result"])


def load_layers(store: ImageStore, *layers: bytes, name: str = "test:1") -> list[Path]:
    """Load layers as one image. Returns their trees, topmost first."""
    load(store, docker_archive(layers, [name]))
    return list(store.resolve(name).layers)


def import_tree(store: ImageStore, source: bytes | Path, name: str = "test:1") -> ImageInfo:
    """Import a root file system."""
    (image,) = _work(store, source, {"do": "import", "name": name, "config": {}})
    return store.inspect(image)


def save(store: ImageStore, to: Path, *references: str) -> Path:
    """Save images into a file."""
    with open(to, "wb") as file:
        asyncio.run(last(verbs.save(store, ImageSaveRequest(images=references), file.fileno())))
    return to


def assert_empty(store: ImageStore) -> None:
    """No image, no layer, nothing half-made."""
    for name in ("records", "layers", "tmp", "trash"):
        assert os.listdir(store.directory / name) == []
    assert store.catalog.names().names == {}


def merged(trees: list[Path], under: Path) -> dict[str, Any]:
    """Facts of the tree that a container would see, by path."""
    empty, at = under / "nothing", under / "merged"
    empty.mkdir(exist_ok=True)
    at.mkdir(exist_ok=True)
    lower = ":".join(map(str, [*trees, empty]))
    script = f'mount -t overlay overlay -o lowerdir="$0" "$1" && exec {sys.executable} -m {TREE_FACTS} "$1"'
    return _facts(["unshare", "-m", "sh", "-c", script, lower, str(at)])


def facts(tree: Path) -> dict[str, Any]:
    """Facts of a tree, by path."""
    return _facts([sys.executable, "-m", TREE_FACTS, str(tree)])


def _facts(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def workers(store: ImageStore) -> list[int]:
    """Processes that work on this store."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{name}/cmdline").read_bytes()
                if b"runtime.image.worker" in command and os.fsencode(store.directory) in command:
                    found.append(int(name))
    return found
