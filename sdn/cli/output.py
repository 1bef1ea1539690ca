"""Tables for people, JSON for programs."""

from __future__ import annotations

import itertools
import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def print_json(value: Any) -> None:
    """One document, indented, keys as the API names them."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def print_table(
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    fold: Mapping[str, int] | None = None,
    narrow: Mapping[str, int] | None = None,
) -> None:
    """Aligned columns, upper-case header; `-` for what is not there.

    `fold`: a column's width, where what is longer goes on below itself. `narrow`: the width of a column in which a
    longer cell pushes the rest of its own row, and no other's.
    """
    folds = [(fold or {}).get(name, 0) for name in header]
    table = [list(header)]
    for row in rows:
        columns = [_folded(_cell(cell), width) for cell, width in zip(row, folds, strict=True)]
        table += [list(line) for line in itertools.zip_longest(*columns, fillvalue="")]
    widths = [max(_width(line[column]) for line in table) for column in range(len(header))]
    widths = [min(width, (narrow or {}).get(name, width)) for name, width in zip(header, widths, strict=True)]
    for line in table:
        cells = (cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def print_properties(resource: dict[str, Any]) -> None:
    """One resource: a line a field, nested ones indented; a reference as `name (id)`."""
    value = {key: _named(resource, key) for key in resource if not _is_name_of(resource, key)}
    width = max((len(key) for key in value), default=0)
    for key, item in value.items():
        if isinstance(item, list) and item and isinstance(item[0], dict):
            print(f"{key}:")
            for entry in item:
                print("  - " + "  ".join(f"{name}={_cell(cell)}" for name, cell in entry.items()))
        else:
            print(f"{key + ':':<{width + 2}}{_cell(item)}")


def _is_name_of(resource: dict[str, Any], key: str) -> bool:
    return key.endswith("_name") and key.removesuffix("_name") in resource


def _named(resource: dict[str, Any], key: str) -> Any:
    name = resource.get(f"{key}_name")
    return f"{name} ({resource[key]})" if name else resource[key]


def reference(resource: dict[str, Any]) -> str:
    """The name by which a user refers to a network or endpoint: `tenant/name`, or `name` in tenant `default`."""
    name, tenant = str(resource["name"]), resource.get("tenant_name", "default")
    return name if tenant == "default" else f"{tenant}/{name}"


def complain(message: str, hint: str = "") -> None:
    """One sentence on stderr, and what to do below it; of a word at the wrong place, nothing secret."""
    from sdn.model.credential_text import hide_credentials

    lines = hide_credentials("\n".join([f"hawse: {message}", *([f"       {hint}"] if hint else [])])).split("\n")
    print("\n".join(map(printable, lines)), file=sys.stderr)


def printable(text: str) -> str:
    """Text with control characters made visible: a name must not steer a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _cell(cell: Any) -> str:
    if cell is None or cell == "" or cell == [] or cell == {}:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, dict):
        return ",".join(f"{key}={_cell(item)}" for key, item in cell.items())
    if isinstance(cell, list | tuple):
        return ",".join(_cell(item) for item in cell)
    return printable(str(cell))


def _folded(text: str, width: int) -> list[str]:
    """In lines of that width (0: any), broken behind blanks and commas, or where a word has no other place."""
    if not width or _width(text) <= width:
        return [text]
    lines = [""]
    for word in re.findall(r"[^ ,]+[ ,]*|[ ,]+", text):
        if lines[-1] and len(lines[-1] + word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
