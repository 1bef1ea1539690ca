"""What a supervisor prepares once so that each launch is cheap and safe: its own mount namespace, a template of /dev.

`enter` is called first in the keeper's process; every successor that it forks inherits the result.

* The namespace follows the host's mounts and lets none out (slave), so nothing is ever mounted on the host.
* The interpreter's file is mounted on itself, read-only, and executed from there: a container that gets hold of it
  (`/proc/self/exe`, `#!/proc/self/exe`: the class of CVE-2019-5736) cannot open it for writing.
* One read-only tmpfs holds `dev` and `terminal` (the same with a `console` to be mounted over), which containers get by
  a bind mount, `empty`, which masks directories, `root`, where each container mounts its root, and `next`, where the
  next one's /dev waits (`surroundings`).
"""

from __future__ import annotations

import errno
import os
import sys

from runtime.syscall import (
    CLONE_NEWNS,
    MNT_DETACH,
    MS_BIND,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SLAVE,
    mount,
    umount2,
    unshare,
)

_NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
_FLAGS = MS_NOSUID | MS_NOEXEC


directory = ""
"""Where the template is mounted, once `enter` has returned: as the namespace, something of the whole process."""


def enter(template: str) -> None:
    """Enter the namespace; `template` (a directory, made) is where it is mounted. Executes the interpreter again.

    For the first line of a program: what it executed comes here a second time, and goes on. Raises OSError.
    """
    global directory
    prepared = os.path.isdir(f"{template}/root")
    if not prepared:
        unshare(CLONE_NEWNS)
        mount("", "/", "", MS_REC | MS_SLAVE)
        _forget_namespaces()
        _make_template(template)
    if not _read_only("/proc/self/exe"):
        interpreter = os.path.realpath(sys.executable)
        mount(interpreter, interpreter, "", MS_BIND)
        mount("", interpreter, "", MS_REMOUNT | MS_BIND | MS_RDONLY)
        if not _read_only(interpreter):
            raise OSError(errno.EROFS, "the interpreter could not be made read-only", interpreter)
        # What is not bound now would be looked up by name, and written down, in each child anew.
        environment = {**os.environ, "LD_BIND_NOW": "1"}
        os.execve(interpreter, sys.orig_argv, environment)  # noqa: S606 - the same interpreter and arguments
    directory = template


def _read_only(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _forget_namespaces() -> None:
    """Network namespaces are pinned by mounts: the copies here would keep them alive when the host lets them go.

    The host's may go while we look, and with it its copy here: gone is what it should be.
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        pinned = [line.split(" ")[4] for line in lines if " - nsfs " in line]
    for path in reversed(pinned):
        try:
            umount2(path.encode("utf-8", "surrogateescape").decode("unicode_escape"), MNT_DETACH)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):  # no such file any more; or no mount on it
                raise


def _make_template(directory: str) -> None:
    os.makedirs(directory, mode=0o700, exist_ok=True)
    mount("tmpfs", directory, "tmpfs", _FLAGS, "mode=0755,size=64k")
    umask = os.umask(0)
    for name in ("empty", "root", "dev", "terminal", "next", "next/dev"):
        os.mkdir(f"{directory}/{name}", 0o755)
    for name in ("dev", "terminal"):
        _make_devices(f"{directory}/{name}")
    os.mknod(f"{directory}/terminal/console", 0o600)
    os.umask(umask)
    mount("", directory, "", MS_REMOUNT | MS_BIND | MS_RDONLY | _FLAGS)


def _make_devices(directory: str) -> None:
    for name, major, minor in _NODES:
        os.mknod(f"{directory}/{name}", 0o020666, os.makedev(major, minor))
    for name, target in _LINKS:
        os.symlink(target, f"{directory}/{name}")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"{directory}/{name}", 0o755)
