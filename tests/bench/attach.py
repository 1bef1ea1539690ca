"""Rows about attaching: one, one acknowledged, many in a row, one among many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.bench.measure import Result, compare, interleave, progress, timed
from tests.bench.peers import Containers, GoBridge, IpBatch, namespace
from tests.bench.stand import Attacher, Inside, Lab, Sandboxes

ROUNDS = 40
ROW_OF_200 = 200
ROW_ROUNDS = 5


@contextmanager
def attacher(lab: Lab, host: str, network: str) -> Iterator[tuple[Attacher, Sandboxes]]:
    """Somebody who attaches, with the namespaces to attach; all released afterwards."""
    sandboxes = Sandboxes()
    client = Attacher(lab.directory / host / "agent.sock", network)
    try:
        yield client, sandboxes
    finally:
        client.remove_all()
        client.close()
        sandboxes.remove()


def against_go(lab: Lab) -> Iterator[Result]:
    """attach-vs-go-bridge, attach-acked-vs-go-bridge."""
    rows = (("attach-vs-go-bridge", "alone", 0, 0.3), ("attach-acked-vs-go-bridge", "web", 1000, 0.45))
    for slug, network, settle_ms, target in rows:
        progress(f"{slug} …")
        with namespace("go") as host, attacher(lab, "h1", network) as (client, sandboxes):
            go, containers, inside = GoBridge(host), Containers(), Inside(host)
            try:
                samples = interleave(_one(client, sandboxes, settle_ms), _go(go, containers, inside), ROUNDS, warmup=3)
            finally:
                containers.remove()
                inside.close()
                go.close()
        yield compare(slug, samples, unit="ms", target=target, peer_name="Go bridge + host-local ADD")


def _one(client: Attacher, sandboxes: Sandboxes, settle_ms: int) -> Callable[[], float]:
    def sample() -> float:
        fd = sandboxes.make()
        return timed(lambda: client.add(fd, settle_ms))

    return sample


def _go(go: GoBridge, containers: Containers, inside: Inside) -> Callable[[], float]:
    def sample() -> float:
        netns = containers.make()
        return inside.do(lambda: timed(lambda: go.add(netns)))

    return sample


def row_of_200(lab: Lab) -> Iterator[Result]:
    """attach-200-vs-ip-batch."""
    slug = "attach-200-vs-ip-batch"
    progress(f"{slug} …")

    def ours() -> float:
        with attacher(lab, "h1", "alone") as (client, sandboxes):
            fds = [sandboxes.make() for _ in range(ROW_OF_200)]
            return timed(lambda: [client.add(fd, 0) for fd in fds])

    def peer() -> float:
        with namespace("ip") as host:
            containers, batch = Containers(), IpBatch(host)
            try:
                paths = [containers.make() for _ in range(ROW_OF_200)]
                return timed(lambda: batch.add_all(paths))
            finally:
                containers.remove()

    samples = interleave(ours, peer, ROW_ROUNDS)
    yield compare(slug, samples, unit="ms", target=0.5, peer_name="two ip -batch each, no allocation")


def among_many(lab: Lab) -> Iterator[Result]:
    """attach-at-1000-vs-0: the network `web` has its thousands (see `fill`), the network `alone` has nobody."""
    slug = "attach-at-1000-vs-0"
    progress(f"{slug} …")
    with attacher(lab, "h1", "web") as (full, many), attacher(lab, "h1", "alone") as (empty, few):
        samples = interleave(_one(full, many, 0), _one(empty, few, 0), ROUNDS, warmup=3)
    yield compare(slug, samples, unit="ms", target=1.3, peer_name="the same at no endpoints")
