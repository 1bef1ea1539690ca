"""What `hawse why` and `hawse flow ls` print of an answer, and what they end with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sdn.cli import flow as flow_command
from sdn.cli import main as cli
from sdn.cli import why as why_command
from sdn.cli.completion import complete
from sdn.cli.exits import Exit


def party(name: str, host: str) -> dict[str, Any]:
    return {"name": name, "host": host, "tenant": "blue", "network": "web", "addresses": ["10.1.0.2/24", "fd00::2/64"]}


def stage(host: str, name: str, outcome: str = "pass", **more: Any) -> dict[str, Any]:
    base = {"host": host, "stage": name, "outcome": outcome, "says": f"{name} says", "table": f"table-{name}",
            "match": "what", "action": "pass it on", "missing": False, "cause": "", "packets": 7, "bytes": 700,
            "counts": "sent by it"}  # fmt: skip
    return base | more


def leg(direction: str, arrives: bool | None, *stages: dict[str, Any]) -> dict[str, Any]:
    ends = {"source": "10.1.0.2", "destination": "10.1.0.3"}
    return {"direction": direction, "arrives": arrives, "stages": list(stages)} | ends


def answer(**more: Any) -> dict[str, Any]:
    whole = (stage("h1", "source"), stage("h1", "resolve", packets=None, bytes=None), stage("h2", "deliver"))
    return {
        "source": party("blue/a", "h1"), "destination": party("blue/b", "h2"), "to": "b", "protocol": "tcp/80",
        "arrives": True, "agrees": True, "conclusion": "It arrives.", "hint": "",
        "verdict": {"arrives": True, "reason": "both are in network web", "cause": ""},
        "path": {"hosts": ["h1", "h2"], "vteps": ["192.0.2.1", "192.0.2.2"], "family": 4, "vni": 9, "mtu_bytes": 1450},
        "legs": [leg("there", True, *whole), leg("back", True, *whole)], "drops": [], "away": [],
    } | more  # fmt: skip


class Served:
    """A controller that answers one thing, and what it was asked."""

    def __init__(self, body: Any) -> None:
        self.body = body
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def get(self, path: str, **query: Any) -> Served:
        self.asked.append((path, query))
        return self


def run(monkeypatch: pytest.MonkeyPatch, body: Any, *words: str) -> tuple[int, Served]:
    served = Served(body)
    for module in (why_command, flow_command):
        monkeypatch.setattr(module, "client_of", lambda _: served)
    return cli.main([*words]), served


def test_what_arrives_is_shown_stage_by_stage(monkeypatch, capsys):
    code, served = run(monkeypatch, answer(), "why", "a", "b", "tcp/80")
    lines = capsys.readouterr().out.splitlines()
    assert code == Exit.OK
    assert served.asked == [("/v1/why", {"source": "a", "destination": "b", "protocol": "tcp/80"})]
    assert lines[0] == "blue/a (10.1.0.2, fd00::2) on h1  ->  blue/b (10.1.0.2, fd00::2) on h2   tcp/80"
    assert lines[1] == "network blue/web, VNI 9, VXLAN over IPv4 192.0.2.1 -> 192.0.2.2, MTU 1450"
    assert lines[4].split() == ["HOST", "STAGE", "OUTCOME", "ENTRY", "COUNTED"]
    assert lines[5].endswith("  7 packets, 700 bytes")
    assert lines[6].endswith("  sent by it")
    assert lines[7].endswith(" -"), "what nobody counts"
    assert "the answer 10.1.0.2 -> 10.1.0.3 passes: 3 stages" in lines
    assert lines[-1] == "It arrives."


def test_what_is_wrong_is_loud(monkeypatch, capsys):
    broken = stage("h1", "resolve", "drop", missing=True)
    told = answer(
        arrives=False, agrees=False, conclusion="The packet should arrive, but …", hint="type this",
        legs=[leg("there", False, stage("h1", "source"), broken), leg("back", True)],
        drops=[{"host": "h1", "network": "web", "cause": "multicast", "packets": 5},
               {"host": "h1", "network": "web", "cause": "ip4-spoof", "packets": 2}],
    )  # fmt: skip
    code, _ = run(monkeypatch, told, "why", "a", "b")
    text = capsys.readouterr().out
    assert code == Exit.EXPECTATION
    assert "DROP     table-resolve: what MISSING" in text
    assert "h1 has dropped in this network so far: ip4-spoof 2\n" in text
    assert text.endswith("!! The packet should arrive, but …\n   type this\n")


def test_what_should_not_arrive_lacks_nothing(monkeypatch, capsys):
    refused = stage("h1", "resolve", "drop", missing=True)
    verdict = {"arrives": False, "reason": "they are in different networks", "cause": ""}
    told = answer(arrives=False, verdict=verdict, legs=[leg("there", False, refused)], conclusion="It does not arrive.")
    assert run(monkeypatch, told, "why", "a", "b")[0] == Exit.EXPECTATION
    text = capsys.readouterr().out
    assert "table-resolve: what no entry" in text
    assert "!!" not in text


def test_a_host_that_is_away_is_an_exit_code_of_its_own(monkeypatch, capsys):
    told = answer(away=[{"host": "h2", "why": "host h2 is not connected"}], legs=[leg("there", None)])
    assert run(monkeypatch, told, "why", "a", "b")[0] == Exit.UNAVAILABLE
    assert "h2 could not be asked: host h2 is not connected" in capsys.readouterr().out


def test_a_tenants_user_sees_words_and_no_entries(monkeypatch, capsys):
    path = {"hosts": ["h1", "h2"], "vteps": [], "family": 0, "vni": 0, "mtu_bytes": 1450}
    confined = stage("h1", "source", table="", match="", action="", says="what the sender may send")
    assert run(monkeypatch, answer(path=path, legs=[leg("there", True, confined)]), "why", "a", "b")[0] == Exit.OK
    text = capsys.readouterr().out
    assert "network blue/web, MTU 1450" in text
    assert "pass     what the sender may send" in text


def test_a_long_entry_is_cut_and_json_is_not(monkeypatch, capsys):
    told = answer(legs=[leg("there", True, stage("h1", "deliver", action="x" * 500))])
    run(monkeypatch, told, "why", "a", "b")
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    assert "x…" in text
    run(monkeypatch, told, "why", "a", "b", "-o", "json")
    assert json.loads(capsys.readouterr().out) == told


def test_a_table_and_what_was_left_out(monkeypatch, capsys):
    row = {"table": "e4", "match": "m", "action": "accept", "owner": "blue/a", "tenant": "blue", "network": "web",
           "cause": "", "packets": None, "bytes": None, "counts": ""}  # fmt: skip
    drop = row | {"owner": "", "network": "", "cause": "dad", "packets": 3, "bytes": 9}
    body = {"items": [row, drop], "omitted": 12}
    code, served = run(monkeypatch, body, "flow", "ls", "h1", "--network", "blue/web", "--drops")
    lines = capsys.readouterr().out.splitlines()
    assert code == Exit.OK
    assert served.asked == [("/v1/hosts/h1/flows", {"network": "blue/web", "endpoint": None, "drops": True})]
    assert lines[1].split() == ["e4", "blue/web", "blue/a", "-", "-", "m", "accept"]
    assert lines[2].split() == ["e4", "blue", "dad", "3", "9", "m", "accept"]
    assert lines[-1] == "12 more: --network and --endpoint choose"


def test_endpoints_are_completed(monkeypatch, capsys):
    class Listed:
        def items(self, path: str) -> list[dict[str, str]]:
            assert path == "/v1/endpoints"
            return [{"name": "web-1", "tenant_name": "blue"}, {"name": "web-2"}, {"name": ""}]

    monkeypatch.setattr("sdn.cli.connection.client_of", lambda *_: Listed())
    for words in (["why", ""], ["why", "web-2", ""]):
        complete(words)
        assert capsys.readouterr().out.split() == ["blue/web-1", "web-2"]
