"""Where this machine's cgroup controllers live, and what text a container's limits become in their files.

Three layouts exist: v2 alone (most machines), v1 alone (old ones), and hybrid, where v1 hierarchies hold the
controllers and a v2 tree without them exists beside. Nothing is asked for by name of the layout: a controller is used
where it lives, and the v2 tree, where there is one, is every container's home (for entering, killing, freezing).

Standard library only, few imports: this runs in the supervisor. Source: cgroups(7), the kernel's
Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.plan import CgroupPlan

CONTROLLERS = ("memory", "cpu", "cpuacct", "pids", "io", "freezer")
"""What is used at all, v1 and v2 names alike."""
CPU_PERIOD_US = 100_000
CPU_QUOTA_US_MIN = 1_000
"""The kernel refuses less (kernel/sched/core.c: min_cfs_quota_period)."""


class CgroupError(Exception):
    """What was tried, on what, and why it failed. `errno`: the kernel's, or what it would have been."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number
        self.message = message


class Setting:
    """`text` goes into `file` of the directory below `mount`. `optional`: its file may be absent."""

    __slots__ = ("controller", "file", "mount", "optional", "text", "wish")

    def __init__(self, controller: str, mount: str, file: str, text: str, wish: str, *, optional: bool = False) -> None:
        self.controller = controller
        self.mount = mount
        self.file = file
        self.text = text
        self.wish = wish
        self.optional = optional


class Hierarchies:
    """A machine's mounts: `v2` ("" without), the controllers that live there, and v1's mounts by controller."""

    __slots__ = ("v1", "v2", "v2_controllers")

    def __init__(self, v2: str = "", v2_controllers: tuple[str, ...] = (), v1: Mapping[str, str] | None = None) -> None:
        self.v2 = v2
        self.v2_controllers = tuple(name for name in CONTROLLERS if name in v2_controllers)
        self.v1 = {name: mount for name, mount in (v1 or {}).items() if name in CONTROLLERS}

    @classmethod
    def detect(cls) -> Hierarchies:
        """This machine's, as this process sees its mounts. Without any, `create` says so later."""
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            v2, v1 = parse_mounts(file.read())
        controllers = ""
        if v2:
            with open(f"{v2}/cgroup.controllers", encoding="ascii") as file:
                controllers = file.read()
        return cls(v2, tuple(controllers.split()), v1)

    @property
    def home(self) -> str:
        """The mount whose directory every container has: v2, else v1's freezer ("": there is neither)."""
        return self.v2 or self.v1.get("freezer", "")

    @property
    def always(self) -> tuple[str, ...]:
        """Mounts in which a container has a directory without a limit, too.

        Beside v2, whose clone3 puts a process into it, none: writing oneself into a v1 hierarchy waits for an RCU grace
        period, 6 to 20 ms on a machine that has not just done so, which is several launches. CPU time and tasks are
        known in v2 without any controller, memory is asked of the processes (`cgroup_usage`).
        """
        if self.v2:
            return (self.v2,)
        return tuple(dict.fromkeys(self.v1[name] for name in ("freezer", "memory", "cpuacct") if name in self.v1))

    @property
    def all(self) -> tuple[str, ...]:
        """Every mount in which a container may have a directory, its home first."""
        return tuple(dict.fromkeys(mount for mount in (self.home, self.v2, *self.v1.values()) if mount))

    def mount_of(self, controller: str) -> str:
        """Where a controller lives ("": nowhere)."""
        return self.v2 if controller in self.v2_controllers else self.v1.get(controller, "")

    def lower(self, plan: CgroupPlan) -> list[Setting]:
        """A plan's limits as the text for each file, in the order in which they are written.

        Raises: CgroupError (a controller that the machine lacks, a limit that no kernel takes).
        """
        settings: list[Setting] = []
        for controller, wish, v1, v2 in _wishes(plan):
            mount = self.mount_of(controller)
            if not mount:
                raise CgroupError(
                    errno.ENOTSUP,
                    f"cannot limit {wish}: this machine has no cgroup controller {controller!r}, "
                    "neither in v1 nor in v2 (is it disabled on the kernel's command line?)",
                )
            files = v2 if mount == self.v2 else v1
            for file, text, optional in files:
                settings.append(Setting(controller, mount, file, text, wish, optional=optional))
        return settings


def _wishes(plan: CgroupPlan) -> list[tuple[str, str, list[tuple[str, str, bool]], list[tuple[str, str, bool]]]]:
    """Controller, words for it, and (file, text, optional) for v1 and v2, for each limit that is given."""
    wishes = []
    if memory := plan["memory_bytes"]:
        # Swap counts for nothing extra: v1's memsw is memory and swap together, v2's is swap alone.
        v1 = [("memory.limit_in_bytes", str(memory), False), ("memory.memsw.limit_in_bytes", str(memory), True)]
        v2 = [("memory.max", str(memory), False), ("memory.swap.max", "0", True)]
        wishes.append(("memory", f"memory to {memory} bytes", v1, v2))
    if cpus := plan["cpus"]:
        quota = round(cpus * CPU_PERIOD_US)
        if quota < CPU_QUOTA_US_MIN:
            least = CPU_QUOTA_US_MIN / CPU_PERIOD_US
            raise CgroupError(errno.EINVAL, f"cannot limit CPU time to {cpus} cpus: the kernel takes {least} or more")
        v1 = [("cpu.cfs_period_us", str(CPU_PERIOD_US), False), ("cpu.cfs_quota_us", str(quota), False)]
        v2 = [("cpu.max", f"{quota} {CPU_PERIOD_US}", False)]
        wishes.append(("cpu", f"CPU time to {cpus} cpus", v1, v2))
    if pids := plan["pids"]:
        files = [("pids.max", str(pids), False)]
        wishes.append(("pids", f"processes to {pids}", files, files))
    return wishes


def parse_mounts(mountinfo: str) -> tuple[str, dict[str, str]]:
    """The v2 mount ("" without) and v1's mounts by controller, of proc_pid_mountinfo(5) text.

    Where something is mounted several times, the first that shows the whole hierarchy is taken, else the first.
    """
    found: dict[str, tuple[bool, str]] = {}
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        kind, _, options = fields[fields.index("-") + 1 :][:3]
        if kind not in ("cgroup", "cgroup2"):
            continue
        part, mount = fields[3] != "/", _unescape(fields[4])
        names = [""] if kind == "cgroup2" else [name for name in options.split(",") if name in CONTROLLERS]
        for name in names:
            if name not in found or (found[name][0] and not part):
                found[name] = (part, mount)
    v2 = found.pop("", (False, ""))[1]
    return v2, {name: mount for name, (_, mount) in found.items()}


def _unescape(path: str) -> str:
    """A path of mountinfo: blank, tab, line feed and backslash are octal there."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(escape, character)
    return path
