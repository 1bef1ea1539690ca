"""A lab's record and directory, its processes by identity, and commands that refuse at once."""

from __future__ import annotations

import argparse
import os
import subprocess
import threading
from pathlib import Path

import pytest

from sdn.model.errors import HawseError, Kind
from topologies import commands, processes, record
from topologies.daemons import LateFile
from topologies.record import Directory, Process, Record, claim, find_lab, labs


def record_of(name: str) -> Record:
    return Record(name=name, file="/f.yaml", phase="building", since_s=1.0, hosts=("h1",), containers={"c": "h1"})


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "BASE", tmp_path / "labs")
    return tmp_path / "labs"


def test_claim_writes_the_record_first_and_refuses_the_name_a_second_time() -> None:
    directory = claim(record_of("one"), b"hosts: h1\n")
    assert directory.read() == record_of("one")
    assert directory.topology_file.read_bytes() == b"hosts: h1\n"
    assert directory.path.stat().st_mode & 0o777 == 0o700
    with pytest.raises(HawseError) as caught:
        claim(record_of("one"), b"")
    assert caught.value.kind is Kind.CONFLICT
    assert [lab.id for lab in labs()] == [directory.id]


def test_of_many_claims_of_one_name_one_wins() -> None:
    outcomes: list[bool] = []

    def contend() -> None:
        try:
            claim(record_of("same"), b"")
        except HawseError:
            outcomes.append(False)
        else:
            outcomes.append(True)

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 7 + [True]


def test_a_lab_is_found_by_name_by_id_or_by_being_the_only_one() -> None:
    with pytest.raises(HawseError) as none:
        find_lab(None)
    assert none.value.kind is Kind.NOT_FOUND
    one = claim(record_of("one"), b"")
    assert find_lab(None).path == find_lab("one").path == find_lab(one.id).path == one.path
    claim(record_of("two"), b"")
    with pytest.raises(HawseError, match="one, two") as several:
        find_lab(None)
    assert several.value.kind is Kind.INVALID
    with pytest.raises(HawseError, match="no lab 'three'"):
        find_lab("three")


def test_a_broken_record_leaves_the_lab_known_by_its_id(base: Path) -> None:
    directory = claim(record_of("one"), b"")
    (directory.path / "lab.json").write_text("{")
    (base / "other").mkdir()
    assert [(lab.name, lab.id) for lab in labs()] == [(directory.id, directory.id)]


def test_a_process_is_known_by_pid_and_start() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        process = processes.identify(child.pid)
        assert process is not None
        assert processes.is_alive(process)
        assert processes.resident_bytes(process) > 0
        earlier = Process(pid=process.pid, start=process.start - 1)
        assert not processes.is_alive(earlier)
        processes.end([earlier])  # not the process that was meant: left alone
        assert processes.is_alive(process)
        processes.end([process, process])
        assert not processes.is_alive(process)
        processes.end([process])
    assert processes.identify(os.getpid()) is not None


def test_a_late_file_is_the_same_for_who_comes_before_and_after(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    late = LateFile(path)
    early: list[bytes] = []
    reader = threading.Thread(target=lambda: early.append(path.read_bytes()))
    reader.start()
    late.fill(b'{"a": 1}')
    reader.join()
    assert early == [b'{"a": 1}']
    assert path.read_bytes() == b'{"a": 1}'
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    late.close()


def test_a_late_file_that_is_never_filled_ends_the_wait(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    late = LateFile(path)
    fd = os.open(path, os.O_RDONLY)
    late.close()
    assert os.read(fd, 10) == b""
    os.close(fd)


@pytest.mark.parametrize("verb", ["up", "check", "exec", "down", "demo"])
def test_without_root_a_lab_is_refused(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    args = argparse.Namespace(
        name=None, file="x", quiet=True, all=False, lab=None, place="h1", command=[], output="table"
    )
    with pytest.raises(HawseError) as caught:
        getattr(commands, verb)(args)
    assert caught.value.kind is Kind.DENIED
    assert "sudo" in caught.value.hint


def test_all_and_a_name_contradict_each_other() -> None:
    args = argparse.Namespace(name="one", all=True, output="table")
    with pytest.raises(HawseError, match="two different wishes"):
        commands.down(args)


def test_sockets_of_the_longest_host_name_fit() -> None:
    root = Directory(Path("/run/hawse/12345678")).root("h" * 63)
    assert len(str(root.agent_socket)) <= 107
