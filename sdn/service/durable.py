"""Files that hold what must not be lost: whole and on the disk, or as they were."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file (mode 0600): nobody sees half of it, others never read it, and after a crash it is old or new.

    It has one writer at a time. Raises: OSError; then it is as it was, but for an error of the last step, which may
    leave the new one.
    """
    temporary = path.with_name(f".{path.name}.new")  # one name, so that no writer that was killed leaves more than one
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
