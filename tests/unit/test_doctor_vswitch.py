"""What the doctor says of a host's Open vSwitch."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from plugin.doctor.finding import Finding, Verdict
from plugin.doctor.vswitch import judge_vswitch
from sdn.service.roots import Root, find_root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    made = find_root(str(tmp_path / "r"))
    made.state.mkdir(parents=True)
    return made


def judged(root: Root, datapath: str, directory: Path) -> list[Finding]:
    root.wired_file.write_text(json.dumps({"datapath": datapath, "ovsdb": str(directory / "db.sock")}))
    return judge_vswitch(root)


def test_a_host_with_bridges_needs_none(root: Root, tmp_path: Path) -> None:
    assert judge_vswitch(root) == []
    assert judged(root, "bridge", tmp_path) == []


def test_both_daemons_have_to_be_there(root: Root, tmp_path: Path) -> None:
    (absent,) = judged(root, "openflow", tmp_path)
    assert (absent.verdict, "database does not answer" in absent.found) == (Verdict.PROBLEM, True)
    with socket.socket(socket.AF_UNIX) as database, socket.socket(socket.AF_UNIX) as control:
        database.bind(str(tmp_path / "db.sock"))
        database.listen()
        (alone,) = judged(root, "openflow", tmp_path)
        assert (alone.verdict, "ovs-vswitchd does not run" in alone.found) == (Verdict.PROBLEM, True)
        (tmp_path / "ovs-vswitchd.pid").write_text(f"{os.getpid()}\n")
        (dead,) = judged(root, "openflow", tmp_path)
        assert (dead.verdict, "does not answer" in dead.found) == (Verdict.PROBLEM, True)
        control.bind(str(tmp_path / f"ovs-vswitchd.{os.getpid()}.ctl"))
        control.listen()
        (well,) = judged(root, "openflow", tmp_path)
        assert well.verdict is Verdict.OK
