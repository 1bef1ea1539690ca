"""The spawner: what it does for launches, and that it may go at any moment."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from runtime.supervisor import surroundings
from runtime.supervisor.failure import decode
from runtime.supervisor.spawner import Spawner, network_order
from tests.runtime.supervised import Supervised, supervised, wait_until

__all__ = ["supervised"]

pytestmark = pytest.mark.root


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_containers_are_the_supervisors_own_children(supervised: Supervised):
    client = supervised.start()
    status, _ = client.request("status")
    supervised.run(client, "c1", ["sleep", "1000"])
    listed, _ = client.request("list")
    assert sorted(children(status["pid"])) == sorted([*status["spawners"], listed["containers"][0]["pid"]])
    assert [children(pid) for pid in status["spawners"]] == [[]]


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
    (spawner,) = status["spawners"]
    os.kill(spawner, signal.SIGKILL)
    supervised.run(client, "c2", "exit 4")
    assert spawner not in client.request("status")[0]["spawners"]
    assert [supervised.wait_exit(client, name)["code"] for name in ("c1", "c2")] == [3, 4]
    assert spawner not in children(status["pid"]), "it was waited for"


@pytest.mark.parametrize("go", [True, False])
def test_one_that_is_killed_amid_an_order_is_replaced_too(supervised: Supervised, go: bool):
    client = supervised.start()
    (spawner,) = client.request("status")[0]["spawners"]
    os.kill(spawner, signal.SIGSTOP)
    client.send("launch", plan=supervised.plan("c1", "exit 4"), go=go)
    other = supervised.connect()
    wait_until(lambda: supervised.state(other, "c1"), "it has the order")
    os.kill(spawner, signal.SIGKILL)
    _, fds = client.receive()
    for fd in fds:
        os.close(fd)
    if not go:
        client.request("go", id="c1")
    assert supervised.wait_exit(client, "c1")["code"] == 4


def test_a_launch_that_hangs_keeps_no_other_waiting(supervised: Supervised):
    client, other = supervised.start(), supervised.connect()
    (spawner,) = client.request("status")[0]["spawners"]
    os.kill(spawner, signal.SIGSTOP)
    client.send("launch", plan=supervised.plan("c1", "exit 3"), go=True)
    wait_until(lambda: supervised.state(other, "c1"), "it is under way")
    supervised.run(other, "c2", "exit 4")
    assert supervised.wait_exit(other, "c2")["code"] == 4
    assert (supervised.state(other, "c1") or {})["state"] == "starting"
    os.kill(spawner, signal.SIGCONT)
    client.receive()
    assert supervised.wait_exit(other, "c1")["code"] == 3


def test_a_plan_longer_than_a_packet(supervised: Supervised):
    client = supervised.start()
    for name in ("c1", "c2"):
        words = "x" * 100_000
        supervised.run(client, name, ["sh", "-c", "echo ${#0}", words])
        supervised.wait_exit(client, name)
        assert supervised.output(name)[0] == b"100000\n"


def test_why_no_namespaces_can_be_made_is_told(monkeypatch: pytest.MonkeyPatch):
    """Of it the reason is asked, not of a log."""

    def refuse(_template: str, *, network: bool) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(surroundings, "enter", lambda: None)
    monkeypatch.setattr(surroundings, "prepare", refuse)
    spawner = Spawner()
    try:
        spawner.send(network_order())
        answer, fd = spawner.receive()
        assert fd == -1
        assert "making its namespaces failed: No space left on device" in decode(answer[1:]).message
        assert spawner.receive() == (b"", -1), "another one is tried for the next order"
    finally:
        spawner.close()
