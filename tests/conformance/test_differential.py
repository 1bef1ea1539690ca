"""Bridge, Open vSwitch, one of each and a pure oracle agree about each frame: who hears it, what answers, what counts.

A disagreement is told with the seed, the frame and both stories; `seed` alone makes it again.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator, Sequence

import pytest
from scapy.layers.l2 import Ether

from sdn.model.ids import EndpointId
from sdn.reconcile.state import State
from tests.conformance.bridge_site import BridgeSite
from tests.conformance.fabric import Fabric, Outcome, expected
from tests.conformance.openflow_site import OpenflowSite
from tests.conformance.random_fabrics import Arriving, Sent, random_arrivals, random_frames, random_state

pytestmark = pytest.mark.root

SITES = {"bridge": BridgeSite, "openflow": OpenflowSite}
PAIRS = [("bridge", "bridge"), ("openflow", "openflow"), ("bridge", "openflow"), ("openflow", "bridge")]
"""What host 1 is on, and host 2."""
FRAMES, ARRIVALS = 60, 6
"""A topology's."""
QUICK, SLOW = range(8), range(8, 100)


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def fabric(request: pytest.FixtureRequest) -> Iterator[Fabric]:
    """Hosts 1 and 2, on the same datapath or on two."""
    first, second = request.param
    with contextlib.closing(Fabric(f"{first}-{second}", SITES[first], SITES[second])) as made:
        yield made


async def expect_agreement(fabric: Fabric, seed: int) -> None:
    """Of one topology and its frames."""
    state = random_state(seed)
    await fabric.enter(state)
    batch: list[Sent | Arriving] = [*random_frames(state, seed, FRAMES), *random_arrivals(state, seed, ARRIVALS)]
    wanted = expected(state, batch)
    seen = fabric.outcome(state, batch, wanted)
    if seen != wanted:
        alone = [one for one in batch if _disagreement(fabric, state, one)]
        told = [_disagreement(fabric, state, one) for one in alone] or [_difference(wanted, seen, state, batch)]
        pytest.fail(f"{fabric.name}, seed {seed}: {len(told)} of {len(batch)}\n" + "\n".join(told), pytrace=False)


@pytest.mark.parametrize("seed", QUICK)
async def test_agreement(fabric: Fabric, seed: int) -> None:
    await expect_agreement(fabric, seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_agreement_at_length(fabric: Fabric) -> None:
    for seed in SLOW:
        await expect_agreement(fabric, seed)


def _disagreement(fabric: Fabric, state: State, one: Sent | Arriving) -> str:
    """Of one frame by itself; "": none."""
    wanted = expected(state, [one])
    seen = fabric.outcome(state, [one], wanted)
    return "" if seen == wanted else _difference(wanted, seen, state, [one])


def _difference(wanted: Outcome, seen: Outcome, state: State, batch: Sequence[Sent | Arriving]) -> str:
    names = {endpoint.id: f"{endpoint.container}@{endpoint.host[-1]}" for endpoint in state.endpoints}
    head = f"  {len(batch)} frames together"
    if len(batch) == 1:
        (one,) = batch
        who = names[one.sender.id] if isinstance(one, Sent) else f"the wire, as {one.outer_source} in VNI {one.vni}"
        head = f"  {who}: {one.what}: {Ether(one.frame).summary()}\n    {one.frame.hex()}"
    return f"{head}\n    the oracle: {_story(wanted, names)}\n    the fabric: {_story(seen, names)}"


def _story(outcome: Outcome, names: dict[EndpointId, str]) -> str:
    heard = {place: _named(count, names) for place, count in outcome.heard.items()}
    answers = {names[id_]: dict(count) for id_, count in outcome.answers.items()}
    drops = {f"h{number} {cause}": count for (number, _, cause), count in outcome.drops.items()}
    return f"heard by {heard}, answered {answers}, counted {drops}"


def _named(count: collections.Counter[EndpointId], names: dict[EndpointId, str]) -> dict[str, int]:
    return {names[id_]: times for id_, times in count.items()}
