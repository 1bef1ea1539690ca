"""What a container is born into, made before anybody asks for it: see `spawner`, whose process this is.

Its network namespace, with `lo` up, its IPC namespace, and `next/dev` with its own devpts, shm and mqueue, which the
container moves to its place in its copy of the mount namespace.
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


def prepare(template: str, *, network: bool) -> None:
    """Make what the last container has taken, and stand in it; `network`: that namespace too. Raises: OSError."""
    if network:
        make_network()
    unshare(CLONE_NEWIPC)
    dev = f"{template}/next/dev"
    mount(f"{template}/dev", dev, "", MS_BIND)
    mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    mount("shm", f"{dev}/shm", "tmpfs", _INERT, "mode=1777,size=64m")
    mount("mqueue", f"{dev}/mqueue", "mqueue", _INERT)


def leave(template: str) -> None:
    """Let go of the mounts: somebody was born into them."""
    umount2(f"{template}/next/dev", MNT_DETACH)


def make_network() -> None:
    """A network namespace to stand in: the loopback up; ping and low ports without rights. Raises: OSError.

    Nobody gains any by a file, as `ping` does elsewhere.
    """
    unshare(CLONE_NEWNET)
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
