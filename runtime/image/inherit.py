"""What a layer takes over from those below it, which its archive leaves open and overlayfs does not ask.

A directory that the archive implies (`a/b` without an entry `a`) is the one below: same owner, mode, time, attributes.
A whiteout that hides nothing goes: in a directory that no layer below has, overlayfs would list it. An opaque root
hides all that is below; overlayfs has no mark for that, so each name there gets a whiteout.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from runtime.image.confine import confined
from runtime.image.unpack import OPAQUE, Unpacked, is_whiteout

_OVERLAY = "trusted.overlay."


def inherit(tree: Path, unpacked: Unpacked, below: Sequence[Path]) -> None:
    """`below`: trees of the layers below, topmost first. Needs a process of its own."""
    if not unpacked.implied and not unpacked.whiteouts and not unpacked.opaque_root:
        return
    wanted = dict.fromkeys(unpacked.implied)
    hiding = set(unpacked.whiteouts)
    needed: set[bytes] = set()
    found: dict[bytes, _Directory] = {}
    names: set[bytes] = set()
    with confined(tree):
        hiding -= {path for path in hiding if _look(path, own=True) is _Seen.HIDDEN}
    for lower in below:
        with confined(lower):
            names.update(os.listdir(b"/"))
            for path in list(wanted):
                if _look(path) is not _Seen.ABSENT:
                    del wanted[path]
                    found.update(_directory(path))
            for path in list(hiding):
                seen = _look(path)
                if seen is _Seen.THERE:
                    needed.add(path)
                if seen is not _Seen.ABSENT:
                    hiding.discard(path)
    with confined(tree):
        for path, directory in found.items():
            directory.apply(path)
        for path in set(unpacked.whiteouts) - needed:
            _drop(path)
        if unpacked.opaque_root:
            _hide(names)


class _Seen(enum.Enum):
    """`ABSENT`: a layer further down decides. `HIDDEN`: none further down is seen here."""

    THERE = enum.auto()
    ABSENT = enum.auto()
    HIDDEN = enum.auto()


def _look(path: bytes, own: bool = False) -> _Seen:
    """Whether one layer has a name, looking as overlayfs does, without following links. `own`: only the way counts."""
    opaque = False
    at = 0
    while at >= 0:
        at = path.find(b"/", at + 1)
        prefix = path if at < 0 else path[:at]
        if at < 0 and own:
            break
        try:
            status = os.lstat(prefix)
        except OSError:
            break
        if is_whiteout(status) or (at >= 0 and not stat.S_ISDIR(status.st_mode)):
            return _Seen.HIDDEN
        if at < 0:
            return _Seen.THERE
        opaque = opaque or _is_opaque(prefix)
    return _Seen.HIDDEN if opaque else _Seen.ABSENT


def _is_opaque(path: bytes) -> bool:
    try:
        return os.getxattr(path, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


@dataclasses.dataclass(frozen=True, slots=True)
class _Directory:
    status: os.stat_result
    attributes: dict[str, bytes]

    def apply(self, path: bytes) -> None:
        """Make a directory of the layer like this one."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # replaced by a later entry
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fchown(fd, self.status.st_uid, self.status.st_gid)
                os.fchmod(fd, stat.S_IMODE(self.status.st_mode))
                for name, value in self.attributes.items():
                    os.setxattr(fd, name, value)
                os.utime(fd, ns=(self.status.st_mtime_ns, self.status.st_mtime_ns))
            finally:
                os.close(fd)


def _directory(path: bytes) -> dict[bytes, _Directory]:
    """What a directory of a layer below is like; nothing where it is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return {}
    if not stat.S_ISDIR(status.st_mode):
        return {}
    names = [name for name in os.listxattr(path) if not name.startswith(_OVERLAY)]
    return {path: _Directory(status, {name: os.getxattr(path, name) for name in names})}


def _drop(path: bytes) -> None:
    """A whiteout, if it still is one; its directory's time stays."""
    parent = path.rpartition(b"/")[0] or b"."
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if is_whiteout(os.lstat(path)):
            status = os.stat(parent)
            os.unlink(path)
            os.utime(parent, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _hide(names: set[bytes]) -> None:
    for name in names:
        try:
            status = os.lstat(name)
        except FileNotFoundError:
            os.mknod(name, stat.S_IFCHR, 0)
        else:
            if stat.S_ISDIR(status.st_mode):
                os.setxattr(name, OPAQUE, b"y")
