"""The attach contract's verbs on a `ContractServer`: decode, dispatch, encode, in one place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, assert_never

import msgspec

from sdn.model.contract import (
    CODE_NOT_AVAILABLE,
    AddRequest,
    AddResult,
    CheckRequest,
    DelRequest,
    DelResult,
    ExamineRequest,
    ExamineResult,
    GcRequest,
    StatusRequest,
    contract_error,
    request_decoder,
)
from sdn.model.errors import HawseError, invalid
from sdn.service.contract_server import error_reply, result_reply

AttachmentVerb = AddRequest | DelRequest | CheckRequest | GcRequest | StatusRequest


class ContractService(Protocol):
    """Who answers the verbs. `fd` is open while the call lasts; whoever needs it longer duplicates it."""

    async def add(self, request: AddRequest, fd: int | None) -> AddResult:
        """Attach. Raises: HawseError; nothing is half-made then."""

    async def delete(self, request: DelRequest, fd: int | None) -> DelResult:
        """Detach; absent is fine."""

    async def check(self, request: CheckRequest, fd: int | None) -> None:
        """Raises: HawseError that says what is not as ADD made it."""

    async def collect(self, request: GcRequest) -> None:
        """Release what is no longer valid."""

    async def status(self, request: StatusRequest) -> dict[str, Any]:
        """Raises: UNAVAILABLE when ADD cannot be served."""


Examine = Callable[[ExamineRequest], Awaitable[ExamineResult]]
"""Who answers EXAMINE. Raises: HawseError."""


async def _no_examination(_: ExamineRequest) -> ExamineResult:
    raise invalid("EXAMINE is not served here", "ask the agent of a host")


def contract_handler(
    service: ContractService, examine: Examine = _no_examination
) -> Callable[[bytes, int | None], Awaitable[bytes]]:
    """A server's handler that speaks the attach contract."""

    async def handle(payload: bytes, fd: int | None) -> bytes:
        request = request_decoder.json(payload)
        try:
            if isinstance(request, ExamineRequest):
                return result_reply(await examine(request))
            return result_reply(await _dispatch(service, request, fd))
        except HawseError as error:
            if isinstance(request, StatusRequest):  # CNI 1.1: the plugin is not available
                return error_reply(_with_code(error, CODE_NOT_AVAILABLE))
            return error_reply(error)

    return handle


def _with_code(error: HawseError, code: int) -> Any:
    return msgspec.structs.replace(contract_error(error), code=code)


async def _dispatch(service: ContractService, request: AttachmentVerb, fd: int | None) -> Any:
    match request:
        case AddRequest():
            return await service.add(request, fd)
        case DelRequest():
            return await service.delete(request, fd)
        case CheckRequest():
            await service.check(request, fd)
        case GcRequest():
            await service.collect(request)
        case StatusRequest():
            return await service.status(request)
        case _:
            assert_never(request)
    return {}
