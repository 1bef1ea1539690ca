"""The commands that ask and print, against a runtime that the test plays."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdn.cli import main as cli
from sdn.cli.container import state_text
from sdn.cli.container_events import line
from sdn.cli.exits import Exit
from sdn.model.errors import conflict
from tests.unit.runtime_stand_in import PATIENCE_S, StandIn, absent, stand_in, typed

ITEM: dict[str, Any] = {
    "id": "01c1", "name": "db", "state": "running", "image_id": "sha256:1", "command": ["sh", "-c", "echo hi" * 9],
    "pid": 7, "created_s": 0.0, "started_s": 0.0,
    "spec": {"image": "busybox:1", "labels": {"tier": "1"}, "tty": True, "name": "db"},
    "interfaces": [{"network": "web", "ifname": "eth0", "endpoint": "e", "mac": "m", "addresses": ["10.0.0.9/24"]}],
}  # fmt: skip


@pytest.fixture
def played(tmp_path: Path) -> Iterator[StandIn]:
    ITEM.update(created_s=time.time() - 7300, started_s=time.time() - 61)
    with stand_in(tmp_path) as runtime:
        runtime.answers["PS"] = lambda _: {"items": [ITEM]}
        yield runtime


@pytest.fixture
def run(played, capfd):
    """Type a command; what it ended with, printed and complained."""

    def typed(*words: str) -> tuple[int, str, str]:
        code = cli.main(["--root", str(played.root), *words])
        return code, *capfd.readouterr()

    return typed


def test_ps(played, run):
    code, out, _ = run("ps", "-a", "-l", "tier=1")
    header, row = out.splitlines()
    assert (code, header.split()) == (0, ["CONTAINER", "NAME", "IMAGE", "COMMAND", "STATE", "CREATED", "ADDRESSES"])
    for cell in (
        "01c1",
        "db",
        "busybox:1",
        "running 1 minute",
        "2 hours ago",
        "10.0.0.9/24",
        "sh -c 'echo hiecho hiecho hie…",
    ):
        assert cell in row
    assert played.next("PS") == {"verb": "PS", "all": True, "labels": ["tier=1"]}
    assert run("ps", "-q")[1] == "01c1\n"
    assert json.loads(run("ps", "-o", "json")[1]) == [ITEM]
    assert json.loads(run("-o", "json", "ps", "-q")[1]) == ["01c1"]
    played.answers["PS"] = lambda _: {"items": []}
    assert run("ps", "-q")[1] == ""


def test_states_as_people_read_them():
    ended = {"finished_s": 100.0, "exit_code": 137, "oom_killed": True}
    assert state_text({"state": "created"}, 200) == "created"
    assert state_text({"state": "paused", "started_s": 100.0}, 200) == "paused 1 minute"
    assert state_text({"state": "exited", **ended}, 200) == "exited (137) 1 minute ago, out of memory"
    assert state_text({"state": "exited", "finished_s": 100.0}, 102) == "exited (0) 2 seconds ago"


def test_inspect_of_one_and_of_several(played, run):
    played.answers["INSPECT"] = lambda message: {**ITEM, **absent(message), "name": message["container"]}
    code, out, _ = run("inspect", "db")
    assert code == 0
    assert "  - network=web  ifname=eth0" in out
    assert "image:      busybox:1" in out
    created = time.strftime("%Y-%m-%d", time.localtime(ITEM["created_s"]))
    assert f"created:    {created}" in out
    assert json.loads(run("inspect", "db", "-o", "json")[1])["id"] == "01c1"
    assert [item["name"] for item in json.loads(run("inspect", "a", "b", "-o", "json")[1])] == ["a", "b"]
    code, out, errors = run("inspect", "a", "nothing", "b", "-o", "json")
    assert (code, len(json.loads(out))) == (Exit.NOT_FOUND, 2)
    assert errors == "hawse: there is no container 'nothing'\n       'hawse ps --all' lists them\n"


@pytest.mark.parametrize(
    ("words", "message", "done"),
    [
        (["start", "a"], {"verb": "START"}, "started"),
        (["stop", "a"], {"verb": "STOP"}, "stopped"),
        (["stop", "-t", "3", "a"], {"verb": "STOP", "timeout_s": 3}, "stopped"),
        (["restart", "-t", "1m", "a"], {"verb": "RESTART", "timeout_s": 60}, "restarted"),
        (["kill", "a"], {"verb": "KILL", "signal": "SIGKILL"}, "signalled"),
        (["kill", "-s", "HUP", "a"], {"verb": "KILL", "signal": "HUP"}, "signalled"),
        (["pause", "a"], {"verb": "PAUSE"}, "paused"),
        (["unpause", "a"], {"verb": "UNPAUSE"}, "unpaused"),
        (["rm", "a"], {"verb": "RM", "force": False}, "removed"),
        (["rm", "-f", "a"], {"verb": "RM", "force": True}, "removed"),
    ],
)
def test_what_is_done_to_containers(played, run, words, message, done):
    """Each is told; an error of one does not stop the others, and its code is the command's."""
    played.answers[message["verb"]] = absent
    assert run(*words) == (0, "a\n", "")
    assert played.next(message["verb"]) == {**message, "container": "a"}
    code, out, errors = run(*words, "nowhere", "b")
    if words[0] == "rm":  # what is absent is removed already
        told = "there is no container 'nowhere': nothing to remove; 'hawse ps --all' lists them"
        assert (code, out, errors) == (0, f"a\n{told}\nb\n", "")
        assert json.loads(run(*words, "nowhere", "-o", "json")[1]) == {"removed": ["a"], "absent": ["nowhere"]}
    else:
        assert (code, out) == (Exit.NOT_FOUND, "a\nb\n")
        assert errors == "hawse: there is no container 'nowhere'\n       'hawse ps --all' lists them\n"
        assert json.loads(run(*words, "nowhere", "-o", "json")[1]) == {done: ["a"]}


def test_one_that_runs_is_not_removed(played, run):
    played.refuse("RM", conflict("container db is running", "stop it first, or force it"))
    assert run("rm", "db") == (Exit.CONFLICT, "", "hawse: container db is running\n       stop it first, or force it\n")


def test_wait_prints_the_codes_and_ends_with_the_first_that_is_not_0(played, run):
    codes = {"a": 0, "b": 3, "c": 4}
    played.answers["WAIT"] = lambda message: absent(message) or {"code": codes[message["container"]]}
    assert run("wait", "a") == (0, "0\n", "")
    assert run("wait", "a", "b", "c") == (3, "0\n3\n4\n", "")
    code, out, errors = run("wait", "nothing", "b")
    assert (code, out) == (125, "3\n")
    assert "no container 'nothing'" in errors
    assert json.loads(run("wait", "b", "-o", "json")[1]) == [{"container": "b", "code": 3}]


def test_many_are_waited_for_side_by_side(played, run):
    """They end only once all of them are waited for."""
    waiting: list[str] = []

    async def waited() -> Any:
        waiting.append("one")
        if len(waiting) == 3:
            played.end(0)
            played._ended.set()
        async for frame in original():
            yield frame

    original, played._waited = played._waited, waited
    assert run("wait", "a", "b", "c") == (0, "0\n0\n0\n", "")


# --- logs ---


def test_logs(played, run):
    played.say(b"one\n", time_ns=1_000_000_000)
    played.say(b"bad\n", 1, time_ns=2_000_000_000)
    played.say(b"three", time_ns=3_000_000_000)
    assert run("logs", "db") == (0, "one\nthree", "bad\n")
    assert run("logs", "--tail", "2", "db") == (0, "three", "bad\n")
    assert run("logs", "-n", "0", "db") == (0, "", "")
    assert run("logs", "--tail", "all", "--since", "1970-01-01T00:00:02Z", "db") == (0, "three", "bad\n")
    assert run("logs", "--tail", "3", "--since", "1970-01-01T00:00:03Z", "db") == (0, "three", "")
    assert run("logs", "-t", "db")[1].startswith("1970-01-01T00:00:01.000000000Z one\n")
    assert [json.loads(text)["stream"] for text in run("logs", "-o", "json", "db")[1].splitlines()] == [
        "stdout", "stderr", "stdout",
    ]  # fmt: skip


def test_logs_are_followed_over_a_restart_until_the_end(played):
    with typed(played.root, "logs", "-f", "db") as process:
        played.next("LOGS")
        played.say(b"one\n")
        assert process.stdout.readline() == b"one\n"
        played.silence()  # that run is over, the next one is on
        played.next("LOGS")
        played.say(b"two\n")
        assert process.stdout.readline() == b"two\n"
        played.end(0)
        assert process.wait(PATIENCE_S) == 0


# --- usage ---


def test_top(played, run):
    item = {"pid": 7, "ppid": 1, "user": "root", "cpu_s": 1.234, "resident_bytes": 2048, "command": "sleep 9"}
    played.answers["TOP"] = lambda _: {"items": [item]}
    assert run("top", "db")[1].splitlines() == [
        "PID  PPID  USER  CPU    MEMORY  COMMAND", "7    1     root  1.23s  2KiB    sleep 9",
    ]  # fmt: skip
    assert json.loads(run("top", "db", "-o", "json")[1]) == [item]


def test_stats(played, run, monkeypatch):
    spent = iter(range(0, 10**12, 10**9))
    usage = {"id": "01c1", "name": "db", "memory_bytes": 1 << 20, "pids": 2, "pids_max": 9, "sent_bytes": 5}
    played.answers["STATS"] = lambda _: {"items": [{**usage, "cpu_ns": next(spent)}]}
    monkeypatch.setattr("sdn.cli.container_usage.PERIOD_S", 0.1)
    code, out, _ = run("stats", "--no-stream", "db")
    assert played.next("STATS")["containers"] == ["db"]
    header, row = out.splitlines()
    assert (code, header.split()[:3], row.split()[0], row.split()[2:]) == (
        0, ["CONTAINER", "CPU", "MEMORY"], "db", ["1MiB", "-", "2/9", "0B", "5B", "0B", "0B"],
    )  # fmt: skip
    assert json.loads(run("stats", "--no-stream", "-o", "json")[1])[0]["cpu_percent"] > 0


# --- events ---

EVENTS = [
    {"time_s": 5.0, "what": "start", "id": "01c1", "name": "db"},
    {"time_s": 9.0, "what": "die", "id": "01c1", "name": "db\x1b", "facts": {"code": 3}},
]


def test_events_of_containers(played, run):
    played.events = EVENTS
    code, out, _ = run("events", "--containers", "--no-follow")
    assert (code, len(out.splitlines())) == (0, 2)
    assert out.splitlines()[1].split()[2:] == ["die", "db\\x1b", "code=3"]
    assert [
        json.loads(text) for text in run("events", "--containers", "--no-follow", "-o", "json")[1].splitlines()
    ] == (EVENTS)
    assert run("events", "--containers", "--no-follow", "--since", "1970-01-01T00:00:06Z")[1].count("\n") == 1
    assert line({"time_s": 0, "what": "image-load", "id": "sha256:1"}).endswith("image-load    sha256:1")


def test_followed_events_come_once_over_a_restart_of_the_daemon(played):
    played.events = EVENTS[:1]
    with typed(played.root, "events", "--containers", "--since", "0") as process:
        assert b"start" in process.stdout.readline()
        played.stop()
        assert b"waiting for it" in process.stderr.readline()
        played.events = EVENTS
        played.start()
        assert b"die" in process.stdout.readline()
        process.kill()


# --- completion ---


def test_completion_knows_containers_and_images_and_where_another_programs_words_begin(played, run):
    def completed(*words: str) -> str:
        printed: str = run("__complete", *words)[1]
        return printed

    root = ("--root", str(played.root))
    played.answers["IMAGE_LS"] = lambda _: {"items": [{"id": "sha256:1", "names": ["busybox:1", "db:16"]}]}
    assert completed(*root, "stop", "") == "db\n"
    assert not played.next("PS")["all"]
    assert completed(*root, "rm", "db", "d") == "db\n"
    assert played.next("PS")["all"]
    assert completed(*root, "run", "-it", "b") == "busybox:1\n"
    assert completed(*root, "run", "--rea") == "--read-only\n"
    assert completed(*root, "exec", "-u", "root", "") == "db\n"
    assert completed(*root, "run", "busybox:1", "-") == ""
    assert completed(*root, "exec", "db", "s") == ""
    played.stop()
    assert completed(*root, "stop", "") == ""
    played.start()


# --- without a daemon, and what it costs ---


@pytest.mark.parametrize(
    "words",
    [["ps"], ["inspect", "a"], ["start", "a"], ["stop", "a"], ["restart", "a", "b"], ["kill", "a"], ["rm", "a"],
     ["logs", "a"], ["logs", "-f", "a"], ["top", "a"], ["stats"], ["pause", "a"], ["unpause", "a"],
     ["events", "--containers"]],
    ids=" ".join,
)  # fmt: skip
def test_without_a_daemon_one_sentence_says_what_to_start(words, tmp_path, capsys):
    assert cli.main(["--root", str(tmp_path), *words]) == Exit.UNAVAILABLE
    assert "start it with 'hawse up -d'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["run", "i"], ["run", "-d", "i"], ["exec", "a", "b"], ["wait", "a"], ["start", "-a", "a"]], ids=" ".join
)
def test_without_a_daemon_what_ends_as_the_container_does_ends_with_125(words, tmp_path, capsys):
    assert cli.main(["--root", str(tmp_path), *words]) == 125
    assert "start it with 'hawse up -d'" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["container", "container_run", "container_exec", "container_logs"])
def test_starting_imports_nothing_heavy(module):
    heavy = ["msgspec", "aiohttp", "asyncio", "rich", "netaddr", "email", "http", "difflib", "yaml",
             "datetime", "threading", "dataclasses", "inspect", "subprocess", "logging", "tempfile"]  # fmt: skip
    code = f"import sys; from sdn.cli import main, {module}, container_session"
    code += f"; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
