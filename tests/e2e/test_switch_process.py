"""A switch without an agent and a controller that is a process: set up by commands, killed, started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sdn.cli.exits import Exit
from sdn.cli.main import main
from sdn.client.client import Client
from tests.conformance.steered import BRIDGE, DATAPATH_ID, Wired, prepared

pytestmark = pytest.mark.root

WAIT_S = 30.0
SECURE = "ssl:127.0.0.1:6653"


@contextlib.contextmanager
def controller(root: Path, namespace: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the switch's namespace, which serves when this begins."""
    ready, ready_fd = os.pipe()
    command = ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-m", "sdn.cli.main", "controller"]
    command += ["--root", str(root), "--listen", "127.0.0.1:0", "--ready-fd", str(ready_fd), *options]
    process = subprocess.Popen([*command, "--log", str(root.with_suffix(".log"))], pass_fds=[ready_fd])
    os.close(ready_fd)
    try:
        readable, _, _ = select.select([ready], [], [], WAIT_S)
        assert readable, "not ready in time"
        assert os.read(ready, 1) == b"1", root.with_suffix(".log").read_text()
        yield process
    finally:
        os.close(ready)
        process.kill()
        process.wait(WAIT_S)


def until(client: Client, ready: Callable[[Any], bool]) -> Any:
    """Look at the switch until it is so."""
    deadline = time.monotonic() + WAIT_S
    while not ready(shown := client.get("/v1/switches/s1").body):
        assert time.monotonic() < deadline, shown
        select.select([], [], [], 0.05)
    return shown


def test_in_tls_by_commands_and_through_the_controllers_death(tmp_path: Path) -> None:
    root, files = tmp_path / "root", tmp_path / "files"

    def hawse(*words: str) -> None:
        assert main(["--root", str(root), *words]) == Exit.OK

    with contextlib.ExitStack() as undo:
        wired = Wired(prepared(undo), undo)
        vswitch, name = wired.vswitch, wired.vswitch.here.name
        client = Client(f"unix:{root}/controller.sock")
        with controller(root, name, "--openflow", SECURE) as process:
            hawse("network", "create", "web", "--subnet", "10.1.0.0/24")
            hawse("switch", "add", "s1", "--datapath-id", DATAPATH_ID, "--vtep", "192.0.2.1")
            hawse("switch", "certificate", "s1", "--out", str(files))
            vswitch.vsctl("set-ssl", *(str(files / one) for one in ("switch-key.pem", "switch.pem", "authority.pem")))
            vswitch.vsctl("set-controller", BRIDGE, SECURE, "--", "set", "controller", BRIDGE, "max_backoff=1000")
            until(client, lambda shown: shown["connected"])
            insides = []
            for port, mac in (("p1", "0a:00:00:00:00:01"), ("p2", "0a:00:00:00:00:02")):
                address = f"10.1.0.1{port[1]}"
                hawse("switch", "bind", "s1", port, "web", "--mac", mac, "--ip", address)
                insides.append(asyncio.run(wired.container(port, [f"{address}/24"], mac)))
            until(client, lambda shown: not shown["failures"])
            assert asyncio.run(wired.ping(insides[0], "10.1.0.12")) == 3
            before = asyncio.run(wired.flows())
            process.send_signal(signal.SIGKILL)
            process.wait(WAIT_S)
        assert asyncio.run(wired.ping(insides[0], "10.1.0.12", 10)) == 10
        with controller(root, name, "--openflow", SECURE):
            shown = until(client, lambda shown: shown["connected"] and shown["applied_revision"])
            assert shown["peer"].startswith("ssl:127.0.0.1:")
            assert asyncio.run(wired.flows()) == before
            hawse("switch", "unbind", "s1", "p2", "--wait=10")
            assert asyncio.run(wired.ping(insides[0], "10.1.0.12", 1, wait_s=2)) == 0
            hawse("switch", "rm", "--force", "s1")
            assert asyncio.run(wired.flows()) == []


@pytest.mark.parametrize(
    ("option", "code", "says"),
    [
        ("10.0.0.1:6653", Exit.INVALID, "write ssl:10.0.0.1:6653"),
        ("tcp:192.0.2.77:6653", Exit.INVALID, "does not have that address"),
    ],
)
def test_where_it_cannot_listen(tmp_path: Path, option: str, code: Exit, says: str) -> None:
    words = ["controller", "--root", str(tmp_path / "root"), "--listen", "127.0.0.1:0", "--openflow", option]
    ended = subprocess.run(
        [sys.executable, "-m", "sdn.cli.main", *words], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert ended.returncode == code
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
