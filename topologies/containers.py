"""A lab's containers, as their hosts' runtimes have them: made, found, and where their network namespaces are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sdn.cli.attach import inspect, namespace_of
from sdn.model import container as model
from sdn.model.errors import HawseError
from sdn.model.runtime import RunRequest
from sdn.service.contract_client import request
from sdn.service.roots import Root
from topologies.images import HOST_IMAGE, absolute
from topologies.record import Directory
from topologies.values import ContainerSpec

SLEEP = ("sleep", "infinity")
RUN_TIMEOUT_S = 30.0
ASK_TIMEOUT_S = 5.0


def run_request(container: ContainerSpec, image: str, base: Path) -> RunRequest:
    """What is asked of the runtime. `base`: what paths of the file are relative to. Pure."""
    workload = container.workload
    asleep = workload.image is None and not workload.command
    spec = model.ContainerSpec(
        image=image or HOST_IMAGE,
        name=container.name,
        hostname=container.name,
        command=SLEEP if asleep else workload.command,
        # Process 1 of a container that has no handler ignores SIGTERM, and a sleep has nothing to put in order.
        stop_signal="SIGKILL" if asleep else "",
        networks=tuple(
            model.NetworkWish(network=a.network, ifname=a.ifname, addresses=a.addresses, mac=a.mac)
            for a in container.attachments
        ),
        env=workload.env,
        user=workload.user,
        workdir=workload.workdir,
        mounts=tuple(absolute(mount, base) for mount in workload.mounts),
        read_only=workload.read_only,
        init=workload.init,
        restart=workload.restart,
        memory_bytes=workload.memory_bytes,
        cpus=workload.cpus,
        pids=workload.pids,
        cap_add=workload.cap_add,
        cap_drop=workload.cap_drop,
    )
    return RunRequest(container=spec)


def run(root: Root, wish: RunRequest) -> dict[str, Any]:
    """Create and start one. Raises: HawseError that names it and its host."""
    try:
        return request(root.runtime_socket, msgspec.to_builtins(wish), timeout_s=RUN_TIMEOUT_S)
    except HawseError as error:
        error.message = f"the container {wish.container.name} cannot be started on {root.run.name}: {error.message}"
        raise


def containers_of(root: Root) -> list[dict[str, Any]]:
    """All of a host's runtime, those that do not run too. Raises: HawseError."""
    found = request(root.runtime_socket, {"verb": "PS", "all": True}, timeout_s=ASK_TIMEOUT_S)
    return list(found["items"])


def namespace_path(directory: Directory, host: str, name: str) -> Path:
    """Where the network namespace of a container is now; a restart makes another.

    Raises: NOT_FOUND, CONFLICT (it does not run), UNAVAILABLE.
    """
    return Path(namespace_of(inspect(directory.root(host), name)))


def place_of(directory: Directory, containers: Mapping[str, str], place: str) -> Path:
    """Where the network namespace of a container, a host or the underlay is. Raises: as `namespace_path`."""
    host = containers.get(place)
    return directory.namespace(place) if host is None else namespace_path(directory, host, place)
