"""Network namespaces: made, pinned by a bind mount, entered by one thread of its own.

`setns` and `unshare` act on the calling thread. One permanent thread does all of it and goes home after each task: a
thread that stayed would keep a dead container's namespace, and its veth, alive. Everything else in the process works
with sockets that this thread has made for it.

Source: setns(2), unshare(2), ip-netns(8), Documentation/admin-guide/sysctl/net.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MNT_DETACH = 2
_NS_GET_NSTYPE = 0xB703
_SO_NETNS_COOKIE = 71
_OWN_NAMESPACE = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _enter(fd: int) -> None:
    _checked(_libc.setns(fd, _CLONE_NEWNET), "cannot enter a network namespace")


class _Thread:
    """The one thread that changes its namespace. Tasks are done one after the other."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[int | None, Callable[[], Any], queue.SimpleQueue[tuple[bool, Any]]]]
        self._tasks = queue.SimpleQueue()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def run(self, fd: int | None, task: Callable[[], T]) -> T:
        """Do `task` in the namespace `fd` (None: a new one, that ends with the task unless it was pinned)."""
        if self._thread is None:
            self._start()
        reply: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
        self._tasks.put((fd, task, reply))
        done, value = reply.get()
        if not done:
            raise value
        result: T = value
        return result

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name="hawse-namespace", daemon=True)
                thread.start()
                self._thread = thread

    def _serve(self) -> None:
        home = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        while True:
            fd, task, reply = self._tasks.get()
            try:
                if fd is None:
                    _checked(_libc.unshare(_CLONE_NEWNET), "cannot make a network namespace")
                else:
                    _enter(fd)
                try:
                    outcome = (True, task())
                finally:
                    _enter(home)
            except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that asked
                outcome = (False, error)
            reply.put(outcome)
            del fd, task, reply, outcome


_thread = _Thread()


def run_in(ns_fd: int, task: Callable[[], T]) -> T:
    """Do a short task in a namespace, in the namespace thread; what it returns or raises."""
    return _thread.run(ns_fd, task)


def enter(ns_fd: int) -> None:
    """Take the calling thread there for good, and whatever threads it starts later. Raises: OSError."""
    _enter(ns_fd)


def socket_in(ns_fd: int | None, family: int, kind: int, protocol: int) -> socket.socket:
    """A socket that lives in a namespace (None: this process's), for use by any thread."""
    if ns_fd is None:
        return socket.socket(family, kind, protocol)
    return _thread.run(ns_fd, lambda: socket.socket(family, kind, protocol))


def cookie(ns_fd: int | None = None) -> int:
    """The namespace's cookie (SO_NETNS_COOKIE): differs for each namespace made since the machine was started."""
    with socket_in(ns_fd, socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0) as probe:
        return cookie_at(probe)


def cookie_at(there: socket.socket) -> int:
    """The cookie of the namespace that a socket lives in."""
    return int.from_bytes(there.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")


def is_namespace(fd: int) -> bool:
    """Whether a descriptor is of a network namespace."""
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def create(path: Path, prepare: Callable[[], None] = lambda: None) -> None:
    """Make a namespace, do `prepare` in it, and pin it at `path` (made as an empty file if need be).

    The pin comes last: what is there under the name is complete. Raises: OSError; then nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)

    def task() -> None:
        prepare()
        _checked(
            _libc.mount(_OWN_NAMESPACE.encode(), str(path).encode(), b"none", _MS_BIND, None),
            f"cannot pin a namespace at {path}",
        )

    path.touch()
    pinned = False
    try:
        _thread.run(None, task)
        pinned = True
    finally:
        if not pinned:
            path.unlink(missing_ok=True)


def open_pinned(path: Path) -> int | None:
    """A descriptor of the namespace pinned at `path`; None: there is none (or a file that a crash has left)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if is_namespace(fd):
        return fd
    os.close(fd)
    return None


def remove(path: Path) -> None:
    """Take the pin away; the namespace goes with its last descriptor, socket and process. Absent is fine."""
    while _libc.umount2(str(path).encode(), _MNT_DETACH) == 0:
        pass  # a pin over a pin: a file that two agents have mounted upon
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOENT):
        raise OSError(number, f"cannot unmount {path}: {os.strerror(number)}")
    path.unlink(missing_ok=True)


def write_sysctls(values: Mapping[str, str]) -> None:
    """Write settings below /proc/sys/net of the calling thread's own namespace, in order.

    Of one whose file is absent the kernel lacks the feature: it cannot be on.
    """
    for name, value in values.items():
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(f"/proc/sys/net/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, value.encode())
            finally:
                os.close(fd)


def read_sysctls(names: Iterable[str]) -> dict[str, str]:
    """Settings of the calling thread's own namespace; absent ones are left out."""
    found: dict[str, str] = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(f"/proc/sys/net/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                found[name] = os.read(fd, 256).decode().strip()
            finally:
                os.close(fd)
    return found
