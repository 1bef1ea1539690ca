"""A removed network leaves nothing in any kernel, and a lab nothing on the machine, however it ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdn.client.client import resource
from tests.packet.lab import Lab, eventually, lab
from tests.packet.sight import flows, identity, is_openflow, traces, traces_of_network
from tests.packet.talk import pings
from tests.session_janitor import session_name
from topologies import processes
from topologies.record import BASE, Directory

pytestmark = pytest.mark.root

HOSTS = ("h1", "h2")
TOPOLOGY = """\
underlay: {prefix4: auto, prefix6: auto}
hosts: [h1, h2]
tenants: [blue, red]
networks:
  blue/web: {subnets: [10.1.0.0/24, "fd00:1::/64"]}
  blue/db: {subnets: [10.2.0.0/24, "fd00:2::/64"]}
  red/web: {subnets: [10.1.0.0/24, "fd00:1::/64"]}
containers:
  a1: {host: h1, networks: {network: blue/web, ip: 10.1.0.11, ip6: "fd00:1::11"}}
  a2: {host: h1, networks: {network: blue/web, ip: 10.1.0.12, ip6: "fd00:1::12"}}
  b1: {host: h2, networks: {network: blue/web, ip: 10.1.0.13, ip6: "fd00:1::13"}}
  d1: {host: h1, networks: {network: blue/db, ip: 10.2.0.11, ip6: "fd00:2::11"}}
  d2: {host: h2, networks: {network: blue/db, ip: 10.2.0.12, ip6: "fd00:2::12"}}
  r1: {host: h1, networks: {network: red/web, ip: 10.1.0.11, ip6: "fd00:1::11"}}
  r2: {host: h2, networks: {network: red/web, ip: 10.1.0.12, ip6: "fd00:1::12"}}
"""


@pytest.fixture
def stage() -> Iterator[Lab]:
    with lab(TOPOLOGY) as up:
        yield up


def host_traces(stage: Lab, host: str) -> str:
    """What is of tunnels in the host's own namespace."""
    return stage.run(host, "nft", "list", "ruleset").stdout


def namespaces_held(stage: Lab, host: str) -> set[str]:
    """The network namespaces that a host's agent keeps alive by a descriptor."""
    found = set()
    for entry in Path(f"/proc/{stage.processes()[host].pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        if target.startswith("net:"):
            found.add(target)
    return found


def namespaces_of_tenants(stage: Lab) -> set[str]:
    """As descriptors tell them; an openflow host has none."""
    pins = [stage.tenant_pin(host, tenant) for host in HOSTS for tenant in ("blue", "red")]
    return {f"net:[{os.stat(pin).st_ino}]" for pin in pins if pin.exists()}


def remove_network(stage: Lab, network: str) -> None:
    """Its endpoints first, by the agents that have them; then itself."""
    for endpoint in stage.endpoints(network=network):
        stage.remove(endpoint["host_name"], endpoint["container"], network)
    stage.client.delete(resource("networks", network))
    stage.settle()


OTHERS = {"blue": ["blue/db"], "red": ["red/web"]}


def test_a_removed_network_leaves_nothing_and_its_neighbours_alone(stage: Lab) -> None:
    vni = stage.client.get(resource("networks", "blue/web")).body["vni"]
    gone = {host: traces_of_network(stage, host, "blue/web") for host in HOSTS}
    assert all(any(trace in traces(stage, host, "blue") for trace in gone[host]) for host in HOSTS)
    look = lambda: {(host, t): identity(stage, host, t, nets) for host in HOSTS for t, nets in OTHERS.items()}  # noqa: E731
    before = look()
    remove_network(stage, "blue/web")
    for host in HOSTS:
        eventually(
            lambda host=host: [trace for trace in gone[host] if trace in traces(stage, host, "blue")],  # type: ignore[misc]
            lambda left: left == [],
            f"nothing of the network on {host}",
        )
        eventually(
            lambda host=host: host_traces(stage, host),  # type: ignore[misc]
            lambda ruleset: f"foreign-vtep.{vni} " not in ruleset and f"0x{vni:x} . " not in ruleset,
            f"nothing of its tunnels on {host}",
        )
    # The others are untouched, and so is traffic, also of red, whose addresses are the same.
    assert look() == before
    questions = [
        ("d1", "10.2.0.12", 5.0),
        ("d2", "fd00:2::11", 5.0),
        ("r1", "10.1.0.12", 5.0),
        ("r2", "fd00:1::11", 5.0),
    ]
    assert pings(stage, questions) == [True] * 4


def links_of(stage: Lab, place: str) -> set[str]:
    """The names of a namespace's."""
    return {link["ifname"] for link in json.loads(stage.run(place, "ip", "-j", "link").stdout)}


def expect_as_it_was(stage: Lab, host: str, tenants: set[str]) -> None:
    """Nothing of any network or tenant; of a switch, what belongs to none stays."""
    links = lambda: links_of(stage, host)  # noqa: E731
    ruleset = host_traces(stage, host)
    assert "foreign-vtep." not in ruleset
    assert "elements" not in ruleset.replace("elements = { 100.64.0", "").replace("elements = { fd64:6877", "")
    if is_openflow(stage, host):
        eventually(links, lambda found: not any(name.startswith("hwv") for name in found), "no port's device left")
        assert {line.split(",")[0] for line in flows(stage, host) if "tun_id=" in line} == set()
        return
    eventually(links, lambda found: found == {"lo", "eth0"}, "no link left")
    sockets = lambda: stage.run(host, "ss", "-Hlun", "sport = :4789").stdout  # noqa: E731
    eventually(sockets, lambda found: found == "", "no tunnel's socket left")
    eventually(
        lambda: namespaces_held(stage, host) & tenants,
        lambda held: not held,
        f"no descriptor of a tenant's namespace left in the agent of {host}",
    )


def test_after_the_last_network_a_host_is_as_it_was(stage: Lab) -> None:
    tenants = namespaces_of_tenants(stage)
    pins = lambda: [pin for host in HOSTS for pin in (stage.directory.root(host).run / "netns").glob("*")]  # noqa: E731
    for network in ("blue/web", "blue/db", "red/web"):
        remove_network(stage, network)
    eventually(pins, lambda found: found == [], "no tenant's namespace left")
    for host in HOSTS:
        expect_as_it_was(stage, host, tenants)
    assert stage.endpoints() == []
    assert [a for a in stage.client.items("/v1/allocations") if a["holder"] == "endpoint"] == []
    for place in ("a1", "b1", "r2"):
        eventually(lambda place=place: links_of(stage, place), lambda found: found == {"lo"}, "the inside's end")  # type: ignore[misc]
    # And it all can be had again.
    stage.client.put(
        resource("networks", "blue/web"), {"tenant": "blue", "name": "web", "subnets": [{"prefix": "10.1.0.0/24"}]}
    )
    stage.add("h1", "a1", "blue/web", addresses=["10.1.0.11"])
    stage.add("h2", "b1", "blue/web", addresses=["10.1.0.13"])
    assert pings(stage, [("a1", "10.1.0.13", 5), ("b1", "10.1.0.11", 5)]) == [True, True]


@pytest.mark.parametrize("marker", ["underlay", "controller.sock"], ids=["early", "late"])
def test_a_lab_whose_making_was_killed_goes_whole(tmp_path: Path, marker: str) -> None:
    name = f"{session_name()}-{os.urandom(3).hex()}"
    file = tmp_path / f"{name}.yaml"
    file.write_text(f"name: {name}\n{TOPOLOGY}")
    command = [sys.executable, "-m", "sdn.cli.main", "lab"]
    making = subprocess.Popen([*command, "up", "-q", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def mine() -> Directory | None:
        found = [Directory(path.parent) for path in BASE.glob("*/lab.json")]
        return next((directory for directory in found if directory.name == name), None)

    def begun() -> Directory | None:
        directory = mine()
        if directory is None:
            return None
        return directory if list(directory.path.glob(f"*/{marker}")) else None

    try:
        directory = eventually(begun, lambda found: found is not None or making.poll() is not None, "the making")
        assert directory is not None
        making.send_signal(signal.SIGKILL)
        making.wait()
        pins = list(directory.path.glob("ns/*"))
        living = processes.inside(pins)
        assert pins
        assert living or marker == "underlay"
    finally:
        making.kill()
        making.wait()
        done = subprocess.run([*command, "down", name], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not directory.path.exists()
    assert not any(processes.is_alive(process) for process in living)
    assert str(directory.path) not in Path("/proc/self/mountinfo").read_text()


def test_a_lab_whose_daemons_were_killed_goes_whole(stage: Lab) -> None:
    for daemon in ("controller", *HOSTS):
        stage.stop(daemon, signal.SIGKILL)
    pins = [*stage.directory.path.glob("ns/*"), *stage.directory.path.glob("*/netns/*")]
    with contextlib.ExitStack() as held:  # as long as they live, no other's namespace gets their numbers
        identities = {os.fstat(held.enter_context(pin.open("rb")).fileno()).st_ino for pin in pins}
        stage.close()
        mounts = Path("/proc/self/mountinfo").read_text()
    assert not any(f"net:[{number}]" in mounts for number in identities)
    assert str(stage.directory.path) not in mounts
