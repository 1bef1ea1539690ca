"""A host answers the probes that it was ordered to, of whom it was told, so many and so long, and no others."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin.agent import probe, responder
from plugin.agent.responder import Responder
from plugin.kernel import namespace
from sdn.model.address import Family, family_of
from sdn.model.errors import HawseError, Kind
from sdn.model.stream import ProbeOrder

pytestmark = [pytest.mark.root, pytest.mark.bridge]

COOKIE, OTHER = b"c" * 16, b"o" * 16
HOSTS: dict[Family, tuple[str, str, str]] = {
    4: ("192.0.2.1", "192.0.2.2", "192.0.2.3"),
    6: ("fd00::1", "fd00::2", "fd00::3"),
}
"""The one that answers, the one that it was told of, a stranger: all in one namespace."""
WAIT_S = 20.0
Work = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A namespace with the addresses of all of them."""
    path = tmp_path / "host"
    namespace.create(path)
    try:
        enter = ["nsenter", f"--net={path}", "ip"]
        subprocess.run([*enter, "link", "set", "lo", "up"], check=True)
        for address in (*HOSTS[4], *HOSTS[6]):
            nodad = ["nodad"] if ":" in address else []
            subprocess.run([*enter, "address", "add", address, "dev", "lo", *nodad], check=True)
        yield path
    finally:
        namespace.remove(path)


def within(place: Path, work: Work) -> None:
    """Run it on a loop of its own, in a thread that lives there."""
    failed: list[BaseException] = []

    def run() -> None:
        with open(place) as opened:
            namespace.enter(opened.fileno())
        try:
            asyncio.run(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the test
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, with a bound."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - a timer's effect has no event
            await asyncio.sleep(0.01)


class Asker:
    """Sends probes from an address, and takes what comes back."""

    def __init__(self, source: str, target: str) -> None:
        self.family = family_of(source)
        self._target = target
        self._sender = socket.socket(socket.AF_INET if self.family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        self._sender.bind((source, 0))
        self._sender.setblocking(False)
        self._raw = probe.open_raw(self.family, source, probe.ECHO)

    def send(self, number: int, cookie: bytes = COOKIE, size_bytes: int = 200) -> None:
        payload = probe.encode(self.family, probe.PROBE, number, cookie, size_bytes)
        self._sender.sendto(payload, (self._target, probe.PORT))

    async def ack(self) -> probe.Packet | None:
        async with asyncio.timeout(WAIT_S):
            return probe.decode_payload(await asyncio.get_running_loop().sock_recv(self._sender, 256))

    async def echo(self) -> probe.Packet | None:
        async with asyncio.timeout(WAIT_S):
            return probe.decode_raw(self.family, await asyncio.get_running_loop().sock_recv(self._raw, 256))

    def silent(self) -> bool:
        """Whether nothing has come."""
        for waiting in (self._sender, self._raw):
            try:
                waiting.recv(256)
            except BlockingIOError:
                continue
            return False
        return True

    def close(self) -> None:
        self._sender.close()
        self._raw.close()


def order(cookie: bytes = COOKIE, seconds: float = 60.0) -> ProbeOrder:
    return ProbeOrder(cookie=cookie, sources=(HOSTS[4][1], HOSTS[6][1]), seconds=seconds)


@pytest.mark.parametrize("family", [4, 6])
def test_ack_and_echo_of_what_was_ordered_and_silence_otherwise(place: Path, family: Family) -> None:
    here, known, stranger = HOSTS[family]

    async def work() -> None:
        answering = Responder(lambda: (HOSTS[4][0], HOSTS[6][0]), asyncio.get_running_loop())
        asker, other = Asker(known, here), Asker(stranger, here)
        try:
            answering.obey(order())
            other.send(1)  # a stranger, with the right cookie
            asker.send(2, OTHER)  # a cookie that nobody gave out
            asker.send(3, size_bytes=1400)
            assert await asker.ack() == probe.Packet(probe.ACK, 3, 0, COOKIE, probe.PORT)
            echo = await asker.echo()
            assert echo == probe.Packet(probe.ECHO, 3, 1400, COOKIE, responder.ECHO_SOURCE_PORT)
            assert asker.silent()
            assert other.silent()  # its probe came before the one that was answered
        finally:
            asker.close()
            other.close()
            answering.close()

    within(place, work)


def test_so_many_and_so_long(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "PROBES_MAX", 2)

    async def work() -> None:
        answering = Responder(lambda: (HOSTS[4][0], None), asyncio.get_running_loop())
        asker = Asker(HOSTS[4][1], HOSTS[4][0])
        try:
            answering.obey(order())
            answering.obey(order(OTHER, seconds=0.2))
            for number in range(4):
                asker.send(number)
            asker.send(9, OTHER)
            came = [await asker.ack() for _ in range(3)]
            assert [one.number for one in came if one] == [0, 1, 9]  # the budget of one is not the other's
            await until(lambda: OTHER not in answering._orders)
            answering.close()
            assert not answering._sockets
            answering.close()
        finally:
            asker.close()
            answering.close()

    within(place, work)


def test_the_last_order_closes_the_sockets_and_too_many_are_refused(place: Path) -> None:
    async def work() -> None:
        answering = Responder(lambda: (HOSTS[4][0], None), asyncio.get_running_loop())
        try:
            answering.obey(order(seconds=0.01))
            assert answering._sockets
            await until(lambda: not answering._sockets)
            for number in range(responder.ORDERS_MAX):
                answering.obey(order(number.to_bytes(16, "big")))
            with pytest.raises(HawseError) as refused:
                answering.obey(order())
            assert refused.value.kind is Kind.EXHAUSTED
        finally:
            answering.close()
        nowhere = Responder(lambda: ("203.0.113.9", None), asyncio.get_running_loop())
        with pytest.raises(HawseError) as refused:
            nowhere.obey(order())
        assert refused.value.kind is Kind.UNAVAILABLE
        nowhere.close()

    within(place, work)
