"""The options of `hawse run` and its siblings as values: sizes, durations, networks, mounts, variables, keys."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn.cli import main as cli
from sdn.cli.commands import find
from sdn.cli.container_options import parse_networks, parse_tmpfs, parse_volume, read_environment
from sdn.cli.container_run import spec_of
from sdn.cli.detach_keys import match, parse_detach_keys
from sdn.cli.exits import Exit, UsageError
from sdn.cli.quantities import (
    parse_duration,
    parse_seconds,
    parse_since,
    parse_size,
    show_age,
    show_size,
)
from sdn.cli.runtime_socket import REFUSED
from sdn.model.container import ContainerSpec


def run(*words: str) -> int:
    try:
        return cli.main(list(words))
    except SystemExit as end:  # argparse ends a wrong command line this way
        return int(end.code or 0)


def spec(*words: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    """As `hawse run` would send it; the runtime's own decoder has to take it."""
    command = find(("run",))
    assert command is not None
    made = spec_of(cli.build_parser(command).parse_args(list(words)), environ or {}, "/here")
    msgspec.convert(made, ContainerSpec)
    return made


# --- quantities ---


@pytest.mark.parametrize(
    ("text", "size"),
    [("100", 100), ("7b", 7), ("64k", 65536), ("64K", 65536), ("512m", 512 << 20), ("512MB", 512 << 20),
     ("512MiB", 512 << 20), ("1.5g", 3 << 29), ("2t", 2 << 40), ("0", 0), ("1 k", 1024)],
)  # fmt: skip
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "m", "-1", "1x", "1.2.3", ".", "1e9", "ib", "5mbb", "٣", "1kk", "9" * 30, "16777216t", "nan", "inf"]
)
def test_what_is_no_size(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("500ms", 0.5), ("2d1s", 172801)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "-5s", "1h30", "5 minutes", "1w", "1..5s"])
def test_what_is_no_duration(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a duration"):
        parse_duration(text)


def test_moments():
    assert parse_since("2026-11-22T21:00:00Z") == 1795381200
    assert parse_since("2026-11-22T22:00:00.5+01:00") == 1795381200.5
    assert parse_since("2026-11-22") == time.mktime((2026, 11, 22, 0, 0, 0, 0, 0, -1))
    assert time.time() - 600 - 60 < parse_since("10m") <= time.time() - 600
    for text in ("10", "yesterday", "2026", "2026-13-01", "20261122", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="neither a duration"):
            parse_since(text)


def test_seconds_may_be_bare():
    assert (parse_seconds("0"), parse_seconds("2.5"), parse_seconds("1m")) == (0, 2.5, 60)
    with pytest.raises(argparse.ArgumentTypeError):
        parse_seconds("-1")


def test_amounts_as_people_read_them():
    assert [show_size(n) for n in (0, 1023, 1536, 5 << 20, 3 << 40)] == ["0B", "1023B", "1.5KiB", "5MiB", "3TiB"]
    assert [show_age(n) for n in (-3, 0.5, 1, 59, 60, 7200, 86400 * 400)] == [
        "less than a second", "less than a second", "1 second", "59 seconds", "1 minute", "2 hours", "1 year",
    ]  # fmt: skip


# --- where options end ---


def test_options_end_at_the_image():
    assert spec("alpine", "ls", "-l", "-o", "json", "--", "--rm") == {
        "image": "alpine", "command": ["ls", "-l", "-o", "json", "--", "--rm"], "restart": "no",
    }  # fmt: skip
    assert spec("-it", "--rm", "alpine", "--", "x")["command"] == ["--", "x"]
    assert spec("--", "alpine", "-x") == {"image": "alpine", "command": ["-x"], "restart": "no"}
    assert spec("-e", "A=1", "alpine", "-e", "B=2")["command"] == ["-e", "B=2"]


def test_every_option_lands_in_its_field(tmp_path):
    (tmp_path / "env").write_text("F=1\n")
    made = spec(
        "--name", "db", "--hostname", "h", "-e", "A=1", "--env-file", str(tmp_path / "env"), "-u", "1:2", "-w", "/w",
        "--entrypoint", "/bin/x", "-l", "k=v", "--label", "k2=v2", "-v", "data:/data:ro", "--tmpfs", "/t:size=1m",
        "--read-only", "--init", "-it", "--restart", "on-failure:3", "-m", "64m", "--cpus", "1.5", "--pids", "9",
        "--cap-add", "NET_ADMIN", "--cap-drop", "ALL", "--stop-signal", "HUP", "--stop-timeout", "3",
        "--log-size", "1m", "--network", "blue/web:eth7", "--ip", "10.0.0.9", "img", "cmd",
    )  # fmt: skip
    assert made == {
        "image": "img", "command": ["cmd"], "name": "db", "hostname": "h", "env": ["F=1", "A=1"], "user": "1:2",
        "workdir": "/w", "entrypoint": ["/bin/x"], "labels": {"k": "v", "k2": "v2"}, "read_only": True, "init": True,
        "mounts": [
            {"kind": "volume", "source": "data", "target": "/data", "read_only": True},
            {"kind": "tmpfs", "target": "/t", "size_bytes": 1 << 20},
        ],
        "tty": True, "stdin": True, "restart": "on-failure", "restart_retries": 3, "memory_bytes": 64 << 20,
        "cpus": 1.5, "pids": 9, "cap_add": ["NET_ADMIN"], "cap_drop": ["ALL"], "stop_signal": "HUP",
        "stop_timeout_s": 3, "log_bytes_max": 1 << 20,
        "networks": [{"network": "blue/web", "ifname": "eth7", "addresses": ["10.0.0.9"]}],
    }  # fmt: skip
    assert spec("--rm", "--entrypoint", "", "i") == {"image": "i", "remove": True, "entrypoint": [], "restart": "no"}
    assert spec("--stop-timeout", "0", "i")["stop_timeout_s"] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no image is named"),
        ([""], "no image is named"),
        (["-d"], "no image is named"),
        (["-e"], "expected one argument"),
        (["--memroy", "5m", "i"], "did you mean --memory?"),
        (["-m", "lots", "i"], "argument -m/--memory: 'lots' is not a size"),
        (["-m", "0", "i"], "more than 0"),
        (["--cpus", "0", "i"], "not a number of CPUs"),
        (["--cpus", "-1", "i"], "not a number of CPUs"),
        (["--pids", "many", "i"], "not a number from 1 on"),
        (["--restart", "sometimes", "i"], "none of no, always"),
        (["--restart", "always:3", "i"], "none of no, always"),
        (["--restart", "on-failure:x", "i"], "none of no, always"),
        (["--rm", "--restart", "always", "i"], "--rm removes what --restart would start again"),
        (["-l", "tier", "i"], "'tier' is not a label"),
        (["-v", "data", "i"], "'data' is not a volume"),
        (["-v", "/a:b", "i"], "not an absolute path in the container"),
        (["-v", "/a:/", "i"], "would cover the container's root"),
        (["-v", "/a:/b:rx", "i"], "has the mode 'rx'"),
        (["-v", "a b:/b", "i"], "no name for a volume"),
        (["-v", "a:/b", "--tmpfs", "/b/", "i"], "two mounts go to /b"),
        (["--tmpfs", "/t:size=x", "i"], "'x' is not a size"),
        (["--tmpfs", "/t:huge", "i"], "has the option 'huge'"),
        (["--ip", "10.0.0.1", "i"], "--ip 10.0.0.1 is for an interface, and there is none"),
        (["--ip", "1.2.3.4", "--network", "a", "--network", "b", "i"], "before the first of 2 networks"),
        (["--network", "a", "--ip", "fd00::1", "i"], "of the other family"),
        (["--network", "a", "--ip6", "10.0.0.1", "i"], "of the other family"),
        (["--network", "a", "--mac", "m1", "--mac", "m2", "i"], "given two MACs"),
        (["--network", ":eth0", "i"], "':eth0' is not a network"),
        (["--network", "a:", "i"], "'a:' is not a network"),
        (["-e", "=x", "i"], "'=x' is not a variable"),
        (["-e", "A B=x", "i"], "is not a variable"),
        (["--env-file", "/nowhere", "i"], "'/nowhere' cannot be read: No such file or directory"),
        (["--env-file", "/", "i"], "cannot be read: Is a directory"),
        (["--detach-keys", "ctrl-ü", "i"], "'ctrl-ü' is not a key"),
        (["--stop-timeout", "soon", "i"], "not a number of seconds"),
    ],
)
def test_wrong_options_are_a_sentence_and_no_code_of_a_containers_own(words, says, tmp_path, capsys):
    assert run("--root", str(tmp_path), "run", *words) == REFUSED
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("hawse: ")
    assert len(error.splitlines()) <= 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["exec"], "no container is named"),
        (["exec", "db"], "no command for container 'db'"),
        (["exec", "db", "--"], "no command for container 'db'"),
        (["exec", "-t", "-i", "db", "sh"], "standard input is not a terminal"),
        (["run", "-ti", "img"], "standard input is not a terminal"),
        (["logs", "--tail", "-1", "db"], "not a number of lines"),
        (["logs", "--since", "10", "db"], "neither a duration"),
        (["stop"], "arguments are required: CONTAINER"),
        (["stop", "-t", "x", "db"], "not a number of seconds"),
        (["start", "-a", "one", "two"], "only one container can have our terminal"),
        (["events", "--containers", "--since", "42.0"], "neither a duration"),
    ],
)
def test_wrong_lines_of_the_others(words, says, tmp_path, capsys, monkeypatch):
    with open(os.devnull) as nothing:
        kept = os.dup(0)
        os.dup2(nothing.fileno(), 0)
        try:
            expected = REFUSED if words[0] in ("run", "exec") else Exit.USAGE
            assert run("--root", str(tmp_path), *words) == expected
        finally:
            os.dup2(kept, 0)
            os.close(kept)
    assert says in capsys.readouterr().err


# --- networks ---


def test_what_is_wished_belongs_to_the_network_before_it_or_to_the_only_one():
    given = [("network", "a", "--network"), ("addresses", "10.0.0.1", "--ip"), ("network", "b:eth5", "--network"),
             ("addresses", "10.1.0.1", "--ip"), ("addresses", "fd00::1", "--ip6"), ("mac", "m", "--mac"),
             ("aliases", "x", "--alias"), ("aliases", "y", "--alias")]  # fmt: skip
    assert parse_networks(given) == [
        {"network": "a", "addresses": ["10.0.0.1"]},
        {"network": "b", "ifname": "eth5", "addresses": ["10.1.0.1", "fd00::1"], "mac": "m", "aliases": ["x", "y"]},
    ]
    assert parse_networks([given[1], given[0]]) == [{"network": "a", "addresses": ["10.0.0.1"]}]
    assert parse_networks([]) == []


# --- mounts and variables ---


def test_volumes():
    assert parse_volume("./data:/data", "/here") == {"kind": "bind", "source": "/here/data", "target": "/data"}
    assert parse_volume("..:/data:rw", "/here/there") == {"kind": "bind", "source": "/here", "target": "/data"}
    assert parse_volume("/a/../b:/c:ro", "/") == {"kind": "bind", "source": "/b", "target": "/c", "read_only": True}
    assert parse_volume("cache:/c", "/here") == {"kind": "volume", "source": "cache", "target": "/c"}
    assert parse_tmpfs("/t") == {"kind": "tmpfs", "target": "/t"}
    assert parse_tmpfs("/t:size=2k,ro") == {"kind": "tmpfs", "target": "/t", "size_bytes": 2048, "read_only": True}


def test_variables(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"# a comment\n\n  X=1\r\nY= two words \nHOME\nABSENT\nB=\xff\n")
    (tmp_path / "b").write_text("X=2")
    files = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert read_environment(files, ["Z", "Y=", "E=a=b"], {"HOME": "/h", "Z": "z"}) == [
        "HOME=/h", "B=\udcff", "X=2", "Z=z", "Y=", "E=a=b",
    ]  # fmt: skip
    (tmp_path / "a").write_text("A=1\nB C=2\n")
    with pytest.raises(UsageError, match=r"a, line 2: 'B C=2' is not a variable"):
        read_environment(files, [], {})


# --- detach keys ---


def test_keys_as_they_are_written():
    assert parse_detach_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse_detach_keys("CTRL-A,b,ctrl-[,ctrl-@") == b"\x01b\x1b\x00"
    assert parse_detach_keys("") == b""
    for text in ("ctrl-", "ctrl-pp", "ab", ",", "ctrl-1", "é", "ctrl-p,"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a key"):
            parse_detach_keys(text)


@pytest.mark.parametrize(
    ("held", "typed", "outcome"),
    [
        (0, b"ab", (b"ab", 0, False)),
        (0, b"a\x10", (b"a", 1, False)),
        (1, b"\x11", (b"", 0, True)),
        (1, b"x", (b"\x10x", 0, False)),
        (1, b"\x10", (b"\x10", 1, False)),
        (0, b"a\x10\x11b", (b"a", 0, True)),
        (1, b"", (b"", 1, False)),
    ],
)
def test_keys_as_they_are_typed(held, typed, outcome):
    assert match(b"\x10\x11", held, typed) == outcome


@given(keys=st.binary(max_size=4), parts=st.lists(st.binary(max_size=5), max_size=8))
def test_whatever_is_typed_is_passed_on_once_until_the_keys_come(keys, parts):
    """In whatever parts it arrives."""
    passed, held, detached = b"", 0, False
    for part in parts:
        forward, held, detached = match(keys, held, part)
        passed += forward
        if detached:
            break
    typed = b"".join(parts)
    place = typed.find(keys) if keys else -1
    assert detached == (place >= 0)
    assert passed + (b"" if detached else keys[:held]) == (typed[:place] if detached else typed)
