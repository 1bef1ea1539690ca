"""Rows about whole processes: a lab's way up and down, resident memory, the command's start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.measure import Result, compare, interleave, progress, timed
from tests.bench.stand import TOPOLOGY, Lab, hawse

ROUNDS = 5
COMMAND_ROUNDS = 25


def lab_up_and_down() -> Iterator[Result]:
    """lab-up, lab-down; Mininet's two bare hosts beside it."""
    progress("lab-up, lab-down …")
    ups: list[float] = []
    downs: list[float] = []
    peer_ups: list[float] = []
    peer_downs: list[float] = []
    with tempfile.TemporaryDirectory(prefix="hawse-bench-") as folder:
        file = Path(folder) / "topology.yaml"
        for index in range(-1, ROUNDS):
            name = f"bench-{os.urandom(3).hex()}"
            file.write_text(TOPOLOGY.replace("NAME", name))
            up = timed(lambda: hawse("lab", "up", "-q", str(file))) / 1000
            down = timed(lambda name=name: hawse("lab", "down", name)) / 1000  # type: ignore[misc]
            peer_up, peer_down = _mininet()
            if index >= 0:
                ups.append(up)
                downs.append(down)
                peer_ups.append(peer_up)
                peer_downs.append(peer_down)
    note = "Mininet's hosts are bare shells on one bridge: no controller, no allocation, no overlay"
    yield compare(
        "lab-up", (ups, peer_ups), unit="s", target=1.5, peer_name="Mininet, orientation", absolute=True, note=note
    )
    yield compare(
        "lab-down", (downs, peer_downs), unit="s", target=0.5, peer_name="Mininet, orientation", absolute=True
    )


def _mininet() -> tuple[float, float]:
    """Seconds that Mininet takes for two hosts on a Linux bridge, up and down, its interpreter's start included."""
    code = (
        "import time; a = time.perf_counter()\n"
        "from mininet.net import Mininet\nfrom mininet.topo import SingleSwitchTopo\n"
        "from mininet.nodelib import LinuxBridge\n"
        "n = Mininet(topo=SingleSwitchTopo(2), switch=LinuxBridge, controller=None); n.start()\n"
        "b = time.perf_counter(); n.stop(); print(b - a, time.perf_counter() - b)\n"
    )
    command = ["unshare", "-n", "/usr/bin/python3", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    up, down = done.stdout.split()[-2:]
    return float(up), float(down)


def resident_mb(pid: int) -> float:
    """Resident memory of a process, MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found
    return int(found[1]) / 1000


def memory(lab: Lab, daemon_pid: Callable[[str], int]) -> Iterator[Result]:
    """agent-rss, controller-rss: against what a bare interpreter with the daemon's libraries holds."""
    for slug, place, imports, target in (
        ("agent-rss", "h1", "asyncio, msgspec, aiohttp, structlog", 60),
        ("controller-rss", "controller", "asyncio, msgspec, aiohttp, structlog, cryptography, prometheus_client", 100),
    ):
        progress(f"{slug} …")
        mine = resident_mb(daemon_pid(place))
        yield compare(
            slug,
            ([mine], [_bare_mb(imports)]),
            unit="MB",
            target=target,
            peer_name="an interpreter that imported the same libraries",
            absolute=True,
        )


def _bare_mb(imports: str) -> float:
    code = f"import {imports}, sys; print('ready', flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        return resident_mb(process.pid)
    finally:
        process.communicate()


def command_start(lab: Lab) -> Iterator[Result]:
    """network-ls-vs-python: the command against a bare interpreter."""
    slug = "network-ls-vs-python"
    progress(f"{slug} …")
    hawse_path = Path(sys.executable).with_name("hawse")
    ours = [str(hawse_path), "--root", str(lab.directory / "h1"), "network", "ls"]
    peer = [sys.executable, "-c", "pass"]
    samples = interleave(
        lambda: timed(lambda: subprocess.run(ours, stdout=subprocess.DEVNULL, check=True)),
        lambda: timed(lambda: subprocess.run(peer, check=True)),
        COMMAND_ROUNDS,
    )
    yield compare(slug, samples, unit="ms", target=12, peer_name="python3 -c pass")
