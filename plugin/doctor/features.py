"""What the kernel must be able to do: tried in a namespace of its own, or read where trying tells no more."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path

from plugin.agent.features import TRIALS
from plugin.doctor.finding import Finding, ok, problem, unknown
from plugin.kernel import namespace
from plugin.kernel.netlink import NetlinkError
from sdn.model.errors import HawseError

CHECK = "kernel"
_CONTROLLERS = ("cpu", "memory", "pids")


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureFacts:
    """`tried`: what -> (module, what it met; empty: it works). `denied`: why nothing was tried; empty: it was."""

    tried: dict[str, tuple[str, str]]
    denied: str
    overlay: bool
    seccomp: bool
    controllers: frozenset[str]
    ipv6: bool


def read_features(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> FeatureFacts:
    """What this kernel can do. Makes a network namespace and removes it."""
    tried, denied = _try_all()
    return FeatureFacts(
        tried=tried,
        denied=denied,
        overlay="overlay" in _text(proc / "filesystems").split(),
        seccomp="\nSeccomp:" in _text(proc / "self/status")
        and "errno" in _text(proc / "sys/kernel/seccomp/actions_avail").split(),
        controllers=read_controllers(cgroups),
        ipv6=(proc / "sys/net/ipv6").exists(),
    )


def _try_all() -> tuple[dict[str, tuple[str, str]], str]:
    if os.geteuid() != 0:
        return {}, "root is needed to make a network namespace"
    directory = Path(tempfile.mkdtemp(prefix="hawse-doctor-"))
    place = directory / "trial"
    try:
        namespace.create(place)
        ns_fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            tried: dict[str, tuple[str, str]] = {}
            for what, module, trial in TRIALS:
                try:
                    trial(ns_fd)
                    tried[what] = (module, "")
                except (OSError, NetlinkError, HawseError) as error:
                    tried[what] = (module, str(error))
            return tried, ""
        finally:
            os.close(ns_fd)
    except OSError as error:
        return {}, f"no network namespace can be made here ({error})"
    finally:
        namespace.remove(place)
        shutil.rmtree(directory, ignore_errors=True)


def read_controllers(cgroups: Path = Path("/sys/fs/cgroup")) -> frozenset[str]:
    """The cgroup controllers that can be used, of whichever version."""
    version2 = _text(cgroups / "cgroup.controllers").split()
    return frozenset(version2) | {name for name in _CONTROLLERS if (cgroups / name / "cgroup.procs").exists()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def judge_features(facts: FeatureFacts) -> list[Finding]:
    """What is missing, each by name."""
    findings: list[Finding] = []
    if facts.denied:
        findings.append(unknown(CHECK, f"what the kernel can do was not tried: {facts.denied}", "run it as root"))
    for what, (module, met) in facts.tried.items():
        if met:
            findings.append(
                problem(
                    CHECK,
                    f"this machine cannot make {what}: {met}",
                    "the agent does not start",
                    f"modprobe {module}",
                    "where there is no such module: use a kernel that has it, and install libnftables1",
                    feature=what,
                )
            )
    if not facts.overlay:
        findings.append(
            problem(CHECK, "overlayfs is missing", "containers cannot be made of images", "modprobe overlay")
        )
    if not facts.seccomp:
        findings.append(
            problem(
                CHECK, "seccomp filters are missing", "containers do not start",
                "use a kernel with CONFIG_SECCOMP_FILTER",
            )
        )  # fmt: skip
    lacking = [name for name in _CONTROLLERS if name not in facts.controllers]
    if lacking:
        findings.append(
            problem(
                CHECK,
                f"no cgroup controller {', '.join(lacking)}",
                "what containers use of it is not limited",
                "mount -t cgroup2 none /sys/fs/cgroup",
                "on some boards: cgroup_enable=memory on the kernel's command line",
                controllers=lacking,
            )
        )
    if not facts.ipv6:
        findings.append(
            problem(
                CHECK, "IPv6 is off in the whole kernel", "no network with an IPv6 subnet can be made here",
                "take ipv6.disable=1 from the kernel's command line",
            )
        )  # fmt: skip
    if not findings:
        found = [*facts.tried, "overlayfs", "seccomp", "cgroups", "IPv6"]
        findings.append(ok(CHECK, ", ".join(found)))
    return findings
