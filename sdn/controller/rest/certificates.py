"""`/v1/certificates`: what the controller is known by, and how that is replaced."""

from __future__ import annotations

import asyncio
import enum

import msgspec

from sdn.controller.custody import KEEP_S
from sdn.controller.query import Parameter
from sdn.controller.route import Call, Reply, Route
from sdn.model.certificate import Certificate
from sdn.model.errors import conflict


class Part(enum.StrEnum):
    """What a certificate is: what others pin, what was pinned before and is still trusted, what is shown to others."""

    AUTHORITY = "authority"
    BEFORE = "authority-before"
    SERVER = "server"


class CertificateView(msgspec.Struct, frozen=True, kw_only=True):
    """`fingerprint`: SHA-256 of the DER in hex; when it holds, in seconds since the epoch; the certificate in PEM."""

    part: Part
    fingerprint: str
    begins_s: float
    ends_s: float
    pem: str


class CertificatesView(msgspec.Struct, frozen=True, kw_only=True):
    """`lacking`: names of the hosts that are not known to trust the newest authority."""

    items: tuple[CertificateView, ...]
    lacking: tuple[str, ...]


async def list_certificates(call: Call) -> Reply:
    """All."""
    return Reply(_view(call))


async def rotate(call: Call) -> Reply:
    """Another authority, or (`server`) another certificate of the same; connected hosts are waited for, a while."""
    identity = call.edge.identity
    if call.query.flag("server", False):
        await identity.renew()
    else:
        await identity.rotate()
        await _spread(call)
    call.edge.log.info("certificate replaced", actor=call.actor, authority=identity.fingerprint)
    return Reply(_view(call))


async def retire(call: Call) -> Reply:
    """End the authority before. Raises: CONFLICT, naming the hosts that would be cut off, unless forced."""
    identity, lacking = call.edge.identity, _lacking(call)
    if identity.authority.before is not None and lacking and not call.query.flag("force", False):
        raise conflict(
            f"{len(lacking)} of {len(call.core.state.credentials)} hosts have not said that they trust the new "
            f"authority, and could not connect any more: {', '.join(lacking)}",
            "have them connect first, or force it and give them new credentials; a switch needs a new certificate: "
            "hawse switch certificate NAME",
            hosts=list(lacking),
        )
    await identity.retire()
    await _spread(call)
    call.edge.log.info("authority retired", actor=call.actor, authority=identity.fingerprint, lacking=list(lacking))
    return Reply(_view(call))


async def _spread(call: Call) -> None:
    if telling := call.edge.entrust(call.actor):
        await asyncio.wait(telling, timeout=KEEP_S)


def _lacking(call: Call) -> tuple[str, ...]:
    hosts = [*call.core.custody.lacking(), *call.core.switches.lacking(call.edge.identity.fingerprint)]
    return tuple(sorted(host.name for host in hosts))


def _view(call: Call) -> CertificatesView:
    identity = call.edge.identity
    parts = [(Part.AUTHORITY, identity.authority.certificate), (Part.SERVER, identity.server)]
    if identity.authority.before is not None:
        parts.insert(1, (Part.BEFORE, identity.authority.before))
    return CertificatesView(items=tuple(_certificate(*part) for part in parts), lacking=_lacking(call))


def _certificate(part: Part, certificate: Certificate) -> CertificateView:
    return CertificateView(
        part=part,
        fingerprint=certificate.fingerprint,
        begins_s=certificate.begins_s,
        ends_s=certificate.ends_s,
        pem=certificate.pem,
    )


FLAG = {"type": "integer", "enum": [0, 1]}
SERVER = Parameter("server", "1: only what the controller shows, of the same authority", FLAG)
FORCE = Parameter("force", "1: also where hosts are cut off by it", FLAG)
ONE = "/v1/certificates"
ROUTES = (
    Route("GET", ONE, list_certificates, "list the controller's certificates", CertificatesView),
    Route(
        "POST", f"{ONE}/rotate", rotate, "replace the authority; both are trusted", CertificatesView, query=(SERVER,)
    ),
    Route("POST", f"{ONE}/retire", retire, "end the authority before", CertificatesView, query=(FORCE,)),
)
