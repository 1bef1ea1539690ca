"""Images made for tests: layers of entries, and the archives that hold them in each of the known forms."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import zstandard

from runtime.image.configuration import machine_architecture
from runtime.image.reference import is_digest

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
TIME_S = 1_700_000_000


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", link: str = "", mode: int = 0o644, **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    """One member of a layer, with its content. `fields`: of TarInfo."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime, info.linkname, info.size = kind, mode, TIME_S, link, len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def directory(name: str, mode: int = 0o755, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.DIRTYPE, mode=mode, **fields)


def layer(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A layer's archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def configuration(layers: Sequence[bytes], **changes: Any) -> bytes:
    """An image's configuration; `changes` of its top level."""
    value = {
        "created": "2024-01-02T03:04:05.123456789Z",
        "architecture": machine_architecture(),
        "os": "linux",
        "config": {"Cmd": ["/bin/true"], "Env": ["A=b"], "Labels": {"of": "a test"}},
        "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in layers]},
        **changes,
    }
    return json.dumps(value).encode()


def archive(files: Iterable[tuple[str, bytes | str]]) -> bytes:
    """A tar archive of files; text makes a symbolic link."""
    return layer(
        *(
            entry(name, content=data) if isinstance(data, bytes) else entry(name, tarfile.SYMTYPE, link=data)
            for name, data in files
        ),
        form=tarfile.USTAR_FORMAT,
    )


def docker_archive(layers: Sequence[bytes], names: Sequence[str] = ("test:1",), **changes: Any) -> bytes:
    """As `docker save` wrote it before version 25: the manifest comes last."""
    config = configuration(layers, **changes)
    files: list[tuple[str, bytes | str]] = []
    paths: list[str] = []
    for number, data in enumerate(layers):
        name = hashlib.sha256(b"%d" % number + data).hexdigest()
        first = layers.index(data)
        files += [(f"{name}/VERSION", b"1.0"), (f"{name}/json", b"{}")]
        files.append((f"{name}/layer.tar", data if first == number else f"../{paths[first]}"))
        paths.append(f"{name}/layer.tar")
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": list(names), "Layers": paths}]
    return archive([*files, (name, config), ("manifest.json", json.dumps(manifest).encode())])


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def compressed(data: bytes, how: str) -> bytes:
    match how:
        case "gzip":
            return gzip.compress(data, 1)
        case "zstd":
            return zstandard.ZstdCompressor(level=1).compress(data)
    return data


def oci_files(
    layers: Sequence[bytes], how: str = "gzip", names: Sequence[str] = ("test:1",), nested: bool = False, **changes: Any
) -> dict[str, bytes]:
    """An OCI layout's files by name, in the order of an archive: blobs first."""
    config = configuration(layers, **changes)
    blobs = [compressed(data, how) for data in layers]
    kind = f"{LAYER_TYPE}+{how}" if how else LAYER_TYPE
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(blob, kind) for blob in blobs],
        }
    ).encode()
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    entries = [
        descriptor(manifest, manifest_type, annotations={"org.opencontainers.image.ref.name": name}) for name in names
    ] or [descriptor(manifest, manifest_type)]
    small = [config, manifest]
    if nested:
        other = descriptor(b"{}", manifest_type, platform={"os": "linux", "architecture": "s390x"})
        mine = {**entries[0], "platform": {"os": "linux", "architecture": machine_architecture()}}
        index = json.dumps({"schemaVersion": 2, "manifests": [other, mine]}).encode()
        small.append(index)
        entries = [descriptor(index, "application/vnd.oci.image.index.v1+json")]
    files = {f"blobs/sha256/{digest(data).removeprefix('sha256:')}": data for data in [*blobs, *small]}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    return files


def write_files(files: dict[str, bytes], top: Path) -> Path:
    """Files by name, below a directory."""
    for name, data in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    return top


def large_layers(count: int, files: int, total_bytes: int, seed: int = 1) -> list[bytes]:
    """Layers of many files whose sizes are as they are in images: most are small, a few are large."""
    source = random.Random(seed)
    sizes = [source.paretovariate(0.9) for _ in range(files)]
    scale = total_bytes / sum(min(size, 2000) for size in sizes)
    contents = [source.randbytes(max(1, int(min(size, 2000) * scale / 2))) for size in sizes]
    layers = []
    for number in range(count):
        entries = []
        for at in range(number, files, count):
            if at % 20 == number:
                entries.append(directory(f"usr/share/{at % 40}"))
            data = contents[at]  # doubled: compressible, as programs are
            entries.append(
                entry(f"usr/share/{at % 40}/file-{at}", content=data + data, mode=0o755 if at % 5 else 0o644)
            )
        layers.append(layer(directory("usr"), directory("usr/share"), *entries, form=tarfile.GNU_FORMAT))
    return layers


def known_digest(text: str) -> str:
    assert is_digest(text)
    return text
