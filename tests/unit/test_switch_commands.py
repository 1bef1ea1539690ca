"""`hawse switch`, against a real controller and a switch that is nothing but tables."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdn.cli.completion import complete
from sdn.cli.exits import Exit
from sdn.cli.main import main
from sdn.controller import ledger
from sdn.controller.listen import parse_openflow
from sdn.machine.versions import Part, differing
from sdn.model.errors import HawseError
from tests.unit.small_switch import DATAPATH_ID, Centre, SmallSwitch, centre

ID = f"{DATAPATH_ID:016x}"
ADD = ("switch", "add", "s1", "--datapath-id", ID, "--vtep", "192.0.2.1")


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Centre]:
    monkeypatch.setattr(ledger, "_audit", lambda *told: None)  # it would be printed among what the command prints
    async with centre(tmp_path) as one:
        yield one


async def hawse(here: Centre, *words: str) -> int:
    return await asyncio.to_thread(main, [*words, "--controller", f"unix:{here.served.path}"])


async def test_the_life_of_a_switch(here: Centre, capsys: pytest.CaptureFixture[str]) -> None:
    assert await hawse(here, *ADD, "--tunnel-port", "1", "--mtu", "1600", "--label", "site=a") == Exit.OK
    assert f"datapath id {ID}" in capsys.readouterr().out
    switch = SmallSwitch(ports=("vx", "p1"))
    await here.connected(switch)
    words = ("switch", "bind", "s1", "p1", "web", "--ip", "10.1.0.50", "--mac", "0a:00:00:00:00:01", "--name", "door")
    assert await hawse(here, *words, "--wait=10") == Exit.OK
    out = capsys.readouterr().out
    assert "s1 p1  web  10.1.0.50/16  0a:00:00:00:00:01" in out
    assert "applied" in out
    assert await hawse(here, "switch", "ls") == Exit.OK
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row == ["s1", "connected", ID, "192.0.2.1", "1", "1", row[6], "0"]
    assert await hawse(here, "switch", "ls", "--label", "site=b", "-o", "json") == Exit.OK
    assert json.loads(capsys.readouterr().out) == []
    assert await hawse(here, "switch", "inspect", "s1") == Exit.OK
    out = capsys.readouterr().out
    assert "peer:" in out
    assert [line.split()[:5] for line in out.splitlines() if line.startswith(("p1", "vx"))] == [
        ["p1", "2", "up", "default/web", "door"],
        ["vx", "1", "up", "-", "-"],
    ]
    assert await hawse(here, "host", "ls") == Exit.OK
    assert "switch" in capsys.readouterr().out
    assert await hawse(here, "endpoint", "ls", "--host", "s1") == Exit.OK
    assert "door" in capsys.readouterr().out
    assert await hawse(here, "network", "inspect", "web") == Exit.OK
    assert "door" in capsys.readouterr().out
    assert await hawse(here, "switch", "rm", "s1") == Exit.CONFLICT
    assert "hawse switch rm --force s1" in capsys.readouterr().err
    assert await hawse(here, "switch", "unbind", "s1", "p1", "p9", "--wait=10") == Exit.OK
    out = capsys.readouterr().out
    assert out.startswith("s1 p1\nnothing is bound to p9: nothing to do\n")
    assert await hawse(here, "switch", "rm", "s1", "s9") == Exit.OK
    assert "there is no switch 's9'" in capsys.readouterr().out
    assert not switch.ours()


async def test_one_that_is_away(here: Centre, capsys: pytest.CaptureFixture[str]) -> None:
    await hawse(here, *ADD)
    await hawse(here, "switch", "bind", "s1", "7", "web")
    capsys.readouterr()
    assert await hawse(here, "switch", "inspect", "s1") == Exit.OK
    out = capsys.readouterr().out
    assert "without counters: the switch is away" in out
    assert any(line.split()[:2] == ["7", "-"] and "missing" in line for line in out.splitlines())
    assert await hawse(here, "switch", "bind", "s1", "8", "web", "--wait=0.1") == Exit.TIMED_OUT
    assert "not-connected" in capsys.readouterr().out


async def test_a_certificate_in_files(here: Centre, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    await hawse(here, *ADD)
    out = tmp_path / "files"
    assert await hawse(here, "switch", "certificate", "s1", "--out", str(out)) == Exit.OK
    names = ["switch-key.pem", "switch.pem", "authority.pem"]
    assert f"ovs-vsctl set-ssl {' '.join(str(out / name) for name in names)}" in capsys.readouterr().out
    assert {path.name: path.stat().st_mode & 0o777 for path in out.iterdir()} == dict.fromkeys(names, 0o600)
    context = ssl.create_default_context(cafile=str(out / "authority.pem"))
    context.check_hostname = False
    context.load_cert_chain(out / "switch.pem", out / "switch-key.pem")
    switch = SmallSwitch()
    await switch.connect(here.secure, context)
    await here.until(lambda shown: shown["connected"], "connected")
    # What is there is not written over, and what was given is not voided for nothing.
    assert await hawse(here, "switch", "certificate", "s1", "--out", str(out)) == Exit.CONFLICT
    assert "--force" in capsys.readouterr().err
    assert (await here.ask("GET", "/v1/switches/s1"))["connected"]
    assert await hawse(here, "switch", "certificate", "s1", "--out", "/proc/nothing") == Exit.DENIED
    capsys.readouterr()
    assert await hawse(here, "switch", "certificate", "s1", "--out", str(out), "--force", "-o", "json") == Exit.OK
    assert json.loads(capsys.readouterr().out)["key"] == str(out / "switch-key.pem")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["add", "s2", "--datapath-id", ID], Exit.USAGE, "--vtep ADDRESS"),
        (["add", "s2", "--vtep", "192.0.2.2"], Exit.USAGE, "--datapath-id"),
        (["add", "s2", "--datapath-id", "7", "--vtep", "192.0.2.2"], Exit.INVALID, "ovs-vsctl get bridge BRIDGE"),
        (["add", "s2", "--datapath-id", ID, "--vtep", "192.0.2.2"], Exit.CONFLICT, "hawse switch rm s1"),
        (["add", "s2", "--datapath-id", ID, "--vtep", "fd00::1", "--vtep6", "fd00::2"], Exit.USAGE, "--vtep"),
        (["add", "s2", "--datapath-id", ID, "--vtep", "x"], Exit.INVALID, "10.1.0.2"),
        (["inspect", "s2"], Exit.NOT_FOUND, "there are: s1"),
        (["bind", "s1", "eth 1", "web"], Exit.INVALID, "ovs-ofctl"),
        (["bind", "s1", "0", "web"], Exit.INVALID, "1 to"),
        (["bind", "s1", "p1", "wbe"], Exit.NOT_FOUND, "did you mean web?"),
        (["bind", "s1", "p1", "web", "--ip", "fd00::1"], Exit.INVALID, "--ip6"),
        (["bind", "s1", "p1", "web", "--ip6", "fd00::1"], Exit.INVALID, "outside of network web"),
        (["bind", "s1", "p1", "web", "--mac", "ff:ff:ff:ff:ff:ff"], Exit.INVALID, "unicast"),
        (["bind", "s1", "hwvxlan", "web"], Exit.CONFLICT, "bind another port"),
        (["unbind", "s2", "p1"], Exit.NOT_FOUND, "there are: s1"),
        (["certificate", "s2", "--out", "/nowhere/at/all"], Exit.NOT_FOUND, "there are: s1"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_with_what_to_type(
    here: Centre,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    code: Exit,
    says: str,
) -> None:
    await hawse(here, *ADD)
    capsys.readouterr()
    words = [str(tmp_path / "out") if word == "/nowhere/at/all" else word for word in words]
    try:
        ended = await hawse(here, "switch", *words)
    except SystemExit as end:
        ended = int(end.code or 0)
    err = capsys.readouterr().err
    assert ended == code, err
    assert err.startswith("hawse: ")
    assert says in err


async def test_completion_knows_switches(
    here: Centre, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    complete(["switch", ""])
    assert capsys.readouterr().out.split() == ["add", "bind", "certificate", "inspect", "ls", "rm", "unbind"]
    complete(["switch", "bind", "s1", "p1", "web", "--ip"])
    assert capsys.readouterr().out.split() == ["--ip", "--ip6"]
    complete(["help", "switch"])
    assert capsys.readouterr().out.split() == ["switch", "switches"]


def test_a_switchs_version_is_its_own() -> None:
    assert differing([Part("switch", "s1", "Open vSwitch 3.1.0"), Part("agent", "h1", "unknown")]) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ssl:10.0.0.1", "ssl:10.0.0.1:6653"),
        ("tcp:[fd00::1]:7", "tcp:[fd00::1]:7"),
        ("ssl:fd00::1", "ssl:[fd00::1]:6653"),
    ],
)
def test_where_switches_connect(text: str, told: str) -> None:
    assert str(parse_openflow(text)) == told


@pytest.mark.parametrize("text", ["", "10.0.0.1", "udp:10.0.0.1", "ssl:", "ssl:x", "tcp:10.0.0.1:99999", "ssl"])
def test_where_switches_cannot_connect(text: str) -> None:
    with pytest.raises(HawseError) as refused:
        parse_openflow(text)
    assert refused.value.hint
