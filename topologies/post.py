"""A station with its sockets: made inside the container's namespace, used from outside by one event loop.

The tap hears every frame that arrives at any interface, whoever it is for; the servers prove that a packet went up the
container's own stack; what is sent as a frame goes out as it is, whatever the container's routes say.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from pathlib import Path

from plugin.kernel import namespace
from sdn.model.errors import HawseError, Kind, unavailable
from topologies.frames import ICMP, ICMP6, echo_message
from topologies.plan import Station

ETHERTYPE_ALL = 3
PACKET_OUTGOING = 4
FRAME_BYTES_MAX = 65536
FRAMES_A_TURN_MAX = 256
"""Of one tap, before the loop looks at the others."""
PORT_FIRST, PORT_LAST = 47_801, 47_899
"""One port that is free in every container is used in all of them: overlapping tenants must be able to mishear."""
BUFFER_BYTES = 4 << 20
_SO_RCVBUFFORCE = 33
_SOL_RAW = 255
_ICMP_FILTER = 1
_BACKLOG = 1024


class Post:
    """One container's sockets. All are non-blocking; `close` ends them."""

    def __init__(self, station: Station, port: int) -> None:
        """Raises: OSError with EADDRINUSE when the port is taken; UNAVAILABLE when the namespace is gone."""
        self.station = station
        self.port = port
        self._namespace = _open_namespace(station)
        self._stack = contextlib.ExitStack()
        self._stack.callback(os.close, self._namespace)
        try:
            namespace.run_in(self._namespace, self._open)
        except BaseException:
            self._stack.close()
            raise

    def _open(self) -> None:
        self.tap = self._socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE_ALL))
        with contextlib.suppress(OSError):
            self.tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
        self._ping = {
            4: self._socket(socket.AF_INET, socket.SOCK_RAW, ICMP),
            6: self._socket(socket.AF_INET6, socket.SOCK_RAW, ICMP6),
        }
        # The tap sees the answers; these two only send.
        self._ping[4].setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF))
        self._ping[6].setsockopt(ICMP6, _ICMP_FILTER, b"\xff" * 32)
        self.udp = {family: self._bound(family, socket.SOCK_DGRAM) for family in (4, 6)}
        self.tcp = {family: self._bound(family, socket.SOCK_STREAM) for family in (4, 6)}
        for listener in self.tcp.values():
            listener.listen(_BACKLOG)

    def _socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        opened = self._stack.enter_context(socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol))
        opened.setblocking(False)
        return opened

    def _bound(self, family: int, kind: int) -> socket.socket:
        bound = self._socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind)
        if family == 6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("::" if family == 6 else "0.0.0.0", self.port))  # noqa: S104 - all addresses of a container
        return bound

    def streams(self, family: int, count: int) -> list[socket.socket]:
        """Unconnected TCP sockets; the caller closes them."""
        kind = socket.AF_INET6 if family == 6 else socket.AF_INET

        def make() -> list[socket.socket]:
            made = [socket.socket(kind, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) for _ in range(count)]
            for one in made:
                one.setblocking(False)
            return made

        return namespace.run_in(self._namespace, make)

    def ping(self, family: int, address: str, number: int, payload: bytes) -> bool:
        """Send an echo request; False: the container's own stack refused."""
        return self._send(self._ping[family], echo_message(family, number, payload), (address, 0))

    def datagram(self, family: int, address: str, payload: bytes) -> bool:
        """Send a UDP datagram to the port that everybody serves; False: the container's own stack refused."""
        return self._send(self.udp[family], payload, (address, self.port))

    def frame(self, ifname: str, raw: bytes) -> bool:
        """Send a frame as it is; False: the interface refused."""
        return self._send(self.tap, raw, (ifname, 0))

    @staticmethod
    def _send(through: socket.socket, payload: bytes, target: tuple[str, int]) -> bool:
        try:
            through.sendto(payload, target)
        except OSError:
            return False
        return True

    def frames(self) -> list[bytes]:
        """The frames that arrived since the last call, the oldest first, at most a turn's worth."""
        heard: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(FRAMES_A_TURN_MAX):
                raw, (ifname, _, direction, *_rest) = self.tap.recvfrom(FRAME_BYTES_MAX)
                if direction != PACKET_OUTGOING and ifname != "lo":
                    heard.append(raw)
        return heard

    def close(self) -> None:
        """Close every socket."""
        self._stack.close()


def _open_namespace(station: Station) -> int:
    fd = namespace.open_pinned(Path(station.netns))
    if fd is None:
        raise unavailable(
            f"the namespace {station.netns} of container {station.name} is gone", "take the lab down and up again"
        )
    return fd


def open_posts(stations: list[Station]) -> list[Post]:
    """A post for each station, all on one port. Raises: UNAVAILABLE."""
    for port in range(PORT_FIRST, PORT_LAST + 1):
        posts: list[Post] = []
        try:
            for station in stations:
                posts.append(Post(station, port))
        except OSError as error:
            for post in posts:
                post.close()
            if error.errno == errno.EADDRINUSE:
                continue
            raise HawseError(Kind.UNAVAILABLE, f"cannot open sockets in {station.name}: {error}") from None
        except HawseError:
            for post in posts:
                post.close()
            raise
        return posts
    raise unavailable(f"no port from {PORT_FIRST} to {PORT_LAST} is free in every container", "stop what listens there")
