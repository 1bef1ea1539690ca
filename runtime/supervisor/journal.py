"""A container's entry in the run directory: what whoever comes next must know of it, one line after the other.

    {…}                     what was to be launched, before anything of it exists
    pid PID START OUT ERR   it exists (its start time, and the pipes' inodes; 0: none) and waits
    go                      it may run: from here on its end is recorded
    frozen | thawed
    exited {…}              only where the file `exit` could not be written: the record

Appended, never rewritten; removed when its exit was acknowledged. A line that is not whole is as none.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan import ExitRecord


class Entry:
    """What is in one entry. `went`: it was let go; `pid` 0: it never came to be."""

    __slots__ = (
        "cgroup",
        "directory",
        "err",
        "exit",
        "frozen",
        "id",
        "log_bytes_max",
        "out",
        "pid",
        "run",
        "start",
        "tty",
        "went",
    )

    def __init__(self, head: dict[str, object]) -> None:
        self.id = str(head["id"])
        self.run = int(str(head["run"]))
        self.directory = str(head["directory"])
        self.cgroup = str(head["cgroup"])
        self.log_bytes_max = int(str(head["log_bytes_max"]))
        self.tty = bool(head["tty"])
        self.pid = self.start = self.out = self.err = 0
        self.went = self.frozen = False
        self.exit: ExitRecord | None = None


def parse(data: bytes) -> Entry | None:
    """An entry's text; None: not even its first line is whole."""
    lines = data.split(b"\n")[:-1]
    if not lines:
        return None
    try:
        entry = Entry(json.loads(lines[0]))
    except (ValueError, KeyError):
        return None
    for line in lines[1:]:
        word, _, rest = line.decode().partition(" ")
        if word == "pid":
            entry.pid, entry.start, entry.out, entry.err = map(int, rest.split())
        elif word == "go":
            entry.went = True
        elif word in ("frozen", "thawed"):
            entry.frozen = word == "frozen"
        elif word == "exited":
            entry.exit = json.loads(rest)
    return entry


def begin(path: str, head: dict[str, object]) -> int:
    """A new entry, with its first line. Returns: the descriptor to go on with. Raises: OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.write(fd, json.dumps(head).encode() + b"\n")
    return fd


def add(path: str, line: str) -> None:
    """A further line; an entry that is gone is fine."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(fd, line.encode() + b"\n")
    finally:
        os.close(fd)


def add_exit(path: str, record: ExitRecord) -> None:
    """The record, where its own file cannot be written. Raises: OSError."""
    add(path, f"exited {json.dumps(record)}")
