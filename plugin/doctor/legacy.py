"""Rules of the old iptables, which nft does not see, as entries of an nftables ruleset: one walk serves both.

What is not understood of a rule becomes a condition that is not known. Source: iptables(8), iptables-extensions(8).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

_HOOKS = {
    "INPUT": "input",
    "OUTPUT": "output",
    "FORWARD": "forward",
    "PREROUTING": "prerouting",
    "POSTROUTING": "postrouting",
}
_VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return", "QUEUE": "queue"}
_VERDICTS |= {"DNAT": "dnat", "REDIRECT": "redirect", "TPROXY": "tproxy"}
_HARMLESS = ("LOG", "MARK", "CONNMARK", "CT", "NFLOG", "TRACE", "MASQUERADE", "SNAT", "NOTRACK", "TCPMSS", "CHECKSUM")
_MATCHES = ("tcp", "udp", "state", "conntrack", "comment", "multiport", "addrtype")
"""What `-m` names and whose options are read below."""


def entries(family: str, saved: str) -> list[dict[str, Any]]:
    """What `iptables-legacy-save` (`family` "ip") or `ip6tables-legacy-save` ("ip6") printed, as nft's JSON has it.

    A rule's handle is its number in the chain, as `iptables -D` takes it; `text`: the rule as it was printed.
    """
    found: list[dict[str, Any]] = []
    table = ""
    numbers: dict[str, int] = {}
    for line in saved.splitlines():
        if line.startswith("*"):
            table, numbers = line[1:].strip(), {}
        elif line.startswith(":"):
            name, policy = line[1:].split()[:2]
            chain: dict[str, Any] = {"family": family, "table": table, "name": name}
            if policy != "-" and name in _HOOKS:
                chain |= {"hook": _HOOKS[name], "policy": policy.lower(), "type": "filter", "prio": 0}
            found.append({"chain": chain})
        elif line.startswith("-A "):
            words = shlex.split(line)
            chain_name = words[1]
            numbers[chain_name] = numbers.get(chain_name, 0) + 1
            rule = {"family": family, "table": table, "chain": chain_name, "handle": numbers[chain_name]}
            found.append({"rule": {**rule, "expr": list(_statements(family, words[2:])), "text": line}})
    return found


def _statements(family: str, words: list[str]) -> Iterator[dict[str, Any]]:
    verdict: dict[str, Any] | None = None
    position, negated = 0, False
    protocol = words[words.index("-p") + 1] if "-p" in words[:-1] else "th"
    while position < len(words):
        word = words[position]
        if word == "!":
            negated, position = True, position + 1
            continue
        value = words[position + 1] if position + 1 < len(words) else ""
        if word in ("-j", "-g"):
            verdict = _target(word, value)
            break  # what follows are options of the target
        elif (word == "-m" and value in _MATCHES) or word == "--comment":
            pass
        elif word.startswith("-"):
            left, right = _condition(family, protocol, word, value)
            yield _match(left, right, negated) if left else {"xt": {"type": "match", "name": word}}
            if value.startswith("-") or value == "!":
                position -= 1  # an option without a value
        else:
            position -= 1  # the value of an option that takes none or several
        position += 2
        negated = False
    if verdict is not None:
        yield verdict


def _target(word: str, name: str) -> dict[str, Any]:
    if name in _VERDICTS:
        return {_VERDICTS[name]: None}
    if name in _HARMLESS:
        return {"continue": None}
    return {"goto" if word == "-g" else "jump": {"target": name}}


def _match(left: dict[str, Any], right: Any, negated: bool) -> dict[str, Any]:
    return {"match": {"op": "!=" if negated else "==", "left": left, "right": right}}


def _condition(family: str, protocol: str, word: str, value: str) -> tuple[dict[str, Any], Any]:
    """(field, what it must be); an empty field: not understood."""
    ports = {"--dport": "dport", "--dports": "dport", "--sport": "sport", "--sports": "sport"}
    if word in ports:
        return {"payload": {"protocol": protocol, "field": ports[word]}}, {
            "set": [_port(one) for one in value.split(",")]
        }
    if word in ("-s", "-d"):
        address, _, length = value.partition("/")
        if not length.isdecimal():
            return {}, None
        field = "saddr" if word == "-s" else "daddr"
        return {"payload": {"protocol": family, "field": field}}, {"prefix": {"addr": address, "len": int(length)}}
    if word in ("-i", "-o"):
        name = value[:-1] + "*" if value.endswith("+") else value
        return {"meta": {"key": "iifname" if word == "-i" else "oifname"}}, name
    if word == "-p":
        return {"meta": {"key": "l4proto"}}, value
    if word in ("--dst-type", "--src-type"):
        return {"fib": {"result": "type", "flags": ["daddr" if word == "--dst-type" else "saddr"]}}, value.lower()
    if word in ("--state", "--ctstate"):
        return {"ct": {"key": "state"}}, {"set": value.lower().split(",")}
    return {}, None


def _port(text: str) -> Any:
    first, _, last = text.partition(":")
    if not first.isdecimal() or (last and not last.isdecimal()):
        return text
    return {"range": [int(first), int(last)]} if last else int(first)
