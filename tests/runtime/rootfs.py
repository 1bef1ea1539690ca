"""A small root file system of static busybox, and the plan of one container in it: what the runtime's tests launch."""

from __future__ import annotations

import shutil
from pathlib import Path

from runtime.plan import LaunchPlan, MountPlan, TerminalSize

BUSYBOX = Path("/usr/bin/busybox")
DIRECTORIES = ("bin", "dev", "etc", "proc", "sys", "root", "home/mallory", "usr/bin", "var")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nmallory:x:1000:1000::/home/mallory:/bin/sh\n"
GROUP = "root:x:0:\nmallory:x:1000:\nstaff:x:50:mallory\nwheel:x:10:root,mallory\n"
CAPABILITIES = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31]
"""Docker's default: chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot
mknod audit_write setfcap."""
MASKED = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/scsi",
    "/sys/firmware",
]
READ_ONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def make_root(directory: Path) -> Path:
    """A root tree of busybox with all its applets, a root and a user `mallory` (1000; groups staff and wheel)."""
    for name in DIRECTORIES:
        (directory / name).mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    (directory / "tmp").mkdir(exist_ok=True)
    (directory / "tmp").chmod(0o1777)
    shutil.copy2(BUSYBOX, directory / "bin/busybox")
    for applet in applets():
        (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text(PASSWD)
    (directory / "etc/group").write_text(GROUP)
    shutil.chown(directory / "home/mallory", 1000, 1000)
    return directory


def applets() -> tuple[str, ...]:
    """The names that the tests use busybox by."""
    return (
        *("sh", "ls", "cat", "echo", "id", "ps", "pwd", "env", "printf", "sleep", "true", "false", "test", "stat"),
        *("hostname", "mount", "umount", "mkdir", "rmdir", "rm", "ln", "mknod", "chmod", "chown", "chroot", "touch"),
        *("dd", "kill", "wc", "head", "tail", "grep", "sort", "tr", "cut", "readlink", "unshare", "sysctl"),
        *("insmod", "ip", "ifconfig", "nc", "tty", "stty", "su", "nproc", "seq", "yes", "od", "setsid"),
        *("find", "sed", "awk", "date", "uname", "reboot", "swapon", "hwclock", "dmesg", "nsenter", "pivot_root", "cp"),
    )


def plan_for(
    root: Path,
    directory: Path,
    argv: list[str],
    *,
    container: str = "c1",
    env: tuple[str, ...] = (),
    user: str = "",
    cwd: str = "/",
    mounts: tuple[MountPlan, ...] = (),
    tty: TerminalSize | None = None,
    stdin: bool = False,
    read_only: bool = False,
    volatile: bool = True,
    init: bool = False,
    seccomp: str = "",
    capabilities: tuple[int, ...] = tuple(CAPABILITIES),
    no_new_privileges: bool = True,
    rlimits: dict[str, list[int]] | None = None,
    cgroup: str = "",
) -> LaunchPlan:
    """The plan of a container of one layer, `root`; its own files are in `directory`, made with `upper` and `work`."""
    for name in ("upper", "work"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    return {
        "id": container,
        "run": 1,
        "directory": str(directory),
        "hostname": container,
        "root": {
            "layers": [str(root)],
            "upper": str(directory / "upper"),
            "work": str(directory / "work"),
            "read_only": read_only,
            "volatile": volatile,
        },
        "mounts": list(mounts),
        "masked": MASKED,
        "read_only_paths": READ_ONLY_PATHS,
        "cgroup": {"path": cgroup, "memory_bytes": 0, "cpus": 0.0, "pids": 0},
        "process": {
            "argv": argv,
            "env": [PATH, *env],
            "cwd": cwd,
            "user": user,
            "capabilities": list(capabilities),
            "no_new_privileges": no_new_privileges,
            "seccomp": seccomp,
            "rlimits": rlimits or {},
            "tty": tty,
            "stdin": stdin,
        },
        "init": init,
        "log_bytes_max": 1 << 20,
    }
