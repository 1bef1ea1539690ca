"""Ways out of a container that have been found in others, each tried from inside."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.launching import Driver, RefusedError, driver, leaves_nothing
from tests.runtime.rootfs import BUSYBOX, make_root

__all__ = ["driver", "leaves_nothing"]
pytestmark = [pytest.mark.root, pytest.mark.usefixtures("leaves_nothing")]

UNIFIED = next(
    path for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")) if (path / "cgroup.procs").exists()
)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="hawse-test-", dir=UNIFIED))
    try:
        yield made
    finally:
        made.rmdir()


def overwriter() -> bytes:
    """A program that opens /proc/self/exe for writing, truncating it, and exits with the errno. For x86-64.

    It needs no library, so that it can be an ELF interpreter.
    """
    code = bytes.fromhex("b802000000 488d3d18000000 be01020000 0f05 f7d8 89c7 b83c000000 0f05".replace(" ", ""))
    code += bytes(36 - len(code)) + b"/proc/self/exe\0"
    base = 0x10000000
    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = 120 + len(code)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096) + code


@pytest.fixture
def hosts_interpreter_as_command(tmp_path: Path) -> Path:
    """An image whose `attack` is a link to /proc/self/exe: executed, it is the host's interpreter, loaded by a loader
    of the image. So the attacker's code runs in a process whose /proc/self/exe is the host's file."""
    root = make_root(tmp_path / "root")
    told = subprocess.run(["readelf", "-l", sys.executable], check=True, capture_output=True, text=True).stdout
    loader = root / told.split("interpreter: /")[1].split("]")[0]
    loader.parent.mkdir(parents=True, exist_ok=True)
    loader.write_bytes(overwriter())
    loader.chmod(0o755)
    (root / "usr/bin/attack").symlink_to("/proc/self/exe")
    (root / "usr/bin/attack-by-script").write_text("#!/proc/self/exe\n")
    (root / "usr/bin/attack-by-script").chmod(0o755)
    return root


@pytest.mark.parametrize("attack", ["attack", "attack-by-script"])
@pytest.mark.parametrize("joining", [False, True])
def test_the_hosts_interpreter_cannot_be_overwritten(
    driver: Driver, hosts_interpreter_as_command: Path, attack: str, joining: bool
):
    """CVE-2019-5736. The file is mounted read-only; `text file busy` (26) would only be a matter of time."""
    plan = driver.plan(f"/usr/bin/{attack}", root=hosts_interpreter_as_command)
    if joining:
        sleeping = driver.plan("sleep", "1000", root=hosts_interpreter_as_command)
        with driver.running(sleeping) as container:
            assert driver.execute(container, plan["process"]).code == errno.EROFS
    else:
        assert driver.run(plan).code == errno.EROFS


def test_the_supervisors_own_file_is_on_a_read_only_mount(driver: Driver):
    assert os.statvfs(f"/proc/{driver.process.pid}/exe").f_flag & os.ST_RDONLY


@pytest.mark.parametrize("init", [False, True])
def test_no_descriptor_of_the_host_is_inherited(driver: Driver, init: bool):
    """The driver holds inheritable ones on purpose. 3 is what `ls` itself opens."""
    assert driver.run(driver.plan("ls", "/proc/self/fd", init=init)).lines == ["0", "1", "2", "3"]
    assert driver.sh("ls /proc/1/fd; true", init=init).lines == ([] if init else ["0", "1", "2"])


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8, 9, 10, 63])
def test_a_working_directory_by_a_leaked_descriptor(driver: Driver, number: int):
    """CVE-2024-21626: 3 is the channel, the others are closed by then."""
    with pytest.raises(RefusedError) as refused:
        driver.run(driver.plan("pwd", cwd=f"/proc/self/fd/{number}"))
    assert refused.value.stage == "workdir"


def test_a_working_directory_by_a_leaked_descriptor_when_joining(driver: Driver):
    with driver.running() as container:
        for number in (3, 4, 5, 6, 63):
            with pytest.raises(RefusedError) as refused:
                driver.execute(container, driver.plan("pwd", cwd=f"/proc/self/fd/{number}")["process"])
            assert refused.value.stage == "workdir"


@pytest.mark.parametrize("directory", ["/tmp", "/data", "/dev/shm", "/scratch"])
def test_a_device_node_that_it_made_is_dead(driver: Driver, tmp_path: Path, directory: str):
    """It has CAP_MKNOD; the node of the host's disk may be made, and cannot be opened."""
    device = os.stat("/dev/vda").st_rdev if Path("/dev/vda").exists() else os.makedev(8, 0)
    path = f"{directory}/disk"
    script = f"mknod {path} b {os.major(device)} {os.minor(device)} && echo made; head -c 1 {path}"
    script += f"; mknod {path}0 c 1 3; cat {path}0"
    ended = driver.sh(
        script,
        mounts=(
            {"kind": "bind", "source": str(tmp_path), "target": "/data", "read_only": False},
            {"kind": "tmpfs", "target": "/scratch", "read_only": False},
        ),
    )
    assert ended.lines == ["made"]
    assert ended.errors.count("Permission denied") == 2


def test_a_device_node_of_the_image_is_dead(driver: Driver, tmp_path: Path):
    root = make_root(tmp_path / "root")
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    assert "Permission denied" in driver.sh("cat /null", root=root).errors


@pytest.mark.parametrize(("no_new_privileges", "expected"), [(True, "1000"), (False, "0")])
def test_setuid_gives_nothing(driver: Driver, tmp_path: Path, no_new_privileges: bool, expected: str):
    """`su` to a root without password; without no_new_privs it works, else the test would not tell anything."""
    root = make_root(tmp_path / "root")
    (root / "etc/passwd").write_text("root::0:0:root:/root:/bin/sh\nmallory:x:1000:1000::/:/bin/sh\n")
    (root / "bin/su").unlink()
    shutil.copy2(BUSYBOX, root / "bin/su")
    (root / "bin/su").chmod(0o4755)
    ended = driver.sh(
        "/bin/su -c 'id -u' root || id -u", root=root, user="mallory", no_new_privileges=no_new_privileges
    )
    assert ended.lines[-1:] == [expected], ended


def test_its_cgroup_is_its_root_and_cannot_be_written(driver: Driver, cgroup: Path):
    script = """
    grep ^0: /proc/self/cgroup
    wc -l </sys/fs/cgroup/cgroup.procs
    mkdir /sys/fs/cgroup/mine
    echo 0 >/sys/fs/cgroup/cgroup.procs
    echo 1 >/sys/fs/cgroup/cgroup.kill
    echo 1 >/sys/fs/cgroup/cgroup.freeze
    """
    ended = driver.run(driver.plan("sh", "-c", script), v2=str(cgroup))
    assert ended.lines == ["0::/", "2"]
    assert ended.errors.count("Read-only file system") == 4


def test_a_process_that_joins_is_in_the_cgroup(driver: Driver, cgroup: Path):
    with driver.running(v2=str(cgroup)) as container:
        number = driver.begin_execution(container, driver.plan("sleep", "1000")["process"], v2=str(cgroup))
        assert len((cgroup / "cgroup.procs").read_text().split()) == 2
        driver.ask(do="kill", number=number)
        driver.wait(number)


def test_the_hosts_processes_cannot_be_reached(driver: Driver):
    script = f"kill -0 {driver.process.pid}; kill -9 -1; ls /proc/{os.getpid()}; echo still here"
    ended = driver.sh(script, capabilities=(1, 5, 19, 21))
    assert driver.process.poll() is None
    assert ended.errors.count("No such") == 3


def test_the_hosts_sockets_cannot_be_reached(driver: Driver):
    with socket.socket(socket.AF_UNIX) as abstract, socket.create_server(("127.0.0.1", 0)) as listener:
        abstract.bind("\0hawse-test-abstract")
        abstract.listen()
        port = listener.getsockname()[1]
        ended = driver.sh(f"nc -w 2 127.0.0.1 {port} </dev/null; echo $?; grep -c hawse-test-abstract /proc/net/unix")
    assert ended.lines == ["1", "0"]


@pytest.mark.parametrize("way", ["/proc/1/root/../../..", "/proc/1/cwd/../../..", "/proc/self/root/../..", "/../../.."])
def test_the_root_is_the_end(driver: Driver, way: str):
    ended = driver.sh(f"echo mine >/mark; cat {way}/mark; ls {way}{driver.base}", capabilities=(1, 2, 18, 19, 21))
    assert ended.lines == ["mine"]
    assert "No such file" in ended.errors


def test_keys_of_the_host_are_not_possessed(driver: Driver, tmp_path: Path):
    """/proc/keys is masked; unmasked, it lists what the process possesses: an empty session keyring of its own."""
    plan = driver.plan("cat", "/proc/keys")
    plan["masked"] = []
    sessions = [line for line in driver.run(plan).lines if " _ses" in line]
    assert all("empty" in line for line in sessions)


def test_a_process_that_joins_cannot_be_looked_into(driver: Driver, tmp_path: Path):
    """A container that watches for newcomers never finds one that is still the host's interpreter and readable."""
    script = """
    echo ready
    while [ ! -e /tmp/end ]; do
        for p in /proc/[0-9]*; do
            case "$(readlink $p/exe)" in *python*) echo "caught exe $p";; esac
            grep -qs python $p/maps && echo "caught maps $p"
        done
    done 2>/dev/null
    """
    with driver.running(driver.plan("sh", "-c", script)) as container:
        driver.ask(do="read", number=container, until="ready")
        for _ in range(20):
            assert driver.execute(container, driver.plan("true")["process"]).code == 0
        driver.execute(container, driver.plan("touch", "/tmp/end")["process"])
        output = driver.ask(do="read", number=container, until="never")["output"]
    assert output == "ready\n"
