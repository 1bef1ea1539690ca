"""A request's query string, checked against what the route allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from sdn.model.errors import invalid

LIMIT_MAX = 1000
LIMIT_DEFAULT = 500


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """One thing that a query may say. `schema`: its JSON schema."""

    name: str
    summary: str
    schema: Mapping[str, object] = dataclasses.field(default_factory=lambda: {"type": "string"})
    repeated: bool = False


LABEL = Parameter("label", "only what has this label, as key=value; all of them where repeated", repeated=True)
TENANT = Parameter("tenant", "only this tenant's: name or id")
NETWORK = Parameter("network", "only this network's: name, tenant/name or id")
HOST = Parameter("host", "only this host's: name or id")
PAGE = (
    Parameter("limit", "items of a page", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX}),
    Parameter("after", "the `next` of the page before"),
)


class Query:
    """What was asked. Raises (all of it): INVALID."""

    def __init__(self, pairs: Iterable[tuple[str, str]], allowed: Iterable[Parameter]) -> None:
        self._values: dict[str, list[str]] = {}
        given = tuple(pairs)
        known = {parameter.name: parameter for parameter in allowed} if given else {}
        for name, value in given:
            if name not in known:
                takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
                raise invalid(f"unknown query parameter {name!r}", takes, parameter=name, allowed=sorted(known))
            if name in self._values and not known[name].repeated:
                raise invalid(f"query parameter {name!r} is given twice", "give it once", parameter=name)
            self._values.setdefault(name, []).append(value)

    def text(self, name: str) -> str | None:
        """Its value; empty counts as absent."""
        values = self._values.get(name)
        return values[0] or None if values else None

    def integer(self, name: str, least: int, most: int) -> int | None:
        """A whole number from `least` to `most`."""
        text = self.text(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
            raise invalid(f"{name}={text} is not a number from {least} to {most}", "", parameter=name, value=text)
        return int(text)

    def seconds(self, name: str, most: float) -> float | None:
        """A duration, fractions allowed."""
        text = self.text(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= most:
            raise invalid(
                f"{name}={text} is not a number of seconds from 0 to {most:g}", "", parameter=name, value=text
            )
        return value

    def flag(self, name: str, default: bool) -> bool:
        """1 or 0 (true or false)."""
        text = self.text(name)
        if text is None:
            return default
        if text not in ("0", "1", "true", "false"):
            raise invalid(f"{name}={text} is neither 1 nor 0", "", parameter=name, value=text)
        return text in ("1", "true")

    def labels(self) -> dict[str, str]:
        """The labels that all have to be there. An empty value is a value."""
        labels: dict[str, str] = {}
        for text in self._values.get("label", ()):
            key, equals, value = text.partition("=")
            if not equals or not key:
                raise invalid(f"label={text} is not a label", "write label=key=value", parameter="label", value=text)
            if labels.get(key, value) != value:
                raise invalid(
                    f"label {key!r} cannot be {labels[key]!r} and {value!r}", "give it once", parameter="label"
                )
            labels[key] = value
        return labels

    def limit(self) -> int:
        """How many items a page may have."""
        return self.integer("limit", 1, LIMIT_MAX) or LIMIT_DEFAULT
