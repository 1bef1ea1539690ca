"""Rows about launching: to the first instruction, against bubblewrap and crun; and how many in a second."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from runtime.daemon.processes import Confinement
from sdn.service.roots import Root
from tests.bench.janitor import Janitor
from tests.bench.launchers import Crun, bwrap_command, find, first_instruction_ms, spawn_silently
from tests.bench.measure import Result, compare, interleave, progress
from tests.bench.programs import make_tree
from tests.bench.stand import scratch
from tests.bench.supervised import Launcher, supervisor

ROUNDS = 60
CRUN_ROUNDS = 40
RATE_ROUNDS = 7
RATE_LAUNCHES = 150
"""Of each client in each round: a third of a second."""
CLIENTS = 2
PROGRAM = "/bin/clock"


@contextmanager
def standing(janitor: Janitor) -> Iterator[tuple[Path, Path, Root, Confinement]]:
    """A directory, the tree that both sides launch from, and a supervisor."""
    with scratch(janitor) as directory:
        tree = make_tree(directory / "tree")
        with supervisor(directory / "root", janitor) as (root, confinement):
            yield directory, tree, root, confinement


def against_bwrap(janitor: Janitor) -> Iterator[Result]:
    """launch-vs-bwrap: its request is the spawn of `bwrap`, ours one line on the supervisor's socket."""
    slug = "launch-vs-bwrap"
    progress(f"{slug} …")
    find("bwrap", "bubblewrap")
    with standing(janitor) as (_, tree, root, confinement):
        ours = Launcher(root, tree, PROGRAM, confinement, "l")
        peer = bwrap_command(tree, PROGRAM)
        samples = interleave(ours.first_instruction_ms, lambda: first_instruction_ms(peer), ROUNDS, warmup=5)
        ours.close()
    note = (
        "request to the program's first act; ours: overlay, cgroup, seccomp, masks, log besides the namespaces; "
        "bwrap: namespaces, a read-only bind, /proc, a small /dev"
    )
    yield compare(slug, samples, unit="ms", target=1.0, peer_name="bwrap --unshare-all", note=note)


def against_crun(janitor: Janitor) -> Iterator[Result]:
    """launch-vs-crun: the same, with the same capabilities, filter and masks on both sides."""
    slug = "launch-vs-crun"
    progress(f"{slug} …")
    find("crun", "crun")
    cgroup = f"hwt-crun-{os.urandom(3).hex()}"
    with standing(janitor) as (directory, tree, root, confinement), janitor.keep("cgroup", cgroup):
        crun = Crun(directory, tree, PROGRAM, confinement.capabilities, cgroup)
        ours = Launcher(root, tree, PROGRAM, confinement, "l")
        try:
            samples = interleave(ours.first_instruction_ms, crun.sample, CRUN_ROUNDS, warmup=3)
        finally:
            ours.close()
            crun.close()
    note = "request to the program's first act; both with a cgroup, the same capabilities, seccomp filter and masks"
    yield compare(slug, samples, unit="ms", target=0.25, peer_name="crun run, cgroup v2", note=note)


def rate(janitor: Janitor) -> Iterator[Result]:
    """launches-vs-bwrap: two clients, each one launch after the other, until the container has gone altogether."""
    slug = "launches-vs-bwrap"
    progress(f"{slug} …")
    find("bwrap", "bubblewrap")
    with standing(janitor) as (_, tree, root, confinement):
        context = multiprocessing.get_context("fork")
        start = context.Barrier(CLIENTS)
        with context.Pool(CLIENTS, _become_client, (start, root, tree, confinement)) as pool:
            samples = interleave(lambda: _per_second(pool, _ours), lambda: _per_second(pool, _bwraps), RATE_ROUNDS)
    note = f"{CLIENTS} clients, {RATE_LAUNCHES} each: launched, ended, exit told, nothing left of it"
    yield compare(slug, samples, unit="/s", target=1.0, better="higher", peer_name="bwrap --unshare-all", note=note)


def _per_second(pool: Any, work: Any) -> float:
    spans = pool.map(work, range(CLIENTS), chunksize=1)
    seconds: float = max(end for _, end in spans) - min(begin for begin, _ in spans)
    return CLIENTS * RATE_LAUNCHES / seconds


class _Client:
    """What a worker process has."""

    barrier: Barrier
    launcher: Launcher
    bwrap: list[str]


def _become_client(barrier: Barrier, root: Root, tree: Path, confinement: Confinement) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the bench's means something else
    _Client.barrier = barrier
    _Client.launcher = Launcher(root, tree, PROGRAM, confinement, f"r{os.getpid()}-")
    _Client.bwrap = bwrap_command(tree, PROGRAM)


def _ours(_number: int) -> tuple[float, float]:
    plans = [_Client.launcher.plan() for _ in range(RATE_LAUNCHES)]
    _Client.barrier.wait()
    begin = time.monotonic()
    for plan in plans:
        _Client.launcher.run(plan)
    return begin, time.monotonic()


def _bwraps(_number: int) -> tuple[float, float]:
    _Client.barrier.wait()
    begin = time.monotonic()
    for _ in range(RATE_LAUNCHES):
        os.waitpid(spawn_silently(_Client.bwrap), 0)
    return begin, time.monotonic()
