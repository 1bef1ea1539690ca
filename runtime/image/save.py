"""Saving: an archive that `docker load` and OCI tools take alike. Runs in the worker.

It is an OCI image layout with Docker's manifest.json beside the index. Layers are written uncompressed, to the byte as
they were loaded, so that who loads the archive gets the same ids. The small files come first.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
from collections.abc import Iterator, Sequence
from typing import Any

from runtime.image.contents import Report
from runtime.image.host import HOST_ID
from runtime.image.manifest import blob_name
from runtime.image.recipe import write_archive
from runtime.image.reference import short
from runtime.image.store import ImageStore
from sdn.model.errors import conflict

_BLOCK = 512
_RECORD_BYTES = 20 * _BLOCK
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


def save(store: ImageStore, references: Sequence[str], fd: int, report: Report) -> None:
    """Write an archive of images, each with the names by which it was asked for, or all where it was by id.

    Raises: NOT_FOUND, INVALID (a layer is damaged), CONFLICT (the machine's own), OSError.
    """
    with store.layers.loading():  # nothing is collected meanwhile
        wanted = _wanted(store, references)
        out = _Output(fd)
        _Archive(store, out, report).write(wanted)
        out.close()


def _wanted(store: ImageStore, references: Sequence[str]) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for reference in references:
        image = store.find(reference)
        if image == HOST_ID:
            raise conflict("the image 'host' is this machine itself", "it cannot be saved")
        names = wanted.setdefault(image, [])
        names += [name for name in store.names_meant(reference, image) if name not in names]
    return wanted


class _Output:
    """Blocks to a file, pipe or socket, whether it blocks or not."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._written = 0

    def write(self, data: bytes) -> None:
        """Raises: OSError, BrokenPipeError where nobody reads."""
        view = memoryview(data)
        self._written += len(view)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                select.select([], [self._fd], [])

    def begin(self, name: str, size: int) -> None:
        """A file's header."""
        self.write(_header(name, size))

    def end(self) -> None:
        """A file's padding."""
        self.write(bytes(-self._written % _BLOCK))

    def close(self) -> None:
        """The end mark, and padding to a whole record as tar(1) makes it."""
        self.write(bytes(2 * _BLOCK))
        self.write(bytes(-self._written % _RECORD_BYTES))


class _Archive:
    def __init__(self, store: ImageStore, out: _Output, report: Report) -> None:
        self._store = store
        self._out = out
        self._report = report

    def write(self, wanted: dict[str, list[str]]) -> None:
        blobs: dict[str, bytes] = {}
        layers: dict[str, str] = {}
        index: list[dict[str, Any]] = []
        docker: list[dict[str, Any]] = []
        for image, names in wanted.items():
            configuration = self._store.catalog.configuration(image)
            layers.update(zip(configuration.diff_ids, configuration.chain_ids, strict=True))
            data = blobs[image] = self._store.catalog.data(image)
            manifest = self._manifest(image, len(data))
            digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
            blobs[digest] = manifest
            index += _index_entries(digest, len(manifest), names, configuration.architecture)
            docker.append(
                {
                    "Config": blob_name(image),
                    "RepoTags": names or None,
                    "Layers": [blob_name(diff_id) for diff_id in configuration.diff_ids],
                }
            )
        self._file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        self._file("index.json", _json({"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": index}))
        self._file("manifest.json", _json(docker))
        for digest, data in blobs.items():
            self._file(blob_name(digest), data)
        for diff_id, chain_id in layers.items():
            self._layer(diff_id, chain_id)

    def _manifest(self, image: str, size: int) -> bytes:
        configuration = self._store.catalog.configuration(image)
        facts = [self._store.layers.facts(chain_id) for chain_id in configuration.chain_ids]
        layers = [{"mediaType": _LAYER_TYPE, "digest": fact.diff_id, "size": fact.archive_bytes} for fact in facts]
        config = {"mediaType": _CONFIG_TYPE, "digest": image, "size": size}
        return _json({"schemaVersion": 2, "mediaType": _MANIFEST_TYPE, "config": config, "layers": layers})

    def _file(self, name: str, data: bytes) -> None:
        self._out.begin(name, len(data))
        self._out.write(data)
        self._out.end()

    def _layer(self, diff_id: str, chain_id: str) -> None:
        total = self._store.layers.facts(chain_id).archive_bytes
        done = 0

        def write(data: bytes) -> None:
            nonlocal done
            self._out.write(data)
            done += len(data)
            self._report(short(diff_id), done, total, False)

        self._out.begin(blob_name(diff_id), total)
        write_archive(self._store.layers.directory(chain_id), diff_id, write, f"the layer {short(diff_id)}")
        self._out.end()
        self._report(short(diff_id), total, total, True)


def _index_entries(digest: str, size: int, names: list[str], architecture: str) -> Iterator[dict[str, Any]]:
    entry = {
        "mediaType": _MANIFEST_TYPE,
        "digest": digest,
        "size": size,
        **({"platform": {"architecture": architecture, "os": "linux"}} if architecture else {}),
    }
    for name in names:
        annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
        yield {**entry, "annotations": annotations}
    if not names:
        yield entry


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _header(name: str, size: int) -> bytes:
    """A plain file of nobody in particular. Sizes of 8 GiB and more as GNU tar writes them, in base 256."""
    number = b"%011o\0" % size if size < 8 << 30 else (size | 1 << 95).to_bytes(12)
    head = (
        name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + number + b"00000000000\0" + b" " * 8 + b"0"
    )
    block = (head.ljust(257, b"\0") + b"ustar\x0000").ljust(_BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
