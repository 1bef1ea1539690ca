"""`/v1/identity`: what who knows only a fingerprint asks first."""

from __future__ import annotations

import time

import msgspec

from sdn.controller.principal import Access
from sdn.controller.route import Call, Reply, Route
from sdn.model.version import VERSION


class IdentityView(msgspec.Struct, frozen=True, kw_only=True):
    """`authority`: certificates in PEM, the newest first; `fingerprint`: SHA-256 of the first; `time_s`: its clock.

    To be believed only after the hash of one of the certificates was compared with one that is trusted.
    """

    authority: str
    fingerprint: str
    version: str
    time_s: float


async def show_identity(call: Call) -> Reply:
    """Public: whoever connects sees as much of the handshake."""
    edge = call.edge
    return Reply(
        IdentityView(authority=edge.authority, fingerprint=edge.fingerprint, version=VERSION, time_s=time.time())
    )


ROUTES = (
    Route(
        "GET",
        "/v1/identity",
        show_identity,
        "show the authority that the controller's certificate is verified by",
        IdentityView,
        access=Access.ANYONE,
    ),
)
