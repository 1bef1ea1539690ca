"""A controller and an Open vSwitch without an agent that connects to it, with containers on its ports, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from plugin.kernel import namespace
from sdn.controller.listen import Address, OpenflowAddress
from sdn.controller.steering.listener import LIMITS, OpenflowListener
from sdn.store.memory import Disk
from tests.conformance.vswitch_process import VswitchProcess, vswitch_process
from tests.packet.namespaces import TestNamespace
from tests.packet.talk import answered, patience
from tests.unit.rest_server import Answer, Served, running

BRIDGE = "br0"
DATAPATH_ID = "00000000000000a1"
WAIT_S = 30.0


@dataclasses.dataclass
class Wired:
    """An Open vSwitch with containers on its ports."""

    vswitch: VswitchProcess
    undo: contextlib.ExitStack

    async def vsctl(self, *words: str) -> str:
        """`ovs-vsctl`."""
        return await asyncio.to_thread(self.vswitch.vsctl, *words)

    async def flows(self) -> list[str]:
        """Every flow of the bridge, but for its counters."""
        return await asyncio.to_thread(self.flows_at_once)

    def flows_at_once(self) -> list[str]:
        """The same, and nothing else goes on in the loop meanwhile."""
        text = self.vswitch.ofctl("dump-flows", BRIDGE)
        lines = [line.strip() for line in text.splitlines() if "cookie=" in line]
        return sorted(re.sub(r"(duration|n_packets|n_bytes|idle_age|hard_age)=[^ ]*,? ?", "", line) for line in lines)

    async def until_flows(self, ready: Callable[[list[str]], bool], what: str) -> None:
        """Look at the flows until they are so."""
        flows: list[str] = []
        try:
            async with asyncio.timeout(WAIT_S):
                while not ready(flows := await self.flows()):  # noqa: ASYNC110 it is a look from outside
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"it never came to this: {what}: {flows}") from None

    async def container(self, port: str, addresses: list[str], mac: str) -> TestNamespace:
        """A namespace behind a new port of the switch, addressed as its endpoint is."""
        inside = TestNamespace()
        self.undo.callback(inside.close)

        def make() -> None:
            here = self.vswitch.here
            here.ip(f"link add {port} type veth peer name eth0 address {mac} netns {inside.name}\nlink set {port} up")
            self.undo.callback(_remove, here, port)
            lines = [f"addr add {address} dev eth0" for address in addresses]
            inside.ip("\n".join(["link set lo up", *lines, "link set eth0 up"]))
            offload = ["nsenter", f"--net=/run/netns/{inside.name}", "ethtool", "-K", "eth0", "tx", "off"]
            subprocess.run(offload, check=True, capture_output=True, timeout=30)
            self.vswitch.vsctl("add-port", BRIDGE, port)

        await asyncio.to_thread(make)
        return inside

    async def ping(self, inside: TestNamespace, address: str, count: int = 3, wait_s: float = WAIT_S) -> int:
        """How many of so many requests are answered."""

        def run() -> int:
            words = ["nsenter", f"--net=/run/netns/{inside.name}", "ping", "-n", "-i", "0.05", "-c", str(count)]
            done = subprocess.run(
                [*words, *patience(count, wait_s), address], capture_output=True, text=True, check=False, timeout=60
            )
            return len(answered(done.stdout) & set(range(1, count + 1)))

        return await asyncio.to_thread(run)


@dataclasses.dataclass
class Steered(Wired):
    """`served`: the controller. Its listeners are in the switch's namespace, on loopback."""

    served: Served
    listener: OpenflowListener
    plain: int
    secure: int
    disk: Disk

    async def ask(self, method: str, path: str, body: Any = None, status: int | None = None) -> Any:
        """A request that has to succeed, or to have that status; the body of its reply."""
        answer: Answer = await self.served.ask(method, path, body)
        assert answer.status == status if status else answer.status < 300, answer
        return answer.body

    async def add(self, name: str = "s1", **more: Any) -> Any:
        """`switch add`."""
        spec = {"name": name, "datapath_id": DATAPATH_ID, "vtep4": "192.0.2.1", **more}
        return await self.ask("POST", "/v1/switches", spec)

    async def bind(self, port: str, network: str = "web", switch: str = "s1", **more: Any) -> Any:
        """`switch bind`, and wait until the switch has it."""
        answer = await self.served.ask(
            "POST", f"/v1/switches/{switch}/ports", {"port": port, "network": network, **more}
        )
        assert answer.status in (200, 201), answer
        return answer.body

    async def settled(self) -> list[dict[str, Any]]:
        """Wait for the hosts concerned by the last revision; how they are."""
        path = f"/v1/status?revision={self.served.core.revision}&wait={WAIT_S:g}"
        status = await self.ask("GET", path)
        assert status["settled"], status
        hosts: list[dict[str, Any]] = status["hosts"]
        return hosts

    async def inspect(self, switch: str = "s1") -> Any:
        """`switch inspect`."""
        return await self.ask("GET", f"/v1/switches/{switch}")

    async def until(self, ready: Callable[[Any], bool], what: str, switch: str = "s1") -> Any:
        """Look at the switch, as the API shows it, until it is so."""
        shown: Any = None
        try:
            async with asyncio.timeout(WAIT_S):
                while not ready(shown := await self.inspect(switch)):  # noqa: ASYNC110 it is a look from outside
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"it never came to this: {what}: {shown}; {self.served.log.lines[-5:]}") from None
        return shown

    async def connected(self, switch: str = "s1") -> Any:
        """Wait until it is."""
        return await self.until(lambda shown: shown["connected"], "connected", switch)

    async def logged(self, event: str) -> dict[str, Any]:
        """Wait until the log says this; the fields of the first line that does."""
        async with asyncio.timeout(WAIT_S):
            while not (lines := self.served.log.named(event)):  # noqa: ASYNC110 it is a look from outside
                await asyncio.sleep(0.02)
        return lines[0]

    async def point(self, target: str | None = None) -> None:
        """Have the switch connect to the controller, plainly unless said otherwise."""
        connect = ["set-controller", BRIDGE, target or f"tcp:127.0.0.1:{self.plain}"]
        await self.vsctl(*connect, "--", "set", "controller", BRIDGE, "max_backoff=1000")  # the least, in ms


def _remove(here: TestNamespace, port: str) -> None:
    with contextlib.suppress(AssertionError):  # the container's end took it with it
        here.ip(f"link del {port}")


@contextlib.asynccontextmanager
async def controller(
    directory: Path, vswitch: VswitchProcess, disk: Disk
) -> AsyncIterator[tuple[Served, OpenflowListener, int, int]]:
    """One whose OpenFlow listeners are in the switch's namespace: plain and secure; their ports."""
    async with running(directory, disk=disk) as served:
        listener = OpenflowListener(
            served.core, served.identity, served.edge.metrics, served.log, dataclasses.replace(LIMITS, unproven=8)
        )
        ports: list[int] = []
        for secure in (False, True):
            one = namespace.socket_in(vswitch.here.fd, socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0)
            one.bind(("127.0.0.1", 0))
            one.listen(64)
            listener.listen(one, OpenflowAddress(secure, Address(*one.getsockname())))
            ports.append(one.getsockname()[1])
        try:
            yield served, listener, ports[0], ports[1]
        finally:
            await listener.close()


def prepared(undo: contextlib.ExitStack) -> VswitchProcess:
    """A switch with a bridge for Hawse, as `hawse help switches` says; ended with `undo`."""
    vswitch = undo.enter_context(vswitch_process())
    vswitch.here.ip("link set lo up")
    bridge = ["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev", "fail_mode=secure"]
    bridge += ["protocols=OpenFlow13", f"other_config:datapath-id={DATAPATH_ID}"]
    tunnel = ["--", "add-port", BRIDGE, "hwvxlan", "--", "set", "interface", "hwvxlan", "type=vxlan"]
    vswitch.vsctl(*bridge, *tunnel, "options:remote_ip=flow", "options:key=flow")
    return vswitch


@contextlib.asynccontextmanager
async def steered(directory: Path) -> AsyncIterator[Steered]:
    """The two of them, not yet introduced; a network `web`."""
    with contextlib.ExitStack() as undo:
        vswitch = await asyncio.to_thread(prepared, undo)
        disk = Disk()
        async with controller(directory, vswitch, disk) as (served, listener, plain, secure):
            site = Steered(vswitch, undo, served, listener, plain, secure, disk)
            await site.ask("POST", "/v1/networks", {"name": "web", "subnets": [{"prefix": "10.1.0.0/24"}]})
            yield site
