"""Rows about whole commands: `hawse run` against `docker run`, to its end, and to the first ping across hosts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

from tests.bench.dockers import IMAGE as DOCKER_IMAGE
from tests.bench.dockers import OVERLAY, dockers, join_swarm
from tests.bench.janitor import Janitor
from tests.bench.measure import PeerMissingError, Result, compare, interleave, progress, timed
from tests.bench.runtimes import IMAGE, NETWORK, two_hosts

RUN_ROUNDS = 25
PING_ROUNDS = 15
PEER_ADDRESS = "10.40.77.77"
"""Of the swarm's idle container."""


def against_docker(janitor: Janitor) -> Iterator[Result]:
    """run-vs-docker: the command's start to its end, a network each, the container removed."""
    slug = "run-vs-docker"
    progress(f"{slug} …")
    with two_hosts(janitor) as (_, runtime, _), dockers(janitor, 1) as (docker,):
        ours = runtime.command("run", "--rm", "--network", NETWORK, IMAGE, "/bin/true")
        peer = docker.command("run", "--rm", DOCKER_IMAGE, "/bin/true")
        samples = interleave(lambda: timed(lambda: _run(ours)), lambda: timed(lambda: _run(peer)), RUN_ROUNDS, warmup=2)
    note = (
        "the command's start to its end: busybox true in a container on a network, attached, removed; ours makes and "
        "removes the network on the host as well, Docker's bridge is there"
    )
    yield compare(slug, samples, unit="ms", target=0.4, peer_name="docker run --rm, its bridge", note=note)


def to_first_ping(janitor: Janitor) -> Iterator[Result]:
    """run-to-first-ping: the command's start to the moment when its container has an answer from the other host."""
    slug = "run-to-first-ping"
    progress(f"{slug} …")
    with two_hosts(janitor) as (_, here, there), dockers(janitor, 2) as (first, second):
        join_swarm(first, second)
        first("run", "-d", "--network", OVERLAY, "--ip", PEER_ADDRESS, DOCKER_IMAGE, "/bin/idle")
        second("run", "-d", "--network", OVERLAY, DOCKER_IMAGE, "/bin/idle")
        here.start_idle()
        address = there.start_idle()
        ours = here.command("run", "--rm", "--network", NETWORK, IMAGE, "/bin/first-ping", address)
        peer = second.command("run", "--rm", "--network", OVERLAY, DOCKER_IMAGE, "/bin/first-ping", PEER_ADDRESS)
        samples = interleave(_told(ours), _told(peer), PING_ROUNDS, warmup=2)
    note = (
        "the command's start to the first echo reply in its container, from the other host; both hosts have one already"
    )
    yield compare(slug, samples, unit="ms", target=0.15, peer_name="docker run, swarm's overlay", note=note)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerMissingError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return done


def _told(command: list[str]) -> Callable[[], float]:
    """Milliseconds from the start of a command to the moment that its container prints."""

    def sample() -> float:
        start = time.monotonic_ns()
        return (int(_run(command).stdout) - start) / 1e6

    return sample
