"""A launch that fails says at which stage and why, and leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.launching import Driver, RefusedError, driver, leaves_nothing
from tests.runtime.rootfs import make_root

__all__ = ["driver", "leaves_nothing"]
pytestmark = [pytest.mark.root, pytest.mark.usefixtures("leaves_nothing")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image with commands that cannot be executed, each in its way."""
    made = make_root(tmp_path / "root")
    for name, content, mode in (
        ("plain", b"echo\n", 0o644),
        ("no-kind", b"\0\1\2\3", 0o755),
        ("no-interpreter", b"#!/nowhere/python\n", 0o755),
        ("other-machine", b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + b"\x16\x00" + bytes(100), 0o755),
        ("only-for-root", b"#!/bin/sh\n", 0o700),
    ):
        path = made / "usr/bin" / name
        path.write_bytes(content)
        path.chmod(mode)
    (made / "usr/bin/directory").mkdir()
    return made


@pytest.mark.parametrize(
    ("argv", "user", "stage", "words"),
    [
        ("nothing", "", "command-not-found", "'nothing' is not in the container's PATH"),
        ("/bin/nothing", "", "command-not-found", "/bin/nothing does not exist"),
        ("/etc/passwd/a", "", "command-not-found", "does not exist"),
        ("", "", "command-not-found", "''"),
        ("plain", "", "command-not-executable", "'plain' is not executable"),
        ("/usr/bin/plain", "", "command-not-executable", "Permission denied"),
        ("directory", "", "command-not-executable", "'directory'"),
        ("/usr/bin/directory", "", "command-not-executable", "Permission denied"),
        ("no-interpreter", "", "command-not-found", "interpreter"),
        ("no-kind", "", "wrong-architecture", "neither a program nor a script"),
        ("other-machine", "", "wrong-architecture", "ELF machine 22"),
        ("only-for-root", "mallory", "command-not-executable", "Permission denied"),
        ("sh", "nobody-here", "user", "'nobody-here' is not in the image's /etc/passwd"),
        ("sh", "mallory:nothing", "user", "'nothing' is not in the image's /etc/group"),
        ("sh", "-1", "user", "'-1'"),
        ("sh", "99999999999", "user", "'99999999999'"),
        ("a\0b", "", "command-not-found", ""),
    ],
)
@pytest.mark.parametrize("init", [False, True])
def test_the_command_or_the_user(driver: Driver, root: Path, argv: str, user: str, stage: str, words: str, init: bool):
    with pytest.raises(RefusedError) as refused:
        driver.run(driver.plan(argv, root=root, user=user, init=init))
    assert (refused.value.stage, words in refused.value.message) == (stage, True), refused.value


@pytest.mark.parametrize("cwd", ["/etc/passwd", "/etc/passwd/below", "/proc/nothing", "/sys/nothing"])
def test_the_working_directory(driver: Driver, cwd: str):
    with pytest.raises(RefusedError) as refused:
        driver.run(driver.plan("true", cwd=cwd))
    assert refused.value.stage == "workdir"
    assert cwd in refused.value.message


def test_the_filter(driver: Driver, tmp_path: Path):
    (tmp_path / "bad").write_bytes(b"\xff" * 16)
    for path in (tmp_path / "missing", tmp_path / "bad"):
        with pytest.raises(RefusedError) as refused:
            driver.run(driver.plan("true", seccomp=str(path)))
        assert refused.value.stage == "seccomp"


def test_a_limit_that_there_is_not(driver: Driver):
    with pytest.raises(RefusedError) as refused:
        driver.run(driver.plan("true", rlimits={"RLIMIT_NOTHING": [1, 1]}))
    assert refused.value.stage == "rlimit"


def test_the_reason_is_told_however_soon_it_fails(driver: Driver, tmp_path: Path):
    """The process may be gone before its supervisor has looked at it, and before it is told to go."""
    for _ in range(40):
        with pytest.raises(RefusedError) as refused:
            driver.run(driver.plan("true", root=tmp_path / "missing"))
        assert refused.value.stage == "mount"


def test_the_layers(driver: Driver, tmp_path: Path):
    with pytest.raises(RefusedError) as refused:
        driver.run(driver.plan("true", root=tmp_path / "missing"))
    assert (refused.value.stage, refused.value.errno) == ("mount", 2)
