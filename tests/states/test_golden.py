"""What each named state makes of the fake, as text that a person has reviewed.

After a wanted change: `HAWSE_GOLDEN=write pytest tests/states/test_golden.py`, then read the diff before committing it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdn.reconcile.fake import FakeSite
from sdn.reconcile.laws import Agent
from tests.states.states import STATES

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", STATES)
async def test_text(name: str) -> None:
    """Exactly as it was reviewed."""
    site = FakeSite()
    await Agent(site, STATES[name]).start(STATES[name])
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("HAWSE_GOLDEN") == "write":
        path.write_text(site.kernel.text())
    assert site.kernel.text() == path.read_text()


def test_no_text_is_left_over() -> None:
    """Every file belongs to a state."""
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(STATES)
