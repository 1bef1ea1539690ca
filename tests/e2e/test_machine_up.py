"""`hawse up` and `hawse down` on one machine: set up, watched, killed anywhere, stopped, found again."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plugin.kernel import namespace
from tests.e2e.machines import PATIENCE_S, Machine, environment, machines
from tests.runtime.daemons import eventually

pytestmark = pytest.mark.root
ALL = {"machine", "controller", "agent", "runtime"}


@pytest.fixture(scope="module")
def alone() -> Iterator[Machine]:
    """A machine that becomes the first of a fabric, and stays it."""
    with machines(1) as (one,):
        yield one


@pytest.fixture
def fresh() -> Iterator[Machine]:
    """One that is nothing yet."""
    with machines(1) as (one,):
        yield one


@pytest.fixture
def serving(alone: Machine) -> Machine:
    """It serves."""
    alone.up()
    assert set(alone.pids()) == ALL
    return alone


def is_dead(pid: int) -> bool:
    """Whether a process has ended; who has not been waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Until it has ended."""
    os.kill(pid, number)
    eventually(lambda: is_dead(pid), bool, f"{pid} has ended")


@contextlib.contextmanager
def foreground(machine: Machine) -> Iterator[tuple[subprocess.Popen[str], Callable[[str], list[str]]]]:
    """`hawse up` as in a terminal: the process, and a wait for a line; its lines until then."""
    process = subprocess.Popen(
        machine.words("up", "--name", machine.name),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[str] = []

    def until(wanted: str) -> list[str]:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if re.search(wanted, line):
                return lines
        raise AssertionError(f"{wanted!r} did not come: {lines}")

    try:
        yield process, until
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
        process.stdout.close()


def test_in_the_foreground_it_says_what_happens_and_what_to_type(alone: Machine):
    with foreground(alone) as (process, until):
        lines = until("--network web host")
        text = "\n".join(lines)
        assert re.search(r"^\d\d:\d\d:\d\d  controller  serving  ", text, re.M)
        assert re.search(r"^\d\d:\d\d:\d\d  agent       welcomed  ", text, re.M)
        assert "timestamp" not in text
        assert f"host {alone.name} is up, and its controller listens on {alone.address}:4780" in text
        assert "the address of eth0, the link of the default route" in text
        assert "token create" in text
        pids = alone.pids()
        assert set(pids) == ALL
        assert f"(pid {process.pid})" in alone.refused("up", code=4)
        assert f"(pid {process.pid})" in alone.hawse("up", "-d")
        assert alone.json("up", "-d")["pids"] == {name: pids[name] for name in ("controller", "agent", "runtime")}
        assert alone.host(alone.name)["connected"]
        assert alone.pids() == pids
        process.send_signal(signal.SIGINT)
        stopped = until("controller  stopped")
        assert process.wait(PATIENCE_S) == 0
        order = [re.search(r"  (\w+) +stopped", line) for line in stopped]
        assert [found[1] for found in order if found] == ["runtime", "agent", "controller"]
    assert all(map(is_dead, pids.values()))
    assert alone.pids() == {}
    assert alone.root.machine_file.stat().st_mode & 0o777 == 0o600


def test_a_daemon_that_dies_is_started_again(serving: Machine):
    before = serving.pids()
    for name in ("agent", "runtime", "controller"):
        os.kill(before[name], signal.SIGKILL)

    def all_new(now: dict[str, int]) -> bool:
        return set(now) == ALL and not any(now[name] == before[name] for name in ALL - {"machine"})

    after = eventually(serving.pids, all_new, "all run again")
    assert after["machine"] == before["machine"]
    eventually(lambda: serving.done("host", "ls").stdout, lambda text: " connected " in text, "the agent is connected")
    log = (serving.root.logs / "machine.log").read_text()
    assert "the agent was ended by signal 9" in log


def test_a_daemon_that_cannot_start_says_why_once_and_is_tried_again(serving: Machine):
    identity = serving.root.agent_file.read_bytes()
    log, complaint = serving.root.logs / "machine.log", "the agent cannot start"
    serving.root.agent_file.write_text("{")
    try:
        os.kill(serving.pids()["agent"], signal.SIGKILL)
        said = "hawse: " + str(serving.root.agent_file)
        tries = (serving.root.logs / "agent.log").read_text().count(said)
        eventually(
            lambda: (serving.root.logs / "agent.log").read_text().count(said), lambda now: now >= tries + 2, "two tries"
        )
        eventually(lambda: complaint in log.read_text(), bool, "it is told")
        assert log.read_text().count(complaint) == 1
        assert str(serving.root.agent_file) in log.read_text()
    finally:
        serving.root.agent_file.write_bytes(identity)
    eventually(lambda: serving.pids().get("agent"), bool, "it runs again")
    eventually(lambda: log.read_text().splitlines()[-1], lambda line: "the agent serves again" in line, "it serves")


def test_its_monitor_dies_and_the_next_one_finds_all(serving: Machine):
    before = serving.pids()
    kill(before.pop("machine"))
    assert serving.pids() == before
    assert serving.host(serving.name)["connected"]
    serving.up()
    after = serving.pids()
    assert after.pop("machine")
    assert after == before
    os.kill(before["runtime"], signal.SIGKILL)  # whom it has not started it keeps, too
    eventually(serving.pids, lambda now: now.get("runtime", before["runtime"]) != before["runtime"], "it runs again")


def test_down_names_containers_and_lets_them_go_on_if_told(serving: Machine):
    serving.hawse("run", "-d", "--name", "sleeper", "--stop-signal", "KILL", "host", "sleep", "1000")
    pid = serving.json("inspect", "sleeper")["pid"]
    complaint = serving.refused("down", code=4)
    assert "1 container runs on this machine: sleeper" in complaint
    assert "--keep-containers" in complaint
    assert set(serving.pids()) == ALL
    serving.hawse("down", "--keep-containers")
    assert serving.pids() == {}
    assert not is_dead(pid)
    assert "supervisor lives" in serving.refused("down", code=4)
    serving.up()
    assert serving.json("inspect", "sleeper")["pid"] == pid
    serving.hawse("down", "--force")
    assert is_dead(pid)
    assert serving.pids() == {}
    assert "nothing of Hawse runs here" in serving.hawse("down")
    serving.up()
    serving.hawse("rm", "sleeper")


def test_options_are_remembered_and_not_changed_under_way(serving: Machine):
    assert "with the options that it was started with" in serving.refused("up", "-d", "--pool", "10.9.0.0/16", code=4)
    assert "host m1 of its own controller" in serving.refused("join", serving.address, serving.token(), code=4)
    serving.hawse("down")
    assert "cannot become other" in serving.refused("up", "-d", "--name", "other", code=5)
    assert "does not have that address" in serving.refused("up", "-d", "--listen", "192.0.2.77", code=5)
    assert "192.0.2.77" not in serving.root.machine_file.read_text()
    serving.hawse("up", "-d", "--listen", f"{serving.address}:4799", "--pool", "10.9.0.0/16")
    eventually(lambda: serving.host("m1")["connected"], bool, "the agent finds the new port")
    assert serving.client.post("/v1/networks", {"name": "pooled"}).body["subnets"][0]["prefix"].startswith("10.9.")
    serving.hawse("down")
    serving.hawse("up", "-d")
    assert serving.json("up", "-d")["controller"] == f"https://{serving.address}:4799"


def test_after_a_reboot_all_comes_back(serving: Machine):
    serving.hawse("network", "create", "kept", "--subnet", "10.5.0.0/24")
    serving.hawse("run", "-d", "--restart", "always", "--name", "again", "--network", "kept", "host", "sleep", "1000")
    for pid in serving.pids().values():
        kill(pid)
    serving.hawse("up", "-d")  # what a switched-off machine has lost is the runtime's own test
    assert serving.json("inspect", "again")["state"] == "running"
    serving.hawse("rm", "-f", "again")


def test_the_first_machine_leaves_and_is_the_first_again(serving: Machine):
    serving.hawse("network", "create", "stays", "--subnet", "10.6.0.0/24")
    serving.hawse("run", "-d", "--name", "goes", "--network", "stays", "--stop-signal", "KILL", "host", "sleep", "1000")
    before = serving.host("m1")["id"]
    assert "goes" in serving.refused("leave", code=4)
    serving.hawse("leave", "--force")
    assert serving.pids() == {}
    assert not serving.root.agent_file.exists()
    assert "leave --force --all" in serving.refused("leave", code=3)  # nothing to leave, but something is kept
    serving.up()
    serving.hawse("down")
    assert "leave --force" in serving.refused("leave", code=7)  # nobody can say whether others need it
    serving.up()
    assert serving.host("m1")["id"] != before  # another incarnation
    assert "stays" in {network["name"] for network in serving.client.items("/v1/networks")}
    assert [one["container"] for one in serving.client.items("/v1/endpoints")] == []


def test_a_port_in_use_is_said_and_nothing_is_half_made(fresh: Machine):
    taken = namespace.socket_in(fresh.here.fd, socket.AF_INET, socket.SOCK_STREAM, 0)
    with contextlib.closing(taken):
        taken.bind((fresh.address, 4780))
        taken.listen()
        complaint = fresh.refused("up", "-d", code=4)
        assert f"cannot listen on {fresh.address}:4780: it is in use" in complaint
        assert fresh.pids() == {}
        assert not fresh.root.agent_file.exists()
        assert not fresh.root.machine_file.exists()
        assert not fresh.root.supervisor_socket.exists()
    images = fresh.root.images
    shutil.rmtree(images)
    images.write_text("in the way")
    fresh.refused("up", "-d", code=1)  # the runtime cannot start, and by then there was a host
    assert fresh.pids() == {}
    assert not fresh.root.agent_file.exists()
    assert not fresh.root.machine_file.exists()
    images.unlink()
    fresh.up()
    assert fresh.host(fresh.name)["connected"]


def test_a_machine_without_a_default_route_is_alone_and_says_so(fresh: Machine):
    fresh.here.ip("route del default")
    said = fresh.up()
    assert "listens on 127.0.0.1:4780" in said
    assert "no other machine can join" in said
    assert "--listen ADDRESS:PORT" in said
    assert "token create" not in said
    fresh.hawse("network", "create", "web", "--subnet", "10.1.0.0/24")
    fresh.hawse("run", "--rm", "--network", "web", "host", "true")
    examined = fresh.json("doctor")  # nothing is broken: nobody else is wanted
    found = {one["check"]: one["verdict"] for one in examined["findings"]}
    assert (found["uplink"], "problem" in found.values(), "path" in found) == ("warning", False, False)


@pytest.mark.parametrize("mark", ["controller.sock", "agent.json"])
def test_killed_while_it_is_set_up_the_next_try_does_it(fresh: Machine, mark: str):
    path = fresh.directory / mark if mark.endswith(".sock") else fresh.directory / "state" / mark
    fresh.kill_amid(path, "up", "--name", fresh.name)
    fresh.up()
    assert fresh.host(fresh.name)["connected"]
    assert len(list(fresh.client.items("/v1/hosts"))) == 1


def test_without_the_right_nothing_begins(fresh: Machine):
    refused = fresh.refused("up", code=8, before=("setpriv", "--reuid", "65534", "--clear-groups"))
    assert "needs root" in refused
