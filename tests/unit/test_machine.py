"""The parts of a machine that need no machine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn.cli.exits import EXITS, Exit
from sdn.client.client import Client, Reply
from sdn.machine import join, log_lines, record, redaction, start, units, versions
from sdn.machine.address import parse_vteps
from sdn.machine.monitor import BACKOFF_FIRST_S, BACKOFF_MAX_S, HEALED_S, next_delay_s
from sdn.machine.process import KINDS
from sdn.machine.record import Machine, Place, daemon_environment, daemon_words, read_machine, write_machine
from sdn.machine.teller import Foreground
from sdn.model.errors import HawseError, Kind, denied
from sdn.model.version import VERSION
from sdn.service.roots import find_root


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A root that is nothing yet."""
    root = find_root(str(tmp_path / "r"))
    root.create()
    return Place(root, str(root.run))


def test_kinds_of_a_daemons_exit_codes_are_those_of_the_command():
    assert {Exit(code): kind for code, kind in KINDS.items()} == {
        exit_: kind for kind, exit_ in EXITS.items() if kind is not Kind.INTERNAL
    }


def test_a_daemon_that_keeps_dying_is_started_later_each_time_and_soon_again_when_it_was_well():
    delays = [0.0]
    for _ in range(10):
        delays.append(next_delay_s(delays[-1], 1.0, served=True))
    assert delays[1] == BACKOFF_FIRST_S
    assert delays == sorted(delays)
    assert delays[-1] == BACKOFF_MAX_S
    assert next_delay_s(BACKOFF_MAX_S, HEALED_S, served=True) == BACKOFF_FIRST_S
    assert next_delay_s(BACKOFF_MAX_S, HEALED_S, served=False) == BACKOFF_MAX_S


def test_a_line_of_a_log_is_shown_with_its_name_in_front():
    line = "timestamp='2026-01-02T03:04:05.678901Z' level='info' event='stream opened' part='agent' host='h1' n=1"
    assert log_lines.pretty("agent", line, colour=False) == "03:04:05  agent       stream opened  host='h1' n=1"
    assert log_lines.pretty("agent", line, colour=True).endswith("stream opened  host='h1' n=1")
    assert "\x1b[32magent" in log_lines.pretty("agent", line, colour=True)
    odd = "timestamp='2026-01-02T03:04:05Z' level='warning' event=\"it's gone\" part='machine' pid=1"
    assert log_lines.pretty("machine", odd, colour=False) == "03:04:05  machine     ! it's gone  pid=1"
    assert log_lines.pretty("agent", "hawse: no\x1b[2J", colour=False).endswith("!! hawse: no\\x1b[2J")


@given(st.text(max_size=200))
def test_no_line_breaks_the_terminal(line: str):
    assert log_lines.pretty("agent", line, colour=False).isprintable()


def test_files_are_followed_also_when_they_are_cut(tmp_path: Path):
    path, told = tmp_path / "agent.log", []
    path.write_text("before\n")
    follower = log_lines.Follower({"agent": path}, lambda name, line: told.append((name, line)))
    try:
        with open(path, "a") as file:
            file.write("one\ntw")
            file.flush()
            follower.read()
            assert told == [("agent", "one")]
            file.write("o\n")
            file.flush()
            follower.read()
            log_lines.cut_large([path], limit=1)
            assert (tmp_path / "agent.log.1").read_text() == "before\none\ntwo\n"
            file.write("3\n")
            file.flush()
        follower.read()
        assert told == [("agent", "one"), ("agent", "two"), ("agent", "3")]
    finally:
        follower.close()


def test_a_machine_is_remembered_and_a_damaged_record_refused(place: Place):
    assert read_machine(place.root) is None
    listen, pool, openflow = ("10.0.0.1:4780",), ("10.9.0.0/16",), ("ssl:10.0.0.1:6653",)
    machine = Machine(daemons=record.FIRST, name="h1", listen=listen, pool=pool, openflow=openflow)
    write_machine(place.root, machine)
    assert read_machine(place.root) == machine
    assert daemon_words(machine, "controller", machine.listen) == [
        "controller", "--listen", "10.0.0.1:4780", "--pool", "10.9.0.0/16", "--openflow", "ssl:10.0.0.1:6653",
    ]  # fmt: skip
    for damaged in ("{", "[]", '{"daemons": ["ls"], "name": "x"}', '{"daemons": [], "name": "x"}'):
        place.root.machine_file.write_text(damaged)
        with pytest.raises(HawseError, match="hawse up") as caught:
            read_machine(place.root)
        assert caught.value.kind is Kind.INVALID


def test_daemons_inherit_nothing_that_leads_elsewhere(monkeypatch: pytest.MonkeyPatch):
    for name in ("HAWSE_ROOT", "HAWSE_TOKEN", "HAWSE_CONTROLLER", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("LANG", "C")
    environment = daemon_environment()
    assert "LANG" in environment
    assert not [name for name in environment if name.startswith("HAWSE_") or name == "NOTIFY_SOCKET"]


def test_what_a_machine_is_decides_what_it_can_become(place: Place):
    wishes = start.Wishes(name="h1")
    assert start.decide(place, wishes).daemons == record.FIRST
    write_machine(place.root, Machine(daemons=record.JOINED, name="h2", url="https://10.0.0.1:4780"))
    assert start.decide(place, start.Wishes()).daemons == record.JOINED
    with pytest.raises(HawseError, match="cannot become h1"):
        start.decide(place, wishes)
    with pytest.raises(HawseError, match="has no controller"):
        start.decide(place, start.Wishes(pool=("10.0.0.0/8",)))


def test_what_is_remembered_can_be_taken_back(place: Place):
    write_machine(place.root, Machine(daemons=record.FIRST, name="h1", listen=("10.0.0.1:4780",), discoverable=True))
    assert not start.differs(place, start.Wishes())
    assert not start.differs(place, start.Wishes(name="h1", listen=("10.0.0.1:4780",), discoverable=True))
    taken = start.Wishes(listen=start.AUTOMATIC, discoverable=False)
    assert start.differs(place, taken)
    found = start.decide(place, taken)
    assert (found.listen, found.discoverable) == ((), False)


def test_who_was_killed_after_the_machine_had_joined_has_joined(place: Place):
    identity = {"host": "i", "name": "h7", "secret": "s", "authority": "a", "fingerprint": "f"}
    place.root.agent_file.write_text(json.dumps(identity | {"controllers": ["https://10.0.0.1:4780"]}))
    found = start.decide(place, start.Wishes())
    assert (found.daemons, found.name, found.url) == (record.JOINED, "h7", "https://10.0.0.1:4780")
    place.root.agent_file.write_text(json.dumps(identity))
    with pytest.raises(HawseError, match="controllers missing"):
        start.decide(place, start.Wishes())


@pytest.mark.parametrize(
    ("name", "host"),
    [("web-1.example.org", "web-1"), ("My_Host", "my-host"), ("---", "host"), ("a" * 80, "a" * 63), ("ÄÖ", "host")],
)
def test_a_hosts_name_comes_of_the_machines(monkeypatch: pytest.MonkeyPatch, name: str, host: str):
    monkeypatch.setattr("socket.gethostname", lambda: name)
    assert start.host_name() == host


def test_vteps_are_one_of_each_family():
    assert parse_vteps(["10.0.0.1", "fd00::1"]) == {"vtep4": "10.0.0.1", "vtep6": "fd00::1"}
    with pytest.raises(HawseError, match=r"10\.0\.0\.1 already"):
        parse_vteps(["10.0.0.1", "10.0.0.2"])


@pytest.mark.parametrize(
    ("ahead_s", "said"),
    [(30.0, ""), (-59.0, ""), (3600.0, "60 min ahead of"), (-7200.0, "2.0 h behind"), (61.0, "61 s ahead of")],
)
def test_a_clock_that_differs_is_said(place: Place, ahead_s: float, said: str):
    output = io.StringIO()
    join._compare_clocks(ahead_s, "https://10.0.0.1:4780", Foreground(place, output))
    assert said in output.getvalue()
    assert bool(output.getvalue()) == bool(said)


@pytest.mark.parametrize(
    "text",
    [
        "token=hawse-join-0123456789abcdefghjk end",
        "curl -H 'Authorization: Bearer abc.def-ghi' x",
        "authorization: basic dXNlcjpwYXNz",
        '{"secret": "abc.def-ghi", "x": 1}',
        "{'password': 'abc.def-ghi'}",
        "DB_PASSWORD=abc.def-ghi next",
        "client_secret = abc.def-ghi",
        "-----BEGIN EC PRIVATE KEY-----\nabc.def-ghi\n-----END EC PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nabc.def-ghi and the rest is cut off",
        "01m82w58ytnzsn6xsbrhbrx6yv:abcdefghijklmnopqrstuvwx",
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str):
    redacted = redaction.redact(text)
    for secret in ("abc.def-ghi", "0123456789abcdefghjk", "dXNlcjpwYXNz", "abcdefghijklmnopqrstuvwx"):
        assert secret not in redacted
    assert redaction.GONE in redacted


def test_what_is_none_stays():
    text = "10.1.0.2/24 dev eth0 0a:f2:0a:01:00:04 tokens used: 3 host='h1' fe80::8f2:aff:fe01:4 secretary"
    assert redaction.redact(text) == text


@given(st.lists(st.text("abc{}:,'\" \n=", max_size=20)), st.text("0123456789abcdef", min_size=16, max_size=64))
def test_a_known_secret_is_taken_out_wherever_it_is(around: list[str], secret: str):
    assert secret not in redaction.redact(secret.join(around), [secret])


class TenantsClient:
    """A controller, as a tenant's user sees it."""

    url = "https://10.0.0.1:4780"

    def get(self, path: str, timeout_s: float) -> Reply:
        assert (path, timeout_s > 0) == ("/v1/status", True)
        return Reply(200, {}, {"version": "9.9.9"})

    def items(self, path: str) -> Iterator[object]:
        raise denied(f"GET {path} is for administrators")


def test_who_may_not_see_hosts_is_told_the_controllers_version(place: Place):
    found = versions.versions(place, cast(Client, TenantsClient()))
    assert versions.Part("controller", TenantsClient.url, "9.9.9") in found


def test_versions_that_differ_are_pointed_out():
    parts = [versions.Part("agent", where, version) for where, version in
             (("h1", VERSION), ("h2", "0.0.1"), ("h3", ""), ("h4", "unknown"))]  # fmt: skip
    assert [part.where for part in versions.differing(parts)] == ["h2"]


def test_a_title_is_wiped():
    code = (
        "import sys; from pathlib import Path; from sdn.service.libc import wipe_title\n"
        "wipe_title(sys.argv[1]); print(Path('/proc/self/cmdline').read_bytes())"
    )
    words = [sys.executable, "-c", code, "hawse-join-secret", "and", "hawse-join-secret"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "hawse-join-secret" not in shown
    assert shown.count("x" * len("hawse-join-secret")) == 2
    assert "and" in shown


def test_systemd_is_told_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tool, log = tmp_path / "systemctl", tmp_path / "log"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {log}\n[ "$1" != fail ] || {{ echo it is broken >&2; exit 3; }}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(units, "runs_here", lambda: True)
    units.systemctl("enable", "--now", "hawse-agent.service")
    assert log.read_text() == "enable --now hawse-agent.service\n"
    with pytest.raises(HawseError, match="it is broken"):
        units.systemctl("fail")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(HawseError, match="not run by systemd"):
        units.systemctl("daemon-reload")


def test_a_unit_is_known_by_the_cgroup_of_its_daemon(place: Place, monkeypatch: pytest.MonkeyPatch):
    assert units.active(place) == ""
    monkeypatch.setattr(units, "running_pid", lambda root, daemon: os.getpid() if daemon == "agent" else None)
    assert units.active(place) == ""
    monkeypatch.setattr(Path, "read_text", lambda path: "1:name=systemd:/\n0::/system.slice/hawse-agent.service\n")
    assert units.active(place) == "hawse-agent.service"
    assert start.already_up(place) == "systemd: hawse-agent.service"
