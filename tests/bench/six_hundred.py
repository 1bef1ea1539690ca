"""Rows about many idle containers: how long they take to start and to go, whether all answer, what they cost."""

from __future__ import annotations

import concurrent.futures
import os
import re
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.dockers import IMAGE as DOCKER_IMAGE
from tests.bench.dockers import dockers
from tests.bench.janitor import Janitor
from tests.bench.launchers import bwrap_command, spawn_silently
from tests.bench.measure import PeerMissingError, Result, compare, progress, timed
from tests.bench.programs import make_tree
from tests.bench.runtimes import Runtime, address_of, idle, two_hosts
from tests.bench.stand import Inside, scratch
from tests.bench.supervised import Launcher, supervisor

COUNT = 600
FEW = 100
SHIMS = 5
CLIENTS = 16
PATIENCE_S = 5.0
ASKED_AT_ONCE = 100
"""The kernel has one neighbour table for all namespaces, of 1024 entries unless the machine's owner raised it: the 600
entries of those who are asked fit, but not as many again of who asks."""
RESEND_S = 0.1
ECHO_REQUEST, ECHO_REPLY = 8, 0


def supervisor_bytes(janitor: Janitor) -> Iterator[Result]:
    """supervisor-bytes-per-container: private memory of supervisor and keeper, from 100 to 600 idle containers."""
    slug = "supervisor-bytes-per-container"
    progress(f"{slug} …")
    with scratch(janitor) as directory:
        tree = make_tree(directory / "tree")
        with supervisor(directory / "root", janitor) as (root, confinement):
            launcher = Launcher(root, tree, "/bin/idle", confinement, "m")
            pids = launcher.pids()
            before = 0.0
            for number in range(COUNT):
                if number == FEW:
                    before = _private_kb(pids)
                launcher.start(launcher.plan())
            growth = (_private_kb(pids) - before) / (COUNT - FEW)
            launcher.close()
    peer, note = _shim_kb(janitor)
    note = f"private memory of supervisor and keeper, {FEW} to {COUNT} idle containers, by container{note}"
    yield compare(
        slug, ([growth], [peer]), unit="kB", target=4.0, peer_name="containerd's shim", absolute=True, note=note
    )


def _private_kb(pids: Iterable[int]) -> float:
    """kB (1024 bytes, as the kernel's) that only these processes have."""
    total = 0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += sum(int(number) for number in re.findall(r"^Private_\w+: +(\d+) kB", rollup, re.MULTILINE))
    return float(total)


def _shim_kb(janitor: Janitor) -> tuple[float, str]:
    """Private memory of one of Docker's shims, and what to add to the note where there is none."""
    try:
        with dockers(janitor, 1) as (docker,):
            for _ in range(SHIMS):
                docker("run", "-d", "--network", "none", DOCKER_IMAGE, "/bin/idle")
            children = Path(f"/proc/{docker.pid}/task/{docker.pid}/children").read_text().split()
            shims = [int(pid) for pid in children if "shim" in Path(f"/proc/{pid}/comm").read_text()]
            return _private_kb(shims) / len(shims), ""
    except PeerMissingError as missing:
        return 0.0, f"; no peer: {missing}"


def six_hundred(janitor: Janitor) -> Iterator[Result]:
    """six-hundred-start, six-hundred-reached, six-hundred-remove: through the daemon, on one host of two."""
    progress("six-hundred …")
    with two_hosts(janitor) as (_, runtime, other):
        other.start_idle()
        info = other.ask({"verb": "PS"})["items"][0]
        names: list[str] = []
        start = timed(lambda: names.extend(_each(runtime, range(COUNT), _run))) / 1000
        addresses = [address_of(one) for one in runtime.ask({"verb": "PS"})["items"]]
        inside = Inside(f"/proc/{info['pid']}/ns/net")
        try:
            reached = [
                address
                for begin in range(0, COUNT, ASKED_AT_ONCE)
                for address in inside.do(lambda begin=begin: _asked(addresses[begin : begin + ASKED_AT_ONCE]))  # type: ignore[misc]
            ]
        finally:
            inside.close()
        remove = timed(lambda: _each(runtime, names, _remove)) / 1000
    bare_start, bare_remove = _bare(janitor)
    peer_name = "as many bwrap, no network: orientation"
    note = f"{COUNT} idle containers on one network, requested of the daemon by {CLIENTS} clients, all told to run"
    yield compare(
        "six-hundred-start", ([start], [bare_start]), unit="s", target=10, peer_name=peer_name, absolute=True, note=note
    )
    yield compare(
        "six-hundred-reached",
        ([float(len(reached))], [float(COUNT)]),
        unit="",
        target=COUNT,
        better="higher",
        peer_name="all of them",
        absolute=True,
        note="those that answer a ping from a container on the other host",
    )
    note = "removed by force, until the daemon has told of each that nothing is left"
    yield compare(
        "six-hundred-remove",
        ([remove], [bare_remove]),
        unit="s",
        target=10,
        peer_name=peer_name,
        absolute=True,
        note=note,
    )


def _run(connection: Any, _number: int) -> str:
    return str(connection.request({"verb": "RUN", "container": idle()})["id"])


def _remove(connection: Any, name: str) -> str:
    connection.request({"verb": "RM", "container": name, "force": True})
    return name


def _each(runtime: Runtime, things: Iterable[Any], do: Callable[[Any, Any], str]) -> list[str]:
    """One request for each thing, by several clients at once."""
    waiting = list(things)

    def client(_number: int) -> list[str]:
        done: list[str] = []
        with runtime.connect() as connection:
            while True:
                try:
                    thing = waiting.pop()
                except IndexError:
                    return done
                done.append(do(connection, thing))

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        return [name for names in pool.map(client, range(CLIENTS)) for name in names]


def _asked(addresses: list[str]) -> set[str]:
    found = answering(addresses)
    subprocess.run(["ip", "neigh", "flush", "dev", "eth0"], check=True, capture_output=True)
    return found


def answering(addresses: Iterable[str]) -> set[str]:
    """Which of them answer an echo request, sent from the namespace of the calling thread."""
    silent = set(addresses)
    answered: set[str] = set()
    checksum = ~(ECHO_REQUEST + 0x4857) & 0xFFFF
    echo = struct.pack("=BBHHH", ECHO_REQUEST, 0, checksum, 0x4857, 0)
    deadline = time.monotonic() + PATIENCE_S
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
        icmp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        while silent and time.monotonic() < deadline:
            for address in silent:
                icmp.sendto(echo, (address, 0))
            while select.select([icmp], [], [], RESEND_S)[0]:
                packet, (address, _) = icmp.recvfrom(256)
                if packet[(packet[0] & 15) * 4] == ECHO_REPLY and address in silent:
                    answered.add(address)
            silent -= answered
    return answered


def _bare(janitor: Janitor) -> tuple[float, float]:
    """Seconds that as many idle bwraps take to be spawned and to have executed; and to be killed and be gone."""
    with scratch(janitor) as directory:
        command = bwrap_command(make_tree(directory / "tree"), "/bin/idle")
        pids: list[int] = []
        keeps: list[int] = []

        def spawn() -> None:
            for _ in range(COUNT):
                pids.append(spawn_silently(command))
                keeps.append(janitor.add("process", pids[-1]))
            for pid in pids:
                _wait_executed(pid)

        def kill() -> None:
            for pid in pids:
                os.kill(pid, 9)
            for pid in pids:
                os.waitpid(pid, 0)

        start = timed(spawn) / 1000
        remove = timed(kill) / 1000
        for number in keeps:
            janitor.forget(number)
    return start, remove


def _wait_executed(pid: int) -> None:
    """Until the program in it runs: bwrap's process has one child, the container's first, which has the program."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        children = _children(pid)
        if children and any(_comm(child) == "idle" for child in (*children, *_children(children[0]))):
            return
        time.sleep(0.002)
    raise PeerMissingError("bwrap did not execute the program")


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


__all__ = ["answering", "six_hundred", "supervisor_bytes"]
