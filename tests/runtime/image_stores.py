"""A store of images for a test, worked on as the daemon does: by its verbs, in worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from runtime.image import verbs
from runtime.image.store import ImageStore
from sdn.model.container import ImageInfo
from sdn.model.runtime import ImageImportRequest, ImageLoadRequest, ImageSaveRequest, Progress
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
    with _open(source) as fd:
        result = asyncio.run(last(verbs.load(store, ImageLoadRequest(name=name), fd)))
    return list(result["items"])


def load_layers(store: ImageStore, *layers: bytes, name: str = "test:1") -> list[Path]:
    """Load layers as one image. Returns their trees, topmost first."""
    load(store, docker_archive(layers, [name]))
    return list(store.resolve(name).layers)


def import_tree(store: ImageStore, source: bytes | Path, name: str = "test:1", **fields: Any) -> ImageInfo:
    """Import a root file system."""
    with _open(source) as fd:
        result = asyncio.run(last(verbs.import_tree(store, ImageImportRequest(name=name, **fields), fd)))
    (info,) = result["items"]
    assert isinstance(info, ImageInfo)
    return info


def save(store: ImageStore, to: Path, *references: str) -> Path:
    """Save images into a file."""
    with open(to, "wb") as file:
        asyncio.run(last(verbs.save(store, ImageSaveRequest(images=references), file.fileno())))
    return to


@contextlib.contextmanager
def _open(source: bytes | Path) -> Iterator[int]:
    if isinstance(source, Path):
        fd = os.open(source, os.O_RDONLY)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    reader, writer = os.pipe()
    thread = threading.Thread(target=_write, args=(writer, source))
    thread.start()
    try:
        yield reader
    finally:
        os.close(reader)
        thread.join()


def _write(fd: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(fd, "wb") as file:
        file.write(data)


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
