"""A controller on TCP, in TLS 1.3: whom one reaches there is verified by an authority, or nothing is sent."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import time
from urllib.parse import urlsplit

from sdn.client.http import ProtocolError, ReplyReader, request_bytes
from sdn.model.certificate import parse_fingerprint
from sdn.model.errors import HawseError, denied, invalid, unavailable
from sdn.service.trust import (
    IDENTITY_BYTES_MAX,
    IDENTITY_PATH,
    Sighting,
    mismatch,
    mistrust,
    sighting_of,
    unverified_context,
    verifying_context,
)

PORT_DEFAULT = 4780
CONNECT_S = 5.0
"""To get through at all; what the controller then does may take longer."""
RUN_HINT = "is the controller running there, and listening on that address (hawse controller --listen)?"
NO_CONTROLLER_HINT = "is that the address and port of a controller?"


class RemoteConnector:
    """Opens verified connections to `https://HOST:PORT`. `where` names the other end in sentences.

    `authority` (PEM) verifies; with a `fingerprint` alone the authority is fetched at the first connection.
    """

    def __init__(self, url: str, authority: str = "", fingerprint: str = "") -> None:
        """Raises: INVALID (no address, no authority); DENIED where there is nothing to verify by."""
        self.where, self._host, self._port = parse_address(url)
        self._fingerprint = parse_fingerprint(fingerprint) if fingerprint else ""
        self._authority = authority
        self._context = verifying_context(authority) if authority else None
        if not authority and not fingerprint:
            raise denied(
                f"nothing says whom to trust at {self.where}",
                f"log in with a token, which holds the controller's fingerprint: hawse login {self.where}",
            )

    def connect(self, timeout_s: float) -> socket.socket:
        """A verified connection on which each wait is bounded by `timeout_s`. Raises: UNAVAILABLE, DENIED."""
        if self._context is None:
            self._authority = fetch(self.where, self._fingerprint, timeout_s)
            self._context = verifying_context(self._authority)
        try:
            connection = _connect(self.where, self._host, self._port, self._context, timeout_s)
        except ssl.SSLCertVerificationError as error:
            raise mistrust(self.where, error, self._authority, _sight(self.where, timeout_s)[0], time.time()) from None
        connection.settimeout(timeout_s)
        return connection


def parse_address(text: str) -> tuple[str, str, int]:
    """`https://HOST:PORT`, or as much of it as is told: the whole URL, the host and the port. Raises: INVALID."""
    full = text.strip() if "://" in text else f"https://{text.strip()}"
    try:
        parts = urlsplit(full)
        host, port = parts.hostname, PORT_DEFAULT if parts.port is None else parts.port
    except ValueError:
        host, port = None, 0
    if full.startswith("https://") and full.count(":") > 2 and "[" not in full:
        raise invalid(f"{text!r} is not an address of a controller", "put an IPv6 address in brackets: [fd00::1]:4780")
    if not host or not port or parts.scheme != "https" or parts.path.strip("/") or parts.query or "@" in full:
        raise invalid(
            f"{text!r} is not an address of a controller", "write it as ADDRESS, ADDRESS:4780 or https://ADDRESS:4780"
        )
    return f"https://{f'[{host}]' if ':' in host else host}:{port}", host, port


def fetch(url: str, fingerprint: str, timeout_s: float) -> str:
    """The certificate of the controller's authority that has this fingerprint, in PEM.

    Whoever answers is not trusted: only a certificate with that very hash is taken. Raises: UNAVAILABLE; DENIED, with
    both fingerprints.
    """
    seen, refused = _sight(url, timeout_s)
    for one in seen.authorities:
        if one.fingerprint == fingerprint:
            return one.pem
    if refused is not None:
        raise refused
    raise mismatch(url, [fingerprint], seen)


def _sight(url: str, timeout_s: float) -> tuple[Sighting, HawseError | None]:
    """What that end shows to anybody, and why it is no controller that can be spoken to, if it is not."""
    where, host, port = parse_address(url)
    try:
        with contextlib.closing(_connect(where, host, port, unverified_context(), timeout_s)) as connection:
            deadline = time.monotonic() + timeout_s  # for all of it: who answers is not trusted

            def receive(count: int) -> bytes:
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                return connection.recv(count)

            server = connection.getpeercert(binary_form=True)
            connection.sendall(request_bytes("GET", IDENTITY_PATH, {"Accept": "application/json"}, None))
            reply = ReplyReader(receive)
            body = b"".join(_at_most(reply, IDENTITY_BYTES_MAX))
    except HawseError as error:
        return Sighting(), error
    except TimeoutError:
        return Sighting(), unavailable(f"{where} did not answer within {timeout_s:g} s", NO_CONTROLLER_HINT)
    except (OSError, ProtocolError):
        return Sighting(), _no_controller(where, "it speaks TLS, but no HTTP")
    seen = sighting_of(server, body)
    return seen, None if seen.authorities else _no_controller(where, f"it answers {IDENTITY_PATH} with {reply.status}")


def _at_most(reply: ReplyReader, limit: int) -> list[bytes]:
    parts: list[bytes] = []
    for part in reply.parts():
        parts.append(part)
        if sum(map(len, parts)) > limit:
            break
    return parts


def _connect(where: str, host: str, port: int, context: ssl.SSLContext, timeout_s: float) -> ssl.SSLSocket:
    """Raises: ssl.SSLCertVerificationError; UNAVAILABLE."""
    patience_s = min(timeout_s, CONNECT_S)
    try:
        raw = socket.create_connection((host, port), patience_s)
    except socket.gaierror as error:
        raise unavailable(f"there is no machine named {host}: {error.strerror}", "write its address") from None
    except OSError as error:
        raise unavailable(*_why_not(where, error, patience_s), controller=where) from None
    try:
        return context.wrap_socket(raw)
    except ssl.SSLCertVerificationError:
        raw.close()
        raise
    except OSError as error:  # SSLError is one
        raw.close()
        if isinstance(error, TimeoutError):
            raise unavailable(
                f"{where} took the connection, but did not answer in TLS within {patience_s:g} s", NO_CONTROLLER_HINT
            ) from None
        raise _no_controller(where, f"it does not speak TLS 1.3 ({_reason(error)})") from None


def _why_not(where: str, error: OSError, patience_s: float) -> tuple[str, str]:
    match error.errno:
        case errno.ECONNREFUSED:
            return f"nobody listens at {where}: the connection was refused", RUN_HINT
        case errno.EHOSTUNREACH | errno.ENETUNREACH:
            return f"there is no way to {where}: {error.strerror}", "look at this machine's addresses and routes"
        case _ if isinstance(error, TimeoutError):
            told = f"{where} did not answer within {patience_s:g} s"
            return told, "is the address right, and does a firewall let TCP through?"
        case _:
            return f"{where} cannot be reached: {error.strerror or error}", RUN_HINT


def _no_controller(where: str, why: str) -> HawseError:
    return unavailable(f"{where} is not a controller: {why}", NO_CONTROLLER_HINT, controller=where)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLEOFError | ConnectionResetError):
        return "it closed the connection"
    return (getattr(error, "reason", None) or error.strerror or str(error)).replace("_", " ").lower()
