"""Rows about images: an archive loaded, against the two tools that together do the same."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from runtime.image import verbs
from runtime.image.store import ImageStore
from sdn.model.runtime import ImageLoadRequest
from tests.bench.janitor import Janitor
from tests.bench.measure import PeerMissingError, Result, compare, interleave, progress, timed
from tests.bench.stand import scratch
from tests.runtime.image_samples import docker_archive, large_layers

LAYERS, FILES, BYTES = 3, 11_000, 200 << 20
"""Like a small distribution with a language's run-time."""
ROUNDS = 3
"""Each leaves 600 MB until the end: before ext4 gives out an inode it looks at all that were freed in the last minute,
so whoever comes after a removal of so many files waits for milliseconds a file."""


def against_umoci(janitor: Janitor) -> Iterator[Result]:
    """load-vs-umoci: an archive of `docker save`, from a file to trees, in a store that is empty."""
    slug = "load-vs-umoci"
    progress(f"{slug} …")
    for tool in ("skopeo", "umoci"):
        if shutil.which(tool) is None:
            raise PeerMissingError(f"{tool} is not installed")
    with scratch(janitor) as folder:
        archive = folder / "archive"
        archive.write_bytes(docker_archive(large_layers(LAYERS, FILES, BYTES)))
        samples = interleave(lambda: _ours(folder, archive), lambda: _theirs(folder, archive), ROUNDS)
    note = f"{BYTES >> 20} MiB in {FILES} files and {LAYERS} layers; ours is synced to the disk when it ends"
    yield compare(slug, samples, unit="ms", target=1.2, peer_name="skopeo copy, umoci unpack", note=note)


def _ours(scratch_folder: Path, archive: Path) -> float:
    folder = Path(tempfile.mkdtemp(dir=scratch_folder))
    store = ImageStore(folder / "images")

    async def load() -> None:
        fd = os.open(archive, os.O_RDONLY)
        try:
            async for _ in verbs.load(store, ImageLoadRequest(), fd):
                pass
        finally:
            os.close(fd)

    return _settled(timed(lambda: asyncio.run(load())))


def _theirs(scratch_folder: Path, archive: Path) -> float:
    folder = Path(tempfile.mkdtemp(dir=scratch_folder))
    layout = f"oci:{folder}/layout:it"
    copy = ["skopeo", "--insecure-policy", "copy", "-q", f"docker-archive:{archive}", layout]
    unpack = ["umoci", "unpack", "--image", f"{folder}/layout:it", str(folder / "bundle")]

    def both() -> None:
        for command in (copy, unpack):
            subprocess.run(command, check=True, capture_output=True)

    return _settled(timed(both))


def _settled(sample: float) -> float:
    """Nobody pays for what the one before has left to be written."""
    os.sync()
    return sample
