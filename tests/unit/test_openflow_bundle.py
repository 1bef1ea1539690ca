"""Bundles: all or nothing of each group, whatever is refused when."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdn.model.errors import HawseError
from sdn.openflow.bundle import BundleControl, Verb
from sdn.openflow.errors import ONF, Error
from sdn.openflow.events import Unasked
from sdn.openflow.framing import Type
from sdn.openflow.messages import (
    Plain,
    encode,
)
from sdn.openflow.parsing import parse
from tests.unit.openflow_pair import HEADERS, Pair, failure, frames_of, opened
from tests.unit.openflow_switch import ModelSwitch, mod

cuts = st.lists(st.integers(0, 1 << 16), max_size=12)


def test_a_bundle_is_committed_after_a_barrier_and_discarded_after_an_error() -> None:
    pair = Pair(ModelSwitch(refused_at_add={"b"}))
    pair.controller.bundle([[mod("a")], [mod("b")]], 0.0)
    pair.run()
    adds = ["EXPERIMENTER"]
    first = ["OPEN", *adds, *adds, "CLOSE", "BARRIER_REQUEST", "DISCARD", "BARRIER_REQUEST"]
    assert pair.model.log == [*first, "OPEN", *adds, "CLOSE", "BARRIER_REQUEST", "COMMIT", "BARRIER_REQUEST"]
    assert pair.model.open == {}


groups = st.lists(st.lists(st.sampled_from("abcdefghijklmnop"), max_size=4), min_size=1, max_size=12)


@settings(max_examples=150)
@given(groups, st.sets(st.sampled_from("abcdefghijklmnop")), st.sets(st.sampled_from("abcdefghijklmnop")), cuts)
def test_each_group_is_done_whole_or_refused_by_name(names, at_add, at_commit, places) -> None:
    """Whatever is refused when, the others are done, in order, and every bundle is gone from the switch."""
    pair = Pair(ModelSwitch(refused_at_add=at_add, refused_at_commit=at_commit), places=places)
    if not any(names):
        names = [["a"]]
    xid = pair.controller.bundle([[mod(name) for name in group] for group in names], 0.0)
    (event,) = pair.run()
    assert event.xid == xid
    refused = at_add | at_commit
    for group, verdict in zip(names, event.answer, strict=True):
        assert (verdict is not None) == bool(refused.intersection(group))
        if verdict is not None:
            assert group[verdict.message] in refused
            text = "FLOW_MOD_FAILED TABLE_FULL" if group[verdict.message] not in at_add else "BAD_MATCH BAD_PREREQ"
            assert verdict.text == text
    good = [group for group in names if not refused.intersection(group)]
    assert pair.model.done == list(itertools.chain.from_iterable(good))
    assert pair.model.open == {}


def test_a_full_table_refuses_what_is_too_much_and_takes_the_rest() -> None:
    pair = Pair(ModelSwitch(most=700))
    pair.controller.bundle([[mod(f"n{number}")] for number in range(1000)], 0.0)
    (event,) = pair.run()
    assert [index for index, verdict in enumerate(event.answer) if verdict is None] == [
        index for index in range(1000) if f"n{index}" in pair.model.done
    ]
    assert len(pair.model.done) == 700
    assert pair.model.open == {}


def test_a_switch_without_bundles_is_named() -> None:
    pair = Pair(ModelSwitch(knows_bundles=False))
    pair.controller.bundle([[mod("a")]], 0.0)
    error = failure(pair.run())
    assert "does not know OpenFlow 1.3 bundles (EXT-230): BAD_REQUEST BAD_EXPERIMENTER" in error.message


def test_a_bundle_refused_as_a_whole_is_refused_for_each_group() -> None:
    session = opened()
    session.bundle([[mod("a")], [mod("b")]], 0.0)
    events = []
    for _ in range(4):
        frames = [parse(frame) for frame in frames_of(b"".join(session.take()))]
        for (xid, _), frame in zip(HEADERS, frames, strict=True):
            if isinstance(frame, BundleControl) and frame.verb is Verb.OPEN:
                events += session.receive(encode(Error(0xFFFF, 2305, b"", ONF), xid), 0.0)
            elif frame == Plain(Type.BARRIER_REQUEST):
                events += session.receive(encode(Plain(Type.BARRIER_REPLY), xid), 0.0)
    (event,) = events
    assert [(verdict.message, verdict.text) for verdict in event.answer] == [
        (None, "BUNDLE_FAILED OUT_OF_BUNDLES"),
        (None, "BUNDLE_FAILED OUT_OF_BUNDLES"),
    ]


def test_a_commit_that_is_not_answered_is_not_taken_for_done() -> None:
    session = opened()
    xid = session.bundle([[mod("a")]], 0.0)
    events = []
    for _ in range(2):
        frames_of(b"".join(session.take()))
        events += session.receive(encode(Plain(Type.BARRIER_REPLY), HEADERS[-1][0]), 0.0)
    assert events[-1].xid == xid
    assert "answers the barrier after a bundle's commit, but not the commit" in failure(events).message


def test_a_barrier_that_is_not_the_bundles_last_does_not_move_it() -> None:
    session = opened()
    session.bundle([[mod("a")]], 0.0)
    frames_of(b"".join(session.take()))
    for xid, _ in HEADERS[:-1]:
        assert session.receive(encode(Plain(Type.BARRIER_REPLY), xid), 0.0) == [Unasked(xid, Type.BARRIER_REPLY)]
    assert list(session.take()) == []


def test_of_what_is_sent_back_with_errors_little_is_kept() -> None:
    session = opened()
    session.bundle([[mod("a")]], 0.0)
    frames_of(b"".join(session.take()))
    events = session.receive(encode(Error(4, 9, bytes(60000)), HEADERS[1][0]), 0.0)
    for _ in range(2):
        events += session.receive(encode(Plain(Type.BARRIER_REPLY), HEADERS[-1][0]), 0.0)
        frames_of(b"".join(session.take()))
    assert events[-1].answer[0].error == Error(4, 9, bytes(64))


def test_what_a_bundle_cannot_hold_is_refused_before_it_is_sent() -> None:
    session = opened()
    with pytest.raises(HawseError, match="too long for a bundle"):
        session.bundle([[mod("a", size=65535 - 8)]], 0.0)
    assert list(session.take()) == []
