"""The row about a machine that joins: from the command to the first ping of a container of its own across hosts."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from tests.bench.dockers import IMAGE as DOCKER_IMAGE
from tests.bench.dockers import OVERLAY, UNDERLAY, Docker, dockers, join_swarm
from tests.bench.janitor import Janitor
from tests.bench.measure import Result, compare, progress, timed
from tests.e2e.machines import COMMAND, Machine, environment, machines

ROUNDS = 7
ADDRESS = "10.1.0.11"
PEER_ADDRESS = "10.40.77.77"
PING = ("-W", "2", "-c", "1", "-i", "0.01")


def join_seconds(janitor: Janitor) -> Iterator[Result]:
    """join-seconds: `hawse join -d`, then `hawse run … ping` of a container of the other host; a swarm's beside it."""
    slug = "join-seconds"
    progress(f"{slug} …")
    with contextlib.ExitStack() as stack:
        first, second = stack.enter_context(machines(2))
        for machine in (first, second):
            leave = ["nsenter", f"--net=/run/netns/{machine.here.name}", *COMMAND, "leave", "--force", "--all"]
            stack.enter_context(janitor.keep("command", [*leave, "--root", str(machine.directory)]))
        first.up()
        first.hawse("network", "create", "web", "--subnet", "10.1.0.0/24")
        first.hawse("run", "-d", "--network", "web", "--ip", ADDRESS, "--stop-signal", "KILL", "host", "sleep", "9999")
        mine = [_joined(first, second) for _ in range(ROUNDS + 1)][1:]
        first.forget()
        peers = stack.enter_context(dockers(janitor, 2))
        join_swarm(*peers)
        peers[0]("run", "-d", "--network", OVERLAY, "--ip", PEER_ADDRESS, DOCKER_IMAGE, "/bin/idle")
        theirs = [_swarmed(*peers) for _ in range(ROUNDS)]
    note = "the daemons' start included on our side (Docker's runs already); the environment is installed"
    yield compare(
        slug, (mine, theirs), unit="s", target=2.0, peer_name="docker swarm join, orientation", absolute=True, note=note
    )


def _joined(first: Machine, second: Machine) -> float:
    """Seconds; it has left again afterwards."""
    token = first.token()
    join = second.words("join", "-d", first.address, token, "--name", "m2")
    ping = second.words("run", "--rm", "--network", "web", "host", "ping", *PING, ADDRESS)
    try:
        return timed(lambda: _run(join, ping)) / 1000
    finally:
        second.hawse("leave", "--force")


def _run(*commands: list[str]) -> None:
    for words in commands:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment()
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words[:8])} … ended with {done.returncode}: {done.stderr}")


def _swarmed(first: Docker, second: Docker) -> float:
    """Seconds of the same by a swarm's worker."""
    second("swarm", "leave")
    token = first("swarm", "join-token", "-q", "worker")

    def join() -> None:
        second("swarm", "join", "--token", token, "--advertise-addr", UNDERLAY[1], f"{UNDERLAY[0]}:2377")
        second("run", "--rm", "--network", OVERLAY, DOCKER_IMAGE, "/bin/first-ping", PEER_ADDRESS)

    return timed(join) / 1000
