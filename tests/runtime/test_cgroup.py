"""Cgroups in the kernel: entering, freezing, killing, measuring and removing, on each layout that this machine has."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest

from runtime.cgroup import Cgroup, CgroupError, Hierarchies, prefix_of, sweep
from runtime.plan import CgroupPlan
from tests.runtime.cgroup_processes import population, run_inside

pytestmark = pytest.mark.root

PATIENCE_S = 20.0
MEMORY_BYTES = 48 << 20


def layouts() -> dict[str, Hierarchies]:
    """The machine's own, and what is in it of v1 alone and of v2 alone."""
    machine = Hierarchies.detect()
    found = {"machine": machine}
    if machine.v2 and "freezer" in machine.v1:
        found["v1"] = Hierarchies("", (), machine.v1)
    if machine.v2 and machine.v1:
        found["v2"] = Hierarchies(machine.v2, machine.v2_controllers)
    return found


LAYOUTS = layouts()
LIMITING = [name for name, layout in LAYOUTS.items() if all(map(layout.mount_of, ("memory", "cpu", "pids")))]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "not within the bound"
        time.sleep(0.005)


class Site:
    """A layout and a prefix of this test's own."""

    def __init__(self, hierarchies: Hierarchies, place: str) -> None:
        """`place`: a directory of its own, which the prefix belongs to."""
        self.hierarchies = hierarchies
        self.prefix = prefix_of(place)

    def plan(self, name: str = "c", memory_bytes: int = 0, cpus: float = 0.0, pids: int = 0) -> CgroupPlan:
        return {"path": f"{self.prefix}/{name}", "memory_bytes": memory_bytes, "cpus": cpus, "pids": pids}

    @contextlib.contextmanager
    def cgroup(self, name: str = "c", **limits: float) -> Iterator[Cgroup]:
        cgroup = Cgroup.create(self.hierarchies, self.plan(name, **limits))  # type: ignore[arg-type]
        try:
            yield cgroup
        finally:
            cgroup.close()
            cgroup.kill()
            cgroup.remove()

    def left(self) -> list[str]:
        """Every directory of this prefix, in whatever hierarchy."""
        mounts = Hierarchies.detect().all
        return [f"{mount}/{self.prefix}" for mount in mounts if os.path.exists(f"{mount}/{self.prefix}")]


@contextlib.contextmanager
def standing(layout: str) -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as place:
        site = Site(LAYOUTS[layout], place)
        try:
            yield site
        finally:
            sweep(site.hierarchies, site.prefix, ())
        assert site.left() == []


@pytest.fixture(params=LAYOUTS)
def site(request):
    with standing(request.param) as site:
        yield site


@pytest.fixture(params=LIMITING)
def limiting(request):
    with standing(request.param) as site:
        yield site


def counter(cgroup: Cgroup, controller: str, file: str, name: str) -> int:
    with open(f"{cgroup.hierarchies.mount_of(controller)}/{cgroup.path}/{file}") as text:
        return next(int(line.split()[1]) for line in text if line.split()[0] == name)


def test_a_process_enters_by_the_descriptors_and_is_counted(site):
    with site.cgroup() as cgroup, population(cgroup, "start(rest); start(rest)") as output:
        assert output.readline() == b"ready\n"
        assert len(cgroup.pids()) == 2
        assert cgroup.usage()["pids"] == 2
        assert cgroup.usage()["memory_bytes"] > 0, "without a limit it is asked of the processes"
        assert run_inside(cgroup, "true") == 0
        adopted = Cgroup.open(site.hierarchies, cgroup.path)
        assert sorted(adopted.pids()) == sorted(cgroup.pids())
        assert run_inside(adopted, "grep", "-q", site.prefix, "/proc/self/cgroup") == 0
        adopted.close()
        assert (adopted.v2_fd, adopted.procs_fds) == (-1, ())


def test_descriptors_are_open_between_create_and_close_alone(site):
    before = set(os.listdir("/proc/self/fd"))
    with site.cgroup() as cgroup:
        assert len(set(os.listdir("/proc/self/fd")) - before) >= 1
        cgroup.close()
        cgroup.close()
        assert set(os.listdir("/proc/self/fd")) == before


def test_a_tree_that_forks_all_the_time_is_emptied(site):
    with site.cgroup() as cgroup, population(cgroup, "for act in [rest] * 40 + [hop] * 10: start(act)") as output:
        assert output.readline() == b"ready\n"
        assert len(cgroup.pids()) >= 50
        assert cgroup.kill()
        assert cgroup.pids() == []
        cgroup.remove()
        assert not os.path.exists(f"{site.hierarchies.home}/{cgroup.path}")


def test_frozen_means_frozen_and_killing_needs_no_thaw(site):
    with site.cgroup() as cgroup, population(cgroup, "start(talk); start(talk)") as output:
        os.set_blocking(output.fileno(), False)
        readable = select.poll()
        readable.register(output.fileno(), select.POLLIN)
        said = bytearray()

        def ready() -> bool:
            said.extend(output.read(1 << 16) or b"")
            return b"ready" in said

        wait_until(ready)  # whoever starts them says so, is not in the cgroup, and is silent from then on
        assert len(cgroup.pids()) == 2
        cgroup.freeze(on=True)
        while output.read(1 << 16):
            pass
        assert readable.poll(50) == []
        cgroup.freeze(on=True)  # twice is once
        cgroup.freeze(on=False)
        assert readable.poll(PATIENCE_S * 1000)
        cgroup.freeze(on=True)
        assert cgroup.kill()
        assert cgroup.pids() == []


def test_an_empty_one_freezes_and_thaws(site):
    with site.cgroup() as cgroup:
        cgroup.freeze(on=True)
        cgroup.freeze(on=False)
        cgroup.remove()
        with pytest.raises(CgroupError, match=r"cannot freeze the cgroup .*: No such file or directory"):
            cgroup.freeze(on=True)


def test_what_a_container_made_below_goes_with_it(site):
    with site.cgroup() as cgroup:
        below = f"{site.hierarchies.home}/{cgroup.path}/below/deeper"
        os.makedirs(below)
        with population(Cgroup(site.hierarchies, f"{cgroup.path}/below/deeper"), "start(rest)") as output:
            assert output.readline() == b"ready\n"
            assert len(cgroup.pids()) == 1
            assert cgroup.kill()
        cgroup.remove()
        cgroup.remove()
        assert not os.path.exists(f"{site.hierarchies.home}/{cgroup.path}")


def test_one_that_holds_processes_is_neither_removed_nor_made_anew(site):
    with site.cgroup() as cgroup, population(cgroup, "start(rest)") as output:
        assert output.readline() == b"ready\n"
        assert len(cgroup.pids()) == 1
        with pytest.raises(CgroupError, match=r"cannot remove the cgroup .*: Device or resource busy"):
            cgroup.remove(timeout_s=0.01)
        with pytest.raises(CgroupError, match=r"cannot make the cgroup .*: it is there and holds processes"):
            Cgroup.create(site.hierarchies, site.plan())
        assert len(cgroup.pids()) == 1


def test_a_dead_one_of_that_name_is_replaced(limiting):
    first = Cgroup.create(limiting.hierarchies, limiting.plan(pids=5))
    first.close()
    with limiting.cgroup() as second:
        assert second.path == first.path
        assert second.usage()["pids_max"] == 0


def test_sweep_removes_what_nobody_keeps(site):
    kept, dead, lively = (Cgroup.create(site.hierarchies, site.plan(name)) for name in ("kept", "dead", "lively"))
    for cgroup in (kept, dead, lively):
        cgroup.close()
    with population(lively, "start(rest)") as output:
        assert output.readline() == b"ready\n"
        assert len(lively.pids()) == 1
        assert sorted(sweep(site.hierarchies, site.prefix, {"kept"})) == ["dead", "lively"]
    Cgroup.open(site.hierarchies, kept.path).close()
    assert sweep(site.hierarchies, site.prefix, ()) == ["kept"]
    assert site.left() == []
    assert sweep(site.hierarchies, site.prefix, ()) == []


def test_a_hog_dies_within_its_limit_and_is_told(limiting):
    hog = (sys.executable, "-I", "-S", "-c", "bytearray(b'x') * (1 << 30)")
    with limiting.cgroup(memory_bytes=MEMORY_BYTES) as cgroup:
        descriptor, mask = cgroup.watch_oom()
        poll = select.epoll()
        try:
            poll.register(descriptor, mask)
            assert poll.poll(0) == []
            assert cgroup.usage()["memory_max_bytes"] == MEMORY_BYTES
            assert not cgroup.oom_killed()
            assert run_inside(cgroup, "true") == 0
            assert run_inside(cgroup, *hog) == -9
            assert cgroup.oom_killed()
            assert poll.poll(PATIENCE_S)
        finally:
            poll.close()
            os.close(descriptor)
    with limiting.cgroup(memory_bytes=MEMORY_BYTES) as cgroup:  # a plain SIGKILL is none
        assert run_inside(cgroup, "sh", "-c", "kill -9 $$") == -9
        assert not cgroup.oom_killed()


def test_memory_counts_what_is_held(limiting):
    with limiting.cgroup(memory_bytes=MEMORY_BYTES) as cgroup:
        with population(cgroup, "held = bytearray(b'x') * (1 << 20)\nstart(lambda: rest(*[]))") as output:
            assert output.readline() == b"ready\n"
            wait_until(lambda: cgroup.usage()["memory_bytes"] > 0)
        assert cgroup.usage()["memory_bytes"] < MEMORY_BYTES


def test_a_fork_bomb_stays_within_its_limit(limiting):
    most = 20
    with limiting.cgroup(pids=most) as cgroup, population(cgroup, "start(bomb)") as output:
        assert output.readline() == b"ready\n"
        wait_until(lambda: counter(cgroup, "pids", "pids.events", "max") > 0)
        usage = cgroup.usage()
        assert (usage["pids"], usage["pids_max"]) == (most, most)
        assert cgroup.kill()
        assert cgroup.usage()["pids"] == 0


def test_a_cpu_quota_throttles(limiting):
    with limiting.cgroup(cpus=0.1) as cgroup, population(cgroup, "start(spin)") as output:
        assert output.readline() == b"ready\n"
        wait_until(lambda: counter(cgroup, "cpu", "cpu.stat", "nr_throttled") > 0)
        assert cgroup.usage()["cpu_ns"] > 0


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"pids": -5}, "limit processes to -5 "), ({"cpus": 1e12}, "limit CPU time to 1000000000000.0 cpus ")],
)
def test_a_limit_that_the_kernel_refuses_is_told_and_leaves_nothing(limiting, limits, words):
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(CgroupError, match=words) as caught:
        Cgroup.create(limiting.hierarchies, limiting.plan(**limits))
    assert caught.value.errno == errno.EINVAL
    assert set(os.listdir("/proc/self/fd")) == before
    home = Cgroup(limiting.hierarchies, f"{limiting.prefix}/c")
    assert not any(os.path.exists(f"{mount}/{home.path}") for mount in limiting.hierarchies.all)


def test_a_mount_that_cannot_be_written_is_told():
    with pytest.raises(CgroupError, match="cannot make the cgroup /proc/hawse/00000000/c: No such file"):
        Cgroup.create(Hierarchies("/proc"), {"path": "hawse/00000000/c", "memory_bytes": 0, "cpus": 0.0, "pids": 0})


def test_the_supervisors_interpreter_can_import_it_and_little_else_comes_along():
    script = "import sys; sys.path.insert(0, sys.argv[1]); import runtime.cgroup; print(*sys.modules)"
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script, root], capture_output=True, text=True, check=True)
    assert not {"typing", "enum", "re", "collections", "dataclasses", "logging", "ctypes"} & set(done.stdout.split())
