"""The paths to the other hosts: probed in both directions, with packets as tunnels send them, of all sizes.

Volleys: sizes go out together, what came back decides the next ones. A quiet fabric is done after one; where the path
is narrower than the uplink, each further volley cuts what is open to a ninth.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Sequence

from plugin.agent import probe
from sdn.model.address import Family, family_of
from sdn.model.contract import ExamineResult
from sdn.model.stream import Peer

ANSWER_S = 0.25
"""A round trip to the other side of the world, nearly; asked twice. Who has answered is waited for three times as long
as that took."""
ANSWER_LEAST_S = 0.04
USUAL_SIZES = (576, 1280, 1400, 1420, 1450, 1460, 1472, 1480, 1492, 1500, 8000, 8942, 9000)
"""Where paths end usually: PPPoE, tunnels in tunnels, clouds, jumbo frames."""
VOLLEY_SIZES = 8
VOLLEYS_MAX = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Path:
    """What is probed. `limit_bytes`: the uplink's MTU; `needed_bytes`: of the widest network there (0: none is)."""

    peer: str
    family: Family
    source: str
    target: str
    limit_bytes: int
    needed_bytes: int
    shared: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """The largest IP packet that went through, there and back; 0: none did. `pinged`: it answers to ICMP."""

    path: Path
    forward_bytes: int
    backward_bytes: int
    pinged: bool | None = None


def paths_of(host: ExamineResult, peers: Iterable[Peer], limits: dict[str, int]) -> list[Path]:
    """Each pair of VTEPs of one family. `limits`: the MTU of the uplink by VTEP, of this host."""
    found: list[Path] = []
    for peer in peers:
        if peer.problem:
            continue
        shared = [network.mtu_bytes for network in host.networks if peer.name in network.peers]
        widest = max(shared or [network.mtu_bytes for network in host.networks], default=0)
        pairs = [
            (mine, theirs) for mine, theirs in ((host.vtep4, peer.vtep4), (host.vtep6, peer.vtep6)) if mine and theirs
        ]
        for position, (mine, theirs) in enumerate(pairs):
            family = family_of(mine)
            # Tunnels take IPv4 where both have it; the other family only has to work.
            needed = widest + (50 if family == 4 else 70) if widest and position == 0 else 0
            limit = limits.get(mine, host.mtu_bytes)
            found.append(Path(peer.name, family, mine, theirs, limit, needed, bool(shared)))
    return found


class _Target:
    """One path while it is probed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.smallest = probe.SMALLEST_BYTES[path.family]
        self.there: set[int] = set()
        self.back: set[int] = set()
        self.asked: set[int] = set()
        self.pinged: bool | None = None
        self.round_trip_s: float | None = None

    @property
    def patience_s(self) -> float:
        """How long an answer may take."""
        if self.round_trip_s is None:
            return ANSWER_S
        return min(ANSWER_S, max(ANSWER_LEAST_S, 3 * self.round_trip_s))

    def first(self) -> list[int]:
        """The sizes of the first volley: from the smallest to what the uplink takes."""
        path = self.path
        usual = {size for size in USUAL_SIZES if self.smallest < size < path.limit_bytes}
        return sorted({self.smallest, path.limit_bytes} | usual | self._needed())

    def _needed(self) -> set[int]:
        return {self.path.needed_bytes} if self.smallest < self.path.needed_bytes <= self.path.limit_bytes else set()

    def next(self) -> list[int]:
        """The sizes that tell most now; empty: all is known, or nothing can be."""
        return sorted(set(self._between(self.there)) | set(self._between(self.back)))

    def _between(self, passed: set[int]) -> list[int]:
        if not passed:
            return []
        low = max(passed)
        high = min((size for size in self.asked if size > low), default=low)
        return steps(low, high)

    def missing(self) -> list[int]:
        """Asked, and no echo yet."""
        return sorted(self.asked - self.back)


def steps(low: int, high: int, count: int = VOLLEY_SIZES) -> list[int]:
    """Sizes between one that passes and one that does not, evenly; empty where there is none between."""
    if high - low <= 1:
        return []
    return sorted({low + (high - low) * step // (count + 1) for step in range(1, count + 1)} - {low, high})


class Prober:
    """Probes several paths at a time. Raises: OSError where its sockets cannot be made."""

    def __init__(self, paths: Sequence[Path], cookie: bytes) -> None:
        self._cookie = cookie
        self._targets = [_Target(path) for path in paths]
        self._by_number = dict(enumerate(self._targets))
        self._sockets = contextlib.ExitStack()
        self._selector = self._sockets.enter_context(selectors.DefaultSelector())
        self._senders: dict[str, socket.socket] = {}
        self._numbers: dict[int, tuple[_Target, int]] = {}
        try:
            for path in paths:
                if path.source not in self._senders:
                    self._open(path)
        except OSError:
            self._sockets.close()
            raise

    def _open(self, path: Path) -> None:
        family = socket.AF_INET if path.family == 4 else socket.AF_INET6
        sender = self._sockets.enter_context(socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        probe.never_fragment(sender, path.family)
        probe.take_many(sender)
        sender.bind((path.source, 0))
        raw = self._sockets.enter_context(probe.open_raw(path.family, path.source, probe.ECHO))
        self._selector.register(sender, selectors.EVENT_READ, None)
        self._selector.register(raw, selectors.EVENT_READ, path.family)
        self._senders[path.source] = sender

    def measure(self) -> list[Measured]:
        """Probe until all is known. Bounded: VOLLEYS_MAX volleys, each asked twice."""
        volley = {target: target.first() for target in self._targets}
        for _ in range(VOLLEYS_MAX):
            self._volley(volley)
            volley = {target: sizes for target in self._targets if (sizes := target.next())}
            if not volley:
                break
        for target in self._targets:
            if not target.there:
                target.pinged = ping(target.path)
        return [
            Measured(one.path, max(one.there | one.back, default=0), max(one.back, default=0), one.pinged)
            for one in self._targets
        ]

    def _volley(self, volley: dict[_Target, list[int]]) -> None:
        for _ in range(2):
            for target, sizes in volley.items():
                for size in sizes:
                    self._send(target, size)
            self._receive(list(volley))
            volley = {
                target: missing
                for target in volley
                if (missing := [s for s in volley[target] if s in target.missing()])
            }
            if not volley:
                return

    def _send(self, target: _Target, size: int) -> None:
        target.asked.add(size)
        number = len(self._numbers) & 0xFFFF
        self._numbers[number] = (target, size)
        path = target.path
        payload = probe.encode(path.family, probe.PROBE, number, self._cookie, size)
        with contextlib.suppress(OSError):  # larger than a link takes, or refused here: as if it were lost
            self._senders[path.source].sendto(payload, (path.target, probe.PORT))

    def _receive(self, targets: list[_Target]) -> None:
        sent = time.monotonic()
        while waited_for := [target for target in targets if target.missing()]:
            left = sent + max(target.patience_s for target in waited_for) - time.monotonic()
            if left <= 0:
                return
            for key, _ in self._selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                target = self._take(key.fileobj, key.data)
                if target is not None and target.round_trip_s is None:
                    target.round_trip_s = time.monotonic() - sent

    def _take(self, ready: socket.socket, family: Family | None) -> _Target | None:
        try:
            data = ready.recv(256)
        except OSError:  # an ICMP error that an earlier probe met
            return None
        packet = probe.decode_payload(data) if family is None else probe.decode_raw(family, data)
        if packet is None or packet.cookie != self._cookie or packet.number not in self._numbers:
            return None
        target, size = self._numbers[packet.number]
        target.there.add(size)
        if packet.kind == probe.ECHO:
            target.back.add(size)
        return target

    def close(self) -> None:
        """Let go of the sockets."""
        self._sockets.close()


def ping(path: Path) -> bool | None:
    """Whether the other host answers to ICMP echo; None: that cannot be asked here."""
    version4 = path.family == 4
    kind, protocol = (socket.AF_INET, socket.IPPROTO_ICMP) if version4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    request = struct.pack("!BBHHH", 8 if version4 else 128, 0, 0, 0x6877, 1)
    if version4:
        request = request[:2] + struct.pack("!H", ~(0x0800 + 0x6877 + 1) & 0xFFFF) + request[4:]
    try:
        with socket.socket(kind, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as raw:
            raw.bind((path.source, 0))
            raw.sendto(request, (path.target, 0))
            end = time.monotonic() + ANSWER_S
            while (left := end - time.monotonic()) > 0:
                raw.settimeout(left)
                data, address = raw.recvfrom(256)
                start = (data[0] & 0x0F) * 4 if version4 else 0
                if str(address[0]).partition("%")[0] == path.target and data[start] == (0 if version4 else 129):
                    return True
            return False
    except TimeoutError:
        return False
    except OSError as error:
        return None if error.errno in (errno.EPERM, errno.EACCES) else False
