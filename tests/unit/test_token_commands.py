"""`hawse token` and `hawse host drain`, against a real controller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdn.cli import host as host_module
from sdn.cli.exits import Exit
from sdn.cli.main import main
from sdn.controller import ledger
from sdn.model.token import TokenKind, parse_token
from tests.unit.rest_server import Agent, Served, running


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(ledger, "_audit", lambda *told: None)  # it would be printed among what the command prints
    async with running(tmp_path) as running_controller:
        yield running_controller


async def hawse(served: Served, *words: str) -> int:
    return await asyncio.to_thread(main, [*words, "--controller", f"unix:{served.path}"])


async def test_what_is_printed_is_what_is_typed(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert await hawse(served, "token", "create", "--ttl", "2h") == Exit.OK
    out, notes = capsys.readouterr()
    command, verb, address, word = out.split()
    assert (command, verb, address) == ("hawse", "join", str(served.address))
    token = parse_token(word, TokenKind.JOIN)
    assert token.fingerprint == served.edge.fingerprint
    assert "one machine, until 20" in notes
    assert f"hawse token revoke {token.id}" in notes
    assert "only this machine reaches the controller" in notes
    assert word not in notes
    assert await hawse(served, "token", "create", "-q") == Exit.OK
    assert parse_token(capsys.readouterr().out, TokenKind.JOIN)


async def test_a_users_token(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    await hawse(served, "tenant", "create", "blue")
    capsys.readouterr()
    assert await hawse(served, "token", "create", "--role", "tenant", "--tenant", "blue", "--name", "ci") == Exit.OK
    out, notes = capsys.readouterr()
    assert parse_token(out, TokenKind.USER)
    assert f"hawse login {served.address}" in notes
    assert "until it is revoked" in notes
    assert await hawse(served, "token", "create", "--role", "admin", "-o", "json") == Exit.OK
    made = json.loads(capsys.readouterr().out)
    assert (made["role"], made["kind"], made["state"]) == ("admin", "user", "usable")
    assert await hawse(served, "token", "ls") == Exit.OK
    listed = capsys.readouterr().out
    assert any(line.split()[1:6] == ["ci", "user", "tenant", "blue", "usable"] for line in listed.splitlines())
    assert out.strip() not in listed
    assert await hawse(served, "token", "revoke", "ci", made["id"]) == Exit.OK
    assert await hawse(served, "token", "revoke", "nobody") == Exit.OK
    assert "there is no token 'nobody'" in capsys.readouterr().out
    await hawse(served, "token", "ls", "-o", "json")
    assert {one["state"] for one in json.loads(capsys.readouterr().out)} == {"revoked"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["create", "--role", "tenant"], Exit.USAGE),
        (["create", "--tenant", "blue"], Exit.USAGE),
        (["create", "--join", "--role", "admin"], Exit.USAGE),
        (["create", "--role", "tenant", "--tenant", "nobody"], Exit.NOT_FOUND),
        (["create", "--ttl", "365d"], Exit.INVALID),
        (["create", "--ttl", "0"], Exit.INVALID),
        (["create", "--role", "admin", "--name", "a b"], Exit.INVALID),
        (["revoke", "hawse-user-xyz"], Exit.USAGE),
    ],
)
async def test_wrong_wishes(served: Served, capsys: pytest.CaptureFixture[str], words: list[str], code: Exit) -> None:
    assert await hawse(served, "token", *words) == code
    out, complaint = capsys.readouterr()
    assert out == ""
    assert len(complaint.splitlines()) == 2


async def test_draining(served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "LOOK_S", 0.01)
    host = (await served.ask("POST", "/v1/hosts", {"name": "h1"})).body["id"]
    await served.ask("POST", "/v1/networks", {"name": "web"})
    agent = await Agent.connect(served.core, host)
    first = (await agent.attach("web", "c1")).endpoint
    assert await hawse(served, "host", "drain", "h1") == Exit.OK
    assert "1 left on it: c1" in capsys.readouterr().out
    await hawse(served, "host", "ls")
    assert "draining" in capsys.readouterr().out
    await hawse(served, "host", "inspect", "h1")
    assert "drained_by" in capsys.readouterr().out
    assert await hawse(served, "host", "drain", "h1", "--wait=0.02") == Exit.TIMED_OUT
    waiting = asyncio.create_task(hawse(served, "host", "drain", "h1", "--wait"))
    await served.ask("DELETE", f"/v1/endpoints/{first.id}")
    assert await waiting == Exit.OK
    capsys.readouterr()
    assert await hawse(served, "host", "drain", "h1", "--undo") == Exit.OK
    assert "again" in capsys.readouterr().out
    assert await hawse(served, "host", "drain", "h9") == Exit.NOT_FOUND
    assert await hawse(served, "host", "drain", "h1", "--undo", "--wait") == Exit.USAGE
    agent.close()
