"""The note kept with each change: who did it, and what happened, in words that outlive the resources."""

from __future__ import annotations

from typing import Any

from sdn.model.codec import Decoder
from sdn.model.resources import Value

ENDPOINT_RELEASED = "endpoint.released"


class Happening(Value, frozen=True, kw_only=True):
    """One event of a transaction. `data` has ids under `id`, `tenant`, `network`, `host` and names beside them."""

    kind: str
    data: dict[str, Any] = {}


class Note(Value, frozen=True, kw_only=True):
    """What a transaction's note holds."""

    actor: str
    happened: tuple[Happening, ...] = ()


_decoder: Decoder[Note] = Decoder(Note, "a change's note")


def read_note(data: bytes) -> Note:
    """A change's note; a change without one (made by another tool) has nobody and nothing in it."""
    return _decoder.msgpack(data) if data else Note(actor="")
