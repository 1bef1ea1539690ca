"""The files and directories of cgroup mounts: reading, writing, waiting, removing, and the sentences for what fails."""

from __future__ import annotations

import errno
import os
import select
import time

from runtime.hierarchies import CgroupError, Hierarchies, Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

POLL_MS = 1
"""v1 tells nobody when a cgroup is frozen or empty: it is asked so often."""
READ_BYTES_MAX = 1 << 20
"""More than any of these files holds, but for a list of 100 000 processes."""
MAKE_ATTEMPTS_MAX = 5
"""Another supervisor may remove an empty parent directory while it is about to be used: then it is made again."""


def failure(attempt: str, error: OSError) -> CgroupError:
    """A kernel's error as a sentence: `attempt` is a verb and its object."""
    return CgroupError(error.errno or errno.EIO, f"cannot {attempt}: {error.strerror}")


def read(path: str) -> str:
    """A whole file; "" where it is gone, or its cgroup (ENODEV) or process (ESRCH) dies."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return ""
    try:
        parts = []
        while part := os.read(descriptor, READ_BYTES_MAX):
            parts.append(part)
        return b"".join(parts).decode("ascii", "replace")
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ESRCH):
            return ""
        raise
    finally:
        os.close(descriptor)


def write(path: str, text: str) -> None:
    """The text, in one write(2): the kernel takes it as a whole or says why not. Raises: OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def field(text: str, name: str) -> int:
    """The number after `name` in lines `name number`; 0 where there is none."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def children(directory: str) -> list[str]:
    """The names of the cgroups right below; none where it is gone."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def make(hierarchies: Hierarchies, mount: str, path: str) -> bool:
    """A cgroup at `path`, its parents where they lack. Returns: whether it is new; False: one of that name is there.

    Raises: CgroupError (the mount is read-only, there are too many …).
    """
    directory = f"{mount}/{path}"
    try:
        for _ in range(MAKE_ATTEMPTS_MAX):
            try:
                os.mkdir(directory)
                return True
            except FileNotFoundError:
                _make_parents(hierarchies, mount, path)
            except FileExistsError:
                return False
        raise CgroupError(errno.EAGAIN, f"cannot make the cgroup {directory}: its parents are removed all the time")
    except OSError as error:
        raise failure(f"make the cgroup {directory}", error) from None


def _make_parents(hierarchies: Hierarchies, mount: str, path: str) -> None:
    """The directories above; in v2 with every controller that can be handed down (a limit insists on its own)."""
    parent = os.path.dirname(path)
    os.makedirs(f"{mount}/{parent}", exist_ok=True)
    if mount == hierarchies.v2:
        for controller in hierarchies.v2_controllers:
            try:
                _enable(mount, path, controller)
            except OSError:
                continue


def _enable(mount: str, path: str, controller: str) -> None:
    """Hand a controller down to `path`: each directory above it has to, from the top. Raises: OSError."""
    directory = mount
    for name in path.split("/"):
        write(f"{directory}/cgroup.subtree_control", f"+{controller}")
        directory = f"{directory}/{name}"


def apply(hierarchies: Hierarchies, path: str, setting: Setting) -> None:
    """Write one limit. Raises: CgroupError (the kernel refuses it; its controller does not come down to here)."""
    file = f"{setting.mount}/{path}/{setting.file}"
    try:
        write(file, setting.text)
    except FileNotFoundError:
        if setting.optional:
            return
        if setting.mount != hierarchies.v2:
            raise CgroupError(errno.ENOENT, f"cannot limit {setting.wish}: there is no {file}") from None
        try:
            _enable(setting.mount, path, setting.controller)
            write(file, setting.text)
        except OSError as error:
            reason = f"the controller {setting.controller!r} cannot be handed down to {setting.mount}/{path}"
            if error.errno == errno.EBUSY:
                reason += ": a cgroup above it holds processes itself"
            raise failure(f"limit {setting.wish}: {reason}", error) from None
    except OSError as error:
        raise failure(f"limit {setting.wish} (writing {setting.text!r} to {file})", error) from None


def remove_tree(directory: str) -> None:
    """Remove a cgroup and all below it. Absent is fine. Raises: OSError (EBUSY: processes are in it)."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        below = children(directory)
        if error.errno != errno.EBUSY or not below:
            raise
        for name in below:
            remove_tree(f"{directory}/{name}")
        remove_tree(directory)


def wait_event(path: str, name: str, value: int, deadline: float) -> bool:
    """Wait until a v2 `cgroup.events` says so, or its cgroup is gone. Returns: whether it did before the deadline."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLPRI)
        while field(os.pread(descriptor, 4096, 0).decode("ascii"), name) != value:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                return False
            poll.poll(remaining_s * 1000)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
    finally:
        os.close(descriptor)
    return True


def wait_condition(holds: Callable[[], bool], deadline: float) -> bool:
    """Wait for what no event tells of. Returns: whether it held before the deadline."""
    while not holds():
        if time.monotonic() >= deadline:
            return False
        pause()
    return True


def pause() -> None:
    """One interval of asking."""
    select.poll().poll(POLL_MS)
