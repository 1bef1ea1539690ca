"""Which datapath a host gets, by name, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugin.agent.features import OPENFLOW_TRIALS, TRIALS, trials_of
from plugin.datapath import registry
from sdn.machine.record import AGENT, JOINED, Machine, daemon_words
from sdn.model.errors import HawseError, Kind
from sdn.model.resources import Datapath


def test_a_datapath_that_hosts_do_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HawseError, match="no datapath 'fake' on hosts") as caught:
        registry.make(Datapath.FAKE, tmp_path)
    assert (caught.value.kind, "bridge, openflow" in caught.value.hint) == (Kind.INVALID, True)


def test_a_database_is_of_no_use_to_the_bridge(tmp_path: Path) -> None:
    with pytest.raises(HawseError, match="--ovsdb is of no use with the bridge datapath"):
        registry.make(Datapath.BRIDGE, tmp_path, tmp_path / "db.sock")


def test_without_open_vswitch_the_agent_does_not_begin(tmp_path: Path) -> None:
    with pytest.raises(HawseError, match="Open vSwitch") as caught:
        registry.make(Datapath.OPENFLOW, tmp_path, tmp_path / "db.sock")
    assert caught.value.kind is Kind.UNAVAILABLE
    assert "apt-get install openvswitch-switch" in caught.value.hint


def test_each_datapath_asks_the_kernel_for_what_it_needs_itself() -> None:
    assert trials_of(Datapath.BRIDGE) is TRIALS
    assert trials_of(Datapath.OPENFLOW) is OPENFLOW_TRIALS
    assert "VXLAN devices" not in [what for what, _, _ in OPENFLOW_TRIALS]


def test_a_machine_remembers_what_its_agent_programs() -> None:
    machine = Machine(daemons=JOINED, name="h1", datapath="openflow", ovsdb="/run/ovs/db.sock")
    assert daemon_words(machine, AGENT, ()) == ["agent", "--datapath", "openflow", "--ovsdb", "/run/ovs/db.sock"]
    assert daemon_words(Machine(daemons=JOINED, name="h1"), AGENT, ()) == ["agent", "--datapath", "bridge"]
