"""What a topology brings along from beside its file: images, loaded once per host, and paths that containers mount."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from pathlib import Path
from typing import Any

import msgspec

from sdn.model.container import MountKind, MountSpec
from sdn.model.errors import HawseError, Kind
from sdn.model.runtime import ImageImportRequest, ImageLoadRequest
from sdn.service.contract_client import Connection
from sdn.service.roots import Root
from topologies.values import ContainerSpec, ImageSource, Topology
from topologies.workload import HOST_IMAGE

LAYOUT = "oci-layout"
"""The file that makes a directory an OCI image layout (OCI image specification, image-layout.md)."""
_NOT_OF_A_NAME = re.compile(r"[^a-z0-9]+")


@dataclasses.dataclass(frozen=True, slots=True)
class FoundImage:
    """One that is there. `imported`: it is a root file system. `name`: what it is to be called, or which is meant."""

    path: str
    imported: bool
    name: str


Images = dict[str, FoundImage | None]
"""By container; None: the pseudo-image."""


def find_images(topology: Topology, file: str) -> Images:
    """Where each container's image is; a path that a container mounts has to be there, too.

    Raises: INVALID, with file and line.
    """
    base = Path(file).parent
    images: Images = {}
    for container in topology.containers:
        source = container.workload.image
        images[container.name] = None if source is None else _find(source, base, file, container.name)
        for mount in container.workload.mounts:
            if mount.kind is MountKind.BIND and not (base / mount.source).exists():
                where = f"containers.{container.name}.volumes"
                raise _missing(base, mount.source, file, container.workload.line, where)
    return images


def absolute(mount: MountSpec, base: Path) -> MountSpec:
    """A mount of a path of the host, as the runtime takes it."""
    if mount.kind is not MountKind.BIND:
        return mount
    return msgspec.structs.replace(mount, source=os.path.abspath(base / mount.source))


def _find(source: ImageSource, base: Path, file: str, container: str) -> FoundImage:
    path = base / source.path
    where = f"containers.{container}.image"
    if not path.exists():
        raise _missing(base, source.path, file, source.line, where)
    layout = (path / LAYOUT).is_file()
    imported = path.is_dir() and not layout if source.root is None else source.root
    if imported and layout:
        raise _refusal(file, source.line, where, f"{source.path} is an OCI layout, no root file system", "load it")
    if not imported and path.is_dir() and not layout:
        raise _refusal(
            file, source.line, where, f"the directory {source.path} has no file {LAYOUT}", "import it, if it is a root"
        )
    return FoundImage(path=os.path.abspath(path), imported=imported, name=source.name or _name_of(path, imported))


def _name_of(path: Path, imported: bool) -> str:
    """What an imported one is called that was given no name: as its file."""
    if not imported:
        return ""
    stem = path.name if path.is_dir() else path.name.partition(".tar")[0]
    return _NOT_OF_A_NAME.sub("-", stem.lower()).strip("-") or "rootfs"


def _missing(base: Path, path: str, file: str, line: int, where: str) -> HawseError:
    folder = (base / path).parent
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        names = []
    near = difflib.get_close_matches(Path(path).name, names, n=1, cutoff=0.5)
    hint = f"did you mean {str(Path(path).with_name(near[0]))!r}?" if near else "paths are relative to the file"
    return _refusal(file, line, where, f"there is no {path!r} (in {base.absolute()})", hint)


def _refusal(file: str, line: int, where: str, message: str, hint: str) -> HawseError:
    facts = {"file": file, "line": line, "path": where}
    return HawseError(Kind.INVALID, f"{file}:{line}: {where}: {message}", hint=hint, facts=facts)


def needed(images: Images, containers: list[ContainerSpec]) -> list[FoundImage]:
    """Those that some containers need, each once."""
    found = (images[container.name] for container in containers)
    return list(dict.fromkeys(image for image in found if image is not None))


def bring(root: Root, image: FoundImage) -> str:
    """Load or import it into a host's runtime; what a container asks for it by. Raises: HawseError that names the path.

    Blocks until it is there: seconds for a large one.
    """
    request = (
        ImageImportRequest(name=image.name) if image.imported else ImageLoadRequest(name=image.name)
    )  # the runtime reads the descriptor
    try:
        fd = os.open(image.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HawseError(Kind.INVALID, f"the image {image.path} cannot be read: {error.strerror}") from None
    try:
        with Connection(root.runtime_socket) as connection:
            return _choose(_result(connection, msgspec.to_builtins(request), fd), image)
    except HawseError as error:
        error.message = f"the image {image.path} cannot be brought to {root.run.name}: {error.message}"
        raise
    finally:
        os.close(fd)


def _result(connection: Connection, message: dict[str, Any], fd: int) -> list[dict[str, Any]]:
    conversation = connection.converse(message, fd)
    while True:
        try:
            next(conversation)
        except StopIteration as end:
            return list(end.value["items"])


def _choose(items: list[dict[str, Any]], image: FoundImage) -> str:
    """Of what an archive held, the one that is meant."""
    meant = [item for item in items if image.name and {image.name, f"{image.name}:latest"} & set(item["names"])]
    found = meant or items
    if len(found) != 1:
        names = ", ".join(name for item in items for name in item["names"]) or "no names"
        raise HawseError(
            Kind.INVALID, f"it holds {len(items)} images ({names})", hint="say which: {load: PATH, name: NAME}"
        )
    return str((found[0]["names"] or [found[0]["id"]])[0])


__all__ = ["HOST_IMAGE", "FoundImage", "Images", "absolute", "bring", "find_images", "needed"]
