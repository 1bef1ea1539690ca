"""`python -m tests.runtime.image_tree DIR`: every fact about every file of a tree, as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from typing import Any


def facts_of(top: str) -> dict[str, Any]:
    """Type, mode, owner, time, content, link target, device, attributes, and which names are one file."""
    found: dict[str, Any] = {}
    first: dict[tuple[int, int], str] = {}
    stack = ["."]
    while stack:
        path = stack.pop()
        full = os.path.join(top, path)
        status = os.lstat(full)
        fact: dict[str, Any] = {
            "mode": oct(status.st_mode),
            "owner": [status.st_uid, status.st_gid],
            "mtime_ns": status.st_mtime_ns,
        }
        attributes = {name: os.getxattr(full, name, follow_symlinks=False).hex() for name in _names(full)}
        if attributes:
            fact["attributes"] = attributes
        if stat.S_ISLNK(status.st_mode):
            fact["link"] = os.readlink(full)
        elif stat.S_ISREG(status.st_mode):
            with open(full, "rb") as file:
                fact["content"] = hashlib.sha256(file.read()).hexdigest()[:16]
            fact["size"] = status.st_size
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            fact["device"] = status.st_rdev
        elif stat.S_ISDIR(status.st_mode):
            stack += [os.path.join(path, name) for name in sorted(os.listdir(full), reverse=True)]
        path = os.path.normpath(path)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            other = first.setdefault((status.st_dev, status.st_ino), path)
            if other != path:
                fact["same_as"] = other
        found[path] = fact
    return found


def _names(path: str) -> list[str]:
    return [name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("trusted.")]


if __name__ == "__main__":
    json.dump(facts_of(sys.argv[1]), sys.stdout)
