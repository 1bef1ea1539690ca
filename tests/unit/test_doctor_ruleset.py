"""Other firewalls' rules, walked by our packets: what drops them is named, what lets them pass is not."""

from __future__ import annotations

from typing import Any

import pytest

from plugin.datapath.openflow import guard
from plugin.doctor.finding import Verdict
from plugin.doctor.firewall import FirewallFacts, Rules, judge_firewall, legacy_rules, rule_texts
from plugin.doctor.packet import controller_in, controller_out, tunnels_in, tunnels_out
from plugin.doctor.ruleset import Drop, Place, Ruleset

HERE, PEER = "192.0.2.1", "192.0.2.2"
IN = tunnels_in(4, "eth0", HERE, [PEER])[0]
OUT = tunnels_out(4, "eth0", HERE, [PEER])[0]

DROP: dict[str, Any] = {"drop": None}
ACCEPT: dict[str, Any] = {"accept": None}


def base(hook: str = "input", policy: str = "accept", family: str = "inet", table: str = "filter") -> dict[str, Any]:
    return {"chain": {"family": family, "table": table, "name": hook, "hook": hook, "policy": policy}}


def rule(*expr: Any, chain: str = "input", handle: int = 1, family: str = "inet") -> dict[str, Any]:
    return {"rule": {"family": family, "table": "filter", "chain": chain, "handle": handle, "expr": list(expr)}}


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


STATE = {"ct": {"key": "state"}}
DPORT = payload("udp", "dport")
OURS = match(DPORT, 4789)
UNREAD = match(meta("mark"), 7)
FIB = {"fib": {"result": "type", "flags": ["daddr"]}}


def drops(*entries: Any, packet: Any = IN) -> list[tuple[str, int, bool]]:
    """(chain, handle, certain) of each drop."""
    found: list[Drop] = Ruleset({"nftables": list(entries)}).drops(packet)
    return [(drop.chain, drop.handle, drop.certain) for drop in found]


@pytest.mark.parametrize(
    "condition",
    [
        [],
        [OURS],
        [match(DPORT, {"range": [4000, 5000]})],
        [match(DPORT, {"set": [53, 4789]})],
        [match(DPORT, {"set": [{"range": [4780, 4790]}]})],
        [match(DPORT, {"set": [{"elem": {"val": 4789, "comment": "x"}}]})],
        [match(DPORT, 53, "!=")],
        [match(DPORT, 1024, ">=")],
        [match(payload("th", "dport"), 4789)],
        [match(meta("l4proto"), "udp")],
        [match(meta("l4proto"), {"set": ["icmp", "udp"]})],
        [match(payload("ip", "protocol"), "udp")],
        [match(payload("ip", "saddr"), {"prefix": {"addr": "192.0.2.0", "len": 24}})],
        [match(payload("ip", "saddr"), {"range": ["192.0.2.0", "192.0.2.9"]})],
        [match(payload("ip", "daddr"), HERE)],
        [match(meta("iifname"), "eth*")],
        [match(meta("iif"), "eth0")],
        [match(FIB, "local")],
        [match(STATE, "new", "in")],
        [match(STATE, ["new", "invalid"], "in")],
        [{"counter": {"packets": 0, "bytes": 0}}, {"log": {"prefix": "x"}}],
        [{"xt": {"type": "match", "name": "comment"}}],
    ],
)
def test_a_rule_that_fits_drops(condition: list[Any]) -> None:
    assert drops(base(), rule(*condition, DROP, handle=7)) == [("input", 7, True)]
    assert drops(base(), rule(*condition, ACCEPT), rule(DROP, handle=8)) == []


@pytest.mark.parametrize(
    "condition",
    [
        [match(DPORT, 53)],
        [match(DPORT, {"range": [1, 4788]})],
        [match(DPORT, 4789, "!=")],
        [match(DPORT, 1024, "<")],
        [match(payload("tcp", "dport"), 4789)],
        [match(payload("tcp", "dport"), 4789, "!=")],  # it is no tcp: the rule asks for that first
        [match(payload("ip6", "saddr"), "fd00::1")],
        [match(payload("icmp", "type"), "echo-request")],
        [match(meta("l4proto"), "tcp")],
        [match(meta("nfproto"), "ipv6")],
        [match(meta("iifname"), "lo")],
        [match(payload("ip", "saddr"), "198.51.100.7")],
        [match(STATE, ["established", "related"], "in")],
        [match(STATE, "invalid", "in")],
        [match(FIB, "local", "!=")],
        [OURS, match(meta("iifname"), "wlan0")],
    ],
)
def test_a_rule_that_does_not_fit_is_passed(condition: list[Any]) -> None:
    assert drops(base(), rule(*condition, DROP)) == []
    assert drops(base(), rule(*condition, ACCEPT), rule(DROP, handle=8)) == [("input", 8, True)]


@pytest.mark.parametrize(
    "condition",
    [
        [UNREAD],
        [match({"&": [meta("mark"), 0x8000]}, 0x8000)],
        [match(DPORT, "@unknown")],
        [{"limit": {"rate": 1, "per": "second"}}],
        [{"xt": {"type": "match", "name": "multiport"}}],
        [match(payload("udp", "sport"), 53)],
    ],
)
def test_what_is_not_understood_may_drop_and_leaves_open_what_comes_behind(condition: list[Any]) -> None:
    assert drops(base(), rule(*condition, DROP, handle=7)) == [("input", 7, False)]
    assert drops(base(), rule(*condition, ACCEPT), rule(DROP, handle=8)) == [("input", 8, False)]
    assert drops(base(policy="drop"), rule(*condition, ACCEPT)) == [("input", 0, False)]
    assert drops(base(), rule(*condition, DROP, handle=7), rule(ACCEPT)) == [("input", 7, False)]


def test_policies() -> None:
    assert drops(base(policy="drop")) == [("input", 0, True)]
    assert drops(base(policy="drop"), rule(OURS, ACCEPT)) == []
    assert drops(base("forward", "drop")) == []  # a tunnel packet is for this host
    assert drops(base("output", "drop")) == []
    assert drops(base("output", "drop"), packet=OUT) == [("output", 0, True)]
    assert drops(base("prerouting", "drop")) == [("prerouting", 0, True)]
    assert drops(base(policy="drop", family="ip6")) == []
    assert drops(base(policy="drop", family="ip")) == [("input", 0, True)]
    assert drops(base(policy="drop", table="hawse")) == []  # ours lets members in, and knows whom
    assert drops(base(policy="drop", table=guard.TABLE)) == []  # drops what comes from containers


def test_an_accept_in_one_base_chain_does_not_save_from_another() -> None:
    other = {"chain": {"family": "inet", "table": "other", "name": "late", "hook": "input", "policy": "drop"}}
    assert drops(base(), rule(ACCEPT), other) == [("late", 0, True)]


def chain(name: str) -> dict[str, Any]:
    return {"chain": {"family": "inet", "table": "filter", "name": name}}


def test_jumps_and_returns() -> None:
    jump, goto = {"jump": {"target": "sub"}}, {"goto": {"target": "sub"}}
    inner = rule(OURS, DROP, chain="sub", handle=9)
    assert drops(base(), chain("sub"), rule(jump), inner) == [("sub", 9, True)]
    assert drops(base(), chain("sub"), rule(UNREAD, jump), inner) == [("sub", 9, False)]
    back = rule({"return": None}, chain="sub")
    maybe = rule(UNREAD, {"return": None})
    assert drops(base(policy="drop"), maybe, rule(ACCEPT)) == [("input", 0, False)]
    assert drops(base(), chain("sub"), rule(jump), back, inner) == []
    assert drops(base(), chain("sub"), rule(jump), rule(DROP, handle=3), back) == [("input", 3, True)]
    assert drops(base(policy="drop"), chain("sub"), rule(goto), rule(ACCEPT), back) == [("input", 0, True)]
    assert drops(base(policy="drop"), chain("sub"), rule(jump), rule(ACCEPT, chain="sub")) == []
    assert drops(base(), chain("sub"), rule(jump), rule(jump, chain="sub")) == []  # the kernel refuses loops; we end


def test_verdict_maps() -> None:
    def vmap(key: Any, *elements: Any) -> dict[str, Any]:
        return {"vmap": {"key": key, "data": {"set": [list(element) for element in elements]}}}

    assert drops(base(), rule(vmap(STATE, ("established", ACCEPT), ("new", DROP)))) == [("input", 1, True)]
    assert drops(base(), rule(vmap(STATE, ("established", ACCEPT), ("invalid", DROP)))) == []
    assert drops(base(policy="drop"), rule(vmap(STATE, ("new", ACCEPT)))) == []
    assert drops(base(), rule(vmap(meta("l4proto"), ("tcp", ACCEPT), ("udp", {"jump": {"target": "sub"}}))),
                 chain("sub"), rule(DROP, chain="sub", handle=4)) == [("sub", 4, True)]  # fmt: skip
    assert drops(base(), rule(vmap(meta("mark"), (1, ACCEPT), (2, DROP)))) == [("input", 1, False)]
    named = {"map": {"family": "inet", "table": "filter", "name": "m", "elem": [["new", DROP]]}}
    assert drops(base(), named, rule({"vmap": {"key": STATE, "data": "@m"}})) == [("input", 1, True)]


def test_named_sets() -> None:
    ports = {"set": {"family": "inet", "table": "filter", "name": "ports", "elem": [22, {"range": [4780, 4789]}]}}
    assert drops(base(policy="drop"), ports, rule(match(DPORT, "@ports"), ACCEPT)) == []
    none = {"set": {"family": "inet", "table": "filter", "name": "ports"}}
    assert drops(base(policy="drop"), none, rule(match(DPORT, "@ports"), ACCEPT)) == [("input", 0, True)]


def test_a_packet_that_is_led_elsewhere_is_lost_too() -> None:
    assert drops(base("prerouting"), rule(OURS, {"redirect": {"port": 1}}, chain="prerouting")) == [
        ("prerouting", 1, True)
    ]
    assert drops(base(), rule({"reject": {"type": "icmpx", "expr": "admin-prohibited"}})) == [("input", 1, True)]
    assert drops(base(), rule({"reject": {"type": "icmpv6", "expr": "port-unreachable"}})) == []  # it implies IPv6
    assert drops(base(), rule({"reject": {"type": "tcp reset"}})) == []
    assert drops(base(), rule({"xt": {"type": "target", "name": "REJECT"}})) == [("input", 1, True)]
    assert drops(base(policy="drop"), rule({"xt": {"type": "target", "name": "LOG"}})) == [("input", 0, True)]


LISTING = """\
table inet filter { # handle 3
	chain input { # handle 1
		type filter hook input priority filter; policy drop;
		udp dport 4000-5000 counter packets 0 bytes 0 drop comment "hi" # handle 10
	}
}
"""


def judged(*entries: Any, probed: bool = False, packets: Any = (IN,), listing: str = LISTING) -> list[Any]:
    rules = Rules("nft", Ruleset({"nftables": list(entries)}), rule_texts(listing))
    return judge_firewall(FirewallFacts((rules,)), packets, probed=probed)


def test_a_drop_is_named_with_table_chain_handle_and_text() -> None:
    (finding,) = judged(base(), rule(match(DPORT, {"range": [4000, 5000]}), DROP, handle=10))
    assert finding.verdict is Verdict.PROBLEM
    for part in ("nft table inet filter", "chain input", "handle 10", "`udp dport 4000-5000", PEER):
        assert part in finding.found
    assert finding.remedy[0] == "nft insert rule inet filter input udp dport 4789 accept"
    assert finding.facts["table"] == "filter"
    assert finding.facts["handle"] == 10


def test_probes_have_the_last_word() -> None:
    doubtful = (base(), rule(UNREAD, DROP))
    assert [finding.verdict for finding in judged(*doubtful)] == [Verdict.WARNING]
    assert [finding.verdict for finding in judged(*doubtful, probed=True)] == [Verdict.OK]
    assert [finding.verdict for finding in judged(base(policy="drop"), probed=True)] == [Verdict.WARNING]
    out = controller_out(4, "192.0.2.9", 4780)
    found = judged(base("output", "drop"), probed=True, packets=[out])
    assert [finding.verdict for finding in found] == [Verdict.PROBLEM]  # probes do not go to the controller


def test_one_place_is_one_finding_whatever_dies_there() -> None:
    packets = [*tunnels_in(4, "eth0", HERE, [PEER, "192.0.2.3"]), *tunnels_in(6, "eth0", "fd00::1", ["fd00::2"])]
    (finding,) = judged(base(policy="drop"), packets=[*packets, controller_in(4, 4780)])
    assert len(finding.facts["packets"]) == 4
    assert finding.remedy[0] == "nft insert rule inet filter input udp dport 4789 accept"
    assert "nft insert rule inet filter input tcp dport 4780 accept" in finding.remedy
    assert "controller" in finding.follows
    assert "containers" in finding.follows


def test_remedies_speak_the_language_of_whoever_owns_the_rules() -> None:
    (finding,) = judged({"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input",
                                   "policy": "drop"}})  # fmt: skip
    assert finding.remedy == ("iptables -t filter -I INPUT -p udp --dport 4789 -j ACCEPT",)
    (finding,) = judged(base(policy="drop", table="firewalld"))
    assert finding.remedy[0].startswith("firewall-cmd --permanent --add-port=4789/udp")


LEGACY = """\
# Generated by iptables-save
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:mine - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -s 192.0.2.0/24 -p udp -m udp --dport 4000:5000 -m comment --comment "a b" -j mine
-A INPUT -p tcp -m multiport --dports 22,80 -j ACCEPT
-A mine -s 192.0.2.2/32 {target}
-A OUTPUT -p udp -m udp ! --dport 4789 -j DROP
COMMIT
"""


def test_rules_of_the_old_iptables() -> None:
    rules = legacy_rules("ip", "iptables-legacy", LEGACY.format(target="-j REJECT --reject-with icmp-port-unreachable"))
    (drop,) = rules.ruleset.drops(IN)
    assert (drop.chain, drop.handle, drop.certain, drop.action) == ("mine", 1, True, "reject")
    (finding,) = judge_firewall(FirewallFacts((rules,)), [IN])
    assert "iptables-legacy table ip filter, chain mine, rule number 1 `-A mine -s 192.0.2.2/32" in finding.found
    assert finding.remedy == ("iptables-legacy -t filter -I INPUT -p udp --dport 4789 -j ACCEPT",)
    assert not rules.ruleset.drops(OUT)
    assert [drop.certain for drop in rules.ruleset.drops(controller_in(4, 22))] == []
    (policy,) = rules.ruleset.drops(controller_in(4, 4780))
    assert policy.place is Place.POLICY
    accepting = legacy_rules("ip", "iptables-legacy", LEGACY.format(target="-j ACCEPT"))
    assert not accepting.ruleset.drops(IN)
    unknown = legacy_rules("ip", "iptables-legacy", LEGACY.format(target="-m recent --rcheck -j DROP"))
    assert [drop.certain for drop in unknown.ruleset.drops(IN)] == [False, False]  # the rule, then the policy


def test_what_cannot_be_read_is_said() -> None:
    (finding,) = judge_firewall(FirewallFacts(unread=("nftables: no right to",)), [IN])
    assert finding.verdict is Verdict.UNKNOWN
    assert "no right to" in finding.found
