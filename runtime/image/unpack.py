"""A layer's archive becomes a tree that overlayfs takes as it is: whiteouts as devices 0:0, opaque directories marked.

Runs confined to the tree. What an image may have: files with set-id bits (no_new_privs guards), devices (inert: an
image's root is mounted nodev), fifos, `user.*` attributes and file capabilities. What it may not: attributes that steer
overlayfs (`trusted.*`, `user.overlay.*`) or are another machine's policy; they are left out of the tree, not of the
archive. A later entry of the same name takes the earlier one's place.

Source: OCI image specification, "Image Layer Filesystem Changeset"; Linux, filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import posixpath
import stat
from collections.abc import Callable
from pathlib import Path

from runtime.image.confine import confined
from runtime.image.recipe import RecipeWriter
from runtime.image.stream import Stream
from runtime.image.tar import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, LINK, REGULAR, SYMLINK, Entry, TarReader
from sdn.model.errors import HawseError, invalid

ENTRIES_MAX = 2_000_000
"""Of one layer; the largest images have some 300 000."""
_ID_MAX = 2**32 - 2
_WHITEOUT, _OPAQUE, _AUFS = b".wh.", b".wh..wh..opq", b".wh..wh."
OPAQUE = "trusted.overlay.opaque"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LITERAL_BYTES = 256 << 10
"""What is kept of an archive without files in it before it is written down."""
_DEVICES = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EPERM)
"""A file system without such attributes has none."""
_ENTRY_ERRORS = frozenset(
    (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EPERM, errno.EMLINK, errno.ENXIO, errno.EFBIG)
)
"""Whatever the disk, this entry cannot be."""


@dataclasses.dataclass(slots=True)
class Unpacked:
    """`implied`: directories that no entry describes, with which they would hide those of the layers below.

    `opaque_root`: the whole of the layers below is hidden, which overlayfs has no mark for. `whiteouts`: names hidden.
    """

    size_bytes: int = 0
    entries: int = 0
    opaque_root: bool = False
    implied: list[bytes] = dataclasses.field(default_factory=list)
    whiteouts: list[bytes] = dataclasses.field(default_factory=list)


def unpack(stream: Stream, tree: Path, recipe: RecipeWriter | None, what: str) -> Unpacked:
    """Unpack a whole stream. Raises: INVALID (what the archive is), OSError (what the disk is)."""
    reader = TarReader(stream, what, keep=recipe is not None)
    unpacker = _Unpacker(reader, recipe, what)
    with confined(tree):
        unpacker.run()
        if recipe is not None:
            recipe.literal(reader.literal)
        rest = bytearray()
        for piece in stream.rest():  # behind the end mark; the digest is of all
            if recipe is not None:
                rest += piece
                recipe.literal(rest)
        unpacker.finish()
    return unpacker.result


class _Unpacker:
    def __init__(self, reader: TarReader, recipe: RecipeWriter | None, what: str) -> None:
        self._reader = reader
        self._recipe = recipe
        self._what = what
        self._directories: dict[bytes, Entry] = {}
        self.result = Unpacked()

    def _bad(self, reason: str) -> HawseError:
        return invalid(f"{self._what} cannot be unpacked: {reason}", "this is no image that can be trusted")

    def run(self) -> None:
        for entry in self._reader.entries():
            self.result.entries += 1
            if self.result.entries > ENTRIES_MAX:
                raise self._bad(f"it has more than {ENTRIES_MAX} entries")
            try:
                self._place(entry)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
                raise self._bad(f"{_shown(entry.name)}: {error.strerror}") from None
            except OSError as error:
                if error.errno in _ENTRY_ERRORS:
                    raise self._bad(f"{_shown(entry.name)}: {error.strerror}") from None
                raise
            if self._recipe is not None and len(self._reader.literal) > _LITERAL_BYTES:
                self._recipe.literal(self._reader.literal)

    def _place(self, entry: Entry) -> None:
        if entry.uid > _ID_MAX or entry.gid > _ID_MAX:
            raise self._bad(f"{_shown(entry.name)} has an impossible owner")
        path = self._path(entry.name)
        parent, _, base = path.rpartition(b"/")
        if base.startswith(_WHITEOUT):
            self._whiteout(parent, base)
        elif not path:
            if entry.kind != DIRECTORY:
                raise self._bad("its root is no directory")
            self._directories[b"."] = entry
        elif entry.kind == REGULAR:
            self._file(path, entry)
        elif entry.kind == DIRECTORY:
            self._directory(path, entry)
        elif entry.kind == SYMLINK:
            self._symlink(path, entry)
        elif entry.kind == LINK:
            self._link(path, entry)
        elif entry.kind in _DEVICES:
            self._device(path, entry)
        else:
            raise self._bad(f"{_shown(entry.name)} is of the unknown kind {bytes([entry.kind])!r}")

    def _path(self, name: bytes) -> bytes:
        """Relative to the tree's root; b"" is the root itself."""
        parts = [part for part in name.split(b"/") if part and part != b"."]
        if b".." in parts:
            raise self._bad(f"{_shown(name)} leads out of it")
        return b"/".join(parts)

    def _whiteout(self, parent: bytes, base: bytes) -> None:
        if base == _OPAQUE:
            if not parent:
                self.result.opaque_root = True
                return
            self._make_parents(parent + b"/-")
            self._make_opaque(parent)
            return
        if base.startswith(_AUFS):  # of a file system that nobody has any more
            return
        hidden = base[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise self._bad(f"the whiteout {_shown(base)} hides no name")
        path = parent + b"/" + hidden if parent else hidden
        self.result.whiteouts.append(path)
        try:
            os.mknod(path, stat.S_IFCHR, 0)
        except FileNotFoundError:
            self._make_parents(path)
            os.mknod(path, stat.S_IFCHR, 0)
        except FileExistsError:
            # a whiteout is of the layers below: what this layer has itself stays, and hides them by being there
            if stat.S_ISDIR(os.lstat(path).st_mode):
                self._make_opaque(path)

    def _file(self, path: bytes, entry: Entry) -> None:
        fd = self._open(path, entry.mode)
        try:
            if entry.stored_bytes or entry.pieces:
                self._fill(fd, path, entry)
            if entry.uid or entry.gid:
                os.fchown(fd, entry.uid, entry.gid)
            if entry.mode & 0o7000:  # after writing and chown, which take set-id bits away
                os.fchmod(fd, entry.mode)
            if entry.xattrs:
                self._attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self.result.size_bytes += entry.size_bytes

    def _open(self, path: bytes, mode: int) -> int:
        try:
            return os.open(path, _CREATE, mode)
        except FileNotFoundError:
            self._make_parents(path)
        except (FileExistsError, NotADirectoryError):
            self._make_room(path)
        return os.open(path, _CREATE, mode)

    def _fill(self, fd: int, path: bytes, entry: Entry) -> None:
        number = self._recipe.file(os.fstat(fd).st_ino) if self._recipe is not None and entry.stored_bytes else 0
        if entry.pieces is not None:
            os.ftruncate(fd, entry.size_bytes)
        for offset, size in entry.pieces if entry.pieces is not None else ((0, entry.stored_bytes),):
            if not size:
                continue
            if self._recipe is not None:
                self._recipe.payload(self._reader.literal, number, path, offset, size)
            for piece in self._reader.pieces(size):
                written = 0
                while written < len(piece):
                    count = os.pwrite(fd, piece[written:], offset)
                    written += count
                    offset += count

    def _directory(self, path: bytes, entry: Entry) -> None:
        try:
            os.mkdir(path, 0o700)
        except FileNotFoundError:
            self._make_parents(path)
            os.mkdir(path, 0o700)
        except (FileExistsError, NotADirectoryError):
            if not _is_directory(path):
                over_whiteout = self._make_room(path)
                os.mkdir(path, 0o700)
                if over_whiteout:
                    self._make_opaque(path)
        self._directories[path] = entry

    def _symlink(self, path: bytes, entry: Entry) -> None:
        if not entry.link:
            raise self._bad(f"the link {_shown(path)} leads nowhere")
        self._made(path, lambda: os.symlink(entry.link, path))
        os.lchown(path, entry.uid, entry.gid)
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)

    def _link(self, path: bytes, entry: Entry) -> None:
        target = self._path(entry.link)
        if target == path:
            raise self._bad(f"{_shown(path)} is a hard link to itself")
        try:
            status = os.lstat(target or b".")
        except OSError:
            raise self._bad(f"{_shown(path)} is a hard link to {_shown(target)}, which is not in it") from None
        if stat.S_ISDIR(status.st_mode):
            raise self._bad(f"{_shown(path)} is a hard link to a directory")
        self._made(path, lambda: os.link(target, path, follow_symlinks=False))

    def _device(self, path: bytes, entry: Entry) -> None:
        device = os.makedev(entry.major & 0xFFFFFFFF, entry.minor & 0xFFFFFFFF)
        self._made(path, lambda: os.mknod(path, _DEVICES[entry.kind] | entry.mode & 0o777, device))
        os.lchown(path, entry.uid, entry.gid)
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)

    def _made(self, path: bytes, make: Callable[[], None]) -> None:
        """Make it; where that fails, for its parents are missing or something is there, again after a remedy."""
        try:
            make()
            return
        except FileNotFoundError:
            self._make_parents(path)
        except (FileExistsError, NotADirectoryError):
            self._make_room(path)
        make()

    def _make_parents(self, path: bytes) -> None:
        """Directories that no entry has described so far. A link that leads to none is followed to where it leads."""
        at = path.find(b"/")
        while at > 0:
            parent = path[:at]
            try:
                os.mkdir(parent, 0o755)
                self.result.implied.append(parent)
            except FileExistsError:
                self._make_directory_of(parent)
            at = path.find(b"/", at + 1)

    def _make_directory_of(self, parent: bytes) -> None:
        """What is there becomes a directory: a whiteout, for this layer's own wins, or what a link leads to."""
        status = os.lstat(parent)
        if is_whiteout(status):
            os.unlink(parent)
            os.mkdir(parent, 0o755)
            self._make_opaque(parent)
        elif stat.S_ISLNK(status.st_mode) and not os.path.exists(parent):
            real = posixpath.realpath(b"/" + parent).lstrip(b"/")
            if not stat.S_ISLNK(_mode(real)):  # a loop stays one
                self._make_parents(real + b"/-")

    def _make_room(self, path: bytes) -> bool:
        """Take away what has the name. Returns whether that was a whiteout."""
        try:
            status = os.lstat(path)
        except NotADirectoryError:
            self._make_parents(path)
            return False
        if stat.S_ISDIR(status.st_mode):
            self._remove_tree(path)
            return False
        self._remove(path, status)
        return is_whiteout(status)

    def _remove(self, path: bytes, status: os.stat_result) -> None:
        if self._recipe is not None and stat.S_ISREG(status.st_mode):
            self._recipe.keep(path, status.st_ino)
        os.unlink(path)

    def _remove_tree(self, top: bytes) -> None:
        """Not recursive: an image decides how deep it is."""
        stack = [top]
        while stack:
            directory = stack[-1]
            below = []
            for name in os.listdir(directory):
                path = directory + b"/" + name
                status = os.lstat(path)
                if stat.S_ISDIR(status.st_mode):
                    below.append(path)
                else:
                    self._remove(path, status)
            if below:
                stack += below
            else:
                os.rmdir(stack.pop())
        for path in [path for path in self._directories if path == top or path.startswith(top + b"/")]:
            del self._directories[path]

    def _make_opaque(self, path: bytes) -> None:
        os.setxattr(path, OPAQUE, b"y")

    def _attributes(self, target: int | bytes, entry: Entry) -> None:
        for name, value in entry.xattrs.items():
            if name == b"security.capability" or (name.startswith(b"user.") and not name.startswith(b"user.overlay.")):
                try:
                    os.setxattr(target, name, value)
                except OSError as error:
                    if error.errno not in _UNSUPPORTED:
                        raise self._bad(
                            f"{_shown(entry.name)}: the attribute {_shown(name)} of {len(value)} bytes is refused: "
                            f"{error.strerror}"
                        ) from None

    def finish(self) -> None:
        """What later entries would have changed: owners, modes and times of directories."""
        for path, entry in self._directories.items():
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):  # it was below a link that is one no more
                continue
            try:
                os.fchown(fd, entry.uid, entry.gid)
                os.fchmod(fd, entry.mode)
                self._attributes(fd, entry)
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(fd)
        described = self._directories.keys()
        self.result.implied = [path for path in self.result.implied if path not in described]
        for path in self.result.implied:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.utime(path, (0, 0), follow_symlinks=False)


def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _mode(path: bytes) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _is_directory(path: bytes) -> bool:
    return stat.S_ISDIR(_mode(path))


def _shown(name: bytes) -> str:
    """A name for a sentence, at its end where it is long."""
    text = repr(name.decode("utf-8", "backslashreplace"))
    return text if len(text) <= 120 else f"{text[:50]}…{text[-60:]}"
