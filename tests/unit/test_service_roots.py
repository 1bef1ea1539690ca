"""Where things are, and what cannot be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sdn.model.errors import HawseError, Kind
from sdn.service.roots import Root, check_socket_path, find_controller, find_root


def test_the_rule_for_the_root(tmp_path: Path) -> None:
    assert find_root(None, {}) == Root(Path("/var/lib/hawse"), Path("/run/hawse"))
    assert find_root(None, {"HAWSE_ROOT": "/a"}) == Root(Path("/a/state"), Path("/a"))
    assert find_root("/b", {"HAWSE_ROOT": "/a"}).run == Path("/b")
    assert find_root("relative/x", {}).run == Path(os.getcwd()) / "relative/x"


def test_the_rule_for_the_controller(tmp_path: Path) -> None:
    root = find_root(str(tmp_path), {})
    assert find_controller(None, root, {}).url == f"unix:{tmp_path}/controller.sock"
    root.client_file.write_text('{"controller": "unix:/elsewhere"}')
    assert find_controller(None, root, {}).url == "unix:/elsewhere"
    assert find_controller(None, root, {"HAWSE_CONTROLLER": "https://b"}).url == "https://b"
    assert find_controller("https://c", root, {"HAWSE_CONTROLLER": "https://b"}).url == "https://c"
    root.client_file.write_text("[]")
    with pytest.raises(HawseError, match=r"client\.json"):
        find_controller(None, root, {})


def test_directories_are_private(tmp_path: Path) -> None:
    root = find_root(str(tmp_path / "r"), {})
    root.create()
    root.create()
    for directory in (root.run, root.state):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_root_too_long_for_sockets_is_refused_with_its_length(tmp_path: Path) -> None:
    root = find_root(f"/tmp/{'x' * 120}", {})
    with pytest.raises(HawseError, match=r"has \d+ bytes") as caught:
        root.create()
    assert caught.value.kind is Kind.INVALID
    assert caught.value.facts["length"] == len(os.fsencode(root.controller_socket))
    assert not root.run.exists()


def test_the_longest_path_that_fits() -> None:
    check_socket_path("/" + "x" * 106)
    with pytest.raises(HawseError, match="at least 1 bytes shorter"):
        check_socket_path("/" + "é" + "x" * 105)


def test_a_root_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HawseError, match="cannot make"):
        find_root(str(tmp_path / "file" / "r"), {}).create()
