"""Taking a lab away, whatever state it is in: by its directory, namespaces and cgroups, not by what was remembered.

Containers live in namespaces that nobody has pinned; whose they are tells the cgroup that each is born in.

The kernel frees links, addresses, routes and tables with the namespaces; so nothing is deleted one by one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import msgspec

from plugin.kernel import namespace
from runtime.cgroup import CgroupError, Hierarchies, prefix_of, sweep
from sdn.model.errors import HawseError, Kind
from topologies import processes
from topologies.record import Directory

ROUNDS_MAX = 10
"""Processes may start others while they are looked for; a lab that still breeds after this many rounds is reported."""


def destroy(directory: Directory) -> None:
    """End everything of a lab and remove its directory. Twice is fine.

    Goes on after an error. Raises: UNAVAILABLE or INTERNAL, with all that went wrong.
    """
    problems: list[str] = []
    for end in (_end_processes, _end_containers):  # in this order: who would start containers is dead then
        try:
            end(directory)
        except HawseError as error:
            problems.append(str(error))
    for path in _mounts(directory.path):
        try:
            namespace.remove(path)
        except OSError as error:
            problems.append(str(error))
    for _ in range(2):  # a directory that somebody wrote into meanwhile
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory.path, onerror=None if problems else _ignore)
    if directory.path.exists():
        problems.append(f"{directory.path} could not be removed")
    if problems:
        raise HawseError(
            Kind.UNAVAILABLE,
            f"the lab {directory.id} could not be removed whole: {'; '.join(problems)}",
            hint=f"try again: hawse lab down {directory.id}",
        )


def _ignore(*_: object) -> None:
    """rmtree goes on after an error; what is left is seen afterwards."""


def _end_processes(directory: Directory) -> None:
    record = directory.read()
    if record is not None:
        with contextlib.suppress(OSError):
            directory.write(msgspec.structs.replace(record, phase="going"))
        if record.builder is not None and record.builder.pid != os.getpid():
            processes.end([record.builder])
        processes.end(process for process in record.processes.values() if process.pid != os.getpid())
    for _ in range(ROUNDS_MAX):
        found = processes.inside(namespaces_of(directory))
        if not found:
            return
        processes.end(found)
    raise HawseError(Kind.UNAVAILABLE, f"new processes keep starting in the lab {directory.id}")


def _end_containers(directory: Directory) -> None:
    hierarchies = Hierarchies.detect()
    problems: list[str] = []
    for path in roots_of(directory):
        try:
            sweep(hierarchies, prefix_of(str(path)), ())
        except (CgroupError, OSError) as error:
            problems.append(str(error))
    if problems:
        raise HawseError(Kind.UNAVAILABLE, "; ".join(problems))


def roots_of(directory: Directory) -> list[Path]:
    """Every directory of a lab that may be a host's root."""
    with contextlib.suppress(FileNotFoundError):
        return [path for path in directory.path.iterdir() if path.is_dir() and path.name not in ("ns", "log")]
    return []


def namespaces_of(directory: Directory) -> list[Path]:
    """Every pinned namespace of a lab: hosts' and, below the hosts' roots, tenants'."""
    return [*directory.path.glob("ns/*"), *directory.path.glob("*/netns/*")]


def _mounts(below: Path) -> list[Path]:
    """Mount points below a directory, the innermost and latest first."""
    prefix = f"{below}/"
    found: list[Path] = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            point = line.split(" ")[4]
            if point.startswith(prefix):
                found.append(Path(point))  # octal escapes cannot occur: names of ours have no blanks
    return list(dict.fromkeys(reversed(found)))
