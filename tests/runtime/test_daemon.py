"""The runtime's daemon with its real supervisor: every verb, exit codes, what clients attach by, what is refused."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdn.model.errors import HawseError, Kind
from sdn.service.contract_client import Connection
from tests.runtime.daemons import (
    BOUND_S,
    NOTHING,
    RunningDaemon,
    events_of,
    eventually,
    read_log,
    record_of,
    running_daemon,
)

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningDaemon]:
    with running_daemon() as made:
        yield made


@pytest.fixture
def daemon(shared: RunningDaemon) -> Iterator[RunningDaemon]:
    """The module's one; what a test leaves is removed, and then nothing is left of it anywhere."""
    yield shared
    for item in shared.ask("PS", all=True)["items"]:
        shared.ask("RM", container=item["id"], force=True)
    eventually(shared.left, lambda left: left == NOTHING, "nothing left")


def until_end(bell: int) -> None:
    """Until the bell says that nothing will come any more."""
    while True:
        assert select.select([bell], [], [], BOUND_S)[0], "the bell fell silent"
        if not os.read(bell, 4096):
            return


@contextlib.contextmanager
def closing(descriptors: dict[str, int]) -> Iterator[dict[str, int]]:
    try:
        yield descriptors
    finally:
        for descriptor in descriptors.values():
            with contextlib.suppress(OSError):  # a test closed it
                os.close(descriptor)


# The verbs ------------------------------------------------------------------------------------------------------------


def test_a_life(daemon: RunningDaemon) -> None:
    made = daemon.run("sh", "-c", "echo out; echo err >&2; exit 3", name="c", labels={"a": "b"})
    assert (made["name"], made["run"]) == ("c", 1)
    assert daemon.wait("c") == 3
    assert daemon.output("c") in (b"out\nerr\n", b"err\nout\n")
    shown = daemon.info(made["id"][:6])
    assert (shown["state"], shown["exit_code"], shown["command"][0]) == ("exited", 3, "sh")
    assert shown["created_s"] <= shown["started_s"] <= shown["finished_s"]
    assert [item["name"] for item in daemon.ask("PS", all=True, labels=["a=b"])["items"]] == ["c"]
    assert daemon.ask("PS")["items"] == []
    again = daemon.ask("START", container="c")
    assert again["run"] == 2
    assert daemon.wait("c", run=2) == 3
    assert daemon.output("c").count(b"out\n") == 2, "one log for all runs"
    daemon.ask("RM", container="c")
    assert daemon.wait("c") == daemon.wait(made["id"], run=1) == 3, "remembered"
    assert events_words(daemon, made["id"]) == ["create", "start", "die", "start", "die", "remove"]


def events_words(daemon: RunningDaemon, identity: str) -> list[str]:
    with Connection(daemon.root.runtime_socket, BOUND_S) as connection:
        message = {"verb": "EVENTS", "since_s": 0.0, "follow": False}
        return [str(event["what"]) for event in connection.converse(message) if event["id"] == identity]


def test_what_runs_sees_what_was_wished(daemon: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound")
    tmp_path.chmod(0o755)
    daemon.run(
        "sh", "-c", "hostname; pwd; id -u; echo $A $HOSTNAME $HOME; cat /bound/file /etc/hostname; touch /bound/x; "
        "df -k /mem | tail -1 | awk '{print $2}'; touch /tmp/t && echo written",
        name="c", hostname="box", workdir="/srv/new", env=["A=1"], user="nobody",
        mounts=[
            {"kind": "bind", "source": str(tmp_path), "target": "/bound", "read_only": True},
            {"kind": "tmpfs", "target": "/mem", "size_bytes": 1 << 20},
        ],
    )  # fmt: skip
    daemon.wait("c")
    lines = daemon.output("c").decode().splitlines()
    assert lines[:4] == ["box", "/srv/new", "65534", "1 box /"]
    assert lines[4] == "boundbox", "the file has no line feed"
    assert "1024" in lines
    assert lines[-1] == "written"
    assert not (tmp_path / "x").exists()


def test_a_start_makes_nothing_in_the_containers_own_layer(daemon: RunningDaemon) -> None:
    made = daemon.run("true")
    assert daemon.wait(made["id"]) == 0
    assert os.listdir(daemon.root.containers / made["id"] / "upper") == [], "mount points lie in the layer below all"


def test_nobody_gains_rights_by_a_file(daemon: RunningDaemon) -> None:
    """no_new_privs holds for the first process and for those that join; what everybody needs needs no rights."""
    status = "grep NoNewPrivs /proc/self/status | cut -f 2"
    daemon.run("sh", "-c", f"{status}; exec sleep 1000", name="c", user="nobody")
    eventually(lambda: daemon.output("c"), lambda said: said == b"1\n", "it has them off")
    result, descriptors = daemon.attached("EXEC", container="c", command=["sh", "-c", f"{status}; ping -c1 127.0.0.1"])
    with closing(descriptors):
        assert daemon.wait("c", execution=result["execution"]) == 0
        said = os.read(descriptors["output"], 4096)
    assert said.startswith(b"1\n")
    assert b" 1 received" in said


def test_a_fork_bomb_stays_within_its_limit(daemon: RunningDaemon) -> None:
    # The shell that is refused a process ends; what it has made stays, and so does the first process.
    daemon.run("sh", "-c", "(while :; do sleep 1000 & done); exec sleep 1000", name="c", pids=30)
    eventually(lambda: daemon.ask("STATS", containers=["c"])["items"][0]["pids"], lambda pids: pids > 20, "it forks")
    assert daemon.wait(daemon.run("true")["id"]) == 0, "others go on"
    for _ in range(20):
        assert daemon.ask("STATS", containers=["c"])["items"][0]["pids"] <= 30
    daemon.ask("KILL", container="c", signal="KILL")
    assert daemon.wait("c") == 137


def test_one_process_is_not_enough_for_two(daemon: RunningDaemon) -> None:
    spec = {"image": "host", "command": ["true"], "init": True, "pids": 1, "remove": True}
    refused = [daemon.refusal("RUN", container=spec)]
    daemon.run("sleep", "1000", name="c", pids=1)
    refused.append(daemon.refusal("EXEC", container="c", command=["true"]))
    for error in refused:
        assert (error.kind, error.facts["exit_code"]) == (Kind.EXHAUSTED, 125)
        assert "as many processes as it may have" in error.message


def test_long_lines_binary_and_what_ends_without_a_line_feed(daemon: RunningDaemon) -> None:
    script = "head -c 65536 /dev/zero | tr '\\0' x; echo; head -c 70000 /dev/zero; printf '\\377\\033[2J'; printf end"
    daemon.run("sh", "-c", script, name="c")
    assert daemon.wait("c") == 0
    assert daemon.output("c") == b"x" * 65536 + b"\n" + bytes(70000) + b"\xff\x1b[2Jend"


def test_joining_one_that_ends_says_that_it_has(daemon: RunningDaemon) -> None:
    """Whenever: before it is asked, while the process is made, or after."""
    for number in range(20):
        daemon.run("sh", "-c", f"sleep 0.0{number % 4}", name="c")
        while (error := attempt(daemon, "EXEC", command=["true"], detach=True)) is None:
            pass
        assert (error.kind, error.facts.get("exit_code", 125)) == (Kind.CONFLICT, 125), error
        daemon.wait("c")
        daemon.ask("RM", container="c")


def attempt(daemon: RunningDaemon, verb: str, **fields: Any) -> HawseError | None:
    try:
        daemon.ask(verb, container="c", **fields)
    except HawseError as error:
        return error
    return None


def test_volumes_outlive_containers(daemon: RunningDaemon) -> None:
    mounts = [{"kind": "volume", "source": "data", "target": "/data"}]
    daemon.run("sh", "-c", "echo kept > /data/x", name="one", mounts=mounts)
    assert daemon.wait("one") == 0
    daemon.ask("RM", container="one")
    daemon.run("cat", "/data/x", name="two", mounts=mounts)
    daemon.wait("two")
    assert daemon.output("two") == b"kept\n"


def test_stop_kill_restart(daemon: RunningDaemon) -> None:
    daemon.run("sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done", name="c")
    eventually(lambda: daemon.output("c"), lambda said: said == b"up\n", "the trap is set")
    assert daemon.ask("STOP", container="c")["exit_code"] == 9
    assert daemon.ask("STOP", container="c")["state"] == "exited"
    deaf = daemon.run("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done", name="deaf")
    eventually(lambda: daemon.output("deaf"), lambda said: said == b"up\n", "the trap is set")
    restarted = daemon.ask("RESTART", container="deaf", timeout_s=0.1)
    assert (restarted["state"], restarted["id"]) == ("running", deaf["id"])
    assert daemon.wait("deaf", run=1) == 128 + signal.SIGKILL
    daemon.ask("KILL", container="deaf", signal="KILL")
    assert daemon.wait("deaf", run=2) == 128 + signal.SIGKILL


def test_what_ends_while_it_is_ended_is_no_error(daemon: RunningDaemon) -> None:
    """Its end is known to the supervisor, and to us in a moment."""
    for number in range(60):
        verb = ("STOP", "KILL", "RM")[number % 3]
        daemon.run("sh", "-c", f"sleep 0.00{number % 10}", name="c")
        error = attempt(daemon, verb, **({"force": True} if verb == "RM" else {}))
        if verb == "KILL" and error is not None:
            assert error.message == "cannot send a signal to container c: it is exited"
        else:
            assert error is None
        if verb != "RM":
            daemon.ask("RM", container="c", force=True)


def test_pause(daemon: RunningDaemon) -> None:
    daemon.run("sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done", name="c")
    eventually(lambda: daemon.output("c"), lambda said: said == b"up\n", "the trap is set")
    daemon.ask("PAUSE", container="c")
    assert daemon.info("c")["state"] == "paused"
    assert "unpause it first" in daemon.refusal("EXEC", container="c", command=["true"]).hint
    assert daemon.ask("STOP", container="c")["exit_code"] == 7
    daemon.ask("START", container="c")
    daemon.ask("PAUSE", container="c")
    daemon.ask("UNPAUSE", container="c")
    assert daemon.info("c")["state"] == "running"
    daemon.ask("PAUSE", container="c")
    daemon.ask("RM", container="c", force=True)


def test_top_and_stats(daemon: RunningDaemon) -> None:
    daemon.run("sh", "-c", "sleep 1000 & exec sleep 2000", name="c", memory_bytes=64 << 20, pids=50)
    rows = eventually(
        lambda: daemon.ask("TOP", container="c")["items"],
        lambda rows: sorted(row["command"] for row in rows) == ["sleep 1000", "sleep 2000"],
        "both sleep",
    )
    assert {row["user"] for row in rows} == {"root"}
    assert all(row["resident_bytes"] > 0 for row in rows)
    (usage,) = daemon.ask("STATS", containers=["c"])["items"]
    assert (usage["name"], usage["pids"]) == ("c", 2)
    assert usage["memory_max_bytes"] == 64 << 20
    assert daemon.refusal("STATS", containers=["nope"]).kind is Kind.NOT_FOUND


def test_the_machines_memory_killer_is_named(daemon: RunningDaemon) -> None:
    hungry = "a=x; while :; do a=$a$a; done"
    daemon.run("sh", "-c", hungry, name="c", memory_bytes=16 << 20)
    end = daemon.ask("WAIT", container="c")
    assert end == {"code": 137, "oom_killed": True}
    assert daemon.info("c")["oom_killed"]
    assert {"oom", "die"} <= set(events_of(daemon, "c"))


def test_executions(daemon: RunningDaemon) -> None:
    daemon.run("sleep", "1000", name="c", env=["A=1"])
    command = ["sh", "-c", "read line; echo $A $line; echo err >&2; exit 4"]
    result, descriptors = daemon.attached("EXEC", container="c", command=command, stdin=True)
    with closing(descriptors):
        assert list(descriptors) == ["output", "errors", "input"]
        os.write(descriptors["input"], b"typed\n")
        assert daemon.wait("c", execution=result["execution"]) == 4
        assert os.read(descriptors["output"], 100) == b"1 typed\n"
        assert os.read(descriptors["errors"], 100) == b"err\n"
    assert daemon.wait("c", execution=result["execution"]) == 4, "still known"
    error = daemon.refusal("EXEC", container="c", command=["nope"])
    assert error.facts["exit_code"] == 127


def test_an_execution_that_nobody_is_attached_to_may_say_much(daemon: RunningDaemon) -> None:
    daemon.run("sleep", "1000", name="c")
    command = ["sh", "-c", "head -c 1000000 /dev/zero && exit 5"]
    result, descriptors = daemon.attached("EXEC", container="c", command=command, detach=True)
    assert descriptors == {}
    assert daemon.wait("c", execution=result["execution"]) == 5


def test_a_terminal(daemon: RunningDaemon) -> None:
    spec = {"image": "host", "command": ["sh", "-c", "tty; stty size; read x; exit 6"], "name": "c", "tty": True}
    result, descriptors = daemon.attached("RUN", container={**spec, "stdin": True}, attach=True, rows=33, columns=77)
    with closing(descriptors):
        assert list(descriptors) == ["log", "index", "bell", "input"]
        os.write(descriptors["input"], b"\n")
        assert daemon.wait("c", run=result["run"]) == 6
        until_end(descriptors["bell"])
        said = read_log(descriptors["log"], descriptors["index"])
    assert b"/dev/pts/0" in said or b"/dev/console" in said
    assert b"33 77" in said


def test_attached_output_is_whole_and_input_ends(daemon: RunningDaemon) -> None:
    spec = {"image": "host", "command": ["sh", "-c", "cat; seq 20000"], "name": "c", "stdin": True, "remove": True}
    result, descriptors = daemon.attached("RUN", container=spec, attach=True)
    with closing(descriptors):
        os.write(descriptors["input"], b"typed\n")
        os.close(descriptors["input"])
        until_end(descriptors["bell"])
        said = read_log(descriptors["log"], descriptors["index"])
        assert said == b"typed\n" + b"".join(b"%d\n" % number for number in range(1, 20001))
        assert daemon.wait(result["id"], run=1) == 0


def test_logs_are_followed_to_the_end(daemon: RunningDaemon) -> None:
    daemon.run("sh", "-c", "echo one; read x < /dev/null; sleep 0.2; echo two", name="c")
    _, descriptors = daemon.attached("LOGS", container="c", follow=True)
    with closing(descriptors):
        until_end(descriptors["bell"])
        assert read_log(descriptors["log"], descriptors["index"]) == b"one\ntwo\n"
    _, descriptors = daemon.attached("LOGS", container="c", follow=True)
    with closing(descriptors):
        until_end(descriptors["bell"])
    daemon.ask("RUN", container={"image": "host", "command": ["true"], "name": "silent"}, start=False)
    assert daemon.output("silent") == b""


def test_events_are_followed(daemon: RunningDaemon) -> None:
    seen: list[str] = []
    listening = threading.Event()

    def listen() -> None:
        with Connection(daemon.root.runtime_socket, BOUND_S) as connection:
            for event in connection.converse({"verb": "EVENTS", "since_s": 0.0}):
                listening.set()
                if event["name"] == "watched":
                    seen.append(event["what"])
                if event["what"] == "remove" and event["name"] == "watched":
                    return

    daemon.run("true", name="first")
    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(BOUND_S)
    daemon.run("true", name="watched", remove=True)
    thread.join(BOUND_S)
    assert seen == ["create", "start", "die", "remove"]


def test_many_at_once(daemon: RunningDaemon) -> None:
    def one(number: int) -> int:
        made = daemon.run("sh", "-c", f"exit {number}", remove=True)
        return daemon.wait(made["id"])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(40))) == list(range(40))
    assert daemon.ask("STATUS")["containers"]["exited"] == 0


def test_a_policy_restarts_and_a_stop_ends_it(daemon: RunningDaemon) -> None:
    daemon.run("sh", "-c", "echo run; exit 1", name="c", restart="on-failure", restart_retries=2)
    eventually(lambda: events_of(daemon, "c").count("die"), lambda ends: ends == 3, "three ends")
    shown = daemon.info("c")
    assert (shown["exit_code"], shown["restarts"], shown["state"]) == (1, 2, "exited")
    assert daemon.output("c") == b"run\n" * 3
    daemon.run("sleep", "0.01", name="always", restart="always")
    eventually(lambda: daemon.info("always"), lambda info: info.get("restarts", 0) >= 1, "a restart")
    daemon.ask("STOP", container="always")
    restarts = daemon.info("always")["restarts"]
    assert record_of(daemon, daemon.info("always")["id"]).get("wish", "stopped") == "stopped"
    assert daemon.info("always")["restarts"] == restarts


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "code", "kind", "sentence"),
    [
        ({"command": ["nope"]}, 127, Kind.NOT_FOUND, "'nope'"),
        ({"command": ["/nope"]}, 127, Kind.NOT_FOUND, "/nope"),
        ({"command": ["/etc/passwd"]}, 126, Kind.INVALID, "Permission denied"),
        ({"command": ["/bound/odd"]}, 126, Kind.INVALID, "neither a program nor a script"),
        ({"command": ["true"], "user": "nobodyknows"}, 125, Kind.INVALID, "'nobodyknows' is not in the image"),
        ({"command": ["true"], "workdir": "/etc/passwd"}, 125, Kind.INVALID, "/etc/passwd"),
    ],
)
def test_starts_that_fail(
    daemon: RunningDaemon, tmp_path: Path, spec: dict[str, Any], code: int, kind: Kind, sentence: str
) -> None:
    (tmp_path / "odd").write_bytes(b"\x7f odd")
    (tmp_path / "odd").chmod(0o755)
    mounts = [{"kind": "bind", "source": str(tmp_path), "target": "/bound"}]
    error = daemon.refusal("RUN", container={"image": "host", "name": "c", "mounts": mounts, **spec})
    assert (error.facts["exit_code"], error.kind) == (code, kind)
    assert sentence in error.message
    shown = daemon.info("c")
    assert (shown["state"], shown["exit_code"], shown["error"]) == ("created", code, error.message)
    assert daemon.wait("c") == code
    removed = {"image": "host", "name": "short", "remove": True, "mounts": mounts, **spec}
    error = daemon.refusal("RUN", container=removed)
    assert error.facts["exit_code"] == code
    assert daemon.refusal("INSPECT", container="short").kind is Kind.NOT_FOUND
    left = daemon.left()
    assert (left["cgroups"], left["entries"]) == ([], [])


@pytest.mark.parametrize(
    ("fields", "kind", "sentence"),
    [
        ({"image": "nope"}, Kind.NOT_FOUND, "nope"),
        ({"mounts": [{"kind": "bind", "source": "/no/such", "target": "/t"}]}, Kind.NOT_FOUND, "/no/such"),
        ({"mounts": [{"kind": "bind", "source": "rel", "target": "/t"}]}, Kind.INVALID, "relative"),
        ({"memory_bytes": 100}, Kind.INVALID, "memory"),
        ({"cpus": 10000.0}, Kind.INVALID, "CPUs"),
        ({"cap_add": ["NOPE"]}, Kind.INVALID, "capability"),
        ({"env": ["A=" + "x" * (1 << 17)]}, Kind.INVALID, "has more than 131071 bytes"),
        ({"env": ["A=" + "x" * (1 << 20)]}, Kind.INVALID, "1048576 are the most"),
        ({"workdir": "/a\0b"}, Kind.INVALID, "zero byte"),
        ({"mounts": [{"kind": "volume", "source": "../x", "target": "/t"}]}, Kind.INVALID, "not a name for a volume"),
        ({"mounts": [{"kind": "tmpfs", "target": "/t\0"}]}, Kind.INVALID, "zero byte"),
        ({"name": "a/b"}, Kind.INVALID, "is not a name for a container"),
        ({"networks": [{"network": "web"}]}, Kind.UNAVAILABLE, "network web: the agent is not running"),
    ],
)
def test_what_is_refused(daemon: RunningDaemon, fields: dict[str, Any], kind: Kind, sentence: str) -> None:
    spec = {"image": "host", "command": ["true"], "remove": True, **fields}
    error = daemon.refusal("RUN", container=spec)
    assert error.kind is kind
    assert sentence in error.message
    assert daemon.ask("PS", all=True)["items"] == []
    eventually(daemon.left, lambda left: left == NOTHING, "nothing left")


def test_names_and_references(daemon: RunningDaemon) -> None:
    made = daemon.run("sleep", "1000", name="web")
    error = daemon.refusal("RUN", container={"image": "host", "command": ["true"], "name": "web"})
    assert (error.kind, made["id"] in error.message) == (Kind.CONFLICT, True)
    assert daemon.refusal("STOP", container="wep").hint == "did you mean web?"
    assert daemon.refusal("RM", container="web").kind is Kind.CONFLICT
    with pytest.raises(HawseError, match="this is not a request of the runtime's protocol"):
        daemon.ask("NOPE")


def test_a_second_daemon_is_refused(daemon: RunningDaemon) -> None:
    second = RunningDaemon(daemon.root)
    with pytest.raises(AssertionError, match="already running"):
        second.start()
    assert second.process is not None
    second.process.wait(BOUND_S)
