"""OVN as a peer: a central and two chassis in namespaces, Open vSwitch in user space, Geneve over a veth.

Every daemon is a child of the bench in the foreground; the janitor ends them, the namespaces and the directory.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.janitor import Janitor
from tests.bench.launchers import find
from tests.bench.measure import PeerMissingError
from tests.bench.peers import namespace
from tests.bench.stand import scratch

SCHEMAS = {"vswitch": "/usr/share/openvswitch/vswitch.ovsschema", "nb": "/usr/share/ovn/ovn-nb.ovsschema",
           "sb": "/usr/share/ovn/ovn-sb.ovsschema"}  # fmt: skip
SWITCH = "ls"
BATCH = 250
"""Ports of one transaction: more, and northd's answer takes minutes."""
WAIT_S = 60.0
CENTRAL, CHASSIS = "172.31.255.9", ("172.31.255.1", "172.31.255.2")


def address(number: int) -> tuple[str, str]:
    """MAC and IPv4 address of a logical port."""
    return f"0a:10:00:00:{number >> 8:02x}:{number & 255:02x}", f"10.64.{number >> 8}.{number & 255}"


class Chassis:
    """One host of OVN. `directory` is its Open vSwitch's."""

    def __init__(self, name: str, netns: str, directory: Path) -> None:
        self.name, self.netns, self.directory = name, netns, directory

    def vsctl(self, *arguments: str) -> None:
        """`ovs-vsctl`, which waits until vswitchd has done it."""
        _run(["ovs-vsctl", f"--db=unix:{self.directory}/db.sock", *arguments], self.environment)

    @property
    def environment(self) -> dict[str, str]:
        """Where its tools find it."""
        return _environment(self.directory)


class Ovn:
    """What is up. Port 1 is bound on the second chassis, in the namespace `far`."""

    def __init__(self, directory: Path, near: Chassis, far: Chassis) -> None:
        self.directory, self.near, self.far = directory, near, far
        self._ports = 1

    def nbctl(self, *arguments: str) -> None:
        """`ovn-nbctl`."""
        _run(["ovn-nbctl", f"--db=unix:{self.directory}/nb.sock", *arguments], _environment(self.directory))

    def fill(self, count: int) -> None:
        """That many unbound ports in all on the one logical switch; returns when the chassis know them."""
        while self._ports < count + 1:
            numbers = range(self._ports + 1, min(self._ports + BATCH, count + 1) + 1)
            words: list[str] = []
            for number in numbers:
                words += [*(["--"] if words else []), *self._port(number)]
            self.nbctl(*words)
            self._ports = numbers[-1]
        self.nbctl("--wait=hv", "--timeout=300", "sync")

    def add(self, number: int) -> None:
        """One port more, known to the chassis when it returns."""
        self.nbctl("--wait=hv", "--timeout=300", *self._port(number))

    def remove(self, number: int) -> None:
        """The same away."""
        self.nbctl("--wait=hv", "--timeout=300", "--if-exists", "lsp-del", f"p{number}")

    @staticmethod
    def _port(number: int) -> Sequence[str]:
        mac, ip = address(number)
        return ["lsp-add", SWITCH, f"p{number}", "--", "lsp-set-addresses", f"p{number}", f"{mac} {ip}"]


def _environment(directory: Path) -> dict[str, str]:
    places = dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", "OVN_RUNDIR", "OVN_LOGDIR"),
                           str(directory))  # fmt: skip
    return {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", **places}


def _run(words: Sequence[str], environment: dict[str, str]) -> None:
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:6])} … ended with {done.returncode}: {done.stderr.strip()}")


class _Starter:
    """Starts daemons and keeps them in the janitor's list."""

    def __init__(self, janitor: Janitor, stack: contextlib.ExitStack) -> None:
        self._janitor, self._stack = janitor, stack

    def __call__(self, netns: str, directory: Path, words: Sequence[str], answers: str) -> None:
        """A daemon in a namespace; returns when the socket `answers` is there ("": at once)."""
        name = Path(words[0]).name
        with (directory / f"{name}.out").open("ab") as log:
            child = subprocess.Popen(
                ["nsenter", f"--net={netns}", *words], env=_environment(directory), cwd=directory,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._stack.callback(child.wait)
        self._stack.enter_context(self._janitor.keep("process", child.pid))
        deadline = time.monotonic() + WAIT_S
        while answers and not (directory / answers).exists():
            if child.poll() is not None or time.monotonic() > deadline:
                raise PeerMissingError(f"{name} did not start: {(directory / f'{name}.out').read_text()[-300:]}")
            time.sleep(0.01)

    def database(self, netns: str, directory: Path, schema: str, socket: str, *remotes: str) -> None:
        """An ovsdb-server with a new database."""
        _run(["ovsdb-tool", "create", f"{directory}/{schema}.db", SCHEMAS[schema]], _environment(directory))
        control = f"--unixctl={directory}/{schema}.ctl"
        words = ["ovsdb-server", f"{directory}/{schema}.db", f"--remote=punix:{directory}/{socket}", control]
        self(netns, directory, [*words, *(f"--remote={remote}" for remote in remotes), "-vconsole:off"], socket)


@contextlib.contextmanager
def ovn(janitor: Janitor) -> Iterator[Ovn]:
    """A central and two chassis that see each other. Raises: PeerMissingError."""
    for program, package in (("ovn-northd", "ovn-central"), ("ovn-controller", "ovn-host"), ("ovsdb-server", "openvswitch-switch")):  # fmt: skip # noqa: E501
        find(program, package)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(scratch(janitor, "/tmp"))
        wire = stack.enter_context(namespace("ovnw"))
        central = stack.enter_context(namespace("ovnc"))
        hosts = [stack.enter_context(namespace(f"ovn{number}")) for number in (1, 2)]
        _wire(wire, central, hosts)
        start = _Starter(janitor, stack)
        start.database(central, directory, "nb", "nb.sock")
        start.database(central, directory, "sb", "sb.sock", f"ptcp:6642:{CENTRAL}")
        databases = [f"--ovnnb-db=unix:{directory}/nb.sock", f"--ovnsb-db=unix:{directory}/sb.sock"]
        start(central, directory, ["ovn-northd", *databases, "-vconsole:off"], "")
        chassis = [_chassis(start, directory / f"c{n}", f"c{n}", hosts[n], CHASSIS[n]) for n in (0, 1)]
        up = Ovn(directory, chassis[0], chassis[1])
        up.nbctl("ls-add", SWITCH)
        up.add(1)
        yield up


def _wire(wire: str, central: str, hosts: Sequence[str]) -> None:
    """A bridge, with the central and the two hosts on it."""
    names = [Path(path).name for path in (wire, central, *hosts)]
    lines = ["link add br0 type bridge", "link set br0 up"]
    for number, name in enumerate(names[1:]):
        lines += [
            f"link add p{number} type veth peer name eth0 netns {name}",
            f"link set p{number} mtu 1600 master br0 up",
        ]
    _batch(names[0], lines)
    for number, name in enumerate(names[1:]):
        lines = ["link set lo up", "link set eth0 mtu 1600 up"]
        _batch(name, [*lines, *([f"addr add {CENTRAL}/24 dev eth0"] if number == 0 else [])])


def _batch(name: str, lines: Sequence[str]) -> None:
    text = "\n".join(lines) + "\n"
    subprocess.run(["ip", "-n", name, "-batch", "-"], input=text, text=True, check=True, capture_output=True)


@contextlib.contextmanager
def vswitch(janitor: Janitor) -> Iterator[Chassis]:
    """An Open vSwitch and nothing else. Raises: PeerMissingError."""
    find("ovs-vswitchd", "openvswitch-switch")
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(scratch(janitor, "/tmp"))
        netns = stack.enter_context(namespace("ovsw"))
        yield _vswitch(_Starter(janitor, stack), directory / "c0", "c0", netns, {})


def _vswitch(start: _Starter, directory: Path, name: str, netns: str, ids: dict[str, str]) -> Chassis:
    directory.mkdir()
    start.database(netns, directory, "vswitch", "db.sock")
    one = Chassis(name, netns, directory)
    ids = {"system-id": name, **ids}
    one.vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", *(f"external_ids:{k}={v}" for k, v in ids.items()))
    switch = ["ovs-vswitchd", f"unix:{directory}/db.sock", "--disable-system", f"--unixctl={directory}/vswitchd.ctl"]
    start(netns, directory, [*switch, "-vconsole:off"], "vswitchd.ctl")
    return one


def _chassis(start: _Starter, directory: Path, name: str, netns: str, vtep: str) -> Chassis:
    ids = {"ovn-remote": f"tcp:{CENTRAL}:6642", "ovn-encap-type": "geneve", "ovn-encap-ip": vtep,
           "ovn-bridge-datapath-type": "netdev"}  # fmt: skip
    one = _vswitch(start, directory, name, netns, ids)
    link = subprocess.run(["ip", "-n", Path(netns).name, "-br", "link", "show", "eth0"], text=True, check=True,
                          capture_output=True)  # fmt: skip
    mac = link.stdout.split()[2]
    one.vsctl("add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev", "fail_mode=standalone",
              f"other_config:hwaddr=\"{mac}\"", "--", "add-port", "br-phy", "eth0")  # fmt: skip
    _batch(Path(netns).name, [f"addr add {vtep}/24 dev br-phy", "link set br-phy mtu 1600 up"])
    start(netns, directory, ["ovn-controller", f"unix:{directory}/db.sock", "-vconsole:off"], "br-int.mgmt")
    return one
