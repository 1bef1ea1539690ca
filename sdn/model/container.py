"""Containers as values: what is wished of one, and what is told about one. They cross the runtime's protocol."""

from __future__ import annotations

import enum
from typing import Any

from sdn.model.resources import Value

MEMORY_BYTES_MIN = 6 << 20
"""Less does not even start a process (the same bound as Docker's)."""
STOP_TIMEOUT_S = 10.0
LOG_BYTES_MAX = 64 << 20
"""What is kept of a container's output unless it says otherwise; the oldest goes first."""


class State(enum.StrEnum):
    """Where a container is. `dead`: its exit cannot be known any more, or it could not be cleaned up."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"
    DEAD = "dead"


class Restart(enum.StrEnum):
    """When a container that ended is started again. `unless-stopped` differs from `always` after a daemon's restart."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"


class MountKind(enum.StrEnum):
    """`bind`: a path of the host; `volume`: a named directory that Hawse keeps; `tmpfs`: memory."""

    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"


class MountSpec(Value, frozen=True, kw_only=True):
    """Something at `target` (absolute, inside). `source`: a host path or a volume's name; `size_bytes`: of a tmpfs."""

    kind: MountKind
    target: str
    source: str = ""
    read_only: bool = False
    size_bytes: int = 0


class NetworkWish(Value, frozen=True, kw_only=True):
    """An interface. `network` is a reference; `addresses` at most one per subnet, without prefix length."""

    network: str
    ifname: str = ""
    addresses: tuple[str, ...] = ()
    mac: str = ""
    aliases: tuple[str, ...] = ()


class ContainerSpec(Value, frozen=True, kw_only=True):
    """What is wished of a container. Empty means: as the image says (command, user …), or no bound (limits, 0).

    `env` and `env_file` are merged by the client, in order, `K=V`. `entrypoint`: None is the image's, () is none.
    `stop_signal` is a name (`SIGTERM`). `restart_retries`: for `on-failure`, 0 is without end.
    """

    image: str
    command: tuple[str, ...] = ()
    name: str = ""
    networks: tuple[NetworkWish, ...] = ()
    hostname: str = ""
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    entrypoint: tuple[str, ...] | None = None
    labels: dict[str, str] = {}
    mounts: tuple[MountSpec, ...] = ()
    read_only: bool = False
    init: bool = False
    tty: bool = False
    stdin: bool = False
    remove: bool = False
    restart: Restart = Restart.NO
    restart_retries: int = 0
    memory_bytes: int = 0
    cpus: float = 0.0
    pids: int = 0
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_timeout_s: float = STOP_TIMEOUT_S
    log_bytes_max: int = LOG_BYTES_MAX


class Interface(Value, frozen=True, kw_only=True):
    """An interface that a container has: what the agent's ADD told."""

    network: str
    ifname: str
    endpoint: str
    mac: str
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()


class ContainerInfo(Value, frozen=True, kw_only=True):
    """A container as it is. Times are seconds since the epoch, 0.0: not yet. `exit_code` means something once exited.

    `error`: why it is not running although it should (126, 127), or what is wrong with it. `restarts`: by its policy.
    `command`: what is run, entrypoint included. `log_lost_bytes`: output that could not be written (a full disk).
    """

    id: str
    name: str
    state: State
    spec: ContainerSpec
    image_id: str = ""
    command: tuple[str, ...] = ()
    pid: int = 0
    created_s: float = 0.0
    started_s: float = 0.0
    finished_s: float = 0.0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    restarts: int = 0
    interfaces: tuple[Interface, ...] = ()
    log_lost_bytes: int = 0


class Usage(Value, frozen=True, kw_only=True):
    """What a container uses. Limits 0: none. CPU in nanoseconds since its start; network in bytes since its start."""

    id: str
    name: str
    cpu_ns: int = 0
    memory_bytes: int = 0
    memory_max_bytes: int = 0
    pids: int = 0
    pids_max: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


class ImageInfo(Value, frozen=True, kw_only=True):
    """An image. `id`: `sha256:` and the digest of its configuration. `size_bytes`: of its layers, unpacked.

    `names`: `repository:tag` each. `config`: the OCI image configuration's `config` object, as it is in the image.
    """

    id: str
    names: tuple[str, ...] = ()
    created_s: float = 0.0
    size_bytes: int = 0
    layers: tuple[str, ...] = ()
    architecture: str = ""
    config: dict[str, Any] = {}
