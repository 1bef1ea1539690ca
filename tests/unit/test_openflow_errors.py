"""Errors by name, against os-ken; and what kind of ours each is."""

from __future__ import annotations

import pytest
from os_ken.ofproto import ofproto_v1_3

from sdn.model.errors import Kind
from sdn.openflow import errors
from sdn.openflow.errors import Error, Refusal
from sdn.openflow.messages import (
    EchoRequest,
    encode,
)

_PREFIXES = {
    "HELLO_FAILED": "OFPHFC",
    "BAD_REQUEST": "OFPBRC",
    "BAD_ACTION": "OFPBAC",
    "BAD_INSTRUCTION": "OFPBIC",
    "BAD_MATCH": "OFPBMC",
    "FLOW_MOD_FAILED": "OFPFMFC",
    "GROUP_MOD_FAILED": "OFPGMFC",
    "PORT_MOD_FAILED": "OFPPMFC",
    "TABLE_MOD_FAILED": "OFPTMFC",
    "QUEUE_OP_FAILED": "OFPQOFC",
    "SWITCH_CONFIG_FAILED": "OFPSCFC",
    "ROLE_REQUEST_FAILED": "OFPRRFC",
    "METER_MOD_FAILED": "OFPMMFC",
    "TABLE_FEATURES_FAILED": "OFPTFFC",
}


def test_every_error_has_the_name_that_it_has_to_os_ken() -> None:
    for name, prefix in _PREFIXES.items():
        number = getattr(ofproto_v1_3, f"OFPET_{name}")
        codes = {key: value for key, value in vars(ofproto_v1_3).items() if key.startswith(f"{prefix}_")}
        assert codes
        for key, code in codes.items():
            assert Error(number, code).text == f"{name} {key.removeprefix(prefix + '_')}"
    for key, value in vars(ofproto_v1_3).items():
        if key.startswith("ONFERR_ET_") and value < 2316:
            code = key.removeprefix("ONFERR_ET_").replace("FAILED", "MSG_FAILED")
            assert Error(0xFFFF, value, b"", errors.ONF).text == f"BUNDLE_FAILED {code}"


def test_an_error_that_nobody_knows_still_has_a_text() -> None:
    assert Error(77, 3).text == "error of type 77, code 3"
    assert Error(4, 99).text == "BAD_MATCH, code 99"
    assert Error(0xFFFF, 5, b"", 0x1234).text == "error 5 of 0x00001234"
    assert Error(0xFFFF, 999, b"", errors.NICIRA).text == "error 999 of Nicira"
    assert Error(0, 0, b"version?\x1b\n").text == "HELLO_FAILED INCOMPATIBLE (version??)"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Error(5, 1), Kind.EXHAUSTED),
        (Error(5, 4), Kind.DENIED),
        (Error(1, 10), Kind.DENIED),
        (Error(0xFFFF, 2314, b"", errors.ONF), Kind.UNAVAILABLE),
        (Error(4, 9), Kind.INTERNAL),
    ],
)
def test_an_error_is_of_a_kind(error, kind) -> None:
    refused = Refusal(2, error).as_error("the flows of endpoint e1 on hwint")
    assert refused.kind is kind
    assert refused.message == f"the switch refuses the flows of endpoint e1 on hwint: {error.text}"
    assert refused.facts == {"openflow_error": error.text, "place": 2}


def test_an_error_has_room_for_what_is_sent_back() -> None:
    assert Error(1, 1, encode(EchoRequest(b"abc"), 42)).refused_xid == 42
    assert Error(1, 1, b"short").refused_xid is None
