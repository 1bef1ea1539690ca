"""Certificates, as far as they are read without a library: their hash, whose they are, and when they hold.

A *bundle* is text with one or more certificates in PEM (RFC 7468). Nothing here verifies a signature: TLS does.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from typing import NamedTuple

from sdn.model.errors import invalid

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
SHA256_HEX_LENGTH = 64
CERTIFICATES_MAX = 16
"""Of a bundle; ours have one or two."""
_EXPLICIT_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18


class Certificate(NamedTuple):
    """`fingerprint`: SHA-256 of the DER, in lower-case hex; `subject`, `issuer`: in DER; times since the epoch."""

    pem: str
    fingerprint: str
    subject: bytes
    issuer: bytes
    begins_s: float
    ends_s: float


def parse_certificates(bundle: str) -> tuple[Certificate, ...]:
    """Every certificate of a bundle, in its order; other text is skipped. Raises: INVALID where it is none."""
    found: list[Certificate] = []
    for part in bundle.split(BEGIN)[1:]:
        body, end, _ = part.partition(END)
        if not end or len(found) == CERTIFICATES_MAX:
            raise invalid("a certificate is cut off" if not end else f"it holds more than {CERTIFICATES_MAX}", "")
        try:
            der = base64.b64decode("".join(body.split()), validate=True)
            found.append(read_der(der))
        except (ValueError, IndexError, OverflowError):  # binascii.Error is a ValueError
            raise invalid("what is between the marks of a certificate is none", "copy it whole") from None
    if not found:
        raise invalid("it holds no certificate", f"one begins with {BEGIN}")
    return tuple(found)


def read_der(der: bytes) -> Certificate:
    """One certificate (RFC 5280, section 4.1). Raises: ValueError, IndexError or OverflowError where it is none."""
    _, outer, _ = _element(der, 0)
    _, at, _ = _element(der, outer)  # TBSCertificate
    if der[at] == _EXPLICIT_VERSION:
        at = _element(der, at)[2]
    for _ in ("serialNumber", "signature"):
        at = _element(der, at)[2]
    _, _, issuer_end = _element(der, at)
    _, begins, validity_end = _element(der, issuer_end)
    _, _, ends = _element(der, begins)
    _, _, subject_end = _element(der, validity_end)
    body = base64.encodebytes(der).decode().replace("\n", "")
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return Certificate(
        pem="\n".join((BEGIN, *lines, END, "")),
        fingerprint=hashlib.sha256(der).hexdigest(),
        subject=der[validity_end:subject_end],
        issuer=der[at:issuer_end],
        begins_s=_time(der, begins),
        ends_s=_time(der, ends),
    )


def parse_fingerprint(text: str) -> str:
    """64 hex digits, in any case, with or without colons, to lower case. Raises: INVALID."""
    digits = text.strip().replace(":", "").lower()
    if len(digits) != SHA256_HEX_LENGTH or any(digit not in "0123456789abcdef" for digit in digits):
        raise invalid("this fingerprint is not a SHA-256 in hex", f"it has {SHA256_HEX_LENGTH} digits")
    return digits


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, where the content begins, and where it ends, of the element at `at` (X.690, section 8.1)."""
    tag, length, at = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, at = int.from_bytes(der[at : at + count], "big"), at + count
    if at + length > len(der):
        raise ValueError("an element is longer than what it is in")
    return tag, at, at + length


def _time(der: bytes, at: int) -> float:
    tag, begins, ends = _element(der, at)
    digits = der[begins:ends].decode("ascii").removesuffix("Z")
    if tag == _UTC_TIME:  # RFC 5280, section 4.1.2.5.1: 50 and above is of the last century
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not a time")
    fields = [int(digits[:4]), *(int(digits[start : start + 2]) for start in range(4, 14, 2))]
    return datetime.datetime(*fields, tzinfo=datetime.UTC).timestamp()  # type: ignore[arg-type,misc]  # six integers
