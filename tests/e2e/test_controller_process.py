"""`hawse controller` as a process: it starts, serves, stops, is killed and goes on, or says in a sentence why not."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import json
import os
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdn.client.client import Client
from sdn.model.certificate import parse_certificates
from sdn.model.errors import HawseError, Kind
from sdn.service.trust import verifying_context

TIMEOUT_S = 60.0
COMMAND = [sys.executable, "-m", "sdn.cli.main", "controller"]


@dataclasses.dataclass(slots=True)
class Controller:
    """A running one."""

    process: subprocess.Popen[bytes]
    root: Path
    log: Path

    @property
    def client(self) -> Client:
        """As a command finds it."""
        return Client(json.loads((self.root / "client.json").read_text())["controller"])

    def end(self, number: signal.Signals) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


@contextlib.contextmanager
def controller(root: Path, *options: str) -> Iterator[Controller]:
    """Start one and wait until it says that it serves; killed at the end if it still runs."""
    ready, ready_fd = os.pipe()
    log = root.with_suffix(".log")
    arguments = ["--root", str(root), "--listen", "127.0.0.1:0", "--ready-fd", str(ready_fd), "--log", str(log)]
    process = subprocess.Popen([*COMMAND, *arguments, *options], pass_fds=[ready_fd], stderr=subprocess.PIPE)
    os.close(ready_fd)
    try:
        readable, _, _ = select.select([ready], [], [], TIMEOUT_S)
        assert readable, "not ready in time"
        assert os.read(ready, 1) == b"1", process.communicate(timeout=TIMEOUT_S)
        yield Controller(process, root, log)
    finally:
        os.close(ready)
        process.kill()
        process.wait(TIMEOUT_S)
        if process.stderr:
            process.stderr.close()


def refused(root: Path, *options: str) -> tuple[int, str]:
    """Start one that cannot: its exit code and what it says."""
    ended = subprocess.run(
        [*COMMAND, "--root", str(root), *options], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


def verified(url: str, authority: str) -> bool:
    """Whether who trusts that authority may speak to it."""
    host, _, port = url.removeprefix("https://").rpartition(":")
    with (
        socket.create_connection((host, int(port)), TIMEOUT_S) as raw,
        verifying_context(authority).wrap_socket(raw) as wrapped,
    ):
        return wrapped.version() == "TLSv1.3"


def contents(client: Client) -> dict[str, Any]:
    """All resources."""
    return {kind: list(client.items(f"/v1/{kind}")) for kind in ("tenants", "networks", "hosts", "allocations")}


def test_a_life(tmp_path: Path) -> None:
    root = tmp_path / "r"
    with controller(root) as running:
        client = running.client
        assert client.url == f"unix:{root}/controller.sock"
        assert stat.S_IMODE((root / "controller.sock").stat().st_mode) == 0o600
        assert client.get("/readyz").body["status"] == "ready"
        assert [tenant["name"] for tenant in client.items("/v1/tenants")] == ["default"]
        client.post("/v1/hosts", {"name": "h1"})
        credential = client.post("/v1/hosts/h1/credential").body
        assert verified(credential["controllers"][0], credential["authority"])
        assert parse_certificates(credential["authority"])[0].fingerprint == credential["fingerprint"]
        assert stat.S_IMODE((root / "state" / "tls" / "authority.pem").stat().st_mode) == 0o600
        assert running.end(signal.SIGTERM) == 0
        assert running.process.communicate()[1] == b""
        log = running.log.read_text()
        assert credential["secret"] not in log
        (audit,) = [line for line in log.splitlines() if "host.created" in line]
        assert f"actor='{getpass.getuser()}'" in audit  # who
        assert "revision=2" in audit
    assert not (root / "controller.sock").exists()
    assert not (root / "controller.pid").exists()
    with pytest.raises(HawseError, match="not running") as caught:
        client.get("/v1/tenants")
    assert caught.value.kind is Kind.UNAVAILABLE


def dumps_core(pid: int) -> bool:
    """Whether a process that is aborted, and may leave a core, leaves one. Its parent may wait for it still."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(pid, resource.RLIMIT_CORE, unlimited)
    os.kill(pid, signal.SIGABRT)
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_code == os.CLD_DUMPED


def test_its_memory_is_in_no_core_dump(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path) as ordinary:
        assert dumps_core(ordinary.pid)
    with controller(tmp_path / "r") as running:
        assert not dumps_core(running.process.pid)


def test_killed_it_goes_on_where_it_was(tmp_path: Path) -> None:
    root = tmp_path / "r"
    with controller(root) as running:
        client = running.client
        client.post("/v1/tenants", {"name": "blue"})
        client.post("/v1/hosts", {"name": "h1"})
        credential = client.post("/v1/hosts/h1/credential").body
        last = client.post("/v1/networks", {"name": "web", "tenant": "blue", "ipv6": True}).revision
        before = contents(client)
        running.end(signal.SIGKILL)
    with controller(root) as running:
        client = running.client
        assert contents(client) == before
        assert client.get("/v1/status").body["revision"] == last
        assert client.post("/v1/tenants", {"name": "next"}).revision == (last or 0) + 1
        assert client.post("/v1/hosts/h1/credential").body["fingerprint"] == credential["fingerprint"]
        resumed = list(client.events(since=(last or 0) - 1, follow=0))
        assert next(event["event"] for event in resumed) == "network.created"


def test_stopping_ends_streams_of_events(tmp_path: Path) -> None:
    with controller(tmp_path / "r") as running:
        events = running.client.events(since=0)
        next(events)
        assert running.end(signal.SIGTERM) == 0
        assert list(events) == []  # it ends in good order, not as a lost connection


def test_a_second_one_is_refused(tmp_path: Path) -> None:
    with controller(tmp_path / "r") as running:
        code, text = refused(tmp_path / "r")
        assert (code, f"already running as pid {running.process.pid}" in text) == (4, True)
        assert running.client.get("/healthz").status == 200


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        code, text = refused(tmp_path / "r", "--listen", where)
    assert (code, f"cannot listen on {where}: it is in use" in text) == (4, True)
    assert not (tmp_path / "r" / "controller.sock").exists()


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--listen", "192.0.2.77:4780"], 5, "does not have that address"),
        (["--listen", "somewhere"], 5, "not an IP address"),
        (["--listen", "127.0.0.1:99999"], 5, "not an address to listen on"),
        (["--listen", "0.0.0.0:0"], 5, "--advertise"),
        (["--advertise", "ftp://x"], 5, "not a URL"),
        (["--pool", "10.0.0.1/8"], 5, "host bits"),
        (["--vni-first", "0"], 5, "not a VNI"),
        (["--colour", "red"], 2, "unrecognized arguments"),
        (["--ready-fd", "99"], 5, "not an open descriptor"),
    ],
)
def test_what_cannot_be(tmp_path: Path, options: list[str], code: int, sentence: str) -> None:
    found, text = refused(tmp_path / "r", *options)
    assert (found, sentence in text) == (code, True), text


def test_a_root_too_long(tmp_path: Path) -> None:
    code, text = refused(tmp_path / ("x" * 120))
    assert (code, "107" in text) == (5, True)


def test_a_damaged_database(tmp_path: Path) -> None:
    (tmp_path / "r" / "state").mkdir(parents=True)
    (tmp_path / "r" / "state" / "controller.db").write_bytes(b"this is no database" * 1000)
    code, text = refused(tmp_path / "r", "--listen", "127.0.0.1:0")
    assert (code, "controller.db" in text) == (5, True), text


def test_pools_are_used(tmp_path: Path) -> None:
    with controller(tmp_path / "r", "--pool", "172.20.0.0/16", "--vni-first", "5000") as running:
        made = running.client.post("/v1/networks", {"name": "web", "ipv6": True}).body
        assert made["subnets"][0]["prefix"].startswith("172.20.")
        assert made["subnets"][0]["prefix"].endswith("/24")
        assert made["vni"] >= 5000
