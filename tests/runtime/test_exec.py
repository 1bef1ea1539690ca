"""Another process in a running container: the same container in every respect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.plan import ProcessPlan
from tests.runtime.launching import Driver, RefusedError, driver, leaves_nothing
from tests.runtime.test_isolation import filter_of_mkdir

__all__ = ["driver", "leaves_nothing"]
pytestmark = [pytest.mark.root, pytest.mark.usefixtures("leaves_nothing")]


@pytest.fixture
def container(driver: Driver, leaves_nothing: None) -> Iterator[int]:
    with driver.running() as number:
        yield number


def process_of(driver: Driver, *argv: str, **wishes: Any) -> ProcessPlan:
    return driver.plan(*argv, **wishes)["process"]


def shell(driver: Driver, script: str, **wishes: Any) -> ProcessPlan:
    return process_of(driver, "sh", "-c", script, **wishes)


def test_it_is_in_the_container(driver: Driver, container: int):
    script = "for n in mnt uts ipc pid net cgroup; do readlink /proc/1/ns/$n; readlink /proc/self/ns/$n; done"
    script += "; ps -o pid,ppid,args"
    ended = driver.execute(container, shell(driver, script))
    links = ended.lines[:12]
    assert links[::2] == links[1::2]
    assert len(set(links)) == 6
    rows = [line.split(None, 2) for line in ended.lines[13:]]
    assert next(row for row in rows if row[2].startswith("sleep"))[:2] == ["1", "0"]
    assert rows[1][1] == "0", "its parent is outside"


def test_what_it_does_the_container_sees(driver: Driver, container: int):
    driver.execute(container, shell(driver, "echo a >/tmp/a; echo b >/dev/shm/b"))
    assert driver.execute(container, shell(driver, "cat /tmp/a /dev/shm/b; hostname")).lines == ["a", "b", "c1"]


def test_its_rights_are_those_of_the_plan(driver: Driver, container: int, tmp_path: Path):
    (tmp_path / "filter").write_bytes(filter_of_mkdir())
    script = "grep -E '^(Cap|NoNewPrivs|Seccomp:|SigBlk|SigIgn)' /proc/self/status; mkdir /tmp/a"
    for no_new_privileges in (True, False):
        process = shell(driver, script, seccomp=str(tmp_path / "filter"), no_new_privileges=no_new_privileges)
        ended = driver.execute(container, process)
        facts = dict(line.split(":\t") for line in ended.lines)
        assert facts["CapEff"] == facts["CapPrm"] == facts["CapBnd"] == "00000000a80425fb"
        assert facts["CapInh"] == facts["CapAmb"] == facts["SigBlk"] == facts["SigIgn"] == "0" * 16
        assert (facts["NoNewPrivs"], facts["Seccomp"]) == (str(int(no_new_privileges)), "2")
        assert os.strerror(122) in ended.errors


def test_its_user_directory_and_environment(driver: Driver, container: int):
    process = shell(
        driver,
        "id -u; id -G; pwd; echo $HOME $A; ulimit -n",
        user="mallory",
        cwd="/srv/new",
        env=("A=1",),
        rlimits={"RLIMIT_NOFILE": [66, 66]},
    )
    ended = driver.execute(container, process)
    assert ended.lines[0] == "1000"
    assert set(ended.lines[1].split()) == {"1000", "50", "10"}
    assert ended.lines[2:] == ["/srv/new", "/home/mallory 1", "66"]


@pytest.mark.parametrize("user", ["", "mallory"])
def test_its_streams(driver: Driver, container: int, user: str):
    process = shell(driver, "cat; echo e >/dev/stderr; echo o >/dev/stdout; exit 9", stdin=True, user=user)
    ended = driver.execute(container, process, stdin="in\n")
    assert (ended.code, ended.output, ended.errors) == (9, "in\no\n", "e\n")


@pytest.mark.parametrize("user", ["", "mallory"])
def test_its_terminal(driver: Driver, container: int, user: str):
    process = shell(
        driver, "tty; stty size; echo hi >/dev/tty; read a; echo got $a", user=user, tty={"rows": 5, "columns": 99}
    )
    ended = driver.execute(container, process, stdin="words\n")
    assert [line for line in ended.lines if line != "words"] == ["/dev/pts/0", "5 99", "hi", "got words"]


def test_a_signal_that_ends_it(driver: Driver, container: int):
    assert driver.execute(container, shell(driver, "kill -TERM $$")).code == 143


def test_it_holds_no_descriptor(driver: Driver, container: int):
    assert driver.execute(container, process_of(driver, "ls", "/proc/self/fd")).lines == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("argv", "wishes", "stage"),
    [
        ("nothing", {}, "command-not-found"),
        ("/etc/passwd", {}, "command-not-executable"),
        ("sh", {"user": "nobody-here"}, "user"),
        ("sh", {"cwd": "/etc/passwd"}, "workdir"),
    ],
)
def test_one_that_fails(driver: Driver, container: int, argv: str, wishes: dict[str, str], stage: str):
    with pytest.raises(RefusedError) as refused:
        driver.execute(container, process_of(driver, argv, **wishes))
    assert refused.value.stage == stage
    assert driver.execute(container, process_of(driver, "true")).code == 0


def test_it_ends_with_the_container(driver: Driver):
    number = driver.start(driver.plan("sleep", "1000"))
    execution = driver.begin_execution(number, process_of(driver, "sleep", "1000"))
    driver.ask(do="kill", number=number)
    assert driver.wait(execution).code == 137
    assert driver.wait(number).code == 137


def test_a_container_that_has_ended_is_joined_no_more(driver: Driver):
    launched = driver.ask(do="launch", plan=driver.plan("true"))
    driver.ask(do="read", number=launched["number"], until="never")
    with pytest.raises(RefusedError) as refused:
        driver.execute(launched["number"], process_of(driver, "true"))
    assert refused.value.stage == "ended"
    driver.wait(launched["number"])


def test_in_a_container_with_an_init(driver: Driver):
    with driver.running(driver.plan("sleep", "1000", init=True)) as number:
        ended = driver.execute(number, shell(driver, "readlink /proc/self/ns/pid; cat /proc/1/comm"))
        assert ended.lines[-1] == "init"
