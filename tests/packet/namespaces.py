"""Network namespaces for tests, and taps in them: frames go out and come in as bytes, whole."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from plugin.kernel import namespace
from tests.session_janitor import session_name

_ETH_P_ALL = 3
_OUTGOING = 4
_WAIT_S = 20.0


class TestNamespace:
    """A namespace named after the test session, under /run/netns so that `ip -n` and a person can find it."""

    __test__ = False

    def __init__(self) -> None:
        self.name = f"{session_name()}-{os.urandom(4).hex()}"
        self._path = Path("/run/netns") / self.name
        namespace.create(self._path, lambda: namespace.write_sysctls(_QUIET))
        self.fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def ip(self, commands: str) -> None:
        """Run lines of `ip` in it."""
        _batch(["ip", "-n", self.name], commands)

    def bridge(self, commands: str) -> None:
        """Run lines of `bridge` in it."""
        _batch(["bridge", "-n", self.name], commands)

    def close(self) -> None:
        """Remove it."""
        os.close(self.fd)
        namespace.remove(self._path)


# Nothing but what a test sends is on the wire, and bridged frames stay out of the inet hooks, as under the agent.
_QUIET = {
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/addr_gen_mode": "1",
    "ipv6/conf/default/router_solicitations": "0",
    "ipv4/conf/all/arp_ignore": "1",
    "bridge/bridge-nf-call-iptables": "0",
    "bridge/bridge-nf-call-ip6tables": "0",
    "bridge/bridge-nf-call-arptables": "0",
}


@contextlib.contextmanager
def namespaces(count: int) -> Iterator[list[TestNamespace]]:
    """Some namespaces, removed whatever happens."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            one = TestNamespace()
            stack.callback(one.close)
            made.append(one)
        yield made


class Tap:
    """A packet socket on an interface of a namespace."""

    def __init__(self, inside: TestNamespace, ifname: str) -> None:
        self._socket = namespace.socket_in(
            inside.fd, socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(_ETH_P_ALL)
        )
        self._socket.bind((ifname, _ETH_P_ALL))
        self._socket.setblocking(False)

    def send(self, frame: bytes) -> None:
        """Put a frame on the interface."""
        self._socket.send(frame)

    def drain(self) -> None:
        """Forget what has come in so far."""
        while self._receive() is not None:
            pass

    def until(self, wanted: Callable[[bytes], bool], what: str) -> list[bytes]:
        """The frames that came in up to and with the first wanted one; fails when it does not come."""
        seen: list[bytes] = []
        deadline = time.monotonic() + _WAIT_S
        while (left := deadline - time.monotonic()) > 0:
            frame = self._receive()
            if frame is None:
                select.select([self._socket], [], [], left)
                continue
            seen.append(frame)
            if wanted(frame):
                return seen
        raise AssertionError(f"{what} did not arrive; these did: {[frame.hex() for frame in seen]}")

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _receive(self) -> bytes | None:
        """The next frame that came in (not one that went out); None: there is none yet."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (_, _, direction, *_) = self._socket.recvfrom(65535)
                if direction != _OUTGOING:
                    return bytes(frame)
        return None


def _batch(command: list[str], lines: str) -> None:
    done = subprocess.run(
        [*command, "-batch", "-"], input=lines, text=True, capture_output=True, check=False, timeout=30
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
