"""Rows about packets: one TCP stream and round trips, across hosts and on one host, against the raw path."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.measure import Result, compare, interleave, progress
from tests.bench.peers import namespace
from tests.bench.stand import Inside, Lab

ROUNDS = 7
STREAM_S = 2
ROUND_TRIPS = 4000
CLIENT_CPU, SERVER_CPU = 0, 1
READY_TIMEOUT_S = 10.0

ECHO = """
import os, socket, sys
os.sched_setaffinity(0, {CPU})
server = socket.create_server((sys.argv[1], 7007))
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(64):
        connection.send(data)
"""


@contextmanager
def server(inside: Inside, command: list[str], ready: str) -> Iterator[None]:
    """A server process in a namespace, awaited by a line that it prints, stopped afterwards."""
    process = inside.do(lambda: subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if ready in line:
                break
        yield
    finally:
        process.kill()
        process.wait()


def _gigabits(client: Inside, address: str) -> float:
    command = ["taskset", "-c", str(CLIENT_CPU), "iperf3", "-J", "-c", address, "-t", str(STREAM_S), "-O", "0.5"]
    command = [part for part in command if part not in ("-O", "0.5")]
    done = client.do(lambda: subprocess.run(command, capture_output=True, text=True, check=True))
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9


def _round_trip_us(client: Inside, address: str) -> float:
    def run() -> float:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {CLIENT_CPU})
        times = []
        try:
            with socket.create_connection((address, 7007), timeout=5) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for _ in range(ROUND_TRIPS):
                    start = time.perf_counter()
                    connection.send(b"x" * 32)
                    connection.recv(64)
                    times.append(time.perf_counter() - start)
        finally:
            os.sched_setaffinity(0, before)
        return statistics.median(times) * 1e6

    return client.do(run)


def _echo_command(address: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", ECHO.replace("CPU", str(SERVER_CPU)), address]


def _iperf_command(address: str) -> list[str]:
    return ["taskset", "-c", str(SERVER_CPU), "iperf3", "-s", "-B", address, "--forceflush"]


@contextmanager
def insides(*paths: str) -> Iterator[list[Inside]]:
    """Threads in namespaces."""
    threads = [Inside(path) for path in paths]
    try:
        yield threads
    finally:
        for thread in threads:
            thread.close()


def _address(lab: Lab, container: str) -> str:
    endpoints = lab.rest("endpoint", "ls")
    return next(
        str(endpoint["addresses"][0]).partition("/")[0]
        for endpoint in endpoints
        if endpoint.get("container") == container or endpoint.get("name") == container
    )


def across(lab: Lab) -> Iterator[Result]:
    """tcp-vs-underlay, rtt-vs-underlay."""
    hosts = {host["name"]: host for host in lab.rest("host", "ls")}
    underlay = hosts["h2"]["vtep4"]
    one, two = lab.container("h1", "c1"), lab.container("h2", "c2")
    inner = _address(lab, two["id"])
    paths = (one["netns"], two["netns"], lab.host_namespace("h1"), lab.host_namespace("h2"))
    with insides(*paths) as (c1, c2, h1, h2):
        progress("tcp-vs-underlay …")
        with (
            server(c2, _iperf_command(inner), "listening"),
            server(h2, _iperf_command(underlay), "listening"),
        ):
            samples = interleave(lambda: _gigabits(c1, inner), lambda: _gigabits(h1, underlay), ROUNDS)
        yield compare(
            "tcp-vs-underlay", samples, unit="Gb", target=0.88, better="higher", peer_name="raw underlay path"
        )
        progress("rtt-vs-underlay …")
        with server(c2, _echo_command(inner), "ready"), server(h2, _echo_command(underlay), "ready"):
            samples = interleave(lambda: _round_trip_us(c1, inner), lambda: _round_trip_us(h1, underlay), ROUNDS)
        yield compare("rtt-vs-underlay", samples, unit="us", target=1.4, peer_name="raw underlay path")


def same_host(lab: Lab) -> Iterator[Result]:
    """same-host-rtt-vs-veth."""
    slug = "same-host-rtt-vs-veth"
    progress(f"{slug} …")
    one, three = lab.container("h1", "c1"), lab.container("h1", "c3")
    inner = _address(lab, three["id"])
    with namespace("v1") as left, namespace("v2") as right:
        _veth(os.path.basename(left), os.path.basename(right))
        with (
            insides(one["netns"], three["netns"], left, right) as (c1, c3, v1, v2),
            server(c3, _echo_command(inner), "ready"),
            server(v2, _echo_command("10.250.0.2"), "ready"),
        ):
            samples = interleave(lambda: _round_trip_us(c1, inner), lambda: _round_trip_us(v1, "10.250.0.2"), ROUNDS)
    yield compare(slug, samples, unit="us", target=1.2, peer_name="raw veth pair")


def _veth(left: str, right: str) -> None:
    for line in (
        f"-n {left} link add v0 type veth peer name v0 netns {right}",
        f"-n {left} addr add 10.250.0.1/24 dev v0",
        f"-n {right} addr add 10.250.0.2/24 dev v0",
        f"-n {left} link set v0 up",
        f"-n {right} link set v0 up",
    ):
        subprocess.run(["ip", *line.split()], check=True)
