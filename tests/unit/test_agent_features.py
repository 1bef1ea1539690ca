"""A kernel that lacks something is named in one sentence, and nothing is left of the trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugin.agent.features import OPENFLOW_TRIALS, TRIALS, Trial, require_features
from plugin.kernel.netlink import NetlinkError
from sdn.model.errors import HawseError, Kind


@pytest.mark.root
@pytest.mark.parametrize("trials", [TRIALS, OPENFLOW_TRIALS], ids=["bridge", "openflow"])
def test_this_kernel_has_all(trials: tuple[tuple[str, str, Trial], ...], tmp_path: Path) -> None:
    require_features(tmp_path / "probe", trials)
    assert not (tmp_path / "probe").exists()


@pytest.mark.root
def test_what_is_missing_is_said(tmp_path: Path) -> None:
    def lacking(ns_fd: int) -> None:
        raise NetlinkError(95)

    trials = (*TRIALS[:2], ("VXLAN devices", "vxlan", lacking))
    with pytest.raises(HawseError, match=r"cannot make VXLAN devices \(Operation not supported\)") as caught:
        require_features(tmp_path / "probe", trials)
    assert (caught.value.kind, "load vxlan or" in caught.value.hint) == (Kind.UNAVAILABLE, True)
    assert not (tmp_path / "probe").exists()
