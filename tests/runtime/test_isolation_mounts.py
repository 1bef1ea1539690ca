"""What is mounted into a container: where, how, and that it stays inside."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runtime.plan import MountPlan
from tests.runtime.launching import Driver, RefusedError, driver, leaves_nothing
from tests.runtime.rootfs import make_root

__all__ = ["driver", "leaves_nothing"]
pytestmark = [pytest.mark.root, pytest.mark.usefixtures("leaves_nothing")]


def bind(source: Path, target: str, *, read_only: bool = False) -> MountPlan:
    return {"kind": "bind", "source": str(source), "target": target, "read_only": read_only}


def test_a_directory_is_written_through(driver: Driver, tmp_path: Path):
    assert driver.sh("echo inside >/data/deep/a", mounts=(bind(tmp_path, "/data/deep"),)).code == 0
    assert (tmp_path / "a").read_text() == "inside\n"


def test_read_only_is_read_only_all_the_way_down(driver: Driver, tmp_path: Path):
    """A mount below the source, made by another process of the host, is reached by the bind and read-only too."""
    (tmp_path / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "below"], check=True)
    try:
        # the driver's namespace only sees mounts made after it where the host's are shared: a new driver sees all
        fresh = Driver(tmp_path / "driver")
        try:
            ended = fresh.sh(
                "touch /data/a; touch /data/below/a; ls /data", mounts=(bind(tmp_path, "/data", read_only=True),)
            )
        finally:
            fresh.close()
    finally:
        subprocess.run(["umount", tmp_path / "below"], check=True)
    assert ended.errors.count("Read-only") == 2
    assert "below" in ended.lines


def test_a_file_is_mounted_on_a_file_that_is_made(driver: Driver, tmp_path: Path):
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    ended = driver.sh("cat /etc/hosts; echo more >>/etc/hosts", mounts=(bind(tmp_path / "hosts", "/etc/hosts"),))
    assert ended.lines == ["127.0.0.1 localhost"]
    assert (tmp_path / "hosts").read_text().endswith("more\n")


def test_a_tmpfs_has_its_size_and_no_devices_or_setuid(driver: Driver):
    wish: MountPlan = {"kind": "tmpfs", "target": "/scratch", "data": "size=64k,mode=1777", "read_only": False}
    ended = driver.sh(
        "head -c 100000 /dev/zero >/scratch/a; wc -c </scratch/a; grep /scratch /proc/mounts", mounts=(wish,)
    )
    assert ended.lines[0] == "65536"
    assert "nosuid,nodev" in ended.lines[1]


def test_mounts_are_made_in_order(driver: Driver, tmp_path: Path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "two/a").write_text("two")
    mounts = (bind(tmp_path / "one", "/data"), bind(tmp_path / "two", "/data/two"))
    assert driver.sh("cat /data/two/a", mounts=mounts).output == "two"
    assert (tmp_path / "one/two").is_dir()


@pytest.mark.parametrize(
    "link", ["../../../../../../..{outside}", "{outside}", "/proc/1/root{outside}", "/proc/self/cwd"]
)
def test_a_link_of_the_image_leads_nowhere_outside(driver: Driver, tmp_path: Path, link: str):
    """The mount is made inside, or refused; the host's directory that the link names is as it was."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    source = tmp_path / "source"
    source.mkdir()
    (source / "of-the-volume").touch()
    root = make_root(tmp_path / "root")
    (root / "data").symlink_to(link.format(outside=outside))
    plan = driver.plan("sh", "-c", f"ls /data/ {outside}", root=root, mounts=(bind(source, "/data"),))
    try:
        output = driver.run(plan).output
    except RefusedError as error:
        output = error.stage
    assert "kept" not in output
    assert "of-the-volume" in output or output == "mount"
    assert os.listdir(outside) == ["kept"]


@pytest.mark.parametrize("target", ["/data/new/deep", "/data/../../../../../made-by-hawse", "/data"])
def test_a_missing_target_is_made_inside(driver: Driver, tmp_path: Path, target: str):
    root = make_root(tmp_path / "root")
    (root / "data").symlink_to("../../../../../..")
    ended = driver.sh(f"ls {target}", root=root, mounts=(bind(tmp_path, target),)) if target != "/data" else None
    assert ended is None or ended.code == 0
    assert not Path("/made-by-hawse").exists()
    assert not Path("/new").exists()


@pytest.mark.parametrize("link", ["/proc", "/proc/self/attr", "/sys", "/proc/sys/kernel"])
def test_a_link_of_the_image_into_proc_is_refused(driver: Driver, tmp_path: Path, link: str):
    root = make_root(tmp_path / "root")
    (root / "data").symlink_to(link)
    (tmp_path / "source").mkdir()
    with pytest.raises(RefusedError) as refused:
        driver.run(driver.plan("true", root=root, mounts=(bind(tmp_path / "source", "/data"),)))
    assert refused.value.stage == "mount"
    assert "/data" in refused.value.message


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_an_image_whose_proc_is_a_link_is_refused(driver: Driver, tmp_path: Path, name: str):
    root = make_root(tmp_path / "root")
    (root / name).rmdir()
    (root / name).symlink_to("/tmp")
    with pytest.raises(RefusedError) as refused:
        driver.run(driver.plan("true", root=root))
    assert refused.value.stage == "mount"
    assert f"/{name}" in refused.value.message


def test_an_image_without_directories_gets_them(driver: Driver, tmp_path: Path):
    root = make_root(tmp_path / "root")
    for name in ("proc", "sys", "dev"):
        (root / name).rmdir()
    assert driver.sh("ls -d /proc/1 /sys/class /dev/null", root=root).code == 0


def test_a_source_that_is_missing_is_named(driver: Driver, tmp_path: Path):
    with pytest.raises(RefusedError) as refused:
        driver.run(driver.plan("true", mounts=(bind(tmp_path / "nothing", "/data"),)))
    assert refused.value.stage == "mount"
    assert "nothing" in refused.value.message
    assert "/data" in refused.value.message


def test_mounts_of_a_privileged_container_stay_inside(driver: Driver, tmp_path: Path):
    """With CAP_SYS_ADMIN (21) it may mount, also in a volume: the host never sees it."""
    script = "mount -t tmpfs none /data && touch /data/a && grep -c /data /proc/mounts"
    ended = driver.sh(script, capabilities=(1, 21), mounts=(bind(tmp_path, "/data"),))
    assert ended.lines == ["2"]
    assert os.listdir(tmp_path) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_no_mount_of_the_host_is_visible(driver: Driver):
    ended = driver.sh("cut -d ' ' -f 5 /proc/self/mountinfo; ls /.. | sort | head -n 3")
    mounts = {line for line in ended.lines if line.startswith("/")}
    assert {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"} <= mounts
    assert all(line == "/" or line.startswith(("/proc", "/dev", "/sys")) for line in mounts)
    assert ended.lines[-3:] == ["bin", "dev", "etc"]
