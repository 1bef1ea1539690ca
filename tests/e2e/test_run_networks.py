"""`hawse run --network`: interfaces as they are wished, what a refused one leaves, and completion."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.standing_lab import PATIENCE_S, Lab, hawse, standing_lab
from tests.e2e.standing_runtime import Runtime

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with standing_lab() as up:
        yield up


@pytest.fixture(scope="module")
def runtime(lab: Lab) -> Iterator[Runtime]:
    """That of a lab's first host, beside its agent; the lab has containers in it, too."""
    up = Runtime(Path(lab.root("h1")))
    before = up.left()
    yield up
    assert up.left() == before


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
    with runtime.unchanged():
        assert says in runtime.refused("run", "--rm", *options, "host", "true", code=125)
    wait_for_no_endpoint(lab)


@pytest.mark.parametrize("order", [("web", "blue/web"), ("blue/web", "web")])
def test_where_two_networks_overlap_the_first_one_counts(order: tuple[str, str], runtime: Runtime) -> None:
    """Both have 10.1.0.0/24; with three attempts, as a random one would be right in every second."""
    for _ in range(3):
        wished = [word for network in order for word in ("--network", network)]
        with runtime.container("--name", "both", *wished, "host", "sleep", "600"):
            shown = runtime.inspect("both")["interfaces"]
            assert [(one["ifname"], one["network"]) for one in shown] == [("eth0", order[0]), ("eth1", order[1])]
            assert "dev eth0" in runtime.run("exec", "both", "ip", "route", "get", "10.1.0.200")
            links = runtime.run("exec", "both", "ip", "-br", "link").splitlines()
            assert [line.split()[0].partition("@")[0] for line in links] == ["lo", "eth0", "eth1"]


def test_completion_knows_networks(runtime: Runtime) -> None:
    typed = hawse("--root", str(runtime.root), "__complete", "run", "--network", "")
    assert typed.stdout.split() == ["blue/web", "red/web", "web"]
