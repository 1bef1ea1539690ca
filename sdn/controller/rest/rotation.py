"""`/v1/hosts/…/rotate`: a host's secret is replaced over its stream, and nobody sees it."""

from __future__ import annotations

import msgspec

from sdn.controller.route import Call, Reply, Route


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """The host that keeps another secret now: its id and name."""

    host: str
    name: str


async def rotate_secret(call: Call) -> Reply:
    """When it is answered, the secret before is void."""
    host = await call.core.custody.rotate(call.reference, call.actor)
    return Reply(Rotated(host=host.id, name=host.name), revision=call.core.revision)


ROUTES = (Route("POST", "/v1/hosts/{reference}/rotate", rotate_secret, "give a connected host a new secret", Rotated),)
