"""`hawse help`: what there is, one command's help, or one of the texts in `help/`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

from sdn.cli.commands import GROUPS, find
from sdn.cli.exits import Exit, UsageError

TOPICS: dict[str, str] = {
    "networks": "who reaches whom",
    "addresses": "where they come from, and when they go",
    "machines": "bringing hosts in, and letting them go",
    "switches": "ports of an Open vSwitch that has no agent",
    "packets": "finding out where they end",
    "security": "what is protected against whom, and what is not",
    "limits": "how much, how long, how far",
    "containers": "running them here",
}
"""Each has a text `help/TOPIC.md`, whose first line says the same."""
WIDTH_DEFAULT = 80
WIDTH_MIN, WIDTH_MAX = 40, 100
"""Longer lines are hard to read."""
_ON, _OFF, _GLUE = "\x01", "\x02", "\x03"
"""Beginning and end of what stands out, and a blank at which no line may break, while lines are made."""


class Style(NamedTuple):
    """How a text is shown: what is written before and after what stands out, and after how many columns a line ends."""

    on: str
    off: str
    width: int


def help_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `help`."""
    parser.add_argument("words", metavar="TOPIC", nargs="*", help=f"one of {', '.join(TOPICS)}; or a COMMAND")


def explain(args: argparse.Namespace) -> int:
    """Show a topic, or a command's help, or what there is."""
    from sdn.cli.main import show_help

    words = tuple(args.words)
    if len(words) == 1 and words[0] in TOPICS:
        print(render(read(words[0]), _style_of_output()), end="")
        return Exit.OK
    if not words or find(words) or words[0] in GROUPS:
        return show_help(words)
    from sdn.cli.nearest import nearest, nearest_command

    meant = nearest(words[0], TOPICS) or nearest_command(words)
    raise UsageError(
        f"there is no topic and no command '{' '.join(words)}'",
        f"did you mean 'hawse help {meant}'?" if meant else "'hawse help' lists all",
    )


def read(topic: str) -> str:
    """Its text, as Markdown."""
    with open(os.path.join(os.path.dirname(__file__), "help", f"{topic}.md"), encoding="utf-8") as file:
        return file.read()


def _style_of_output() -> Style:
    """Bold and as wide as the terminal; to wherever else it goes, plain."""
    if not sys.stdout.isatty():
        return Style("", "", WIDTH_DEFAULT)
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        columns = WIDTH_DEFAULT
    width = max(WIDTH_MIN, min(columns or WIDTH_DEFAULT, WIDTH_MAX))
    plain = os.environ.get("TERM", "dumb") == "dumb" or bool(os.environ.get("NO_COLOR"))
    return Style("", "", width) if plain else Style("\x1b[1m", "\x1b[0m", width)


def render(text: str, style: Style) -> str:
    """The little Markdown that the texts use: headings, paragraphs, lists, blocks of commands, `code` and **words**."""
    lines = [line for block in _blocks(text) for line in _lines(block, style)]
    return "\n".join(lines).replace(_ON, style.on).replace(_OFF, style.off).replace(_GLUE, " ") + "\n"


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs and headings, items of lists, and blocks of commands with their fence; "" for an empty line."""
    block: list[str] = []
    fenced = False
    for line in text.splitlines():
        starts = line.startswith(("#", "* ", "```")) and not fenced
        if block and not fenced and (starts or not line):
            yield "\n".join(block)
            block = []
        if line.startswith("```"):
            fenced = not fenced
        if line or fenced:
            block.append(line)
        else:
            yield ""
        if block and line.startswith("```") and not fenced:
            yield "\n".join(block)
            block = []
    if block:
        yield "\n".join(block)


def _lines(block: str, style: Style) -> Iterator[str]:
    if block.startswith("```"):
        yield from (f"    {line}".rstrip() for line in block.splitlines()[1:-1])
    elif block.startswith("#"):
        yield from _wrap(f"{_ON}{block.lstrip('# ')}{_OFF}", style.width, "", "")
    elif block.startswith("* "):
        yield from _wrap(_marked(block[2:], style), style.width, "  * ", "    ")
    else:
        yield from _wrap(_marked(block, style), style.width, "", "")


def _marked(text: str, style: Style) -> str:
    """Code and strong words between marks. Without bold, a command of several words is quoted."""

    def code(match: re.Match[str]) -> str:
        words = match[1].replace("\n", " ").replace(" ", _GLUE)
        return f"{_ON}{words}{_OFF}" if style.on or _GLUE not in words else f"'{words}'"

    text = re.sub(r"`([^`]+)`", code, text)
    return re.sub(r"(\*{1,2})([^*]+)\1", rf"{_ON}\2{_OFF}", text)


def _wrap(text: str, width: int, first: str, further: str) -> Iterator[str]:
    line, columns = first, len(first)
    for word in text.split():
        seen = len(word.replace(_ON, "").replace(_OFF, ""))
        if columns > len(further) and columns + 1 + seen > width and line != first:
            yield line
            line, columns = further, len(further)
        glue = "" if line in (first, further) else " "
        line += glue + word
        columns += len(glue) + seen
    yield line
