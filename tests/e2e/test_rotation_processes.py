"""Authority, certificate and secrets replaced on real daemons: no packet lost, nothing refused, killed at any time."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin.kernel import namespace
from sdn.client.client import Client
from sdn.model.errors import HawseError, Kind
from tests.packet.lab import Lab, eventually, lab
from tests.packet.talk import Pinger
from topologies.record import CONTROLLER

pytestmark = pytest.mark.root

TOPOLOGY = """\
hosts: [h1, h2]
tenants: [default]
networks:
  web: {subnets: [10.1.0.0/24]}
containers:
  a1: {host: h1, networks: {network: web, ip: 10.1.0.11}}
  b1: {host: h2, networks: {network: web, ip: 10.1.0.12}}
"""
HOSTS = ("h1", "h2")
PINGS, INTERVAL_S = 800, 0.005
KILLS = 2
_names = iter(range(1_000_000))


@pytest.fixture(scope="module")
def stage() -> Iterator[Lab]:
    with lab(TOPOLOGY) as up:
        yield up


def identity(stage: Lab, host: str) -> dict[str, Any]:
    """What its agent keeps."""
    found: dict[str, Any] = json.loads(stage.directory.root(host).agent_file.read_text())
    return found


def certificates(stage: Lab, *words: str) -> dict[str, str]:
    """What a command of `hawse certificate` prints: fingerprint by part. Every host must have the newest."""
    told = json.loads(stage.hawse("-o", "json", "certificate", *words))
    assert told["lacking"] == []
    return {item["part"]: item["fingerprint"] for item in told["items"]}


def attach_and_detach(stage: Lab) -> None:
    """A container on each host, there and gone."""
    for host in HOSTS:
        name = stage.make_container(f"n{next(_names)}")
        stage.add(host, name, "web")
        stage.remove(host, name, "web")


def welcomes(stage: Lab) -> int:
    """How often the agents were welcomed."""
    return sum(stage.directory.log(host).read_text().count("welcomed") for host in HOSTS)


def connected(stage: Lab) -> bool:
    """Whether all are."""
    return all(host["connected"] for host in stage.client.items("/v1/hosts"))


def everything_told(stage: Lab) -> str:
    """All logs, and what every process of the lab shows to others of itself."""
    shown = [path.read_bytes() for path in (stage.directory.path / "log").iterdir()]
    for process in stage.processes().values():
        shown += [Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("cmdline", "environ", "comm")]
    return b"\n".join(shown).decode(errors="replace")


def test_nobody_is_cut_off_and_no_packet_lost(stage: Lab) -> None:
    before, secrets = welcomes(stage), [identity(stage, host)["secret"] for host in HOSTS]
    first = identity(stage, "h1")
    old = certificates(stage, "ls")
    pingers = [Pinger(stage, "a1", "10.1.0.12", PINGS, INTERVAL_S), Pinger(stage, "b1", "10.1.0.11", PINGS, INTERVAL_S)]
    for _ in range(3):
        attach_and_detach(stage)
        both = certificates(stage, "rotate")
        assert both["authority-before"] == old["authority"] != both["authority"]
        attach_and_detach(stage)
        assert stage.hawse("host", "rotate", *HOSTS).split() == list(HOSTS)
        secrets += [identity(stage, host)["secret"] for host in HOSTS]
        attach_and_detach(stage)
        alone = certificates(stage, "retire")
        old = certificates(stage, "rotate", "--server")
        assert old["authority"] == alone["authority"] == both["authority"]
        assert old["server"] != alone["server"]
        assert [identity(stage, host)["fingerprint"] for host in HOSTS] == [old["authority"]] * 2
    for pinger in pingers:
        assert pinger.lost() == []
        assert pinger.sent == PINGS
    assert welcomes(stage) == before
    assert len(set(secrets)) == len(secrets) == 8
    assert not [secret for secret in secrets if secret in everything_told(stage)]
    refused_with_what_was_retired(stage, first)


def refused_with_what_was_retired(stage: Lab, first: dict[str, Any]) -> None:
    """The first authority and the first secret are worth nothing, and each refusal says why."""
    url, now = first["controllers"][0], identity(stage, "h1")
    answers: list[HawseError] = []

    def ask(identity: dict[str, Any]) -> None:
        client = Client(url, authority=identity["authority"], token=f"{first['host']}:{identity['secret']}")
        try:
            client.get("/v1/hosts")
        except HawseError as error:
            answers.append(error)

    for identity_shown in (first, {**now, "secret": first["secret"]}, now):
        namespace.run_in(stage.fd("h1"), functools.partial(ask, identity_shown))
    pinned, voided, good = answers
    assert pinned.kind is voided.kind is good.kind is Kind.DENIED
    assert first["fingerprint"] in pinned.message
    assert now["fingerprint"] in pinned.message
    assert "not the secret" in voided.message
    assert "is for users" in good.message  # the secret is good, and no user's


@pytest.mark.parametrize("victim", ["h1", CONTROLLER])
@pytest.mark.parametrize("change", [("host", "rotate", "h1"), ("certificate", "rotate")])
def test_killed_in_the_midst_of_it(victim: str, change: tuple[str, ...], stage: Lab) -> None:
    """Whoever dies, whenever: afterwards the host connects with what it has, and the same can be had again."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(KILLS):
        changing = threading.Thread(target=_try, args=(stage, change))
        changing.start()
        time.sleep(chance.random() * 0.05)  # any moment of it will do
        arguments = stage.stop(victim, signal.SIGKILL)
        changing.join(60)
        assert not changing.is_alive()
        stage.start(victim, arguments)
        eventually(lambda: connected(stage), bool, "all are connected")
        eventually(lambda: stage.client.get("/v1/certificates").body["lacking"], lambda who: not who, "all are told")
        certificates(stage, "retire")
        attach_and_detach(stage)
    stage.hawse("host", "rotate", *HOSTS)
    assert connected(stage)


def _try(stage: Lab, change: tuple[str, ...]) -> None:
    path = f"/v1/hosts/{change[2]}/rotate" if change[0] == "host" else "/v1/certificates/rotate"
    with contextlib.suppress(HawseError):  # what is killed does not answer, or is heard of as gone
        stage.client.post(path)
