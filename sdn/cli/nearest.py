"""What was probably meant. Imported only after a mistake: difflib costs 5 ms."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sdn.cli.commands import COMMANDS


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The most similar of some words, or None."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.55)
    return found[0] if found else None


def nearest_hint(word: str, words: Iterable[str]) -> str:
    """`did you mean …?`, or nothing."""
    meant = nearest(word, words)
    return f"did you mean {meant}?" if meant else ""


SYNONYMS = {
    "list": "ls", "show": "inspect", "delete": "rm", "remove": "rm", "add": "create", "connect": "attach",
    "disconnect": "detach", "join": "attach", "start": "up", "stop": "down", "new": "create", "get": "inspect",
    "destroy": "rm", "describe": "inspect", "networks": "network", "net": "network", "hosts": "host", "node": "host",
    "endpoints": "endpoint", "tenants": "tenant", "labs": "lab", "drop": "drops", "event": "events",
    "nodes": "host", "ps": "ls", "run": "up", "log": "logs",
    "tokens": "token", "certificates": "certificate", "cert": "certificate", "init": "up", "enroll": "join",
    "diagnose": "doctor", "diagnostics": "support", "man": "help", "topics": "help", "cordon": "drain",
    "trace": "why", "explain": "why", "ping": "why", "flows": "flow", "dump-flows": "flow",
    "execute": "exec", "shell": "exec", "containers": "ps", "resume": "unpause", "usage": "stats",
}  # fmt: skip
"""Words that people bring along from other tools."""


def nearest_command(words: tuple[str, ...]) -> str | None:
    """The command that was probably meant, as text."""
    known = {" ".join(command.words) for command in COMMANDS}
    translated = [SYNONYMS.get(word, word) for word in words]
    for candidate in (" ".join(translated), translated[0]):
        if candidate in known:
            return candidate
    first = nearest(translated[0], {command.words[0] for command in COMMANDS})
    verbs = {command.words[1] for command in COMMANDS if command.words[0] == first and len(command.words) > 1}
    if first is None or not verbs:
        return first
    verb = nearest(translated[1], verbs) if len(translated) > 1 else None
    # Of a known group the wrong word is the verb; the group's help then says more than a guess.
    return f"{first} {verb}" if verb else (None if first == translated[0] else first)
