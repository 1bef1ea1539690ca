"""`/v1/status`: how far every host is, and waiting for them."""

from __future__ import annotations

import msgspec

from sdn.controller.principal import Access
from sdn.controller.query import Parameter
from sdn.controller.route import Reply, Route, ScopedCall
from sdn.controller.status import HostState, Step
from sdn.model.errors import invalid
from sdn.model.ids import Revision
from sdn.model.version import VERSION

WAIT_MAX_S = 3600.0
SLICE_S = 5.0


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet. With `revision` in the query: the hosts that it concerns, and whether all of them are in step."""

    revision: int
    version: str
    hosts: tuple[HostState, ...]
    settled: bool | msgspec.UnsetType = msgspec.UNSET


async def get_status(call: ScopedCall) -> Reply:
    """Now, or once the hosts concerned by a revision are in step or the time is up."""
    wanted, wait_s = call.query.integer("revision", 0, 1 << 62), call.query.seconds("wait", WAIT_MAX_S)
    if wanted is None:
        if wait_s is not None:
            raise invalid("wait without revision", "say which revision: ?revision=R&wait=SECONDS", parameter="wait")
        return Reply(StatusView(revision=call.scope.revision, version=VERSION, hosts=call.scope.status()))
    if wanted > call.scope.revision:
        raise invalid(
            f"revision {wanted} does not exist yet",
            f"the last one is {call.scope.revision}",
            revision=wanted,
            last=call.scope.revision,
        )
    states, settled = await _wait(call, Revision(wanted), wait_s or 0.0)
    return Reply(StatusView(revision=call.scope.revision, version=VERSION, hosts=tuple(states), settled=settled))


async def _wait(call: ScopedCall, revision: Revision, wait_s: float) -> tuple[list[HostState], bool]:
    """In slices, so that a wait whose client has gone ends soon."""
    while True:
        slice_s = min(wait_s, SLICE_S)
        wait_s -= slice_s
        states = await call.scope.wait_settled(revision, slice_s)
        settled = all(state.state in (Step.APPLIED, Step.FAILED) for state in states)
        if settled or wait_s <= 0 or call.request.transport is None:
            return states, settled


ROUTES = (
    Route(
        "GET",
        "/v1/status",
        get_status,
        "how far every host is",
        StatusView,
        query=(
            Parameter("revision", "only the hosts that this revision concerns", {"type": "integer", "minimum": 0}),
            Parameter(
                "wait",
                "seconds to wait until they are in step",
                {"type": "number", "minimum": 0, "maximum": WAIT_MAX_S},
            ),
        ),
        access=Access.TENANT,
    ),
)
