"""Inside an image's tree: every path is resolved there, whatever links the image has, as in a container."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def confined(tree: Path) -> Iterator[None]:
    """This process's root is the tree, for a while, and its umask 0; needs a process of its own.

    chroot(2) is no jail for code, but it is one for paths: no `..`, link or absolute path leads out. The way back is a
    descriptor. Nothing can be imported meanwhile: it would be looked for, and run, in the image.
    """
    outside = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finders = sys.meta_path[:]
    sys.meta_path.clear()
    try:
        os.chroot(tree)
        os.chdir("/")
        umask = os.umask(0)
        try:
            yield
        finally:
            os.umask(umask)
    finally:
        os.fchdir(outside)
        os.chroot(".")
        os.fchdir(before)
        sys.meta_path[:] = finders
        os.close(outside)
        os.close(before)
