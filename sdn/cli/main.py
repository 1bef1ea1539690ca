"""Find the command, build its parser, call it; errors become one sentence and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from sdn.cli.commands import COMMANDS, GROUPS, Command, below, find
from sdn.cli.exits import MEANINGS, Exit, UsageError, exit_of
from sdn.cli.output import complain
from sdn.cli.topics import TOPICS
from sdn.model.errors import HawseError

TRACEBACK = "HAWSE_TRACEBACK"
"""For who looks for a fault in Hawse: set, an unexpected error is shown with its traceback."""
GLOBAL_OPTIONS = ("--root", "--controller", "-o", "--output")

EXAMPLES = """\
examples:
  hawse lab demo                                    see it work, on this machine, in seconds
  hawse up -d                                       start this machine
  hawse token create                                print the line by which another machine joins
  hawse network create web --subnet 10.1.0.0/24     make a network
  hawse run --rm -it --network web host             a shell in a container in it
  hawse why web-1 db-1 tcp/80                       why a packet arrives or does not
  hawse drops                                       what was dropped, by cause
  hawse doctor                                      what is wrong, and what to type
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of `hawse`; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _ready_streams()
    try:
        code = int(_dispatch(arguments))
        sys.stdout.flush()
        return code
    except HawseError as error:
        complain(error.message, error.hint)
        return exit_of(error)
    except KeyboardInterrupt:
        complain("interrupted")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # `hawse … | head` ends quietly. The signal stays ignored: daemons come through here, and their clients leave.
        _drop_output()
        return Exit.OK
    except Exception as error:  # whatever it is, a user gets a sentence and never a traceback
        if TRACEBACK in os.environ:
            raise
        _drop_output()
        if isinstance(error, OSError) and error.strerror:  # a full disk, most likely
            complain(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        else:
            complain(f"{type(error).__name__}: {error}", f"this is a fault of hawse; {TRACEBACK}=1 shows where")
        return Exit.FAILED


def _ready_streams() -> None:
    """Output is written whatever the locale can spell, and wherever it goes, also nowhere (`>&-`)."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What could not be written is not tried again when the interpreter ends."""
    with contextlib.suppress(OSError):  # it is no file: nothing will be written later
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(arguments: list[str]) -> int:
    arguments, moved = split_global(arguments)
    words = tuple(itertools.takewhile(lambda word: not word.startswith("-"), arguments[:2]))
    if not arguments and moved:
        raise UsageError(f"there is no command after {' '.join(moved)}", "'hawse --help' lists all")
    if arguments[:1] == ["--version"]:
        arguments, words = ["version"], ("version",)
    if not words and arguments and arguments[0] not in ("-h", "--help"):
        raise UsageError(f"there is no option {arguments[0]!r} before a command", "'hawse --help' lists commands")
    if not words:
        return show_help(())
    command = find(words)
    if command is None:
        return _no_such(words, arguments)
    rest = arguments[len(command.words) :]
    if command.raw:
        return _call(command.target, moved + rest)
    return _call(command.target, build_parser(command).parse_args(moved + rest))


def split_global(arguments: list[str]) -> tuple[list[str], list[str]]:
    """`hawse -o json network ls` means the same as `hawse network ls -o json`."""
    moved: list[str] = []
    while arguments and arguments[0].partition("=")[0] in GLOBAL_OPTIONS:
        count = 1 if "=" in arguments[0] else 2
        moved += arguments[:count]
        arguments = arguments[count:]
    return arguments, moved


def _call(target: str, argument: Any) -> int:
    module, _, name = target.partition(":")
    function: Callable[[Any], int] = getattr(importlib.import_module(module), name)
    return function(argument)


class Parser(argparse.ArgumentParser):
    """argparse, with the nearest option for a typo and one way to end."""

    def error(self, message: str) -> NoReturn:
        """One sentence on stderr; exit code 2, or the one that its command has for this."""
        from sdn.cli.nearest import nearest_hint

        options = [option for action in self._actions for option in action.option_strings]
        unknown = message.removeprefix("unrecognized arguments: ").split(" ")[0] if "unrecognized" in message else ""
        hint = nearest_hint(unknown.partition("=")[0], options) if unknown.startswith("-") else ""
        complain(message, hint or f"see '{self.prog} --help'")
        sys.exit(self.get_default("usage_code") or Exit.USAGE)


def build_parser(command: Command) -> argparse.ArgumentParser:
    """The parser of one command."""
    parser = Parser(
        prog="hawse " + " ".join(command.words),
        description=command.summary[0].upper() + command.summary[1:] + ".",
        epilog=_epilog(command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _call(command.arguments, parser)
    if command.daemon:
        return parser
    if not any(action.dest == "output" for action in parser._actions):
        parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="how to print")
    if not any(action.dest == "root" for action in parser._actions):
        parser.add_argument("--root", metavar="DIR", default=os.environ.get("HAWSE_ROOT"), help="the host's root")
    if not any(action.dest == "controller" for action in parser._actions):
        parser.add_argument(
            "--controller", metavar="URL", default=None, help="the controller, e.g. unix:/run/hawse/controller.sock"
        )
    return parser


def _epilog(command: Command) -> str:
    if not command.examples:
        return MEANINGS
    title = "example" if len(command.examples) == 1 else "examples"
    return "\n".join([f"{title}:", *(f"  {example}" for example in command.examples), "", MEANINGS])


def show_help(words: tuple[str, ...]) -> int:
    """Of a command, of a group of them, or of all. `words` spell what there is."""
    command = find(words) if words else None
    if command is not None and not command.raw:
        build_parser(command).print_help()
        return Exit.OK
    if words:
        _print_group(words[0])
        return Exit.OK
    print(
        "hawse: a network for containers on several hosts\n\nusage: hawse [--root DIR] [--controller URL] COMMAND …\n"
    )
    _print_commands("commands:", list(COMMANDS))
    print("\ntopics:")
    for topic, summary in TOPICS.items():
        print(f"  {'help ' + topic:<20}{summary}")
    print(f"\n{EXAMPLES}\n{MEANINGS}\n\n'hawse COMMAND --help' explains one, 'hawse help TOPIC' what is behind them.")
    return Exit.OK


def _print_group(group: str) -> None:
    _print_commands(f"hawse {group}: {GROUPS[group]}", below((group,)))
    for topic in (f"{group}s", f"{group}es"):
        if topic in TOPICS:
            print(f"\n'hawse help {topic}' explains what they are about.")


def _print_commands(title: str, commands: list[Command]) -> None:
    print(title)
    width = max(len(" ".join(command.words)) for command in commands) + 2
    for command in commands:
        print(f"  {' '.join(command.words):<{width}}{command.summary}")


def _no_such(words: tuple[str, ...], arguments: list[str]) -> int:
    from sdn.cli.nearest import nearest_command

    if words[0] in GROUPS and len(words) == 1:
        _print_group(words[0])
        asked = any(word in ("-h", "--help") for word in arguments)
        return Exit.OK if asked else Exit.USAGE
    meant = nearest_command(words)
    group = words[0] if words[0] in GROUPS else ""
    raise UsageError(
        f"there is no command 'hawse {' '.join(words if group else words[:1])}'",
        f"did you mean 'hawse {meant}'?" if meant else f"'hawse {group + ' ' if group else ''}--help' lists all",
    )


if __name__ == "__main__":
    sys.exit(main())
