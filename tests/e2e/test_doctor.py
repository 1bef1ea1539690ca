"""`hawse doctor` on machines that are really broken: each fault is named while it is there, and no longer."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin.kernel import namespace
from sdn.controller.tls import open_identity
from sdn.model.version import VERSION
from tests.e2e.standing_lab import COMMAND, PATIENCE_S, Lab, environment, standing_lab

pytestmark = pytest.mark.root

TOPOLOGY = """\
underlay: {prefix4: auto, prefix6: auto}
hosts: [h1, h2]
networks:
  web: {subnets: 10.1.0.0/24}
containers:
  a1: {host: h1, networks: web}
  a2: {host: h2, networks: web}
"""
Findings = list[dict[str, Any]]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with standing_lab(TOPOLOGY) as up:
        yield up


def examine(root: str | Path, *options: str, enter: tuple[str, ...] = ()) -> Findings:
    """The findings of a root; the exit code has to fit to them."""
    done = subprocess.run(
        [*enter, *COMMAND, "--root", str(root), "doctor", "-o", "json", *options],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment(),
    )  # fmt: skip
    assert not done.stderr, done.stderr
    document = json.loads(done.stdout)
    assert done.returncode == (10 if document["verdict"] == "problem" else 0), done.stdout
    findings: Findings = document["findings"]
    for finding in findings:
        assert finding["verdict"] in ("ok", "unknown") or (finding["found"] and finding["remedy"]), finding
    return findings


def faults(findings: Findings, *checks: str) -> Findings:
    """What is a problem or a warning. Of `neighbours` (the machine's own table) no lab is to blame."""
    bad = [one for one in findings if one["verdict"] in ("problem", "warning") and one["check"] != "neighbours"]
    return [one for one in bad if one["check"] in checks] if checks else bad


def on(lab: Lab, place: str, *command: str, absent_is_fine: bool = False) -> None:
    """Run a program in the namespace of a host or of the underlay."""
    path = lab.directory.namespace(place)
    done = subprocess.run(["nsenter", f"--net={path}", *command], capture_output=True, text=True, check=False)
    assert absent_is_fine or done.returncode == 0, f"{command}: {done.stderr}"


def vtep(lab: Lab, host: str, family: int = 4) -> str:
    found: str = lab.client.get(f"/v1/hosts/{host}").body[f"vtep{family}"]
    return found


def well(lab: Lab, host: str = "h1") -> None:
    """Wait until nothing is wrong any more: agents connect again, neighbours are asked for anew."""
    end = time.monotonic() + PATIENCE_S
    while bad := faults(examine(lab.root(host))):
        assert time.monotonic() < end, bad


def test_all_is_well_and_every_path_is_measured(lab: Lab) -> None:
    findings = examine(lab.root("h1"))
    assert faults(findings) == []
    paths = [one["facts"] for one in findings if one["check"] == "path"]
    assert [(one["peer"], one["family"]) for one in paths] == [("h2", 4), ("h2", 6)]
    assert all(one["forward_bytes"] == one["backward_bytes"] == one["uplink_bytes"] == 1500 for one in paths)
    checks = {one["check"] for one in findings}
    assert checks == {
        "agent", "controller", "clock", "wiring", "versions", "uplink", "sysctls", "duplicate address", "firewall",
        "path", "kernel", "neighbours", "limits", "disk", "leftovers",
    }  # fmt: skip


def test_people_get_a_table(lab: Lab) -> None:
    done = subprocess.run([*COMMAND, "--root", lab.root("h2"), "doctor"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "✓  path" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("h2: ")


def test_one_host_alone_may_be_probed(lab: Lab) -> None:
    assert faults(examine(lab.root("h1"), "--host", "h2")) == []
    (unknown,) = faults(examine(lab.root("h1"), "--host", "h9"))
    assert "no other host h9" in unknown["found"]


RULES = (
    'table inet mine {\n chain early { udp dport 4000-5000 ip saddr != 198.51.100.1 drop comment "closed"\n }\n'
    " chain in { type filter hook input priority 0; policy accept;\n"
    " ct state established,related accept\n meta l4proto { icmp, ipv6-icmp } accept\n"
    " meta l4proto udp jump early\n }\n}"
)


@contextlib.contextmanager
def rules(lab: Lab, host: str, text: str) -> Iterator[None]:
    path = lab.directory.namespace(host)
    subprocess.run(["nsenter", f"--net={path}", "nft", "-f", "-"], input=text, text=True, check=True)
    try:
        yield
    finally:
        on(lab, host, "nft", "delete", "table", "inet", "mine")


def test_a_rule_that_drops_tunnels_is_named_and_its_remedy_works(lab: Lab) -> None:
    with rules(lab, "h1", RULES):
        findings = examine(lab.root("h1"))
        (rule,) = faults(findings, "firewall")
        assert rule["verdict"] == "problem"
        facts = rule["facts"]
        assert (facts["family"], facts["table"], facts["chain"], facts["base_chain"]) == ("inet", "mine", "early", "in")
        listed = subprocess.run(
            ["nsenter", f"--net={lab.directory.namespace('h1')}", "nft", "-a", "list", "table", "inet", "mine"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert f'drop comment "closed" # handle {facts["handle"]}' in listed
        (blocked,) = faults(findings, "path")  # the rule is of IPv4
        assert "does not arrive here" in blocked["found"]  # the ack passes, as a reply, and tells it from the echo
        (there,) = faults(examine(lab.root("h2")))
        assert there["found"].startswith(f"UDP 4789 to h1 ({vtep(lab, 'h1')}) is blocked, though it answers to ping")

        on(lab, "h1", *rule["remedy"][0].split())
        assert faults(examine(lab.root("h1"))) == []
    assert faults(examine(lab.root("h1"))) == []


def test_a_policy_that_drops_is_named(lab: Lab) -> None:
    text = "table inet mine {\n chain out { type filter hook output priority 0; policy drop;\n tcp dport 4780 accept\n"
    text += " meta l4proto { icmp, ipv6-icmp } accept\n }\n}"
    with rules(lab, "h1", text):
        findings = examine(lab.root("h1"))
        (policy,) = faults(findings, "firewall")
        assert policy["found"].startswith("the policy of nft table inet mine, chain out drops tunnel packets")
        assert policy["facts"]["handle"] is None
        assert {one["verdict"] for one in faults(findings, "path")} == {"problem"}
    assert faults(examine(lab.root("h1"))) == []


def test_what_only_may_drop_is_refuted_by_probes(lab: Lab) -> None:
    text = "table inet mine {\n chain in { type filter hook input priority 0; policy accept;\n"
    with rules(lab, "h1", text + " meta mark & 0x8000 == 0x8000 drop\n }\n}"):
        findings = examine(lab.root("h1"))
        assert faults(findings) == []
        assert any("probes pass" in one["found"] for one in findings if one["check"] == "firewall")


def test_a_narrow_path_is_measured_to_the_byte_in_both_directions(lab: Lab) -> None:
    on(lab, "underlay", "ip", "link", "set", "port2", "mtu", "1437")
    try:
        narrow = faults(examine(lab.root("h1")))
        # IPv4 carries the tunnels, and needs 1500; of IPv6 nothing is needed while both have IPv4.
        (four,) = narrow
        assert (four["check"], four["verdict"], four["facts"]["family"]) == ("path", "problem", 4)
        assert (four["facts"]["forward_bytes"], four["facts"]["backward_bytes"]) == (1437, 1437)
        assert four["facts"]["needed_bytes"] == 1500
        assert "--mtu 1387" in four["remedy"][1]
    finally:
        on(lab, "underlay", "ip", "link", "set", "port2", "mtu", "1500")
    assert faults(examine(lab.root("h1"))) == []


def test_an_uplink_that_is_too_small_for_the_networks(lab: Lab) -> None:
    on(lab, "h2", "ip", "link", "set", "eth0", "mtu", "1400")
    try:
        (small,) = faults(examine(lab.root("h2")), "path")
        assert small["facts"]["uplink_bytes"] == 1400
        assert "the uplink here takes 1400" in small["remedy"][0]
    finally:
        on(lab, "h2", "ip", "link", "set", "eth0", "mtu", "1500")
    well(lab, "h2")


@contextlib.contextmanager
def another_machine(lab: Lab, directory: Path, *addresses: str) -> Iterator[str]:
    """A machine on the underlay's segment, with these addresses; its MAC."""
    place, mac = directory / "stranger", "02:00:00:00:be:ef"
    namespace.create(place)
    try:
        link = ["ip", "link", "add", "stranger", "master", "br0", "type", "veth", "peer", "name", "eth0"]
        on(lab, "underlay", *link, "address", mac, "netns", str(place))
        on(lab, "underlay", "ip", "link", "set", "stranger", "up")
        inside = ["nsenter", f"--net={place}", "ip"]
        subprocess.run([*inside, "link", "set", "eth0", "up"], check=True)
        for address in addresses:
            subprocess.run([*inside, "address", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else [])],
                           check=True)  # fmt: skip
        yield mac
    finally:
        on(lab, "underlay", "ip", "link", "del", "stranger", absent_is_fine=True)
        namespace.remove(place)
        for where, link_name in (("underlay", "br0"), ("h1", "eth0"), ("h2", "eth0")):
            on(lab, where, "ip", "neigh", "flush", "dev", link_name)


@pytest.mark.parametrize("family", [4, 6])
def test_another_machine_with_this_hosts_address(lab: Lab, tmp_path: Path, family: int) -> None:
    address = vtep(lab, "h1", family)
    with another_machine(lab, tmp_path, f"{address}/{24 if family == 4 else 64}") as mac:
        (twice,) = faults(examine(lab.root("h1")), "duplicate address")
        assert twice["facts"] == {"vtep": address, "macs": [mac]}
    well(lab)


def test_a_route_that_leads_elsewhere_and_one_that_leads_nowhere(lab: Lab) -> None:
    there = vtep(lab, "h2")
    on(lab, "h1", "ip", "link", "add", "aside", "type", "veth", "peer", "name", "aside2")
    try:
        on(lab, "h1", "ip", "link", "set", "aside", "up")
        on(lab, "h1", "ip", "link", "set", "aside2", "up")
        on(lab, "h1", "ip", "route", "add", there, "dev", "aside")
        findings = examine(lab.root("h1"))
        (aside,) = faults(findings, "uplink")
        assert f"the route to host h2 ({there}) leads out of aside" in aside["found"]
        assert [one["facts"]["family"] for one in faults(findings, "path")] == [4]
        on(lab, "h1", "sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=1")
        assert "rp_filter is strict" in faults(examine(lab.root("h1")), "uplink")[0]["found"]
        on(lab, "h1", "ip", "route", "replace", "unreachable", there)
        (nowhere,) = faults(examine(lab.root("h1")), "uplink")
        assert f"no route to host h2 at {there}" in nowhere["found"]
    finally:
        on(lab, "h1", "ip", "route", "del", there, absent_is_fine=True)
        on(lab, "h1", "ip", "route", "del", "unreachable", there, absent_is_fine=True)
        on(lab, "h1", "ip", "link", "del", "aside")
        on(lab, "h1", "sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=0")
    well(lab)


def test_a_cable_that_is_out(lab: Lab) -> None:
    on(lab, "underlay", "ip", "link", "set", "port1", "down")
    try:
        findings = examine(lab.root("h1"))
        assert all("eth0, which has no carrier" in one["found"] for one in faults(findings, "uplink"))
        assert len(faults(findings, "uplink")) == 2
        assert {one["verdict"] for one in faults(findings, "controller")} == {"problem"}
    finally:
        on(lab, "underlay", "ip", "link", "set", "port1", "up")
    well(lab)


def test_namespaces_that_a_crash_has_left(lab: Lab) -> None:
    pin = lab.directory.root("h1").netns / "t-nothing"
    pin.touch()
    try:
        (left,) = faults(examine(lab.root("h1")))
        assert left["check"] == "leftovers"
        assert str(pin) in left["found"]
    finally:
        pin.unlink(missing_ok=True)


# Roots whose agent does not run ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def false_controller(ns: Path, directory: Path, ahead_s: float) -> Iterator[tuple[str, str]]:
    """Something that answers as a controller would, by another clock: its URL and authority."""
    identity = open_identity(directory)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fields = {"authority": identity.bundle, "fingerprint": identity.fingerprint, "version": VERSION}
            body = json.dumps(fields | {"time_s": time.time() + ahead_s}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass  # a client that trusts nobody hangs up

    with open(ns) as opened:
        listener = namespace.socket_in(opened.fileno(), socket.AF_INET, socket.SOCK_STREAM, 0)
    server = Server(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server.socket = tls(identity.server_context(), listener)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.socket.getsockname()[1]}", identity.bundle
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def tls(context: ssl.SSLContext, listener: socket.socket) -> ssl.SSLSocket:
    return context.wrap_socket(listener, server_side=True, do_handshake_on_connect=False)


@pytest.fixture
def root(lab: Lab, tmp_path: Path) -> Path:
    """A root with h1's configuration, and no daemon."""
    (tmp_path / "root" / "state").mkdir(parents=True)
    shutil.copy(lab.directory.root("h1").agent_file, tmp_path / "root" / "state" / "agent.json")
    return tmp_path / "root"


def configure(root: Path, **change: Any) -> None:
    file = root / "state" / "agent.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def inside(lab: Lab) -> tuple[str, ...]:
    return ("nsenter", f"--net={lab.directory.namespace('h1')}")


@pytest.mark.parametrize(("ahead_s", "verdict"), [(0.0, None), (30.0, "warning"), (3600.0, "problem")])
def test_a_controller_with_another_clock(
    lab: Lab, root: Path, tmp_path: Path, ahead_s: float, verdict: str | None
) -> None:
    with false_controller(lab.directory.namespace("h1"), tmp_path / "tls", ahead_s) as (url, authority):
        fingerprint = open_identity(tmp_path / "tls").fingerprint
        configure(root, controllers=[url], authority=authority, fingerprint=fingerprint)
        findings = examine(root, enter=inside(lab))
    assert faults(findings, "controller") == []
    clock = faults(findings, "clock")
    assert [one["verdict"] for one in clock] == ([verdict] if verdict else [])
    for one in clock:
        assert abs(one["facts"]["offset_s"] - ahead_s) < 5
        assert "behind that of" in one["found"]


def test_a_machine_that_is_about_to_join_can_look_whether_the_controller_is_there(lab: Lab, tmp_path: Path) -> None:
    (url, *_) = json.loads(lab.directory.root("h1").agent_file.read_text())["controllers"]
    findings = examine(tmp_path, "--controller", url, enter=inside(lab))
    assert faults(findings) == []
    assert any(one["check"] == "controller" and one["facts"] == {"url": url} for one in findings)
    (away,) = faults(examine(tmp_path, "--controller", "https://127.0.0.1:9", enter=inside(lab)), "controller")
    assert "refused" in away["found"]


def test_somebody_else_at_the_controllers_address(lab: Lab, root: Path, tmp_path: Path) -> None:
    with false_controller(lab.directory.namespace("h1"), tmp_path / "tls", 0.0) as (url, _):
        configure(root, controllers=[url])
        (stranger,) = faults(examine(root, enter=inside(lab)), "controller")
    pinned = json.loads((root / "state" / "agent.json").read_text())["fingerprint"]
    assert pinned in stranger["found"]
    assert open_identity(tmp_path / "tls").fingerprint in stranger["found"]


def test_an_agent_that_does_not_run_and_a_controller_that_refuses(lab: Lab, root: Path) -> None:
    configure(root, controllers=["https://127.0.0.1:9"])
    findings = examine(root, enter=inside(lab))
    (agent,) = faults(findings, "agent")
    assert "the agent is not running" in agent["found"]
    (refused,) = faults(findings, "controller")
    assert "refused" in refused["found"]


def test_a_machine_without_anything(lab: Lab, tmp_path: Path) -> None:
    findings = examine(tmp_path, enter=inside(lab))
    assert faults(findings) == []
    (agent,) = [one for one in findings if one["check"] == "agent"]
    assert (agent["verdict"], "the machine alone" in agent["found"]) == ("unknown", True)


def test_without_root_it_says_what_it_could_not_look_at(lab: Lab) -> None:
    done = subprocess.run(
        [*inside(lab), "setpriv", "--reuid=65534", "--clear-groups", *COMMAND, "doctor", "-o", "json"],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=os.path.dirname(sys.prefix) or "/",
        env=environment(HAWSE_ROOT=lab.root("h1")),
    )  # fmt: skip
    assert not done.stderr
    findings = json.loads(done.stdout)["findings"]
    dark = {one["check"]: one["found"] for one in findings if one["verdict"] == "unknown"}
    assert {"agent", "kernel", "firewall"} <= dark.keys()
    assert "root" in dark["kernel"]
