"""`hawse completion SHELL`, and the hidden `hawse __complete` that its scripts ask."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Iterable
from typing import Any

from sdn.cli.commands import COMMANDS, find
from sdn.cli.exits import Exit
from sdn.cli.topics import TOPICS
from sdn.model.errors import HawseError

SCRIPTS = {
    "bash": r"""
_hawse() {
    # Bash takes ':' and '=' for ends of words; hawse does not. What touches in the line is one word.
    local rest=${COMP_LINE:0:COMP_POINT} words=() word glued line i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        [[ $i -gt 0 && $rest != [[:space:]]* ]] && glued=1 || glued=
        rest=${rest#"${rest%%[![:space:]]*}"}
        word=${COMP_WORDS[i]}
        [[ $i -eq COMP_CWORD ]] && word=$rest
        rest=${rest#"$word"}
        if [[ $glued && ${#words[@]} -gt 1 ]]; then words[-1]+=$word; else words+=("$word"); fi
    done
    word=${words[-1]}
    glued=${word%"${word##*[:=]}"}
    COMPREPLY=()
    while IFS= read -r line; do COMPREPLY+=("${line#"$glued"}"); done \
        < <(hawse __complete "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _hawse hawse
""".lstrip(),
    "zsh": """\
#compdef hawse
_hawse() { compadd -- ${(f)"$(hawse __complete "${words[@]:1:$((CURRENT-1))}" 2>/dev/null)"} }
compdef _hawse hawse
""",
    "fish": """\
complete -c hawse -f -a '(hawse __complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
""",
}

REFERENCES = {
    "NETWORK": "networks",
    "TENANT": "tenants",
    "HOST": "hosts",
    "ENDPOINT": "endpoints",
    "SWITCH": "switches",
}
"""Which argument takes which resource's name."""
LABS = {("lab", "check"), ("lab", "ps"), ("lab", "down")}
"""Commands whose NAME is a lab's."""
LIVING = ("exec", "stop", "kill", "pause", "unpause", "top", "stats")
"""Commands for containers that run."""
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
    from sdn.cli.main import build_parser, split_global

    words, moved = split_global(words)
    command = find(tuple(words[:2]))
    if command is None or len(words) < len(command.words):
        return _further(tuple(words))
    if command.words == ("help",):
        return _explained(words[1:])
    if command.raw or "--" in words:
        return []
    actions = build_parser(command)._actions
    action = _action(actions, words[len(command.words) :])
    if action is None and any(action.nargs == argparse.REMAINDER for action in actions):
        return []  # another program's words
    if last.startswith("-"):
        return [option for action in actions for option in action.option_strings]
    if action is None:
        return []
    if action.choices:
        return [str(choice) for choice in action.choices]
    return _values(str(action.metavar or action.dest.upper()), command.words, words + moved)


def _explained(words: list[str]) -> list[str]:
    """What `hawse help` may be asked for: topics, commands and groups; of a group, its commands."""
    return _further(tuple(words)) if words else [*TOPICS, *_further(())]


def _further(spoken: tuple[str, ...]) -> list[str]:
    """The next words of the commands that begin so."""
    return [c.words[len(spoken)] for c in COMMANDS if c.words[: len(spoken)] == spoken and len(c.words) > len(spoken)]


def _action(actions: list[argparse.Action], words: list[str]) -> argparse.Action | None:
    """What the next word would be: the value of the option before it, or the next positional argument."""
    by_option = {option: action for action in actions for option in action.option_strings}
    before = by_option.get(words[-1]) if words else None
    if before is not None and before.nargs is None:
        return before
    given = [
        word
        for previous, word in zip(["", *words], words, strict=False)
        if not word.startswith("-") and not (previous in by_option and by_option[previous].nargs is None)
    ]
    positional = [action for action in actions if not action.option_strings]
    if len(given) < len(positional):
        return positional[len(given)]
    return positional[-1] if positional and positional[-1].nargs == "+" else None


def _values(kind: str, command: tuple[str, ...], words: list[str]) -> list[str]:
    try:
        if kind in REFERENCES:
            return _names(words, REFERENCES[kind])
        if command in LABS or (command == ("lab", "exec") and kind in ("NAME", "HOST|CONTAINER")):
            return _lab_names(kind, words)
        if kind == "NAME" and command == ("doctor",):
            return _names(words, "hosts")
        if kind in ("SOURCE", "DESTINATION"):
            return _names(words, "endpoints")
        if kind == "TOKEN" and command[0] == "token":
            return _tokens(words)
        if kind == "CONTAINER" and command[0] == "network":
            from sdn.cli.attach import containers

            return list(containers(_root(words)))
        if kind == "CONTAINER":
            return [item["name"] for item in _runtimes(words, {"verb": "PS", "all": command[0] not in LIVING})]
        if kind == "IMAGE":
            return [name for item in _runtimes(words, {"verb": "IMAGE_LS"}) for name in item.get("names", ())]
    except HawseError:
        pass  # no daemon, no record, no permission: no candidates
    return []


def _root(words: list[str]) -> argparse.Namespace:
    root = words[words.index("--root") + 1] if "--root" in words[:-1] else os.environ.get("HAWSE_ROOT")
    return argparse.Namespace(root=root, controller=None)


def _names(words: list[str], kind: str) -> list[str]:
    from sdn.cli.connection import client_of
    from sdn.cli.output import reference

    items = client_of(_root(words), ASK_TIMEOUT_S).items(f"/v1/{kind}")
    return [reference(item) for item in items if item.get("name")]


def _tokens(words: list[str]) -> list[str]:
    """Names, or ids, of those that can still be used; a word is a secret."""
    from sdn.cli.connection import client_of

    tokens = client_of(_root(words), ASK_TIMEOUT_S).items("/v1/tokens")
    return [str(token["name"] or token["id"]) for token in tokens if token["state"] == "usable"]


def _runtimes(words: list[str], question: dict[str, Any]) -> list[dict[str, Any]]:
    from sdn.service.contract_client import request
    from sdn.service.roots import find_root

    socket_path = find_root(_root(words).root).runtime_socket
    items: list[dict[str, Any]] = request(socket_path, question, timeout_s=ASK_TIMEOUT_S)["items"]
    return items


def _lab_names(kind: str, words: list[str]) -> list[str]:
    record: Any = importlib.import_module("topologies.record")  # the layer above, as every lab command is reached
    if kind == "NAME":
        return [lab.name for lab in record.labs()]
    named = words[words.index("--lab") + 1] if "--lab" in words[:-1] else None
    known = record.find_lab(named).read()
    return [record.UNDERLAY, *known.hosts, *known.containers] if known else []
