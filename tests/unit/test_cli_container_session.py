"""Commands that hold a container, as processes on a real terminal, against a runtime that the test plays."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdn.model.errors import HawseError, Kind, conflict, not_found
from tests.unit.runtime_stand_in import PATIENCE_S, StandIn, stand_in, typed


@pytest.fixture
def played(tmp_path: Path) -> Iterator[StandIn]:
    with stand_in(tmp_path) as runtime:
        yield runtime


def read_until(descriptor: int, wanted: bytes) -> bytes:
    """What comes, up to and with this."""
    got, end = b"", time.monotonic() + PATIENCE_S
    while wanted not in got:
        assert select.select([descriptor], [], [], end - time.monotonic())[0], got
        part = os.read(descriptor, 4096)
        assert part, got
        got += part
    return got


class Screen:
    """A terminal of a user's: what is typed and seen, and its modes."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.resize(24, 80)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def untouched(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def wait_raw(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while not self.raw():
            assert time.monotonic() < end
            select.select([], [], [], 0.005)


@contextlib.contextmanager
def at_terminal(root: Path, *words: str) -> Iterator[tuple[Screen, Any]]:
    """A command on a terminal of its own, which is its controlling one."""
    screen = Screen()

    def control() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    on_it = {"stdin": screen.slave, "stdout": screen.slave, "stderr": screen.slave}
    try:
        with typed(root, *words, preexec_fn=control, **on_it) as process:
            yield screen, process
    finally:
        for descriptor in (screen.master, screen.slave):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def size(descriptor: int) -> tuple[int, int]:
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * 8))
    return rows, columns


# --- without a terminal ---


def test_output_of_both_streams_and_the_exit_code(played):
    with typed(played.root, "run", "busybox", "work", "-x") as process:
        asked = played.next("RUN")
        assert asked["container"] == {"image": "busybox", "command": ["work", "-x"], "restart": "no"}
        assert asked["attach"]
        played.say(b"out \xff\n")
        assert read_until(process.stdout.fileno(), b"\n") == b"out \xff\n"
        played.say(b"bad\n", 1)
        assert read_until(process.stderr.fileno(), b"\n") == b"bad\n"
        played.say(b"last")
        played.end(42)
        assert process.communicate(timeout=PATIENCE_S) == (b"last", b"")
        assert process.returncode == 42
    assert played.next("WAIT") == {"verb": "WAIT", "container": "01c1", "run": 1}


def test_a_lot_of_output_arrives_whole(played):
    lines = b"".join(b"%d\n" % number for number in range(400_000))
    played.say(lines)
    played.end(0)
    with typed(played.root, "run", "busybox") as process:
        assert process.communicate(timeout=PATIENCE_S)[0] == lines


def test_input_is_passed_on_and_ends(played):
    with typed(played.root, "run", "-i", "busybox", "sort") as process:
        played.next("RUN")
        process.stdin.write(b"b\na\n")
        process.stdin.flush()
        assert read_until(played.stdin, b"a\n") == b"b\na\n"
        process.stdin.close()
        assert os.read(played.stdin, 100) == b""
        played.end(0)
        assert process.wait(PATIENCE_S) == 0


def test_signals_go_to_the_container_and_a_third_leaves_it(played):
    with typed(played.root, "run", "busybox", "sleep", "9") as process:
        played.next("RUN")
        played.say(b"up\n")
        read_until(process.stdout.fileno(), b"up\n")
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            process.send_signal(number)
            assert played.next("KILL") == {"verb": "KILL", "container": "01c1", "signal": str(int(number))}
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 128 + signal.SIGTERM
    assert errors.decode() == "hawse: c1 does not end and is left alone\n       'hawse kill c1' ends it\n"


def test_a_signal_that_cannot_be_passed_on_is_told_and_one_for_an_ended_container_is_not(played):
    played.refuse("KILL", conflict("container c1 does not run"))
    with typed(played.root, "run", "busybox") as process:
        played.next("RUN")
        played.say(b"up\n")
        read_until(process.stdout.fileno(), b"up\n")
        process.send_signal(signal.SIGTERM)
        played.next("KILL")
        played.refuse("KILL", HawseError(Kind.INTERNAL, "it broke"))
        process.send_signal(signal.SIGTERM)
        played.next("KILL")
        played.end(0)
        assert process.communicate(timeout=PATIENCE_S)[1] == b"hawse: signal 15 did not reach the container: it broke\n"


def test_a_reader_that_leaves_ends_it_quietly(played):
    with typed(played.root, "run", "busybox", "yes") as process:
        played.next("RUN")
        process.stdout.close()
        played.say(b"y\n")
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr.read() == b""


def test_while_the_daemon_is_away_output_goes_on_and_the_code_is_asked_for_when_it_is_back(played):
    with typed(played.root, "run", "busybox") as process:
        played.next("RUN")
        played.say(b"one\n")
        read_until(process.stdout.fileno(), b"one\n")
        played.stop()
        played.say(b"two\n")
        assert read_until(process.stdout.fileno(), b"two\n") == b"two\n"
        played.end(7)
        assert b"waiting for it" in read_until(process.stderr.fileno(), b"\n")
        played.start()
        assert process.wait(PATIENCE_S) == 7


def test_a_supervisor_that_died_is_followed_by_the_next(played):
    with typed(played.root, "run", "busybox") as process:
        played.next("RUN")
        played.say(b"one\n")
        read_until(process.stdout.fileno(), b"one\n")
        played.silence()  # though the container runs
        assert played.next("LOGS")["follow"]
        while not played._bells:
            time.sleep(0.01)
        played.say(b"two\n")
        assert read_until(process.stdout.fileno(), b"two\n") == b"two\n"
        played.end(3)
        assert process.wait(PATIENCE_S) == 3


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (not_found("there is no image 'x'", "'hawse image ls' lists them"), 125, "there is no image 'x'"),
        (HawseError(Kind.INVALID, "there is no command 'y'", facts={"exit_code": 127}), 127, "no command 'y'"),
        (HawseError(Kind.INVALID, "'/etc' is a directory", facts={"exit_code": 126}), 126, "is a directory"),
    ],
)
def test_what_the_runtime_refuses(played, error, code, says):
    for words in (["run", "x", "y"], ["run", "-d", "x", "y"], ["exec", "c1", "y"], ["start", "-a", "c1"]):
        played.refuse({"run": "RUN", "exec": "EXEC", "start": "START"}[words[0]], error)
        with typed(played.root, *words) as process:
            output, errors = process.communicate(timeout=PATIENCE_S)
            assert (process.returncode, output) == (code, b"")
            assert says in errors.decode()


def test_an_end_that_nobody_saw_and_one_for_lack_of_memory(played):
    for end, code, says in (
        ({"code": -1}, 125, "how it ended is not known"),
        ({"code": 137, "oom_killed": True}, 137, "used up its memory"),
        ({"code": 126, "error": "the disk is full"}, 126, "the disk is full"),
    ):
        played.end(**end)
        with typed(played.root, "run", "busybox") as process:
            errors = process.communicate(timeout=PATIENCE_S)[1].decode()
            assert process.returncode == code
            assert says in errors


def test_detached_prints_the_id(played):
    with typed(played.root, "run", "-d", "busybox") as process:
        assert process.communicate(timeout=PATIENCE_S) == (b"01c1\n", b"")
    assert not played.next("RUN").get("attach")


def test_standard_streams_that_are_closed_take_no_descriptor_in_their_place(played):
    """`<&- >&-`: what the container says must not land in a socket that got the number 1."""

    def close() -> None:
        os.close(0)
        os.close(1)

    played.say(b"into the void\n")
    played.end(5)
    with typed(played.root, "run", "-i", "busybox", preexec_fn=close) as process:
        assert process.communicate(timeout=PATIENCE_S)[1] == b""
        assert process.returncode == 5


def test_start_attached_shows_only_what_is_new(played):
    played.say(b"of the last run\n", time_ns=1)
    with typed(played.root, "start", "-a", "c1") as process:
        played.next("START")
        played.say(b"new\n")
        played.end(0)
        assert process.communicate(timeout=PATIENCE_S) == (b"new\n", b"")


# --- with a terminal ---


def test_a_terminal_session(played):
    with at_terminal(played.root, "run", "-it", "busybox", "sh") as (screen, process):
        asked = played.next("RUN")
        assert (asked["rows"], asked["columns"], asked["container"]["tty"]) == (24, 80, True)
        screen.wait_raw()
        screen.type(b"ls\x03\x1a")
        modes = termios.tcgetattr(played.terminal)
        modes[3] &= ~(termios.ICANON | termios.ISIG | termios.ECHO)
        termios.tcsetattr(played.terminal, termios.TCSANOW, modes)
        screen.type(b"!")
        assert read_until(played.terminal, b"!")[-1:] == b"!"
        screen.resize(50, 132)
        process.send_signal(signal.SIGWINCH)
        end = time.monotonic() + PATIENCE_S
        while size(played.terminal) != (50, 132):
            assert time.monotonic() < end
        played.say(b"\x1b[1mbold\r\n")
        assert read_until(screen.master, b"bold\r\n") == b"\x1b[1mbold\r\n"
        played.end(9)
        assert process.wait(PATIENCE_S) == 9
        assert screen.untouched()


def test_the_detach_keys_leave_it_running(played):
    with at_terminal(played.root, "run", "-it", "--detach-keys", "ctrl-a,x", "busybox") as (screen, process):
        played.next("RUN")
        screen.wait_raw()
        screen.type(b"\x01")
        screen.type(b"x")
        assert b"'hawse start -ai c1' attaches again" in read_until(screen.master, b"again\r\n")
        assert process.wait(PATIENCE_S) == 0
        assert screen.untouched()
    assert "KILL" not in [message["verb"] for message in list(played.asked.queue)]


def test_a_hang_up_leaves_it_running(played):
    with at_terminal(played.root, "run", "-it", "busybox") as (screen, process):
        played.next("RUN")
        screen.wait_raw()
        os.close(screen.slave)
        os.close(screen.master)
        assert process.wait(PATIENCE_S) == 128 + signal.SIGHUP
    assert "KILL" not in [message["verb"] for message in list(played.asked.queue)]


def test_whoever_is_stopped_and_continued_has_the_terminal_as_before(played):
    with at_terminal(played.root, "run", "-it", "busybox") as (screen, process):
        played.next("RUN")
        screen.wait_raw()
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        termios.tcsetattr(screen.slave, termios.TCSANOW, screen.before)  # as a shell does
        screen.resize(10, 20)
        os.kill(process.pid, signal.SIGCONT)
        screen.wait_raw()
        end = time.monotonic() + PATIENCE_S
        while size(played.terminal) != (10, 20):
            assert time.monotonic() < end
        played.end(0)
        assert process.wait(PATIENCE_S) == 0
        assert screen.untouched()


def test_a_refused_run_leaves_the_terminal_alone(played):
    played.refuse("RUN", not_found("there is no image 'x'"))
    with at_terminal(played.root, "run", "-it", "x") as (screen, process):
        read_until(screen.master, b"no image")
        assert process.wait(PATIENCE_S) == 125
        assert screen.untouched()


# --- exec ---


def test_exec_copies_streams_and_ends_with_its_code(played):
    with typed(played.root, "exec", "-i", "-e", "A=1", "-u", "9", "-w", "/w", "c1", "--", "work", "-x") as process:
        asked = played.next("EXEC")
        assert (asked["command"], asked["env"], asked["user"], asked["workdir"]) == (["work", "-x"], ["A=1"], "9", "/w")
        assert played.next("WAIT") == {"verb": "WAIT", "container": "c1", "execution": "e1"}
        process.stdin.write(b"in")
        process.stdin.close()
        assert read_until(played.stdin, b"in") == b"in"
        assert os.read(played.stdin, 9) == b""
        played.tell(b"out\n")
        played.tell(b"bad\n", 1)
        assert read_until(process.stdout.fileno(), b"\n") == b"out\n"
        assert read_until(process.stderr.fileno(), b"\n") == b"bad\n"
        played.close_outputs()
        played.end(4)
        assert process.wait(PATIENCE_S) == 4


def test_exec_ends_with_its_process_though_a_child_keeps_the_pipes(played):
    with typed(played.root, "exec", "c1", "daemonize") as process:
        played.next("WAIT")
        played.tell(b"started\n")
        played.end(0)
        assert process.wait(PATIENCE_S) == 0
        assert process.stdout.read() == b"started\n"


def test_exec_outlives_the_daemon(played):
    with typed(played.root, "exec", "c1", "work") as process:
        played.next("WAIT")
        played.stop()
        played.tell(b"on and on\n")
        assert read_until(process.stdout.fileno(), b"\n") == b"on and on\n"
        played.close_outputs()
        played.end(6)
        played.start()
        assert process.wait(PATIENCE_S) == 6


def test_exec_in_a_terminal(played):
    with at_terminal(played.root, "exec", "-it", "c1", "sh") as (screen, process):
        played.next("WAIT")
        screen.wait_raw()
        screen.type(b"\x10\x11\r")  # no keys of ours: nothing is held back
        assert read_until(played.terminal, b"\n") == b"\x10\n"  # \x11 is XON of the container's own terminal
        os.write(played.terminal, b"hello\n")
        read_until(screen.master, b"hello\r\n")
        screen.resize(33, 44)
        process.send_signal(signal.SIGWINCH)
        end = time.monotonic() + PATIENCE_S
        while size(played.terminal) != (33, 44):
            assert time.monotonic() < end
        os.close(played.terminal)
        played.terminal = -1
        played.end(130)
        assert process.wait(PATIENCE_S) == 130
        assert screen.untouched()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_exec_that_is_ended_puts_the_terminal_in_order(number, played):
    with at_terminal(played.root, "exec", "-it", "c1", "sh") as (screen, process):
        played.next("WAIT")
        screen.wait_raw()
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 128 + number
        assert screen.untouched()
