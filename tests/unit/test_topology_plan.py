"""What a check asks, how it judges the answers, and how it shows them."""

from __future__ import annotations

import dataclasses
import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from topologies.check import CheckReport, Finding, count_drops, judge, judge_forgery
from topologies.matrix import as_json, cell_text, cells, print_report, summary
from topologies.plan import Interface, Probe, Station, may_hear, plan_probes, unasked
from topologies.probe import Heard
from topologies.values import Expectation, Forgery, Lie, Protocol


def interface(network: str, *addresses: str, mac: str = "0a:00:00:00:00:01", ifname: str = "eth0") -> Interface:
    return Interface(ifname=ifname, network=network, mac=mac, addresses=addresses, gateways=())


def station(name: str, *interfaces: Interface, host: str = "h1") -> Station:
    return Station(name=name, host=host, netns=f"/none/{name}", interfaces=interfaces)


BLUE1 = station("blue-1", interface("blue/web", "10.1.0.11", mac="0a:00:00:00:00:11"))
BLUE2 = station("blue-2", interface("blue/web", "10.1.0.12", mac="0a:00:00:00:00:12"))
RED1 = station("red-1", interface("red/web", "10.1.0.11", mac="0a:00:00:00:01:11"))
RED2 = station("red-2", interface("red/web", "10.1.0.12", mac="0a:00:00:00:01:12"))
ALL = {s.name: s for s in (BLUE1, BLUE2, RED1, RED2)}
ARRIVED = Heard(answered=True, listeners=frozenset({"blue-2"}), controlled=True, sent=1)
SILENT = Heard(answered=False, listeners=frozenset(), controlled=True, sent=1)


def probe_of(sender: str, receiver: str, transport: str = "ping") -> Probe:
    probes = plan_probes(list(ALL.values()), ())
    return next(p for p in probes if (p.sender, p.receiver, p.transport) == (sender, receiver, transport))


def expectation(sender: str, receiver: str, *, reach: bool, via: str | None = None) -> Expectation:
    return Expectation(sender=sender, receiver=receiver, protocol=Protocol.PING, via=via, reach=reach, line=7)


def test_every_ordered_pair_is_asked_by_every_transport_and_expected_by_the_rule() -> None:
    probes = plan_probes(list(ALL.values()), ())
    assert len(probes) == 4 * 3 * 3
    assert len({probe.number for probe in probes}) == len(probes)
    for probe in probes:
        assert probe.reach == (probe.sender.split("-")[0] == probe.receiver.split("-")[0])


@given(st.lists(st.sets(st.sampled_from(["a", "b", "c"]), max_size=3), min_size=2, max_size=5))
def test_nobody_is_expected_to_reach_beyond_a_network_that_both_have(memberships: list[set[str]]) -> None:
    stations = [
        station(f"s{n}", *(interface(network, f"10.{ord(network)}.0.{n}") for network in sorted(networks)))
        for n, networks in enumerate(memberships)
    ]
    probes = plan_probes(stations, ())
    by_name = dict(zip((s.name for s in stations), memberships, strict=True))
    for probe in probes:
        assert probe.reach == (probe.network in by_name[probe.sender])
    # Each address of each other station is asked, if the sender has any address at all.
    assert len(probes) == sum(
        3 * len(b) for i, a in enumerate(memberships) for j, b in enumerate(memberships) if i != j and a
    )


def test_hosts_without_a_common_underlay_family_are_apart_even_in_one_network() -> None:
    here, beside = station("here", interface("n", "10.0.0.1")), station("beside", interface("n", "10.0.0.2"))
    there = station("there", interface("n", "10.0.0.3"), host="h2")
    probes = plan_probes([here, beside, there], (), connected=lambda _one, _other: False)
    assert {(p.sender, p.receiver) for p in probes if p.reach} == {("here", "beside"), ("beside", "here")}


def test_families_that_the_sender_lacks_are_not_asked() -> None:
    four, six = station("four", interface("n", "10.0.0.1")), station("six", interface("n", "10.0.0.2", "fd00::2"))
    assert [p.label for p in plan_probes([four, six], ()) if p.sender == "four"] == ["ping", "tcp", "udp"]
    assert "tcp6" not in [p.label for p in plan_probes([four, six], ()) if p.sender == "six"]


def test_a_named_pair_overrules_the_rule_and_via_is_more_particular() -> None:
    one = station("one", interface("a", "10.1.0.1"))
    both = station("both", interface("a", "10.1.0.2"), interface("b", "10.2.0.2", ifname="eth1"))

    def expected(*expectations: Expectation) -> dict[str, bool]:
        probes = plan_probes([one, both], expectations)
        return {p.network: p.reach for p in probes if p.sender == "one" and p.transport == "ping"}

    assert expected() == {"a": True, "b": False}
    assert expected(expectation("one", "both", reach=True)) == {"a": True, "b": False}
    assert expected(expectation("one", "both", reach=False)) == {"a": False, "b": False}
    assert expected(expectation("one", "both", reach=True, via="b")) == {"a": True, "b": True}
    assert (
        expected(expectation("one", "both", reach=False, via="a"), expectation("one", "both", reach=True))["a"] is False
    )


def test_what_was_named_but_cannot_be_asked_is_told() -> None:
    lonely = expectation("blue-1", "nobody", reach=True)
    probes = plan_probes(list(ALL.values()), ())
    assert unasked(probes, [lonely, expectation("blue-1", "blue-2", reach=True)]) == [lonely]


def test_with_equal_addresses_only_the_own_tenants_may_hear() -> None:
    probe = probe_of("blue-1", "red-2")
    assert probe.address == "10.1.0.12"
    assert may_hear(probe, BLUE2, BLUE1)
    assert not may_hear(probe, RED2, BLUE1)
    assert not may_hear(probe, RED1, BLUE1)


def test_verdicts() -> None:
    there = probe_of("blue-1", "blue-2")
    assert judge(there, ARRIVED, ALL).ok
    assert "did not arrive" in judge(there, SILENT, ALL).why
    assert "no answer" in judge(there, dataclasses.replace(ARRIVED, answered=False), ALL).why
    stranger = dataclasses.replace(ARRIVED, listeners=frozenset({"blue-2", "red-1"}))
    assert "red-1" in judge(there, stranger, ALL).why

    apart = probe_of("blue-1", "red-2")
    assert judge(apart, SILENT, ALL).ok
    assert judge(apart, ARRIVED, ALL).ok  # blue-2 has that address too: it is right to hear it
    assert "must not" in judge(apart, dataclasses.replace(SILENT, listeners=frozenset({"red-2"})), ALL).why
    assert "not proved" in judge(apart, dataclasses.replace(SILENT, controlled=False), ALL).why


def test_a_lie_must_die_unheard_under_its_name() -> None:
    forgery = Forgery(sender="blue-1", receiver="blue-2", lie=Lie.IP4, cause="ip4-spoof", line=1)
    assert judge_forgery(forgery, SILENT, ALL, 1).ok
    assert "did not rise" in judge_forgery(forgery, SILENT, ALL, 0).why
    assert "delivered to blue-2" in judge_forgery(forgery, ARRIVED, ALL, 1).why
    assert "could not be sent" in judge_forgery(forgery, dataclasses.replace(SILENT, sent=0), ALL, 1).why
    assert "not proved" in judge_forgery(forgery, dataclasses.replace(SILENT, controlled=False), ALL, 1).why


def test_drops_are_summed_over_networks() -> None:
    items = [
        {"host": "h1", "cause": "dad", "network": network, "packets": packets}
        for network, packets in (("a", 2), ("b", 3))
    ]
    assert count_drops(items) == {("h1", "dad"): 5}


def report_of(findings: list[Finding]) -> CheckReport:
    forgery = Forgery(sender="blue-1", receiver="blue-2", lie=Lie.IP4, cause="ip4-spoof", line=1)
    return CheckReport(
        lab="two",
        stations=tuple(ALL.values()),
        findings=tuple(findings),
        forgeries=(judge_forgery(forgery, SILENT, ALL, 2),),
        missing=(),
        seconds=0.5,
    )


def all_well() -> list[Finding]:
    return [
        judge(p, dataclasses.replace(ARRIVED, listeners=frozenset({p.receiver})) if p.reach else SILENT, ALL)
        for p in plan_probes(list(ALL.values()), ())
    ]


def printed(report: CheckReport) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue() + summary(report)


def test_the_matrix_shows_paths_walls_and_lies() -> None:
    report = report_of(all_well())
    assert report.mismatches == 0
    pairs = cells(report)
    assert cell_text(pairs["blue-1", "blue-2"]) == "✓"
    assert cell_text(pairs["blue-1", "red-2"]) == "✗"
    text = printed(report)
    assert "ip4-spoof" in text
    assert "h1 (+2)" in text
    assert "12 paths proved, 24 proved shut, 1 lies died with a name; all as expected" in text


def test_a_mismatch_is_named_in_the_matrix_below_it_and_in_json() -> None:
    findings = all_well()
    probe = probe_of("blue-1", "blue-2", "tcp")
    findings = [judge(f.probe, SILENT, ALL) if f.probe == probe else f for f in findings]
    report = report_of(findings)
    assert report.mismatches == 1
    assert cell_text(cells(report)["blue-1", "blue-2"]) == "!tcp"
    assert "blue-1 → blue-2 tcp to 10.1.0.12: did not arrive" in printed(report)
    document = as_json(report)
    assert document["ok"] is False
    assert [p for p in document["probes"] if not p["ok"]] == [
        {
            "from": "blue-1", "to": "blue-2", "network": "blue/web", "address": "10.1.0.12", "protocol": "tcp",
            "expected": "reach", "found": "drop", "line": 0, "sent": 1, "ok": False, "why": "did not arrive",
        }
    ]  # fmt: skip
