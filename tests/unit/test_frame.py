"""Frames: what was ready together crosses together, and comes out as it went in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn.model.codec import encode_msgpack
from sdn.model.errors import HawseError, Kind
from sdn.model.stream import FRAME_MESSAGES_MAX, Sync, pack_frame, unpack_frame

messages = st.binary(max_size=40).map(encode_msgpack) | st.integers(0, 2**40).map(
    lambda revision: encode_msgpack(Sync(revision=revision))
)


@given(st.lists(messages, max_size=FRAME_MESSAGES_MAX))
def test_a_frame_holds_its_messages_in_order(given_messages):
    assert unpack_frame(pack_frame(given_messages)) == given_messages


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\x01", encode_msgpack({"a": 1}), b"\x91\x01\x02"])
def test_what_is_no_frame_is_refused(data):
    with pytest.raises(HawseError) as refused:
        unpack_frame(data)
    assert refused.value.kind is Kind.INVALID
