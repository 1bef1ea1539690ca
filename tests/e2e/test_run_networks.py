"""`hawse run --network`: interfaces as they are wished, what a refused one leaves, and completion."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.standing_lab import PATIENCE_S, Lab, hawse, standing_lab
from tests.e2e.standing_runtime import Runtime, ended

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with standing_lab() as up:
        yield up


@pytest.fixture(scope="module")
def runtime(lab: Lab) -> Iterator[Runtime]:
    """On a lab's first host, beside its agent."""
    up = Runtime(Path(lab.root("h1")))
    up.start()
    with ended(up):
        yield up


def wait_for_no_endpoint(lab: Lab) -> None:
    """What a container had is given back soon after its end."""
    end = time.monotonic() + PATIENCE_S
    while left := list(lab.client.items("/v1/endpoints")):
        assert time.monotonic() < end, left


def test_interfaces_are_those_that_were_wished(lab: Lab, runtime: Runtime) -> None:
    wished = ["--network", "web", "--ip", "10.1.0.77", "--network", "blue/web:eth7"]
    with runtime.container("--name", "two", *wished, "host", "sleep", "600"):
        shown = {interface["ifname"]: interface for interface in runtime.inspect("two")["interfaces"]}
        assert (shown["eth0"]["network"], shown["eth0"]["addresses"]) == ("web", ["10.1.0.77/24"])
        assert shown["eth7"]["network"] == "blue/web"
        assert "10.1.0.77/24" in runtime.run("ps")
        inside = runtime.run("exec", "two", "ip", "-br", "address")
        assert [line.split()[0].partition("@")[0] for line in inside.splitlines()] == ["lo", "eth0", "eth7"]
    with runtime.container("--network", "web", "--ip", "10.1.0.78", "host", "sleep", "600"):
        assert "1 received" in runtime.run("run", "--rm", "--network", "web", "host", "ping", "-c1", "10.1.0.78")
    wait_for_no_endpoint(lab)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--network", "nowhere"], "there is no network 'nowhere'"),
        (["--network", "web", "--network", "nowhere"], "there is no network 'nowhere'"),
        (["--network", "web", "--ip", "10.9.0.1"], "outside of network web"),
        (["--network", "web", "--mac", "nonsense"], "nonsense"),
        (["--network", "web:eth0", "--network", "blue/web:eth0"], "eth0"),
    ],
)
def test_a_refused_interface_leaves_neither_container_nor_endpoint(
    options: list[str], says: str, lab: Lab, runtime: Runtime
) -> None:
    assert says in runtime.refused("run", "--rm", *options, "host", "true", code=125)
    assert runtime.left() == ([], [])
    wait_for_no_endpoint(lab)


def test_completion_knows_networks(runtime: Runtime) -> None:
    typed = hawse("--root", str(runtime.root), "__complete", "run", "--network", "")
    assert typed.stdout.split() == ["blue/web", "red/web", "web"]
