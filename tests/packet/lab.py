"""A lab for tests: the daemons of production in namespaces, with sockets, captures and a hand on every process.

A container of it is no more than a namespace: these tests are of what the agents make of one, whoever made it.
Everything of it lives below the lab's directory, so one `destroy` takes all away, whatever state a test left it in.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from plugin.kernel import namespace
from sdn.client.client import Client, resource
from sdn.model.address import family_of
from sdn.model.errors import HawseError
from sdn.service.contract_client import request
from tests.packet.frames import Station
from tests.runtime.daemons import cgroups_of
from tests.session_janitor import session_name
from topologies import processes
from topologies.cleanup import destroy, roots_of
from topologies.daemons import Daemon
from topologies.lab import agent_words, bring_up
from topologies.record import CONTROLLER, UNDERLAY, Directory, Process, write_whole
from topologies.schema import parse_topology
from topologies.values import Datapath, Topology
from topologies.vswitch import Vswitches, environment

T = TypeVar("T")

WAIT_S = 20.0
"""For what takes milliseconds on an idle machine."""
DATAPATH = os.environ.get("HAWSE_TEST_DATAPATH", "bridge")
"""What the hosts of the labs of tests are on: `bridge`, `openflow`, or `mixed` (every second host on openflow)."""
SETTLE_MS = 15_000
"""An ADD of a test waits for every host, however busy the machine is; then nobody may be late."""
CLIENT = "test"


def eventually(look: Callable[[], T], wanted: Callable[[T], bool], what: str, bound_s: float = WAIT_S) -> T:
    """What `look` sees as soon as it is wanted; fails with the last sight when it does not become so."""
    deadline = time.monotonic() + bound_s
    while True:
        seen = look()
        if wanted(seen):
            return seen
        assert time.monotonic() < deadline, f"{what} did not come true; last seen: {seen}"
        time.sleep(0.02)  # between two looks at a kernel or a REST reply, neither of which can be awaited


class Lab:
    """One that is up."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.client = Client(directory.controller_url)
        self._stack = contextlib.ExitStack()
        self._fds: dict[str, int] = {}

    # Places ---------------------------------------------------------------------------------------------------------

    def fd(self, place: str) -> int:
        """A descriptor of the namespace of a container, a host or `underlay`; it stays open with the lab."""
        if place not in self._fds:
            fd = os.open(self.directory.namespace(place), os.O_RDONLY | os.O_CLOEXEC)
            self._stack.callback(os.close, fd)
            self._fds[place] = fd
        return self._fds[place]

    def make_container(self, name: str) -> str:
        """An empty namespace of that name; with the lab it goes."""
        namespace.create(self.directory.namespace(name))
        return name

    def end_container(self, name: str) -> None:
        """Its namespace dies, with all that is in it."""
        fd = self._fds.pop(name, None)
        if fd is not None:
            os.close(os.dup(fd))  # the stack closes the number itself: what it holds must not be the namespace
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, fd)
            os.close(null)
        namespace.remove(self.directory.namespace(name))

    def socket(self, place: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket that lives there; closed with the lab at the latest."""
        made = namespace.socket_in(self.fd(place), family, kind | socket.SOCK_CLOEXEC, protocol)
        made.settimeout(WAIT_S)
        self._stack.callback(made.close)
        return made

    def run(self, place: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command, run there."""
        return self._enter(self.directory.namespace(place), command, check)

    def run_tenant(self, host: str, tenant: str, *command: str) -> str:
        """A command's output, run in a tenant's namespace of a host."""
        return self._enter(self.tenant_pin(host, tenant), command, True).stdout

    def _enter(self, pin: Path, command: Sequence[str], check: bool) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["nsenter", f"--net={pin}", *command], capture_output=True, text=True, check=False, timeout=60
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done

    def tenant_pin(self, host: str, tenant: str) -> Path:
        """Where a tenant's namespace is pinned on a host."""
        found = self.client.get(resource("tenants", tenant)).body["id"]
        return self.directory.root(host).run / "netns" / f"t-{found}"

    # The agents' contract -------------------------------------------------------------------------------------------

    def add(self, host: str, container: str, network: str, **more: Any) -> dict[str, Any]:
        """Attach; when it returns every host has written it, unless `settle_ms` says otherwise."""
        message: dict[str, Any] = {"verb": "ADD", "client": CLIENT, "container": container, "network": network}
        message.update(ifname="eth0", settle_ms=SETTLE_MS)
        fd = os.open(self.directory.namespace(container), os.O_RDONLY | os.O_CLOEXEC)
        try:
            result = request(self.directory.root(host).agent_socket, {**message, **more}, fd)
        finally:
            os.close(fd)
        if message["settle_ms"] == more.get("settle_ms", SETTLE_MS):
            assert result.get("late", []) == []
        return result

    def remove(self, host: str, container: str, network: str, *, with_namespace: bool = True) -> None:
        """Detach."""
        message = {"verb": "DEL", "client": CLIENT, "container": container, "network": network, "ifname": "eth0"}
        fd = os.open(self.directory.namespace(container), os.O_RDONLY) if with_namespace else None
        try:
            request(self.directory.root(host).agent_socket, message, fd)
        finally:
            if fd is not None:
                os.close(fd)

    def refusal(self, host: str) -> HawseError | None:
        """Why an agent would refuse an ADD now; None: it would not."""
        try:
            request(self.directory.root(host).agent_socket, {"verb": "STATUS", "client": CLIENT})
        except HawseError as error:
            return error
        return None

    # The controller -------------------------------------------------------------------------------------------------

    def hawse(self, *arguments: str) -> str:
        """The output of the command, asked of this lab."""
        command = [sys.executable, "-m", "sdn.cli.main", "--root", str(self.directory.root("h1").run), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def drops(self, host: str) -> dict[tuple[str, str], int]:
        """What `hawse drops` shows of a host: packets by (tenant/network, cause)."""
        self.gather_counts(host)
        items = json.loads(self.hawse("-o", "json", "drops", "--all", host))
        return {(f"{item['tenant']}/{item['network']}", item["cause"]): item["packets"] for item in items}

    def drops_rest(self, host: str) -> dict[tuple[str, str], int]:
        """The same, asked of the controller without the command."""
        self.gather_counts(host)
        items = self.client.get("/v1/drops", host=host).body["items"]
        return {(f"{item['tenant']}/{item['network']}", item["cause"]): item["packets"] for item in items}

    def gather_counts(self, host: str) -> None:
        """Open vSwitch's flows have what was counted half a second later, unless it forgets how it sends what."""
        record = self.directory.read()
        if record is not None and record.datapaths.get(host) == Datapath.OPENFLOW:
            variables = [f"{name}={value}" for name, value in environment(self.directory.vswitch(host)).items()]
            self.run(host, "env", *variables, "ovs-appctl", "revalidator/purge")

    def endpoints(self, **filters: Any) -> list[dict[str, Any]]:
        """What the controller has."""
        return list(self.client.items("/v1/endpoints", **filters))

    def endpoint(self, container: str, ifname: str = "eth0") -> dict[str, Any]:
        """A container's."""
        return next(e for e in self.endpoints() if (e["container"], e["ifname"]) == (container, ifname))

    def address(self, container: str, family: int, ifname: str = "eth0") -> str:
        """A container's address of a family."""
        texts = [str(text).partition("/")[0] for text in self.endpoint(container, ifname)["addresses"]]
        return next(text for text in texts if family_of(text) == family)

    def station(self, container: str) -> Station:
        """A container as its neighbours know it; of both families."""
        return Station(self.endpoint(container)["mac"], self.address(container, 4), self.address(container, 6))

    def settle(self) -> None:
        """Until every host has applied all there is."""

        def look() -> Mapping[str, Any]:
            revision = self.client.get("/v1/status").body["revision"]
            return dict(self.client.get("/v1/status", revision=revision, wait=5).body)

        eventually(look, lambda status: bool(status["settled"]), "every host in step")

    # Processes ------------------------------------------------------------------------------------------------------

    def processes(self) -> dict[str, Process]:
        """The recorded processes by name."""
        record = self.directory.read()
        assert record is not None
        return dict(record.processes)

    def stop(self, daemon: str, number: signal.Signals = signal.SIGTERM) -> list[str]:
        """End a daemon by its recorded pid and wait for it; its arguments, for `start`."""
        process = self.processes()[daemon]
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        first = next(at for at, word in enumerate(words) if word in ("controller", "agent"))
        assert processes.is_alive(process)
        os.kill(process.pid, number)
        with contextlib.suppress(ChildProcessError):  # reaped by somebody else who waited
            os.waitpid(process.pid, 0)
        eventually(lambda: processes.is_alive(process), lambda alive: not alive, f"the end of {daemon}")
        return words[first : words.index("--root")]

    def start(self, daemon: str, arguments: Sequence[str]) -> None:
        """Start a daemon as it was, and wait until it serves."""
        started = Daemon(self.directory, daemon, UNDERLAY if daemon == CONTROLLER else daemon, arguments)
        try:
            record = self.directory.read()
            assert record is not None
            noted = {**record.processes, daemon: started.process}
            self.directory.write(msgspec.structs.replace(record, processes=noted))
            asyncio.run(started.wait_ready())
        finally:
            started.close()

    def add_host(self, name: str, interface: str, mtu_bytes: int = 1500) -> None:
        """A host that nobody had planned, wired to the underlay, its agent started."""
        namespace.create(self.directory.namespace(name))
        port = f"port-{name}"
        self.run(UNDERLAY, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns",
                 str(self.directory.namespace(name)))  # fmt: skip
        self.run(UNDERLAY, "ip", "link", "set", port, "mtu", str(mtu_bytes), "master", "br0", "up")
        self.run(name, "ip", "link", "set", "lo", "up")
        self.run(name, "ip", "link", "set", "eth0", "mtu", str(mtu_bytes), "up")
        self.run(name, "ip", "address", "add", interface, "dev", "eth0")
        root = self.directory.root(name)
        root.create()
        self.client.post("/v1/hosts", {"name": name})
        credential = self.client.post(f"{resource('hosts', name)}/credential").body
        write_whole(root.agent_file, json.dumps(credential).encode())
        write_whole(root.client_file, json.dumps({"controller": self.directory.controller_url}).encode())
        datapath = datapath_of(len(self.processes()))
        self._start_vswitch(name, datapath)
        self.start(name, agent_words(self.directory, name, datapath))

    def _start_vswitch(self, host: str, datapath: Datapath) -> None:
        record = self.directory.read()
        assert record is not None
        with Vswitches(self.directory, [host] if datapath.has_vswitch else []) as starting:
            noted = {**record.processes, **starting.wait()}
        datapaths = {**record.datapaths, host: datapath.value}
        self.directory.write(msgspec.structs.replace(record, processes=noted, datapaths=datapaths))

    def close(self) -> None:
        """Take it away; asserts that nothing is left."""
        self._stack.close()
        roots = [self.directory.root(path.name) for path in roots_of(self.directory)]
        destroy(self.directory)
        assert not self.directory.path.exists()
        assert [path for root in roots for path in cgroups_of(root)] == []


@contextlib.contextmanager
def lab(topology: str, datapath: str = DATAPATH) -> Iterator[Lab]:
    """A lab of its own with a name of its own, gone afterwards. `datapath`: see DATAPATH."""
    name = f"{session_name()}-{os.urandom(3).hex()}"
    with tempfile.TemporaryDirectory(prefix="hwt-") as folder:
        file = Path(folder) / f"{name}.yaml"
        file.write_text(f"name: {name}\n{topology}")
        wanted = parse_topology(file.read_text(), str(file))
        hosts = tuple(
            dataclasses.replace(host, datapath=datapath_of(number, datapath))
            for number, host in enumerate(wanted.hosts)
        )
        bare = dataclasses.replace(wanted, hosts=hosts, containers=(), expectations=(), forgeries=())
        up = Lab(bring_up(bare, str(file), file.read_bytes(), lambda _: None))
        try:
            _make_containers(up, wanted)
            yield up
        finally:
            up.close()


def datapath_of(number: int, wished: str = DATAPATH) -> Datapath:
    """A test host's, by its place."""
    if wished == "mixed":
        return (Datapath.BRIDGE, Datapath.OPENFLOW)[number % 2]
    return Datapath(wished)


def _make_containers(up: Lab, topology: Topology) -> None:
    for container in topology.containers:
        up.make_container(container.name)
        tenants: set[str] = set()
        for wish in container.attachments:
            tenant = wish.network.partition("/")[0]
            name = "" if tenant in tenants else container.name
            more = {"ifname": wish.ifname, "addresses": list(wish.addresses), "mac": wish.mac, "name": name}
            up.add(container.host, container.name, wish.network, **more)
            tenants.add(tenant)
