"""A daemon's life, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdn.model.errors import HawseError, Kind
from sdn.service.daemon import PidFile, run_daemon, running_pid
from sdn.service.roots import Root, find_root

PROGRAM = """
import argparse, asyncio, sys
from sdn.model.errors import HawseError, unavailable
from sdn.service.daemon import add_arguments, run_daemon

parser = argparse.ArgumentParser()
add_arguments(parser)
parser.add_argument("--fail", action="store_true")
options = parser.parse_args()

async def serve(daemon):
    async def fail():
        raise unavailable("no luck")
    if options.fail:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
    daemon.log.info("serving", answer=42)
    daemon.ready()
    await daemon.stopping.wait()

try:
    sys.exit(run_daemon("thing", options, serve, needs_root=False))
except HawseError as error:
    print(error, file=sys.stderr)
    sys.exit(7)
"""


class Started:
    """The program, told ready by a descriptor."""

    def __init__(self, root: Path, *arguments: str) -> None:
        read_fd, write_fd = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "--root", str(root), "--ready-fd", str(write_fd), *arguments],
            pass_fds=[write_fd],
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(write_fd)
        self.ready = os.read(read_fd, 10)
        os.close(read_fd)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Started]:
    started = Started(tmp_path / "r")
    yield started
    started.stop(signal.SIGKILL)


def test_ready_running_stopped(daemon: Started, tmp_path: Path) -> None:
    root = find_root(str(tmp_path / "r"), {})
    assert daemon.ready == b"1"
    assert running_pid(root, "thing") == daemon.process.pid
    second = Started(tmp_path / "r")
    code, errors = second.stop()
    assert second.ready == b""
    assert (code, f"already running as pid {daemon.process.pid}" in errors) == (7, True)
    code, errors = daemon.stop()
    assert code == 0
    assert [line for line in errors.splitlines() if "serving" in line and "answer=42" in line]
    assert running_pid(root, "thing") is None
    assert not root.pid_file("thing").exists()


def test_a_killed_daemon_does_not_stand_in_the_way(daemon: Started, tmp_path: Path) -> None:
    daemon.stop(signal.SIGKILL)
    assert running_pid(find_root(str(tmp_path / "r"), {}), "thing") is None
    again = Started(tmp_path / "r", "--log", str(tmp_path / "log"), "--log-format", "json")
    assert again.ready == b"1"
    assert again.stop(signal.SIGINT) == (0, "")
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [event["event"] for event in events] == ["starting", "serving", "stopping", "stopped"]


def test_a_task_that_fails_says_its_sentence(tmp_path: Path) -> None:
    started = Started(tmp_path / "r", "--fail")
    code, errors = started.stop()
    assert (code, errors.splitlines()[-1]) == (7, "no luck")
    assert "Traceback" not in errors


def test_systemd_is_told(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(address)
        notified.settimeout(20)
        os.environ["NOTIFY_SOCKET"] = address
        try:
            started = Started(tmp_path / "r")
        finally:
            del os.environ["NOTIFY_SOCKET"]
        assert notified.recv(100) == b"READY=1"
        started.stop()


def test_the_lock_is_per_daemon(tmp_path: Path) -> None:
    root = Root(tmp_path, tmp_path)
    first, other, second = PidFile(root, "a"), PidFile(root, "b"), PidFile(root, "a")
    first.take()
    other.take()
    with pytest.raises(HawseError) as caught:
        second.take()
    assert (caught.value.kind, caught.value.facts) == (Kind.CONFLICT, {"pid": os.getpid()})
    first.release()
    first.release()
    second.take()
    second.release()
    other.release()


def test_without_root_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import argparse

    async def never(_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HawseError, match="needs root") as caught:
        run_daemon("agent", argparse.Namespace(), never)
    assert caught.value.kind is Kind.DENIED
