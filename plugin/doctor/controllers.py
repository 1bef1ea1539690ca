"""The controller, over a connection of the doctor's own: is it there, is it the pinned one, what is the time there."""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
import ssl
import time

from plugin.agent.configuration import controller_address
from plugin.doctor.finding import Finding, ok, problem, warning
from sdn.model.certificate import read_der
from sdn.model.errors import HawseError
from sdn.service.trust import (
    IDENTITY_BYTES_MAX,
    IDENTITY_PATH,
    Sighting,
    mistrust,
    sighting_of,
    unverified_context,
    verifying_context,
)

TIMEOUT_S = 1.2
"""Of each step: all is to be said within two seconds."""
CLOCK_LATE_S, CLOCK_WRONG_S = 2.0, 300.0
"""Logs of two hosts cannot be laid beside each other; tokens end too early or too late."""
CERTIFICATE_SOON_S = 7 * 86400.0
"""It renews itself long before."""


@dataclasses.dataclass(frozen=True, slots=True)
class ControllerFacts:
    """`away`: why it was not reached (empty: it was), and `hint`; `mistrusted`: it is not the pinned one.

    `offset_s`: its clock less this machine's, None where it did not tell; `ends_s`: until when its certificate holds.
    """

    url: str
    away: str = ""
    hint: str = ""
    mistrusted: bool = False
    verified: bool = True
    version: str = ""
    offset_s: float | None = None
    ends_s: float | None = None
    here_s: float = 0.0


def read_controller(url: str, bundle: str) -> ControllerFacts:
    """Connect to it, verified by a bundle of authorities ("": none is known here yet)."""
    try:
        host, port = controller_address(url)
    except HawseError as error:
        return ControllerFacts(url, error.message, error.hint)
    before = time.time()
    try:
        der, body = _identity(host, port, unverified_context())
    except OSError as error:
        return ControllerFacts(url, *_unreached(error, host, port))
    except http.client.HTTPException as error:
        return ControllerFacts(
            url, f"what answers at {host} port {port} is no controller ({error!r})", "is the port right?"
        )
    here = (before + time.time()) / 2
    seen = sighting_of(der, body)
    away, hint, mistrusted = "", "", False
    try:
        if bundle:
            _handshake(host, port, verifying_context(bundle))
    except ssl.SSLCertVerificationError as error:
        refusal = mistrust(url, error, bundle, seen, here)
        away, hint, mistrusted = refusal.message, refusal.hint, True
    except (OSError, HawseError) as error:
        away, hint, mistrusted = f"{url} cannot be verified: {error}", "look at `authority` in agent.json", True
    offset = seen.time_s - here if seen.time_s is not None else None
    return ControllerFacts(url, away, hint, mistrusted, bool(bundle), _version(body), offset, _ends(seen, der), here)


def _identity(host: str, port: int, context: ssl.SSLContext) -> tuple[bytes | None, bytes]:
    """The certificate that is shown, and what GET /v1/identity says. Raises: OSError, HTTPException."""
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    try:
        connection.request("GET", IDENTITY_PATH)
        der = connection.sock.getpeercert(True) if isinstance(connection.sock, ssl.SSLSocket) else None
        return der, connection.getresponse().read(IDENTITY_BYTES_MAX)
    finally:
        connection.close()


def _handshake(host: str, port: int, context: ssl.SSLContext) -> None:
    with (
        socket.create_connection((host, port), TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=host),
    ):
        pass


def _version(body: bytes) -> str:
    try:
        return str(json.loads(body)["version"])
    except (ValueError, KeyError, TypeError):
        return ""


def _ends(seen: Sighting, der: bytes | None) -> float | None:
    if seen.server is not None:
        return seen.server.ends_s
    try:
        return read_der(der).ends_s if der else None
    except (ValueError, IndexError, OverflowError):
        return None


def _unreached(error: OSError, host: str, port: int) -> tuple[str, str]:
    """Why a controller could not be reached, and what to do."""
    where = f"{host} port {port}"
    match error:
        case ConnectionRefusedError():
            return (
                f"nobody listens at {where}: the connection was refused",
                "start it there: hawse up, or hawse controller",
            )
        case TimeoutError():
            return (
                f"{where} did not answer within {TIMEOUT_S:g} s",
                f"is the machine there, and does a firewall on it or on the way let TCP {port} in?",
            )
        case socket.gaierror():
            return f"the name {host} is not known: {error.strerror}", "look at /etc/resolv.conf, or name an address"
        case ssl.SSLError():
            return (
                f"what answers at {where} does not speak TLS 1.3 ({error.reason or error})",
                "is the port right? A controller does",
            )
    return f"{where} cannot be reached: {error.strerror or error}", f"ip route get {host}"


def judge_controller(facts: ControllerFacts) -> list[Finding]:
    """Reachable, and the right one, and for how long its certificate holds."""
    named = {"url": facts.url}
    if facts.away:
        follows = "this host is told nothing new: what runs goes on, nothing is attached"
        return [problem("controller", facts.away, follows, facts.hint, **named)]
    trust = "its certificate is of the pinned authority" if facts.verified else "no authority is pinned here yet"
    findings = [ok("controller", f"{facts.url} answers, and {trust}", **named)]
    if facts.ends_s is not None and facts.ends_s - facts.here_s < CERTIFICATE_SOON_S:
        days = (facts.ends_s - facts.here_s) / 86400
        findings = [
            warning(
                "controller",
                f"the certificate of {facts.url} ends in {days:.1f} days and was not renewed",
                "then no host connects to it any more",
                "hawse controller     # restart it: it makes a new one; its log says why it has not",
                ends_s=facts.ends_s,
                **named,
            )
        ]
    return findings


def judge_clock(controllers: list[ControllerFacts], synchronised: bool | None) -> list[Finding]:
    """This machine's clock against the controllers'. `synchronised`: what the kernel knows of it."""
    offsets = [(facts.url, facts.offset_s) for facts in controllers if facts.offset_s is not None]
    unsynchronised = " (and the kernel says that nothing synchronises it)" if synchronised is False else ""
    if not offsets:
        if synchronised is False:
            return [
                warning(
                    "clock", "nothing synchronises this machine's clock, and no controller told the time",
                    "it drifts", "timedatectl set-ntp true",
                )
            ]  # fmt: skip
        return [ok("clock", "synchronised" if synchronised else "no controller told the time")]
    url, worst = max(offsets, key=lambda offset: abs(offset[1]))
    if abs(worst) < CLOCK_LATE_S:
        return [ok("clock", f"within {max(0.1, abs(worst)):.1f} s of the controller's", offset_s=round(worst, 3))]
    direction = "behind" if worst > 0 else "ahead of"
    text = f"this machine's clock is {_span(abs(worst))} {direction} that of {url}{unsynchronised}"
    remedy = ("date -u; timedatectl     # on both machines: which is wrong?", "timedatectl set-ntp true")
    facts = {"offset_s": round(worst, 3), "url": url}
    if abs(worst) >= CLOCK_WRONG_S:
        follows = "tokens end too early or too late, certificates may not be valid, logs do not fit together"
        return [problem("clock", text, follows, *remedy, **facts)]
    return [warning("clock", text, "logs of the two do not fit together", *remedy, **facts)]


def _span(seconds: float) -> str:
    for size, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} seconds"
