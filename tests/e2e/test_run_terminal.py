"""A person at a terminal: sizes, Ctrl-C, detaching and coming back, a window that is closed. Everything is real."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.standing_lab import PATIENCE_S, environment
from tests.e2e.standing_runtime import IMAGE, Runtime, standing_runtime

pytestmark = pytest.mark.root
PROMPT = b"ready# "
SHELL = ("-e", f"PS1={PROMPT.decode()}", "-e", "TERM=dumb")


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with standing_runtime() as up:
        yield up


@pytest.fixture(autouse=True)
def tidy(runtime: Runtime) -> Iterator[None]:
    with runtime.tidied():
        yield


class Screen:
    """A command on a terminal of its own, and the person before it."""

    def __init__(self, command: list[str]) -> None:
        self.master, self._slave = pty.openpty()
        self.before = termios.tcgetattr(self._slave)
        self.resize(24, 80, None)
        self.seen = b""

        def control() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command, stdin=self._slave, stdout=self._slave, stderr=self._slave, preexec_fn=control,
            env=environment(),
        )  # fmt: skip

    def resize(self, rows: int, columns: int, process: subprocess.Popen[bytes] | None) -> None:
        """The window, as its frame does it."""
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if process is not None:
            process.send_signal(signal.SIGWINCH)

    def type(self, keys: bytes) -> None:
        """Keys."""
        os.write(self.master, keys)

    def wait_for(self, wanted: bytes) -> bytes:
        """Until this is seen; what was, up to there."""
        end = time.monotonic() + PATIENCE_S
        while wanted not in self.seen:
            assert select.select([self.master], [], [], max(0.0, end - time.monotonic()))[0], self.seen
            try:
                part = os.read(self.master, 4096)
            except OSError:
                part = b""
            assert part, self.seen
            self.seen += part
        found, _, self.seen = self.seen.partition(wanted)
        return found

    def ask(self, command: bytes) -> str:
        """A command at the prompt; what it printed."""
        self.type(command + b"\n")
        self.wait_for(command + b"\r\n")
        return self.wait_for(PROMPT).decode()

    def ended(self) -> int:
        """How the command ended; the terminal is as it was."""
        while self.process.poll() is None:  # whoever writes to a terminal that nobody reads waits
            if select.select([self.master], [], [], 0.05)[0]:
                self.seen += os.read(self.master, 4096)
        assert termios.tcgetattr(self._slave) == self.before
        return self.process.returncode

    def close(self) -> None:
        """The window."""
        for descriptor in (self.master, self._slave):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@contextlib.contextmanager
def screen(runtime: Runtime, *words: str) -> Iterator[Screen]:
    with window(runtime.words(*words)) as opened:
        yield opened


@contextlib.contextmanager
def window(command: list[str]) -> Iterator[Screen]:
    opened = Screen(command)
    try:
        yield opened
    finally:
        if opened.process.poll() is None:
            opened.process.kill()
        opened.process.wait(PATIENCE_S)
        opened.close()


def test_a_session(runtime: Runtime) -> None:
    with screen(runtime, "run", "--rm", "-it", *SHELL, IMAGE, "sh") as shell:
        shell.wait_for(PROMPT)
        assert "/dev/pts/0" in shell.ask(b"tty")
        assert shell.ask(b"stty size").splitlines()[-1] == "24 80"
        shell.resize(50, 132, shell.process)
        end = time.monotonic() + PATIENCE_S
        while "50 132" not in shell.ask(b"stty size"):
            assert time.monotonic() < end
        shell.type(b"sh -c 'echo go; exec sleep 600'\n")
        shell.wait_for(b"\r\ngo\r\n")  # it has the terminal: Ctrl-C is its signal, not the shell's key
        shell.type(b"\x03")
        shell.wait_for(PROMPT)
        assert shell.ask(b"echo $?").splitlines()[-1] == "130"
        shell.type(b"exit 7\n")
        assert shell.ended() == 7


def test_end_of_file_ends_the_shell(runtime: Runtime) -> None:
    with screen(runtime, "run", "--rm", "-it", *SHELL, IMAGE) as shell:
        shell.wait_for(PROMPT)
        shell.type(b"\x04")
        assert shell.ended() == 0


def test_detach_and_come_back(runtime: Runtime) -> None:
    with screen(runtime, "run", "-it", "--name", "kept", *SHELL, IMAGE) as shell:
        shell.wait_for(PROMPT)
        shell.ask(b"HERE=still")
        shell.type(b"\x10\x11")
        shell.wait_for(b"'hawse start -ai kept' attaches again")
        assert shell.ended() == 0
    assert runtime.inspect("kept")["state"] == "running"
    with screen(runtime, "start", "-ai", "kept") as shell:
        shell.resize(30, 90, None)
        shell.type(b"\n")
        shell.wait_for(PROMPT)
        assert "still" in shell.ask(b"echo $HERE")
        shell.type(b"exit 3\n")
        assert shell.ended() == 3
    assert runtime.run("rm", "kept") == "kept\n"


def test_a_window_that_is_closed_leaves_the_container(runtime: Runtime) -> None:
    with screen(runtime, "run", "-it", "--name", "kept", *SHELL, IMAGE) as shell:
        shell.wait_for(PROMPT)
        shell.close()
        assert shell.process.wait(PATIENCE_S) == 128 + signal.SIGHUP
    assert runtime.inspect("kept")["state"] == "running"
    runtime.run("rm", "-f", "kept")


def test_exec_in_a_terminal(runtime: Runtime) -> None:
    with runtime.container("--name", "c", IMAGE, "sleep", "600"):
        with screen(runtime, "exec", "-it", *SHELL, "c", "sh") as shell:
            shell.wait_for(PROMPT)
            assert shell.ask(b"stty size").splitlines()[-1] == "24 80"
            shell.type(b"exit 9\n")
            assert shell.ended() == 9
        with screen(runtime, "exec", "-it", *SHELL, "c", "sh") as shell:
            shell.wait_for(PROMPT)
            shell.type(b"sh -c 'echo go; exec sleep 601'\n")
            shell.wait_for(b"\r\ngo\r\n")
            shell.close()
            assert shell.process.wait(PATIENCE_S) == 128 + signal.SIGHUP
        end = time.monotonic() + PATIENCE_S
        while "sleep 601" in runtime.run("top", "c"):  # its terminal hung up
            assert time.monotonic() < end


def test_the_terminal_outlives_the_daemon(runtime: Runtime) -> None:
    with screen(runtime, "run", "--rm", "-it", *SHELL, IMAGE) as shell:
        shell.wait_for(PROMPT)
        runtime.end(signal.SIGKILL)
        assert "42" in shell.ask(b"echo $((6 * 7))")
        runtime.start()
        shell.type(b"exit 5\n")
        assert shell.ended() == 5


def test_signals_without_a_terminals_keys(runtime: Runtime) -> None:
    """`-t` alone: nobody types, Ctrl-C is a signal to the command, which passes it on."""
    script = "trap 'echo caught; exit 9' INT; echo up; while :; do sleep 0.1; done"
    with screen(runtime, "run", "--rm", "-t", IMAGE, "sh", "-c", script) as shown:
        assert shown.wait_for(b"up\r\n") == b""
        shown.type(b"\x03")
        assert shown.wait_for(b"caught\r\n").endswith((b"", b"^C"))
        assert shown.ended() == 9
        assert shown.seen == b""


def test_lines_of_a_terminal_that_is_only_shown_end_once(runtime: Runtime) -> None:
    """Two terminals are between them and us: only one makes CR LF of LF."""
    with runtime.container("--name", "c", IMAGE, "sleep", "600"):
        for words in (("run", "--rm", "-t", IMAGE), ("exec", "-t", "c")):
            with screen(runtime, *words, "printf", "one\\ntwo\\n") as shown:
                assert shown.wait_for(b"two\r\n") == b"one\r\n"
                assert shown.ended() == 0


def test_in_the_background_the_terminal_is_left_alone(runtime: Runtime) -> None:
    """Else the shell's `&` would stop us where nobody sees it."""
    line = f"set -m; {shlex.join(runtime.words('run', '--rm', '-t', IMAGE, 'echo', 'shown'))} & wait $!"
    with window(["bash", "-c", line]) as shown:
        shown.wait_for(b"shown\r")
        assert shown.ended() == 0


def test_stats_draw_anew_on_a_terminal(runtime: Runtime) -> None:
    with runtime.container("--name", "c", IMAGE, "sleep", "600"), screen(runtime, "stats") as shown:
        shown.wait_for(b"\x1b[H\x1b[JCONTAINER")
        shown.wait_for(b"\x1b[H\x1b[JCONTAINER")
        shown.type(b"\x03")
        assert shown.ended() == 130
        assert re.search(rb"hawse: interrupted\r\n$", shown.seen)


def test_nothing_is_left_in_the_file_system(runtime: Runtime) -> None:
    assert not list(Path(runtime.root / "containers").glob("*"))
