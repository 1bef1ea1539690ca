"""Nothing secret is where others look: processes' arguments and environments, files, logs, answers, core dumps."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdn.model.token import TokenKind, parse_token
from tests.e2e.machines import PATIENCE_S, Machine, environment, machines
from tests.e2e.test_controller_process import dumps_core
from tests.e2e.test_machine_support import private_lines

pytestmark = pytest.mark.root
ASKED = ("/metrics", "/openapi.json", "/v1/certificates", "/v1/hosts", "/v1/status", "/v1/tokens")
SHOWN = (("host", "ls"), ("host", "inspect", "m2"), ("token", "ls"), ("events", "--since", "0", "--no-follow"))


class Watch:
    """Reads the arguments and the environment of every process, again and again, while it is entered."""

    def __init__(self, *secrets: str) -> None:
        self.found: dict[tuple[int, str], bytes] = {}
        self.rounds = 0
        self._secrets = [secret.encode() for secret in secrets]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            self.found |= held_by_processes(self._secrets)
            self.rounds += 1


def held_by_processes(secrets: list[bytes]) -> dict[tuple[int, str], bytes]:
    """Who has one of these, and where: by process and `cmdline` or `environ`."""
    found: dict[tuple[int, str], bytes] = {}
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                text = (process / name).read_bytes()
                if any(secret in text for secret in secrets):
                    found[int(process.name), name] = text
    return found


@pytest.fixture(scope="module")
def fabric() -> Iterator[tuple[Machine, Machine]]:
    with machines(2) as (first, second):
        first.up()
        first.hawse("network", "create", "web", "--subnet", "10.1.0.0/24")
        yield first, second


def secrets_of(machine: Machine) -> list[str]:
    """What a machine keeps: a host's secret, the lines of private keys."""
    keys = [path.read_text() for path in machine.root.tls.rglob("*") if path.is_file()]
    lines = [line for text in keys for line in private_lines(text)]
    return [json.loads(machine.root.agent_file.read_bytes())["secret"], *lines]


def files_of(directory: Path) -> Iterator[Path]:
    """Of the file system that it is on: no namespaces, and not what containers have mounted."""
    device = directory.stat().st_dev
    for place, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if (Path(place) / name).lstat().st_dev == device]
        found = [Path(place) / name for name in files]
        yield from (path for path in found if path.lstat().st_dev == device and stat.S_ISREG(path.lstat().st_mode))


def test_a_joined_machine_shows_no_secret(fabric: tuple[Machine, Machine]) -> None:
    first, second = fabric
    word = first.token()
    with Watch(word, parse_token(word, TokenKind.JOIN).secret) as watch:
        said = second.hawse("join", "-d", first.address, "-", "--name", "m2", stdin=word + "\n")
    assert watch.rounds > 1
    assert watch.found == {}
    user = first.client.post("/v1/tokens", {"kind": "user", "role": "admin", "name": "ann"}).body["word"]
    second.hawse("run", "-d", "--name", "one", "--network", "web", "--stop-signal", "KILL", "host", "sleep", "1000")
    before = json.loads(second.root.agent_file.read_bytes())["secret"]
    first.hawse("host", "rotate", "m2")
    secrets = [word, user, before, *secrets_of(first), *secrets_of(second)]
    secrets += [parse_token(word, TokenKind.JOIN).secret, parse_token(user, TokenKind.USER).secret]
    assert len(secrets) > 8

    assert held_by_processes([secret.encode() for secret in secrets]) == {}  # daemons, containers, whoever
    places = {"join": said, "env": second.hawse("exec", "one", "env")}
    places |= {" ".join(typed): first.hawse(*typed) for typed in SHOWN}
    places |= {path: str(first.client.get(path).body) for path in ASKED}
    places |= {str(path): path.read_text() for machine in fabric for path in machine.root.logs.glob("*")}
    assert "m2" in places["host ls"]
    for place, text in places.items():
        assert not [secret for secret in secrets if secret in text], place

    for machine in fabric:
        for path in files_of(machine.directory):
            content = path.read_bytes()
            if any(secret.encode() in content for secret in secrets):
                assert path == machine.root.agent_file or path.is_relative_to(machine.root.tls), path
                assert path.stat().st_mode & 0o777 == 0o600, path
    second.hawse("leave", "--force", "--all")


def test_a_token_as_a_word_is_the_typed_commands_alone_and_gone_when_it_serves(
    fabric: tuple[Machine, Machine], tmp_path: Path
) -> None:
    first, second = fabric
    word = first.token()
    with (
        Watch(word) as watch,
        subprocess.Popen(
            second.words("join", first.address, word, "--name", "m2"),
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
        ) as typed,
    ):  # fmt: skip
        killer = threading.Timer(PATIENCE_S, typed.kill)
        killer.start()
        try:
            assert typed.stdout is not None
            said = []
            for line in typed.stdout:
                said.append(line)
                if line.startswith("joined:"):
                    break
            assert any(line.startswith("joined:") for line in said), said
            assert held_by_processes([word.encode()]) == {}
            assert word not in "".join(said)
            assert not dumps_core(typed.pid), "it has had the token, and the credential"
        finally:
            killer.cancel()
            typed.kill()
    mine = {(typed.pid, "cmdline"), (os.getpid(), "cmdline")}
    assert set(watch.found) <= mine, watch.found
