"""Whom one who connects to a controller trusts: the authorities that it was given, and nobody else.

When a certificate is refused, what the other end shows to those who verify nothing (a *sighting*) says why: another
authority, somebody in between, or a clock. A sighting is only ever shown, never trusted.
"""

from __future__ import annotations

import datetime
import json
import ssl
from collections.abc import Iterable
from typing import NamedTuple

from sdn.model.certificate import Certificate, parse_certificates, read_der
from sdn.model.errors import HawseError, denied

IDENTITY_PATH = "/v1/identity"
IDENTITY_BYTES_MAX = 64 << 10
CLOCKS_DIFFER_S = 60.0
_NOT_YET, _NO_LONGER = 9, 10
"""X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED (openssl/x509_vfy.h)."""


class Sighting(NamedTuple):
    """`server`: the certificate that the other end showed; `authorities`: those that it says are its own, newest first.

    `time_s`: its clock, in seconds since the epoch. Each may be missing: it may be no controller.
    """

    server: Certificate | None = None
    authorities: tuple[Certificate, ...] = ()
    time_s: float | None = None


def verifying_context(bundle: str) -> ssl.SSLContext:
    """TLS 1.3, to whoever has a certificate of one of the authorities in `bundle` (PEM), whatever its name.

    Raises: INVALID where it holds no certificate.
    """
    trusted = "".join(one.pem for one in parse_certificates(bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # knows none of the system's authorities
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # an authority signs controllers only, and those have no names
    context.load_verify_locations(cadata=trusted)
    return context


def unverified_context() -> ssl.SSLContext:
    """For what is public and checked by itself: nothing secret may be sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def sighting_of(server_der: bytes | None, identity: bytes) -> Sighting:
    """Of a certificate and the body of a reply to GET /v1/identity; whatever is no such counts as missing."""
    try:
        server = read_der(server_der) if server_der else None
    except (ValueError, IndexError, OverflowError):
        server = None
    try:
        body = json.loads(identity)
        return Sighting(server, parse_certificates(body["authority"]), float(body["time_s"]))
    except (HawseError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Sighting(server)


def mistrust(where: str, error: ssl.SSLCertVerificationError, bundle: str, seen: Sighting, now_s: float) -> HawseError:
    """Why the certificate of `where` was refused: DENIED, with both fingerprints, or with both clocks."""
    if error.verify_code in (_NOT_YET, _NO_LONGER):
        return _mistimed(where, error, seen, now_s)
    return mismatch(where, [one.fingerprint for one in parse_certificates(bundle)], seen)


def mismatch(where: str, pinned: Iterable[str], seen: Sighting) -> HawseError:
    """The other end is not whom these fingerprints of authorities mean."""
    pinned = list(pinned)
    shown = [one.fingerprint for one in seen.authorities]
    told = " or ".join(pinned)
    if set(shown) & set(pinned):
        return denied(
            f"{where} shows a certificate that the authority {told} has not signed, and says it had",
            "somebody is in between: look at who answers at that address",
            pinned=pinned,
            shown=seen.server.fingerprint if seen.server else "",
        )
    if shown:
        found = f"its authority is {shown[0]}"
    elif seen.server is not None:
        found = f"its certificate is {seen.server.fingerprint}, and it names no authority"
    else:
        found = "it shows no certificate"
    return denied(
        f"{where} is not the controller that was pinned: {found}, and {told} is trusted",
        "if the controller was made anew, or its authority was retired, get a new token or credential from it; "
        "if not, somebody is in between",
        pinned=pinned,
        shown=shown[0] if shown else seen.server.fingerprint if seen.server else "",
    )


def _mistimed(where: str, error: ssl.SSLCertVerificationError, seen: Sighting, now_s: float) -> HawseError:
    span = f" ({_text(seen.server.begins_s)} to {_text(seen.server.ends_s)})" if seen.server else ""
    when = "not valid yet" if error.verify_code == _NOT_YET else "no longer valid"
    message = f"the certificate of {where} is {when}{span} by this machine's clock, which says {_text(now_s)}"
    hint = "set the clock of the machine that is wrong"
    if seen.time_s is not None:
        message += f"; the controller's says {_text(seen.time_s)}"
        if abs(seen.time_s - now_s) < CLOCKS_DIFFER_S:
            hint = "the clocks agree: restart the controller, which then makes a new certificate"
    return denied(message, hint, here_s=now_s, controller_s=seen.time_s)


def _text(seconds: float) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):  # whatever somebody says that the time is
        return f"{seconds:g} s"
