"""YAML with places: every refusal says file, line, what is wrong and what is allowed.

Scalars are taken as they are written (`no` is the text "no", `0a:51:…` no number); what they mean is for the schema.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import yaml

from sdn.model.errors import HawseError, Kind, invalid

FILE_BYTES_MAX = 1 << 20
T = TypeVar("T")

_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """One node of a document: where it is (`path` as `networks.blue/web.mtu`) and what it holds."""

    file: str
    path: str
    node: yaml.Node
    line: int

    def refuse(self, message: str, hint: str = "", *, allowed: Iterable[str] = ()) -> HawseError:
        """The error for this place."""
        choices = list(allowed)
        if choices:
            hint = (hint + " " if hint else "") + f"allowed: {', '.join(choices)}"
        where = f"{self.path}: " if self.path else ""
        facts = {"file": self.file, "line": self.line, "path": self.path}
        if choices:
            facts["allowed"] = choices
        return HawseError(Kind.INVALID, f"{self.file}:{self.line}: {where}{message}", hint=hint, facts=facts)

    def unknown(self, word: str, what: str, allowed: Iterable[str]) -> HawseError:
        """The error for a word that is not one of some, with the nearest that is."""
        choices = [str(choice) for choice in allowed]  # an enum's member would print as one
        near = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
        error = self.refuse(
            f"there is no {what} {word!r}", f"did you mean {near[0]!r}?" if near else "", allowed=choices
        )
        if near:
            error.facts["nearest"] = near[0]
        return error

    def valid(self, parse: Callable[[str], T]) -> T:
        """The text, parsed by one of the model's functions; its refusal gets file and line."""
        try:
            return parse(self.text())
        except HawseError as error:
            if "line" in error.facts:
                raise
            raise self.refuse(error.message, error.hint) from None

    def is_absent(self) -> bool:
        """Nothing after the colon."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag.endswith(":null")

    def is_text(self) -> bool:
        """Whether it is a scalar."""
        return isinstance(self.node, yaml.ScalarNode)

    def is_list(self) -> bool:
        """Whether it is a list."""
        return isinstance(self.node, yaml.SequenceNode)

    def text(self) -> str:
        """A scalar, as written."""
        if not isinstance(self.node, yaml.ScalarNode) or self.is_absent():
            raise self.refuse(f"a text is expected here, not {self._kind()}")
        return str(self.node.value)

    def integer(self, least: int, most: int) -> int:
        """A decimal number within bounds."""
        text = self.text()
        if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
            raise self.refuse(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    def boolean(self) -> bool:
        """`true` or `false`."""
        value = _BOOLEANS.get(self.text().lower())
        if value is None:
            raise self.refuse(f"{self.text()!r} is neither true nor false", allowed=("true", "false"))
        return value

    def choice(self, what: str, allowed: Sequence[str]) -> str:
        """One of some words."""
        text = self.text()
        if text not in allowed:
            raise self.unknown(text, what, allowed)
        return text

    def items(self) -> list[Place]:
        """The items of a list; a single scalar or mapping counts as a list of one, nothing as an empty one."""
        if self.is_absent():
            return []
        if not isinstance(self.node, yaml.SequenceNode):
            return [self]
        return [self._below(f"[{index}]", node) for index, node in enumerate(self.node.value)]

    def names(self) -> dict[str, Place]:
        """A mapping from any names, a list of names, or one name; an empty value stands for an empty mapping."""
        if isinstance(self.node, yaml.SequenceNode) or (self.is_text() and not self.is_absent()):
            places: dict[str, Place] = {}
            for item in self.items():
                if item.text() in places:
                    raise item.refuse(f"{item.text()!r} is listed twice (first on line {places[item.text()].line})")
                places[item.text()] = _empty(item, f"{self.path}.{item.text()}")
            return places
        return self._mapping()

    def fields(self, allowed: Sequence[str]) -> dict[str, Place]:
        """A mapping with known keys."""
        places = self._mapping()
        for key, place in places.items():
            if key not in allowed:
                raise dataclasses.replace(place, path=self.path).unknown(key, "key", allowed)
        return {key: place for key, place in places.items() if not place.is_absent()}

    def _mapping(self) -> dict[str, Place]:
        if self.is_absent():
            return {}
        if not isinstance(self.node, yaml.MappingNode):
            raise self.refuse(f"a mapping (`key: value`) is expected here, not {self._kind()}")
        places: dict[str, Place] = {}
        for key, value in self.node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise dataclasses.replace(self, line=line).refuse("a key must be a text")
            name = str(key.value)
            if name in places:
                raise dataclasses.replace(self, line=line).refuse(
                    f"{name!r} is there twice (first on line {places[name].line})", "remove or rename one"
                )
            place = self._below(f".{name}" if self.path else name, value)
            places[name] = dataclasses.replace(place, line=line)
        return places

    def _below(self, step: str, node: yaml.Node) -> Place:
        return Place(self.file, self.path + step, node, node.start_mark.line + 1)

    def _kind(self) -> str:
        if self.is_absent():
            return "nothing"
        if isinstance(self.node, yaml.SequenceNode):
            return "a list"
        return "a mapping" if isinstance(self.node, yaml.MappingNode) else "a text"


def _empty(place: Place, path: str) -> Place:
    node = yaml.MappingNode("tag:yaml.org,2002:map", [], place.node.start_mark, place.node.end_mark)
    return Place(place.file, path, node, place.line)


def parse_document(text: str, file: str) -> Place:
    """The root of a YAML document. Raises: INVALID with file and line."""
    loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times quicker where it is
    try:
        node = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise HawseError(
            Kind.INVALID,
            f"{file}:{line}: this is not YAML: {error.problem or error.context}",
            hint="look for a missing colon, quote or bracket there or on the line before",
            facts={"file": file, "line": line},
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise invalid(f"{file}:1: this is not YAML: {error}", file=file, line=1) from None
    if node is None:
        raise invalid(f"{file}:1: the file is empty", "see topologies/README.md", file=file, line=1)
    return Place(file, "", node, node.start_mark.line + 1)
