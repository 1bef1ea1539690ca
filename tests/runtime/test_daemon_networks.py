"""Containers in networks: the daemon attaches them by a real agent, and nothing of it outlives them, whoever dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from sdn.model.errors import HawseError, Kind
from tests.packet.lab import Lab, lab
from tests.runtime.daemons import RunningDaemon, eventually
from topologies import processes
from topologies.record import runtime_of

pytestmark = pytest.mark.root

TOPOLOGY = """\
hosts: [h1, h2]
tenants: [default, blue]
networks:
  web: {subnets: [10.1.0.0/24]}
  lan: {subnets: [10.2.0.0/24, "fd00:2::/64"]}
  blue/db: {subnets: [10.1.0.0/24]}
"""
WEB = [{"network": "web"}]


@pytest.fixture(scope="module")
def up() -> Iterator[Lab]:
    with lab(TOPOLOGY) as made:
        yield made


@pytest.fixture(scope="module")
def runtimes(up: Lab) -> Iterator[dict[str, RunningDaemon]]:
    """A daemon on each host, in its namespace, in the place of the lab's own: one that tests may kill."""
    with contextlib.ExitStack() as stack:
        daemons = {}
        for host in ("h1", "h2"):
            end_runtime(up, host)
            enter = ("nsenter", f"--net={up.directory.namespace(host)}")
            daemons[host] = RunningDaemon(up.directory.root(host), enter)
            stack.callback(daemons[host].close)
            daemons[host].start()
        yield daemons


def end_runtime(up: Lab, host: str) -> None:
    """The lab's own runtime of a host ends; its record of it stays, of a process that is gone."""
    process = up.processes()[runtime_of(host)]
    os.kill(process.pid, signal.SIGTERM)
    with contextlib.suppress(ChildProcessError):  # reaped by somebody else who waited
        os.waitpid(process.pid, 0)
    eventually(lambda: processes.is_alive(process), lambda alive: not alive, f"the end of {host}'s runtime")


@pytest.fixture
def daemon(up: Lab, runtimes: dict[str, RunningDaemon]) -> Iterator[RunningDaemon]:
    """h1's; after each test no host has a container and the controller no endpoint."""
    yield runtimes["h1"]
    for one in runtimes.values():
        for item in one.ask("PS", all=True)["items"]:
            one.ask("RM", container=item["id"], force=True)
    eventually(lambda: endpoints(up), lambda left: left == [], "every address given back")


def endpoints(up: Lab) -> list[tuple[str, str, str]]:
    """(container, ifname, name) of all that the controller has."""
    return sorted((one["container"], one["ifname"], one.get("name", "")) for one in up.endpoints())


def inside(daemon: RunningDaemon, container: str, *command: str) -> tuple[int, str]:
    """A command in a container: its code and output."""
    result, descriptors = daemon.attached("EXEC", container=container, command=list(command))
    try:
        code = daemon.wait(container, execution=result["execution"])
        return code, os.read(descriptors["output"], 65536).decode()
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def address_of(daemon: RunningDaemon, container: str, number: int = 0) -> str:
    return str(daemon.info(container)["interfaces"][number]["addresses"][0]).partition("/")[0]


def test_containers_of_two_hosts_reach_each_other(runtimes: dict[str, RunningDaemon], daemon: RunningDaemon) -> None:
    daemon.run("sleep", "1000", name="a", networks=WEB)
    runtimes["h2"].run("sleep", "1000", name="b", networks=[{"network": "web", "addresses": ["10.1.0.77"]}])
    assert address_of(runtimes["h2"], "b") == "10.1.0.77"
    code, said = inside(daemon, "a", "ping", "-c1", "-W10", "10.1.0.77")
    assert code == 0, said


def test_several_networks_names_and_files(up: Lab, daemon: RunningDaemon) -> None:
    wishes = [{"network": "lan"}, {"network": "web", "ifname": "up"}, {"network": "blue/db"}]
    made = daemon.run("sleep", "1000", name="a", networks=wishes, hostname="box")
    identity = made["id"]
    assert endpoints(up) == [(identity, "eth0", "a"), (identity, "eth1", "a"), (identity, "up", "")]
    shown = daemon.info("a")["interfaces"]
    assert [(one["ifname"], one["network"]) for one in shown] == [("eth0", "lan"), ("up", "web"), ("eth1", "blue/db")]
    _, said = inside(daemon, "a", "ip", "-json", "address")
    there = {link["ifname"]: {one["local"] for one in link["addr_info"]} for link in json.loads(said)}
    for one in shown:
        assert {text.partition("/")[0] for text in one["addresses"]} <= there[one["ifname"]]
    _, hosts = inside(daemon, "a", "cat", "/etc/hosts")
    for one in shown:
        for text in one["addresses"]:
            assert f"{text.partition('/')[0]}\tbox a" in hosts
    (usage,) = daemon.ask("STATS", containers=["a"])["items"]
    assert usage["sent_bytes"] > 0


def test_without_networks_there_is_only_the_loopback(daemon: RunningDaemon) -> None:
    daemon.run("sleep", "1000", name="a")
    _, said = inside(daemon, "a", "ip", "-json", "address")
    links = json.loads(said)
    assert [link["ifname"] for link in links] == ["lo"]
    assert "UP" in links[0]["flags"]


@pytest.mark.parametrize(
    ("wishes", "kind"),
    [
        ([{"network": "web"}, {"network": "nope"}], Kind.NOT_FOUND),
        ([{"network": "lan"}, {"network": "web", "addresses": ["10.9.0.1"]}], Kind.INVALID),
    ],
)
def test_a_network_that_fails_undoes_all_and_is_named(
    up: Lab, daemon: RunningDaemon, wishes: list[dict[str, Any]], kind: Kind
) -> None:
    spec = {"image": "host", "command": ["true"], "name": "a", "networks": wishes}
    error = daemon.refusal("RUN", container=spec)
    assert (error.kind, error.facts["network"], error.facts["exit_code"]) == (kind, wishes[1]["network"], 125)
    assert daemon.info("a")["state"] == "created"
    left = daemon.left()
    assert (left["cgroups"], left["entries"]) == ([], [])
    eventually(lambda: endpoints(up), lambda found: found == [], "all given back")


def test_a_name_that_somebody_has_is_gone_without(
    up: Lab, runtimes: dict[str, RunningDaemon], daemon: RunningDaemon
) -> None:
    daemon.run("sleep", "1000", name="same", networks=WEB)
    runtimes["h2"].run("sleep", "1000", name="same", networks=WEB)
    assert sorted(name for _, _, name in endpoints(up)) == ["", "same"]


def test_an_exit_gives_back_and_a_start_attaches_again(up: Lab, daemon: RunningDaemon) -> None:
    daemon.run("sh", "-c", "exit 3", name="a", networks=WEB)
    assert daemon.wait("a") == 3
    eventually(lambda: endpoints(up), lambda found: found == [], "given back")
    daemon.ask("START", container="a")
    made = daemon.run("ip", "-json", "address", name="b", networks=WEB, remove=True)
    assert daemon.wait(made["id"]) == 0
    assert [end for end in endpoints(up) if end[0] == made["id"]] == [], "before its wait ended"


def test_killed_with_its_containers_attached(up: Lab, daemon: RunningDaemon) -> None:
    stays = daemon.run("sleep", "1000", name="stays", networks=WEB)["id"]
    goes = daemon.run("sleep", "1000", name="goes", networks=WEB)["id"]
    daemon.kill()
    pids = [json.loads((daemon.root.containers / name / "container.json").read_text())["pid"] for name in (goes,)]
    os.kill(pids[0], signal.SIGKILL)
    assert len(endpoints(up)) == 2, "nobody is there to give it back"
    daemon.start()
    eventually(lambda: endpoints(up), lambda found: [end[0] for end in found] == [stays], "given back")
    assert daemon.info("goes")["exit_code"] == 137
    assert inside(daemon, "stays", "ping", "-c1", "-W10", address_of(daemon, "stays"))[0] == 0


def test_an_agent_that_is_away(up: Lab, daemon: RunningDaemon) -> None:
    daemon.run("sleep", "1000", name="a", networks=WEB)
    arguments = up.stop("h1")
    try:
        daemon.ask("RM", container="a", force=True)
        spec = {"image": "host", "command": ["true"], "name": "b", "networks": WEB}
        error = daemon.refusal("RUN", container=spec)
        assert (error.kind, error.facts["network"]) == (Kind.UNAVAILABLE, "web")
        assert "the agent is not running" in error.message
    finally:
        up.start("h1", arguments)
    eventually(lambda: endpoints(up), lambda found: found == [], "given back once the agent was there again")
    daemon.ask("START", container="b")


def test_many_attached_at_once_under_a_kill(up: Lab, daemon: RunningDaemon) -> None:
    """Half-made starts are undone: what the controller has is what runs."""
    import threading

    def start(number: int) -> None:
        with contextlib.suppress(HawseError):  # the daemon died amid it
            daemon.run("sleep", "1000", name=f"n{number}", networks=[{"network": "web"}, {"network": "lan"}])

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(up.endpoints()), lambda count: count >= 3, "some attached")
    daemon.kill()
    for thread in threads:
        thread.join()
    daemon.start()
    living = {item["id"] for item in daemon.ask("PS")["items"]}
    eventually(lambda: endpoints(up), lambda found: {end[0] for end in found} == living, "what runs is attached")
    assert len(endpoints(up)) == 2 * len(living)
