"""Where messages end, however their bytes come; and what is none."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn.openflow.framing import Framer, ProtocolError, Type, framed, header_of, type_name, version_name

messages = st.lists(
    st.builds(framed, st.sampled_from(Type), st.integers(0, 0xFFFFFFFF), st.binary(max_size=40)), max_size=8
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The same bytes, cut at some places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def _framer() -> Framer:
    framer = Framer()
    framer.negotiated = True
    return framer


@given(messages, st.lists(st.integers(0, 1000), max_size=20))
def test_messages_come_out_whole_however_they_come_in(sent, cuts) -> None:
    framer = _framer()
    assert [frame for piece in pieces(b"".join(sent), cuts) for frame in framer.feed(piece)] == sent


@given(messages)
def test_byte_by_byte(sent) -> None:
    framer = _framer()
    whole = b"".join(sent)
    assert [frame for at in range(len(whole)) for frame in framer.feed(whole[at : at + 1])] == sent


def test_the_longest_message_and_no_more_is_kept() -> None:
    framer = _framer()
    longest = framed(Type.ECHO_REQUEST, 1, bytes(65527))
    assert list(framer.feed(longest[:-1])) == []
    assert [len(frame) for frame in framer.feed(longest[-1:] + longest[:9])] == [65535]
    assert len(framer._rest) == 9


@pytest.mark.parametrize(
    ("data", "field", "offset", "text"),
    [
        ("05020008", "version", 0, "ECHO_REQUEST: version, at byte 0, is 0x05, not 0x04"),
        ("041e0008", "type", 1, "message of type 30: type, at byte 1, is none of OpenFlow 1.3"),
        ("04020007", "length", 2, "ECHO_REQUEST: length, at byte 2, is 7, less than the header's 8"),
        ("04020000", "length", 2, "is 0, less"),
        (b"HTTP/1.1 400 Bad Request\r\n".hex(), "version", 0, "it speaks no OpenFlow, but says 'HTTP/1.1 400 Bad Requ"),
    ],
)
def test_what_is_no_message_is_named_at_once(data, field, offset, text) -> None:
    good = framed(Type.HELLO, 7, b"")
    framer = _framer()
    assert list(framer.feed(good)) == [good]
    frames = framer.feed(good + bytes.fromhex(data))
    assert next(frames) == good
    with pytest.raises(ProtocolError) as caught:
        next(frames)
    assert (caught.value.field, caught.value.offset) == (field, offset)
    assert text in caught.value.message


@given(st.binary(max_size=200))
def test_garbage_is_an_error_or_awaits_more(data) -> None:
    framer = _framer()
    with contextlib.suppress(ProtocolError):
        for frame in framer.feed(data):
            assert len(frame) == header_of(frame).length
    assert len(framer._rest) <= 65535


def test_before_the_versions_are_agreed_on_only_a_hello_and_an_error_may_be_of_another() -> None:
    for number in (Type.HELLO, Type.ERROR):
        assert list(Framer().feed(framed(number, 1, b"", version=1))) == [framed(number, 1, b"", version=1)]
        with pytest.raises(ProtocolError):
            list(_framer().feed(framed(number, 1, b"", version=1)))
        with pytest.raises(ProtocolError):
            list(Framer().feed(framed(number, 1, b"", version=0)))
        with pytest.raises(ProtocolError):
            list(Framer().feed(framed(number, 1, b"", version=0x16)))  # TLS's first byte
    with pytest.raises(ProtocolError):
        list(Framer().feed(framed(Type.ECHO_REQUEST, 1, b"", version=1)))


def test_names() -> None:
    assert version_name(4) == "1.3"
    assert version_name(1) == "1.0"
    assert version_name(0x16) == "version 0x16"
    assert type_name(20) == "BARRIER_REQUEST"
    assert type_name(200) == "message of type 200"
