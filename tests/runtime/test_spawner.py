"""The spawner: what it does for launches, and that it may go at any moment."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from runtime.supervisor import child, surroundings
from runtime.supervisor.failure import LaunchError
from runtime.supervisor.spawner import Spawner
from tests.runtime.supervised import Supervised, supervised

__all__ = ["supervised"]

pytestmark = pytest.mark.root


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_containers_are_the_supervisors_own_children(supervised: Supervised):
    client = supervised.start()
    status, _ = client.request("status")
    supervised.run(client, "c1", ["sleep", "1000"])
    listed, _ = client.request("list")
    assert sorted(children(status["pid"])) == sorted([status["spawner"], listed["containers"][0]["pid"]])
    assert children(status["spawner"]) == []


def test_each_container_has_namespaces_of_its_own(supervised: Supervised):
    """Though they are made before it is asked for: none is given to two, nor kept by the spawner or the supervisor."""
    client = supervised.start()
    status, _ = client.request("status")
    for name in ("c1", "c2", "c3"):
        supervised.run(client, name, ["sleep", "1000"])
    listed, _ = client.request("list")
    pids = [container["pid"] for container in listed["containers"]] + [status["pid"], os.getpid()]
    for kind in ("net", "ipc", "mnt", "pid", "uts", "cgroup"):
        different = {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in pids}
        assert len(different) == 5 - (kind != "mnt"), kind  # the supervisor's are ours but for the mounts


def test_one_that_is_killed_is_replaced_and_takes_nothing_along(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "c1", "sleep 0.2; exit 3")
    status, _ = client.request("status")
    os.kill(status["spawner"], signal.SIGKILL)
    supervised.run(client, "c2", "exit 4")
    assert client.request("status")[0]["spawner"] != status["spawner"]
    assert [supervised.wait_exit(client, name)["code"] for name in ("c1", "c2")] == [3, 4]
    assert status["spawner"] not in children(status["pid"]), "it was waited for"


def test_a_plan_longer_than_a_packet(supervised: Supervised):
    client = supervised.start()
    for name in ("c1", "c2"):
        words = "x" * 100_000
        supervised.run(client, name, ["sh", "-c", "echo ${#0}", words])
        supervised.wait_exit(client, name)
        assert supervised.output(name)[0] == b"100000\n"


def test_why_no_namespaces_can_be_made_is_told(monkeypatch: pytest.MonkeyPatch):
    """Of it the reason is asked, not of a log; another one is tried for the next order."""

    def refuse(_template: str) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(surroundings, "enter", lambda: None)
    monkeypatch.setattr(surroundings, "prepare", refuse)
    spawner, order = Spawner(), child.Inheritance(0, (0, 1, 2), (), b"", "")
    plan: Any = {}
    try:
        for _ in range(2):
            with pytest.raises(LaunchError, match="making its namespaces failed: No space left on device"):
                spawner.spawn(plan, order, -1)
    finally:
        spawner.stop()
