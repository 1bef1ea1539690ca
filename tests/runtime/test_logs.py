"""A container's output on its way into its log: whole, in order, bounded, followed, never in the container's way."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sdn.service.container_log import LogReader
from tests.runtime.supervised import Supervised, supervised, wait_until

__all__ = ["supervised"]
pytestmark = pytest.mark.root


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[None]:
    """A file system that is soon full, below a container's directory."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def test_nothing_is_made_for_a_container_that_is_silent(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "c1", "exit 0")
    supervised.wait_exit(client, "c1")
    assert sorted(os.listdir(supervised.directory("c1"))) == ["exit", "upper", "work"]


def test_much_output_is_whole(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "c1", "seq 1 300000; seq 1 300000 >&2")
    supervised.wait_exit(client, "c1")
    expected = b"".join(b"%d\n" % number for number in range(1, 300001))
    assert supervised.output("c1") == (expected, expected) or len(expected) > 1 << 20  # its plan keeps 1 MiB
    output, errors = supervised.output("c1")
    assert errors
    assert expected.endswith(errors)
    assert expected.endswith(output)


def test_what_is_kept_is_bounded_and_what_is_read_of_it_is_right(supervised: Supervised):
    client = supervised.start()
    plan = supervised.plan("c1", "seq 1 200000")
    plan["log_bytes_max"] = 100_000
    client.request("launch", plan=plan, go=True)
    supervised.wait_exit(client, "c1")
    expected = b"".join(b"%d\n" % number for number in range(1, 200001))
    output = supervised.output("c1")[0]
    assert 0 < len(output) <= 112_500 + (1 << 16)
    assert expected.endswith(output)
    assert (supervised.directory("c1") / "log").stat().st_size == len(expected)
    blocks = sum((supervised.directory("c1") / name).stat().st_blocks * 512 for name in ("log", "log.index"))
    assert blocks < 300_000


def test_a_follower_hears_everything_and_the_end(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "c1", "i=0; while [ $i -lt 50 ]; do echo $i; i=$((i+1)); sleep 0.01; done")
    _, (log, index, bell) = client.request("follow", id="c1")
    os.set_blocking(bell, True)
    reader, seen = LogReader(log, index), b""
    while True:
        rung = os.read(bell, 4096)
        while chunks := reader.read():
            seen += b"".join(chunk.data for chunk in chunks)
        if not rung:
            break
    assert seen == b"".join(b"%d\n" % number for number in range(50))
    supervised.wait_exit(client, "c1")
    for fd in (log, index, bell):
        os.close(fd)
    _, fds = client.request("follow", id="c1")  # of one that ended: at once at the end
    assert os.read(fds[2], 1) == b""
    for fd in fds:
        os.close(fd)


def test_a_follower_that_goes_or_sleeps_is_nobodys_burden(supervised: Supervised):
    client = supervised.start()
    supervised.run(client, "c1", "read line; seq 1 50000; read line", stdin=True)
    before = client.request("status")[0]["descriptors"]
    _, gone = client.request("follow", id="c1")
    _, asleep = client.request("follow", id="c1")
    assert client.request("status")[0]["descriptors"] >= before + 2
    for fd in gone:
        os.close(fd)
    _, (stdin,) = client.request("input", id="c1", keep=False)
    os.write(stdin, b"go\n")
    wait_until(lambda: supervised.output("c1")[0].endswith(b"\n50000\n"), "all came")
    for fd in asleep:
        os.close(fd)
    wait_until(lambda: client.request("status")[0]["descriptors"] <= before + 2, "both bells are gone")  # log, index
    os.close(stdin)
    supervised.wait_exit(client, "c1")


def test_a_full_disk_costs_output_but_neither_the_container_nor_its_code(supervised: Supervised):
    """Nor is the code forgotten when the supervisor is killed: there was no room for the record, but in its entry."""
    plan = supervised.plan("c1", "seq 1 100000; seq 1 100000 >&2; exit 8")
    target = supervised.base / "full"
    with small_disk(target, "64k"):
        plan["directory"] = str(target)
        client = supervised.start()
        client.request("launch", plan=plan, go=True)
        exit_record = supervised.wait_exit(client, "c1")
        assert exit_record["code"] == 8
        lost = (supervised.state(client, "c1") or {})["log_lost_bytes"]
        total = 2 * sum(len(f"{number}\n") for number in range(1, 100001))
        assert lost == total - (target / "log").stat().st_size
        supervised.kill(supervised.pids(client)[0])
        client = supervised.reconnect()
        assert supervised.wait_exit(client, "c1") == exit_record
        client.request("forget", id="c1")
        client.request("end")
