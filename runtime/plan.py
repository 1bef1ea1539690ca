"""What the daemon tells the supervisor to launch: every path resolved, every default filled in, nothing to look up.

JSON on the wire. Types only: the supervisor, which runs without site-packages, never imports this module.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class MountPlan(TypedDict):
    """One mount below the root, in order. `target` is absolute inside and resolved there, never through the host.

    `bind` needs `source` (host path); `tmpfs` may have `data` (`size=…,mode=…`). A target that is missing is made: as
    a directory, or as an empty file where the source is one.
    """

    kind: Literal["bind", "tmpfs"]
    target: str
    source: NotRequired[str]
    read_only: bool
    data: NotRequired[str]


class RootPlan(TypedDict):
    """The root file system: overlay of `layers` (topmost first) under `upper`; `read_only` remounts it so.

    `volatile`: the upper directory need not survive the machine (overlayfs' option of this name).
    """

    layers: list[str]
    upper: str
    work: str
    read_only: bool
    volatile: bool


class CgroupPlan(TypedDict):
    """`path`: below each hierarchy's mount (`hawse/1a2b3c4d/ID`). Limits 0: none. `cpus`: 1.5 is one and a half."""

    path: str
    memory_bytes: int
    cpus: float
    pids: int


class TerminalSize(TypedDict):
    """Characters; 0: not known."""

    rows: int
    columns: int


class ProcessPlan(TypedDict):
    """What is executed. `user` is `name|uid[:group|gid]`, looked up inside, as is `argv[0]` in the PATH of `env`.

    `capabilities`: numbers, for the bounding, permitted, effective set (root) or the bounding set (others).
    `seccomp`: a file with the compiled filter, or "". `rlimits`: name (`RLIMIT_NOFILE`) to [soft, hard], clamped.
    `stdin`: a pipe (or the terminal) instead of /dev/null.
    """

    argv: list[str]
    env: list[str]
    cwd: str
    user: str
    capabilities: list[int]
    no_new_privileges: bool
    seccomp: str
    rlimits: dict[str, list[int]]
    tty: TerminalSize | None
    stdin: bool


class LaunchPlan(TypedDict):
    """One start of one container. `directory` holds its `log`, `log.index` and `exit`, made by the supervisor.

    `run` counts its starts: an exit record names the one that it is of. `init`: a small init is process 1 and reaps.
    `masked`: made unreadable; `read_only_paths`: /proc/sys and friends.
    """

    id: str
    run: int
    directory: str
    hostname: str
    root: RootPlan
    mounts: list[MountPlan]
    masked: list[str]
    read_only_paths: list[str]
    cgroup: CgroupPlan
    process: ProcessPlan
    init: bool
    log_bytes_max: int


class ExitRecord(TypedDict):
    """The file `exit`, written whole (rename) before anybody is told. `time_ns`: since the epoch.

    `code`: 0 to 255, 128 + signal; -1 where nobody can know it any more. `stage`, `message`: why it never ran.
    """

    run: int
    code: int
    oom_killed: bool
    time_ns: int
    stage: NotRequired[str]
    message: NotRequired[str]
