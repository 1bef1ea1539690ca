"""Laws of the throttle: bounded table, bounded delay, recovery with time, places that do not touch each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn.controller import throttle
from sdn.controller.problem import RefusedError, status_of
from sdn.controller.throttle import DELAY_MAX_S, LEAK_PER_S, LEVEL_MAX, WAITING_MAX, Throttle, source_of

SOURCES = st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1", "", "unix"])
GAPS_S = st.sampled_from([0.0, 0.001, 0.1, 1.0, 5.0, 100.0, -3.0])
HISTORY = st.lists(st.tuples(SOURCES, GAPS_S), max_size=60)


def answer(one: Throttle, source: str, now_s: float) -> float | int:
    """The delay, or the Retry-After (a whole number) of a 429."""
    try:
        return one.failed(source, now_s)
    except RefusedError as error:
        return int(error.headers["Retry-After"])


@given(HISTORY)
def test_a_delay_is_bounded(history):
    one, now_s = Throttle(), 1000.0
    for source, gap_s in history:
        now_s += gap_s
        got = answer(one, source, now_s)
        if isinstance(got, int):
            assert 1 <= got <= LEVEL_MAX / LEAK_PER_S
        else:
            assert 0.0 <= got <= DELAY_MAX_S


@given(HISTORY, SOURCES)
def test_time_heals(history, source):
    one, now_s = Throttle(), 1000.0
    for other, gap_s in history:
        now_s += gap_s
        answer(one, other, now_s)
    newest_s = 1000.0 + sum(max(gap_s, 0.0) for _, gap_s in history)
    assert answer(one, source, newest_s + LEVEL_MAX / LEAK_PER_S) == 0.0


@given(HISTORY)
def test_who_waits_as_told_is_told_the_reason(history):
    one, now_s = Throttle(), 1000.0
    for other, gap_s in history:
        now_s += max(gap_s, 0.0)
        answer(one, other, now_s)
    for _ in range(3):
        got = answer(one, "192.0.2.1", now_s)
        if isinstance(got, int):
            # the next one counts as well: it needs its own room
            assert isinstance(answer(one, "192.0.2.1", now_s + got + 1 / LEAK_PER_S), float)
            break


@given(HISTORY)
def test_places_do_not_touch_each_other(history):
    together, now_s = Throttle(), 1000.0
    apart: dict[str, Throttle] = {}
    for source, gap_s in history:
        now_s += max(gap_s, 0.0)
        alone = apart.setdefault(source_of(source), Throttle())
        assert answer(together, source, now_s) == answer(alone, source, now_s)


@given(st.lists(st.floats(0.0, 0.5), max_size=200))
def test_what_waits_at_one_place_is_bounded(gaps_s):
    one, now_s = Throttle(), 0.0
    ends_s: list[float] = []
    for gap_s in gaps_s:
        now_s += gap_s
        got = answer(one, "192.0.2.1", now_s)
        if isinstance(got, float) and got:
            ends_s.append(now_s + got)
        waiting = sum(end_s > now_s for end_s in ends_s)
        assert waiting <= throttle.ANSWERED - throttle.FREE + DELAY_MAX_S * LEAK_PER_S


def test_what_waits_in_all_is_bounded():
    one = Throttle()
    ends_s: list[float] = []
    for step in range(30_000):
        now_s = step / 1000
        got = answer(one, f"10.0.{step % 5000 // 250}.{step % 250}", now_s)
        if isinstance(got, float) and got:
            ends_s = [end_s for end_s in ends_s if end_s > now_s] + [now_s + got]
        assert len(ends_s) <= WAITING_MAX


def test_what_is_too_much():
    one = Throttle()
    while isinstance(answer(one, "192.0.2.1", 0.0), float):
        pass
    with pytest.raises(RefusedError, match=r"too many before it from 192\.0\.2\.1") as caught:
        one.failed("192.0.2.1", 0.0)
    assert status_of(caught.value, False) == 429
    assert caught.value.headers == {"Retry-After": "4", "Connection": "close"}


def test_the_table_is_bounded(monkeypatch):
    monkeypatch.setattr(throttle, "SOURCES_MAX", 8)
    one = Throttle()
    for number in range(100):
        answer(one, "192.0.2.1", 0.0)  # the one that is at it all the time is not the one that is forgotten
        answer(one, f"198.51.100.{number}", 0.0)
        assert len(one) <= 8
    assert isinstance(answer(one, "192.0.2.1", 0.0), int)


def test_a_place():
    assert source_of("2001:db8::1") == source_of("2001:db8::ffff:1") != source_of("2001:db8:0:1::1")
    assert source_of("::ffff:192.0.2.7") == source_of("192.0.2.7") != source_of("192.0.2.8")
    assert source_of("fe80::1%eth0") == source_of("fe80::2")
    assert len(source_of("x" * 10_000)) <= 64
