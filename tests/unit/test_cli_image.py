"""The commands of images, against a runtime that the test plays."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdn.cli import image
from sdn.cli import main as cli
from sdn.cli.exits import Exit
from sdn.model.errors import conflict, not_found
from tests.unit.runtime_stand_in import StandIn, stand_in

ITEM: dict[str, Any] = {
    "id": "sha256:" + "ab" * 32, "names": ["web:1", "web:latest"], "created_s": 1704164645.0, "size_bytes": 3 << 20,
    "layers": ["sha256:1"], "architecture": "amd64", "config": {"Cmd": ["/bin/sh"], "Env": ["A=b"], "User": ""},
}  # fmt: skip
ID = "abababababab"


@pytest.fixture
def played(tmp_path: Path) -> Iterator[StandIn]:
    with stand_in(tmp_path) as runtime:
        runtime.answers["IMAGE_LS"] = lambda _: {"items": [ITEM, {"id": "sha256:" + "cd" * 32}]}
        runtime.answers["IMAGE_INSPECT"] = lambda _: ITEM
        for verb in ("IMAGE_LOAD", "IMAGE_IMPORT"):
            runtime.answers[verb] = lambda _: {"items": [ITEM]}
        runtime.answers["IMAGE_SAVE"] = lambda _: {}
        yield runtime


@pytest.fixture
def run(played, capfd):
    """Type a command; what it ended with, printed and complained."""

    def typed(*words: str) -> tuple[int, str, str]:
        code = cli.main(["--root", str(played.root), "image", *words])
        return code, *capfd.readouterr()

    return typed


def test_ls(run):
    code, out, _ = run("ls")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["IMAGE", "ID", "CREATED", "SIZE"]
    assert [row[:2] for row in rows[1:]] == [["web:1", ID], ["web:latest", ID], ["-", "cdcdcdcdcdcd"]]
    assert rows[1][-1] == "3MiB"
    assert run("ls", "-q")[1].split() == [ID, "cdcdcdcdcdcd"]
    assert json.loads(run("ls", "-o", "json")[1])[0] == ITEM


def test_inspect(run):
    _, out, _ = run("inspect", "web:1")
    assert "names:" in out
    assert "Cmd:" in out
    assert "User" not in out
    assert json.loads(run("inspect", "web:1", "-o", "json")[1]) == ITEM
    assert len(json.loads(run("inspect", "web:1", "web:2", "-o", "json")[1])) == 2


@pytest.mark.parametrize("source", ["file", "directory"])
def test_load(source, run, played, tmp_path):
    path = tmp_path / "source"
    path.mkdir() if source == "directory" else path.touch()
    code, out, _ = run("load", str(path), "--name", "web:1")
    assert (code, out.splitlines()) == (0, [f"{ID}  web:1", f"{ID}  web:latest"])
    assert played.next("IMAGE_LOAD")["name"] == "web:1"
    assert json.loads(run("load", str(path), "-o", "json")[1]) == [ITEM]


def test_load_of_what_has_no_name_says_how_to_give_one(run, played, tmp_path):
    played.answers["IMAGE_LOAD"] = lambda _: {"items": [{"id": ITEM["id"]}]}
    assert "--name" in run("load", str(tmp_path))[1]


def test_import(run, played, tmp_path):
    code, _, _ = run("import", "web", str(tmp_path), "--command", "sh -c 'a b'", "-e", "A=1", "-w", "/x", "-u", "7:8")
    asked = played.next("IMAGE_IMPORT")
    assert code == 0
    assert (asked["name"], asked["command"], asked["env"]) == ("web", ["sh", "-c", "a b"], ["A=1"])
    assert (asked["workdir"], asked["user"]) == ("/x", "7:8")


def test_rm_goes_on_after_one_that_fails(run, played):
    def remove(message: dict[str, Any]) -> dict[str, Any]:
        if message["image"] == "used":
            raise conflict("the image 'used' is used by db", "remove the containers first")
        if message["image"] == "absent":
            raise not_found("there is no image 'absent'")
        return {"removed": [message["image"], "sha256:1"]}

    played.answers["IMAGE_RM"] = remove
    code, out, err = run("rm", "used", "absent", "web:1")
    assert (code, out.splitlines()) == (Exit.CONFLICT, ["removed web:1", "removed sha256:1"])
    assert "is used by db" in err
    assert json.loads(run("rm", "web:1", "-f", "-o", "json")[1]) == {"removed": ["web:1", "sha256:1"]}


def test_save_gives_a_file_its_name_once_it_is_whole(run, played, tmp_path):
    target = tmp_path / "saved.tar"
    target.write_text("an older one")
    assert run("save", "web:1", "db", "--to", str(target))[0] == 0
    assert played.next("IMAGE_SAVE")["images"] == ["web:1", "db"]
    assert target.read_text() == ""

    def fail(_: dict[str, Any]) -> dict[str, Any]:
        raise not_found("there is no image 'web'")

    played.answers["IMAGE_SAVE"] = fail
    target.write_text("an older one")
    assert run("save", "web", "--to", str(target))[0] == Exit.NOT_FOUND
    assert target.read_text() == "an older one"
    assert [name for name in os.listdir(tmp_path) if "part" in name] == []
    assert run("save", "web", "--to", os.devnull)[0] == Exit.NOT_FOUND
    assert os.path.exists(os.devnull)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["load", "/nowhere/x"], Exit.NOT_FOUND, "there is no file"),
        (["load", "a\0b"], Exit.INVALID, "cannot be read"),
        (["import", "web", "/", "-e", "A"], Exit.USAGE, "no environment variable"),
        (["import", "web", "/", "--command", "'a"], Exit.USAGE, "is no command"),
        (["save", "web", "--to", "/nowhere/x"], Exit.INVALID, "cannot be written"),
        (["load", "/", "--name", "\udc80"], Exit.USAGE, "not UTF-8"),
    ],
)
def test_mistakes(words, code, says, run):
    ended, _, err = run(*words)
    assert (ended, says in err) == (code, True)


@pytest.mark.parametrize(("number", "words"), [(0, ["load"]), (1, ["save", "web"])])
def test_an_archive_is_nothing_for_a_terminal(number, words, run):
    master, terminal = pty.openpty()
    before = os.dup(number)
    try:
        os.dup2(terminal, number)
        code, _, err = run(*words)
    finally:
        os.dup2(before, number)
        for fd in (before, master, terminal):
            os.close(fd)
    assert (code, "terminal" in err) == (Exit.USAGE, True)


def test_progress(capfd):
    items: list[dict[str, Any]] = [
        {"what": "a1", "done_bytes": 1 << 20, "total_bytes": 4 << 20},
        {"what": "a1", "done_bytes": 4 << 20, "total_bytes": 4 << 20, "finished": True},
        {"what": "b2\x1b[H", "finished": True},
    ]
    plain = image._Progress(quiet=False, terminal=False)
    for item in items:
        plain.update(item)
    plain.close()
    assert capfd.readouterr().err.splitlines() == ["a1  4MiB", "b2\\x1b[H  is here already"]
    terminal = image._Progress(quiet=False, terminal=True)
    terminal.update(items[0])
    terminal.close()
    assert "[=======                     ] 1MiB of 4MiB" in capfd.readouterr().err
    quiet = image._Progress(quiet=True, terminal=True)
    quiet.update(items[1])
    assert capfd.readouterr().err == ""
    assert image.bar(5, 0) == "5B"
    assert image.bar(9, 4).startswith("[" + "=" * image.BAR_WIDTH + "]")
