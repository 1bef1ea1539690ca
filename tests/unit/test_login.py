"""Which controller a command speaks to, and logging in to one: what is kept, for whom, and what is refused."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdn.cli.exits import Exit
from sdn.cli.main import main
from sdn.client.client import Client
from sdn.model.errors import HawseError, Kind
from sdn.model.token import Token, TokenKind
from sdn.service.login import Controller, login_file, read_login, remove_login, write_login
from sdn.service.roots import find_controller, find_root
from tests.unit.rest_server import Served, running

WORD = str(Token(TokenKind.USER, "ab" * 32, "01234567", "cd" * 16))
LOGIN = Controller("https://a:4780", authority="PEM", token=WORD)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running(tmp_path) as controller:
        yield controller


def test_the_rule(tmp_path: Path) -> None:
    root, environ = find_root(str(tmp_path), {}), {"HOME": str(tmp_path)}
    path = login_file(environ)
    assert path == tmp_path / ".config/hawse/client.json"
    assert login_file({"XDG_CONFIG_HOME": "/x", "HOME": "/y"}) == Path("/x/hawse/client.json")
    assert login_file({}) is None
    unix = Controller(f"unix:{tmp_path}/controller.sock")
    assert find_controller(None, root, environ) == unix
    write_login(path, LOGIN)
    assert find_controller(None, root, environ) == LOGIN
    assert find_controller("https://a", root, environ) == find_controller("https://a:4780/", root, environ) == LOGIN
    assert find_controller("https://b", root, environ) == Controller("https://b")
    root.client_file.write_text('{"controller": "unix:/elsewhere"}')
    assert find_controller(None, root, environ) == Controller("unix:/elsewhere")
    assert find_controller("https://a", root, environ) == LOGIN


def test_a_token_in_the_environment(tmp_path: Path) -> None:
    root, environ = find_root(str(tmp_path), {}), {"HAWSE_CONTROLLER": "https://b", "HAWSE_TOKEN": WORD}
    found = Controller("https://b", fingerprint="ab" * 32, token=WORD)
    assert find_controller(None, root, environ) == found
    (tmp_path / "token").write_text(f"{WORD}\n")
    environ = {"HAWSE_CONTROLLER": "https://b", "HAWSE_TOKEN_FILE": str(tmp_path / "token")}
    assert find_controller(None, root, environ) == found
    assert find_controller("unix:/s", root, environ) == Controller("unix:/s")  # which asks for none
    with pytest.raises(HawseError, match="HAWSE_TOKEN_FILE=/nowhere cannot be read"):
        find_controller(None, root, {**environ, "HAWSE_TOKEN_FILE": "/nowhere"})
    with pytest.raises(HawseError, match="pasted in part") as caught:
        find_controller(None, root, {**environ, "HAWSE_TOKEN": WORD[:-9]})
    assert WORD[:40] not in str(caught.value)
    assert WORD not in repr(found)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_login_that_others_can_read_or_write_is_not_used(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "new" / "client.json"
    write_login(path, LOGIN)
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    path.chmod(mode)
    with pytest.raises(HawseError, match=rf"can be read or written by others \(mode {mode:04o}\)") as caught:
        read_login(path)
    assert caught.value.kind is Kind.DENIED


@pytest.mark.root
def test_a_login_of_another_user_is_not_used(tmp_path: Path) -> None:
    write_login(tmp_path / "f", LOGIN)
    os.chown(tmp_path / "f", 65534, -1)
    with pytest.raises(HawseError, match="belongs to another user"):
        read_login(tmp_path / "f")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"controller": "https://a:1", "authority": "x", "token": ""}'])
def test_a_damaged_login_is_said(content: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text(content)
    (tmp_path / "f").chmod(0o600)
    with pytest.raises(HawseError, match="is damaged") as caught:
        read_login(tmp_path / "f")
    assert caught.value.kind is Kind.INVALID


def test_a_login_that_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HawseError, match="cannot be changed"):
        write_login(tmp_path / "file" / "client.json", LOGIN)
    assert not remove_login(tmp_path / "file" / "client.json")
    assert not remove_login(tmp_path / "none")


async def hawse(monkeypatch: pytest.MonkeyPatch, home: Path, *words: str, typed: str = "") -> int:
    """Run a command as a user with that home, who pastes what is typed."""
    with monkeypatch.context() as patched:
        for name in ("XDG_CONFIG_HOME", "HAWSE_CONTROLLER", "HAWSE_TOKEN", "HAWSE_TOKEN_FILE"):
            patched.delenv(name, raising=False)
        patched.setenv("HOME", str(home))
        patched.setattr("sys.stdin", io.StringIO(typed))
        return await asyncio.to_thread(main, [*words, "--root", str(home / "root")])


async def test_login_and_logout(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    word = (await served.ask("POST", "/v1/tokens", {"kind": "user", "role": "admin"})).body["word"]
    await served.identity.rotate()  # the token knows the old authority
    path, address = tmp_path / ".config/hawse/client.json", str(served.address)
    assert await hawse(monkeypatch, tmp_path, "login", address, typed=f"  {word}\n") == Exit.OK
    kept = json.loads(path.read_text())
    assert kept == {"controller": f"https://{address}", "authority": served.identity.bundle, "token": word}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await served.identity.retire()  # who logged in before that goes on
    assert await hawse(monkeypatch, tmp_path, "tenant", "ls") == Exit.OK
    assert "default" in capfd.readouterr().out
    assert await hawse(monkeypatch, tmp_path, "logout", "-o", "json") == Exit.OK
    assert json.loads(capfd.readouterr().out) == {"file": str(path), "removed": True}
    assert not path.exists()
    assert await hawse(monkeypatch, tmp_path, "logout") == Exit.OK
    assert await hawse(monkeypatch, tmp_path, "tenant", "ls") == Exit.UNAVAILABLE
    out, err = capfd.readouterr()
    assert word not in out + err + str(served.log.lines)


async def test_what_the_controller_does_not_accept_is_not_kept(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made = (await served.ask("POST", "/v1/tokens", {"kind": "user", "role": "admin"})).body
    await served.ask("DELETE", f"/v1/tokens/{made['id']}")
    join = (await served.ask("POST", "/v1/tokens", {"kind": "join"})).body["word"]
    foreign = str(Token(TokenKind.USER, "ab" * 32, "01234567", "cd" * 16))
    for typed, code, says in (
        (made["word"], Exit.DENIED, "was revoked"),
        (foreign, Exit.DENIED, f"its authority is {served.identity.fingerprint}, and {'ab' * 32} is trusted"),
        (join, Exit.INVALID, "this is a join token, and a user token is wanted"),
        (made["word"][:-4], Exit.INVALID, "pasted in part"),
        ("", Exit.USAGE, "no token was given"),
    ):
        assert await hawse(monkeypatch, tmp_path, "login", str(served.address), typed=typed) == code
        complaint = capfd.readouterr().err
        assert says in complaint
        assert not typed or typed not in complaint
    assert not (tmp_path / ".config").exists()


async def test_a_token_of_a_tenant_may_log_in(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await served.ask("POST", "/v1/tokens", {"kind": "user", "role": "tenant", "tenant": "default"})
    assert await hawse(monkeypatch, tmp_path, "login", str(served.address), typed=made.body["word"]) == Exit.OK
    kept = read_login(tmp_path / ".config/hawse/client.json")
    assert kept is not None
    client = Client(kept.url, authority=kept.authority, token=kept.token)
    with pytest.raises(HawseError, match="is for administrators"):
        await asyncio.to_thread(client.get, "/v1/tokens")
