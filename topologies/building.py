"""The steps of `lab up` that wait for daemons, as much side by side as they allow.

Imported while the daemons that `lab` has started are importing, too.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sdn.client.client import Client, resource
from sdn.model.errors import HawseError, unavailable
from topologies import switches
from topologies.containers import run, run_request
from topologies.daemons import Daemon, LateFile, Say, Started, count
from topologies.images import Images, bring, needed
from topologies.record import Directory
from topologies.values import ContainerSpec, NetworkSpec, Topology

SETTLE_S = 15.0
AGAIN_S = 0.05
THREADS = 16
"""Requests under way at once: they wait for daemons, they do not compute."""


def build(directory: Directory, topology: Topology, base: Path, images: Images, started: Started, say: Say) -> None:
    """From started daemons to a lab that is up. `base`: what paths of the topology's file are relative to.

    Raises: HawseError; KeyboardInterrupt (SIGTERM too).
    """
    with concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix="lab") as pool:
        try:
            asyncio.run(_interruptible(_Building(directory, topology, base, images, say, pool).run(started)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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


class _Building:
    """The steps, and what they hand to each other."""

    def __init__(
        self,
        directory: Directory,
        topology: Topology,
        base: Path,
        images: Images,
        say: Say,
        pool: concurrent.futures.Executor,
    ) -> None:
        self._directory = directory
        self._topology = topology
        self._base = base
        self._images = images
        self._say = say
        self._client = Client(directory.controller_url)
        self._pool = pool

    async def run(self, started: Started) -> None:
        await started.controller.wait_ready()
        self._say("the controller serves")
        await self._mint(started)
        async with asyncio.TaskGroup() as group:
            bringing = group.create_task(self._bring_images(started.runtimes))
            for position, host in enumerate(self._topology.hosts):
                if not host.datapath.has_agent:
                    group.create_task(self._call(switches.set_up, self._directory, self._topology, position))
            await self._connect(started.agents)
            await self._make_networks()  # their MTU depends on what the hosts have told
        await self._run_containers(bringing.result())
        await self._await_switches()
        await self._settle()

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def _mint(self, started: Started) -> None:
        async def one(name: str, file: LateFile) -> None:
            await self._call(self._client.post, "/v1/hosts", {"name": name})
            credential = (await self._call(self._client.post, f"{resource('hosts', name)}/credential")).body
            file.fill(json.dumps(credential).encode())

        async with asyncio.TaskGroup() as group:
            for name, file in started.configurations.items():
                group.create_task(one(name, file))
            for position, host in enumerate(self._topology.hosts):
                if not host.datapath.has_agent:
                    group.create_task(self._call(self._client.post, "/v1/switches", switches.spec_of(host, position)))

    async def _connect(self, agents: dict[str, Daemon]) -> None:
        async with asyncio.TaskGroup() as group:
            for agent in agents.values():
                group.create_task(agent.wait_ready())
        self._say(f"{count(len(agents), 'agent')} connected")

    async def _make_networks(self) -> None:
        async with asyncio.TaskGroup() as group:
            for tenant in self._topology.tenants:
                group.create_task(self._call(self._client.put, resource("tenants", tenant), {"name": tenant}))
        for network in self._topology.networks:  # one after the other: automatic subnets in the file's order
            await self._call(self._client.put, resource("networks", network.reference), _network_body(network))
        self._say(count(len(self._topology.networks), "network"))

    async def _bring_images(self, runtimes: dict[str, Daemon]) -> dict[tuple[str, str], str]:
        """By host and path: what a container there asks for the image by."""
        brought: dict[tuple[str, str], str] = {}

        async def one(host: str, runtime: Daemon) -> None:
            await runtime.wait_ready()
            here = [container for container in self._topology.containers if container.host == host]
            for image in needed(self._images, here):
                brought[host, image.path] = await self._call(bring, self._directory.root(host), image)

        async with asyncio.TaskGroup() as group:
            for host, runtime in runtimes.items():
                group.create_task(one(host, runtime))
        if brought:
            self._say(f"{count(len(brought), 'image')} loaded")
        return brought

    async def _run_containers(self, brought: dict[tuple[str, str], str]) -> None:
        wires: dict[str, list[switches.Wire]] = {}
        for wire in switches.wires_of(self._topology):
            wires.setdefault(wire.container, []).append(wire)

        async def one(container: ContainerSpec) -> None:
            image = self._images[container.name]
            name = "" if image is None else brought[container.host, image.path]
            own = wires.get(container.name, [])
            wished = switches.without_wires(container) if own else container
            await self._call(run, self._directory.root(container.host), run_request(wished, name, self._base))
            for wire in own:
                await self._call(switches.plug, self._directory, self._client, wire)

        async with asyncio.TaskGroup() as group:
            for container in self._topology.containers:
                group.create_task(one(container))
        attachments = sum(len(container.attachments) for container in self._topology.containers)
        containers = count(len(self._topology.containers), "container")
        self._say(f"{containers} with {count(attachments, 'attachment')}")

    async def _await_switches(self) -> None:
        """Until each is connected and has all of its ports."""
        for host in self._topology.hosts:
            wires = sum(wire.host == host.name for wire in switches.wires_of(self._topology))
            what = ""
            try:
                async with asyncio.timeout(SETTLE_S):
                    while not host.datapath.has_agent:
                        what = await self._call(switches.awaited, self._client, host.name, wires)
                        if not what:
                            break
                        await asyncio.sleep(AGAIN_S)  # what a switch has come to is no event
            except TimeoutError:
                raise unavailable(f"{what}, after {SETTLE_S:g} s", "the lab was taken down again") from None

    async def _settle(self) -> None:
        """Until every host has done all of it: the first packet must find its way.

        A host fails for a moment at the endpoint of a container that has ended already, until it is given back.
        """
        bad: dict[str, str] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while True:
                    revision = (await self._call(self._client.get, "/v1/status")).body["revision"]
                    query = f"/v1/status?revision={revision}&wait={SETTLE_S:g}"
                    status = (await self._call(self._client.get, query)).body
                    bad = {h["name"]: str(h.get("state")) for h in status["hosts"] if h.get("state") != "applied"}
                    if not bad:
                        return
                    await asyncio.sleep(AGAIN_S)  # a failure that goes away is no event
        raise unavailable(
            f"not every host is in step after {SETTLE_S:g} s: "
            + (", ".join(f"{name}: {state}" for name, state in bad.items()) or "the controller does not tell"),
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
