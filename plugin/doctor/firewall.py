"""Other firewalls' rules on this host: read, walked with our packets, and named where they drop them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from plugin.doctor import legacy
from plugin.doctor.finding import Finding, ok, problem, unknown, warning
from plugin.doctor.packet import Packet
from plugin.doctor.ruleset import Drop, Place, Ruleset
from plugin.kernel.nftables import run_libnftables
from sdn.model.errors import HawseError

CHECK = "firewall"
SAVE_TIMEOUT_S = 2.0
_LEGACY = (("ip", "iptables-legacy", "ip_tables_names"), ("ip6", "ip6tables-legacy", "ip6_tables_names"))
_HEAD = re.compile(r"^table (\S+) (\S+) \{")
_HANDLE = re.compile(r"^\s*(.*?) # handle (\d+)$")


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """One firewall's rules. `program`: what manages them (nft, iptables-legacy …); `texts`: a rule as it is listed."""

    program: str
    ruleset: Ruleset
    texts: dict[tuple[str, str, str, int], str]


@dataclasses.dataclass(frozen=True, slots=True)
class FirewallFacts:
    """`unread`: what could not be read, and why."""

    rules: tuple[Rules, ...] = ()
    unread: tuple[str, ...] = ()


def read_firewall(proc_net: Path = Path("/proc/thread-self/net")) -> FirewallFacts:
    """The rules of the calling thread's network namespace."""
    if os.geteuid() != 0:  # libnftables would complain on standard error by itself
        return FirewallFacts(unread=("root is needed to list other programs' rules",))
    rules: list[Rules] = []
    unread: list[str] = []
    try:
        listed = json.loads(run_libnftables("list ruleset", json=True) or "{}")
        rules.append(Rules("nft", Ruleset(listed), rule_texts(run_libnftables("list ruleset", handles=True))))
    except HawseError as error:
        unread.append(f"nftables: {error.message}")
    except ValueError as error:
        unread.append(f"nftables: its listing is no JSON ({error})")
    for family, program, names in _LEGACY:
        with contextlib.suppress(OSError):
            if (proc_net / names).read_text().split():
                rules += _read_legacy(family, program, unread)
    return FirewallFacts(tuple(rules), tuple(unread))


def _read_legacy(family: str, program: str, unread: list[str]) -> list[Rules]:
    save = shutil.which(f"{program}-save")
    if save is None:
        unread.append(f"{program}: it has rules here, but {program}-save is not installed")
        return []
    done = subprocess.run([save], capture_output=True, text=True, timeout=SAVE_TIMEOUT_S, check=False)
    if done.returncode:
        unread.append(f"{program}: {done.stderr.strip() or f'{save} ended with {done.returncode}'}")
        return []
    return [legacy_rules(family, program, done.stdout)]


def legacy_rules(family: str, program: str, saved: str) -> Rules:
    """What a `…-save` printed."""
    entries = legacy.entries(family, saved)
    rules = [entry["rule"] for entry in entries if "rule" in entry]
    texts = {(rule["family"], rule["table"], rule["chain"], rule["handle"]): rule["text"] for rule in rules}
    return Rules(program, Ruleset({"nftables": entries}), texts)


def rule_texts(listing: str) -> dict[tuple[str, str, str, int], str]:
    """(family, table, "", handle) -> the rule, of a listing with handles. A handle is unique in its table."""
    texts: dict[tuple[str, str, str, int], str] = {}
    family = table = ""
    for line in listing.splitlines():
        if head := _HEAD.match(line):
            family, table = head[1], head[2]
        elif line.startswith("\t\t") and (found := _HANDLE.match(line)):
            texts[family, table, "", int(found[2])] = found[1]
    return texts


@dataclasses.dataclass(frozen=True, slots=True)
class _Named:
    """A drop, whatever packets it is of."""

    rules: Rules
    drop: Drop
    packets: tuple[Packet, ...]
    certain: bool


def judge_firewall(facts: FirewallFacts, packets: Sequence[Packet], *, probed: bool = False) -> list[Finding]:
    """What drops these packets. `probed`: probes have passed in both directions to everybody, so tunnels do pass."""
    findings = [unknown(CHECK, f"not read: {reason}") for reason in facts.unread]
    named = [
        _Named(rules, drop, tuple(of), certain)
        for rules in facts.rules
        for drop, of, certain in _grouped(drop for packet in packets for drop in rules.ruleset.drops(packet))
    ]
    harmful = [one for one in named if one.certain or not (probed and _is_tunnel(one.packets[0]))]
    findings += [_finding(one, probed) for one in harmful]
    if not harmful and facts.rules:
        count = sum(rules.ruleset.bases for rules in facts.rules)
        seen = (
            f"{count} base chain{'s' if count != 1 else ''} of others, none drops our packets" if count else "no rules"
        )
        doubts = f" ({len(named)} rules may, but probes pass)" if named else ""
        findings.append(ok(CHECK, seen + doubts, chains=count))
    return findings


def _grouped(drops: Iterable[Drop]) -> list[tuple[Drop, list[Packet], bool]]:
    """Each place once, with all packets that die there."""
    places: dict[tuple[str, str, str, str, int], list[Drop]] = {}
    for drop in drops:
        places.setdefault((drop.family, drop.table, drop.base, drop.chain, drop.handle), []).append(drop)
    return [(found[0], [one.packet for one in found], any(one.certain for one in found)) for found in places.values()]


def _is_tunnel(packet: Packet) -> bool:
    return packet.what.startswith("tunnel")


def _finding(one: _Named, probed: bool) -> Finding:
    drop, rules = one.drop, one.rules
    where = f"{rules.program} table {drop.family} {drop.table}, chain {drop.chain}"
    if drop.place is Place.POLICY:
        text, place = "policy drop", f"the policy of {where}"
    else:
        text = _text(rules, drop)
        place = f"{where}, rule {'number' if rules.program != 'nft' else 'handle'} {drop.handle} `{text}`"
    passing = list(dict.fromkeys(packet.what for packet in one.packets))
    whom = passing[0] if len(passing) == 1 else f"{passing[0]} and {len(passing) - 1} more"
    diverted = drop.action not in ("drop", "reject")
    does = "diverts" if diverted else "drops" if drop.action == "drop" else "rejects"
    facts = {
        "program": rules.program, "family": drop.family, "table": drop.table, "base_chain": drop.base,
        "chain": drop.chain, "handle": drop.handle or None, "text": text, "certain": one.certain, "packets": passing,
    }  # fmt: skip
    remedy = _remedy(one)
    if one.certain and not (probed and _is_tunnel(one.packets[0])):
        return problem(CHECK, f"{place} {does} {whom}", _harm(one.packets), *remedy, **facts)
    may = {"drops": "drop", "rejects": "reject", "diverts": "divert"}[does]
    return warning(CHECK, f"{place} may {may} {whom}", "if it does: " + _harm(one.packets), *remedy, **facts)


def _text(rules: Rules, drop: Drop) -> str:
    chain = "" if rules.program == "nft" else drop.chain
    return rules.texts.get((drop.family, drop.table, chain, drop.handle), drop.action)


def _harm(packets: Sequence[Packet]) -> str:
    harms = {
        "containers here and on other hosts do not reach each other"
        if _is_tunnel(packet)
        else "hosts lose the controller: nothing new is attached"
        for packet in packets
    }
    return "; ".join(sorted(harms))


def _remedy(one: _Named) -> tuple[str, ...]:
    """A line for each kind of packet, which lets it in where the base chain begins."""
    kinds = {packet.accept: packet for packet in one.packets}
    return tuple(dict.fromkeys(line for packet in kinds.values() for line in _letting_in(one, packet)))


def _letting_in(one: _Named, packet: Packet) -> tuple[str, ...]:
    drop = one.drop
    if one.rules.program != "nft":
        protocol, _, port = packet.accept.partition(" dport ")
        rule = f"-p {protocol} --dport {port} -j ACCEPT"
        return (f"{one.rules.program} -t {drop.table} -I {drop.base} {rule}",)
    port, protocol = packet.accept.rpartition(" ")[2], packet.accept.partition(" ")[0]
    if drop.table == "firewalld":
        return (f"firewall-cmd --permanent --add-port={port}/{protocol} && firewall-cmd --reload",)
    if drop.chain.startswith("ufw") or any("ufw-" in text for text in one.rules.texts.values()):
        direction = "out" if "output" in packet.hooks else "in"
        return (f"ufw allow {direction} {port}/{protocol}",)
    if drop.base.isupper():  # iptables over nf_tables, which wants its tables to itself
        program = "iptables" if drop.family == "ip" else "ip6tables"
        return (f"{program} -t {drop.table} -I {drop.base} -p {protocol} --dport {port} -j ACCEPT",)
    return (
        f"nft insert rule {drop.family} {drop.table} {drop.base} {packet.accept} accept",
        "and keep it where that table is loaded from at boot (/etc/nftables.conf, or its program)",
    )
