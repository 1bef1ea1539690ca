"""What a container is born into, made before anybody asks for it: see `spawner`, whose process this is.

Its network namespace, with `lo` up, its IPC namespace, and what is mounted by them: `next/dev` with its own devpts, shm
and mqueue, and `next/sys`, which the container moves to their places in its copy of the mount namespace.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import struct

from runtime.syscall import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    mount,
    umount2,
    unshare,
)

_INERT = MS_NOSUID | MS_NODEV | MS_NOEXEC
_SIOCSIFFLAGS = 0x8914
_NETWORK_SETTINGS = (("ping_group_range", b"0 2147483647"), ("ip_unprivileged_port_start", b"0"))
_LOOPBACK_UP = struct.pack("<16sh22x", b"lo", 1)


def enter() -> None:
    """Once: mounts of its own, so that none of them is the supervisor's."""
    unshare(CLONE_NEWNS)


def prepare(template: str) -> None:
    """Make new ones, and stand in them. Raises: OSError."""
    unshare(CLONE_NEWNET | CLONE_NEWIPC)
    _open_network()
    dev = f"{template}/next/dev"
    mount(f"{template}/dev", dev, "", MS_BIND)
    mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    mount("shm", f"{dev}/shm", "tmpfs", _INERT, "mode=1777,size=64m")
    mount("mqueue", f"{dev}/mqueue", "mqueue", _INERT)
    mount("sysfs", f"{template}/next/sys", "sysfs", _INERT | MS_RDONLY)


def leave(template: str) -> None:
    """Let go of the mounts: somebody was born into them."""
    umount2(f"{template}/next/dev", MNT_DETACH)
    umount2(f"{template}/next/sys", MNT_DETACH)


def _open_network() -> None:
    """The loopback up; ping and low ports without rights: nobody gains any by a file, as `ping` does elsewhere."""
    for name, value in _NETWORK_SETTINGS:
        try:
            fd = os.open(f"/proc/sys/net/ipv4/{name}", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, value)
            os.close(fd)
        except OSError:  # a machine whose /proc/sys is read-only: then only root pings
            break
    fd = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM).detach()
    try:
        fcntl.ioctl(fd, _SIOCSIFFLAGS, _LOOPBACK_UP)
    finally:
        os.close(fd)
