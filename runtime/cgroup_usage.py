"""What a container's cgroup counts, read from wherever this machine's controllers are."""

from __future__ import annotations

import os

from runtime.cgroup_files import field, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.hierarchies import Hierarchies

UNLIMITED = 1 << 62
"""v1 says "no limit" by the largest multiple of a page that fits; nothing real is this large."""


def usage(hierarchies: Hierarchies, path: str) -> dict[str, int]:
    """The numbers of `sdn.model.container.Usage` that cgroups know, by its names; what nobody counts is 0."""
    memory_bytes, memory_max_bytes = _memory(hierarchies, path)
    pids, pids_max = _pids(hierarchies, path)
    read_bytes, written_bytes = _block_io(hierarchies, path)
    return {
        "cpu_ns": _cpu_ns(hierarchies, path),
        "memory_bytes": memory_bytes,
        "memory_max_bytes": memory_max_bytes,
        "pids": pids,
        "pids_max": pids_max,
        "read_bytes": read_bytes,
        "written_bytes": written_bytes,
    }


def _number(text: str) -> int:
    """A file's only number; 0 for "max", v1's huge one, or an absent file."""
    text = text.strip()
    value = int(text) if text.isdigit() else 0
    return value if value < UNLIMITED else 0


def _cpu_ns(hierarchies: Hierarchies, path: str) -> int:
    if hierarchies.v2:  # every v2 cgroup has this, without the controller too
        return field(read(f"{hierarchies.v2}/{path}/cpu.stat"), "usage_usec") * 1000
    return _number(read(f"{hierarchies.mount_of('cpuacct')}/{path}/cpuacct.usage"))


def _memory(hierarchies: Hierarchies, path: str) -> tuple[int, int]:
    """In use, less what page cache would be given back at once (as `docker stats` has it), and the limit."""
    mount = hierarchies.mount_of("memory")
    directory = f"{mount}/{path}"
    if not mount or not os.path.isdir(directory):
        return _memory_of_processes(read(f"{hierarchies.home}/{path}/cgroup.procs").split()), 0
    if mount == hierarchies.v2:
        current, limit, cache = "memory.current", "memory.max", "inactive_file"
    else:
        current, limit, cache = "memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"
    used = _number(read(f"{directory}/{current}"))
    droppable = field(read(f"{directory}/memory.stat"), cache)
    return max(used - droppable, 0), _number(read(f"{directory}/{limit}"))


def _memory_of_processes(pids: list[str]) -> int:
    """Where no controller counts: what the processes have, shared pages by their share."""
    total = 0
    for pid in pids:
        _, _, share = read(f"/proc/{pid}/smaps_rollup").partition("\nPss:")  # "Pss:     123 kB"
        total += 1024 * int(share.split(None, 1)[0]) if share else 0
    return total


def _pids(hierarchies: Hierarchies, path: str) -> tuple[int, int]:
    """Tasks now, and the limit. Without the controller's directory they are counted at home."""
    mount = hierarchies.mount_of("pids")
    if mount and (current := read(f"{mount}/{path}/pids.current")):
        return _number(current), _number(read(f"{mount}/{path}/pids.max"))
    tasks = "cgroup.threads" if hierarchies.v2 else "tasks"
    return len(read(f"{hierarchies.home}/{path}/{tasks}").split()), 0


def _block_io(hierarchies: Hierarchies, path: str) -> tuple[int, int]:
    """Sums over devices of `8:0 rbytes=1 wbytes=2 …`. v1's blkio is not used: it would cost each launch a directory."""
    sums = {"rbytes": 0, "wbytes": 0}
    if "io" in hierarchies.v2_controllers:
        for word in read(f"{hierarchies.v2}/{path}/io.stat").split():
            key, _, value = word.partition("=")
            if key in sums:
                sums[key] += int(value)
    return sums["rbytes"], sums["wbytes"]
