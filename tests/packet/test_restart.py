"""A daemon ends, by SIGTERM or SIGKILL, in the midst of changes: no packet is lost, and nothing half-made stays."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sdn.model.errors import HawseError, Kind
from tests.packet.lab import Lab, eventually, lab
from tests.packet.sight import answered, guarded, snapshot, wired
from tests.packet.talk import Pinger, ping, pings
from topologies.record import CONTROLLER

pytestmark = pytest.mark.root

NETWORK = "blue/web"
HOSTS = ("h1", "h2")
TOPOLOGY = """\
hosts: [h1, h2]
tenants: [blue]
networks:
  blue/web: {subnets: [10.1.0.0/24, "fd00:1::/64"]}
containers:
  a1: {host: h1, networks: {network: blue/web, ip: 10.1.0.11, ip6: "fd00:1::11"}}
  a2: {host: h1, networks: {network: blue/web, ip: 10.1.0.12, ip6: "fd00:1::12"}}
  b1: {host: h2, networks: {network: blue/web, ip: 10.1.0.13, ip6: "fd00:1::13"}}
"""
PINGS, INTERVAL_S = 1000, 0.005
_names = iter(range(1_000_000))


@pytest.fixture(scope="module")
def stage() -> Iterator[Lab]:
    with lab(TOPOLOGY) as up:
        yield up


class Churn:
    """Attaches and detaches without end, in threads, until told to stop; a refusal is what a client expects of it."""

    def __init__(self, stage: Lab, hosts: tuple[str, ...]) -> None:
        self._stage = stage
        self._going = True
        self.refusals: list[HawseError] = []
        self.attached: dict[str, tuple[str, dict[str, Any]]] = {}
        """By container: the host and what ADD answered, of those that were not detached again."""
        self.unsure: set[str] = set()
        """Containers whose last request was not answered well."""
        self.done = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._run, args=(host,), daemon=True) for host in hosts]
        for thread in self._threads:
            thread.start()

    def _run(self, host: str) -> None:
        while self._going:
            first, second = (self._stage.make_container(f"n{next(_names)}") for _ in range(2))
            for name in (first, second):
                self._attach(host, name)
            if first in self.attached:
                self._detach(host, first)

    def _attach(self, host: str, name: str) -> None:
        try:
            self.attached[name] = (host, self._stage.add(host, name, NETWORK, settle_ms=0))
            self.done.release()
        except HawseError as error:
            self.refusals.append(error)
            self.unsure.add(name)
            threading.Event().wait(0.02)  # a client's own patience

    def _detach(self, host: str, name: str) -> None:
        del self.attached[name]
        try:
            self._stage.remove(host, name, NETWORK)
        except HawseError as error:
            self.refusals.append(error)
            self.unsure.add(name)

    def stop(self) -> None:
        """Let the requests under way come to their ends."""
        self._going = False
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


def disagreements(stage: Lab) -> list[str]:
    """Where controller, kernels and addresses differ; empty when the world is whole."""
    problems: list[str] = []
    endpoints = {e["id"]: e for e in stage.endpoints()}
    held = {(a["address"], a["holder_id"]) for a in stage.client.items("/v1/allocations") if a["holder"] == "endpoint"}
    wanted = {(text.partition("/")[0], e["id"]) for e in endpoints.values() for text in e["addresses"]}
    if held != wanted:
        problems.append(f"addresses: {held ^ wanted}")
    for host in HOSTS:
        of_host = {i for i, e in endpoints.items() if e["host_name"] == host}
        kernel = wired(stage, host, "blue")
        if of_host != set(kernel):
            problems.append(f"{host}: recorded or wired only: {of_host ^ set(kernel)}")
        problems += [f"{host}: {i} is not in service" for i, (_, up) in kernel.items() if not up]
        known = {f"hwv{i[-12:]}" for i in of_host}
        in_guard = guarded(stage, host, "blue")
        if known != in_guard:
            problems.append(f"{host}: guarded or recorded only: {known ^ in_guard}")
        there = answered(stage, host, "blue")
        if there != {address for address, _ in wanted}:
            problems.append(f"{host}: neighbours: {there ^ {address for address, _ in wanted}}")
    return problems


def prove_whole(stage: Lab, churn: Churn) -> None:
    """After all: everybody agrees, what was promised is there and answers, what was refused can be had again."""
    stage.settle()
    eventually(lambda: disagreements(stage), lambda problems: not problems, "agreement")
    present = {endpoint["container"]: endpoint for endpoint in stage.endpoints()}
    for name, (_, result) in churn.attached.items():
        assert present[name]["id"] == result["endpoint"]
    questions = []
    for name, (_, result) in list(churn.attached.items())[-10:]:
        assert name in present
        questions += [(place, text.partition("/")[0], 5.0) for text in result["addresses"] for place in ("a1", "b1")]
    assert pings(stage, questions) == [True] * len(questions)
    for name in sorted(churn.unsure):
        host = present[name]["host_name"] if name in present else "h1"
        stage.remove(host, name, NETWORK)
        if name not in present:
            assert "eth0" not in stage.run(name, "ip", "-o", "link").stdout
            stage.add("h1", name, NETWORK)
            assert ping(stage, name, "10.1.0.13")
            stage.remove("h1", name, NETWORK)


@contextlib.contextmanager
def nothing_lost(stage: Lab) -> Iterator[Pinger]:
    """A thousand pings across hosts and a thousand on one, in both families, and none of them without an answer."""
    pairs = [("a1", "10.1.0.13"), ("a1", "fd00:1::12"), ("b1", "fd00:1::11")]
    pingers = [Pinger(stage, place, address, PINGS, INTERVAL_S) for place, address in pairs]
    yield pingers[0]
    assert [pinger.lost() for pinger in pingers] == [[], [], []]


def test_a_lost_ping_would_be_seen(stage: Lab) -> None:
    """What the tests below rely on: pings to an address that went away are missed."""
    name = stage.make_container("short-lived")
    address = stage.add("h2", name, NETWORK)["addresses"][0].partition("/")[0]
    assert Pinger(stage, "a1", address, 3, INTERVAL_S).lost() == []
    stage.remove("h2", name, NETWORK)
    assert Pinger(stage, "a1", address, 3, INTERVAL_S, late_s=0.2).lost() == [0, 1, 2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
@pytest.mark.parametrize("daemon", ["h1", CONTROLLER], ids=["agent", "controller"])
def test_a_restart_in_the_midst_of_changes_loses_nothing(stage: Lab, daemon: str, number: signal.Signals) -> None:
    with nothing_lost(stage):
        churn = Churn(stage, HOSTS)
        try:
            for _ in range(6):
                assert churn.done.acquire(timeout=20)
            arguments = stage.stop(daemon, number)
            stage.start(daemon, arguments)
            reconnected = lambda: [h["connected"] for h in stage.client.items("/v1/hosts")]  # noqa: E731
            eventually(reconnected, lambda found: found == [True, True], "both hosts connected")
            while churn.done.acquire(blocking=False):
                pass
            for _ in range(4):  # attaches go on after it
                assert churn.done.acquire(timeout=20)
        finally:
            churn.stop()
    assert all(error.kind is Kind.UNAVAILABLE for error in churn.refusals), churn.refusals
    prove_whole(stage, churn)


def test_an_agent_that_is_started_again_writes_nothing_that_is_there(stage: Lab) -> None:
    """Every link keeps its number, so none was made anew, and every entry is the one that was there."""
    stage.settle()
    before = snapshot(stage, "h1", "blue")
    arguments = stage.stop("h1", signal.SIGKILL)
    stage.start("h1", arguments)
    stage.settle()
    assert snapshot(stage, "h1", "blue") == before
    name = stage.make_container("late")
    stage.add("h1", name, NETWORK)
    assert ping(stage, "b1", stage.address(name, 4))
    stage.remove("h1", name, NETWORK)
    eventually(lambda: snapshot(stage, "h1", "blue"), lambda after: after == before, "the same kernel as before")


def test_a_namespace_that_dies_while_the_agent_is_away_is_released_after(stage: Lab) -> None:
    name = stage.make_container("mortal")
    stage.add("h1", name, NETWORK)
    arguments = stage.stop("h1", signal.SIGKILL)
    stage.end_container(name)
    stage.start("h1", arguments)
    eventually(stage.endpoints, lambda found: name not in {e["container"] for e in found}, "the endpoint's release")
    stage.settle()
    eventually(lambda: disagreements(stage), lambda problems: not problems, "agreement")


def test_a_detach_while_the_controller_is_away_is_silence_and_is_told_later(stage: Lab) -> None:
    name = stage.make_container("leaver")
    address = stage.add("h1", name, NETWORK)["addresses"][0].partition("/")[0]
    assert pings(stage, [("a1", address, 5), ("b1", address, 5)]) == [True, True]
    arguments = stage.stop(CONTROLLER, signal.SIGKILL)
    try:
        stage.remove("h1", name, NETWORK)
        assert pings(stage, [("a1", address, 0.4), ("b1", address, 0.4)]) == [False, False]
        with pytest.raises(HawseError) as refused:
            stage.add("h1", stage.make_container("comer"), NETWORK)
        assert refused.value.kind is Kind.UNAVAILABLE
        assert pings(stage, [("a1", "10.1.0.13", 5), ("b1", "10.1.0.12", 5)]) == [True, True]
    finally:
        stage.start(CONTROLLER, arguments)
    eventually(stage.endpoints, lambda found: name not in {e["container"] for e in found}, "the endpoint's release")
    eventually(lambda: disagreements(stage), lambda problems: not problems, "agreement")
