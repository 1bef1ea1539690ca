"""Tokens as people paste them: who is meant (the fingerprint), which token it is, and its secret, in one word.

`hawse-join-…` makes a machine a host, once; `hawse-user-…` lets a person or a program use the API. The rest of the word
is Crockford's base 32 in lower case of: version (1 byte), SHA-256 of the authority's certificate (32), id (5), secret
(16) and the first 4 bytes of the SHA-256 of all that, so that a word which was cut or mistyped is known as such before
anything is sent anywhere.
"""

from __future__ import annotations

import enum
import hashlib
from typing import NamedTuple

from sdn.model.errors import invalid
from sdn.model.ids import ALPHABET

VERSION = 1
FINGERPRINT_BYTES = 32
ID_BYTES = 5
SECRET_BYTES = 16
CHECK_BYTES = 4
PAYLOAD_BYTES = 1 + FINGERPRINT_BYTES + ID_BYTES + SECRET_BYTES
DIGITS = -(-(PAYLOAD_BYTES + CHECK_BYTES) * 8 // 5)
PREFIX = "hawse-"


class TokenKind(enum.StrEnum):
    """What a token is for."""

    JOIN = "join"
    USER = "user"


class Token(NamedTuple):
    """`fingerprint`: of the controller's authority, in lower-case hex; `id`: 8 characters; `secret`: 128 bits, hex."""

    kind: TokenKind
    fingerprint: str
    id: str
    secret: str

    def __str__(self) -> str:
        """The word to paste."""
        payload = bytes([VERSION]) + bytes.fromhex(self.fingerprint) + _digits_of(self.id) + bytes.fromhex(self.secret)
        return f"{PREFIX}{self.kind}-{_base32(payload + _check(self.kind, payload), DIGITS)}"

    def __repr__(self) -> str:
        return f"Token({self.kind} {self.id})"  # the secret stays out of logs


def token_id(random: int) -> str:
    """The 8 characters of a token's id, of 40 random bits."""
    return _base32(random.to_bytes(ID_BYTES, "big"), ID_BYTES * 8 // 5)


def parse_token(text: str, kind: TokenKind) -> Token:
    """A token of this kind. Raises: INVALID, saying whether it is none, another kind's, cut or mistyped.

    The error never repeats the text: it may hold a secret.
    """
    word = "".join(text.split())
    found = next((one for one in TokenKind if word.startswith(f"{PREFIX}{one}-")), None)
    if found is None:
        raise invalid(f"this is not a token: one starts with {PREFIX}{kind}-", _hint(kind))
    if found is not kind:
        raise invalid(f"this is a {found} token, and a {kind} token is wanted", _hint(kind))
    digits = word.removeprefix(f"{PREFIX}{kind}-").lower()
    if len(digits) != DIGITS:
        part = "it was pasted in part" if len(digits) < DIGITS else "something was pasted behind it"
        raise invalid(
            f"the token has {len(digits)} of its {DIGITS} characters after {PREFIX}{kind}-: {part}"
            if len(digits) < DIGITS
            else f"the token has {len(digits)} characters after {PREFIX}{kind}-, not {DIGITS}: {part}",
            "copy the whole word",
            characters=len(digits),
            expected=DIGITS,
        )
    if any(digit not in ALPHABET for digit in digits):
        raise invalid("the token holds a character that no token has", "copy the whole word, and nothing else")
    number = 0
    for digit in digits:
        number = number << 5 | ALPHABET.index(digit)
    spare = DIGITS * 5 - (PAYLOAD_BYTES + CHECK_BYTES) * 8
    raw = (number >> spare).to_bytes(PAYLOAD_BYTES + CHECK_BYTES, "big")
    payload = raw[:PAYLOAD_BYTES]
    if number & ((1 << spare) - 1) or raw[PAYLOAD_BYTES:] != _check(kind, payload):
        raise invalid("the token was altered: its check does not fit", "copy it again")
    if payload[0] != VERSION:
        raise invalid(f"the token is of version {payload[0]}; this hawse knows {VERSION}", "use a newer hawse here")
    fingerprint, rest = payload[1 : 1 + FINGERPRINT_BYTES], payload[1 + FINGERPRINT_BYTES :]
    return Token(kind, fingerprint.hex(), _base32(rest[:ID_BYTES], ID_BYTES * 8 // 5), rest[ID_BYTES:].hex())


def _hint(kind: TokenKind) -> str:
    made = {TokenKind.JOIN: "hawse token create", TokenKind.USER: "hawse token create --role ROLE"}
    return f"make one on the controller's machine: {made[kind]}"


def _check(kind: TokenKind, payload: bytes) -> bytes:
    return hashlib.sha256(kind.encode() + payload).digest()[:CHECK_BYTES]


def _base32(raw: bytes, digits: int) -> str:
    number = int.from_bytes(raw, "big") << (digits * 5 - len(raw) * 8)
    return "".join(ALPHABET[number >> shift & 31] for shift in range(digits * 5 - 5, -1, -5))


def _digits_of(id_: str) -> bytes:
    number = 0
    for digit in id_:
        number = number << 5 | ALPHABET.index(digit)
    return number.to_bytes(ID_BYTES, "big")
