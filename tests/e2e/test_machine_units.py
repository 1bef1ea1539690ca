"""systemd units: they are valid, as hard as each daemon allows, and what they forbid no daemon needs."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sdn.machine.record import FIRST, Machine, Place, write_machine
from sdn.machine.units import install, unit_name
from sdn.service.roots import find_root
from tests.e2e.machines import COMMAND, PATIENCE_S, environment, machines

EXPOSURE_MAX = {"controller": 1.7, "agent": 4.9, "runtime": 9.6}
"""Of `systemd-analyze security`, 0 to 10. The runtime's is what containers may be given, and says so."""


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A directory with the units of a first machine."""
    root = find_root(str(tmp_path / "r"))
    root.create()
    machine = Machine(daemons=FIRST, name="h1", listen=("127.0.0.1:4780",), url="https://127.0.0.1:4780")
    install(Place(root, str(root.run)), machine, machine.listen, tmp_path / "units")
    return tmp_path / "units"


def analyze(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """systemd-analyze, which needs no systemd to run."""
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        env=environment() | more,
    )  # fmt: skip


@pytest.mark.parametrize("daemon", FIRST)
def test_a_unit_is_valid(units: Path, daemon: str):
    done = analyze("verify", "--man=no", str(units / unit_name(daemon)))
    complaints = [line for line in done.stderr.splitlines() if "hawse" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


@pytest.mark.parametrize("daemon", FIRST)
def test_a_unit_is_hard(units: Path, daemon: str):
    done = analyze("security", "--offline=true", "--json=short", str(units / unit_name(daemon)))
    assert done.returncode == 0, done.stderr
    report = analyze("security", "--offline=true", "--no-pager", str(units / unit_name(daemon)))
    level = re.search(r"Overall exposure level for .*: ([\d.]+)", report.stdout)
    assert level, report.stdout
    worst = [f"{one['exposure']} {one['name']}" for one in json.loads(done.stdout) if one.get("exposure")]
    assert float(level[1]) <= EXPOSURE_MAX[daemon], (level[1], sorted(worst, reverse=True)[:20])


def test_containers_survive_a_restart_of_the_runtime(units: Path):
    text = (units / unit_name("runtime")).read_text()
    assert "\nKillMode=process\n" in text
    assert "\nDelegate=yes\n" in text
    assert "NoNewPrivileges" not in text


def settings(path: Path) -> dict[str, str]:
    """A unit's lines, the last of each name."""
    lines = [line for line in path.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines}


@pytest.mark.root
@pytest.mark.parametrize("daemon", ["controller", "agent"])
def test_it_serves_with_no_more_rights_than_its_unit_gives(units: Path, daemon: str):
    """Capabilities, system calls, no new privileges, no memory both writable and executable: as the kernel does it."""
    unit = settings(units / unit_name(daemon))
    rights = [f"+{name.removeprefix('CAP_').lower()}" for name in unit["CapabilityBoundingSet"].split()]
    assert (unit["NoNewPrivileges"], unit["MemoryDenyWriteExecute"]) == ("yes", "yes")
    confined = [
        "setpriv", "--no-new-privs", "--inh-caps", "-all", "--bounding-set", ",".join(["-all", *rights]),
        sys.executable, "-c", CONFINE, json.dumps(sorted(allowed_calls(units / unit_name(daemon)))),
    ]  # fmt: skip
    with machines(1) as (one,):
        if daemon == "agent":
            one.up()
            one.hawse("network", "create", "web", "--subnet", "10.1.0.0/24")
            os.kill(one.pids()["machine"], 9)
            os.kill(one.pids()["agent"], 9)
        reading, writing = os.pipe()
        enter = ["nsenter", f"--net=/run/netns/{one.here.name}"]
        options = ["--root", str(one.directory), "--ready-fd", str(writing)]
        process = subprocess.Popen(
            [*enter, *confined, *COMMAND, daemon, *options], pass_fds=[writing], stderr=subprocess.PIPE,
            env=environment(),
        )  # fmt: skip
        os.close(writing)
        try:
            assert select.select([reading], [], [], PATIENCE_S)[0]
            assert os.read(reading, 1) == b"1", process.communicate(timeout=PATIENCE_S)[1]
            if daemon == "agent":
                one.hawse("run", "--rm", "--network", "web", "host", "true")
            else:
                one.client.post("/v1/networks", {"name": "web", "ipv6": True})
        finally:
            os.close(reading)
            process.terminate()
            process.wait(PATIENCE_S)
            assert process.stderr
            process.stderr.close()


def allowed_calls(path: Path) -> set[str]:
    """The system calls that a unit's filters leave, as systemd expands them (systemd.exec(5))."""
    groups: dict[str, list[str]] = {}
    for line in analyze("syscall-filter", "--no-pager").stdout.splitlines():
        if line.startswith("@"):
            groups[line.strip()] = []
        elif line.startswith(" ") and groups and not line.strip().startswith("#"):
            groups[list(groups)[-1]].append(line.strip())

    def expanded(word: str) -> set[str]:
        return {one for member in groups[word] for one in expanded(member)} if word.startswith("@") else {word}

    allowed = expanded("@default")
    for line in path.read_text().splitlines():
        words = line.removeprefix("SystemCallFilter=").split()
        if not line.startswith("SystemCallFilter="):
            continue
        if words[0].startswith("~"):
            allowed -= {one for word in [words[0][1:], *words[1:]] for one in expanded(word)}
        else:
            allowed |= {one for word in words for one in expanded(word)}
    return allowed


CONFINE = """
import ctypes, errno, json, os, sys
import pyseccomp
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
assert ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0
rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
for name in json.loads(sys.argv[1]):
    try:
        rules.add_rule(pyseccomp.ALLOW, name)
    except (OSError, RuntimeError):
        pass  # a call of another architecture, or newer than the library
rules.load()
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.root
def test_install_writes_tells_systemd_and_takes_away_again(tmp_path: Path):
    with machines(1) as (one,):
        directory = tmp_path / "units"
        assert "nothing of Hawse yet" in one.refused("install", "--directory", str(directory), code=3)
        one.root.create()
        write_machine(one.root, Machine(daemons=("agent", "runtime"), name="m1", url="https://10.77.0.9:4780"))
        one.hawse("install", "--directory", str(directory))
        assert sorted(path.name for path in directory.iterdir()) == ["hawse-agent.service", "hawse-runtime.service"]
        path = directory / "hawse-agent.service"
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert f"--root {one.directory}" in path.read_text()
        assert "secret" not in path.read_text()
        assert "own directory" in one.refused("install", "--now", "--directory", str(directory), code=2)
        assert "not run by systemd" in one.refused("install", "--now", code=7)
        assert "removed: " in one.hawse("install", "--remove", "--directory", str(directory))
        assert list(directory.iterdir()) == []
        assert "no units" in one.hawse("install", "--remove", "--directory", str(directory))


def test_a_word_of_a_command_is_quoted_for_systemd(tmp_path: Path):
    root = find_root(str(tmp_path / 'a "b" 100%'))
    root.create()
    machine = Machine(daemons=("runtime",), name="h1")
    (path,) = install(Place(root, str(root.run)), machine, (), tmp_path / "units")
    assert '100%%"' in path.read_text()
    assert analyze("verify", "--man=no", str(path)).returncode == 0


def test_the_tools_are_here():
    assert shutil.which("systemd-analyze"), "the package systemd has it"
    assert shutil.which("setpriv"), "the package util-linux has it"
