"""Containers by command, as a user types it: what is printed, what it ends with, what is left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdn.cli.exits import Exit
from tests.e2e.standing_lab import PATIENCE_S, environment
from tests.e2e.standing_runtime import IMAGE, Runtime, standing_runtime

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with standing_runtime() as up:
        yield up


@pytest.fixture(autouse=True)
def tidy(runtime: Runtime) -> Iterator[None]:
    with runtime.tidied():
        yield


def busy(*script: str) -> tuple[str, ...]:
    """A shell's script in the image."""
    return (IMAGE, "sh", "-c", " ".join(script))


# --- run, in the foreground ---


def test_output_of_both_streams_and_the_exit_code(runtime: Runtime) -> None:
    done = runtime.done("run", "--rm", *busy("echo out; echo bad >&2; exit 42"))
    assert (done.returncode, done.stdout, done.stderr) == (42, b"out\n", b"bad\n")


def test_bytes_are_bytes(runtime: Runtime) -> None:
    done = runtime.done("run", "--rm", *busy(r"printf '\377\000\033[2J'"))
    assert (done.returncode, done.stdout) == (0, b"\xff\x00\x1b[2J")


def test_input_is_passed_on_and_ends(runtime: Runtime) -> None:
    big = os.urandom(1_000_000)
    assert runtime.done("run", "--rm", "-i", IMAGE, "cat", stdin=big).stdout == big
    assert runtime.run("run", "--rm", "-i", IMAGE, "sort", stdin=b"b\na\n") == "a\nb\n"
    assert runtime.run("run", "--rm", IMAGE, "cat", stdin=b"unheard") == ""
    assert runtime.run("run", "--rm", "-i", IMAGE, "true", stdin=b"unread" * 100_000) == ""


def test_a_lot_of_output_arrives_whole(runtime: Runtime) -> None:
    assert runtime.run("run", "--rm", IMAGE, "seq", "1", "300000").split() == [str(n) for n in range(1, 300001)]


def test_the_machines_own_programs(runtime: Runtime) -> None:
    assert runtime.run("run", "--rm", "host", "sh", "-c", "echo $((6 * 7))") == "42\n"


def test_a_signal_that_ends_it_is_128_and_more(runtime: Runtime) -> None:
    assert runtime.done("run", "--rm", "--init", *busy("kill -TERM $$")).returncode == 128 + signal.SIGTERM


def test_options_reach_the_container(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# mine\nA=file\nB=file\n")
    (tmp_path / "data").write_text("of the host\n")
    script = "hostname; echo $FROM $A $B; id -u; pwd; cat /data; touch /data 2>&1; echo x >/scratch/x && cat /scratch/x"
    done = runtime.done(
        "run", "--rm", "--hostname", "named", "--env-file", str(tmp_path / "env"), "-e", "A=option", "-u", "mallory",
        "-w", "/tmp", "-v", f"{tmp_path}/data:/data:ro", "--tmpfs", "/scratch:size=1m", *busy(script),
    )  # fmt: skip
    assert done.stdout.decode().splitlines()[:5] == ["named", "image option file", "1000", "/tmp", "of the host"]
    assert b"Read-only" in done.stdout
    assert done.stdout.endswith(b"x\n")
    refused = runtime.done("run", "--rm", "--read-only", *busy("echo x >/etc/x"))
    assert (refused.returncode != 0, b"Read-only" in refused.stderr) == (True, True)
    assert runtime.run("run", "--rm", "--entrypoint", "echo", IMAGE, "-n", "--", "x") == "-- x"


def test_limits_reach_the_container(runtime: Runtime) -> None:
    with runtime.container("-m", "32m", "--cpus", "0.5", "--pids", "20", IMAGE, "sleep", "600") as made:
        (usage,) = runtime.json("stats", "--no-stream", made)
        assert (usage["memory_max_bytes"], usage["pids_max"]) == (32 << 20, 20)
        assert runtime.inspect(made)["spec"]["cpus"] == 0.5


def test_named_volumes_keep(runtime: Runtime) -> None:
    runtime.run("run", "--rm", "-v", "kept:/kept", *busy("echo here >/kept/file"))
    assert runtime.run("run", "--rm", "-v", "kept:/kept:ro", IMAGE, "cat", "/kept/file") == "here\n"


# --- what is refused ---

REFUSED: list[tuple[tuple[str, ...], int, tuple[str, ...]]] = [
    (("run", "nowhere"), 125, ("nowhere",)),
    (("run", "UPPER:x:y"), 125, ("UPPER:x:y",)),
    (("run", "--rm", IMAGE, "nocommand"), 127, ("nocommand",)),
    (("run", "--rm", IMAGE, "/etc/passwd"), 126, ("/etc/passwd",)),
    (("run", "--rm", IMAGE, "/tmp"), 126, ("/tmp",)),
    (("run", "--rm", "-u", "nobody-such", IMAGE, "true"), 125, ("nobody-such",)),
    (("run", "--rm", "-v", "/no/such/path:/x", IMAGE, "true"), 125, ("/no/such/path",)),
    (("run", "--rm", "--network", "web", IMAGE, "true"), 125, ("agent",)),
    (("run", "--rm", "-m", "1k", IMAGE, "true"), 125, ("memory",)),
    (("run", "--rm", "--cap-add", "FLY", IMAGE, "true"), 125, ("FLY",)),
    (("run", "--rm", "--stop-signal", "SIGNO", IMAGE, "true"), 125, ("SIGNO",)),
    (("run", "--rm", "--name", "-x", IMAGE, "true"), 125, ("--name",)),
    (("run", "--rm", "--name", "a/b", IMAGE, "true"), 125, ("a/b",)),
    (("run", "--rm", "-it", IMAGE, "sh"), 125, ("standard input is not a terminal",)),
    (("run",), 125, ("no image is named",)),
    (("run", "--rmm", IMAGE), 125, ("did you mean --rm?",)),
    (("exec", "nobody", "ls"), 125, ("there is no container 'nobody'",)),
    (("wait", "nobody"), 125, ("there is no container 'nobody'",)),
    (("start", "-a", "nobody"), 125, ("there is no container 'nobody'",)),
    (("start", "nobody"), Exit.NOT_FOUND, ("there is no container 'nobody'",)),
    (("stop", "nobody"), Exit.NOT_FOUND, ("there is no container 'nobody'",)),
    (("restart", "nobody"), Exit.NOT_FOUND, ("there is no container 'nobody'",)),
    (("kill", "nobody"), Exit.NOT_FOUND, ("there is no container 'nobody'",)),
    (("pause", "nobody"), Exit.NOT_FOUND, ("there is no container 'nobody'",)),
    (("unpause", "nobody"), Exit.NOT_FOUND, ("there is no container 'nobody'",)),
    (("inspect", "nobody"), Exit.NOT_FOUND, ("there is no container 'nobody'",)),
    (("logs", "nobody"), Exit.NOT_FOUND, ("there is no container 'nobody'",)),
    (("logs", "-f", "nobody"), Exit.NOT_FOUND, ("there is no container 'nobody'",)),
    (("top", "nobody"), Exit.NOT_FOUND, ("there is no container 'nobody'",)),
    (("stats", "--no-stream", "nobody"), Exit.NOT_FOUND, ("there is no container 'nobody'",)),
    (("inspect", ""), Exit.INVALID, ("no container",)),
]


@pytest.mark.parametrize(("words", "code", "says"), REFUSED, ids=[" ".join(row[0])[:50] for row in REFUSED])
def test_what_is_refused_says_why_and_leaves_nothing(
    words: tuple[str, ...], code: int, says: tuple[str, ...], runtime: Runtime
) -> None:
    complaint = runtime.refused(*words, code=code)
    assert not [phrase for phrase in says if phrase not in complaint], complaint


def test_a_name_cannot_be_had_twice(runtime: Runtime) -> None:
    with runtime.container("--name", "mine", IMAGE, "sleep", "600"), runtime.unchanged():
        assert "mine" in runtime.refused("run", "--name", "mine", IMAGE, "true", code=125)
        assert "did you mean mine?" in runtime.refused("inspect", "mime", code=Exit.NOT_FOUND)


def test_what_a_state_forbids(runtime: Runtime) -> None:
    with runtime.container("--name", "c", IMAGE, "sleep", "600"):
        runtime.refused("rm", "c", code=Exit.CONFLICT)
        runtime.refused("unpause", "c", code=Exit.CONFLICT)
        runtime.run("kill", "c")
        assert runtime.run("wait", "c", code=137) == ""
        for words in (["kill", "c"], ["pause", "c"], ["top", "c"]):
            runtime.refused(*words, code=Exit.CONFLICT)
        runtime.refused("exec", "c", "true", code=125)
        assert runtime.run("stop", "c") == "c\n"  # it is stopped


# --- a container's life ---


def test_a_life(runtime: Runtime) -> None:
    made = runtime.run("run", "-d", "--name", "life", "-l", "tier=1", IMAGE, "sleep", "600").strip()
    try:
        (shown,) = runtime.json("ps", "--label", "tier=1")
        assert (shown["id"], shown["name"], shown["state"]) == (made, "life", "running")
        assert runtime.json("ps", "--label", "tier=2") == []
        assert runtime.run("ps").splitlines()[1].split()[:3] == [made, "life", IMAGE]
        assert "sleep 600" in runtime.run("top", "life")
        assert runtime.run("pause", "life") == "life\n"
        assert runtime.inspect("life")["state"] == "paused"
        assert runtime.run("unpause", made) == f"{made}\n"
        assert runtime.run("restart", "-t", "0", "life") == "life\n"
        assert runtime.inspect("life")["state"] == "running"
        assert runtime.run("stop", "-t", "0", "life") == "life\n"
        assert runtime.json("ps") == []
        assert "exited (137)" in runtime.run("ps", "-a")
        assert runtime.run("start", "life") == "life\n"
        assert runtime.run("kill", "-s", "KILL", "life") == "life\n"
        assert runtime.done("wait", "life").stdout == b"137\n"
        assert runtime.run("rm", "life") == "life\n"
        assert "nothing to remove" in runtime.run("rm", "life")
    finally:
        runtime.run("rm", "-f", made)


def test_of_several_each_is_told(runtime: Runtime) -> None:
    with (
        runtime.container("--name", "one", IMAGE, "sleep", "600"),
        runtime.container("--name", "two", IMAGE, "sleep", "600"),
    ):
        done = runtime.done("stop", "-t", "0", "one", "nowhere", "two")
        assert (done.returncode, done.stdout) == (Exit.NOT_FOUND, b"one\ntwo\n")
        assert b"there is no container 'nowhere'" in done.stderr
        assert runtime.done("wait", "one", "two").stdout == b"137\n137\n"


def test_removed_with_its_end(runtime: Runtime) -> None:
    made = runtime.run("run", "-d", "--rm", "--name", "gone", *busy("exit 3")).strip()
    assert runtime.done("wait", made).stdout == b"3\n"  # it is remembered for a while
    command = runtime.words("events", "--containers", "--since", "1h")
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as events:
        assert events.stdout is not None
        while events.stdout.readline().split()[2:4] != [b"remove", b"gone"]:
            pass
        events.kill()


# --- exec ---


def test_exec(runtime: Runtime) -> None:
    with runtime.container("--name", "c", "-e", "A=1", IMAGE, "sleep", "600"):
        done = runtime.done("exec", "c", "sh", "-c", "echo out; echo bad >&2; exit 7")
        assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"bad\n")
        big = os.urandom(500_000)
        assert runtime.done("exec", "-i", "c", "cat", stdin=big).stdout == big
        script = "echo $A $B; id -u; pwd"
        said = runtime.run("exec", "-e", "B=2", "-u", "1000", "-w", "/tmp", "c", "--", "sh", "-c", script)
        assert said == "1 2\n1000\n/tmp\n"
        assert runtime.run("exec", "c", "sh", "-c", "sleep 600 & echo started") == "started\n"
        assert runtime.run("exec", "-d", "c", "touch", "/tmp/made") == ""
        assert "nocommand" in runtime.refused("exec", "c", "nocommand", code=127)
        runtime.refused("exec", "c", "/etc/passwd", code=126)


# --- logs ---


def test_logs(runtime: Runtime) -> None:
    with runtime.container("--name", "c", *busy("echo bad >&2; sleep 0.2; echo one; echo three")):
        runtime.done("wait", "c")  # both streams are pipes: what comes at once has no order
        done = runtime.done("logs", "c")
        assert (done.stdout, done.stderr) == (b"one\nthree\n", b"bad\n")
        assert runtime.run("logs", "--tail", "1", "c") == "three\n"
        assert runtime.run("logs", "-f", "c") == "one\nthree\n"
        assert runtime.run("logs", "--since", "1h", "c") == "one\nthree\n"
        assert runtime.run("logs", "--since", "2100-01-01T00:00:00Z", "c") == ""
        assert [line.split("Z ")[1] for line in runtime.run("logs", "-t", "c").splitlines()] == ["one", "three"]
        attached = runtime.done("start", "-a", "c")
        assert attached.stdout == b"one\nthree\n", "only what is new"
        assert runtime.run("logs", "c") == "one\nthree\n" * 2


def test_logs_of_one_that_talks_are_followed_until_its_end(runtime: Runtime) -> None:
    with runtime.container("--name", "c", *busy("seq 1 100000; read x </dev/zero; sleep 600")):
        command = runtime.words("logs", "-f", "c")
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
            assert process.stdout is not None
            for number in range(1, 100001):
                assert process.stdout.readline() == b"%d\n" % number
            runtime.run("kill", "c")
            assert process.stdout.read() == b""
            assert process.wait(PATIENCE_S) == 0


# --- events, stats, other daemons ---


def test_events_of_containers(runtime: Runtime) -> None:
    runtime.run("run", "--rm", "--name", "told", IMAGE, "true")
    lines = runtime.run("events", "--containers", "--since", "1h", "--no-follow").splitlines()
    whats = [line.split()[2] for line in lines if line.split()[3] == "told"]
    assert [what for what in whats if what in ("create", "start", "die")] == ["create", "start", "die"]


def test_stats(runtime: Runtime) -> None:
    with runtime.container("--name", "c", *busy("while :; do :; done")):
        header, row = runtime.run("stats", "--no-stream").splitlines()
        assert (header.split()[0], row.split()[0]) == ("CONTAINER", "c")
        assert runtime.json("stats", "--no-stream", "c")[0]["cpu_percent"] > 1


def test_the_daemon_is_killed_while_a_container_is_held(runtime: Runtime) -> None:
    command = runtime.words("run", "--rm", "-i", *busy("echo up; read x; echo got $x; exit 5"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        runtime.end(signal.SIGKILL)
        process.stdin.write(b"word\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"got word\n"
        runtime.start()
        assert process.wait(PATIENCE_S) == 5
    assert runtime.run("ps", "-aq") == ""


def test_signals_go_to_the_container(runtime: Runtime) -> None:
    command = runtime.words(
        "run", "--rm", *busy("trap 'echo caught; exit 9' TERM; echo up; while :; do sleep 0.1; done")
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"caught\n"
        assert process.wait(PATIENCE_S) == 9


def test_a_reader_that_leaves_ends_the_command_quietly(runtime: Runtime) -> None:
    line = f"{' '.join(runtime.words('run', '--name', 'c', IMAGE, 'yes'))} | head -2; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=PATIENCE_S, check=False, env=environment())
    assert (done.stdout, done.stderr) == (b"y\ny\n0\n", b"")
    assert runtime.inspect("c")["state"] == "running"
    runtime.run("rm", "-f", "c")
