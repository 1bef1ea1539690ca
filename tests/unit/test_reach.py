"""The oracle: one network, both ways, and its gateway; nothing else."""

from __future__ import annotations

from sdn.reconcile.reach import Reach, matrix, reach, reach_address, underlay_family
from tests.states.states import C1, C3, D1, D2, EQUAL_TENANTS, HERE, HERE6, HERE46, R1, R2, REMOTE, WEB, endpoint, host


def test_pairs() -> None:
    """Each verdict once."""
    assert reach(C1, C3) is Reach.SAME_NETWORK
    assert reach(C1, C1) is Reach.ITSELF
    assert reach(C1, D1) is Reach.OTHER_NETWORK
    assert reach(C1, R2) is Reach.OTHER_TENANT
    assert reach(C1, endpoint(99, 2, WEB, "fd00:1::9/64")) is Reach.NO_COMMON_FAMILY
    assert reach(C1, C3, lambda one, other: {one, other} != {host(1), host(2)}) is Reach.HOSTS_APART
    assert reach(D1, D2).allowed
    assert {verdict for verdict in Reach if verdict.allowed} == {Reach.SAME_NETWORK, Reach.GATEWAY, Reach.ITSELF}


def test_addresses() -> None:
    """The same address is another endpoint's in each tenant."""
    everyone = EQUAL_TENANTS.endpoints
    mine, theirs = EQUAL_TENANTS.networks
    assert reach_address(C1, "10.1.0.4", mine, everyone).endpoint == C3.id
    assert reach_address(R1, "10.1.0.4", theirs, everyone).endpoint == R2.id
    assert reach_address(C1, "10.1.0.1", mine, everyone).reach is Reach.GATEWAY
    assert reach_address(C1, "10.1.0.77", mine, everyone).reach is Reach.NOBODY
    assert reach_address(C1, "fd00::1", mine, everyone).reach is Reach.NO_COMMON_FAMILY
    apart = reach_address(C1, "10.1.0.4", mine, everyone, lambda _one, _other: False)
    assert (apart.endpoint, apart.reach) == (None, Reach.HOSTS_APART)


def test_matrix_is_symmetric_and_complete() -> None:
    """Every ordered pair once."""
    verdicts = {(a.id, b.id): verdict for a, b, verdict in matrix(EQUAL_TENANTS.endpoints)}
    count = len(EQUAL_TENANTS.endpoints)
    assert len(verdicts) == count * (count - 1)
    assert all(verdicts[b, a] is verdict for (a, b), verdict in verdicts.items())
    assert {verdict for _, _, verdict in matrix(REMOTE.endpoints)} == {Reach.SAME_NETWORK}


def test_underlay() -> None:
    """IPv4 where both have it."""
    assert underlay_family(HERE, HERE46) == 4
    assert underlay_family(HERE6, HERE46) == 6
    assert underlay_family(HERE, HERE6) is None
