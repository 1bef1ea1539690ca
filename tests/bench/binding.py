"""Rows about a port that is bound: until the first ping across hosts, among few and among thousands, against OVN.

Both sides bind while a raw socket in the container asks the other host's container every two milliseconds; the clock
runs from the beginning of the binding to the first answer. OVN's logical port is there before (only the plugging is
timed); ours is allocated, made and wired within the time.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from plugin.kernel import namespace
from tests.bench import peers
from tests.bench.attach import attacher
from tests.bench.fill import REMOTE_PER_HOST, ghosts
from tests.bench.janitor import Janitor
from tests.bench.measure import Result, compare, interleave, progress
from tests.bench.ovn import Ovn, address, ovn
from tests.bench.stand import Attacher, Lab, Sandboxes, lab

ROUNDS = 15
COUNTS = (0, 1000, 5000)
ASK_EVERY_S = 0.002
ANSWER_S = 30.0
TOPOLOGY = """\
name: NAME
hosts:
  h1: {datapath: openflow}
  h2: {datapath: openflow}
networks:
  web: {subnets: [10.200.0.0/16]}
  alone: {subnets: [10.201.0.0/16]}
containers:
  far: {host: h2, networks: [{network: web, ip: 10.200.255.2}, {network: alone, ip: 10.201.255.2}]}
"""
FAR = {"web": "10.200.255.2", "alone": "10.201.255.2"}


def first_answer(netns_fd: int, target: str, bind: Callable[[], object]) -> float:
    """Milliseconds from the beginning of `bind` to the first echo reply of the target."""
    request = _echo_request()
    with namespace.socket_in(
        netns_fd, socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP
    ) as ear:
        ear.settimeout(ASK_EVERY_S)
        binding = threading.Thread(target=bind)
        begin = time.perf_counter()
        binding.start()
        try:
            while time.perf_counter() - begin < ANSWER_S:
                with contextlib.suppress(OSError):  # until there is an interface, nothing can be sent
                    ear.sendto(request, (target, 0))
                if _answered(ear, target):
                    return (time.perf_counter() - begin) * 1000
        finally:
            binding.join()
    raise RuntimeError(f"{target} did not answer within {ANSWER_S:g} s")


def _answered(ear: socket.socket, target: str) -> bool:
    """Whether an echo reply of the target comes before it is time to ask again."""
    deadline = time.perf_counter() + ASK_EVERY_S
    while (left := deadline - time.perf_counter()) > 0:
        ear.settimeout(left)
        try:
            packet, (sender, _) = ear.recvfrom(200)
        except OSError:
            continue
        if sender == target and packet[20] == 0:
            return True
    return False


def _echo_request() -> bytes:
    body = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, 1) + b"bench..."
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    return body[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + body[4:]


def against_ovn(janitor: Janitor) -> Iterator[Result]:
    """bind-vs-ovn-0, -1000, -5000, bind-5000-vs-0."""
    with ovn(janitor) as peer, _Plug(peer) as plug, lab(janitor, TOPOLOGY) as one:
        there = 0
        for count in COUNTS:
            slug = f"bind-vs-ovn-{count}"
            progress(f"{slug}: filling …")
            ghosts(one, "web", there // REMOTE_PER_HOST, count // REMOTE_PER_HOST)
            peer.fill(count)
            there = count
            progress(f"{slug} …")
            with attacher(one, "h1", "web") as (client, sandboxes):
                samples = interleave(_ours(client, sandboxes, "web"), plug.sample, ROUNDS, warmup=2)
            yield compare(slug, samples, unit="ms", target=1.0, peer_name=f"OVN, plugging alone, {count} other ports")
        yield from _few_and_many(one)


def _few_and_many(one: Lab) -> Iterator[Result]:
    slug = "bind-5000-vs-0"
    progress(f"{slug} …")
    with attacher(one, "h1", "web") as (full, many), attacher(one, "h1", "alone") as (empty, few):
        samples = interleave(_ours(full, many, "web"), _ours(empty, few, "alone"), ROUNDS, warmup=2)
    yield compare(slug, samples, unit="ms", target=1.3, peer_name="the same at no other endpoints")


def _ours(client: Attacher, sandboxes: Sandboxes, network: str) -> Callable[[], float]:
    def sample() -> float:
        fd = sandboxes.make()
        return first_answer(fd, FAR[network], lambda: client.add(fd, 0))

    return sample


class _Plug:
    """Binds logical ports of OVN: the far one once, a near one for each sample, in a container with a ready veth."""

    def __init__(self, peer: Ovn) -> None:
        self._peer = peer
        self._containers = peers.Containers()
        self._number = 40_000  # beyond those that fill

    def __enter__(self) -> _Plug:
        far = self._container(self._peer.far.netns, 1)
        self._peer.far.vsctl(*_plugged(1))
        self._far = Path(far).name
        return self

    def __exit__(self, *_: object) -> None:
        self._containers.remove()

    def sample(self) -> float:
        """One, of a new logical port."""
        self._number += 1
        number = self._number
        self._peer.add(number)
        netns = self._container(self._peer.near.netns, number)
        _neighbour(Path(netns).name, 1)
        _neighbour(self._far, number)
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return first_answer(fd, address(1)[1], lambda: self._peer.near.vsctl(*_plugged(number)))
        finally:
            os.close(fd)
            self._peer.near.vsctl("--if-exists", "del-port", "br-int", f"v{number}")
            _ip(Path(self._peer.near.netns).name, f"link del v{number}")
            self._peer.remove(number)

    def _container(self, host: str, number: int) -> str:
        """A namespace with a veth to the host, whose other end is not plugged yet."""
        netns, (mac, ip) = self._containers.make(), address(number)
        inside, outside = Path(netns).name, Path(host).name
        _ip(outside, f"link add v{number} type veth peer name eth0 address {mac} netns {inside}")
        _ip(outside, f"link set v{number} up")
        _ip(inside, f"addr add {ip}/10 dev eth0")
        _ip(inside, "link set eth0 up")
        return netns


def _plugged(number: int) -> tuple[str, ...]:
    port = f"v{number}"
    return ("add-port", "br-int", port, "--", "set", "interface", port, f"external_ids:iface-id=p{number}")


def _neighbour(inside: str, number: int) -> None:
    mac, ip = address(number)
    _ip(inside, f"neigh replace {ip} lladdr {mac} dev eth0 nud permanent")


def _ip(name: str, command: str) -> None:
    subprocess.run(["ip", "-n", name, *command.split()], check=True, capture_output=True)
