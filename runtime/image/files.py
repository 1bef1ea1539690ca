"""Files of the store: written whole or not at all, locked between processes, and removed by the tree."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

from sdn.model.errors import HawseError, exhausted, unavailable

_FULL = (errno.ENOSPC, errno.EDQUOT)


def store_error(error: OSError, what: str) -> HawseError:
    """What the disk said, as a sentence."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return exhausted(f"{what}: {reason}", "make room, e.g. by 'hawse image rm', and try again; nothing was left")
    return unavailable(f"{what}: {reason}", "look at the disk of the store")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there as a whole or as it was, also after a power cut. Raises: OSError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """A rename in it survives a power cut from here on."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """All that was written to the file system of this directory survives a power cut from here on. Raises: OSError."""
    import ctypes  # 10 ms that only a load needs

    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a file's lock; waits for it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold a file's (or directory's) lock if nobody else does."""
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """A directory that is gone afterwards; while it is in use it is locked, and a sweep leaves it alone."""
    directory = parent / secrets.token_hex(8)
    directory.mkdir(mode=0o700)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield directory
    finally:
        remove_trees([directory])
        os.close(descriptor)


def remove_trees(paths: list[Path]) -> None:
    """Remove directories with all that is in them, absent ones too.

    By rm(1): an image's tree may be deeper than Python recurses, and it is three times as quick.
    """
    if paths:
        subprocess.run(["rm", "-rf", "--one-file-system", "--", *map(os.fspath, paths)], check=False)
