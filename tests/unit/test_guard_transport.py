"""Messages to nf_tables, their answers, and what a machine without nftables is told."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.datapath.bridge.guard_table import FRAME_CAUSES, counter_name, counter_of, guard_text
from plugin.kernel import nfnetlink, nftables
from plugin.kernel.nfnetlink import Family, Message, NetfilterError, NetfilterSocket, Type
from plugin.kernel.nftables import Element
from sdn.model.errors import HawseError, Kind

_HEADER = struct.Struct("=IHHII")


class Kernel:
    """The other end of a socket pair: what a test lets nf_tables answer."""

    def __init__(self) -> None:
        self.end, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.settimeout(5)

    def answer(self, *messages: tuple[int, int, int, bytes]) -> None:
        """Datagram of (type, flags, sequence, payload)."""
        self.far.send(
            b"".join(
                _HEADER.pack(16 + len(payload), kind, flags, sequence, 0) + payload + bytes(-len(payload) % 4)
                for kind, flags, sequence, payload in messages
            )
        )

    def received(self) -> list[tuple[int, int, int]]:
        """(type, flags, sequence) of the messages of one datagram."""
        data, found, position = self.far.recv(1 << 20), [], 0
        while position < len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, position)
            found.append((kind, flags, sequence))
            position += length
        return found


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    fake = Kernel()
    monkeypatch.setattr(nfnetlink, "_open", lambda _: fake.end)
    yield fake
    fake.end.close()
    fake.far.close()


def error(number: int) -> bytes:
    return struct.pack("=i", -number) + bytes(16)


@given(
    st.lists(
        st.one_of(
            st.builds(
                Element, key=st.binary(min_size=1, max_size=64), data=st.binary(max_size=16), counter=st.just("")
            ),
            st.builds(
                Element,
                key=st.binary(min_size=1, max_size=64),
                data=st.just(b""),
                counter=st.text("abc-.1", min_size=1),
            ),
        ),
        max_size=30,
    )
)
def test_elements_are_decoded_as_they_were_encoded(elements: list[Element]) -> None:
    messages = list(nftables.add_elements(Family.BRIDGE, "hawse", "e4", elements))
    decoded = [pair for message in messages for pair in nftables._decode_elements(message.payload)]
    assert decoded == [(element.key, element.data or element.counter.encode()) for element in elements]


def test_many_elements_are_split_over_messages_that_an_attribute_can_hold() -> None:
    elements = [Element(bytes([n >> 8, n & 255]) * 32) for n in range(2000)]
    messages = list(nftables.add_elements(Family.BRIDGE, "hawse", "e6", elements))
    assert len(messages) > 1
    assert all(len(message.payload) < 1 << 16 for message in messages)
    assert [key for m in messages for key, _ in nftables._decode_elements(m.payload)] == [e.key for e in elements]


def test_a_batch_asks_for_the_acknowledgement_of_its_last_message(kernel: Kernel) -> None:
    channel = NetfilterSocket()
    kernel.answer((2, 0, 3, error(0)))
    channel.transact([Message(Type.NEW_OBJECT, Family.BRIDGE, b""), Message(Type.NEW_OBJECT, Family.BRIDGE, b"")])
    begin, first, last, end = kernel.received()
    assert (begin[0], end[0]) == (0x10, 0x11)
    assert [message[1] & nfnetlink.ACK for message in (begin, first, last, end)] == [0, 0, nfnetlink.ACK, 0]


def test_the_first_refusal_of_a_batch_is_raised(kernel: Kernel) -> None:
    channel = NetfilterSocket()
    kernel.answer((2, 0, 2, error(errno.ENOENT)), (2, 0, 3, error(errno.EBUSY)))
    with pytest.raises(NetfilterError) as caught:
        channel.transact([Message(Type.NEW_OBJECT, Family.BRIDGE, b"")] * 2)
    assert caught.value.errno == errno.ENOENT


def test_a_refused_batch_has_one_answer(kernel: Kernel) -> None:
    channel = NetfilterSocket()
    kernel.answer((2, 0, 1, error(errno.EPERM)))
    with pytest.raises(NetfilterError) as caught:
        channel.transact([Message(Type.NEW_OBJECT, Family.BRIDGE, b"")])
    assert caught.value.errno == errno.EPERM


def test_a_dump_that_met_a_writer_is_taken_again(kernel: Kernel) -> None:
    channel = NetfilterSocket()
    kind = 10 << 8 | Type.NEW_ELEMENTS
    kernel.answer((kind, 0x12, 1, b"old!half"), (3, 2, 1, error(0)))
    kernel.answer((kind, 2, 2, b"new!whole"), (3, 2, 2, error(0)))
    assert channel.dump(Message(Type.GET_ELEMENTS, Family.BRIDGE, b"")) == [b"whole"]


def test_a_dump_that_always_meets_a_writer_ends(kernel: Kernel) -> None:
    channel = NetfilterSocket()
    for sequence in range(1, 50):
        kernel.answer((3, 0x12, sequence, error(0)))
    with pytest.raises(NetfilterError, match="another writer"):
        channel.dump(Message(Type.GET_ELEMENTS, Family.BRIDGE, b""))


def test_an_answer_to_an_older_question_is_passed_over(kernel: Kernel) -> None:
    channel = NetfilterSocket()
    kernel.answer((2, 0, 99, error(errno.ENOENT)))
    kernel.answer((10 << 8 | 3, 0, 1, b"fam!chain"), (2, 0, 1, error(0)))
    assert channel.get(Message(Type.GET_CHAIN, Family.BRIDGE, b"")) == [b"chain"]


def test_a_missing_library_is_said_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    nftables._library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(HawseError) as caught:
        nftables.run_libnftables("list ruleset")
    assert caught.value.kind is Kind.UNAVAILABLE
    assert "libnftables.so.1" in caught.value.message
    assert "apt-get install libnftables1" in caught.value.hint
    nftables._library.cache_clear()


@pytest.mark.parametrize(
    ("complaint", "kind", "word"),
    [
        ("Error: Could not process rule: Operation not supported\ntable bridge hawse {", Kind.UNAVAILABLE, "CONFIG"),
        ("Error: Could not process rule: Operation not permitted", Kind.DENIED, "root"),
        ("<cmdline>:3:1-4: Error: syntax error, unexpected junk", Kind.UNAVAILABLE, "1.0.6"),
        ("", Kind.UNAVAILABLE, "CONFIG"),
    ],
)
def test_a_refusal_says_what_is_missing(complaint: str, kind: Kind, word: str) -> None:
    refusal = nftables._load_error(complaint)
    assert refusal.kind is kind
    assert word in refusal.hint


@pytest.mark.parametrize("number", [errno.EPROTONOSUPPORT, errno.EPERM])
def test_a_kernel_without_netlink_to_nf_tables_is_said(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(_: int | None) -> socket.socket:
        raise OSError(number, "refused")

    monkeypatch.setattr(nfnetlink, "_open", refuse)
    with pytest.raises(HawseError) as caught:
        nftables.Nftables()
    assert caught.value.kind is (Kind.DENIED if number == errno.EPERM else Kind.UNAVAILABLE)
    assert caught.value.hint


@given(st.sampled_from(FRAME_CAUSES), st.integers(1, (1 << 24) - 1))
def test_a_counter_says_its_network_and_cause(cause: str, vni: int) -> None:
    assert counter_of(counter_name(cause, vni)) == (vni, cause)
    assert counter_of(cause) == (0, cause)


def test_every_cause_ends_in_a_drop_that_is_counted() -> None:
    own_frames = 'oifname "hwv*" @ll,7,1 1 drop'  # of no container, so of no cause
    rules = [line.strip() for line in guard_text({}).splitlines()]
    rules.remove(own_frames)
    drops = [line for line in rules if line.endswith("drop") and not line.startswith("type")]
    assert len(drops) > 2 * len(FRAME_CAUSES)
    assert all(line.startswith("counter name") for line in drops)
