"""What runs in a container, as the host's /proc shows it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from typing import Any

from runtime.cgroup import Cgroup, Hierarchies

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def processes_in(cgroup: str) -> list[dict[str, Any]]:
    """`top`'s rows of the processes in a cgroup."""
    return list(_rows(Cgroup(Hierarchies.detect(), cgroup).pids()))


def _rows(pids: Iterable[int]) -> Iterable[dict[str, Any]]:
    for pid in sorted(pids):
        try:
            yield _row(pid)
        except (OSError, ValueError, IndexError):  # it ended while it was looked at
            continue


def _row(pid: int) -> dict[str, Any]:
    with open(f"/proc/{pid}/stat", "rb") as file:
        head, _, rest = file.read().rpartition(b") ")
    fields = rest.split()
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    uid = os.stat(f"/proc/{pid}").st_uid
    return {
        "pid": pid,
        "ppid": int(fields[1]),
        "user": _user(uid),
        "cpu_s": (int(fields[11]) + int(fields[12])) / _TICKS,
        "resident_bytes": int(fields[21]) * _PAGE_BYTES,
        "command": words or f"[{head.partition(b'(')[2].decode(errors='replace')}]",
    }


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def network_bytes(pid: int) -> tuple[int, int]:
    """(received, sent) by all interfaces of a process's network namespace but the loopback."""
    received = sent = 0
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii", errors="replace") as file:
            for line in file.readlines()[2:]:
                name, _, numbers = line.partition(":")
                if name.strip() != "lo":
                    fields = numbers.split()
                    received, sent = received + int(fields[0]), sent + int(fields[8])
    except (OSError, ValueError, IndexError):
        return 0, 0
    return received, sent
