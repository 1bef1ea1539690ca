"""`hawse completion SHELL`, and the hidden `hawse __complete` that its scripts ask."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from sdn.cli.commands import COMMANDS, find
from sdn.cli.exits import Exit
from sdn.model.errors import HawseError

SCRIPTS = {
    "bash": """\
_hawse() {
    COMPREPLY=()
    local line
    while IFS= read -r line; do COMPREPLY+=("$line"); done \\
        < <(hawse __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _hawse hawse
""",
    "zsh": """\
#compdef hawse
_hawse() { compadd -- ${(f)"$(hawse __complete "${words[@]:1:$((CURRENT-1))}" 2>/dev/null)"} }
compdef _hawse hawse
""",
    "fish": """\
complete -c hawse -f -a '(hawse __complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
""",
}

REFERENCES = {"NETWORK": "networks", "TENANT": "tenants", "HOST": "hosts", "ENDPOINT": "endpoints"}
"""Which argument takes which resource's name."""
ASK_TIMEOUT_S = 0.5
"""Completion must not hang a shell."""


def completion_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `completion`."""
    parser.add_argument("shell", choices=sorted(SCRIPTS), help="e.g.  source <(hawse completion bash)")


def completion(args: argparse.Namespace) -> int:
    """Print a script."""
    print(SCRIPTS[args.shell], end="")
    return Exit.OK


def complete(argv: list[str]) -> int:
    """Print the candidates for the last word, a line each."""
    words, last = argv[:-1], argv[-1] if argv else ""
    for candidate in sorted(set(_candidates(words, last))):
        if candidate.startswith(last):
            print(candidate)
    return Exit.OK


def _candidates(words: list[str], last: str) -> Iterable[str]:
    command = find(tuple(words[:2]))
    if command is None or len(words) < len(command.words):
        spoken = tuple(words)
        return [
            c.words[len(spoken)] for c in COMMANDS if c.words[: len(spoken)] == spoken and len(c.words) > len(spoken)
        ]
    if command.raw:
        return ["--root", "--help"]
    from sdn.cli.main import build_parser

    actions = build_parser(command)._actions
    if last.startswith("-"):
        return [option for action in actions for option in action.option_strings]
    for action in actions:
        if words[-1] in action.option_strings and action.choices:
            return [str(choice) for choice in action.choices]
    wanted = {kind for action in actions for kind in (REFERENCES.get(str(action.metavar)),) if kind}
    return [name for kind in wanted for name in _names(words, kind)]


def _names(words: list[str], kind: str) -> list[str]:
    import os

    from sdn.cli.connection import client_of

    args = argparse.Namespace(root=os.environ.get("HAWSE_ROOT"), controller=None)
    if "--root" in words[:-1]:
        args.root = words[words.index("--root") + 1]
    try:
        items = client_of(args, ASK_TIMEOUT_S).items(f"/v1/{kind}")
        return [_reference(item) for item in items]
    except HawseError:
        return []  # no daemon, no candidates


def _reference(item: dict[str, str]) -> str:
    tenant = item.get("tenant_name", "default")
    return item["name"] if tenant == "default" or "tenant_name" not in item else f"{tenant}/{item['name']}"
