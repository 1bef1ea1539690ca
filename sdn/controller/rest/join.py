"""`/v1/join`: a machine becomes a host by a token, which its body shows."""

from __future__ import annotations

from sdn.controller.principal import Access
from sdn.controller.rest.hosts import Credential, credential_of
from sdn.controller.route import Call, Reply, Route
from sdn.controller.specs import JoinSpec
from sdn.model.errors import HawseError, Kind


async def join(call: Call) -> Reply:
    """The host's credential, shown this once. Whatever is refused uses nothing up."""
    from sdn.controller.authentication import refuse  # the documents of the API are made without a server

    try:
        host, secret, revision = await call.core.admission.join(call.body, call.edge.fingerprint)
    except HawseError as error:
        if error.kind is not Kind.DENIED:
            raise
        await refuse(call.edge, call.request, error)
    return Reply(credential_of(call, host, secret), 201, revision)


ROUTES = (
    Route(
        "POST",
        "/v1/join",
        join,
        "make this machine a host, by a join token",
        Credential,
        JoinSpec,
        statuses=(201,),
        access=Access.ANYONE,
    ),
)
