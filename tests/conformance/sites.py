"""Sites of each datapath, for the kit."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import pytest

from tests.conformance.bridge_site import BridgeSite
from tests.conformance.host_site import HostSite
from tests.conformance.openflow_site import OpenflowSite
from tests.conformance.vswitch_process import VswitchProcess, vswitch_process

SiteMaker = Callable[[], HostSite]


@pytest.fixture(scope="module")
def switch() -> Iterator[VswitchProcess]:
    """An Open vSwitch that the sites of a module share: each leaves it empty."""
    with vswitch_process() as process:
        yield process


@pytest.fixture(scope="module", params=["bridge", "openflow"])
def make_site(request: pytest.FixtureRequest) -> SiteMaker:
    """Makes the sites of each datapath in turn."""
    if request.param == "bridge":
        return BridgeSite
    return functools.partial(OpenflowSite, request.getfixturevalue("switch"))


@pytest.fixture
def site(make_site: SiteMaker) -> Iterator[HostSite]:
    """One, removed afterwards."""
    with contextlib.closing(make_site()) as made:
        yield made
