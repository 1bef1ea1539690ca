"""The lowest layer of every container: the mount points that each of them needs, empty, for images without them.

What an image lacks would else be made in the container's own upper directory, at each start: directories copied up,
files made, a third of a launch. An image that has them hides these.
"""

from __future__ import annotations

import os
from pathlib import Path

from runtime.daemon.system_files import NAMES

_DIRECTORIES = ("", "etc", "proc", "dev", "sys")


def lay_ground(directory: Path) -> str:
    """Make it where it is not there yet, whole or not; its path."""
    mask = os.umask(0o022)
    try:
        for name in _DIRECTORIES:
            os.makedirs(directory / name, mode=0o755, exist_ok=True)
        for name in NAMES:
            os.close(os.open(directory / "etc" / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    finally:
        os.umask(mask)
    return os.fspath(directory)
