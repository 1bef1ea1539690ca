"""`hawse agent` as a process, in a namespace of the test: what outlives it, what it writes anew, what it tells."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from plugin.kernel import link, namespace
from plugin.kernel.netlink import NetlinkSocket
from sdn.client.client import Client
from sdn.model.errors import HawseError, Kind
from sdn.service.contract_client import request
from sdn.service.roots import find_root
from tests.packet.lab import eventually
from tests.packet.namespaces import TestNamespace

pytestmark = pytest.mark.root
TIMEOUT_S = 60.0
CONTROLLER, HOST = "10.99.0.1", "10.99.0.2"


@contextlib.contextmanager
def daemon(where: TestNamespace, name: str, root: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon in a namespace, once it says that it serves; killed at the end if it still runs."""
    ready, ready_fd = os.pipe()
    command = [sys.executable, "-m", "sdn.cli.main", name, "--root", str(root), "--ready-fd", str(ready_fd), *options]
    log = open(root / f"{name}.log", "ab")  # noqa: SIM115 closed as soon as the child has it

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, pass_fds=[ready_fd], stdout=log, stderr=log)

    process = namespace.run_in(where.fd, start)
    os.close(ready_fd)
    log.close()
    try:
        readable, _, _ = select.select([ready], [], [], TIMEOUT_S)
        assert readable, "not ready in time"
        assert os.read(ready, 1) == b"1", (root / f"{name}.log").read_text()
        yield process
    finally:
        os.close(ready)
        process.kill()
        process.wait(TIMEOUT_S)


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    """Send a signal; the exit code."""
    process.send_signal(number)
    return process.wait(TIMEOUT_S)


@dataclasses.dataclass(slots=True)
class Scene:
    """A controller that runs, and a host with two containers' namespaces."""

    root: Path
    here: TestNamespace
    containers: tuple[TestNamespace, ...]
    client: Client

    @contextlib.contextmanager
    def agent(self, **options: str) -> Iterator[subprocess.Popen[bytes]]:
        """The host's agent."""
        with daemon(self.here, "agent", self.root / "h", *options) as process:
            eventually(lambda: self.host()["connected"], bool, "the agent is connected")
            yield process

    def host(self) -> dict[str, Any]:
        """As the controller knows it."""
        body: dict[str, Any] = self.client.get("/v1/hosts/h1").body
        return body

    def ask(self, verb: str, number: int, **more: Any) -> dict[str, Any]:
        """A request about a container on the agent's socket."""
        message = {"verb": verb, "client": "test", "container": f"c{number}", "ifname": "eth0", **more}
        return request(self.root / "h" / "agent.sock", message, self.containers[number].fd)

    def attach(self, number: int) -> dict[str, Any]:
        """ADD."""
        return self.ask("ADD", number, network="web")

    def told(self, since: int) -> list[str]:
        """How the controller learnt of the host's facts after a revision: by a report, or by the next hello."""
        events = [event["event"] for event in self.client.events(since=since, follow=0)]
        return [event for event in events if event in ("host.updated", "host.connected")]

    @contextlib.contextmanager
    def tenant(self, id_: str) -> Iterator[int]:
        """A descriptor of a tenant's namespace."""
        fd = os.open(self.root / "h" / "netns" / f"t-{id_}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="hwt-"))
        stack.callback(shutil.rmtree, root)
        middle, here, *containers = [TestNamespace() for _ in range(4)]
        for made in (middle, here, *containers):
            stack.callback(made.close)
        middle.ip(
            f"link set lo up\nlink add u0 type veth peer name u0 netns {here.name}\n"
            f"addr add {CONTROLLER}/24 dev u0\nlink set u0 up"
        )
        here.ip(f"link set lo up\naddr add {HOST}/24 dev u0\nlink set u0 up")
        stack.callback(purge, here, root / "h")
        for place in ("c", "h"):
            (root / place).mkdir(mode=0o700)
        stack.enter_context(daemon(middle, "controller", root / "c", "--listen", f"{CONTROLLER}:4780"))
        client = Client(f"unix:{root / 'c' / 'controller.sock'}")
        client.post("/v1/hosts", {"name": "h1"})
        credential = client.post("/v1/hosts/h1/credential").body
        identity = find_root(str(root / "h")).agent_file
        identity.parent.mkdir(mode=0o700)
        identity.write_text(json.dumps(credential))
        client.post("/v1/networks", {"name": "web", "subnets": [{"prefix": "10.1.0.0/24"}]})
        yield Scene(root, here, tuple(containers), client)


def purge(here: TestNamespace, root: Path) -> None:
    """Whatever a killed agent has left."""
    from plugin.datapath.bridge.datapath import BridgeDatapath

    with contextlib.closing(BridgeDatapath(root, here.fd)) as datapath:
        datapath.purge()


def host_end(fd: int, attached: dict[str, Any]) -> int:
    """The index of an endpoint's link in its tenant's namespace."""
    with contextlib.closing(NetlinkSocket.open(fd)) as netlink:
        return link.get(netlink, name="hwv" + attached["endpoint"][-12:]).index


def deaths(listening: NetlinkSocket) -> list[str]:
    """The names of the links that went since the last call."""
    return [
        link.decode(buffer, offset, last).name
        for kind, buffer, offset, last in listening.events()
        if kind == link.RTM_DELLINK and link.family(buffer, offset) == 0
    ]


def pings(container: TestNamespace, address: str) -> bool:
    """Whether one ping is answered."""
    command = ["nsenter", f"--net=/run/netns/{container.name}", "ping", "-c1", "-W10", address]
    return subprocess.run(command, capture_output=True, check=False, timeout=TIMEOUT_S).returncode == 0


def addresses(*attached: dict[str, Any]) -> Sequence[str]:
    """Without their prefix lengths."""
    return [one["addresses"][0].partition("/")[0] for one in attached]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_what_is_wired_outlives_the_agent_and_is_not_touched_by_the_next(scene: Scene, number: signal.Signals) -> None:
    with scene.agent() as process:
        one, two = scene.attach(0), scene.attach(1)
        code = end(process, number)
    assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    assert (scene.root / "h" / "agent.sock").exists() is (number == signal.SIGKILL)
    with scene.tenant(one["tenant"]) as fd, contextlib.closing(NetlinkSocket.open(fd, link.GROUP_LINK)) as listening:
        indexes = host_end(fd, one), host_end(fd, two)
        assert pings(scene.containers[0], addresses(two)[0]), "without an agent"
        with scene.agent():
            assert (host_end(fd, one), host_end(fd, two)) == indexes
            assert deaths(listening) == []
            scene.ask("CHECK", 0)
            assert pings(scene.containers[0], addresses(two)[0])
            assert scene.attach(0)["endpoint"] == one["endpoint"]


def test_only_what_differs_is_written_after_a_kill(scene: Scene) -> None:
    """While the agent is dead, one endpoint is released by force, and somebody removes a neighbour of the other."""
    with scene.agent() as process:
        one, two = scene.attach(0), scene.attach(1)
        end(process, signal.SIGKILL)
    scene.client.delete(f"/v1/endpoints/{two['endpoint']}")
    with scene.tenant(one["tenant"]) as fd, contextlib.closing(NetlinkSocket.open(fd, link.GROUP_LINK)) as listening:
        index = host_end(fd, one)
        device = next(name for name in names(fd) if name.startswith("hwx"))
        command = ["ip", "neigh", "del", addresses(one)[0], "dev", device]
        subprocess.run(["nsenter", f"--net=/proc/self/fd/{fd}", *command], pass_fds=[fd], check=True, timeout=TIMEOUT_S)
        with scene.agent():
            gone = eventually(
                lambda: [*deaths(listening)], lambda seen: bool(seen), "the released endpoint's link goes"
            )
            assert all(not name.startswith(f"hwv{one['endpoint'][-12:]}") for name in gone)
            assert host_end(fd, one) == index
            eventually(lambda: neighbours(fd, device), lambda seen: addresses(one)[0] in seen, "the neighbour is back")
            assert addresses(two)[0] not in neighbours(fd, device)


def names(fd: int) -> list[str]:
    """The links in a namespace."""
    with contextlib.closing(NetlinkSocket.open(fd)) as netlink:
        return [found.name for found in link.dump(netlink)]


def neighbours(fd: int, device: str) -> str:
    """As `ip neigh` prints them."""
    command = ["nsenter", f"--net=/proc/self/fd/{fd}", "ip", "neigh", "show", "dev", device]
    done = subprocess.run(command, pass_fds=[fd], check=True, timeout=TIMEOUT_S, capture_output=True, text=True)
    return done.stdout


def test_changes_of_the_underlay_are_one_report_each(scene: Scene) -> None:
    with scene.agent():
        host = scene.host()
        assert (host["vtep4"], host["mtu_bytes"]) == (HOST, 1500)
        attached = scene.attach(0)
        for commands, wanted in (
            ("route add 203.0.113.0/24 via 10.99.0.1", {"routes": ["10.99.0.0/24", "203.0.113.0/24"]}),
            ("link set u0 mtu 1600", {"mtu_bytes": 1600}),
            # The old address may be about to go, so the agent also speaks from the new one: a hello tells of it.
            ("addr add 10.99.0.3/24 dev u0\nroute change 10.99.0.0/24 dev u0 src 10.99.0.3", {"vtep4": "10.99.0.3"}),
        ):
            since = scene.client.get("/v1/status").body["revision"]
            scene.here.ip(commands)
            eventually(
                scene.host,
                lambda seen, wanted=wanted: wanted.items() <= seen.items(),  # type: ignore[misc] # a lambda's default
                f"{wanted} is told",
            )
            assert len(scene.told(since)) == 1
        with scene.tenant(attached["tenant"]) as fd:
            device = next(name for name in names(fd) if name.startswith("hwx"))
            command = ["nsenter", f"--net=/proc/self/fd/{fd}", "ip", "-d", "link", "show", device]
            eventually(
                lambda: subprocess.run(command, pass_fds=[fd], capture_output=True, text=True, check=True).stdout,
                lambda shown: "local 10.99.0.3" in shown,
                "the tunnels leave from the new address",
            )


def test_an_agent_without_a_controller_serves_and_says_so(scene: Scene) -> None:
    configuration = find_root(str(scene.root / "h")).agent_file
    told = json.loads(configuration.read_text())
    configuration.write_text(json.dumps(told | {"controllers": [f"https://{CONTROLLER}:9"]}))
    with daemon(scene.here, "agent", scene.root / "h") as process:
        with pytest.raises(HawseError, match="cannot reach") as caught:
            scene.attach(0)
        assert caught.value.kind is Kind.UNAVAILABLE
        assert end(process, signal.SIGTERM) == 0


def test_another_datapath_is_refused_while_containers_hang_on_this_one(scene: Scene) -> None:
    """It would not see them: they would keep their addresses, which are given to others."""
    with scene.agent() as process:
        one, two = scene.attach(0), scene.attach(1)
        end(process, signal.SIGTERM)
    words = ["agent", "--root", str(scene.root / "h"), "--datapath", "openflow", "--ovsdb", str(scene.root / "none")]

    def start() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sdn.cli.main", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)

    refused = namespace.run_in(scene.here.fd, start)
    assert refused.returncode == 4, refused.stderr
    assert "2 interfaces of containers on this host are wired by '--datapath bridge'" in refused.stderr
    assert pings(scene.containers[0], addresses(two)[0])
    with scene.agent():
        assert scene.attach(0)["endpoint"] == one["endpoint"]
        for number in (0, 1):
            scene.ask("DEL", number)
    refused = namespace.run_in(scene.here.fd, start)
    assert refused.returncode == 7, refused.stderr
    assert "Open vSwitch" in refused.stderr
    assert not list((scene.root / "h" / "netns").glob("t-*")), "nothing of the former one is left"
