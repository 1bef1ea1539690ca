"""A set of small integers that finds the next absent one in constant time.

Level 0 has a bit per integer, level n a bit per *full* word of level n - 1. Words are integers of 1024 bits in a
dictionary, those that are zero are left out: 2**20 integers need two levels, 2**64 (an IPv6 subnet) seven, and an empty
set of either needs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

WORD_BITS = 1024
"""Python works on 1024 bits in 0.1 µs; smaller words would need more levels, larger ones more copying."""
FULL = (1 << WORD_BITS) - 1


class Bitmap:
    """A set of integers in `range(size)`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._count = 0
        self._levels: list[dict[int, int]] = [{}]
        while size > WORD_BITS:
            self._levels.append({})
            size = -(-size // WORD_BITS)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        return bool(self._levels[0].get(number // WORD_BITS, 0) >> number % WORD_BITS & 1)

    def __iter__(self) -> Iterator[int]:
        """The members, in ascending order."""
        for word in sorted(self._levels[0]):
            bits = self._levels[0][word]
            while bits:
                yield word * WORD_BITS + _lowest(bits)
                bits &= bits - 1

    def add(self, number: int) -> bool:
        """Returns whether it was absent."""
        assert 0 <= number < self._size, number
        if number in self:
            return False
        self._count += 1
        for words in self._levels:
            number, bit = divmod(number, WORD_BITS)
            words[number] = words.get(number, 0) | 1 << bit
            if words[number] != FULL:
                break
        return True

    def discard(self, number: int) -> bool:
        """Returns whether it was a member."""
        if number not in self:
            return False
        self._count -= 1
        for words in self._levels:
            number, bit = divmod(number, WORD_BITS)
            before = words.pop(number)
            if before != 1 << bit:
                words[number] = before & ~(1 << bit)
            if before != FULL:
                break
        return True

    def next_absent(self, start: int, end: int) -> int | None:
        """The smallest number in `range(start, end)` that is not a member. Looks at two words per level at most."""
        number = start
        for level, words in enumerate(self._levels):
            word, bit = divmod(number, WORD_BITS)
            absent = (FULL & ~words.get(word, 0)) >> bit << bit
            if absent:
                found = word * WORD_BITS + _lowest(absent)
                for below in reversed(self._levels[:level]):
                    found = found * WORD_BITS + _lowest(FULL & ~below.get(found, 0))
                return found if found < min(end, self._size) else None
            number = word + 1  # nothing more in this word: the next that is not full, by the level above
        return None


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
