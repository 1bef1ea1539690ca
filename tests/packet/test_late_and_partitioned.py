"""A host that comes late gets everything; one that is cut off keeps its traffic and catches up."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

from sdn.client.client import resource
from sdn.model.errors import HawseError, Kind
from tests.packet.lab import Lab, eventually, lab
from tests.packet.sight import answered
from tests.packet.talk import Pinger, pings

pytestmark = pytest.mark.root

NETWORK = "blue/web"
H2 = "100.64.0.12"
TOPOLOGY = """\
hosts: [h1, h2]
tenants: [blue]
networks:
  blue/web: {subnets: [10.1.0.0/24, "fd00:1::/64"]}
containers:
  a1: {host: h1, networks: {network: blue/web, ip: 10.1.0.11, ip6: "fd00:1::11"}}
  b1: {host: h2, networks: {network: blue/web, ip: 10.1.0.12, ip6: "fd00:1::12"}}
"""
_names = iter(range(1_000_000))


@pytest.fixture(scope="module")
def stage() -> Iterator[Lab]:
    with lab(TOPOLOGY) as up:
        yield up


def attach(stage: Lab, host: str, network: str = NETWORK, settle_ms: int | None = None) -> tuple[str, list[str]]:
    """A new container and its addresses."""
    name = stage.make_container(f"n{next(_names)}")
    bound = {} if settle_ms is None else {"settle_ms": settle_ms}
    result = stage.add(host, name, network, **bound)
    return name, [text.partition("/")[0] for text in result["addresses"]]


def each_other(stage: Lab, *groups: tuple[str, list[str]]) -> list[tuple[str, str, float]]:
    """Every ordered pair of (container, addresses), as questions."""
    return [(place, address, 5.0) for place, _ in groups for other, at in groups if other != place for address in at]


A1, B1 = ("a1", ["10.1.0.11", "fd00:1::11"]), ("b1", ["10.1.0.12", "fd00:1::12"])


def test_a_host_that_was_made_late_gets_everything(stage: Lab) -> None:
    early = attach(stage, "h1")
    stage.add_host("h9", "100.64.0.99/24")
    late = attach(stage, "h9")
    questions = each_other(stage, late, A1, B1, early)
    assert pings(stage, questions) == [True] * len(questions)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
def test_an_agent_that_was_away_gets_what_was_changed_meanwhile(stage: Lab, number: signal.Signals) -> None:
    leaver, comer_network = attach(stage, "h1"), f"blue/late-{number.name.lower()}"
    assert pings(stage, [("b1", leaver[1][0], 5)]) == [True]
    arguments = stage.stop("h2", number)
    traffic = Pinger(stage, "b1", "10.1.0.11", 100, 0.005)
    stage.remove("h1", leaver[0], NETWORK)
    comers = [attach(stage, "h1", settle_ms=0) for _ in range(5)]
    subnets = [{"prefix": "10.9.0.0/24" if number is signal.SIGTERM else "10.8.0.0/24"}]
    stage.client.put(
        resource("networks", comer_network), {"tenant": "blue", "name": comer_network[5:], "subnets": subnets}
    )
    near = attach(stage, "h1", comer_network, settle_ms=0)
    assert traffic.lost() == []
    stage.start("h2", arguments)
    stage.settle()
    questions = [("b1", address, 5.0) for comer in comers for address in comer[1]]
    assert pings(stage, questions) == [True] * len(questions)
    assert pings(stage, [("b1", address, 0.4) for address in leaver[1]]) == [False, False]
    far = attach(stage, "h2", comer_network)
    questions = each_other(stage, near, far)
    assert pings(stage, questions) == [True] * len(questions)


@contextlib.contextmanager
def cut_off(stage: Lab, verdict: str) -> Iterator[None]:
    """Nothing of h2 gets to the controller (in silence: nor the other way); between hosts all passes."""
    incoming = f"chain in {{ type filter hook input priority 0; ip saddr {H2} tcp dport 4780 {verdict}\n}}\n"
    outgoing = f"chain out {{ type filter hook output priority 0; ip daddr {H2} tcp sport 4780 drop\n}}\n"
    chains = incoming + (outgoing if verdict == "drop" else "")  # a refusal has to get through
    stage.run("underlay", "nft", f"table inet cut {{\n{chains}}}")
    try:
        yield
    finally:
        stage.run("underlay", "nft", "delete", "table", "inet", "cut")


@pytest.mark.parametrize("verdict", ["drop", "reject with tcp reset"], ids=["silent", "refused"])
def test_a_host_that_is_cut_off_keeps_its_traffic_and_catches_up(stage: Lab, verdict: str) -> None:
    resident, leaver = attach(stage, "h2"), attach(stage, "h1")
    whole = each_other(stage, A1, B1, resident, leaver)
    assert pings(stage, whole) == [True] * len(whole)
    with cut_off(stage, verdict):
        traffic = [Pinger(stage, "a1", "10.1.0.12", 300, 0.005), Pinger(stage, "b1", "fd00:1::11", 300, 0.005)]
        stage.remove("h1", leaver[0], NETWORK)
        comer = attach(stage, "h1", settle_ms=0)
        revision = stage.client.get("/v1/status").body["revision"]

        def states() -> dict[str, str]:
            status = stage.client.get("/v1/status", revision=revision, wait=0.5).body
            assert not status["settled"]
            return {host["name"]: host.get("state") for host in status["hosts"]}

        seen = eventually(states, lambda seen: seen["h1"] == "applied", "what the other host says of itself")
        assert seen["h2"] in ("late", "not-connected")
        assert pings(stage, each_other(stage, A1, B1, resident)) == [True] * 12
        assert [pinger.lost() for pinger in traffic] == [[], []]
        if verdict != "drop":  # what is refused the agent notices at once, silence by a heartbeat only
            eventually(lambda: stage.refusal("h2"), lambda error: error is not None, "the end of the connection")
            with pytest.raises(HawseError) as refused:
                attach(stage, "h2")
            assert refused.value.kind is Kind.UNAVAILABLE
            stage.remove("h2", resident[0], NETWORK)
            assert pings(stage, [("a1", address, 0.4) for address in resident[1]]) == [False, False]
    stage.settle()
    assert pings(stage, [("b1", address, 5) for address in comer[1]]) == [True, True]
    assert pings(stage, [("b1", address, 0.4) for address in leaver[1]]) == [False, False]
    assert leaver[1][0] not in answered(stage, "h2", "blue")
    present = {endpoint["container"] for endpoint in stage.endpoints()}
    assert (resident[0] in present) is (verdict == "drop")
    again = attach(stage, "h2")
    questions = each_other(stage, A1, B1, again, comer)
    assert pings(stage, questions) == [True] * len(questions)
