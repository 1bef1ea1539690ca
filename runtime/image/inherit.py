"""What a layer takes over from those below it, which its archive leaves open and overlayfs does not ask.

A directory that the archive implies (`a/b` without an entry `a`) is the one below: same owner, mode, time, attributes.
An opaque root hides all that is below; overlayfs has no mark for that, so each name there gets a whiteout.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from runtime.image.confine import confined
from runtime.image.unpack import Unpacked

_OVERLAY = "trusted.overlay."


def inherit(tree: Path, unpacked: Unpacked, below: Sequence[Path]) -> None:
    """`below`: trees of the layers below, topmost first. Needs a process of its own."""
    wanted = dict.fromkeys(unpacked.implied)
    found: dict[bytes, tuple[os.stat_result, dict[str, bytes]]] = {}
    names: set[bytes] = set()
    for lower in below:
        if not wanted and not unpacked.opaque_root:
            break
        with confined(lower):
            names.update(os.listdir(b"/"))
            for path in list(wanted):
                status = _status(path)
                if status is not None:
                    del wanted[path]
                    if stat.S_ISDIR(status.st_mode):
                        found[path] = (status, _attributes(path))
    with confined(tree):
        for path, (status, attributes) in found.items():
            _apply(path, status, attributes)
        if unpacked.opaque_root:
            _hide(names)


def _status(path: bytes) -> os.stat_result | None:
    """A link on the way would lead elsewhere in the merged tree: then nothing is known."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def _attributes(path: bytes) -> dict[str, bytes]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
        if not name.startswith(_OVERLAY)
    }


def _apply(path: bytes, status: os.stat_result, attributes: dict[str, bytes]) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # replaced by a later entry
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(fd, status.st_uid, status.st_gid)
            os.fchmod(fd, stat.S_IMODE(status.st_mode))
            for name, value in attributes.items():
                os.setxattr(fd, name, value)
            os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(fd)


def _hide(names: set[bytes]) -> None:
    for name in names:
        try:
            status = os.lstat(name)
        except FileNotFoundError:
            os.mknod(name, stat.S_IFCHR, 0)
        else:
            if stat.S_ISDIR(status.st_mode):
                os.setxattr(name, f"{_OVERLAY}opaque", b"y")
