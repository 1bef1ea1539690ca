"""Bytes to values and back: msgpack for the stream and the store, JSON for REST and the attach contract.

A decoder refuses what does not fit its type with an INVALID error that names the place (`$.subnets[0].prefix`).
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from sdn.model.errors import HawseError, Kind

T = TypeVar("T")

encode_msgpack = msgspec.msgpack.Encoder().encode
encode_json = msgspec.json.Encoder().encode


class Decoder(Generic[T]):
    """Decodes one type (or tagged union) from JSON and msgpack."""

    def __init__(self, type_: Any, what: str) -> None:
        self._what = what
        self._json: msgspec.json.Decoder[T] = msgspec.json.Decoder(type_)
        self._msgpack: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(type_)

    def json(self, data: bytes | str) -> T:
        """Raises: INVALID."""
        try:
            return self._json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._refuse(error) from None

    def msgpack(self, data: bytes) -> T:
        """Raises: INVALID."""
        try:
            return self._msgpack.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._refuse(error) from None

    def _refuse(self, error: Exception) -> HawseError:
        return HawseError(Kind.INVALID, f"this is not {self._what}: {error}", hint="see the API's description")
