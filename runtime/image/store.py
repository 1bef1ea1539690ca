"""The images of a host: found by what they are called, listed, removed. What adds them is `load`, in a worker."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.image.catalog import Catalog, Names
from runtime.image.configuration import Configuration
from runtime.image.files import remove_trees
from runtime.image.host import HOST_ID, HOST_NAMES, HostImage
from runtime.image.layers import Layers
from runtime.image.reference import find, parse_name, short
from sdn.model.container import ImageInfo
from sdn.model.errors import HawseError, conflict, invalid


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """What a container is made of. `config`: the OCI configuration's `config` object, as it is in the image.

    `layers`: topmost first, as overlayfs takes them; none of them is ever written. `binds`: (source on the host,
    target inside), to be mounted read-only over them: the pseudo-image's.
    """

    id: str
    config: Mapping[str, Any]
    layers: tuple[Path, ...]
    binds: tuple[tuple[str, str], ...] = ()


class ImageStore:
    """Everything below one directory, which is made where it is missing. Many processes may use it at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("records", "layers", "tmp", "trash", "host", "empty"):
            (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.catalog = Catalog(directory)
        self.layers = Layers(directory)
        self.host = HostImage(directory / "host")

    def resolve(self, reference: str) -> Image:
        """An image as a container needs it. Raises: NOT_FOUND, INVALID (more than one is meant)."""
        image = self.find(reference)
        if image == HOST_ID:
            return Image(HOST_ID, self.host.config, (self.host.layer(),), self.host.binds())
        configuration = self.catalog.configuration(image)
        layers = tuple(self.layers.tree(chain_id) for chain_id in reversed(configuration.chain_ids))
        return Image(image, configuration.config, layers or (self.directory / "empty",))

    def find(self, reference: str) -> str:
        """The id of what is meant. Raises: NOT_FOUND, INVALID."""
        known = self.catalog.names()
        names = {**known.names, **dict.fromkeys(HOST_NAMES, HOST_ID)}
        return find(reference, names, known.digests, [*self.catalog.ids(), HOST_ID])

    def images(self) -> list[ImageInfo]:
        """All, newest first, the machine's own last."""
        names = self.catalog.names()
        found = [self._info(self.catalog.configuration(image), names) for image in self.catalog.ids()]
        return [*sorted(found, key=lambda info: (-info.created_s, info.id)), self.host.info()]

    def inspect(self, reference: str) -> ImageInfo:
        """One. Raises: NOT_FOUND, INVALID."""
        image = self.find(reference)
        if image == HOST_ID:
            return self.host.info()
        return self._info(self.catalog.configuration(image), self.catalog.names())

    def remove(
        self, reference: str, force: bool = False, users: Mapping[str, Sequence[str]] | None = None
    ) -> dict[str, list[str]]:
        """Take a name away, and the image with its last one; by id, the image with its only name.

        `users`: which containers are made of which image. `force`: by id, all names; and of an image that is used all
        names, while it stays until they are removed. Layers that nobody needs any more are out of reach when this
        returns, and deleted by `sweep`. Returns {"removed": names and ids}. Raises: NOT_FOUND, INVALID, CONFLICT.
        """
        image = self.find(reference)
        if image == HOST_ID:
            raise conflict("the image 'host' is this machine itself", "it cannot be removed")
        names = self.catalog.names().of(image)
        going = self.names_meant(reference, image)
        if len(going) > 1 and not force:
            raise conflict(
                f"the image {short(image)} has {len(names)} names: {', '.join(names)}",
                "take them away one by one, or all with --force",
                names=list(names),
            )
        containers = sorted((users or {}).get(image, ()))
        last = len(going) == len(names)
        if last and containers and not force:
            raise _used(reference, containers)
        if last and not containers:
            self.catalog.remove(image)
            self.collect()
            return {"removed": [*going, image]}
        with self.catalog.editing() as known:
            for name in going:
                known.names.pop(name, None)
        return {"removed": list(going)}

    def names_meant(self, reference: str, image: str) -> tuple[str, ...]:
        """The name of an image by which it was asked for; all where that was an id."""
        names = self.catalog.names().of(image)
        try:
            name = parse_name(reference)
        except HawseError:
            return names
        meant = [one for one in names if one == name] or [one for one in names if one.endswith(f"/{name}")]
        return tuple(meant) or names

    def collect(self) -> list[Path]:
        """Put layers that no image uses out of reach. Returns what may be deleted."""
        used = {chain for image in self.catalog.ids() for chain in self.catalog.configuration(image).chain_ids}
        return self.layers.collect(used)

    def sweep(self) -> None:
        """Delete what removals and killed loads left, and make the pseudo-image anew if it is old.

        Deleting may take a second per gigabyte: the daemon has it done by a worker (`verbs.sweep`).
        """
        with self.layers.unused() as nobody_loads:
            if nobody_loads:
                self.catalog.sweep()
        remove_trees([*self.collect(), *self.host.refresh()])

    def _info(self, configuration: Configuration, names: Names) -> ImageInfo:
        return ImageInfo(
            id=configuration.id,
            names=names.of(configuration.id),
            created_s=configuration.created_s,
            size_bytes=sum(self.layers.facts(chain_id).size_bytes for chain_id in configuration.chain_ids),
            layers=configuration.diff_ids,
            architecture=configuration.architecture,
            config=configuration.config,
        )

    def check_name(self, text: str) -> str:
        """A name that an image may get, the tag filled in. Raises: INVALID."""
        name = parse_name(text)
        if name in HOST_NAMES:
            raise invalid(f"the name {name} is this machine's own", "choose another name")
        return name


def _used(reference: str, containers: Sequence[str]) -> HawseError:
    shown = ", ".join(containers[:5]) + (f" and {len(containers) - 5} more" if len(containers) > 5 else "")
    return conflict(
        f"the image {reference!r} is used by {shown}",
        "remove the containers first, or --force, which takes its name and leaves it to them",
        containers=list(containers),
    )
