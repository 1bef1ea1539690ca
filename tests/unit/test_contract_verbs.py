"""From bytes to verbs and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sdn.model.contract import AddRequest, AddResult, CheckRequest, DelRequest, DelResult, GcRequest, StatusRequest
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.service.contract import contract_handler
from sdn.service.contract_client import _result


class Service:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, int | None]] = []
        self.error: HawseError | None = None

    def _note(self, request: Any, fd: int | None) -> None:
        self.calls.append((request, fd))
        if self.error is not None:
            raise self.error

    async def add(self, request: AddRequest, fd: int | None) -> AddResult:
        self._note(request, fd)
        return AddResult(
            endpoint="e", network="n", tenant="t", revision=1, ifname="eth0", mac="0a:00:00:00:00:01",
            mtu_bytes=1450, sandbox=5, addresses=("10.1.0.2/24",), gateways=("10.1.0.1",),
        )  # fmt: skip

    async def delete(self, request: DelRequest, fd: int | None) -> DelResult:
        self._note(request, fd)
        return DelResult()

    async def check(self, request: CheckRequest, fd: int | None) -> None:
        self._note(request, fd)

    async def collect(self, request: GcRequest) -> None:
        self._note(request, None)

    async def status(self, request: StatusRequest) -> dict[str, Any]:
        self._note(request, None)
        return {"revision": 1}


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"verb": "ADD", "client": "cni", "network": "web"}, AddRequest),
        ({"verb": "DEL", "client": "cni", "container": "a", "ifname": "eth0"}, DelRequest),
        ({"verb": "CHECK", "client": "cni", "container": "a", "ifname": "eth0"}, CheckRequest),
        ({"verb": "GC", "client": "cni", "valid": [["a", "eth0"]]}, GcRequest),
        ({"verb": "STATUS", "client": "cni"}, StatusRequest),
    ],
)
async def test_each_verb_reaches_its_method(message: dict[str, Any], kind: type) -> None:
    service = Service()
    reply = json.loads(await contract_handler(service)(json.dumps(message).encode(), 7))
    assert type(service.calls[0][0]) is kind
    assert service.calls[0][1] == (7 if kind in (AddRequest, DelRequest, CheckRequest) else None)
    assert isinstance(_result(reply), dict)


@pytest.mark.parametrize(("verb", "code"), [("STATUS", 50), ("ADD", 11)])
async def test_unavailable_has_the_code_of_its_verb(verb: str, code: int) -> None:
    service = Service()
    service.error = unavailable("the controller is away", "try again")
    message = {"verb": verb, "client": "cni", "network": "web"}
    error = json.loads(await contract_handler(service)(json.dumps(message).encode(), None))["error"]
    assert (error["code"], error["msg"], error["details"]) == (code, "the controller is away", "try again")


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"verb": "FLY"}', b'{"verb": "ADD"}', b'{"verb": "GC", "valid": 3}'])
async def test_what_is_no_request_is_refused(payload: bytes) -> None:
    with pytest.raises(HawseError, match="not a request of the attach contract") as caught:
        await contract_handler(Service())(payload, None)
    assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize("reply", [{}, [], {"error": "x"}, {"result": 1}])
def test_a_reply_that_is_none(reply: Any) -> None:
    with pytest.raises(HawseError, match="neither a result nor an error"):
        _result(reply)


def test_a_kind_of_a_newer_daemon() -> None:
    with pytest.raises(HawseError, match="odd") as caught:
        _result({"error": {"code": 150, "msg": "odd", "kind": "novel"}})
    assert caught.value.kind is Kind.INTERNAL
    assert caught.value.facts == {"code": 150}
