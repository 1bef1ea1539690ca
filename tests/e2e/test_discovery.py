"""A controller is found on a segment by real multicast between namespaces; the token's fingerprint says which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sdn.cli.exits import Exit
from sdn.service.discovery import SERVICE
from tests.e2e.segment import segment
from tests.e2e.tutorials import TOKEN_SHOWN, Line, machines
from tests.packet.namespaces import TestNamespace, namespaces

pytestmark = pytest.mark.root

PATIENCE_S = 30.0
ALPHA, BETA, ABSENT = "a" * 64, "b" * 64, "c" * 64
ANNOUNCE = """
import asyncio, sys, uvloop
from sdn.service.discovery import announcing
async def main():
    async with announcing(sys.argv[1], sys.argv[2].split(), sys.argv[3].split()):
        print("announced", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
uvloop.run(main())
"""
DISCOVER = """
import json, sys
from sdn.model.errors import HawseError
from sdn.service.discovery import discover
try:
    print(json.dumps(discover(sys.argv[1], float(sys.argv[2]))))
except HawseError as error:
    print(json.dumps([error.kind.value, error.message]))
"""
Segment = list[TestNamespace]


@pytest.fixture(scope="module")
def wired() -> Iterator[Segment]:
    """Three machines: 192.0.2.1 and fd00:0:0:2::1, and so on."""
    with segment(3, "192.0.2./24", "fd00:0:0:2::/64") as places:
        yield places


def inside(machine: TestNamespace, program: str, *arguments: str) -> subprocess.Popen[str]:
    command = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{machine.fd}", sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def announce() -> Iterator[object]:
    """Announce a controller from a machine, until the test is over."""
    started: list[subprocess.Popen[str]] = []

    def begin(machine: TestNamespace, fingerprint: str, urls: str, bound: str) -> None:
        process = inside(machine, ANNOUNCE, fingerprint, urls, bound)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "announced\n"

    yield begin
    for process in started:
        process.communicate(timeout=PATIENCE_S)
    assert [process.returncode for process in started] == [0] * len(started)


def discovered(machine: TestNamespace, fingerprint: str, timeout_s: float) -> list[str]:
    told, _ = inside(machine, DISCOVER, fingerprint, str(timeout_s)).communicate(timeout=PATIENCE_S)
    found: list[str] = json.loads(told)
    return found


def test_of_several_controllers_the_tokens_is_found(wired, announce):
    announce(wired[0], ALPHA, "https://192.0.2.1:4780 https://[fd00:0:0:2::1]:4780", "192.0.2.1 fd00:0:0:2::1")
    announce(wired[1], BETA, "https://192.0.2.2:4999", "0.0.0.0")
    assert discovered(wired[2], ALPHA, PATIENCE_S) == ["192.0.2.1:4780", "[fd00:0:0:2::1]:4780"]
    assert discovered(wired[2], BETA, PATIENCE_S) == ["192.0.2.2:4999"]
    kind, message = discovered(wired[2], ABSENT, 2)
    assert kind == "not-found"
    for said in ("c" * 16, "192.0.2.1:4780", "192.0.2.2:4999", "2 other controllers"):
        assert said in message


def test_a_controller_over_ipv6_alone_is_found(wired, announce):
    announce(wired[0], ALPHA, "https://[fd00:0:0:2::1]:4780", "fd00:0:0:2::1")
    assert discovered(wired[2], ALPHA, PATIENCE_S) == ["[fd00:0:0:2::1]:4780"]


def test_where_nobody_announces_nothing_is_found(wired):
    kind, message = discovered(wired[2], ALPHA, 0.5)
    assert kind == "not-found"
    assert "no controller announced itself" in message


def test_without_an_interface_one_sentence_says_so():
    with namespaces(1) as (machine,):
        kind, message = discovered(machine, ALPHA, 0.5)
    assert kind == "unavailable"
    assert "no network interface is up" in message


@pytest.mark.slow  # three machines; what it is made of, the tests above and that of `hawse join --discover` have
def test_join_finds_the_controller_of_its_token():
    with machines("one", "other", "third") as made:
        for machine in ("one", "other"):
            made.run(Line(machine, "hawse up -d --discoverable", []))
        made.run(Line("other", "hawse token create", []))
        said = made.run(Line("third", f"hawse join -d --discover {TOKEN_SHOWN}", []))
        assert "host third of https://10.0.0.2:4780" in said
        assert "third" in made.run(Line("other", "hawse host ls", []))
        made.run(Line("other", "hawse token create", []))
        made.run(Line("other", "hawse down", []))
        made.run(Line("third", "hawse leave --force", []))
        refused = made.shell("third", f"hawse join --discover {made.token}")
        assert refused.returncode == Exit.NOT_FOUND
        assert "1 other controller announces itself on this segment: 10.0.0.1:4780" in refused.stderr


def test_a_forged_announcement_hides_no_true_one(wired, announce):
    announce(wired[1], ALPHA, "https://192.0.2.2:4780", "192.0.2.2")
    announce(wired[0], ALPHA, "https://192.0.2.1:4780", "192.0.2.1")
    assert set(discovered(wired[2], ALPHA, PATIENCE_S)) == {"192.0.2.1:4780", "192.0.2.2:4780"}
    assert SERVICE.endswith(".local.")  # and so never asked of a name server
