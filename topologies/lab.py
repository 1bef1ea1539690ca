"""Bringing a topology to life: the steps of `lab up`, as much side by side as they allow.

Agents are started together with the controller, for most of a start is importing; each waits for its `agent.json`,
which is filled in as soon as the controller has minted the host's credential.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from sdn.client.client import Client, resource
from sdn.model.errors import HawseError, unavailable
from sdn.service.contract_client import request
from topologies import processes
from topologies.cleanup import destroy
from topologies.daemons import Daemon, LateFile, start
from topologies.record import CONTROLLER, UNDERLAY, Directory, Process, Record, claim, write_whole
from topologies.underlay import make_namespaces
from topologies.values import CONTROLLER_PORT, AttachmentSpec, ContainerSpec, NetworkSpec, Topology

SETTLE_S = 15.0
ATTACH_TIMEOUT_S = 20.0
THREADS = 16
"""Requests under way at once: they wait for daemons, they do not compute."""

Say = Callable[[str], None]


def bring_up(topology: Topology, file: str, text: bytes, say: Say) -> Directory:
    """Make the lab; on any error or interruption nothing is left of it.

    Raises: HawseError; KeyboardInterrupt (SIGTERM too).
    """
    record = Record(
        name=topology.name,
        file=os.path.abspath(file),
        phase="building",
        since_s=time.time(),
        hosts=tuple(host.name for host in topology.hosts),
        containers=tuple(container.name for container in topology.containers),
        builder=processes.identify(os.getpid()),
    )
    directory = claim(record, text)
    try:
        asyncio.run(_interruptible(_Building(directory, topology, record, say).run()))
    except BaseException:
        with _uninterrupted():
            destroy(directory)
        raise
    return directory


async def _interruptible(work: Coroutine[Any, Any, None]) -> None:
    """asyncio.run turns SIGINT into a cancellation of the main task; here SIGTERM does the same."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    stopped: list[int] = []

    def stop(number: int) -> None:
        stopped.append(number)
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, stop, signal.SIGTERM)
    try:
        await task
    except asyncio.CancelledError:
        if stopped:
            raise KeyboardInterrupt from None
        raise
    except BaseExceptionGroup as group:
        error = group.subgroup(HawseError)
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]  # type: ignore[assignment]  # a group holds groups, then a HawseError
        raise error or group from None
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


@contextlib.contextmanager
def _uninterrupted() -> Any:
    """Cleaning up takes a moment; a second Ctrl-C must not leave half of it."""
    old = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class _Building:
    """The steps, and what they hand to each other."""

    def __init__(self, directory: Directory, topology: Topology, record: Record, say: Say) -> None:
        self._directory = directory
        self._topology = topology
        self._record = record
        self._say = say
        self._client = Client(directory.controller_url)
        self._processes: dict[str, Process] = {}
        self._pool = concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix="lab")

    async def run(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._pool.shutdown, cancel_futures=True)
            controller = self._start_controller(stack)
            agents, configurations = self._start_agents(stack)
            self._start_containers()
            self._note("building")
            await controller.wait_ready()
            self._say("the controller serves")
            await self._mint(configurations)
            async with asyncio.TaskGroup() as group:
                for agent in agents:
                    group.create_task(agent.wait_ready())
            self._say(f"{_count(len(agents), 'agent')} connected")
            await self._make_networks()
            revision = await self._attach()
            await self._settle(revision)
        self._record = msgspec.structs.replace(self._record, builder=None)
        self._note("up")

    def _start_controller(self, stack: contextlib.ExitStack) -> Daemon:
        make_namespaces(self._directory, self._topology)
        self._say(f"{_count(len(self._topology.hosts), 'host')}, {_count(len(self._topology.containers), 'container')}")
        arguments = ["controller"]
        for address in self._topology.underlay.controllers:
            shown = f"[{address}]" if ":" in address else address
            arguments += ["--listen", f"{shown}:{CONTROLLER_PORT}"]
        return self._start(stack, CONTROLLER, UNDERLAY, arguments)

    def _start_agents(self, stack: contextlib.ExitStack) -> tuple[list[Daemon], dict[str, LateFile]]:
        agents: list[Daemon] = []
        configurations: dict[str, LateFile] = {}
        for host in self._topology.hosts:
            root = self._directory.root(host.name)
            root.create()
            configurations[host.name] = LateFile(root.agent_file)
            stack.callback(configurations[host.name].close)
            write_whole(root.client_file, json.dumps({"controller": self._directory.controller_url}).encode())
            agents.append(self._start(stack, host.name, host.name, ["agent", "--datapath", host.datapath]))
        return agents, configurations

    def _start(self, stack: contextlib.ExitStack, name: str, where: str, arguments: list[str]) -> Daemon:
        self._directory.root(name).create()
        daemon = Daemon(self._directory, name, where, arguments)
        stack.callback(daemon.close)
        self._processes[name] = daemon.process
        return daemon

    def _start_containers(self) -> None:
        for container in self._topology.containers:
            log = self._directory.log(container.name)
            command = container.workload.command or ("sleep", "infinity")
            self._processes[container.name] = start(self._directory, container.name, command, log)
        for host in self._topology.hosts:
            here = {
                container.name: {
                    "id": container.name,
                    "pid": self._processes[container.name].pid,
                    "netns": str(self._directory.namespace(container.name)),
                }
                for container in self._topology.containers
                if container.host == host.name
            }
            write_whole(self._directory.root(host.name).run / "containers.json", json.dumps(here, indent=1).encode())

    def _note(self, phase: str) -> None:
        self._record = msgspec.structs.replace(self._record, phase=phase, processes=dict(self._processes))
        self._directory.write(self._record)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def _mint(self, configurations: dict[str, LateFile]) -> None:
        async def one(name: str, file: LateFile) -> None:
            await self._call(self._client.post, "/v1/hosts", {"name": name})
            credential = (await self._call(self._client.post, f"{resource('hosts', name)}/credential")).body
            file.fill(json.dumps(credential).encode())

        async with asyncio.TaskGroup() as group:
            for name, file in configurations.items():
                group.create_task(one(name, file))

    async def _make_networks(self) -> None:
        async with asyncio.TaskGroup() as group:
            for tenant in self._topology.tenants:
                group.create_task(self._call(self._client.put, resource("tenants", tenant), {"name": tenant}))
        for network in self._topology.networks:  # one after the other: automatic subnets in the file's order
            await self._call(self._client.put, resource("networks", network.reference), _network_body(network))
        self._say(_count(len(self._topology.networks), "network"))

    async def _attach(self) -> int:
        """Every attachment; the highest revision that one was committed at."""
        results: list[int] = []

        async def one(container: ContainerSpec, attachment: AttachmentSpec, name: str) -> None:
            result = await self._call(_attach_one, self._directory, container, attachment, name)
            results.append(int(result["revision"]))

        async with asyncio.TaskGroup() as group:
            for container in self._topology.containers:
                tenants: set[str] = set()
                for attachment in container.attachments:
                    # A name is one endpoint's within a tenant: the first of a container's interfaces bears it.
                    tenant = attachment.network.partition("/")[0]
                    group.create_task(one(container, attachment, "" if tenant in tenants else container.name))
                    tenants.add(tenant)
        self._say(_count(len(results), "attachment"))
        return max(results, default=0)

    async def _settle(self, revision: int) -> None:
        """Until every host has done all of it: the first packet must find its way."""
        if not revision:
            return
        query = f"/v1/status?revision={revision}&wait={SETTLE_S:g}"
        status = (await self._call(self._client.get, query)).body
        bad = [f"{host['name']}: {host.get('state')}" for host in status["hosts"] if host.get("state") != "applied"]
        if bad:
            raise unavailable(
                f"not every host is in step with revision {revision} after {SETTLE_S:g} s: {', '.join(bad)}",
                "the lab was taken down again; is the machine very busy?",
            )


def _network_body(network: NetworkSpec) -> dict[str, Any]:
    subnets = [
        {
            "prefix": subnet.prefix,
            **({"gateway": subnet.gateway} if subnet.gateway else {}),
            **({"range": subnet.range} if subnet.range else {}),
            **({"reserved": list(subnet.reserved)} if subnet.reserved else {}),
        }
        for subnet in network.subnets
    ]
    families = {} if subnets else {"ipv4": network.ipv4, "ipv6": network.ipv6}
    mtu = {"mtu_bytes": network.mtu_bytes} if network.mtu_bytes else {}
    return {"tenant": network.tenant, "name": network.name, "subnets": subnets, **families, **mtu}


def _attach_one(
    directory: Directory, container: ContainerSpec, attachment: AttachmentSpec, name: str
) -> dict[str, Any]:
    message = {
        "verb": "ADD",
        "client": "cli",
        "container": container.name,
        "ifname": attachment.ifname,
        "network": attachment.network,
        "addresses": list(attachment.addresses),
        "mac": attachment.mac,
        "name": name,
        "settle_ms": 0,
    }
    fd = os.open(directory.namespace(container.name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        return request(directory.root(container.host).agent_socket, message, fd, timeout_s=ATTACH_TIMEOUT_S)
    except HawseError as error:
        error.message = f"{container.name} cannot be attached to {attachment.network}: {error.message}"
        raise
    finally:
        os.close(fd)


def _first_in_tenant(container: ContainerSpec, attachment: AttachmentSpec) -> AttachmentSpec:
    tenant = attachment.network.partition("/")[0]
    return next(other for other in container.attachments if other.network.partition("/")[0] == tenant)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def shipped(name: str) -> Path:
    """A topology file that the package brings along."""
    return Path(__file__).with_name(f"{name}.yaml")
