"""A container's file systems, made by its first process in its own mount namespace, before anything of it runs.

Every target that the image or the user names is opened inside the root (openat2, RESOLVE_IN_ROOT) and the mount
attached to that descriptor: no symbolic link of the image, and none that another container makes meanwhile in a shared
volume, leads out. Device nodes work nowhere but in `/dev` itself, which is read-only: CAP_MKNOD is worth nothing.
"""

from __future__ import annotations

import errno
import os
import stat

from runtime.supervisor.failure import LaunchError, failed
from runtime.syscall import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_MOVE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REMOUNT,
    OPEN_TREE_CLONE,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    fsconfig_flag,
    fsconfig_string,
    fsmount,
    fsopen,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
    pivot_root,
    umount2,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan import LaunchPlan, MountPlan, RootPlan

_OPTIONS_BYTES_MAX = 4000
"""mount(2) takes a page of options."""
_INERT = MS_NOSUID | MS_NODEV | MS_NOEXEC
_IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_OVERLAY = "redirect_dir=nofollow,metacopy=off"
"""An image's own overlay attributes must not lead to other directories of its layers, or to those of other images."""


def build(plan: LaunchPlan, template: str, cgroup_view: bool) -> None:
    """Everything up to pivot_root; afterwards `/` and the working directory are the container's. Raises LaunchError."""
    root = f"{template}/root"
    _mount_root(plan["root"], root)
    os.chdir(root)
    _mount_kernel(template, tty=plan["process"]["tty"] is not None, cgroup_view=cgroup_view)
    root_fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for path in plan["masked"]:
        _mask(path, template)
    for path in plan["read_only_paths"]:
        _make_read_only(path)
    for wish in plan["mounts"]:
        _mount_wish(root_fd, wish)
    os.close(root_fd)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")


def seal() -> None:
    """Make the root itself read-only: last, when nothing has to be made in it any more."""
    mount("", "/", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV)


def _mount_root(root: RootPlan, target: str) -> None:
    _unmark(f"{root['work']}/work/incompat/volatile")
    paths = "".join((*root["layers"], root["upper"], root["work"]))
    plain = "," not in paths and ":" not in paths and "\\" not in paths
    options = f"lowerdir={':'.join(root['layers'])},upperdir={root['upper']},workdir={root['work']},{_OVERLAY}"
    if root["volatile"]:
        options += ",volatile"
    try:
        if plain and len(os.fsencode(options)) <= _OPTIONS_BYTES_MAX:
            mount("overlay", target, "overlay", MS_NODEV, options)
        else:
            _mount_long_overlay(root, target)
    except OSError as error:
        raise failed("mount", f"mounting the root of {len(root['layers'])} layers failed", error) from error


def _mount_long_overlay(root: RootPlan, target: str) -> None:
    """Layer by layer: no limit on the length, nothing to escape."""
    context = fsopen("overlay")
    for layer in root["layers"]:
        fsconfig_string(context, "lowerdir+", layer)
    fsconfig_string(context, "upperdir", root["upper"])
    fsconfig_string(context, "workdir", root["work"])
    for option in _OVERLAY.split(","):
        fsconfig_string(context, *option.split("=", 1))
    if root["volatile"]:
        fsconfig_flag(context, "volatile")
    mount_fd = fsmount(context, MOUNT_ATTR_NODEV)
    target_fd = os.open(target, os.O_PATH | os.O_CLOEXEC)
    move_mount(mount_fd, target_fd)
    for fd in (context, mount_fd, target_fd):
        os.close(fd)


def _mount_kernel(template: str, *, tty: bool, cgroup_view: bool) -> None:
    """/proc, /dev and /sys. Nobody runs in the root yet, so a plain look at what the image has there is enough."""
    for name in ("proc", "dev", "sys"):
        _require_directory(name)
    what = "/proc"
    try:
        mount("proc", "proc", "proc", _INERT)
        what = "/dev"
        if tty:
            mount(f"{template}/terminal", "dev", "", MS_BIND)
            for name in ("pts", "shm", "mqueue"):
                mount(f"{template}/next/dev/{name}", f"dev/{name}", "", MS_MOVE)
        else:
            mount(f"{template}/next/dev", "dev", "", MS_MOVE)
        what = "/sys"
        mount("sysfs", "sys", "sysfs", _INERT | MS_RDONLY)
    except OSError as error:
        raise failed("mount", f"mounting {what} failed", error) from error
    if cgroup_view:
        try:
            mount("cgroup2", "sys/fs/cgroup", "cgroup2", _INERT | MS_RDONLY)
        except OSError as error:
            if error.errno != errno.ENOENT:  # a kernel whose sysfs has no place for it
                raise failed("mount", "mounting /sys/fs/cgroup failed", error) from error


def _require_directory(name: str) -> None:
    try:
        mode = os.lstat(name).st_mode
    except FileNotFoundError:
        os.mkdir(name, 0o755)
        return
    if not stat.S_ISDIR(mode):
        raise LaunchError("mount", errno.ENOTDIR, f"mounting /{name} failed: in the image it is not a directory")


def _mask(path: str, template: str) -> None:
    """What is not there needs no mask. A directory becomes an empty one, a file /dev/null; both read-only mounts."""
    target = _of_kernel(path)
    try:
        directory = stat.S_ISDIR(os.lstat(target).st_mode)
        mount(f"{template}/empty" if directory else f"{template}/dev/null", target, "", MS_BIND)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise failed("mount", f"masking {path} failed", error) from error


def _make_read_only(path: str) -> None:
    target = _of_kernel(path)
    try:
        mount(target, target, "", MS_BIND)
        mount("", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | _INERT)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise failed("mount", f"making {path} read-only failed", error) from error


def _of_kernel(path: str) -> str:
    """Relative to the root. /proc and /sys are freshly mounted: nothing in them is the image's, no link leads out."""
    if path.startswith(("/proc/", "/sys/")) and ".." not in path:
        return path[1:]
    raise LaunchError("mount", errno.EINVAL, f"{path} cannot be masked: it is not in /proc or /sys")


def _mount_wish(root_fd: int, wish: MountPlan) -> None:
    target, source = wish["target"], wish.get("source", "")
    if wish["kind"] == "tmpfs":
        place = _place(root_fd, target, directory=True)
        flags = MS_NOSUID | MS_NODEV | (MS_RDONLY if wish["read_only"] else 0)
        try:
            mount("tmpfs", f"/proc/self/fd/{place}", "tmpfs", flags, wish.get("data", ""))
        except OSError as error:
            raise failed("mount", f"mounting a tmpfs on {target} failed", error) from error
        os.close(place)
        return
    try:
        tree = open_tree(source, OPEN_TREE_CLONE | AT_RECURSIVE)
        mode = os.fstat(tree).st_mode
        device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
        attributes = (MOUNT_ATTR_RDONLY if wish["read_only"] else 0) | (0 if device else MOUNT_ATTR_NODEV)
        mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, attributes, MS_PRIVATE)
        place = _place(root_fd, target, directory=stat.S_ISDIR(mode))
        move_mount(tree, place)
    except OSError as error:
        raise failed("mount", f"mounting {source} on {target} failed", error) from error
    os.close(tree)
    os.close(place)


def _place(root_fd: int, target: str, *, directory: bool) -> int:
    """The mount point: what `target` is inside the root, made where it is missing. An O_PATH descriptor."""
    try:
        fd = _make_way(root_fd, target, directory=directory)
    except OSError as error:
        raise failed("mount", f"the mount point {target} cannot be made in the image", error) from error
    # A link of the image that leads a volume over /proc or /sys would hide what they tell, or forge it.
    if os.fstat(fd).st_dev in (os.lstat("proc").st_dev, os.lstat("sys").st_dev) and not target.startswith(
        ("/proc/", "/sys/")
    ):
        os.close(fd)
        raise LaunchError("mount", errno.EXDEV, f"the mount point {target} is a link into the image's /proc or /sys")
    return fd


def _make_way(root_fd: int, target: str, *, directory: bool) -> int:
    try:
        return openat2(root_fd, target, os.O_PATH, _IN_ROOT)
    except FileNotFoundError:
        pass
    names = [name for name in target.split("/") if name not in ("", ".")]
    parent, way = os.dup(root_fd), ""
    for index, name in enumerate(names):
        way = f"{way}/{name}"
        try:
            fd = openat2(root_fd, way, os.O_PATH, _IN_ROOT)
        except FileNotFoundError:
            if directory or index < len(names) - 1:
                os.mkdir(name, 0o755, dir_fd=parent)
            else:
                os.mknod(name, 0o100644, dir_fd=parent)
            fd = openat2(root_fd, way, os.O_PATH, _IN_ROOT)
        os.close(parent)
        parent = fd
    return parent


def _unmark(mark: str) -> None:
    """A volatile mount leaves a mark in `work` so that it is not used again after a crash of the machine.

    Ours may be: a container whose upper directory need not survive starts with what it has.
    """
    try:
        os.unlink(f"{mark}/dirty")
        os.rmdir(mark)
    except FileNotFoundError:
        return
    except OSError as error:
        raise failed("mount", f"removing {mark} failed", error) from error
