"""Which controllers live where, and the text that limits become: v1, v2, hybrid."""

from __future__ import annotations

import errno

import pytest

from runtime.cgroup import Cgroup, CgroupError, Hierarchies, prefix_of
from runtime.cgroup_files import apply
from runtime.hierarchies import parse_mounts
from runtime.plan import CgroupPlan

PURE_V2 = "30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2 = "/v2"
V1 = {name: f"/v1/{name}" for name in ("memory", "cpu", "cpuacct", "pids", "freezer")}
ALL_V2 = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")


def plan(memory_bytes: int = 0, cpus: float = 0.0, pids: int = 0) -> CgroupPlan:
    return {"path": "hawse/00000000/c", "memory_bytes": memory_bytes, "cpus": cpus, "pids": pids}


def lowered(hierarchies: Hierarchies, wished: CgroupPlan) -> dict[str, str]:
    return {f"{setting.mount}/{setting.file}": setting.text for setting in hierarchies.lower(wished)}


def test_mounts_of_each_layout():
    assert parse_mounts(PURE_V2) == ("/sys/fs/cgroup", {})
    v2, v1 = parse_mounts(HYBRID)
    assert v2 == "/sys/fs/cgroup/unified"
    both = "/sys/fs/cgroup/cpu,cpuacct"
    assert v1 == {
        "cpu": both,
        "cpuacct": both,
        "memory": "/sys/fs/cgroup/memory",
        "freezer": "/sys/fs/cgroup/freezer",
    }
    assert parse_mounts("22 27 0:21 / /proc rw - proc proc rw\n") == ("", {})


def test_the_mount_that_shows_everything_is_taken_and_blanks_are_read():
    part = PURE_V2.replace(" / ", " /docker/1 ").replace("/sys/fs/cgroup", "/part")
    assert parse_mounts(part + PURE_V2)[0] == parse_mounts(PURE_V2 + part)[0] == "/sys/fs/cgroup"
    assert parse_mounts(part)[0] == "/part"
    assert parse_mounts(PURE_V2.replace("/sys/fs/cgroup", "/a\\040b\\134"))[0] == "/a b\\"


def test_limits_in_v2():
    hierarchies = Hierarchies(V2, ALL_V2)
    assert lowered(hierarchies, plan(64 << 20, 1.5, 100)) == {
        "/v2/memory.max": "67108864",
        "/v2/memory.swap.max": "0",
        "/v2/cpu.max": "150000 100000",
        "/v2/pids.max": "100",
    }
    assert hierarchies.lower(plan()) == []


def test_limits_in_v1():
    expected = {
        "/v1/memory/memory.limit_in_bytes": "67108864",
        "/v1/memory/memory.memsw.limit_in_bytes": "67108864",
        "/v1/cpu/cpu.cfs_period_us": "100000",
        "/v1/cpu/cpu.cfs_quota_us": "50000",
        "/v1/pids/pids.max": "7",
    }
    assert lowered(Hierarchies("", (), V1), plan(64 << 20, 0.5, 7)) == expected
    assert lowered(Hierarchies(V2, ("hugetlb",), V1), plan(64 << 20, 0.5, 7)) == expected


def test_each_controller_is_used_where_it_lives():
    mixed = Hierarchies(V2, ("pids",), {"memory": "/v1/memory"})
    assert list(lowered(mixed, plan(pids=3))) == ["/v2/pids.max"]
    assert next(iter(lowered(mixed, plan(memory_bytes=1 << 30)))) == "/v1/memory/memory.limit_in_bytes"


@pytest.mark.parametrize(
    ("wished", "words"),
    [
        (plan(memory_bytes=1 << 20), "limit memory to 1048576 bytes: this machine has no cgroup controller 'memory'"),
        (plan(cpus=2.0), "limit CPU time to 2.0 cpus: this machine has no cgroup controller 'cpu'"),
        (plan(pids=9), "limit processes to 9: this machine has no cgroup controller 'pids'"),
    ],
)
def test_a_controller_that_is_missing_is_named(wished, words):
    with pytest.raises(CgroupError, match=words) as caught:
        Hierarchies(V2, ("hugetlb",)).lower(wished)
    assert caught.value.errno == errno.ENOTSUP


def test_too_little_cpu_time_is_refused_before_the_kernel_does():
    with pytest.raises(CgroupError, match=r"cannot limit CPU time to 0\.001 cpus: the kernel takes 0\.01 or more"):
        Hierarchies(V2, ALL_V2).lower(plan(cpus=0.001))
    assert lowered(Hierarchies(V2, ALL_V2), plan(cpus=0.01)) == {"/v2/cpu.max": "1000 100000"}


def test_directories_that_a_container_always_has():
    assert Hierarchies(V2, ALL_V2).always == (V2,)
    assert Hierarchies(V2, (), V1).always == (V2,), "entering a v1 hierarchy is slower than a launch"
    assert Hierarchies("", (), V1).always == ("/v1/freezer", "/v1/memory", "/v1/cpuacct")
    assert Hierarchies("", (), {"cpu": "/c", "cpuacct": "/c", "freezer": "/f"}).always == ("/f", "/c")


def test_a_machine_without_any_says_so():
    with pytest.raises(CgroupError, match="neither cgroup v2 nor v1's freezer is mounted"):
        Cgroup.create(Hierarchies(), plan())


@pytest.fixture
def tree(tmp_path):
    """A directory tree with v2's files, as the kernel makes them of `+memory +cpu +pids` and without."""
    leaf = tmp_path / "hawse" / "00000000" / "c"
    leaf.mkdir(parents=True)
    for directory in (tmp_path, tmp_path / "hawse", leaf.parent):
        (directory / "cgroup.subtree_control").write_text("")
    return tmp_path, leaf


def test_limits_are_written_where_v2_has_them(tree):
    root, leaf = tree
    for file in ("memory.max", "cpu.max", "pids.max"):
        (leaf / file).write_text("")
    hierarchies = Hierarchies(str(root), ALL_V2)
    for setting in hierarchies.lower(plan(1 << 30, 2.0, 10)):
        apply(hierarchies, "hawse/00000000/c", setting)
    written = {path.name: path.read_text() for path in leaf.iterdir()}
    assert written == {"memory.max": "1073741824", "cpu.max": "200000 100000", "pids.max": "10"}  # swap is not there


def test_a_controller_is_handed_down_from_the_top_when_its_file_lacks(tree):
    root, leaf = tree
    hierarchies = Hierarchies(str(root), ALL_V2)
    (setting,) = hierarchies.lower(plan(pids=10))
    with pytest.raises(CgroupError, match=r"the controller 'pids' cannot be handed down to .*/hawse/00000000/c"):
        apply(hierarchies, "hawse/00000000/c", setting)
    for directory in (root, root / "hawse", leaf.parent):
        assert (directory / "cgroup.subtree_control").read_text() == "+pids"


def test_usage_and_kills_are_read_where_v2_has_them(tree):
    root, leaf = tree
    files = {
        "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n",
        "memory.current": "9000\n",
        "memory.max": "max\n",
        "memory.stat": "anon 4000\ninactive_file 3000\n",
        "memory.events": "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n",
        "pids.current": "4\n",
        "pids.max": "10\n",
        "io.stat": "8:0 rbytes=100 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=1 wios=1\n",
    }
    for name, text in files.items():
        (leaf / name).write_text(text)
    cgroup = Cgroup(Hierarchies(str(root), ALL_V2), "hawse/00000000/c")
    assert cgroup.usage() == {
        "cpu_ns": 1_500_000,
        "memory_bytes": 6000,
        "memory_max_bytes": 0,
        "pids": 4,
        "pids_max": 10,
        "read_bytes": 101,
        "written_bytes": 22,
    }
    assert (cgroup.oom_kills(), cgroup.oom_killed()) == (2, True)


def test_what_is_gone_uses_nothing(tmp_path):
    cgroup = Cgroup(Hierarchies(str(tmp_path), ALL_V2), "hawse/00000000/c")
    assert set(cgroup.usage().values()) == {0}
    assert not cgroup.oom_killed()
    assert cgroup.pids() == []
    assert cgroup.kill()
    cgroup.remove()
    with pytest.raises(CgroupError, match="cannot open the cgroup hawse/00000000/c"):
        Cgroup.open(cgroup.hierarchies, cgroup.path)


def test_a_prefix_follows_from_the_run_directory(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert prefix_of("/run/hawse") == "hawse/" + prefix_of("/run/hawse/")[6:]
    assert prefix_of(str(tmp_path / "link")) == prefix_of(str(tmp_path / "run")) != prefix_of(str(tmp_path))
    assert len(prefix_of("/run/hawse")) == len("hawse/") + 8
