"""The supervisor's protocol, word by word, against real containers."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from runtime.supervisor_answers import SupervisorError
from runtime.supervisor_connection import Connection, ensure_running
from sdn.model.errors import HawseError, Kind
from sdn.service.framing import frame
from tests.runtime.supervised import Supervised, ended, events_until, process_of, supervised, wait_until

__all__ = ["supervised"]
pytestmark = pytest.mark.root


def read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        return file.read()


def test_a_container_runs_and_its_end_is_recorded_before_it_is_told(supervised: Supervised):
    client = supervised.start()
    client.request("subscribe")
    result = supervised.run(client, "c1", "echo out; echo err >&2; exit 7")
    assert result["pid"] > 0
    event = events_until(client, "exited", "c1")[-1]
    assert (event.facts["code"], event.facts["run"], event.facts["oom_killed"]) == (7, 1, False)
    record = json.loads((supervised.directory("c1") / "exit").read_text())
    assert record == {key: event.facts[key] for key in ("run", "code", "oom_killed", "time_ns")}
    assert supervised.output("c1") == (b"out\n", b"err\n")
    assert client.request("forget", id="c1")[0] == {}
    assert supervised.entries() == []
    assert supervised.cgroups() == []


def test_it_waits_until_it_is_let_go_with_a_network_of_its_own(supervised: Supervised):
    client = supervised.start()
    launched, (netns,) = client.request(
        "launch", plan=supervised.plan("c1", "readlink /proc/self/ns/net; ls /sys/class/net"), go=False
    )
    assert launched == {}
    network = os.fstat(netns).st_ino
    assert os.stat("/proc/self/ns/net").st_ino != network
    assert not os.get_inheritable(netns)
    os.close(netns)
    assert (supervised.state(client, "c1") or {})["state"] == "waiting"
    assert not (supervised.directory("c1") / "log").exists()
    launched, _ = client.request("go", id="c1")
    assert launched["pid"] == (supervised.state(client, "c1") or {})["pid"]
    assert supervised.wait_exit(client, "c1")["code"] == 0
    assert supervised.output("c1") == (f"net:[{network}]\nlo\n".encode(), b"")


def test_a_signal_that_ended_it_is_128_and_more(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "c1", ["sleep", "1000"])
    client.request("signal", id="c1", signal=int(signal.SIGKILL), all=False)
    assert supervised.wait_exit(client, "c1")["code"] == 137


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        ({"process": {"argv": ["no-such-command"]}}, "command-not-found"),
        ({"process": {"argv": ["/etc/passwd"]}}, "command-not-executable"),
        ({"process": {"user": "nobody-of-here"}}, "user"),
        ({"root": {"layers": ["/no/such/layer"]}}, "mount"),
        ({"cgroup": {"cpus": 0.000001}}, "cgroup"),
        ({"id": "../evil"}, "request"),
        ({"id": ".."}, "request"),
        ({"id": ""}, "request"),
    ],
)
@pytest.mark.parametrize("go", [True, False])
def test_a_launch_that_fails_leaves_nothing(supervised: Supervised, change: dict[str, Any], stage: str, go: bool):
    client = supervised.start()
    plan = dict(supervised.plan("c1", "true"))
    for key, value in change.items():
        plan[key] = {**plan[key], **value} if isinstance(value, dict) else value  # type: ignore[dict-item]
    before = client.request("status")[0]["descriptors"]
    with pytest.raises(SupervisorError) as error:  # noqa: PT012 told at once, or when it is let go
        _, fds = client.request("launch", plan=plan, go=go)
        for fd in fds:
            os.close(fd)
        client.request("go", id="c1")
    assert error.value.stage == stage
    assert client.request("list")[0] == {"containers": []}
    assert supervised.entries() == []
    assert supervised.cgroups() == []
    assert client.request("status")[0]["descriptors"] <= before
    assert not (supervised.directory("c1") / "exit").exists()
    supervised.run(client, "c1", "exit 3")  # and the name is free
    assert supervised.wait_exit(client, "c1")["code"] == 3


def test_what_waits_goes_with_its_client(supervised: Supervised):
    client, watcher = supervised.start(), supervised.connect()
    _, (netns,) = client.request("launch", plan=supervised.plan("c1", "true"), go=False)
    os.close(netns)
    client.close()
    wait_until(lambda: supervised.state(watcher, "c1") is None, "it is gone")
    assert supervised.entries() == []
    assert supervised.cgroups() == []


def test_what_waits_can_be_given_up(supervised: Supervised):
    client = supervised.start()
    _, (netns,) = client.request("launch", plan=supervised.plan("c1", "true"), go=False)
    os.close(netns)
    client.request("forget", id="c1")
    assert supervised.state(client, "c1") is None
    assert supervised.entries() == []
    assert supervised.cgroups() == []
    with pytest.raises(SupervisorError) as error:
        client.request("go", id="c1")
    assert error.value.kind is Kind.NOT_FOUND


def test_a_name_is_taken_until_its_exit_is_acknowledged(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "c1", ["sleep", "1000"])
    with pytest.raises(SupervisorError) as error:
        supervised.run(client, "c1", "true")
    assert error.value.kind is Kind.CONFLICT
    with pytest.raises(SupervisorError) as error:
        client.request("forget", id="c1")
    assert error.value.kind is Kind.CONFLICT
    client.request("signal", id="c1", signal=9, all=True)
    supervised.wait_exit(client, "c1")
    client.request("forget", id="c1")
    client.request("forget", id="c1")
    plan = supervised.plan("c1", "exit 4")
    plan["run"] = 2
    client.request("launch", plan=plan, go=True)
    found = supervised.wait_exit(client, "c1")
    assert (found["run"], found["code"]) == (2, 4)


def test_requests_are_answered_in_their_order_while_launches_overlap(supervised: Supervised):
    client = supervised.start()
    for number in range(6):
        client.send("launch", plan=supervised.plan(f"c{number}", f"exit {number}"), go=True)
        client.send("usage", ids=[f"c{number}"])
    for number in range(6):
        assert set(client.receive()[0]) == {"pid", "start"}, number
        assert set(client.receive()[0]) == {"usage"}
    assert [supervised.wait_exit(client, f"c{number}")["code"] for number in range(6)] == list(range(6))


@pytest.mark.parametrize(
    "message",
    [
        *(b"[]", b"no json", b"{}", b'{"do": "fly"}', b'{"do": "go"}', b'{"do": "launch"}', b'{"do": ["go"]}'),
        *(b'{"do": "launch", "plan": {"id": "x"}}', b'{"do": "signal", "id": "c1", "signal": "now"}'),
    ],
)
def test_what_is_not_understood_is_refused_and_the_connection_lives(supervised: Supervised, message: bytes):
    client = supervised.start()
    supervised.run(client, "c1", ["sleep", "1000"])
    client._socket.sendall(frame(message))
    with pytest.raises(SupervisorError) as error:
        client.receive()
    assert error.value.message
    assert client.request("status")[0]["containers"] == {"running": 1}


def test_a_frame_that_is_too_long_ends_its_connection_only(supervised: Supervised):
    client, other = supervised.start(), supervised.connect()
    client._socket.sendall(b"\xff\xff\xff\xff")
    with pytest.raises(HawseError):
        client.receive()
    assert other.request("status")[0]["pid"] > 0


def test_executions(supervised: Supervised):
    client = supervised.start()
    client.request("subscribe")
    plan = supervised.plan("c1", ["sleep", "1000"])
    client.request("launch", plan=plan, go=True)
    process = process_of(plan, ["sh", "-c", "cat; echo err >&2; exit 5"], stdin=True)
    _, (output, errors, stdin) = client.request("exec", id="c1", execution="e1", process=process)
    assert client.request("execution", execution="e1")[0]["code"] is None
    os.write(stdin, b"through")
    os.close(stdin)
    assert read_all(output) == b"through"
    assert read_all(errors) == b"err\n"
    event = events_until(client, "executed", "c1")[-1]
    assert event.facts == {"execution": "e1", "code": 5}
    assert client.request("execution", execution="e1")[0]["code"] == 5
    with pytest.raises(SupervisorError) as error:
        client.request("execution", execution="e1")
    assert error.value.kind is Kind.NOT_FOUND
    with pytest.raises(SupervisorError) as error:
        client.request("exec", id="c1", execution="e2", process=process_of(plan, ["no-such-command"]))
    assert error.value.stage == "command-not-found"
    assert client.request("status")[0]["executions"] == 0


def test_an_execution_ends_with_its_container(supervised: Supervised):
    client = supervised.start()
    client.request("subscribe")
    plan = supervised.plan("c1", ["sleep", "1000"])
    client.request("launch", plan=plan, go=True)
    _, fds = client.request("exec", id="c1", execution="e1", process=process_of(plan, ["sleep", "1000"]))
    client.request("signal", id="c1", signal=9, all=False)
    found = events_until(client, "exited", "c1")
    while not any(event.what == "executed" for event in found):
        found.append(client.next_event())
    assert next(event.facts["code"] for event in found if event.what == "executed") == 137
    for fd in fds:
        os.close(fd)
    client.request("forget", id="c1")
    assert supervised.cgroups() == []


def test_standard_input_given_away_ends_when_its_holder_closes_it(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "c1", ["cat"], stdin=True)
    _, (kept,) = client.request("input", id="c1", keep=True)
    os.write(kept, b"one ")
    os.close(kept)
    _, (stdin,) = client.request("input", id="c1", keep=False)
    os.write(stdin, b"two")
    os.close(stdin)
    assert supervised.wait_exit(client, "c1")["code"] == 0
    assert supervised.output("c1")[0] == b"one two"
    with pytest.raises(SupervisorError) as error:
        client.request("input", id="c1", keep=True)
    assert error.value.kind is Kind.CONFLICT


def test_a_terminal(supervised: Supervised):
    client = supervised.start()
    script = "tty; stty size; read line; echo got $line"
    supervised.run(client, "c1", script, tty={"rows": 30, "columns": 90}, stdin=True)
    _, (terminal,) = client.request("input", id="c1")
    wait_until(lambda: b"90" in _output(supervised, "c1"), "it has spoken")
    os.write(terminal, b"hello\n")
    assert supervised.wait_exit(client, "c1")["code"] == 0
    os.close(terminal)
    text = supervised.output("c1")[0].decode().split("\r\n")
    assert (text[0], text[1], text[-2]) == ("/dev/pts/0", "30 90", "got hello")


def test_a_terminal_goes_on_after_nobody_inside_had_it_open(supervised: Supervised):
    """Its master reads EIO meanwhile."""
    client = supervised.start()
    script = "exec 0<&- 1>&- 2>&-; sleep 0.5; exec >/dev/console; echo again"
    supervised.run(client, "c1", script, tty={"rows": 0, "columns": 0})
    assert supervised.wait_exit(client, "c1")["code"] == 0
    assert b"again" in supervised.output("c1")[0]


def test_signals_reach_the_first_process_or_all(supervised: Supervised):
    client = supervised.start()
    second = "trap 'echo second' USR1; echo up; while :; do sleep 0.05; done"
    script = f'trap "echo first" USR1; sh -c "{second}" & echo up; while :; do wait; done'
    supervised.run(client, "c1", script)
    wait_until(lambda: _output(supervised, "c1").count(b"up") == 2, "both are there")
    client.request("signal", id="c1", signal=int(signal.SIGUSR1), all=False)
    wait_until(lambda: b"first" in _output(supervised, "c1"), "the first got it")
    assert b"second" not in _output(supervised, "c1")
    client.request("signal", id="c1", signal=int(signal.SIGKILL), all=True)
    assert supervised.wait_exit(client, "c1")["code"] == 137


def _output(supervised: Supervised, name: str) -> bytes:
    return supervised.output(name)[0] if (supervised.directory(name) / "log.index").exists() else b""


def test_frozen_it_does_nothing_and_can_be_killed(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "c1", "while :; do echo .; sleep 0.01; done")
    wait_until(lambda: _output(supervised, "c1"), "it writes")
    client.request("freeze", id="c1", on=True)
    assert (supervised.state(client, "c1") or {})["state"] == "frozen"
    client.request("status")
    size = len(_output(supervised, "c1"))
    client.request("usage", ids=["c1"])
    assert len(_output(supervised, "c1")) == size
    with pytest.raises(SupervisorError) as error:
        client.request("exec", id="c1", execution="e", process=process_of(supervised.plan("c1", []), ["true"]))
    assert error.value.kind is Kind.CONFLICT
    client.request("freeze", id="c1", on=False)
    wait_until(lambda: len(_output(supervised, "c1")) > size, "it goes on")
    client.request("freeze", id="c1", on=True)
    client.request("signal", id="c1", signal=9, all=False)
    assert supervised.wait_exit(client, "c1")["code"] == 137


def test_usage_is_of_those_that_live(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "c1", "sleep 1000 & sleep 1000")
    wait_until(lambda: client.request("usage", ids=["c1"])[0]["usage"]["c1"]["pids"] == 2, "both processes")
    assert client.request("usage", ids=["nobody"])[0] == {"usage": {}}


def test_memory_that_ran_out_is_told(supervised: Supervised):
    client = supervised.start()
    client.request("subscribe")
    plan = supervised.plan("c1", "yes | head -c 100m | tail -c 90m >/dev/null; exit 9")
    plan["cgroup"]["memory_bytes"] = 8 << 20
    client.request("launch", plan=plan, go=True)
    found = events_until(client, "exited", "c1")
    assert found[-1].facts["oom_killed"] is True
    assert "oom" in [event.what for event in found]


def test_exits_that_nobody_forgot_come_first(supervised: Supervised):
    client = supervised.start()
    for number in (1, 2):
        supervised.run(client, f"c{number}", f"exit {number}")
        supervised.wait_exit(client, f"c{number}")
    late = supervised.connect()
    late.request("subscribe")
    assert {late.next_event().id for _ in range(2)} == {"c1", "c2"}
    assert select.select([late._socket], [], [], 0.05)[0] == []


def test_no_descriptors_left_is_a_refusal_that_leaves_nothing(supervised: Supervised):
    client = supervised.start()
    supervisor, _ = supervised.pids(client)
    status = client.request("status")[0]
    supervised.run(client, "before", ["sleep", "1000"])
    old = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
    refused, kinds = 0, set()
    for room in range(1, 40):
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (status["descriptors"] + 3 + room, old[1]))
        try:
            supervised.run(client, "c1", ["sleep", "1000"])
        except SupervisorError as error:
            kinds.add(error.kind)
            refused += 1
        else:
            break
        assert supervised.entries() == ["before"]
        assert len({Path(path).name for path in supervised.cgroups()}) == 1
    assert refused > 3
    assert kinds == {Kind.EXHAUSTED}
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, old)
    assert client.request("status")[0]["containers"] == {"running": 2}


def test_it_ends_only_when_nothing_lives_or_by_force(supervised: Supervised):
    client = supervised.start()
    result = supervised.run(client, "c1", ["sleep", "1000"])
    with pytest.raises(SupervisorError) as error:
        client.request("end")
    assert error.value.kind is Kind.CONFLICT
    keeper = supervised.pids(client)[1]
    os.kill(keeper, signal.SIGTERM)  # neither
    assert client.request("status")[0]["containers"] == {"running": 1}
    client.request("end", force=True)
    wait_until(lambda: ended(keeper), "the keeper ends")
    assert ended(result["pid"])
    assert not supervised.root.supervisor_socket.exists()
    assert json.loads((supervised.directory("c1") / "exit").read_text())["code"] == 137


def test_a_terminated_keeper_ends_both_when_nothing_lives(supervised: Supervised):
    client = supervised.start()
    supervisor, keeper = supervised.pids(client)
    os.kill(keeper, signal.SIGTERM)
    wait_until(lambda: ended(keeper) and ended(supervisor), "both end")


def test_only_one_per_root(supervised: Supervised):
    first = supervised.pids(supervised.start())
    os.unlink(supervised.root.supervisor_socket)  # so that a second start is tried at all
    ensure_running(supervised.root)
    assert not supervised.root.supervisor_socket.exists()
    assert not ended(first[0])
    # the listener lives on without its name: give it one again for the clean-up
    supervised.kill(*first)


def test_sockets_are_nobody_elses(supervised: Supervised):
    supervised.start()
    assert supervised.root.supervisor_socket.stat().st_mode & 0o777 == 0o600
    assert supervised.root.run.stat().st_mode & 0o777 == 0o700


def test_signals_are_as_a_fresh_process_has_them(supervised: Supervised):
    """What the supervisor ignores or blocks, its containers do not."""
    client = supervised.start()
    supervised.run(client, "c1", ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])
    supervised.wait_exit(client, "c1")
    fields = dict(line.split(":\t") for line in supervised.output("c1")[0].decode().splitlines())
    assert {name: int(mask, 16) for name, mask in fields.items()} == {"SigBlk": 0, "SigIgn": 0}


def test_a_client_that_does_not_read_is_dropped_not_waited_for(supervised: Supervised):
    client, other = supervised.start(), supervised.connect()
    client._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    client._socket.settimeout(0.5)
    request = frame(b'{"do": "status"}') * 1000
    with pytest.raises((BrokenPipeError, ConnectionResetError, TimeoutError)):  # noqa: PT012 any of them may be it
        for _ in range(400):
            client._socket.sendall(request)
    assert other.request("status")[0]["pid"] > 0


def test_the_client_is_told_where_nobody_answers(supervised: Supervised):
    with pytest.raises(HawseError) as error:
        Connection(supervised.root)
    assert error.value.kind is Kind.UNAVAILABLE
    supervised.start()
