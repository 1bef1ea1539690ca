"""The daemon and the supervisor killed at any moment: no container, exit code, log line or cgroup is lost or left."""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sdn.model.errors import HawseError, Kind
from tests.runtime.daemons import BOUND_S, NOTHING, RunningDaemon, eventually, read_log, running_daemon

pytestmark = pytest.mark.root

COUNTING = (
    "trap enough=1 USR1; i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; sleep 0.02; done; "
    "until [ $enough ]; do sleep 0.02; done; exit 7"
)
"""Talks for a second, and ends when it is told to."""
LINES = b"".join(b"line %d\n" % number for number in range(1, 61))


@pytest.fixture
def daemon() -> Iterator[RunningDaemon]:
    with running_daemon() as made:
        yield made
        for item in made.ask("PS", all=True)["items"]:
            made.ask("RM", container=item["id"], force=True)
        eventually(made.left, lambda left: left == NOTHING, "nothing left")


def again(daemon: RunningDaemon) -> None:
    daemon.kill()
    daemon.start()


def kill_supervisor(daemon: RunningDaemon) -> None:
    pid = daemon.supervisor_pid()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: supervisor(daemon), lambda now: now not in (0, pid), "another supervisor")


def supervisor(daemon: RunningDaemon) -> int:
    try:
        return daemon.supervisor_pid()
    except HawseError:
        return 0


def ended(daemon: RunningDaemon, container: str) -> dict[str, Any]:
    return eventually(
        lambda: daemon.info(container), lambda info: info["state"] not in ("running", "paused"), "it ended"
    )


def test_what_runs_lives_on_and_can_be_held_and_ended(daemon: RunningDaemon) -> None:
    spec = {"image": "host", "command": ["sh", "-c", COUNTING], "name": "talks"}
    _, descriptors = daemon.attached("RUN", container=spec, attach=True)
    daemon.run("sleep", "1000", name="paused")
    daemon.ask("PAUSE", container="paused")
    before = daemon.info("talks")
    again(daemon)
    assert daemon.info("talks") == before
    assert daemon.info("paused")["state"] == "paused"
    daemon.ask("UNPAUSE", container="paused")
    daemon.ask("KILL", container="paused")
    assert daemon.wait("paused") == 137
    daemon.ask("KILL", container="talks", signal="SIGUSR1")
    assert daemon.wait("talks") == 7
    while os.read(descriptors["bell"], 4096):  # rung by the supervisor: the daemon's death is no end of it
        pass
    assert read_log(descriptors["log"], descriptors["index"]) == LINES
    for descriptor in descriptors.values():
        os.close(descriptor)


def test_ends_without_a_daemon_are_recorded_and_acted_upon(daemon: RunningDaemon) -> None:
    daemon.run("sh", "-c", "sleep 0.3; exit 5", name="ends")
    gone = daemon.run("sh", "-c", "sleep 0.3; exit 6", name="gone", remove=True)
    daemon.run("sh", "-c", "sleep 0.3; exit 1", name="again", restart="on-failure")
    daemon.kill()
    entries = daemon.root.containers
    exits = [entries / directory / "exit" for directory in os.listdir(entries)]
    eventually(lambda: [path.exists() for path in exits], all, "all ended")
    daemon.start()
    assert ended(daemon, "ends")["exit_code"] == 5
    assert daemon.wait(gone["id"]) == 6
    assert daemon.refusal("INSPECT", container="gone").kind is Kind.NOT_FOUND
    eventually(lambda: daemon.info("again"), lambda info: info.get("restarts", 0) >= 1, "started again")


def test_policies_over_a_restart_of_the_daemon(daemon: RunningDaemon) -> None:
    for policy in ("always", "unless-stopped"):
        for name in ("stopped", "runs"):
            daemon.run("sleep", "1000", name=f"{policy}-{name}", restart=policy)
        daemon.ask("STOP", container=f"{policy}-stopped", timeout_s=0)
    again(daemon)
    eventually(lambda: daemon.info("always-stopped")["state"], lambda state: state == "running", "always means always")
    assert daemon.info("unless-stopped-stopped")["state"] == "exited"
    assert daemon.info("always-runs")["state"] == daemon.info("unless-stopped-runs")["state"] == "running"


def power_cut(daemon: RunningDaemon) -> None:
    """Nobody of this root lives on, and of its run directory is left what a machine's start leaves: nothing."""
    keeper = int((daemon.root.run / "supervisor.pid").read_text())
    supervisors = [os.pidfd_open(pid) for pid in (keeper, daemon.supervisor_pid())]
    containers = [os.pidfd_open(item["pid"]) for item in daemon.ask("PS")["items"]]
    daemon.kill()
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped, none of the two can do anything about the other's end
        for process in supervisors:
            signal.pidfd_send_signal(process, number)
    for process in (*supervisors, *containers):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        assert select.select([process], [], [], BOUND_S)[0], "it does not end"
        os.close(process)
    for path in daemon.root.run.iterdir():
        if path.is_dir() and path != daemon.root.state:
            shutil.rmtree(path)
        elif path.is_socket() or path.suffix == ".pid":
            path.unlink()


def test_policies_over_a_restart_of_the_machine(daemon: RunningDaemon) -> None:
    script = "[ -e /mine ] && echo again || echo first; echo x >/mine; exec sleep 1000"
    for policy in ("no", "always", "unless-stopped", "on-failure"):
        daemon.run("sh", "-c", script, name=policy, restart=policy)
        eventually(lambda name=policy: daemon.output(name), lambda said: said == b"first\n", "it runs")  # type: ignore[misc]
    daemon.run("sleep", "1000", name="stopped", restart="unless-stopped")
    daemon.ask("STOP", container="stopped", timeout_s=0)
    daemon.run("sleep", "1000", name="removed", remove=True)
    power_cut(daemon)
    daemon.start()
    for policy in ("always", "unless-stopped", "on-failure"):
        eventually(
            lambda name=policy: (daemon.info(name)["state"], daemon.output(name)),  # type: ignore[misc]
            lambda seen: seen == ("running", b"first\nagain\n"),
            f"{policy} runs again, with what it wrote",
        )
    assert daemon.info("no")["state"] == "dead", "nobody saw how it ended"
    assert daemon.info("stopped")["state"] == "exited"
    assert daemon.refusal("INSPECT", container="removed").kind is Kind.NOT_FOUND


def test_a_stopped_daemon_leaves_its_containers_running(daemon: RunningDaemon) -> None:
    made = daemon.run("sleep", "1000", name="c")
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.info("c")["pid"] == made["pid"]


def test_a_supervisors_death_is_not_noticed(daemon: RunningDaemon) -> None:
    spec = {"image": "host", "command": ["sh", "-c", COUNTING], "name": "talks"}
    daemon.ask("RUN", container=spec)
    ends = daemon.run("sh", "-c", "sleep 0.5; exit 5", name="ends")
    kill_supervisor(daemon)
    assert daemon.wait("ends", run=ends["run"]) == 5
    kill_supervisor(daemon)
    made = daemon.run("sh", "-c", "exit 6", name="later")
    assert daemon.wait(made["id"]) == 6
    daemon.ask("KILL", container="talks", signal="SIGUSR1")
    assert daemon.wait("talks") == 7
    assert daemon.output("talks") == LINES


def test_a_damaged_record_stops_nothing(daemon: RunningDaemon) -> None:
    good = daemon.run("sleep", "1000", name="good")
    bad = daemon.run("sleep", "1000", name="bad")["id"]
    (daemon.root.containers / bad / "container.json").write_bytes(b"\x00\x01")
    again(daemon)
    shown = daemon.info(bad)
    assert (shown["state"], "cannot be read" in shown["error"]) == ("dead", True)
    assert daemon.info("good")["pid"] == good["pid"]
    daemon.ask("RM", container=bad)
    assert not (daemon.root.containers / bad).exists()


PAUSE_S = 0.6
"""At the most, between two kills, as long as the clients get on."""


class Storm:
    """Clients that start, stop and remove containers, and somebody who kills. Every answer is believed for ever."""

    def __init__(self, daemon: RunningDaemon, seed: int, rounds: int) -> None:
        self.daemon = daemon
        self.random = random.Random(seed)
        self.rounds = rounds
        self.problems: list[str] = []
        self.done = threading.Event()
        self.lock = threading.Lock()
        self.lived: list[str] = []
        """Whose life is over as it should: who kills faster than a busy machine gets on would kill for ever."""

    def patiently(self, verb: str, **fields: Any) -> dict[str, Any] | HawseError:
        """As a person does who tries again while the daemon is away."""
        deadline = time.monotonic() + BOUND_S
        while True:
            try:
                return self.daemon.ask(verb, **fields)
            except HawseError as error:
                if error.kind is not Kind.UNAVAILABLE or time.monotonic() > deadline:
                    return error
                time.sleep(0.02)

    def client(self, number: int) -> None:
        chance = random.Random(number)
        try:
            for turn in range(self.rounds):
                name = f"c{number}-{turn}"
                self.one(name, chance.randrange(200), chance.random() < 0.5)
                self.lived.append(name)
        except AssertionError as error:
            self.problems.append(str(error))

    def one(self, name: str, code: int, stop: bool) -> None:
        """A container from its start to its removal; what was answered is still so afterwards."""
        ending = "sleep 1000" if stop else f"exit {code}"
        spec = {"image": "host", "name": name, "command": ["sh", "-c", f"echo {name}; {ending}"]}
        made = self.patiently("RUN", container=spec)
        if isinstance(made, HawseError):  # an answer was lost, and it is there
            assert made.kind is Kind.CONFLICT, f"{name}: {made}"
            if self.state(name) in ("created", "dead"):
                made = self.patiently("START", container=name)
                assert not isinstance(made, HawseError), f"{name}: {made}"
        if stop:
            self.patiently("KILL", container=name)
        wanted = 137 if stop else code
        end = self.patiently("WAIT", container=name)
        if isinstance(end, dict) and end["code"] == 125 and "interrupted" in end.get("error", "interrupted"):
            end = self.finish(name, stop)
        assert isinstance(end, dict), f"{name}: {end}"
        assert end["code"] == wanted, f"{name} ended with {end}, not {wanted}"
        if not stop:
            said = self.daemon_output(name)
            assert said.replace(f"{name}\n".encode(), b"") == b"", f"{name} said {said!r}"
            assert said, f"{name} said nothing"
        gone = self.patiently("RM", container=name, force=True)
        assert isinstance(gone, dict) or gone.kind is Kind.NOT_FOUND, f"{name}: {gone}"

    def finish(self, name: str, stop: bool) -> dict[str, Any] | HawseError:
        """Its start was interrupted by a death before its exec: it never ran, and is started again."""
        made = self.patiently("START", container=name)
        assert not isinstance(made, HawseError), f"{name}: {made}"
        if stop:
            self.patiently("KILL", container=name)
        return self.patiently("WAIT", container=name)

    def state(self, name: str) -> str:
        found = self.patiently("INSPECT", container=name)
        assert isinstance(found, dict), f"{name}: {found}"
        return str(found["state"])

    def daemon_output(self, name: str) -> bytes:
        deadline = time.monotonic() + BOUND_S
        while True:
            try:
                return self.daemon.output(name)
            except HawseError as error:
                if error.kind is not Kind.UNAVAILABLE or time.monotonic() > deadline:
                    raise AssertionError(f"{name}: {error}") from None
                time.sleep(0.02)

    def rage(self) -> None:
        """Until the clients are done."""
        pause_s, lived = PAUSE_S, 0
        while not self.done.wait(self.random.uniform(0.05, pause_s)):
            pause_s, lived = (pause_s * 1.2 if lived == len(self.lived) else PAUSE_S), len(self.lived)
            if self.random.random() < 0.5:
                again(self.daemon)
            else:
                with contextlib.suppress(HawseError, ProcessLookupError):
                    os.kill(self.daemon.supervisor_pid(), signal.SIGKILL)

    def run(self, clients: int) -> None:
        threads = [threading.Thread(target=self.client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        rager = threading.Thread(target=self.rage)
        rager.start()
        for thread in threads:
            thread.join(20 * BOUND_S)
        self.done.set()
        rager.join(BOUND_S)
        assert self.problems == []
        assert not any(thread.is_alive() for thread in threads)


def test_killed_at_random(daemon: RunningDaemon) -> None:
    Storm(daemon, 1, rounds=20).run(clients=3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_starts_and_stops_under_random_kills(daemon: RunningDaemon) -> None:
    Storm(daemon, 2, rounds=50).run(clients=4)
