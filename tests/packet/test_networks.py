"""The gateway's address answers on every host, and only in its own network; networks of one tenant do not meet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from scapy.layers.l2 import Ether

from sdn.client.client import resource
from tests.packet.frames import arp_request, is_answer, solicitation
from tests.packet.lab import Lab
from tests.packet.talk import Capture, ping, pings
from tests.packet.test_spoof_system import risen
from tests.packet.test_underlay_wire import send

pytestmark = pytest.mark.root

PREFIXES = {4: ("10.1.0.0/24", "10.2.0.0/24"), 6: ("fd00:1::/64", "fd00:2::/64")}


def gateway(lab: Lab, network: str, family: int) -> str:
    subnets = lab.client.get(resource("networks", network)).body["subnets"]
    return next(str(subnet["gateway"]) for subnet in subnets if (":" in subnet["gateway"]) == (family == 6))


@contextlib.contextmanager
def route(lab: Lab, place: str, prefix: str, *how: str) -> Iterator[None]:
    """A route of a container's own making."""
    lab.run(place, "ip", "route", "add", prefix, *how)
    try:
        yield
    finally:
        lab.run(place, "ip", "route", "del", prefix, *how)


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("place", ["a1", "b1"], ids=["h1", "h2"])
def test_the_gateway_answers_ping_and_questions_on_every_host(pair: Lab, place: str, family: int) -> None:
    me, address = pair.station(place), gateway(pair, "blue/web", family)
    assert ping(pair, place, address, count=5)
    question = arp_request(me, address) if family == 4 else solicitation(me, address)
    with Capture(pair, place) as ear:
        send(pair, place, [question])
        frames = ear.until(lambda frame: is_answer(question, frame), "the gateway's answer")
    # One MAC everywhere: a container that moves need not learn another.
    vni = pair.client.get(resource("networks", "blue/web")).body["vni"]
    answers = {Ether(frame).src for frame in frames if is_answer(question, frame)}
    assert answers == {f"02:48:57:{vni >> 16:02x}:{vni >> 8 & 255:02x}:{vni & 255:02x}"}


@pytest.mark.parametrize("target", ["d1", "d2"], ids=["same-host", "cross-host"])
@pytest.mark.parametrize("way", ["gateway", "link"])
def test_networks_of_one_tenant_do_not_meet(pair: Lab, way: str, target: str) -> None:
    other = "d2" if target == "d1" else "d1"
    before = pair.drops_rest("h1")
    with contextlib.ExitStack() as stack:
        ear = stack.enter_context(Capture(pair, target))
        unheard, heard = [], []
        for family in (4, 6):
            ours, theirs = PREFIXES[family]
            for place, network, prefix in (("a1", "blue/web", theirs), (target, "blue/db", ours)):
                how = ("via", gateway(pair, network, family)) if way == "gateway" else ("dev", "eth0")
                stack.enter_context(route(pair, place, prefix, *how))
            address = pair.address(target, family)
            unheard += [("a1", address, 0.4), ("a1", gateway(pair, "blue/db", family), 0.4)]
            heard += [(other, address, 5.0), ("a1", gateway(pair, "blue/web", family), 5.0)]
        assert pings(pair, unheard) == [False] * 4
        assert pings(pair, heard) == [True] * 4
        mac = bytes.fromhex(pair.endpoint("a1")["mac"].replace(":", ""))
        assert not any(mac in frame for frame in ear.frames())
    rise = {cause for (network, cause) in risen(before, pair.drops_rest("h1")) if network == "blue/web"}
    # On the link nobody answers the question for the address, and nothing is sent.
    assert {"no-router", "not-here"} & rise == ({"no-router", "not-here"} if way == "gateway" else set())
