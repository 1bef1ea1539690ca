"""README.md's tutorials do what the page says, line by line."""

from __future__ import annotations

import pytest

from tests.e2e.tutorials import NAMES, differs, machines, tutorial

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("name", "count"), [("one machine", 1), ("two machines", 2)])
def test_every_line_does_what_the_page_says(name, count):
    lines = tutorial(name)
    assert {line.machine for line in lines} == set(NAMES[:count])
    with machines(*NAMES[:count]) as made:
        for line in lines:
            wrong = differs(line.output, made.run(line))
            assert not wrong, f"{line.machine}# {line.command}\n{wrong}"


@pytest.mark.parametrize(
    ("page", "seen", "same"),
    [
        (["a  b"], "a    b\n", True),
        (["a … c"], "a b b c\n", True),
        (["a"], "a\nb\n", False),
        (["a", "…"], "a\nb\nc\n", True),
        (["…", "c"], "a\nb\nc\n", True),
        (["…", "b"], "a\nb\nc\n", False),
        (["a.c"], "abc\n", False),
        ([], "a\n", False),
        ([], "", True),
    ],
)
def test_what_is_compared(page, seen, same):
    assert (differs(page, seen) == "") is same
