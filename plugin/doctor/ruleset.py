"""An nftables ruleset, as libnftables prints it in JSON, walked by a synthetic packet: which rule could drop it?

Three-valued: a condition holds, does not hold, or is not known (a field that the packet leaves open, an expression that
is not understood). What comes behind an unknown condition *may* happen. In nftables an accept ends one base chain only
and a drop is final, so each base chain is walked by itself.

Source: libnftables-json(5), nft(8).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from plugin.doctor.packet import Packet

OWN_TABLES = frozenset({"hawse", "hawse-ports"})
"""`plugin.datapath.bridge`'s and the guard of ports that `plugin.datapath.openflow` loads."""
DEPTH_MAX = 16
"""The kernel's own bound of jumps (NFT_JUMP_STACK_SIZE)."""

Known = bool | None
"""None: not known."""


class Place(enum.StrEnum):
    """What drops: a rule, or the policy of a base chain."""

    RULE = "rule"
    POLICY = "policy"


@dataclasses.dataclass(frozen=True, slots=True)
class Drop:
    """Where a packet dies, or may. `base`: the base chain by which it came there; `handle`: 0 of a policy."""

    packet: Packet
    place: Place
    certain: bool
    family: str
    table: str
    base: str
    chain: str
    handle: int = 0
    action: str = "drop"


class _End(enum.Enum):
    """How a chain was left, as far as is certain."""

    THROUGH = "through"
    ACCEPTED = "accepted"
    DROPPED = "dropped"


Rule = dict[str, Any]


class Ruleset:
    """Parsed `list ruleset`."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._bases: list[dict[str, Any]] = []
        self._rules: dict[tuple[str, str, str], list[Rule]] = {}
        self._sets: dict[tuple[str, str, str], list[Any]] = {}
        for entry in document.get("nftables", ()):
            for kind, value in entry.items():
                self._note(kind, value)

    def _note(self, kind: str, value: Any) -> None:
        if kind == "chain" and "hook" in value:
            self._bases.append(value)
        elif kind == "rule":
            self._rules.setdefault((value["family"], value["table"], value["chain"]), []).append(value)
        elif kind in ("set", "map"):
            self._sets[value["family"], value["table"], value["name"]] = value.get("elem", [])

    @property
    def bases(self) -> int:
        """How many base chains of others there are."""
        return sum(base["table"] not in OWN_TABLES for base in self._bases)

    def drops(self, packet: Packet) -> list[Drop]:
        """Where the packet dies or may die, but for our own tables."""
        families = {"inet", "ip" if packet.family == 4 else "ip6"}
        found: list[Drop] = []
        for base in self._bases:
            if base["hook"] in packet.hooks and base["family"] in families and base["table"] not in OWN_TABLES:
                found += _Walk(self._rules, self._sets, base, packet).drops()
        return found


class _Walk:
    """One packet through one base chain."""

    def __init__(
        self,
        rules: Mapping[tuple[str, str, str], list[Rule]],
        sets: Mapping[tuple[str, str, str], list[Any]],
        base: Mapping[str, Any],
        packet: Packet,
    ) -> None:
        self._rules = rules
        self._sets = sets
        self._base = base
        self._packet = packet
        self._found: list[Drop] = []

    def drops(self) -> list[Drop]:
        """All of the chain, its policy included."""
        end, certain = self._chain(self._base["name"], True, 0)
        if end is _End.THROUGH and self._base.get("policy") == "drop":
            self._found.append(self._drop(Place.POLICY, certain, self._base["name"], 0, "drop"))
        return self._found

    def _drop(self, place: Place, certain: bool, chain: str, handle: int, action: str) -> Drop:
        base = self._base
        return Drop(self._packet, place, certain, base["family"], base["table"], base["name"], chain, handle, action)

    def _chain(self, name: str, certain: bool, depth: int) -> tuple[_End, bool]:
        """Walk a chain: how it is left for certain, and whether all that comes behind is certain to be reached."""
        if depth > DEPTH_MAX:
            return _End.THROUGH, False
        escaped = False
        for rule in self._rules.get((self._base["family"], self._base["table"], name), ()):
            end, certain, leaves = self._rule(rule, name, certain, depth)
            if end is not _End.THROUGH:
                # Where it may have been left before, what comes behind the chain may be reached all the same.
                return (_End.THROUGH, False) if escaped else (end, certain)
            if leaves:
                break
            escaped = escaped or leaves is None
        return _End.THROUGH, certain

    def _rule(self, rule: Rule, chain: str, certain: bool, depth: int) -> tuple[_End, bool, Known]:
        """One rule: (how it ends, what is certain behind it, whether the chain is left)."""
        holds: Known = True
        for statement in rule.get("expr", ()):
            kind: str
            value: Any
            kind, value = next(iter(statement.items()), ("", None))
            if kind == "match":
                holds = _both(holds, self._match(value))
            elif kind == "xt" and value.get("type") == "target":
                kind = "reject" if value.get("name") in ("DROP", "REJECT") else "continue"
            elif kind in ("xt", "limit", "ct count", "quota"):  # a match of iptables, or one that counts
                holds = holds if kind == "xt" and value.get("name") == "comment" else _both(holds, None)
            elif kind == "vmap":
                kind, value, known = self._mapped(value)
                holds = _both(holds, known)
            elif kind == "reject":
                holds = _both(holds, self._rejectable(value))
            if holds is False:
                return _End.THROUGH, certain, False
            if kind in _VERDICTS:
                return self._verdict(kind, value, rule, chain, certain, holds is True, depth)
        return _End.THROUGH, certain, False

    def _verdict(
        self, kind: str, value: Any, rule: Rule, chain: str, certain: bool, holds: bool, depth: int
    ) -> tuple[_End, bool, Known]:
        if kind in _DEATHS:
            self._found.append(self._drop(Place.RULE, certain and holds, chain, rule.get("handle", 0), kind))
            return (_End.DROPPED if holds else _End.THROUGH), certain and holds, False
        if kind == "accept":
            return (_End.ACCEPTED if holds else _End.THROUGH), certain and holds, False
        if kind == "return":
            return _End.THROUGH, certain and holds, holds or None
        if kind in ("jump", "goto"):
            end, reached = self._chain(value["target"], certain and holds, depth + 1)
            if not holds:
                return _End.THROUGH, False, None if kind == "goto" else False
            return end, reached, kind == "goto"
        return _End.THROUGH, certain, False  # continue

    def _rejectable(self, how: Any) -> bool:
        """Whether a packet like this is rejected so: nft leaves away the condition that the answer implies."""
        kind = str(how.get("type", "")) if isinstance(how, dict) else ""
        family = {"icmp": 4, "icmpv6": 6}.get(kind, self._packet.family)
        protocol = self._packet.fields["meta l4proto"]
        return family == self._packet.family and (kind != "tcp reset" or protocol == "tcp")

    # Conditions ---------------------------------------------------------------------------------------------------

    def _match(self, match: Mapping[str, Any]) -> Known:
        have = self._value(match["left"])
        if have is None:
            return None
        compare = _OPERATORS.get(match["op"])
        if compare is None:
            return None
        if have is _ABSENT:
            return False
        return compare(self._among(have, match["right"]), have, match["right"])

    def _value(self, expression: Any) -> Any:
        """A field of the packet; None: not known; _ABSENT: the packet has no such thing, so no rule for it fits."""
        if not isinstance(expression, dict):
            return None
        kind, value = next(iter(expression.items()))
        if kind == "meta":
            return self._packet.fields.get(f"meta {value['key']}")
        if kind == "ct":
            return self._packet.fields.get(f"ct {value['key']}")
        if kind == "fib":
            return self._packet.fields.get(f"fib {' '.join(value['flags'])} {value['result']}")
        if kind != "payload" or "protocol" not in value:
            return None
        protocol, field = value["protocol"], value["field"]
        if protocol == "th":
            protocol = self._packet.fields["meta l4proto"]
        if protocol in _PROTOCOLS and protocol not in (self._packet.fields["meta l4proto"], f"ip{self._six}"):
            return _ABSENT
        return self._packet.fields.get(f"{protocol} {field}")

    @property
    def _six(self) -> str:
        return "6" if self._packet.family == 6 else ""

    def _among(self, have: Any, wanted: Any) -> Known:
        """Whether a value is what a right side says: a value, range, prefix, set, or a set's name."""
        if isinstance(wanted, str) and wanted.startswith("@"):
            elements = self._sets.get((self._base["family"], self._base["table"], wanted[1:]))
            return None if elements is None else _any(self._among(have, one) for one in elements)
        if isinstance(wanted, list):
            return _any(self._among(have, one) for one in wanted)
        if isinstance(wanted, dict):
            kind, inner = next(iter(wanted.items()))
            if kind == "set":
                return self._among(have, inner if isinstance(inner, list) else [inner])
            if kind == "elem":
                return self._among(have, inner["val"])
            return _within(kind, inner, have)
        return _same(have, wanted)

    def _mapped(self, vmap: Mapping[str, Any]) -> tuple[str, Any, Known]:
        """A verdict map: the verdict that fits, and whether it does."""
        have, data = self._value(vmap["key"]), vmap["data"]
        if isinstance(data, str):
            elements = self._sets.get((self._base["family"], self._base["table"], data[1:]), [])
        else:
            elements = data["set"]
        if have is _ABSENT:
            return "continue", None, False
        open_deaths: tuple[str, Any, Known] = ("continue", None, False)
        for wanted, verdict in elements:
            fits = None if have is None else self._among(have, wanted)
            kind, value = next(iter(verdict.items()))
            if fits:
                return kind, value, True
            if fits is None and kind != "continue":
                # several could fit: the one that harms is told of
                open_deaths = (kind, value, None) if kind in _DEATHS or open_deaths[0] == "continue" else open_deaths
        return open_deaths


_ABSENT = object()
_DEATHS = ("drop", "reject", "dnat", "redirect", "tproxy", "queue")
"""What keeps a packet from where it goes: the last four lead it somewhere else."""
_VERDICTS = (*_DEATHS, "accept", "return", "jump", "goto", "continue")
_PROTOCOLS = ("tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "igmp", "ah", "esp", "ip", "ip6", "arp")


def _both(one: Known, other: Known) -> Known:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def _any(values: Iterable[Known]) -> Known:
    seen = list(values)
    if True in seen:
        return True
    return None if None in seen else False


def _not(value: Known) -> Known:
    return None if value is None else not value


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _ordered(test: Callable[[int, int], bool]) -> Callable[[Known, Any, Any], Known]:
    def compare(_: Known, have: Any, wanted: Any) -> Known:
        mine, theirs = _number(have), _number(wanted)
        return None if mine is None or theirs is None else test(mine, theirs)

    return compare


_OPERATORS: dict[str, Callable[[Known, Any, Any], Known]] = {
    "==": lambda among, have, wanted: among,
    "in": lambda among, have, wanted: among,
    "!=": lambda among, have, wanted: _not(among),
    "<": _ordered(lambda mine, theirs: mine < theirs),
    ">": _ordered(lambda mine, theirs: mine > theirs),
    "<=": _ordered(lambda mine, theirs: mine <= theirs),
    ">=": _ordered(lambda mine, theirs: mine >= theirs),
}


def _same(have: Any, wanted: Any) -> Known:
    if isinstance(have, str) and isinstance(wanted, str) and wanted.endswith("*"):
        return have.startswith(wanted[:-1])
    if isinstance(have, str) and isinstance(wanted, int):
        return None  # a number for what is named here
    return bool(have == wanted)


def _within(kind: str, inner: Any, have: Any) -> Known:
    try:
        if kind == "prefix":
            return ip_address(have) in ip_network(f"{inner['addr']}/{inner['len']}", strict=False)
        if kind == "range":
            first, last = inner
            number = _number(have)
            if number is not None:
                return bool(first <= number <= last)
            address, low, high = ip_address(have), ip_address(first), ip_address(last)
            return low.version == high.version == address.version and int(low) <= int(address) <= int(high)
    except (TypeError, ValueError):
        return None
    return None
