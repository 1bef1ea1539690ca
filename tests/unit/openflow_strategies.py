"""Made-up flows for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from sdn.openflow.fields import Field
from sdn.openflow.flow import (
    CONTROLLER,
    IN_PORT,
    LOCAL,
    Action,
    CheckLarger,
    Flow,
    Move,
    Output,
    Resubmit,
    SetField,
    Term,
    Track,
)


def values(field: Field) -> st.SearchStrategy[bytes]:
    """Any value of a field."""
    return st.integers(0, (1 << field.bits) - 1).map(lambda number: number.to_bytes(field.size, "big"))


def terms(field: Field) -> st.SearchStrategy[Term]:
    """Any term of a field, as a switch has it: bits that do not count are zero, a full mask is none."""

    def masked(pair: tuple[bytes, bytes | None]) -> Term:
        value, mask = pair
        if mask is None or mask == field.all_bits or not any(mask):
            return Term(field, value)
        return Term(field, bytes(a & b for a, b in zip(value, mask, strict=True)), mask)

    return st.tuples(values(field), st.none() | values(field)).map(masked)


def matches(fields: list[Field]) -> st.SearchStrategy[tuple[Term, ...]]:
    """Up to ten terms in canonical order; whether they go together is not asked."""

    def of(chosen: list[Field]) -> st.SearchStrategy[tuple[Term, ...]]:
        return st.tuples(*(terms(field) for field in sorted(chosen, key=lambda field: field.place)))

    return st.lists(st.sampled_from(fields), unique=True, max_size=10).flatmap(of)


def actions(fields: list[Field]) -> st.SearchStrategy[Action]:
    """Any action upon these fields."""
    some = st.sampled_from(fields)
    ports = st.integers(1, 0xFF00) | st.sampled_from([IN_PORT, LOCAL, CONTROLLER])
    return st.one_of(
        ports.map(Output),
        some.flatmap(lambda field: values(field).map(lambda value: SetField(field, value))),
        st.tuples(some, some, st.integers(1, 8)).map(lambda move: Move(*move)),
        st.integers(0, 254).map(Resubmit),
        st.integers(0, 254).map(Track),
        st.builds(CheckLarger, st.integers(0, 65535), some),
    )


def flows(fields: list[Field]) -> st.SearchStrategy[Flow]:
    """Any flow of these fields."""
    return st.builds(
        Flow,
        table=st.integers(0, 254),
        priority=st.integers(0, 65535),
        match=matches(fields),
        actions=st.lists(actions(fields), max_size=8).map(tuple),
        goto=st.none() | st.integers(0, 254),
        cookie=st.integers(0, (1 << 64) - 1),
    )
