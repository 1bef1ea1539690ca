"""The machine's limits: neighbour tables, descriptors, inotify, processes, namespaces, disks, what was left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from pathlib import Path

from plugin.doctor.finding import Finding, ok, problem, unknown, warning
from plugin.kernel import namespace
from sdn.service.roots import Root

NEARLY = 0.8
"""From this share of a limit on it is near."""
DISK_LOW_BYTES, DISK_FULL_BYTES = 1 << 30, 64 << 20
"""An image of a usual size, and what a store and logs need to go on."""
INODES_LOW, INODES_FULL = 10_000, 200
INOTIFY_INSTANCES = 128
"""The kernel's own default; some machines have less."""
NEIGHBOURS_AMPLE = 4096
"""A table that was full is told of while it is smaller: how often it was full is counted since the boot."""
TENANT_PREFIX = "t-"


@dataclasses.dataclass(frozen=True, slots=True)
class LimitFacts:
    """(used, limit) by name; what this kernel or namespace does not show is absent.

    `thresholds`: gc_thresh1 to 3, by family; `overflows`: entries refused since the boot, by family.
    """

    used: dict[str, tuple[int, int]]
    thresholds: dict[str, tuple[int, int, int]]
    overflows: dict[str, int]
    inotify_instances: int | None


def read_limits(agent_pid: int | None, proc: Path = Path("/proc")) -> LimitFacts:
    """As of now. `agent_pid`: whose descriptors are counted."""
    used: dict[str, tuple[int, int]] = {}
    if agent_pid is not None and (descriptors := _descriptors(proc / str(agent_pid))) is not None:
        used["the agent's descriptors"] = descriptors
    with contextlib.suppress(OSError, ValueError, IndexError):
        files = (proc / "sys/fs/file-nr").read_text().split()
        used["the machine's open files"] = (int(files[0]), int(files[2]))
    with contextlib.suppress(OSError, ValueError, IndexError):
        tasks = int((proc / "loadavg").read_text().split()[3].partition("/")[2])
        limits = [_number(proc / "sys/kernel/pid_max"), _number(proc / "sys/kernel/threads-max")]
        used["the machine's processes"] = (tasks, min(limit for limit in limits if limit is not None))
    thresholds, overflows = {}, {}
    for family, version, name in (("ipv4", "IPv4", "arp_cache"), ("ipv6", "IPv6", "ndisc_cache")):
        values = [_number(proc / f"sys/net/{family}/neigh/default/gc_thresh{step}") for step in (1, 2, 3)]
        if None not in values:
            thresholds[version] = (values[0] or 0, values[1] or 0, values[2] or 0)
        with contextlib.suppress(OSError, ValueError, IndexError):
            overflows[version] = table_overflows((proc / f"net/stat/{name}").read_text())
    return LimitFacts(used, thresholds, overflows, _number(proc / "sys/fs/inotify/max_user_instances"))


def table_overflows(statistics: str) -> int:
    """How often a neighbour table was full, of /proc/net/stat/arp_cache: a line for each CPU, in hex."""
    header, *lines = [line.split() for line in statistics.splitlines() if line.strip()]
    column = header.index("table_fulls")
    return sum(int(line[column], 16) for line in lines)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _descriptors(process: Path) -> tuple[int, int] | None:
    try:
        limits = (process / "limits").read_text()
        limit = next(line.split()[3] for line in limits.splitlines() if line.startswith("Max open files"))
        return len(os.listdir(process / "fd")), int(limit)
    except (OSError, ValueError, StopIteration):
        return None


def judge_limits(facts: LimitFacts, endpoints: int) -> list[Finding]:
    """What is used up, or nearly. `endpoints`: of all networks of this host, wherever they are."""
    findings = _neighbours(facts, endpoints)
    for name, (used, limit) in facts.used.items():
        if used >= NEARLY * limit:
            setting = {
                "the agent's descriptors": "raise LimitNOFILE= of its unit (systemctl edit hawse-agent)",
                "the machine's open files": f"sysctl -w fs.file-max={limit * 4}",
                "the machine's processes": f"sysctl -w kernel.pid_max={min(limit * 4, 4_194_304)}",
            }[name]
            findings.append(
                warning(
                    "limits", f"{used} of {limit}: {name}", "soon containers cannot be started or attached",
                    setting, used=used, limit=limit,
                )
            )  # fmt: skip
    if facts.inotify_instances is not None and facts.inotify_instances < INOTIFY_INSTANCES:
        findings.append(
            warning(
                "limits",
                f"a user has {facts.inotify_instances} inotify instances in all containers together",
                "programs in containers that watch files fail with `too many open files`",
                "sysctl -w fs.inotify.max_user_instances=1024",
                limit=facts.inotify_instances,
            )
        )
    if not any(finding.check == "limits" for finding in findings):
        shown = "; ".join(f"{name} {used} of {limit}" for name, (used, limit) in facts.used.items())
        findings.append(ok("limits", shown or "none near"))
    return findings


def _neighbours(facts: LimitFacts, endpoints: int) -> list[Finding]:
    """Containers remember whom they talk to, all in one table of the machine; ours, permanent, do not count."""
    if not facts.thresholds:
        return [unknown("neighbours", "the neighbour tables' limits are not shown in this namespace")]
    findings: list[Finding] = []
    for version, (_, soft, hard) in facts.thresholds.items():
        overflows = facts.overflows.get(version, 0)
        wanted = max(NEIGHBOURS_AMPLE, 1 << (endpoints * 4).bit_length())
        remedy = [
            f"sysctl -w net.{version.lower()}.neigh.default.gc_thresh{step}={wanted >> (3 - step)}"
            for step in (3, 2, 1)
        ]
        what = f"the {version} neighbour table of the machine has room for {hard}"
        if endpoints > hard:
            findings.append(
                problem(
                    "neighbours", f"{what}, and the networks here have {endpoints} endpoints",
                    "packets die with `neighbour table overflow` once containers talk to most of them",
                    *remedy, limit=hard, endpoints=endpoints,
                )
            )  # fmt: skip
        elif (overflows and hard < NEIGHBOURS_AMPLE) or endpoints > soft:
            why = f"was full {overflows} times since the boot" if overflows else f"is squeezed above {soft} entries"
            findings.append(
                warning(
                    "neighbours", f"{what} and {why}; the networks here have {endpoints} endpoints",
                    "first packets to a new peer come late or are lost",
                    *remedy, limit=hard, endpoints=endpoints, overflows=overflows,
                )
            )  # fmt: skip
    return findings or [ok("neighbours", f"room for {min(hard for *_, hard in facts.thresholds.values())} entries")]


@dataclasses.dataclass(frozen=True, slots=True)
class DiskFacts:
    """One directory. `missing`: it is not there, and nor is anything to be."""

    what: str
    path: str
    free_bytes: int
    free_inodes: int | None
    read_only: bool


def read_disks(root: Root) -> list[DiskFacts]:
    """Where state and sockets are; a directory that is not there is left out."""
    found = []
    for what, path in (("state", root.state), ("run", root.run)):
        with contextlib.suppress(OSError):
            disk = os.statvfs(path)
            inodes = disk.f_favail if disk.f_files else None
            read_only = bool(disk.f_flag & os.ST_RDONLY)
            found.append(DiskFacts(what, str(path), disk.f_bavail * disk.f_frsize, inodes, read_only))
    return found


def judge_disks(disks: list[DiskFacts]) -> list[Finding]:
    """Read-only, full or nearly."""
    findings: list[Finding] = []
    for disk in disks:
        low, full = (
            (DISK_LOW_BYTES, DISK_FULL_BYTES) if disk.what == "state" else (DISK_FULL_BYTES, DISK_FULL_BYTES >> 4)
        )
        facts = {"path": disk.path, "free_bytes": disk.free_bytes, "free_inodes": disk.free_inodes}
        look = f"du -xh --max-depth=2 {disk.path}"
        if disk.read_only:
            findings.append(
                problem(
                    "disk", f"{disk.path} is on a file system that is mounted read-only",
                    "nothing can be decided, attached or started", "dmesg | tail   # why",
                    f"mount -o remount,rw $(findmnt -no TARGET -T {disk.path})", **facts,
                )
            )  # fmt: skip
        elif disk.free_bytes < full:
            text = f"{disk.path} is full: {disk.free_bytes >> 20} MiB are left"
            findings.append(problem("disk", text, "changes and starts are refused", look, "hawse image ls", **facts))
        elif disk.free_inodes is not None and disk.free_inodes < INODES_FULL:
            text = f"{disk.path} has {disk.free_inodes} inodes left"
            findings.append(problem("disk", text, "no file can be made", look.replace("-xh", "-x --inodes"), **facts))
        elif disk.free_bytes < low:
            text = f"{disk.path} has {disk.free_bytes >> 20} MiB left"
            findings.append(warning("disk", text, "an image or a log may fill it", look, "hawse image ls", **facts))
        elif disk.free_inodes is not None and disk.free_inodes < INODES_LOW:
            text = f"{disk.path} has {disk.free_inodes} inodes left"
            findings.append(
                warning("disk", text, "an image may use them up", look.replace("-xh", "-x --inodes"), **facts)
            )
    if not findings:
        return [
            ok("disk", "; ".join(f"{disk.path} {disk.free_bytes >> 30} GiB free" for disk in disks) or "no state yet")
        ]
    return findings


@dataclasses.dataclass(frozen=True, slots=True)
class LeftoverFacts:
    """`pinned`: tenants whose namespace is pinned here; `broken`: pins that are no namespaces (any more)."""

    pinned: frozenset[str]
    broken: tuple[str, ...]
    denied: bool = False


def read_leftovers(root: Root) -> LeftoverFacts:
    """What is below the root's directory of namespaces."""
    pinned, broken = set(), []
    try:
        paths = sorted(root.netns.iterdir())
    except OSError as error:
        return LeftoverFacts(frozenset(), (), denied=error.errno == errno.EACCES)
    for path in paths:
        if not path.name.startswith(TENANT_PREFIX):
            continue
        with contextlib.suppress(OSError):
            fd = namespace.open_pinned(path)
            if fd is None:
                broken.append(str(path))
            else:
                os.close(fd)
                pinned.add(path.name.removeprefix(TENANT_PREFIX))
    return LeftoverFacts(frozenset(pinned), tuple(broken))


def judge_leftovers(facts: LeftoverFacts, wanted: frozenset[str] | None) -> list[Finding]:
    """Namespaces of tenants that have nothing here. `wanted`: tenants that have; None: the agent does not know."""
    if facts.denied:
        return [unknown("leftovers", "the directory of namespaces is root's", "run it as root")]
    findings: list[Finding] = []
    if facts.broken:
        findings.append(
            warning(
                "leftovers", f"{', '.join(facts.broken)}: a pin without a namespace",
                "harmless: the agent replaces it when it is needed", *(f"rm {path}" for path in facts.broken),
            )
        )  # fmt: skip
    left = sorted(facts.pinned - wanted) if wanted is not None else []
    if left:
        findings.append(
            warning(
                "leftovers", f"network namespaces of {len(left)} tenants without a network here: {', '.join(left)}",
                "they cost memory, and what is in them is not repaired",
                "hawse host inspect HOST     # failures say what hinders the agent; it removes them else", tenants=left,
            )
        )  # fmt: skip
    if wanted is None and facts.pinned:
        count = len(facts.pinned)
        findings.append(
            warning(
                "leftovers", f"network namespaces of {count} tenants are here, and no agent looks after them",
                "containers that run go on; nothing is attached or repaired", "hawse agent      # or: hawse up",
                "hawse agent --clean     # to remove all of Hawse from this kernel", tenants=sorted(facts.pinned),
            )
        )  # fmt: skip
    return findings or [ok("leftovers", "none")]
