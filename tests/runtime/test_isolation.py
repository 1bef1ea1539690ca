"""What a container sees and may do, from inside."""

from __future__ import annotations

import os
import platform
import re
import socket
import struct
import tempfile
from pathlib import Path

import pytest

from tests.runtime.launching import Driver, driver, leaves_nothing
from tests.runtime.rootfs import CAPABILITIES, make_root

__all__ = ["driver", "leaves_nothing"]
pytestmark = [pytest.mark.root, pytest.mark.usefixtures("leaves_nothing")]


def test_it_sees_its_own_processes_only(driver: Driver):
    ended = driver.sh("sleep 1000 & ls /proc | grep '^[0-9]'; kill $!")
    assert ended.lines[:2] == ["1", "2"]
    assert len(ended.lines) <= 4


def test_it_has_its_own_host_name(driver: Driver):
    before = socket.gethostname()
    assert driver.sh("hostname", container="ship").lines == ["ship"]
    assert socket.gethostname() == before


def test_its_network_is_its_own_and_loopback_works(driver: Driver):
    ended = driver.sh("ls /sys/class/net; ip addr show lo | grep -c 127.0.0.1; wc -l </proc/net/unix")
    assert ended.lines[:2] == ["lo", "1"]
    assert int(ended.lines[2]) == 1, "the host's sockets, abstract ones too, are the host's"


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs none /tmp",
        "mount -t proc none /tmp",
        "mount -o bind /etc /tmp",
        "mount -o remount,rw /sys",
        "mount -o remount,bind,rw /proc/sys",
        "umount /proc/keys",
        "umount /dev/shm",
        "pivot_root /tmp /tmp",
        "unshare -m true",
        "unshare -p true",
        "echo 1 >/proc/sys/kernel/panic",
        "echo core >/proc/sys/kernel/core_pattern",
        "echo 1 >/proc/sys/net/ipv4/ip_forward",
        "touch /dev/mine",
        "mknod /dev/disk b 8 0",
        "chmod 600 /dev/null",
        "rm /dev/null",
        "reboot -f -n",
        "swapon /etc/passwd",
        "hostname other",
        "ip link add d0 type dummy",
        "nsenter -t 1 -m true",
    ],
)
def test_it_cannot(driver: Driver, attempt: str):
    ended = driver.sh(attempt)
    assert ended.code != 0
    assert re.search(r"not permitted|Permission denied|Read-only|are you root", ended.errors), ended


def test_what_is_masked_tells_nothing(driver: Driver):
    ended = driver.sh("cat /proc/kcore /proc/keys /proc/timer_list; ls /sys/firmware /proc/acpi /proc/scsi 2>/dev/null")
    assert [line for line in ended.lines if line and not line.endswith(":")] == []


def test_the_devices_work_and_there_are_no_more(driver: Driver):
    ended = driver.sh(
        "ls /dev; echo x >/dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; ls /dev/pts"
    )
    names = ["fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"]
    names += ["stderr", "stdin", "stdout", "tty", "urandom", "zero"]
    assert ended.lines == [*names, "3", "3", "ptmx"]


def test_shared_memory_is_writable_and_sticky(driver: Driver):
    assert driver.sh("touch /dev/shm/a && stat -c %a /dev/shm", user="mallory").lines == ["1777"]


def test_the_image_stays_as_it_was_and_a_volatile_root_starts_again(driver: Driver):
    plan = driver.plan("sh", "-c", "cat /etc/mine; echo kept >/etc/mine; rm /etc/group", volatile=True)
    assert driver.run(plan).output == ""
    assert driver.run(plan).lines == ["kept"]
    assert not (driver.root / "etc/mine").exists()
    assert (driver.root / "etc/group").exists()


def test_layers_cover_each_other_topmost_first(driver: Driver, tmp_path: Path):
    for name in ("top", "middle"):
        (tmp_path / name / "etc").mkdir(parents=True)
        (tmp_path / name / "etc/motd").write_text(name)
    plan = driver.plan("cat", "/etc/motd")
    plan["root"]["layers"] = [str(tmp_path / "top"), str(tmp_path / "middle"), str(driver.root)]
    assert driver.run(plan).output == "top"


@pytest.mark.parametrize("volatile", [True, False])
def test_many_layers_with_any_names(driver: Driver, tmp_path: Path, volatile: bool):
    layers = []
    for number in range(100):
        layer = tmp_path / f"{'n' * 60},a:b\\c {number}"
        layer.mkdir()
        (layer / f"layer-{number}").touch()
        layers.append(str(layer))
    plan = driver.plan("sh", "-c", "ls / | grep -c layer", volatile=volatile)
    plan["root"]["layers"] = [*layers, str(driver.root)]
    assert driver.run(plan).lines == ["100"]


def test_its_rights_are_those_of_the_plan(driver: Driver):
    ended = driver.sh("grep -E '^(Cap|NoNewPrivs|Seccomp:|SigBlk|SigIgn|Umask)' /proc/self/status; ulimit -n; id")
    bits = f"{sum(1 << number for number in CAPABILITIES):016x}"
    facts = dict(line.split(":\t") for line in ended.lines if ":\t" in line)
    nothing = "0" * 16
    assert facts == {
        "Umask": "0022",
        "CapInh": nothing,
        "CapPrm": bits,
        "CapEff": bits,
        "CapBnd": bits,
        "CapAmb": nothing,
        "NoNewPrivs": "1",
        "Seccomp": "0",
        "SigBlk": nothing,
        "SigIgn": nothing,
    }


def test_another_user_has_capabilities_as_a_bound_only(driver: Driver):
    ended = driver.sh("grep ^Cap /proc/self/status | cut -f 2", user="mallory")
    nothing, bits = "0" * 16, f"{sum(1 << number for number in CAPABILITIES):016x}"
    assert ended.lines == [nothing, nothing, nothing, bits, nothing]


def test_capabilities_that_the_host_lacks_are_left_out(driver: Driver):
    ended = driver.sh("grep ^CapEff /proc/self/status | cut -f 2", capabilities=tuple(range(64)))
    assert int(ended.output, 16) == int(Path("/proc/self/status").read_text().split("CapPrm:\t")[1][:16], 16)


def filter_of_mkdir() -> bytes:
    """A filter that refuses mkdir and mkdirat with EDQUOT (122), which nothing else here would say."""
    first, second = {"x86_64": (83, 258), "aarch64": (34, 34)}[platform.machine()]
    instructions = [(0x20, 0, 0, 0), (0x15, 1, 0, first), (0x15, 0, 1, second), (0x06, 0, 0, 0x50000 | 122)]
    return b"".join(struct.pack("<HBBI", *fields) for fields in [*instructions, (0x06, 0, 0, 0x7FFF0000)])


@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("user", ["", "mallory"])
def test_its_filter_is_loaded(driver: Driver, tmp_path: Path, no_new_privileges: bool, user: str):
    (tmp_path / "filter").write_bytes(filter_of_mkdir())
    ended = driver.sh(
        "mkdir /tmp/a; grep ^Seccomp: /proc/self/status",
        seccomp=str(tmp_path / "filter"),
        no_new_privileges=no_new_privileges,
        user=user,
    )
    assert os.strerror(122) in ended.errors
    assert ended.lines == ["Seccomp:\t2"]


def test_limits_are_set_and_clamped_to_what_the_host_allows(driver: Driver):
    ended = driver.sh("ulimit -n; ulimit -Hn", rlimits={"RLIMIT_NOFILE": [77, 1 << 40]})
    assert ended.lines[0] == "77"
    assert int(ended.lines[1]) > 77


def test_the_memory_killer_takes_it_for_any_other_program():
    """Whatever its supervisor has; not every machine lets it be lower than others, so here it is higher."""
    adjustment = Path("/proc/self/oom_score_adj")
    before = adjustment.read_text()
    adjustment.write_text("500")
    try:
        other = Driver(Path(tempfile.mkdtemp(prefix="hawse-launch-")))
    finally:
        adjustment.write_text(before)
    try:
        with other.running() as container:
            looking = other.plan("cat", "/proc/1/oom_score_adj", "/proc/self/oom_score_adj")
            assert other.execute(container, looking["process"]).lines == ["0", "0"]
    finally:
        other.close()


@pytest.mark.parametrize(("user", "capabilities"), [("mallory", tuple(CAPABILITIES)), ("", ())])
def test_ping_and_low_ports_need_no_rights(driver: Driver, user: str, capabilities: tuple[int, ...]):
    script = "cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start"
    ended = driver.sh(script, user=user, capabilities=capabilities)
    assert [line.split() for line in ended.lines] == [["0", "2147483647"], ["0"]]


def test_it_leads_its_session(driver: Driver):
    assert driver.sh("cut -d ' ' -f 1,5,6 /proc/self/stat; cut -d ' ' -f 6 /proc/1/stat").lines[1] == "1"


def test_its_environment_is_the_plans(driver: Driver):
    ended = driver.sh("env | sort; tr '\\0' '\\n' </proc/1/environ | grep -c SECRET", env=("A=1=2", "A=3", "B="))
    assert [line for line in ended.lines if not line.startswith(("PATH", "SHLVL", "PWD"))] == [
        "A=3",
        "B=",
        "HOME=/root",
        "0",
    ]


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", ["0", "0", "0 10", "/root"]),
        ("mallory", ["1000", "1000", "1000 10 50", "/home/mallory"]),
        ("1000", ["1000", "1000", "1000 10 50", "/home/mallory"]),
        ("mallory:staff", ["1000", "50", "50", "/home/mallory"]),
        ("mallory:7", ["1000", "7", "7", "/home/mallory"]),
        ("4321", ["4321", "0", "0", "/"]),
        ("4321:4322", ["4321", "4322", "4322", "/"]),
    ],
)
def test_the_user_is_looked_up_inside(driver: Driver, user: str, expected: list[str]):
    ended = driver.sh("id -u; id -g; id -G; echo $HOME", user=user)
    *firsts, groups, home = ended.lines
    assert [*firsts, " ".join(sorted(groups.split(), key=lambda one: (one != firsts[1], one))), home] == expected


def test_a_home_of_the_environment_is_kept(driver: Driver):
    assert driver.sh("echo $HOME", user="mallory", env=("HOME=/elsewhere",)).lines == ["/elsewhere"]


@pytest.mark.parametrize("kind", ["pipe", "directory", "link to zero", "huge", "garbage"])
def test_a_hostile_passwd_is_harmless(driver: Driver, tmp_path: Path, kind: str):
    root = make_root(tmp_path / "root")
    for name in ("passwd", "group"):
        path = root / "etc" / name
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        elif kind == "link to zero":
            path.symlink_to("/dev/zero")
        elif kind == "huge":
            path.write_bytes(b"x" * (5 << 20))
        else:
            path.write_bytes(b"\xff\0:::\n::\nroot:x:-1:99999999999:\n" * 100)
    ended = driver.sh("cut -d : -f 1 </proc/self/status | head -n 1; echo $HOME", root=root, user="12")
    assert ended.lines == ["Name", "/"]


def test_the_working_directory_is_made(driver: Driver):
    assert driver.sh("pwd", cwd="/srv/a/b").lines == ["/srv/a/b"]


def test_a_read_only_root(driver: Driver, tmp_path: Path):
    ended = driver.sh(
        "touch /etc/a || pwd; touch /made/b && echo written",
        read_only=True,
        cwd="/srv/a",
        mounts=({"kind": "bind", "source": str(tmp_path), "target": "/made", "read_only": False},),
    )
    assert ended.lines == ["/srv/a", "written"]
    assert "Read-only" in ended.errors
    assert (tmp_path / "b").exists()


def test_standard_input_is_given_or_null(driver: Driver):
    assert driver.run(driver.plan("cat", stdin=True), stdin="one\ntwo\n").lines == ["one", "two"]
    assert driver.run(driver.plan("cat")).output == ""


@pytest.mark.parametrize("user", ["", "mallory"])
def test_the_standard_streams_can_be_opened_again(driver: Driver, user: str):
    ended = driver.sh("echo a >/dev/stdout; echo b >/dev/stderr; echo c >/proc/self/fd/1", user=user)
    assert (ended.output, ended.errors) == ("a\nc\n", "b\n")


@pytest.mark.parametrize("user", ["", "mallory"])
def test_a_terminal_is_its_own(driver: Driver, user: str):
    script = (
        "tty; stty size; stat -c %u /dev/pts/0; echo hi >/dev/tty; ls /dev/console; cut -d ' ' -f 7 /proc/self/stat"
    )
    ended = driver.sh(script, tty={"rows": 24, "columns": 81}, user=user)
    uid = "1000" if user else "0"
    assert ended.lines[:5] == ["/dev/pts/0", "24 81", uid, "hi", "/dev/console"]
    assert ended.lines[5] != "0", "it is the controlling terminal"


def test_interrupting_by_the_terminal(driver: Driver):
    number = driver.start(
        driver.plan(
            "sh",
            "-c",
            "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 1; done",
            tty={"rows": 0, "columns": 0},
        )
    )
    driver.ask(do="read", number=number, until="ready")
    driver.ask(do="input", number=number, text="\x03", last=False)
    ended = driver.wait(number)
    assert ended.code == 5
    assert "caught" in ended.output


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)])
def test_an_init_ends_as_its_child(driver: Driver, script: str, code: int):
    assert driver.sh(script, init=True).code == code


def test_an_init_reaps_and_hides_what_it_is(driver: Driver):
    script = "(sleep 0 & exec true); sleep 1; ls /proc | grep -c '^[0-9]'; cat /proc/1/cmdline; echo; cat /proc/1/comm"
    ended = driver.sh(script, init=True)
    assert ended.lines[0] in ("4", "5"), "process 1, the shell, ls and grep"
    assert ended.lines[1].strip("\0") == "init"
    assert ended.lines[-1] == "init"


@pytest.mark.parametrize("user", ["", "mallory"])
def test_an_init_passes_signals_on(driver: Driver, user: str):
    script = "trap 'echo caught; exit 6' TERM; echo ready; while :; do sleep 1; done"
    plan = driver.plan("sh", "-c", script, init=True, user=user)
    launched = driver.ask(do="launch", plan=plan)
    driver.ask(do="read", number=launched["number"], until="ready")
    os.kill(launched["pid"], 15)
    ended = driver.wait(launched["number"])
    assert (ended.code, ended.lines[-1]) == (6, "caught")


def test_its_start_time_is_the_kernels(driver: Driver):
    launched = driver.ask(do="launch", plan=driver.plan("sleep", "1000"))
    fields = Path(f"/proc/{launched['pid']}/stat").read_text().rsplit(")", 1)[1].split()
    driver.ask(do="kill", number=launched["number"])
    driver.wait(launched["number"])
    assert int(fields[19]) == launched["start"]
