"""Kills: of the supervisor, of the keeper, of both, at any moment; and the change of program. Nothing may be lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from runtime import syscall
from runtime.supervisor_answers import SupervisorError
from runtime.supervisor_connection import PACKAGES, Connection
from runtime.syscall import PR_SET_CHILD_SUBREAPER
from sdn.model.errors import HawseError, Kind
from tests.runtime.supervised import Supervised, ended, events_until, process_of, supervised, wait_until

__all__ = ["supervised"]
pytestmark = pytest.mark.root

LINES = 4000
TALKER = f"seq 1 {LINES}; seq 1 {LINES} >&2; exit %d"
EXPECTED = b"".join(b"%d\n" % number for number in range(1, LINES + 1))
SLOW = "i=0; while [ $i -lt 100 ]; do echo out $i; echo err $i >&2; i=$((i+1)); sleep 0.01; done; exit 9"
SLOW_OUT = b"".join(b"out %d\n" % number for number in range(100))
SLOW_ERR = b"".join(b"err %d\n" % number for number in range(100))


def check_slow(supervised: Supervised, client: Connection, name: str) -> None:
    assert supervised.wait_exit(client, name)["code"] == 9
    assert supervised.output(name) == (SLOW_OUT, SLOW_ERR)
    assert json.loads((supervised.directory(name) / "exit").read_text())["code"] == 9


def test_a_killed_supervisor_is_followed_by_another_and_nothing_is_lost(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "slow", SLOW)
    supervisor, keeper = supervised.pids(client)
    _, (log, index, bell) = client.request("follow", id="slow")
    supervised.kill(supervisor)
    client = supervised.reconnect()
    assert supervised.pids(client) != (supervisor, keeper)
    assert supervised.pids(client)[1] == keeper
    assert (supervised.state(client, "slow") or {})["state"] == "running"
    check_slow(supervised, client, "slow")
    rung = b"?"
    while rung:  # by the next one, which closes it, too
        assert select.select([bell], [], [], 20)[0], "the bell is never closed"
        rung = os.read(bell, 4096)
    for fd in (log, index, bell):
        os.close(fd)


def test_ends_while_no_supervisor_lived_are_known(supervised: Supervised):
    client = supervised.start()
    supervisor, keeper = supervised.pids(client)
    plan = supervised.plan("c1", "read line; echo $line; exit 42", stdin=True)
    pid = client.request("launch", plan=plan, go=True)[0]["pid"]
    client.request("launch", plan=supervised.plan("c2", ["sleep", "1000"]), go=True)
    process = process_of(plan, ["sh", "-c", "read line; exit 17"], stdin=True)
    _, (output, errors, theirs) = client.request("exec", id="c2", execution="e1", process=process)
    _, (stdin,) = client.request("input", id="c1", keep=False)
    os.kill(keeper, signal.SIGSTOP)  # so that nobody follows for now
    try:
        supervised.kill(supervisor)
        os.write(theirs, b"now\n")
        os.read(output, 1)  # the end of file: it ended
        os.write(stdin, b"and now\n")
        wait_until(lambda: ended(pid), "it ends")
    finally:
        os.kill(keeper, signal.SIGCONT)
    client = supervised.reconnect()
    assert supervised.wait_exit(client, "c1")["code"] == 42
    wait_until(lambda: code_of(client, "e1") == 17, "its code is known")
    assert supervised.output("c1")[0] == b"and now\n"
    for fd in (output, errors, theirs, stdin):
        os.close(fd)


def code_of(client: Connection, execution: str) -> int | None:
    code: int | None = client.request("execution", execution=execution)[0]["code"]
    return code


def test_what_waits_is_undone_by_the_next_one(supervised: Supervised):
    client = supervised.start()
    _, (netns,) = client.request("launch", plan=supervised.plan("c1", "true"), go=False)
    os.close(netns)
    supervised.kill(supervised.pids(client)[0])
    client = supervised.reconnect()
    assert client.request("list")[0] == {"containers": []}
    assert supervised.entries() == []
    assert supervised.cgroups() == []


def test_exits_and_executions_that_were_not_acknowledged_survive(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "gone", "echo bye; exit 6")
    plan = supervised.plan("c1", ["sleep", "1000"])
    client.request("launch", plan=plan, go=True)
    _, fds = client.request("exec", id="c1", execution="e1", process=process_of(plan, ["sh", "-c", "exit 8"]))
    for fd in fds:
        os.close(fd)
    client.request("subscribe")
    client.request("freeze", id="c1", on=True)
    supervised.wait_exit(client, "gone")
    wait_until(lambda: client.request("status")[0]["executions"] == 1, "it is remembered")
    supervised.kill(supervised.pids(client)[0])
    client = supervised.reconnect()
    client.request("subscribe")
    event = client.next_event()
    assert (event.id, event.facts["code"]) == ("gone", 6)
    assert (supervised.state(client, "c1") or {})["state"] == "frozen"
    client.request("freeze", id="c1", on=False)
    client.request("signal", id="c1", signal=9)
    assert supervised.wait_exit(client, "c1")["code"] == 137
    assert client.request("execution", execution="e1")[0]["code"] == 8


def test_a_killed_keeper_is_replaced_by_the_supervisor(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "slow", SLOW)
    supervised.run(client, "tty", "read line; echo got $line; exit 3", tty={"rows": 0, "columns": 0})
    supervisor, keeper = supervised.pids(client)
    supervised.kill(keeper)
    client = supervised.reconnect()
    second = supervised.pids(client)
    assert second[1] == supervisor  # the one that was supervisor keeps now
    supervised.kill(second[0])
    client = supervised.reconnect()
    assert supervised.pids(client)[1] == supervisor
    supervised.kill(supervisor)
    client = supervised.reconnect()
    check_slow(supervised, client, "slow")
    _, (terminal,) = client.request("input", id="tty")
    os.write(terminal, b"it\n")
    assert supervised.wait_exit(client, "tty")["code"] == 3
    assert b"got it" in supervised.output("tty")[0]
    os.close(terminal)


def test_both_killed_at_once_containers_live_and_are_adopted(supervised: Supervised):
    """Their output goes on through the same pipes, opened anew; codes come from the kernel, once they are reaped."""
    client = supervised.start()
    script = "read line; echo $line; echo err >&2; read line; exit 5"
    supervised.run(client, "c1", script, stdin=True)
    first = supervised.run(client, "gone", "read line; exit 1", stdin=True)
    _, (stdin,) = client.request("input", id="c1", keep=False)
    _, (other,) = client.request("input", id="gone", keep=False)
    supervisor, keeper = supervised.pids(client)
    os.kill(keeper, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGSTOP)
    supervised.kill(keeper, supervisor)
    os.close(other)
    wait_until(lambda: ended(first["pid"]), "it ends while nobody is there")
    client = supervised.reconnect()
    assert (supervised.state(client, "c1") or {})["state"] == "running"
    os.write(stdin, b"after\n")
    wait_until(lambda: supervised.output("c1") == (b"after\n", b"err\n"), "its output comes")
    os.close(stdin)
    assert supervised.wait_exit(client, "c1")["code"] == 5
    assert supervised.wait_exit(client, "gone")["code"] in (1, -1)


@pytest.fixture
def reaping() -> Iterator[None]:
    """Orphans are ours to reap, as init's elsewhere."""
    syscall.prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield
    syscall.prctl(PR_SET_CHILD_SUBREAPER, 0)


def test_who_was_the_killed_keepers_child_is_known_though_somebody_reaped_it(reaping: None, supervised: Supervised):
    """And though no supervisor was there at that moment: the keeper holds its descriptor, which tells the code."""
    client = supervised.start()
    script = "read line; exit 6"
    pid = supervised.run(client, "c1", script, stdin=True)["pid"]
    _, (stdin,) = client.request("input", id="c1", keep=False)
    execution, fds = client.request(
        "exec", id="c1", execution="e1", process=process_of(supervised.plan("c1", script), ["sleep", "1000"])
    )
    supervised.kill(supervised.pids(client)[0])  # now its parent is the keeper
    client = supervised.reconnect()
    supervised.kill(supervised.pids(client)[1])  # now it is us
    client = supervised.reconnect()
    supervisor, _ = supervised.pids(client)
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(execution["pid"], signal.SIGTERM)
    os.waitpid(execution["pid"], 0)
    os.close(stdin)
    os.waitpid(pid, 0)
    supervised.kill(supervisor)
    client = supervised.reconnect()
    assert supervised.wait_exit(client, "c1")["code"] == 6
    assert client.request("execution", execution="e1")[0]["code"] == 128 + signal.SIGTERM
    for fd in fds:
        os.close(fd)


def test_a_pid_that_somebody_else_has_is_not_taken_for_a_container(supervised: Supervised):
    client = supervised.start()
    result = supervised.run(client, "c1", ["sleep", "1000"])
    supervisor, keeper = supervised.pids(client)
    os.kill(keeper, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGSTOP)
    supervised.kill(keeper, supervisor)
    os.kill(result["pid"], signal.SIGKILL)
    entry = supervised.root.run / "containers/c1"
    entry.write_text(entry.read_text().replace(f"pid {result['pid']} {result['start']}", f"pid {os.getpid()} 5"))
    client = supervised.reconnect()
    assert supervised.wait_exit(client, "c1")["code"] == -1


@pytest.mark.parametrize("tail", ["", "{", '{"id": "c1"}\n', "null\n", "pid 1 2\n"])
def test_entries_that_were_cut_off_are_cleared_away(supervised: Supervised, tail: str):
    supervised.root.create()
    (supervised.root.run / "containers").mkdir()
    (supervised.root.run / "containers/c1").write_text(tail)
    client = supervised.start()
    assert client.request("list")[0] == {"containers": []}
    assert supervised.entries() == []


def test_upgrade_in_place(supervised: Supervised):
    """The program of another directory, in the same process; pipes, terminals, executions and codes go on."""
    client = supervised.start()
    supervised.run(client, "slow", SLOW)
    plan = supervised.plan("tty", "read line; echo got $line; exit 3", tty={"rows": 0, "columns": 0})
    client.request("launch", plan=plan, go=True)
    _, fds = client.request("exec", id="slow", execution="e1", process=process_of(plan, ["sleep", "1"], tty=None))
    supervisor, keeper = supervised.pids(client)
    other = supervised.base / "other"
    for package in ("runtime", "sdn"):
        shutil.copytree(PACKAGES / package, other / package, ignore=shutil.ignore_patterns("__pycache__"))
    client.request("upgrade", package=str(other))
    client = supervised.reconnect()
    wait_until(lambda: supervised.pids(client)[0] != supervisor, "the next one")
    assert supervised.pids(client)[1] == keeper
    assert str(other) in Path(f"/proc/{keeper}/cmdline").read_text()
    _, (terminal,) = client.request("input", id="tty")
    os.write(terminal, b"it\n")
    assert supervised.wait_exit(client, "tty")["code"] == 3
    assert b"got it" in supervised.output("tty")[0]
    wait_until(lambda: code_of(client, "e1") == 0, "the execution ends")
    check_slow(supervised, client, "slow")
    for fd in (*fds, terminal):
        os.close(fd)


def test_a_program_that_does_not_start_is_refused_and_the_old_one_goes_on(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "c1", ["sleep", "1000"])
    pids = supervised.pids(client)
    with pytest.raises(SupervisorError) as error:
        client.request("upgrade", package=str(supervised.base))
    assert error.value.stage == "upgrade"
    with pytest.raises(SupervisorError):
        client.request("upgrade", python="/no/such/python")
    assert supervised.pids(client) == pids


def test_leftovers_of_cgroups_that_nobody_knows_are_swept(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "c1", ["sleep", "1000"])
    for mount in supervised.hierarchies.always:
        Path(f"{mount}/{supervised.prefix}/stranger").mkdir()
    supervised.kill(supervised.pids(client)[0])
    client = supervised.reconnect()
    assert {Path(path).name for path in supervised.cgroups()} == {"c1"}
    assert (supervised.state(client, "c1") or {})["state"] == "running"


PAUSE_S = 0.12
"""At the most, between two kills, as long as what they disturb gets on."""


class Killer(threading.Thread):
    """Kills supervisors at random moments, until told to stop."""

    def __init__(self, supervised: Supervised, seed: int, *, keepers: bool) -> None:
        super().__init__()
        self._supervised = supervised
        self._random = random.Random(seed)
        self._keepers = keepers
        self.stopping = threading.Event()
        self.kills = 0
        self.launched = 0
        """As many as there are by now: who kills faster than a busy machine launches would kill for ever."""

    def run(self) -> None:
        pause_s, launched = PAUSE_S, 0
        while not self.stopping.wait(self._random.uniform(0.0, pause_s)):
            if launched != self.launched:
                pause_s, launched = PAUSE_S, self.launched
            with contextlib.suppress(HawseError):
                client = Connection(self._supervised.root, 5.0)
                try:
                    pids = self._supervised.pids(client)
                finally:
                    client.close()
                victim = pids[1] if self._keepers and self._random.random() < 0.3 else pids[0]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    self.kills += 1
                    pause_s *= 1.2
                if victim == pids[1]:
                    wait_until(partial(self._kept_by_another, victim), "the supervisor keeps in its place")

    def _kept_by_another(self, victim: int) -> bool:
        """Both at once is another test: that one may cost codes."""
        with contextlib.suppress(HawseError), contextlib.closing(Connection(self._supervised.root, 5.0)) as client:
            status, _ = client.request("status")
            return status["keeper"] not in (victim, 1)
        return False


def launch_through_kills(supervised: Supervised, client: Connection, name: str, script: str) -> Connection:
    """Until it is there: what a daemon does."""
    while True:
        try:
            supervised.run(client, name, script)
        except SupervisorError as error:
            if error.kind is Kind.CONFLICT:  # the answer was lost, the launch was not
                return client
            raise
        except HawseError:
            client.close()
            client = supervised.reconnect()
            with contextlib.suppress(HawseError):
                if supervised.state(client, name) is not None:
                    return client
        else:
            return client


@pytest.mark.parametrize("keepers", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_kills_lose_nothing(supervised: Supervised, seed: int, keepers: bool):
    """No exit code, byte of output, cgroup or process, whatever is killed while containers start, write and end."""
    client = supervised.start()
    killer = Killer(supervised, seed, keepers=keepers)
    killer.start()
    codes: dict[str, int] = {}
    try:
        while len(codes) < 20 or (killer.kills < 5 and len(codes) < 200):
            name = f"c{len(codes)}"
            codes[name] = len(codes)
            client = launch_through_kills(supervised, client, name, TALKER % codes[name])
            killer.launched = len(codes)
        time.sleep(0.1)  # some more kills while the last ones write
    finally:
        killer.stopping.set()
        killer.join()
    client = supervised.reconnect()
    for name, code in codes.items():
        assert supervised.wait_exit(client, name)["code"] == code, name
        output, errors = supervised.output(name)
        assert output == EXPECTED, name
        assert errors == EXPECTED, name
        client.request("forget", id=name)
    assert killer.kills > 3
    assert supervised.entries() == []
    wait_until(lambda: supervised.cgroups() == [], "no cgroup is left")


def test_events_are_told_again_to_whoever_comes_back(supervised: Supervised):
    client = supervised.start()
    client.request("subscribe")
    supervised.run(client, "c1", "exit 2")
    events_until(client, "exited", "c1")
    supervised.kill(supervised.pids(supervised.connect())[0])
    client = supervised.reconnect()
    client.request("subscribe")
    assert client.next_event().facts["code"] == 2
