"""A container's entry in the run directory: what whoever comes next must know of it, one line after the other.

    {…}                     what was to be launched, before anything of it exists
    pid PID START OUT ERR   it exists (its start time, and the pipes' inodes; 0: none) and waits
    runs                    its command was executed: from here on its end is recorded
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


RUNS = "runs"


class Entry:
    """What is in one entry. `started`: whether it ever ran; `pid` 0: it never came to be."""

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
        "started",
        "tty",
    )

    def __init__(self, head: dict[str, object]) -> None:
        self.id = str(head["id"])
        self.run = int(str(head["run"]))
        self.directory = str(head["directory"])
        self.cgroup = str(head["cgroup"])
        self.log_bytes_max = int(str(head["log_bytes_max"]))
        self.tty = bool(head["tty"])
        self.pid = self.start = self.out = self.err = 0
        self.started = self.frozen = False
        self.exit: ExitRecord | None = None


def parse(data: bytes) -> Entry | None:
    """An entry's text; None: it is not one, or was cut off in its first line."""
    lines = data.split(b"\n")[:-1]
    if not lines:
        return None
    try:
        entry = Entry(json.loads(lines[0]))
        for line in lines[1:]:
            _take_line(entry, line.decode())
    except (ValueError, KeyError, TypeError):
        return None
    return entry


def _take_line(entry: Entry, line: str) -> None:
    word, _, rest = line.partition(" ")
    if word == "pid":
        entry.pid, entry.start, entry.out, entry.err = map(int, rest.split())
    elif word == RUNS:
        entry.started = True
    elif word in ("frozen", "thawed"):
        entry.frozen = word == "frozen"
    elif word == "exited":
        entry.exit = json.loads(rest)


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
