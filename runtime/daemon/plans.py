"""From a specification and an image to what the supervisor launches: every default filled in, every path resolved.

Pure, but for one look whether a path of the host is there, which is passed in.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runtime.daemon.processes import UNSIZED, Confinement, Terminal, process_plan
from runtime.daemon.signals import parse_signal
from runtime.daemon.system_files import NAMES
from runtime.plan import CgroupPlan, LaunchPlan, MountPlan, RootPlan
from sdn.model.container import LOG_BYTES_MAX, MEMORY_BYTES_MIN, ContainerSpec, MountKind, MountSpec, Restart
from sdn.model.errors import invalid, not_found
from sdn.model.ids import parse_name

MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
]  # fmt: skip
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
"""The field's usual lists: what tells of the host, or changes it."""
HOSTNAME_BYTES_MAX = 64
"""HOST_NAME_MAX, sethostname(2)."""
INTERFACES_MAX = 64
LOG_BYTES_MIN = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class ImageView:
    """An image as a plan needs it. `layers` topmost first; `binds`: mounted read-only, (source, target)."""

    id: str
    config: Mapping[str, Any]
    layers: tuple[str, ...]
    binds: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """One start: which container, the how manieth, and where its files are. `cgroup`: all containers' of this root."""

    id: str
    run: int
    directory: str
    volumes: str
    cgroup: str


def check_spec(spec: ContainerSpec, cpus_online: int) -> None:
    """What can be refused before anything is made. Raises: INVALID."""
    if not spec.image:
        raise invalid("no image was named", "hawse image ls")
    _check_limits(spec, cpus_online)
    if spec.hostname:
        check_hostname(spec.hostname)
    if spec.stop_signal:
        parse_signal(spec.stop_signal)
    if spec.remove and spec.restart is not Restart.NO:
        raise invalid(
            "a container that is removed when it ends cannot be restarted", "give --rm or --restart, not both"
        )
    if spec.restart_retries and spec.restart is not Restart.ON_FAILURE:
        raise invalid("a number of retries belongs to the policy on-failure alone", "--restart on-failure:N")
    targets = [check_mount(mount).target for mount in spec.mounts]
    for target in targets:
        if targets.count(target) > 1:
            raise invalid(f"two mounts have the same target {target}", "give each its own")
    _check_interfaces(spec)


def _check_limits(spec: ContainerSpec, cpus_online: int) -> None:
    if spec.memory_bytes and spec.memory_bytes < MEMORY_BYTES_MIN:
        raise invalid(
            f"{spec.memory_bytes} bytes of memory are not enough for a process",
            f"give at least {MEMORY_BYTES_MIN} (6 MiB), or 0 for no limit",
            limit=MEMORY_BYTES_MIN,
        )
    if not 0 <= spec.cpus <= cpus_online or 0 < spec.cpus < 0.01:
        raise invalid(
            f"{spec.cpus:g} CPUs are not possible: this host has {cpus_online}",
            f"give 0.01 to {cpus_online}, or 0 for no limit",
            cpus=cpus_online,
        )
    if spec.pids < 0:
        raise invalid(f"{spec.pids} processes are not possible", "give 1 or more, or 0 for no limit")
    if spec.stop_timeout_s < 0 or spec.restart_retries < 0:
        raise invalid("a time to stop in and a number of retries are not negative", "give 0 or more")
    if not LOG_BYTES_MIN <= spec.log_bytes_max <= LOG_BYTES_MAX * 1024:
        raise invalid(f"a log of {spec.log_bytes_max} bytes is not possible", f"give {LOG_BYTES_MIN} or more")


def check_hostname(name: str) -> None:
    """Raises: INVALID."""
    allowed = all(label and all(c.isalnum() or c in "-_" for c in label) for label in name.split("."))
    if not name.isascii() or not allowed or len(name) > HOSTNAME_BYTES_MAX:
        raise invalid(
            f"{name!r} is not a name for a host", f"use up to {HOSTNAME_BYTES_MAX} letters, digits, '-', '_' and '.'"
        )


def check_mount(mount: MountSpec) -> MountSpec:
    """Raises: INVALID."""
    target = mount.target
    if "\0" in target + mount.source:
        raise invalid(f"the mount of {mount.source!r} to {target!r} holds a zero byte", "no path has one")
    if not target.startswith("/"):
        raise invalid(f"the target {target!r} of a mount is relative", "give a path that begins with /")
    if posixpath.normpath(target).strip("/") in ("", "."):
        raise invalid("nothing can be mounted in place of the container's /", "name a directory in it")
    if any(part == ".." for part in target.split("/")):
        raise invalid(f"the target {target!r} of a mount has '..' in it", "write it out")
    if mount.kind is MountKind.BIND and not mount.source.startswith("/"):
        raise invalid(
            f"the source {mount.source!r} of a bind is relative", "give a path that begins with /, or name a volume"
        )
    if mount.kind is MountKind.VOLUME:
        parse_name(mount.source, "volume")
    if mount.size_bytes < 0:
        raise invalid(
            f"a tmpfs of {mount.size_bytes} bytes is not possible", "give 1 or more, or 0 for half the memory"
        )
    return mount


def _check_interfaces(spec: ContainerSpec) -> None:
    if len(spec.networks) > INTERFACES_MAX:
        raise invalid(f"{len(spec.networks)} networks are too many", f"give at most {INTERFACES_MAX}")
    names = interface_names(spec)
    for name in names:
        if names.count(name) > 1:
            raise invalid(f"two interfaces would be named {name}", "give each its own name")


def interface_names(spec: ContainerSpec) -> list[str]:
    """The name of the interface of each network: as wished, else the first free of eth0, eth1 …"""
    wished = {wish.ifname for wish in spec.networks}
    free = (f"eth{number}" for number in range(2 * INTERFACES_MAX) if f"eth{number}" not in wished)
    return [wish.ifname or next(free) for wish in spec.networks]


def hostname_of(spec: ContainerSpec, container: str) -> str:
    """As wished, else the beginning of its id."""
    return spec.hostname or container[:12]


def launch_plan(
    spec: ContainerSpec,
    image: ImageView,
    start: Start,
    confinement: Confinement,
    terminal: Terminal = UNSIZED,
    exists: Callable[[str], bool] = posixpath.exists,
) -> LaunchPlan:
    """The whole plan. Raises: INVALID; NOT_FOUND (the source of a bind)."""
    hostname = hostname_of(spec, start.id)
    return LaunchPlan(
        id=start.id,
        run=start.run,
        directory=start.directory,
        hostname=hostname,
        root=RootPlan(
            layers=list(image.layers),
            upper=f"{start.directory}/upper",
            work=f"{start.directory}/work",
            read_only=spec.read_only,
            volatile=spec.remove,  # it is removed when it ends; after the machine's end too
        ),
        mounts=_mounts(spec, image, start, exists),
        masked=MASKED,
        read_only_paths=READ_ONLY,
        cgroup=CgroupPlan(
            path=f"{start.cgroup}/{start.id}", memory_bytes=spec.memory_bytes, cpus=spec.cpus, pids=spec.pids
        ),
        process=process_plan(spec, image.config, hostname, confinement, terminal),
        init=spec.init,
        log_bytes_max=spec.log_bytes_max,
    )


def _mounts(spec: ContainerSpec, image: ImageView, start: Start, exists: Callable[[str], bool]) -> list[MountPlan]:
    """The image's, /etc's three files, then what is wished, outer ones before what is mounted in them."""
    mounts = [MountPlan(kind="bind", source=source, target=target, read_only=True) for source, target in image.binds]
    wished = {posixpath.normpath(mount.target) for mount in spec.mounts}
    mounts += [
        MountPlan(kind="bind", source=f"{start.directory}/{name}", target=f"/etc/{name}", read_only=False)
        for name in NAMES
        if f"/etc/{name}" not in wished
    ]
    ordered = sorted(spec.mounts, key=lambda mount: posixpath.normpath(mount.target).count("/"))
    return mounts + [_mount(mount, start, exists) for mount in ordered]


def _mount(mount: MountSpec, start: Start, exists: Callable[[str], bool]) -> MountPlan:
    if mount.kind is MountKind.TMPFS:
        size = f",size={mount.size_bytes}" if mount.size_bytes else ""
        return MountPlan(kind="tmpfs", target=mount.target, read_only=mount.read_only, data=f"mode=1777{size}")
    if mount.kind is MountKind.VOLUME:
        source = f"{start.volumes}/{mount.source}"
    else:
        source = mount.source
        if not exists(source):
            raise not_found(
                f"the source {source} of a bind is not there", "make it first, or use a volume", source=source
            )
    return MountPlan(kind="bind", source=source, target=mount.target, read_only=mount.read_only)


def volumes_of(spec: ContainerSpec) -> Sequence[MountSpec]:
    """Its named volumes."""
    return [mount for mount in spec.mounts if mount.kind is MountKind.VOLUME]
