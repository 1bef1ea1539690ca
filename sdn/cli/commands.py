"""Every command: its words, what it does, and where it lives. Nothing is imported before it is called."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """`target` and `arguments` are `module:function`.

    `arguments(parser)` fills an argparse parser and `target(args)` returns the exit code; with `raw`, `target(argv)`
    parses by itself.
    """

    words: tuple[str, ...]
    summary: str
    target: str
    arguments: str = ""
    raw: bool = False


def _command(words: str, summary: str, module: str, verb: str) -> Command:
    return Command(tuple(words.split()), summary, f"{module}:{verb}", f"{module}:{verb}_arguments")


def _lab(verb: str, summary: str) -> Command:
    return Command(("lab", verb), summary, f"topologies.commands:{verb}", f"topologies.arguments:{verb}")


COMMANDS: tuple[Command, ...] = (
    _command("network create", "make a network", "sdn.cli.network", "create"),
    _command("network ls", "list networks", "sdn.cli.network", "ls"),
    _command("network inspect", "show all of a network", "sdn.cli.network", "inspect"),
    _command("network update", "change labels, add subnets", "sdn.cli.network", "update"),
    _command("network rm", "remove networks", "sdn.cli.network", "rm"),
    _command("network attach", "give a container an interface in a network", "sdn.cli.attach", "attach"),
    _command("network detach", "take it away again", "sdn.cli.attach", "detach"),
    _command("tenant create", "make a tenant: an address space and an owner", "sdn.cli.tenant", "create"),
    _command("tenant ls", "list tenants", "sdn.cli.tenant", "ls"),
    _command("tenant inspect", "show all of a tenant", "sdn.cli.tenant", "inspect"),
    _command("tenant rm", "remove tenants", "sdn.cli.tenant", "rm"),
    _command("host ls", "list hosts and how far they are", "sdn.cli.host", "ls"),
    _command("host inspect", "show all of a host", "sdn.cli.host", "inspect"),
    _command("host forget", "drop a host for good, with its endpoints", "sdn.cli.host", "forget"),
    _command("endpoint ls", "list endpoints", "sdn.cli.endpoint", "ls"),
    _command("endpoint inspect", "show all of an endpoint", "sdn.cli.endpoint", "inspect"),
    _command("events", "show what happened, and follow it", "sdn.cli.events", "events"),
    _command("drops", "show what the guard dropped, by cause", "sdn.cli.drops", "drops"),
    _lab("up", "bring a topology file to life on this machine"),
    _lab("check", "prove who reaches whom with real packets"),
    _lab("exec", "run a command in a host or container of a lab"),
    _lab("ps", "show a lab's hosts, daemons and containers"),
    _lab("ls", "list labs"),
    _lab("down", "remove a lab"),
    _lab("demo", "two hosts, two tenants, one table: up, check, down"),
    Command(("controller",), "run the controller", "sdn.controller.main:run", raw=True),
    Command(("agent",), "run this host's agent", "plugin.agent.main:run", raw=True),
    _command("version", "show versions", "sdn.cli.version", "version"),
    _command("completion", "print a completion script for bash, zsh or fish", "sdn.cli.completion", "completion"),
)

HIDDEN: tuple[Command, ...] = (
    Command(("__complete",), "candidates for the shell", "sdn.cli.completion:complete", raw=True),
)

GROUPS: dict[str, str] = {
    "network": "networks, and attaching to them",
    "tenant": "address spaces and their owners",
    "host": "machines that run an agent",
    "endpoint": "interfaces of containers in networks",
    "lab": "whole multi-host networks on this machine",
}


def below(words: tuple[str, ...]) -> list[Command]:
    """The commands that begin with these words."""
    return [command for command in COMMANDS if command.words[: len(words)] == words]


def find(words: tuple[str, ...]) -> Command | None:
    """The command that is spelt by a prefix of the words (the longest)."""
    for length in (2, 1):
        for command in COMMANDS + HIDDEN:
            if len(command.words) == length and command.words == words[:length]:
                return command
    return None
