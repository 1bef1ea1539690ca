"""Loading: the images of an archive, or one made of a root file system. Runs in the worker."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence

from runtime.image.configuration import (
    Configuration,
    check_architecture,
    machine_architecture,
    parse_configuration,
)
from runtime.image.contents import Contents, Report, Stage, Staged, open_contents
from runtime.image.files import sync_file_system
from runtime.image.inherit import inherit
from runtime.image.layers import TREE, LayerFacts
from runtime.image.manifest import ImagePlan, plan
from runtime.image.reference import short
from runtime.image.store import ImageStore
from runtime.image.stream import Extent, Pipe, Read
from sdn.model.errors import invalid

_TREE_TITLE = "root file system"


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where an archive comes from. `watch`: when its other end is closed, nobody wants it any more."""

    fd: int
    watch: int | None


def load(store: ImageStore, source: Source, name: str, report: Report) -> list[str]:
    """All images of an archive or an OCI layout; their ids. Raises: INVALID, OSError; nothing is recorded then."""
    wanted = (store.check_name(name),) if name else ()
    with store.layers.loading() as directory:
        contents = open_contents(source.fd, Stage(directory, report), source.watch)
        plans = plan(contents.text)
        if wanted and len(plans) > 1:
            raise invalid(f"the archive holds {len(plans)} images: one name is not enough", "leave --name out")
        images = [(one, _check(store, one)) for one in plans]
        for one, configuration in images:
            _add_layers(store, contents, one, configuration, report)
        sync_file_system(store.directory)
        ids = [store.catalog.add(one.configuration, (*one.names, *wanted), one.digests) for one in plans]
        return list(dict.fromkeys(ids))


def _add_layers(
    store: ImageStore, contents: Contents, one: ImagePlan, configuration: Configuration, report: Report
) -> None:
    chain = configuration.chain_ids
    for number, (layer, diff_id) in enumerate(zip(one.layers, configuration.diff_ids, strict=True)):
        if store.layers.has(chain[number]):
            report(short(diff_id), 0, 0, True)
            continue
        staged = contents.stage(layer, short(diff_id))
        if layer.digest not in ("", staged.digest) or staged.diff_id != diff_id:
            raise invalid(
                f"the layer {short(diff_id)} is not what its digest says",
                "it was damaged on its way; save or copy the image again",
            )
        _place(store, staged, chain[: number + 1])


def _place(store: ImageStore, staged: Staged, chain: Sequence[str]) -> None:
    """Give an unpacked layer its place above those of the chain before it."""
    below = [store.layers.tree(chain_id) for chain_id in reversed(chain[:-1])]
    inherit(staged.directory / TREE, staged.unpacked, below)
    facts = LayerFacts(
        diff_id=staged.diff_id, size_bytes=staged.unpacked.size_bytes, archive_bytes=staged.archive_bytes
    )
    staged.directory = store.layers.add(staged.directory, chain[-1], facts)


def import_tree(store: ImageStore, source: Source, name: str, config: dict[str, object], report: Report) -> list[str]:
    """One image of a root file system, an archive or a directory. Raises: INVALID, OSError."""
    wanted = store.check_name(name)
    with store.layers.loading() as directory:
        stage = Stage(directory, report)
        with _archive(source) as (read, size):
            staged = stage.unpack(read, size, _TREE_TITLE)
        if not staged.unpacked.entries:
            raise invalid("the archive holds nothing", "name a root file system: a tar archive or a directory")
        configuration = _configuration_of(staged.diff_id, config)
        _place(store, staged, parse_configuration(configuration).chain_ids)
        sync_file_system(store.directory)
        return [store.catalog.add(configuration, [wanted])]


@contextlib.contextmanager
def _archive(source: Source) -> Iterator[tuple[Read, int]]:
    """The archive of a root file system, and its size, 0 where nobody knows; a directory's is made by tar(1)."""
    status = os.fstat(source.fd)
    if stat.S_ISREG(status.st_mode):
        offset = os.lseek(source.fd, 0, os.SEEK_CUR)
        yield Extent(source.fd, offset, status.st_size - offset).read, status.st_size - offset
    elif not stat.S_ISDIR(status.st_mode):
        yield Pipe(source.fd, source.watch).read, 0
    else:
        with subprocess.Popen(_TAR, stdin=source.fd, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tar:
            assert tar.stdout is not None
            assert tar.stderr is not None
            try:
                yield Pipe(tar.stdout.fileno(), source.watch).read, 0
                complaint = tar.stderr.read().decode(errors="replace").strip()
                if tar.wait() != 0:
                    raise invalid(f"the directory cannot be read: {complaint[:300]}", "is it changing?")
            finally:
                tar.kill()


_TAR = (
    "tar", "--create", "--file=-", "--directory=/proc/self/fd/0", "--format=pax", "--numeric-owner", "--sort=name",
    "--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability", "--warning=no-file-ignored",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", ".",
)  # fmt: skip
"""Sorted, and without what changes by looking: the same tree gives the same image."""


def _configuration_of(diff_id: str, config: dict[str, object]) -> bytes:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    value = {
        "created": now,
        "architecture": machine_architecture(),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": now, "created_by": "hawse image import"}],
    }
    return json.dumps(value).encode()


def _check(store: ImageStore, one: ImagePlan) -> Configuration:
    """Before anything is unpacked. Raises: INVALID."""
    configuration = parse_configuration(one.configuration)
    check_architecture(configuration.architecture)
    for name in one.names:
        store.check_name(name)
    if len(one.layers) != len(configuration.diff_ids):
        raise invalid(
            f"the image {short(configuration.id)} has {len(one.layers)} layers, its configuration tells of "
            f"{len(configuration.diff_ids)}",
            "save the image again",
        )
    return configuration
