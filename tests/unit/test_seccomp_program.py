"""The assembler: whatever the verdicts, the program says them."""

from __future__ import annotations

import errno

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.seccomp.profile import ALLOW, OTHERWISE, OneOf, Verdict, Without
from runtime.seccomp.program import assemble
from tests.unit.classic_bpf import Call, load

words = st.one_of(st.integers(0, 500), st.integers(0, 0xFFFFFFFF))
verdicts = st.one_of(
    st.just(ALLOW),
    st.sampled_from((errno.EPERM, errno.ENOSYS, errno.EINVAL)),
    st.builds(OneOf, st.lists(words, max_size=20, unique=True).map(tuple)),
    st.builds(Without, words),
)
tables = st.dictionaries(words, verdicts, max_size=60)


def expected(verdict: Verdict, argument: int) -> int:
    low = argument & 0xFFFFFFFF
    match verdict:
        case OneOf(values):
            return ALLOW if low in values else errno.EPERM
        case Without(flags):
            return errno.EPERM if low & flags else ALLOW
    return verdict


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(words, tables, min_size=1, max_size=3), st.lists(st.integers(0, (1 << 64) - 1), max_size=3))
def test_a_program_says_what_its_table_says(architectures, arguments):
    run = load(assemble(architectures))
    for architecture, table in architectures.items():
        near = {number + step for number in table for step in (-1, 0, 1)} | {0, 0xFFFFFFFF}
        for number in (number for number in near if 0 <= number <= 0xFFFFFFFF):
            verdict = table.get(number, OTHERWISE)
            values = verdict.values if isinstance(verdict, OneOf) else ()
            for argument in (0, *arguments, *values):
                call = Call(architecture, number, (argument, 0, 0, 0, 0, 0))
                assert run(call) == expected(verdict, argument)
    stranger = next(number for number in range(100) if number not in architectures)
    assert run(Call(stranger, 0)) == OTHERWISE


def test_a_table_without_neighbours_needs_long_jumps_and_is_right():
    table: dict[int, Verdict] = {number: number % 3 for number in range(2000)}
    run = load(assemble({7: table}))
    assert all(run(Call(7, number)) == number % 3 for number in table)
    assert run(Call(7, 2000)) == OTHERWISE
