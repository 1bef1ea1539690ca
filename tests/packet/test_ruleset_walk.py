"""The walk through a ruleset against the kernel: random rules are loaded, and a packet is really sent.

Where the walk says that it is dropped for certain, it is; where it finds nothing that may drop it, it arrives.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin.doctor.firewall import rule_texts
from plugin.doctor.packet import tunnels_in
from plugin.doctor.ruleset import Place, Ruleset
from plugin.kernel import namespace
from plugin.kernel.nftables import run_libnftables
from sdn.model.errors import HawseError

pytestmark = [pytest.mark.root, pytest.mark.bridge]

RULESETS = 150
ADDRESS = "127.0.0.1"
PACKET = tunnels_in(4, "lo", ADDRESS, [ADDRESS])[0]

FITTING = (
    "udp dport 4789", "udp dport 4000-5000", "udp dport { 53, 4789 }", "udp dport != 53", "udp dport @ports",
    'iifname "lo"', 'iifname "l*"', "meta l4proto udp", "meta l4proto { tcp, udp }", "ip saddr 127.0.0.0/8",
    "ip daddr 127.0.0.1", "ip saddr 127.0.0.0-127.0.0.9", "ct state new", "ct state new,established",
    "ct state { new, related }", "fib daddr type local", "meta nfproto ipv4", "udp dport >= 4789", "ip protocol udp",
    "th dport 4789",
)  # fmt: skip
OTHERS = (
    "udp dport 53", "udp dport 1-4788", "udp dport != 4789", "udp dport @none", "tcp dport 4789", "tcp dport != 22",
    'iifname "eth9"', "ip saddr 10.0.0.0/8", "ip6 saddr ::1", "ct state established,related", "ct state invalid",
    "meta l4proto tcp", "meta nfproto ipv6", "fib daddr type != local", "icmp type echo-request",
)  # fmt: skip
OPEN = ("meta mark 0", "meta mark 7", "udp sport > 1000", "udp sport < 1000", "limit rate 1000000/second", "ip ttl 64")
"""What the walk does not know, though the kernel does."""
VERDICTS = ("drop", "drop", "accept", "accept", "return", "jump one", "jump two", "continue", "counter", "reject")
MAPS = (
    "ct state vmap { established : accept, new : jump one, invalid : drop }",
    "ct state vmap { new : drop, established : accept }",
    "meta l4proto vmap { udp : goto two, tcp : drop }",
    "udp dport vmap { 53 : drop, 4789 : accept }",
    "udp dport vmap { 53 : accept, 22 : drop }",
    "meta mark vmap { 0 : drop, 7 : accept }",
)


def chain(chance: random.Random, verdicts: tuple[str, ...]) -> list[str]:
    rules = []
    for _ in range(chance.randint(0, 4)):
        if chance.random() < 0.2 and "jump one" in verdicts:
            rules.append(chance.choice(MAPS))
            continue
        kinds = chance.choices((FITTING, OTHERS, OPEN), (5, 4, 1), k=chance.randint(0, 2))
        rules.append(" ".join([*(chance.choice(kind) for kind in kinds), chance.choice(verdicts)]))
    return rules


def ruleset(chance: random.Random) -> str:
    """A table with two base chains and two to jump to, which jump no further."""
    leaves = tuple(verdict for verdict in VERDICTS if not verdict.startswith("jump"))
    first = tuple(verdict for verdict in VERDICTS if verdict != "reject")  # not possible before the input
    lines = ["flush ruleset", "table inet mine {"]
    lines += ["set ports { type inet_service; flags interval; elements = { 22, 4780-4790 }; }"]
    lines += ["set none { type inet_service; }"]
    for name in ("one", "two"):
        kept = [rule for rule in chain(chance, leaves) if "reject" not in rule]
        lines += [f"chain {name} {{", *kept, "}"]
    for hook, verdicts in (("prerouting", first), ("input", VERDICTS)):
        policy = chance.choice(("accept", "accept", "drop"))
        lines += [
            f"chain {hook} {{ type filter hook {hook} priority 0; policy {policy};",
            *chain(chance, verdicts),
            "}",
        ]
    return "\n".join([*lines, "}"])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[int]:
    """The descriptor of a namespace with a loopback link."""
    path = tmp_path / "host"
    namespace.create(path)
    try:
        with open(path) as opened:
            namespace.run_in(opened.fileno(), _loopback_up)
            yield opened.fileno()
    finally:
        namespace.remove(path)


def _loopback_up() -> None:
    from plugin.kernel import link
    from plugin.kernel.netlink import NetlinkSocket

    netlink = NetlinkSocket.open()
    netlink.do(link.change(link.LOOPBACK, b"", up=True))
    netlink.close()


def arrives(place: int) -> bool:
    """Whether a packet of a new connection arrives: over loopback it has, or has not, when it is sent."""
    receiver = namespace.socket_in(place, socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
    sender = namespace.socket_in(place, socket.AF_INET, socket.SOCK_DGRAM, 0)
    with receiver, sender:
        receiver.bind((ADDRESS, 4789))
        sender.sendto(b"x", (ADDRESS, 4789))
        try:
            return receiver.recv(8) == b"x"
        except BlockingIOError:
            return False


def test_what_is_certain_happens_and_what_is_not_found_does_not(place: int) -> None:
    chance = random.Random(4789)
    assert arrives(place)
    told = {"drops": 0, "may": 0, "passes": 0}
    while sum(told.values()) < RULESETS:
        text = ruleset(chance)
        try:
            run_libnftables(text, place)
        except HawseError as error:
            if "conflicting" in error.message:  # a rule that wants two protocols at once
                continue
            raise
        listed = Ruleset(json.loads(run_libnftables("list ruleset", place, json=True)))
        texts = rule_texts(run_libnftables("list ruleset", place, handles=True))
        drops = listed.drops(PACKET)
        passed = arrives(place)
        if any(drop.certain for drop in drops):
            told["drops"] += 1
            assert not passed, (text, drops)
        elif drops:
            told["may"] += 1
        else:
            told["passes"] += 1
            assert passed, text
        for drop in drops:
            if drop.place is Place.RULE:  # it can be shown as it is written
                said = texts[drop.family, drop.table, "", drop.handle]
                assert any(word in said for word in ("drop", "reject")), said
    assert min(told.values()) > RULESETS // 20, told
