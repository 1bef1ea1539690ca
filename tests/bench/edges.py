"""Rows about the controller's edges: how quick a read is, and what TLS under a host's stream costs an attachment."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tests.bench.attach import attacher
from tests.bench.janitor import Janitor
from tests.bench.measure import Result, compare, interleave, progress, timed
from tests.bench.stand import Attacher, Lab, Sandboxes, lab, scratch

READS = 100
"""A sample: short, so that whatever else the machine does meets both alike."""
READ_ROUNDS = 150
ATTACH_ROUNDS = 300
READY_S = 30.0

TOPOLOGY = """\
name: NAME
hosts:
  h1: {}
  h2: {}
networks:
  left: {subnets: [10.200.0.0/16]}
  right: {subnets: [10.201.0.0/16]}
"""

CONSTANT = """\
import sys, uvloop
from aiohttp import web
path, body = sys.argv[1], sys.stdin.buffer.read()
async def constant(request):
    return web.Response(body=body, content_type="application/json")
application = web.Application()
application.router.add_get("/v1/endpoints/{reference}", constant)
uvloop.install()
web.run_app(application, path=path, access_log=None, print=lambda _: print("ready", flush=True))
"""
"""What an aiohttp server is, at the least."""


class Reader:
    """GETs one thing over one connection, as bare as a client can be."""

    def __init__(self, path: str, what: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._request = f"GET {what} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

    def get(self) -> bytes:
        """The body. The sizes of both servers' replies are far below a socket's buffer: one read has all of it."""
        self._socket.sendall(self._request)
        reply = self._socket.recv(65536)
        head, _, body = reply.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        return body

    def per_second(self) -> float:
        """How many a second."""
        begun = time.perf_counter()
        for _ in range(READS):
            self.get()
        return READS / (time.perf_counter() - begun)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


@contextmanager
def constant_server(janitor: Janitor, directory: Path, body: bytes) -> Iterator[str]:
    """A bare server of a body; the path of its socket."""
    path = str(directory / "constant.sock")
    process = subprocess.Popen(
        [sys.executable, "-c", CONSTANT, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=directory
    )
    with process, janitor.keep("process", process.pid):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(body)
        process.stdin.close()
        assert process.stdout.readline() == b"ready\n"
        yield path


def reads(janitor: Janitor) -> Iterator[Result]:
    """api-reads."""
    slug = "api-reads"
    progress(f"{slug} …")
    with ExitStack() as stack:
        one = stack.enter_context(lab(janitor, TOPOLOGY))
        client, sandboxes = stack.enter_context(attacher(one, "h1", "left"))
        endpoint = client.add(sandboxes.make(), 0)["endpoint"]
        what = f"/v1/endpoints/{endpoint}"
        ours = stack.enter_context(closing(Reader(str(one.directory / "controller" / "controller.sock"), what)))
        body = ours.get()
        assert json.loads(body)["id"] == endpoint
        path = stack.enter_context(constant_server(janitor, stack.enter_context(scratch(janitor)), body))
        peer = stack.enter_context(closing(Reader(path, what)))
        assert peer.get() == body
        samples = interleave(ours.per_second, peer.per_second, READ_ROUNDS)
    yield compare(
        slug, samples, unit="/s", target=0.5, better="higher", peer_name="aiohttp answering the same bytes, uvloop too"
    )


def attach_over_tls(janitor: Janitor) -> Iterator[Result]:
    """attach-tls-vs-unix: two hosts of one controller, one by TLS, the other by the controller's unix socket."""
    slug = "attach-tls-vs-unix"
    progress(f"{slug} …")
    with ExitStack() as stack:
        one = stack.enter_context(lab(janitor, TOPOLOGY))
        url = f"unix:{one.directory / 'controller' / 'controller.sock'}"
        stack.enter_context(agent_again(janitor, one, "h1"))
        stack.enter_context(agent_again(janitor, one, "h2", url))
        tls = stack.enter_context(attacher(one, "h1", "left"))
        unix = stack.enter_context(attacher(one, "h2", "right"))
        samples = interleave(_one(*tls), _one(*unix), ATTACH_ROUNDS, warmup=5)
    yield compare(slug, samples, unit="ms", target=1.15, peer_name="the same over a unix socket")


def _one(client: Attacher, sandboxes: Sandboxes) -> Callable[[], float]:
    def sample() -> float:
        fd = sandboxes.make()
        return timed(lambda: client.add(fd, 0))

    return sample


@contextmanager
def agent_again(janitor: Janitor, one: Lab, host: str, url: str = "") -> Iterator[None]:
    """A host's agent, started again: both sides alike, for a lab forks its own. `url`: its only controller from now."""
    root = one.directory / host
    before = int((root / "agent.pid").read_text().split()[0])
    configuration = json.loads((root / "state" / "agent.json").read_text())
    configuration["controllers"] = [url] if url else configuration["controllers"]
    configuration["vtep4"] = one.rest("host", "inspect", host)["vtep4"]
    end(before)
    (root / "state" / "agent.json").write_text(json.dumps(configuration))
    ready, ready_fd = os.pipe()
    command = ["hawse", "agent", "--datapath", "bridge", "--root", str(root), "--ready-fd", str(ready_fd)]
    command[0] = str(Path(sys.executable).with_name("hawse"))
    process = subprocess.Popen(
        ["nsenter", f"--net={one.host_namespace(host)}", *command],
        pass_fds=[ready_fd],
        stderr=subprocess.DEVNULL,
    )
    os.close(ready_fd)
    with process, janitor.keep("process", process.pid):
        readable, _, _ = select.select([ready], [], [], READY_S)
        assert readable, "the agent is not ready in time"
        assert os.read(ready, 1) == b"1", "the agent did not start"
        os.close(ready)
        yield
        process.terminate()
        process.wait(READY_S)


def end(pid: int) -> None:
    """Have a daemon that is nobody's child here end in good order."""
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, signal.SIGTERM)
        ended, _, _ = select.select([fd], [], [], READY_S)
        assert ended, f"pid {pid} does not end"
    finally:
        os.close(fd)
