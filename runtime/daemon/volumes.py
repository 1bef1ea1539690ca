"""Named volumes: directories of the host that outlive containers. A new one begins as what the image has there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from runtime.daemon.records import delete
from sdn.model.container import MountSpec
from sdn.model.errors import unavailable

OPAQUE = "trusted.overlay.opaque"


async def make_volume(directory: Path, mount: MountSpec, layers: Sequence[str]) -> None:
    """Where there is none of that name yet. Raises: UNAVAILABLE (the disk)."""
    if not (directory / mount.source).is_dir():
        await asyncio.to_thread(_make, directory, mount, layers)


def _make(directory: Path, mount: MountSpec, layers: Sequence[str]) -> None:
    draft = directory / f".{secrets.token_hex(8)}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.mkdir(mode=0o755)
        fill(draft, find_in_layers(mount.target, layers))
        with contextlib.suppress(FileExistsError, OSError):  # somebody else was as quick: then theirs it is
            os.rename(draft, directory / mount.source)
    except OSError as error:
        raise unavailable(f"cannot make volume {mount.source}: {error}", "look at the disk") from None
    finally:
        if draft.exists():
            delete(draft)


def find_in_layers(target: str, layers: Sequence[str]) -> list[str]:
    """The directories of the layers that are merged at a path of the image, topmost first.

    A path that leads through a link is taken for absent: where it leads only the container's own root could say.
    """
    found: list[str] = []
    for layer in layers:
        path, last = layer, False
        for part in [part for part in target.split("/") if part]:
            path = f"{path}/{part}"
            try:
                mode = os.lstat(path)
            except OSError:
                break
            if not stat.S_ISDIR(
                mode.st_mode
            ):  # a whiteout, a link, a file: what is below it in other layers is not seen
                return found
            last = last or _opaque(path)
        else:
            found.append(path)
        if last:
            break
    return found


def _opaque(path: str) -> bool:
    try:
        return os.getxattr(path, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def fill(target: Path, sources: Sequence[str]) -> None:
    """Copy the merged content of directories (topmost first) into one that is empty, with owners, modes and times."""
    if not sources:
        return
    seen: set[str] = set()
    for place, source in enumerate(sources):
        with os.scandir(source) as entries:
            for entry in entries:
                if entry.name in seen:
                    continue
                seen.add(entry.name)
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    (target / entry.name).mkdir()
                    fill(target / entry.name, _below(sources[place:], entry.name))
                else:
                    _copy(entry.path, os.fspath(target / entry.name), status)
    status = os.lstat(sources[0])
    os.chown(target, status.st_uid, status.st_gid)
    shutil.copystat(sources[0], target)


def _below(sources: Sequence[str], name: str) -> list[str]:
    """What of a directory's entry is merged: down to the first that is no directory, or opaque."""
    below: list[str] = []
    for source in sources:
        path = f"{source}/{name}"
        try:
            status = os.lstat(path)
        except OSError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            break
        below.append(path)
        if _opaque(path):
            break
    return below


def _copy(source: str, target: str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(status.st_mode):
        shutil.copyfile(source, target, follow_symlinks=False)
    else:
        if not (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0):  # a whiteout stands for nothing
            os.mknod(target, status.st_mode, status.st_rdev)
        else:
            return
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    shutil.copystat(source, target, follow_symlinks=False)
