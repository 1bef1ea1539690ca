"""The packet prober: every question at once, from sockets inside the containers, in one event loop.

Walk: gateways are pinged (their answers teach each sender its gateway's MAC); every probe is sent: by the container's
own stack where the two share a network, else as frames that no route had to permit, to the gateway's MAC and to the
receiver's; those that are expected to arrive are sent again for a while; then each sender sends controls, and only
when they have arrived does silence count.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import socket
from collections.abc import Coroutine, Iterable, Iterator, Sequence

from sdn.model.address import BITS, Family, format_mac
from topologies import frames
from topologies.frames import ANSWER, ASK, Ends
from topologies.lies import common_interfaces, forged_frame
from topologies.plan import Interface, Probe, Station
from topologies.post import Post
from topologies.values import Forgery

ARRIVE_S = 3.0
"""How long what is expected to arrive may take, all attempts together."""
AGAIN_S = 0.5
CONTROL_S = 2.0
STREAMS_MAX = 400
"""TCP connections under way at once."""
CONTROL_FIRST = 1 << 24
FORGERY_FIRST = 1 << 25
TOKEN_BYTES = frames.TOKEN.size


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What came of one probe. `controlled`: a later control of its sender has arrived; `sent`: attempts."""

    answered: bool
    listeners: frozenset[str]
    controlled: bool
    sent: int


class Prober:
    """One run over some posts. The posts stay the caller's."""

    def __init__(self, posts: Sequence[Post]) -> None:
        self._posts = {post.station.name: post for post in posts}
        self._nonce = os.urandom(8)
        self._listeners: dict[int, set[str]] = {}
        self._answered: set[tuple[int, str]] = set()
        self._answer_macs: dict[int, str] = {}
        self._waiting: set[tuple[int, str]] = set()
        self._all_here = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sent: dict[int, int] = {}
        self._control_numbers = itertools.count(CONTROL_FIRST)
        self._gateway_macs: dict[tuple[str, str, Family], str] = {}

    async def run(self, probes: Sequence[Probe]) -> dict[int, Heard]:
        """Ask everything; what came of each, by the probe's number."""
        with self._listening():
            await self._learn_gateways()
            expected = [probe for probe in probes if probe.reach]
            for probe in probes:
                self._ask(probe)
            await self._stream([probe for probe in probes if probe.transport == "tcp" and _by_stack(probe)])
            await self._await_answers(expected)
            controlled = await self._control(probes)
            self._drain()
        return {
            probe.number: Heard(
                answered=(probe.number, probe.sender) in self._answered,
                listeners=frozenset(self._listeners.get(probe.number, ())),
                controlled=(probe.sender, probe.family) in controlled,
                sent=self._sent.get(probe.number, 0),
            )
            for probe in probes
        }

    async def forge(self, forgeries: Sequence[Forgery]) -> dict[int, Heard]:
        """Send every forged frame once; what came of each, by its place in the list."""
        with self._listening():
            for index, forgery in enumerate(forgeries):
                self._lie(FORGERY_FIRST + index, forgery)
            senders = {forgery.sender for forgery in forgeries}
            controlled = await self._control((), only=senders)
            self._drain()
        return {
            index: Heard(
                answered=False,
                listeners=frozenset(self._listeners.get(FORGERY_FIRST + index, ())),
                controlled=any((forgery.sender, family) in controlled for family in BITS),
                sent=self._sent.get(FORGERY_FIRST + index, 0),
            )
            for index, forgery in enumerate(forgeries)
        }

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        readers: list[socket.socket] = []
        try:
            for post in self._posts.values():
                for sock, callback in (
                    (post.tap, self._on_tap),
                    *((one, self._on_datagram) for one in post.udp.values()),
                    *((one, self._on_stream) for one in post.tcp.values()),
                ):
                    loop.add_reader(sock, callback, post, sock)
                    readers.append(sock)
            yield
        finally:
            for sock in readers:
                loop.remove_reader(sock)
            for task in self._tasks:
                task.cancel()

    # Hearing

    def _hear(self, raw: bytes, name: str, direction: int | None = None) -> int | None:
        found = frames.find_token(raw, self._nonce)
        if found is None:
            return None
        number, told = found
        if (direction or told) == ANSWER:
            self._answered.add((number, name))
            self._waiting.discard((number, name))
            if not self._waiting:
                self._all_here.set()
        else:
            self._listeners.setdefault(number, set()).add(name)
        return number

    def _on_tap(self, post: Post, _: socket.socket) -> None:
        for raw in post.frames():
            number = self._hear(raw, post.station.name)
            if number is not None and number >= CONTROL_FIRST:
                self._answer_macs.setdefault(number, format_mac(raw[6:12]))

    def _on_datagram(self, post: Post, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                raw, sender = sock.recvfrom(2048)
                found = frames.find_token(raw, self._nonce)
                if found is None:
                    continue
                self._hear(raw, post.station.name)
                if found[1] == ASK:
                    with contextlib.suppress(OSError):
                        sock.sendto(frames.token(self._nonce, found[0], ANSWER), sender)

    def _on_stream(self, post: Post, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                connection, _ = listener.accept()
                connection.setblocking(False)
                self._start(self._serve(post, connection))

    async def _serve(self, post: Post, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with connection, contextlib.suppress(OSError):
            raw = await loop.sock_recv(connection, TOKEN_BYTES)
            number = self._hear(raw, post.station.name)
            if number is not None:
                await loop.sock_sendall(connection, frames.token(self._nonce, number, ANSWER))

    def _start(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _drain(self) -> None:
        """Take what lies in the taps already: what has arrived was put there before the control's answer was."""
        for post in self._posts.values():
            while heard := post.frames():
                for raw in heard:
                    self._hear(raw, post.station.name)

    # Asking

    def _ask(self, probe: Probe) -> None:
        post = self._posts[probe.sender]
        mark = frames.token(self._nonce, probe.number)
        self._sent[probe.number] = self._sent.get(probe.number, 0) + 1
        if _by_stack(probe):
            if probe.transport == "ping":
                post.ping(probe.family, probe.address, probe.number, mark)
            elif probe.transport == "udp":
                post.datagram(probe.family, probe.address, mark)
        if not probe.shared:
            for interface in post.station.interfaces:
                for raw in self._intrusions(probe, interface, mark, post.port):
                    post.frame(interface.ifname, raw)

    def _intrusions(self, probe: Probe, interface: Interface, mark: bytes, port: int) -> list[bytes]:
        """The question as frames with honest sources, for the gateway's MAC and for the receiver's."""
        source = interface.address_of(probe.family)
        if source is None:
            return []
        gateway = self._gateway_macs.get((probe.sender, interface.ifname, probe.family))
        target = self._posts[probe.receiver].station.interface_in(probe.network)
        macs = [mac for mac in (gateway, target.mac if target else None) if mac]
        raws: list[bytes] = []
        for mac in dict.fromkeys(macs):
            ends = Ends(source_mac=interface.mac, target_mac=mac, source=source, target=probe.address)
            if probe.transport == "ping":
                raws.append(frames.echo_frame(ends, probe.number, mark))
            elif probe.transport == "udp":
                raws.append(frames.udp_frame(ends, port, port, mark))
            else:
                raws.append(frames.syn_frame(ends, port, port, probe.number, mark))
        return raws

    async def _stream(self, probes: Sequence[Probe]) -> None:
        """Connect, tell the token, await the answer: all side by side, within the time that an answer may take."""
        by_sender: dict[tuple[str, Family], list[Probe]] = {}
        for probe in probes:
            by_sender.setdefault((probe.sender, probe.family), []).append(probe)
        places = asyncio.Semaphore(STREAMS_MAX)
        for (sender, family), asked in by_sender.items():
            post = self._posts[sender]
            for probe, sock in zip(asked, post.streams(family, len(asked)), strict=True):
                self._start(self._converse(places, probe, sock, post.port))
        await asyncio.sleep(0)

    async def _converse(self, places: asyncio.Semaphore, probe: Probe, sock: socket.socket, port: int) -> None:
        loop = asyncio.get_running_loop()
        with sock, contextlib.suppress(OSError, TimeoutError):
            async with places, asyncio.timeout(ARRIVE_S):
                await loop.sock_connect(sock, (probe.address, port))
                await loop.sock_sendall(sock, frames.token(self._nonce, probe.number))
                self._hear(await loop.sock_recv(sock, TOKEN_BYTES), probe.sender, ANSWER)

    async def _await_answers(self, expected: Sequence[Probe]) -> None:
        """Wait for what is expected; meanwhile send again what a full queue may have swallowed."""
        wanted = {(probe.number, probe.sender): probe for probe in expected}
        attempts = max(1, int(ARRIVE_S / AGAIN_S))
        for attempt in range(attempts):
            if await self._arrived(set(wanted), AGAIN_S):
                return
            if attempt + 1 < attempts:
                for key in list(self._waiting):
                    if wanted[key].transport != "tcp":
                        self._ask(wanted[key])

    async def _arrived(self, keys: set[tuple[int, str]], timeout_s: float) -> bool:
        """Whether all these answers are here, or come within the time."""
        self._waiting = keys - self._answered
        self._all_here.clear()
        if self._waiting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._all_here.wait()
        return not self._waiting

    # Controls

    async def _learn_gateways(self) -> None:
        asked: dict[int, tuple[str, str, Family]] = {}
        for name, post in self._posts.items():
            for interface in post.station.interfaces:
                for gateway in interface.gateways:
                    family: Family = 6 if ":" in gateway else 4
                    number = next(self._control_numbers)
                    asked[number] = (name, interface.ifname, family)
                    post.ping(family, gateway, number, frames.token(self._nonce, number))
        await self._arrived({(number, key[0]) for number, key in asked.items()}, CONTROL_S)
        for number, key in asked.items():
            if number in self._answer_macs:
                self._gateway_macs[key] = self._answer_macs[number]

    async def _control(self, probes: Sequence[Probe], only: Iterable[str] | None = None) -> set[tuple[str, Family]]:
        """Have every sender send something that must arrive; for which senders and families it did.

        That is a ping to a peer that is expected to be reached, on another host if there is one; else its gateway.
        """
        numbers: dict[int, tuple[str, Family]] = {}
        peers = _peers(probes, {name: post.station for name, post in self._posts.items()})
        for name in only if only is not None else self._posts:
            post = self._posts[name]
            for family in post.station.families():
                targets = [
                    gateway
                    for i in post.station.interfaces
                    for gateway in i.gateways
                    if (":" in gateway) == (family == 6)
                ]
                target = peers.get((name, family)) or (targets[0] if targets else None)
                if target is not None:
                    number = next(self._control_numbers)  # never one again: an earlier control must not vouch for it
                    numbers[number] = (name, family)
                    post.ping(family, target, number, frames.token(self._nonce, number))
        await self._arrived({(number, key[0]) for number, key in numbers.items()}, CONTROL_S)
        return {key for number, key in numbers.items() if (number, key[0]) in self._answered}

    # Lying

    def _lie(self, number: int, forgery: Forgery) -> None:
        sender, receiver = self._posts[forgery.sender], self._posts[forgery.receiver]
        pair = common_interfaces(sender.station, receiver.station)
        raw = forged_frame(forgery.lie, *pair, frames.token(self._nonce, number)) if pair else None
        if raw is not None and pair is not None and sender.frame(pair[0].ifname, raw):
            self._sent[number] = 1


def _by_stack(probe: Probe) -> bool:
    return probe.shared or probe.reach


def _peers(probes: Sequence[Probe], stations: dict[str, Station]) -> dict[tuple[str, Family], str]:
    """The address that a sender's control goes to; other hosts' addresses are preferred."""
    peers: dict[tuple[str, Family], str] = {}
    remote: set[tuple[str, Family]] = set()
    for probe in probes:
        key = (probe.sender, probe.family)
        if not (probe.reach and probe.shared and probe.transport == "ping") or key in remote:
            continue
        if stations[probe.sender].host != stations[probe.receiver].host:
            remote.add(key)
            peers[key] = probe.address
        peers.setdefault(key, probe.address)
    return peers
