"""Templates: flows that differ in a few values, as bytes that were made once and have holes where those values go.

    def speaks(port, mac):
        return Flow(1, 5, match(in_port(port), eth_src(mac)), goto=2)

    speaking = Template(speaks, port=Kind.PORT, mac=Kind.MAC)
    speaking.add(b"\\x00\\x00\\x00\\x07", b"\\x0a\\xf2\\x0a\\x01\\x00\\x04")

A template is made by example: the function that says how the flows read is called with made-up values, its flows are
encoded, and wherever the made-up values' bytes are found, there is a hole. A second example, which the first one's
template must fill in to the byte, proves it; a value that the function computes with (the link-local address of a MAC)
fails that proof and must be given as one of its own. So flows are written once, readably, and filled at half a
microsecond each.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from sdn.openflow.encode import encode_add, encode_delete
from sdn.openflow.fields import Form
from sdn.openflow.flow import Flow

_EXAMPLES: Final = ("first", "second")


class Kind(enum.Enum):
    """What a hole takes: so many bytes. Functions are given the readable value: a number, or text."""

    PORT = (4, Form.NUMBER)
    VNI = (3, Form.NUMBER)
    COOKIE = (8, Form.NUMBER)
    MAC = (6, Form.MAC)
    IPV4 = (4, Form.IPV4)
    IPV6 = (16, Form.IPV6)

    def __init__(self, size: int, form: Form) -> None:
        self.size = size
        self.form = form

    def readable(self, value: bytes) -> int | str:
        """What a function is given for these bytes."""
        match self.form:
            case Form.MAC:
                return value.hex(":")
            case Form.IPV4 | Form.IPV6:
                return str(ipaddress.ip_address(value))
            case _:
                return int.from_bytes(value, "big")


_Formats = list[tuple[bytes, Callable[[tuple[bytes, ...]], Any]]]


class Template:
    """The flow-mods of some flows, with holes. Values are given as bytes, in the order of `holes`."""

    def __init__(self, build: Callable[..., Flow | Sequence[Flow]], **holes: Kind) -> None:
        self._holes = holes
        self._build = build
        self._adds = self._compile(encode_add)

    @property
    def holes(self) -> Mapping[str, Kind]:
        """What is filled in, in the order in which values are given."""
        return self._holes

    @functools.cached_property
    def _deletes(self) -> _Formats:
        """Made when first needed: importing a template costs half."""
        return self._compile(encode_delete)

    def flows(self, *values: bytes) -> list[Flow]:
        """The flows, readable."""
        readable = {name: kind.readable(value) for (name, kind), value in zip(self._holes.items(), values, strict=True)}
        built = self._build(**readable)
        return [built] if isinstance(built, Flow) else list(built)

    def add(self, *values: bytes) -> list[bytes]:
        """The messages that add the flows (`encode_add` of each)."""
        return [form % pick(values) for form, pick in self._adds]

    def delete(self, *values: bytes) -> list[bytes]:
        """The messages that delete them (`encode_delete` of each)."""
        return [form % pick(values) for form, pick in self._deletes]

    def _compile(self, encode: Callable[[Flow], bytes]) -> _Formats:
        first, second = (self._example(which) for which in _EXAMPLES)
        numbers = {value: index for index, value in enumerate(first)}
        holes = re.compile(
            b"|".join(re.escape(value) for value in sorted(first, key=len, reverse=True)) or b"(?!)", re.S
        )
        formats: _Formats = []
        for flow in self.flows(*first):
            message = encode(flow)
            found = [numbers[value] for value in holes.findall(message)]
            form = b"%b".join(part.replace(b"%", b"%%") for part in holes.split(message))
            formats.append((form, _picker(found)))
        filled = [form % pick(second) for form, pick in formats]
        if filled != [encode(flow) for flow in self.flows(*second)]:
            raise AssertionError(f"no template: something is computed of {', '.join(self._holes)}")
        return formats

    def _example(self, which: str) -> tuple[bytes, ...]:
        return tuple(
            hashlib.blake2s(f"{which} {name}".encode(), digest_size=kind.size).digest()
            for name, kind in self._holes.items()
        )


def _picker(numbers: list[int]) -> Callable[[tuple[bytes, ...]], Any]:
    """What takes those values out of all."""
    if not numbers:
        return lambda values: ()
    return itemgetter(*numbers)
