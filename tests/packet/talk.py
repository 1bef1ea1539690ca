"""What containers say to each other: servers that answer, clients that ask, pings without a loss, captures."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import math
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from tests.packet.lab import WAIT_S, Lab

ETH_P_ALL = 3
PACKET_OUTGOING = 4
"""From here on, by linux/if_packet.h, a frame is one's own: on its way out, or looped back to oneself."""
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
TEN_MEGABYTES = 10_000_000
TCPI_TOTAL_RETRANS = 100
"""The offset of tcpi_total_retrans in struct tcp_info, linux/tcp.h: 8 bytes, then 24 numbers of 4 before it, less 1."""
_PORTS = iter(range(20_000, 30_000))
_SILENCE_S = 0.4
"""For what must not come; every such wait is followed by a packet of the same way that does come."""


def free_port() -> int:
    """One that no other test of this process uses."""
    return next(_PORTS)


def _accept_all(listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_served, args=(connection, serve), daemon=True).start()


def _served(connection: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with connection, contextlib.suppress(OSError):
        connection.settimeout(60)
        serve(connection)


@contextlib.contextmanager
def tcp_server(lab: Lab, place: str, family: int, port: int, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Every connection is handed to `serve`, in a thread of its own."""
    listener = lab.socket(place, FAMILIES[family], socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.settimeout(None)
    listener.bind(("", port))
    listener.listen()
    thread = threading.Thread(target=_accept_all, args=(listener, serve), daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        listener.close()
        thread.join(WAIT_S)


def digest(connection: socket.socket) -> None:
    """Serve: the SHA-256 of all that came, after the other side has ended."""
    total = hashlib.sha256()
    while part := connection.recv(1 << 20):
        total.update(part)
    connection.sendall(total.digest())


def tell(name: str) -> Callable[[socket.socket], None]:
    """Serve: say the name and end."""
    return lambda connection: connection.sendall(name.encode())


def read_all(connection: socket.socket) -> bytes:
    """Until the other side ends."""
    parts = bytearray()
    while part := connection.recv(65536):
        parts += part
    return bytes(parts)


def tcp_ask(lab: Lab, place: str, address: str, port: int, family: int) -> bytes:
    """What a server tells by itself."""
    with lab.socket(place, FAMILIES[family], socket.SOCK_STREAM) as connection:
        connection.connect((address, port))
        return read_all(connection)


def send_intact(lab: Lab, place: str, address: str, port: int, family: int, data: bytes) -> int:
    """Send to a `digest` server; fails when another digest comes back. Returns how many segments were sent twice."""
    with lab.socket(place, FAMILIES[family], socket.SOCK_STREAM) as connection:
        connection.settimeout(60)
        connection.connect((address, port))
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == hashlib.sha256(data).digest()
        return retransmissions(connection)


def retransmissions(connection: socket.socket) -> int:
    """Segments of a TCP connection that were sent again, the SYN among them."""
    information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    (count,) = struct.unpack_from("=I", information, TCPI_TOTAL_RETRANS)
    return int(count)


@contextlib.contextmanager
def udp_echo(lab: Lab, place: str, family: int, port: int, name: str = "") -> Iterator[None]:
    """Answers each datagram with itself, or with the name."""
    server = lab.socket(place, FAMILIES[family], socket.SOCK_DGRAM)
    server.settimeout(None)
    server.bind(("", port))
    stop, stopped = socket.socketpair()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while not select.select([server, stopped], [], [])[0].count(stopped):
                data, sender = server.recvfrom(65536)
                server.sendto(name.encode() or data, sender)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.close()
        thread.join(WAIT_S)
        stopped.close()
        server.close()


def udp_ask(lab: Lab, place: str, address: str, port: int, family: int, data: bytes = b"hawse") -> bytes:
    """The answer to one datagram, sent once. Raises: TimeoutError."""
    with lab.socket(place, FAMILIES[family], socket.SOCK_DGRAM) as asker:
        asker.connect((address, port))
        asker.send(data)
        return asker.recv(65536)


def ping(lab: Lab, place: str, address: str, *options: str, count: int = 1, wait_s: float = 5) -> bool:
    """Whether each of `count` echo requests is answered, the first one too; a lost one is not sent again."""
    command = ["ping", "-n", "-i", "0.01", "-c", str(count), *patience(count, wait_s), *options, address]
    return answered(lab.run(place, *command, check=False).stdout) >= set(range(1, count + 1))


def patience(count: int, wait_s: float) -> list[str]:
    """Options that have `ping` wait so long for the last answer, too.

    Once it has one answer, -W is no more: after the last request it waits for two of the longest round trips so far,
    and on a busy machine one takes ten times as long as another. By -w it goes on until so many answers are there.
    """
    return ["-W", str(wait_s)] if count == 1 else ["-w", str(math.ceil(wait_s))]


def answered(said: str) -> set[int]:
    """The numbers, from 1 on, of the requests that `ping` says were answered."""
    return {int(number) for number in re.findall(r"^\d+ bytes from .*icmp_seq=(\d+)", said, re.MULTILINE)}


def pings(lab: Lab, questions: Sequence[tuple[str, str, float]]) -> list[bool]:
    """`ping` for several (place, address, how long to wait) side by side."""
    with concurrent.futures.ThreadPoolExecutor(max(1, len(questions))) as pool:
        return list(pool.map(lambda asked: ping(lab, asked[0], asked[1], wait_s=asked[2]), questions))


class Pinger:
    """Echo requests at a fixed pace in a thread of its own, and which of them were never answered."""

    def __init__(
        self, lab: Lab, place: str, address: str, count: int, interval_s: float, late_s: float = WAIT_S
    ) -> None:
        family = 6 if ":" in address else 4
        protocol = socket.getprotobyname("ipv6-icmp") if family == 6 else socket.getprotobyname("icmp")
        # An unprivileged echo socket: the kernel fills in identifier and checksum and sorts the answers.
        self._range(lab, place)
        self._socket = lab.socket(place, FAMILIES[family], socket.SOCK_DGRAM, protocol)
        self._socket.setblocking(False)
        self._target = (address, 0)
        self._kind = 128 if family == 6 else 8
        self._count, self._interval_s = count, interval_s
        self._waiting: set[int] = set()
        self._late_s = late_s
        self.sent = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @staticmethod
    def _range(lab: Lab, place: str) -> None:
        lab.run(place, "sysctl", "-q", "-w", "net.ipv4.ping_group_range=0 2147483647")

    def _run(self) -> None:
        begin = time.monotonic()
        for number in range(self._count):
            self._hear_until(begin + number * self._interval_s)
            self._waiting.add(number)
            with contextlib.suppress(OSError):  # not sent is not answered
                self._socket.sendto(struct.pack("!BBHHH", self._kind, 0, 0, 0, number) + bytes(32), self._target)
            self.sent = number + 1
        deadline = time.monotonic() + self._late_s
        while self._waiting and time.monotonic() < deadline:
            self._hear_until(time.monotonic() + 0.05)

    def _hear_until(self, until: float) -> None:
        while True:
            left = until - time.monotonic()
            ready, _, _ = select.select([self._socket], [], [], max(0.0, left))
            if not ready:
                return
            with contextlib.suppress(OSError):
                answer = self._socket.recv(2048)
                self._waiting.discard(struct.unpack_from("!H", answer, 6)[0])

    def lost(self) -> list[int]:
        """Wait for the end; the numbers of those that were not answered."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self.sent == self._count
        self._socket.close()
        return sorted(self._waiting)


class Capture:
    """Every frame that comes in at any interface of a namespace, from its making on. Forwarded ones come in once."""

    def __init__(self, lab: Lab, place: str) -> None:
        self._socket = lab.socket(place, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
        self._frames: list[bytes] = []

    def frames(self) -> list[bytes]:
        """All that came so far."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (ifname, _, kind, *_) = self._socket.recvfrom(65535)
                if kind < PACKET_OUTGOING and ifname != "lo":
                    self._frames.append(frame)
        return self._frames

    def until(self, wanted: Callable[[bytes], bool], what: str) -> list[bytes]:
        """All frames, the wanted one among them."""
        deadline = time.monotonic() + WAIT_S
        seen = 0
        while True:
            frames = self.frames()
            if any(wanted(frame) for frame in frames[seen:]):
                return frames
            seen = len(frames)
            left = deadline - time.monotonic()
            assert left > 0, f"{what} was not seen among {seen} frames"
            select.select([self._socket], [], [], left)

    def quiet(self) -> list[bytes]:
        """All frames, after a while in which what must not come had time to come."""
        time.sleep(_SILENCE_S)  # absence cannot be awaited; the caller sends a control packet besides
        return self.frames()

    def tunnel_packets(self) -> list[Any]:
        """The frames that are VXLAN, decoded by scapy."""
        packets = [Ether(frame) for frame in self.frames() if b"\x12\xb5" in frame[:64]]
        return [packet for packet in packets if VXLAN in packet]

    def close(self) -> None:
        """End."""
        self._socket.close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def outer_of(packet: Any) -> Any:
    """The outer IP header of a tunnel packet."""
    return packet[IP] if packet[Ether].type == 0x0800 else packet[IPv6]
