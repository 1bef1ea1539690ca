"""A rehearsal: a container's mounts, made and thrown away a few times before the first one is asked for.

The interpreter adapts code to what it does by doing it. Whatever a container's process would be the first to adapt, it
would do in memory that is thus copied, in each container anew; done here once, all of them find it done.
"""

from __future__ import annotations

import os

from runtime.supervisor import child, mounts, surroundings
from runtime.supervisor.failure import LaunchError
from runtime.supervisor.own_log import say
from runtime.syscall import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, mount, setns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan import LaunchPlan

ROUNDS = 10
"""Python 3.11 adapts a function after 8 calls."""
_LEFT = (("mnt", CLONE_NEWNS), ("net", CLONE_NEWNET), ("ipc", CLONE_NEWIPC))


def rehearse(template: str) -> None:
    """In namespaces that are left again. For the keeper, whose memory all others begin with; if it fails, no matter."""
    umask = os.umask(0o022)
    homes = [(os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), flag) for name, flag in _LEFT]
    try:
        surroundings.enter()
        surroundings.prepare(template)
        plan = _plan(f"{template}/empty")
        place = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        homes.append((place, 0))
        for _ in range(ROUNDS):
            surroundings.enter()
            mounts.build(plan, template, cgroup_view=True)
            child.prepare_process(plan["process"], console=True)
            setns(place, CLONE_NEWNS)
    except (OSError, LaunchError) as error:
        say(f"the rehearsal of a launch failed: {error}")
    finally:
        os.umask(umask)
        for home, flag in homes:
            if flag:
                setns(home, flag)
            os.close(home)


def _plan(scratch: str) -> LaunchPlan:
    mount("tmpfs", scratch, "tmpfs", 0, "mode=0700,size=256k")
    for name in ("upper", "work", "layer", "layer/etc"):
        os.mkdir(f"{scratch}/{name}")
    for name in ("layer/etc/passwd", "layer/etc/group", "layer/etc/hosts", "layer/true"):
        with open(f"{scratch}/{name}", "w") as file:
            os.fchmod(file.fileno(), 0o755)
            file.write("root:x:0:0:root:/root:/bin/sh\n")
    return {
        "id": "rehearsal", "run": 1, "directory": scratch, "hostname": "rehearsal", "log_bytes_max": 0, "init": False,
        "root": {
            "layers": [f"{scratch}/layer"], "upper": f"{scratch}/upper", "work": f"{scratch}/work",
            "read_only": False, "volatile": True,
        },
        "mounts": [
            {"kind": "bind", "source": f"{scratch}/layer/etc/hosts", "target": "/etc/hosts", "read_only": False},
        ],
        "masked": ["/proc/kcore", "/proc/keys", "/proc/acpi", "/sys/firmware", "/proc/none"],
        "read_only_paths": ["/proc/sys", "/proc/none"],
        "cgroup": {"path": "", "memory_bytes": 0, "cpus": 0, "pids": 0},
        "process": {
            "argv": ["true"], "env": ["PATH=/"], "cwd": "/", "user": "", "capabilities": [], "seccomp": "",
            "no_new_privileges": True, "rlimits": {}, "tty": None, "stdin": False,
        },
    }  # fmt: skip
