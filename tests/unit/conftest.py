"""What tests of the edge share, unless they have their own: a controller, and requests to it over TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdn.controller import throttle
from tests.unit.remote_server import Remote, remote
from tests.unit.rest_server import Served, running


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """One whose refusals are told at once, however many."""
    monkeypatch.setattr(throttle, "FREE", 10_000.0)
    monkeypatch.setattr(throttle, "ANSWERED", 20_000.0)
    async with running(tmp_path) as running_controller:
        yield running_controller


@pytest.fixture
async def tcp(served: Served) -> AsyncIterator[Remote]:
    """A session to its TCP port."""
    async with remote(served) as session:
        yield session
