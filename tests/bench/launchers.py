"""Peers that launch: bubblewrap, and crun with its cgroup. Each is spawned as cheaply as can be (posix_spawn)."""

from __future__ import annotations

import concurrent.futures
import ctypes
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from runtime.capabilities import NAMES
from runtime.seccomp.profile import ALLOW, OneOf, Without, verdicts
from runtime.syscall import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount
from tests.bench.measure import PeerMissingError

T = TypeVar("T")
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
SECCOMP_ACTIONS = {True: "SCMP_ACT_ALLOW", False: "SCMP_ACT_ERRNO"}


def find(program: str, package: str) -> str:
    """Where a peer's program is. Raises: PeerMissingError."""
    path = shutil.which(program, path=ENVIRONMENT["PATH"])
    if path is None:
        raise PeerMissingError(f"{program} is not installed (Debian: {package})")
    return path


def first_instruction_ms(argv: list[str]) -> float:
    """From the spawn of a command to the moment that it, or what it launches, prints; returns when it has ended."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        start = time.monotonic_ns()
        actions = [(os.POSIX_SPAWN_DUP2, writing, 1)]
        pid = os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=actions)
        os.close(writing)
        writing = -1
        told = os.read(reading, 64)
        status = os.waitpid(pid, 0)[1]
    finally:
        for fd in (reading, writing):
            if fd >= 0:
                os.close(fd)
    if status or not told:
        raise PeerMissingError(f"{' '.join(argv)} ended with {os.waitstatus_to_exitcode(status)} and said {told!r}")
    return (int(told) - start) / 1e6


def spawn_silently(argv: list[str]) -> int:
    """Spawn it, its output thrown away; its pid."""
    actions = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    return os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=actions)


def bwrap_command(tree: Path, program: str) -> list[str]:
    """All namespaces that it has, the tree read-only, /proc and a small /dev: no cgroup, filter, overlay or log."""
    bwrap = find("bwrap", "bubblewrap")
    places = ["--ro-bind", str(tree), "/", "--proc", "/proc", "--dev", "/dev"]
    return [bwrap, "--unshare-all", "--die-with-parent", *places, program]


class PrivateMounts:
    """A thread with a mount namespace of its own; what it starts is in it, and it goes when they have gone."""

    def __init__(self, prepare: Callable[[], object]) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self.do(_unshare_mounts)
        self.do(prepare)

    def do(self, action: Callable[[], T]) -> T:
        """Do it there; what it returns or raises."""
        return self._pool.submit(action).result()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()


def _unshare_mounts() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):  # this thread alone: it includes CLONE_FS
        raise OSError(ctypes.get_errno(), "cannot make a mount namespace")
    mount("", "/", "", MS_REC | MS_PRIVATE)


class Crun:
    """`crun run` of a bundle with the same capabilities, filter and masks as ours, in a cgroup of its own.

    crun refuses machines whose cgroups are v1 and v2 at once: here it sees nothing but a fresh mount of v2.
    """

    def __init__(self, directory: Path, tree: Path, program: str, capabilities: tuple[int, ...], cgroup: str) -> None:
        self._crun = find("crun", "crun")
        self._state, self._bundle = directory / "crun", directory / "bundle"
        self._bundle.mkdir()
        self._count = 0
        subprocess.run([self._crun, "spec", "-b", str(self._bundle)], check=True, capture_output=True)
        file = self._bundle / "config.json"
        config = json.loads(file.read_text())
        _configure(config, tree, program, capabilities)
        config["linux"]["cgroupsPath"] = f"{cgroup}/crun"
        file.write_text(json.dumps(config))
        self._mounts = PrivateMounts(lambda: mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0))

    def sample(self) -> float:
        """Milliseconds to the first instruction."""
        self._count += 1
        name = f"bench-{os.getpid()}-{self._count}"
        options = ["--root", str(self._state), "--cgroup-manager=cgroupfs"]
        argv = [self._crun, *options, "run", "--bundle", str(self._bundle), name]
        return self._mounts.do(lambda: first_instruction_ms(argv))

    def close(self) -> None:
        """End its thread."""
        self._mounts.close()


def _configure(config: dict[str, Any], tree: Path, program: str, capabilities: tuple[int, ...]) -> None:
    names = [f"CAP_{NAMES[number]}" for number in capabilities]
    process = config["process"]
    process.update(terminal=False, args=[program], noNewPrivileges=True)
    process["capabilities"] = {"bounding": names, "effective": names, "permitted": names}
    process.pop("rlimits", None)
    config["linux"].pop("resources", None)  # its device filter wants CAP_SYS_RESOURCE, and ours has none either
    config["root"] = {"path": str(tree), "readonly": True}
    config["linux"]["seccomp"] = seccomp_of(capabilities)


def seccomp_of(capabilities: tuple[int, ...]) -> dict[str, Any]:
    """Our profile as the OCI runtime specification writes one."""
    rules: list[dict[str, Any]] = []
    found = verdicts(capabilities, os.uname().machine)
    for verdict in {verdict for verdict in found.values() if isinstance(verdict, int)}:
        names = sorted(name for name, one in found.items() if one == verdict and isinstance(one, int))
        rule: dict[str, Any] = {"names": names, "action": SECCOMP_ACTIONS[verdict == ALLOW]}
        rules.append(rule if verdict == ALLOW else rule | {"errnoRet": verdict})
    for name, one in found.items():
        match one:
            case OneOf(values=values):
                wanted = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in values]
            case Without(flags=flags):
                wanted = [{"index": 0, "value": flags, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
            case _:
                continue
        rules += [{"names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument]} for argument in wanted]
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": rules}
