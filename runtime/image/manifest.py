"""What an archive says that it holds: `docker save`'s manifest.json, or an OCI image layout's index.json. Pure.

Source: OCI image specification, "Image Layout", "Image Index", "Image Manifest"; Docker image specification v1.2.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

from runtime.image.configuration import CONFIGURATION_BYTES_MAX, LAYERS_MAX, machine_architecture, parse_object
from runtime.image.reference import is_digest, parse_name, short
from sdn.model.errors import HawseError, invalid

IMAGES_MAX = 1000
INDEX_DEPTH_MAX = 4
"""An index in an index is what builders make; more than two were never seen."""

Text = Callable[[str], "bytes | None"]
"""A small file of the archive by its name; None where it is absent."""

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_LAYERS = (
    "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.image.rootfs.diff.tar.zstd",
)  # fmt: skip
_ELSEWHERE = ("foreign", "nondistributable")
_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_HEX = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")
_REF_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"


@dataclasses.dataclass(frozen=True, slots=True)
class LayerPlan:
    """`blob`: its name in the archive. `digest`, `size_bytes`: as it is stored; empty and None where nobody tells."""

    blob: str
    digest: str = ""
    size_bytes: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ImagePlan:
    """An image of an archive. `digests`: of its manifest. Layers lowest first."""

    configuration: bytes
    layers: tuple[LayerPlan, ...]
    names: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()


def plan(text: Text) -> list[ImagePlan]:
    """The images of an archive that this machine can run, at least one. Raises: INVALID."""
    manifest = text("manifest.json")
    if manifest is not None:
        return _docker(manifest, text)
    index = text("index.json")
    if index is not None:
        return _oci(parse_object(index, "index.json"), text)
    raise invalid(
        "this is no archive of images: it has neither manifest.json nor index.json",
        "a root file system is imported by 'hawse image import NAME FILE'",
    )


def blob_name(digest: str) -> str:
    """Where an OCI layout has a blob."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _docker(data: bytes, text: Text) -> list[ImagePlan]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise invalid(f"manifest.json is no JSON: {error}", "save the image again") from None
    if not isinstance(value, list) or not 0 < len(value) <= IMAGES_MAX:
        raise invalid(f"manifest.json is no list of 1 to {IMAGES_MAX} images", "save the images again, or fewer")
    return [_docker_image(item, text) for item in value]


def _docker_image(item: object, text: Text) -> ImagePlan:
    config = item.get("Config") if isinstance(item, dict) else None
    layers = item.get("Layers") or [] if isinstance(item, dict) else None
    names = item.get("RepoTags") or [] if isinstance(item, dict) else None
    if not isinstance(config, str) or not _texts(layers) or not _texts(names):
        raise invalid("manifest.json does not tell Config, RepoTags and Layers of an image", "save the image again")
    if len(layers) > LAYERS_MAX:
        raise _too_many_layers(len(layers))
    configuration = text(config)
    if configuration is None:
        raise _missing(config)
    match = _HEX.fullmatch(config)
    if match and hashlib.sha256(configuration).hexdigest() != match[1]:
        raise _damaged(f"the configuration {short(match[1])}")
    return ImagePlan(
        configuration,
        tuple(LayerPlan(layer, f"sha256:{layer[-64:]}" if _is_blob(layer) else "") for layer in layers),
        tuple(parse_name(name) for name in names),
    )


def _is_blob(name: str) -> bool:
    return name.startswith("blobs/sha256/") and is_digest(name.replace("blobs/sha256/", "sha256:"))


def _texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


@dataclasses.dataclass(frozen=True, slots=True)
class _Descriptor:
    digest: str
    size_bytes: int
    media_type: str
    platform: str
    annotations: dict[str, Any]

    @property
    def is_attestation(self) -> bool:
        """What builders add about an image: it runs nowhere."""
        return self.platform == "unknown/unknown" or "vnd.docker.reference.type" in self.annotations


def _descriptor(value: object) -> _Descriptor:
    if not isinstance(value, dict):
        raise invalid("a descriptor of the archive is no object", "save the image again")
    size, digest = value.get("size"), value.get("digest")
    if not is_digest(digest):
        raise invalid(f"the digest {str(digest)[:80]!r} is none that is known", "only sha256 is taken")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 60:
        raise invalid(f"the blob {short(str(digest))} is said to have {str(size)[:40]} bytes", "save the image again")
    platform, annotations = value.get("platform"), value.get("annotations")
    known = platform if isinstance(platform, dict) else {}
    return _Descriptor(
        digest=str(digest),
        size_bytes=size,
        media_type=str(value.get("mediaType", "")),
        platform=f"{known.get('os', 'linux')}/{known.get('architecture', '')}" if known else "",
        annotations=annotations if isinstance(annotations, dict) else {},
    )


def _blob(descriptor: _Descriptor, text: Text) -> bytes:
    if descriptor.size_bytes > CONFIGURATION_BYTES_MAX:
        raise invalid(f"{short(descriptor.digest)} has {descriptor.size_bytes} bytes, which no manifest has")
    data = text(blob_name(descriptor.digest))
    if data is None:
        raise _missing(blob_name(descriptor.digest))
    if len(data) != descriptor.size_bytes or f"sha256:{hashlib.sha256(data).hexdigest()}" != descriptor.digest:
        raise _damaged(f"the blob {short(descriptor.digest)}")
    return data


def _oci(index: dict[str, Any], text: Text) -> list[ImagePlan]:
    found: dict[str, ImagePlan] = {}
    others: list[str] = []
    for descriptor, names in _manifests(index, text, (), others):
        if descriptor.digest in found:
            known = found[descriptor.digest]
            found[descriptor.digest] = dataclasses.replace(known, names=(*known.names, *names))
        else:
            found[descriptor.digest] = _oci_image(descriptor, names, text)
    if not found:
        mine = f"linux/{machine_architecture()}"
        theirs = ", ".join(dict.fromkeys(others)) or "nothing that runs"
        raise invalid(f"the archive holds {theirs[:200]}, this machine is {mine}", f"save the image for {mine}")
    return list(found.values())


def _manifests(
    index: dict[str, Any], text: Text, path: tuple[str, ...], others: list[str]
) -> Iterator[tuple[_Descriptor, tuple[str, ...]]]:
    """Manifests for this machine, each with the names that lead to it. `path`: the indexes that led here."""
    values = index.get("manifests")
    if not isinstance(values, list) or len(values) > IMAGES_MAX:
        raise invalid(f"an index of the archive is no list of at most {IMAGES_MAX} manifests", "save the image again")
    for descriptor in map(_descriptor, values):
        if descriptor.is_attestation:
            continue
        if descriptor.platform not in ("", f"linux/{machine_architecture()}"):
            others.append(descriptor.platform[:60])
            continue
        names = _names(descriptor)
        if descriptor.media_type not in _INDEXES:
            yield descriptor, names
            continue
        if descriptor.digest in path or len(path) >= INDEX_DEPTH_MAX:
            raise invalid("the indexes of the archive are nested too deeply, or lead in a circle", "save it again")
        nested = parse_object(_blob(descriptor, text), f"the index {short(descriptor.digest)}")
        below = list(_manifests(nested, text, (*path, descriptor.digest), others))
        if below:  # an index is one image for several machines; the first that fits is taken
            yield below[0][0], names or below[0][1]


def _names(descriptor: _Descriptor) -> tuple[str, ...]:
    """`org.opencontainers.image.ref.name` is a whole name or, of some tools, only a tag, which names nothing."""
    full = descriptor.annotations.get(_FULL_NAME)
    ref = descriptor.annotations.get(_REF_NAME)
    if isinstance(full, str):
        return (parse_name(full),)
    if isinstance(ref, str) and (":" in ref or "/" in ref):
        return (parse_name(ref),)
    return ()


def _oci_image(descriptor: _Descriptor, names: tuple[str, ...], text: Text) -> ImagePlan:
    if descriptor.media_type not in _MANIFESTS:
        raise invalid(f"{descriptor.media_type[:80]!r} is no image that is known", "save it as an OCI or Docker image")
    manifest = parse_object(_blob(descriptor, text), f"the manifest {short(descriptor.digest)}")
    config, layers = _descriptor(manifest.get("config")), manifest.get("layers")
    if config.media_type not in _CONFIGS:
        raise invalid(f"{config.media_type[:80]!r} is no image's configuration", "what is saved is no container image")
    if not isinstance(layers, list):
        raise invalid(f"the manifest {short(descriptor.digest)} lists no layers", "save the image again")
    if len(layers) > LAYERS_MAX:
        raise _too_many_layers(len(layers))
    return ImagePlan(
        _blob(config, text), tuple(_layer(_descriptor(layer)) for layer in layers), names, (descriptor.digest,)
    )


def _layer(layer: _Descriptor) -> LayerPlan:
    if any(word in layer.media_type for word in _ELSEWHERE):
        raise invalid(
            f"the layer {short(layer.digest)} is kept elsewhere ({layer.media_type[:80]})",
            "save the image with all of its layers",
        )
    if layer.media_type not in _LAYERS:
        raise invalid(
            f"the layer {short(layer.digest)} is of the unknown kind {layer.media_type[:80]!r}",
            "tar, tar+gzip and tar+zstd are taken",
        )
    return LayerPlan(blob_name(layer.digest), layer.digest, layer.size_bytes)


def _too_many_layers(count: int) -> HawseError:
    return invalid(f"the image has {count} layers; at most {LAYERS_MAX} are taken", "build it with fewer steps")


def _missing(name: str) -> HawseError:
    return invalid(f"the archive lacks {name[:120]!r}", "it was not saved or copied as a whole")


def _damaged(what: str) -> HawseError:
    return invalid(f"{what} is not what its digest says", "it was damaged on its way; save or copy it again")
