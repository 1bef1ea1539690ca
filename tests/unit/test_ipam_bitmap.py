"""The bitmap is a set that finds the next absent integer, with an effort that does not depend on what it holds."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from sdn.ipam.bitmap import WORD_BITS, Bitmap

SMALL = 3 * WORD_BITS + 7


class CountedWords(dict[int, int]):
    """The words of a level, counting how often they are looked at."""

    reads = 0

    def get(self, key: int, default: int = 0) -> int:  # type: ignore[override] # as the bitmap uses it
        CountedWords.reads += 1
        return super().get(key, default)


@st.composite
def members(draw: st.DrawFn) -> set[int]:
    """Runs and single numbers: full words are what summaries are about."""
    runs = draw(st.lists(st.tuples(st.integers(0, SMALL - 1), st.integers(1, 2 * WORD_BITS)), max_size=4))
    found = {number for start, length in runs for number in range(start, min(SMALL, start + length))}
    return found ^ draw(st.sets(st.integers(0, SMALL - 1), max_size=20))


@given(members(), st.integers(0, SMALL), st.integers(0, SMALL))
def test_next_absent_is_the_smallest(numbers: set[int], start: int, end: int) -> None:
    bitmap = Bitmap(SMALL)
    for number in numbers:
        assert bitmap.add(number)
    expected = next((number for number in range(start, end) if number not in numbers), None)
    assert bitmap.next_absent(start, end) == expected
    assert (list(bitmap), len(bitmap)) == (sorted(numbers), len(numbers))


@given(members(), members())
def test_what_is_discarded_is_absent(numbers: set[int], gone: set[int]) -> None:
    bitmap = Bitmap(SMALL)
    for number in numbers:
        bitmap.add(number)
        assert not bitmap.add(number)
    for number in gone:
        assert bitmap.discard(number) == (number in numbers)
    assert list(bitmap) == sorted(numbers - gone)
    expected = next((number for number in range(SMALL) if number not in numbers - gone), None)
    assert bitmap.next_absent(0, SMALL) == expected


def test_the_end_of_a_size_that_fills_no_word() -> None:
    for size in (1, WORD_BITS - 1, WORD_BITS, WORD_BITS + 1, WORD_BITS**2, WORD_BITS**2 + 1):
        bitmap = Bitmap(size)
        bitmap.add(size - 1)
        assert bitmap.next_absent(size - 1, size) is None
        assert bitmap.next_absent(0, size) == (None if size == 1 else 0)


def test_the_effort_is_constant() -> None:
    """In a set of 2**20 with one hole, and in an IPv6 subnet with a long run, few words are looked at."""
    bitmap = Bitmap(1 << 20)
    hole = 777_777
    for number in range(1 << 20):
        if number != hole:
            bitmap.add(number)
    sparse = Bitmap(1 << 64)
    for number in range(5 * WORD_BITS):
        sparse.add(number)
    for subject, start, expected, levels in ((bitmap, 0, hole, 2), (sparse, 0, 5 * WORD_BITS, 7)):
        assert len(subject._levels) == levels
        subject._levels = [CountedWords(words) for words in subject._levels]
        CountedWords.reads = 0
        assert subject.next_absent(start, 1 << 64) == expected
        assert 0 < CountedWords.reads <= 2 * levels


def test_memory_follows_the_members() -> None:
    bitmap = Bitmap(1 << 64)
    assert [len(words) for words in bitmap._levels] == [0] * 7
    bitmap.add(1 << 63)
    assert [len(words) for words in bitmap._levels] == [1, 0, 0, 0, 0, 0, 0]
    bitmap.discard(1 << 63)
    assert [len(words) for words in bitmap._levels] == [0] * 7
