"""Daemons that a lab's nursery bears are what their commands would be; and whoever dies meanwhile, nothing is left."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin.kernel import namespace
from sdn.model.errors import HawseError, Kind
from tests.session_janitor import session_name
from topologies import processes
from topologies.births import Nursery
from topologies.daemons import Daemon, hawse_command
from topologies.record import Directory, Process, labs

pytestmark = pytest.mark.root

COMMAND = [sys.executable, "-m", "sdn.cli.main"]
PATIENCE_S = 60.0
TOPOLOGY = (
    "hosts: {h1: {}, h2: {}}\nnetworks: {web: {subnets: 10.1.0.0/24}}\ncontainers: {a: {host: h1, networks: web}}\n"
)


@pytest.fixture
def name() -> Iterator[str]:
    """A lab's name; it is taken down afterwards, in whatever state it is."""
    chosen = f"{session_name()}-{secrets.token_hex(4)}"
    yield chosen
    if any(lab.name == chosen for lab in labs()):
        subprocess.run([*COMMAND, "lab", "down", chosen], check=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lab.yaml"
    path.write_text(TOPOLOGY)
    return path


def up(file: Path, name: str, **more: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "lab", "up", str(file), "--name", name]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **more})


def links(pid: int) -> dict[int, str]:
    return {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_each_daemon_is_what_its_command_would_be(name: str, file: Path) -> None:
    with up(file, name, HAWSE_ROOT="/nowhere", NOTIFY_SOCKET="@nobody", MARK=name) as starting:
        assert starting.stderr is not None
        told = starting.stderr.read()
    assert starting.returncode == 0, told
    directory = next(lab for lab in labs() if lab.name == name)
    record = directory.read()
    assert record is not None
    assert set(record.processes) == {"controller", "h1", "h2", "h1+runtime", "h2+runtime"}
    shared: list[str] = []
    for key, process in record.processes.items():
        place, _, runtime = key.partition("+")
        word = runtime or ("agent" if place != "controller" else place)
        assert processes.is_alive(process), key
        pid = process.pid
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")
        command = [*hawse_command(), word]
        assert words[: len(command)] == command
        assert words[-4:-1] == ["--root", str(directory.path / place), "--ready-fd"]
        shown = subprocess.run(["ps", "-o", "args=", "-ww", "-p", str(pid)], capture_output=True, text=True, check=True)
        assert shown.stdout.strip() == " ".join(words)
        home = directory.namespace("underlay" if place == "controller" else place)
        assert os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat(home).st_ino
        assert os.getsid(pid) == os.getpgid(pid) == pid
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        descriptors = links(pid)
        log = str(directory.log(key))
        assert [descriptors[fd] for fd in range(3)] == [os.devnull, log, log]
        shared += {link for link in descriptors.values() if link.startswith(("socket:", "pipe:"))}
        variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        assert f"MARK={name}" in variables
        assert not any(variable.startswith(("HAWSE_ROOT=", "NOTIFY_SOCKET=")) for variable in variables)
        assert parent(pid) == parent(record.processes["controller"].pid)
        assert f"pid={pid}" in directory.log(key).read_text()
    assert len(shared) == len(set(shared)), "no daemon holds what another one opened"
    inside = {process.pid for process in processes.inside(directory.path.glob("ns/*"))}
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in inside]
    assert not any("topologies.nursery" in command for command in commands)


def stopped_nursery(of: int) -> Process:
    """The nursery of a `lab up`, stopped while it imports: none of its daemons is born."""
    deadline = time.monotonic() + PATIENCE_S
    while True:  # a child cannot be awaited by who is not its parent
        assert time.monotonic() < deadline
        for pid in Path(f"/proc/{of}/task/{of}/children").read_text().split():
            if "topologies.nursery" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(int(pid), signal.SIGSTOP)
                found = processes.identify(int(pid))
                assert found is not None
                return found
        time.sleep(0.002)


def wait_gone(process: Process) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while processes.is_alive(process):
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("who", ["nursery", "up", "interrupted"])
def test_whoever_dies_before_the_daemons_are_born_nothing_is_left(who: str, name: str, file: Path) -> None:
    with up(file, name) as starting:
        nursery = stopped_nursery(starting.pid)
        assert starting.stderr is not None
        assert "2 hosts" in starting.stderr.readline()
        directory = next(lab for lab in labs() if lab.name == name)
        match who:
            case "nursery":
                os.kill(nursery.pid, signal.SIGKILL)
            case "up":
                starting.kill()
            case _:
                starting.send_signal(signal.SIGINT)
        rest = starting.stderr.read()
    assert "Traceback" not in rest
    assert starting.returncode == {"nursery": 7, "up": -signal.SIGKILL, "interrupted": 130}[who], rest
    assert ("nursery" in rest) == (who == "nursery")
    with contextlib.suppress(ProcessLookupError):  # it may have been stopped before it asked to die with its parent
        os.kill(nursery.pid, signal.SIGCONT)
    wait_gone(nursery)
    if who == "up":
        assert processes.inside(directory.path.glob("ns/*")) == []
        subprocess.run([*COMMAND, "lab", "down", name], check=True)
    assert not directory.path.exists()


async def test_a_daemon_that_cannot_start_tells_why(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    (tmp_path / "log").mkdir()
    namespace.create(directory.namespace("h1"))
    try:
        with Nursery() as nursery:
            for datapath in ("rope", "string"):  # one that fails stops nobody else
                daemon = Daemon(directory, "h1", "h1", ("agent", "--datapath", datapath), nursery)
                with pytest.raises(HawseError, match=f"the agent of h1 ended: .*'{datapath}'") as told:
                    await daemon.wait_ready()
                daemon.close()
                assert told.value.kind is Kind.UNAVAILABLE
                wait_gone(daemon.process)
    finally:
        namespace.remove(directory.namespace("h1"))


def test_an_order_for_a_namespace_that_is_none_is_refused(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    (tmp_path / "log").mkdir()
    (tmp_path / "ns").mkdir()
    directory.namespace("h1").touch()
    with Nursery() as nursery:
        daemon = Daemon(directory, "h1", "h1", ("agent",), nursery)
        with pytest.raises(HawseError, match=r"a daemon cannot be started: .*Invalid argument"):
            _ = daemon.process
        daemon.close()
