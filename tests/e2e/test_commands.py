"""Every command, used rightly: what it prints for people and for programs, and what is there afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdn.cli.exits import Exit
from sdn.model.version import VERSION
from tests.e2e.standing_lab import COMMAND, PATIENCE_S, Lab, environment, hawse, standing_lab

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with standing_lab() as up:
        yield up


@pytest.fixture(autouse=True)
def tidy(lab: Lab) -> Iterator[None]:
    """No test leaves an endpoint to the next."""
    yield
    for endpoint in lab.client.items("/v1/endpoints"):
        lab.client.delete(f"/v1/endpoints/{endpoint['id']}")


def table(text: str) -> list[list[str]]:
    """The rows of a printed table, header first."""
    return [line.split() for line in text.splitlines() if line]


# --- tenants and networks ---


def test_a_tenants_life(lab: Lab) -> None:
    assert lab.run("h1", "tenant", "create", "green", "--label", "owner=ann", "--wait") .splitlines() == [
        "green", "no host is concerned: nothing to wait for",
    ]  # fmt: skip
    names = [row[0] for row in table(lab.run("h1", "tenant", "ls"))]
    assert names[:2] == ["TENANT", "default"]  # by age; the lab makes its two at once
    assert (set(names[2:4]), names[4:]) == ({"blue", "red"}, ["green"])
    assert [tenant["name"] for tenant in lab.json("h1", "tenant", "ls", "--label", "owner=ann")] == ["green"]
    with lab.network("green/app"):
        assert "networks: app" in lab.run("h1", "tenant", "inspect", "green")
        assert lab.json("h1", "tenant", "inspect", "green")["labels"] == {"owner": "ann"}
        assert "tenant green has 1 network: app" in lab.run("h1", "tenant", "rm", "green", code=Exit.CONFLICT)
    assert lab.run("h1", "tenant", "rm", "green") == "green\n"
    assert "there is no tenant 'green': nothing to remove" in lab.run("h1", "tenant", "rm", "green")
    gone = lab.json("h1", "tenant", "rm", "green")
    assert (gone["removed"], gone["absent"]) == ([], ["green"])


def test_a_networks_life(lab: Lab) -> None:
    options = ["--subnet", "10.3.0.0/24", "--gateway", "10.3.0.254", "--range", "10.3.0.100-10.3.0.200",
               "--reserve", "10.3.0.7", "--subnet", "fd00:3::/64", "--mtu", "1400", "--label", "tier=1"]  # fmt: skip
    made = lab.run("h1", "network", "create", "blue/app", *options)
    assert made.startswith("blue/app  10.3.0.0/24, fd00:3::/64  VNI ")
    assert made.endswith("MTU 1400\n")
    listed = lab.json("h1", "network", "ls", "--tenant", "blue")
    assert [network["name"] for network in listed] == ["web", "app"]
    assert [network["name"] for network in lab.json("h1", "network", "ls", "--label", "tier=1")] == ["app"]
    assert ["blue", "app", "10.3.0.0/24,fd00:3::/64", str(listed[1]["vni"]), "1400", "tier=1"] in table(
        lab.run("h1", "network", "ls")
    )
    shown = lab.run("h1", "network", "inspect", "blue/app")
    assert f"tenant:    blue ({listed[1]['tenant']})" in shown
    assert ["10.3.0.0/24", "10.3.0.254", "10.3.0.100-10.3.0.200", "10.3.0.7", "0", "4", "252"] in table(shown)
    assert "CONTAINER" not in shown
    assert lab.json("h1", "network", "inspect", "blue/app")["usage"][0]["free"] == 252
    nobodys = listed[0]["id"][:-1] + ("1" if listed[0]["id"].endswith("0") else "0")
    assert lab.run("h1", "network", "rm", "blue/app", nobodys).startswith("blue/app\n")
    assert [network["name"] for network in lab.json("h1", "network", "ls", "--tenant", "blue")] == ["web"]


def test_subnets_are_chosen_beside_what_is_there(lab: Lab) -> None:
    with lab.network("one", "--ipv6"), lab.network("two", "--ipv6", "--no-ipv4"):
        one, two = (lab.json("h1", "network", "inspect", name)["subnets"] for name in ("one", "two"))
        assert [":" in subnet["prefix"] for subnet in (*one, *two)] == [False, True, True]
        assert len({subnet["prefix"] for subnet in (*one, *two)}) == 3


def test_a_live_network_gets_labels_and_a_subnet(lab: Lab) -> None:
    with lab.network("live", "--subnet", "10.4.0.0/24", "--label", "a=1"):
        lab.run("h1", "network", "attach", "live", "a1")
        updated = lab.run("h1", "network", "update", "live", "--subnet", "10.5.0.0/24", "--gateway", "10.5.0.9",
                          "--label", "b=2", "--rm-label", "a", "--wait")  # fmt: skip
        assert "10.4.0.0/24, 10.5.0.0/24" in updated
        assert ["h1", "applied", "-"] in table(updated)
        network = lab.json("h1", "network", "inspect", "live")
        assert network["labels"] == {"b": "2"}
        assert network["subnets"][1]["gateway"] == "10.5.0.9"
        lab.run("h1", "network", "attach", "live", "a2", "--ip", "10.5.0.10")
        lab.run("h2", "network", "attach", "live", "b1", "--ip", "10.5.0.11", "--wait")
        assert lab.inside("a2", "ping", "-c1", "-W10", "10.5.0.11").returncode == 0
        assert lab.inside("a2", "ping", "-c1", "-W10", "10.5.0.9").returncode == 0
        shown = table(lab.run("h1", "network", "inspect", "live"))
        assert [row[:4] for row in shown if row[0] == "h2"] == [["h2", lab.info("b1")["id"], "eth0", "10.5.0.11/24"]]


# --- attach and detach ---


def test_attach_by_container_with_every_wish(lab: Lab) -> None:
    with lab.network("dual", "--subnet", "10.6.0.0/24", "--subnet", "fd00:6::/64"):
        wishes = ["--ip", "10.6.0.50", "--ip", "fd00:6::50", "--mac", "0A-00-00-00-00-09", "--name", "db",
                  "--alias", "store", "--label", "a=b", "--ifname", "data0"]  # fmt: skip
        made = lab.json("h1", "network", "attach", "dual", "a1", *wishes)
        assert (made["ifname"], made["mac"]) == ("data0", "0a:00:00:00:00:09")
        assert made["addresses"] == ["10.6.0.50/24", "fd00:6::50/64"]
        link = json.loads(lab.inside("a1", "ip", "-j", "addr", "show", "data0").stdout)[0]
        assert (link["address"], link["mtu"]) == ("0a:00:00:00:00:09", made["mtu_bytes"])
        assert {"10.6.0.50", "fd00:6::50"} <= {address["local"] for address in link["addr_info"]}
        for reference in ("db", "default/db", made["endpoint"]):
            assert lab.json("h1", "endpoint", "inspect", reference)["id"] == made["endpoint"]
        shown = lab.run("h1", "endpoint", "inspect", "db")
        assert f"network:     dual ({made['network']})" in shown
        assert "aliases:     store" in shown
        found = lab.json("h1", "endpoint", "ls", "--label", "a=b", "--host", "h1", "--network", "dual")
        assert [endpoint["id"] for endpoint in found] == [made["endpoint"]]
        assert lab.json("h1", "endpoint", "ls", "--host", "h2") == []
        assert table(lab.run("h1", "endpoint", "ls", "--tenant", "default"))[1][4:7] == [
            lab.info("a1")["id"], "data0", "10.6.0.50/24,fd00:6::50/64",
        ]  # fmt: skip


def test_asking_again_for_the_same_is_answered_with_it(lab: Lab) -> None:
    first = lab.json("h1", "network", "attach", "web", "a1", "--ifname", "eth0", "--ip", "10.1.0.9", "--name", "db")
    with lab.unchanged():
        again = lab.json("h1", "network", "attach", "web", "a1", "--ifname", "eth0", "--name", "db")
    assert (again["endpoint"], again["addresses"]) == (first["endpoint"], ["10.1.0.9/24"])


def test_a_namespace_names_itself_and_the_next_free_name_is_taken(lab: Lab) -> None:
    lab.run("h1", "network", "attach", "web", "a1")
    by_pid = lab.json("h1", "network", "attach", "blue/web", "--pid", str(lab.info("a1")["pid"]))
    by_path = lab.json("h1", "network", "attach", "red/web", "--netns", str(lab.place("a1")))
    assert (by_pid["ifname"], by_path["ifname"]) == ("eth1", "eth2")
    cookie = lab.cookie("a1")
    containers = {e["ifname"]: e["container"] for e in lab.json("h1", "endpoint", "ls")}
    assert containers == {"eth0": lab.info("a1")["id"], "eth1": f"netns-{cookie}", "eth2": f"netns-{cookie}"}
    assert {"eth0", "eth1", "eth2"} <= set(lab.interfaces()["a1"])
    assert by_pid["sandbox"] == cookie

    assert lab.json("h1", "network", "detach", "blue/web", "--pid", str(lab.info("a1")["pid"]))["ifname"] == "eth1"
    path = str(lab.place("a1"))
    assert lab.run("h1", "network", "detach", "red/web", "--netns", path) == "eth2  10.1.0.2/24  detached\n"
    assert lab.run("h1", "network", "detach", "web", "a1", "--ifname", "eth0") == "eth0  10.1.0.2/24  detached\n"
    assert lab.json("h1", "endpoint", "ls") == []
    assert not [name for name in lab.interfaces()["a1"] if name.startswith("eth")]


def test_detach_of_nothing_says_so_and_of_one_of_several_asks_which(lab: Lab) -> None:
    with lab.unchanged():
        assert "nothing to detach" in lab.run("h1", "network", "detach", "web", "a2")
        assert "nothing to detach" in lab.run("h1", "network", "detach", "nowhere", "a2")
    lab.run("h1", "network", "attach", "web", "a2")
    lab.run("h1", "network", "attach", "web", "a2")
    with lab.unchanged():
        assert "eth0, eth1" in lab.run("h1", "network", "detach", "web", "a2", code=Exit.CONFLICT)
        assert "no interface eth0 in blue/web" in lab.run(
            "h1", "network", "detach", "blue/web", "a2", "--ifname", "eth0"
        )
    assert lab.run("h1", "network", "detach", "web", "a2", "--ifname", "eth1").startswith("eth1")
    assert lab.run("h1", "network", "detach", "web", "a2").startswith("eth0")


# --- waiting, hosts, events, drops ---


def test_wait_ends_with_a_table_of_the_hosts_concerned(lab: Lab) -> None:
    lab.run("h2", "network", "attach", "web", "b1")
    waited = lab.run("h1", "network", "attach", "web", "a1", "--wait=5")
    assert table(waited)[1:] == [["HOST", "STATE", "WHY"], ["h1", "applied", "-"], ["h2", "applied", "-"]]
    as_json = lab.json("h1", "network", "attach", "web", "a2", "--wait")
    assert as_json["settled"]
    assert as_json["result"]["ifname"] == "eth0"
    assert [host["state"] for host in as_json["hosts"]] == ["applied", "applied"]


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that is there and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_wait_for_a_host_that_hangs_ends_with_9(lab: Lab) -> None:
    lab.run("h2", "network", "attach", "web", "b1")
    with stopped(lab.daemon("h2").pid):
        late = lab.run("h1", "network", "attach", "web", "a1")
        assert "not yet acknowledged by: h2" in late
        done = hawse("--root", lab.root("h1"), "network", "update", "web", "--label", "x=1", "--wait=0.2", code=9)
        assert ["h2", "late", "-"] in table(done.stdout)
        assert "not every host was in step after 0.2 s" in done.stderr
    assert ["h2", "applied", "-"] in table(lab.run("h1", "network", "update", "web", "--rm-label", "x", "--wait"))


def test_hosts_are_listed_shown_and_forgotten(lab: Lab) -> None:
    rows = table(lab.run("h1", "host", "ls"))
    assert [row[:2] for row in rows] == [["HOST", "STATE"], ["h1", "connected"], ["h2", "connected"]]
    assert lab.json("h1", "host", "inspect", "h1")["connected"]
    assert "vtep4:            100.64.0.11" in lab.run("h1", "host", "inspect", "h1")
    with lab.unchanged():
        assert "host h1 is connected" in lab.run("h1", "host", "forget", "h1", code=Exit.CONFLICT)
    lab.client.post("/v1/hosts", {"name": "ghost", "labels": {"rack": "7"}})
    assert [host["name"] for host in lab.json("h1", "host", "ls", "--label", "rack=7")] == ["ghost"]
    assert ["ghost", "away"] in [row[:2] for row in table(lab.run("h1", "host", "ls"))]
    assert lab.run("h1", "host", "forget", "ghost") == "ghost\n"
    assert "nothing to remove" in lab.run("h1", "host", "forget", "ghost")


def test_events_from_a_revision_name_what_happened(lab: Lab) -> None:
    since = lab.revision()
    lab.run("h1", "network", "attach", "blue/web", "a1", "--name", "db", "--ip", "10.1.0.77")
    lab.run("h1", "network", "detach", "blue/web", "a1")
    lines = lab.run("h1", "events", "--since", str(since), "--no-follow").splitlines()
    assert [line.split()[3] for line in lines] == ["endpoint.attached", "endpoint.released"]
    who = f"tenant=blue  network=web  host=h1  container={lab.info('a1')['id']}  ifname=eth0"
    assert all(who in line for line in lines)
    assert "addresses=10.1.0.77/24" in lines[0]
    printed = lab.run("h1", "events", "--since", str(since), "--no-follow", "-o", "json").splitlines()
    events = [json.loads(line) for line in printed]
    assert [event["id"] for event in events] == [f"{since + 1}.0", f"{since + 2}.0"]
    resumed = lab.run("h1", "events", "--since", events[0]["id"], "--no-follow", "-o", "json").splitlines()
    assert [json.loads(line)["id"] for line in resumed] == [events[1]["id"]]
    whole = lab.run("h1", "events", "--no-follow").splitlines()
    assert whole[0].split()[2:4] == ["1.0", "tenant.created"]


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
    assert readable, "no event came"
    return process.stdout.readline()


def controller(root: Path) -> subprocess.Popen[bytes]:
    """A controller of its own, once it serves."""
    ready, ready_fd = os.pipe()
    arguments = ["controller", "--root", str(root), "--listen", "127.0.0.1:0", "--ready-fd", str(ready_fd)]
    process = subprocess.Popen([*COMMAND, *arguments], pass_fds=[ready_fd], stderr=subprocess.DEVNULL)
    os.close(ready_fd)
    with os.fdopen(ready, "rb") as told:
        assert told.read(1) == b"1"
    return process


def test_events_are_followed_over_a_restart_of_the_controller(tmp_path: Path) -> None:
    on_root = ["--root", str(tmp_path / "c")]
    served = controller(tmp_path / "c")
    command = [sys.executable, "-u", *COMMAND[1:], *on_root, "events", "-o", "json"]
    with subprocess.Popen(
        [*command, "--since", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as followed:
        try:
            hawse(*on_root, "tenant", "create", "one")
            assert json.loads(next_line(followed))["data"]["name"] == "one"
            served.send_signal(signal.SIGTERM)
            served.wait(PATIENCE_S)
            assert followed.stderr is not None
            assert "waiting for it" in followed.stderr.readline()
            served = controller(tmp_path / "c")
            hawse(*on_root, "tenant", "create", "two")
            assert json.loads(next_line(followed))["data"]["name"] == "two"
            followed.send_signal(signal.SIGINT)
            assert followed.wait(PATIENCE_S) == Exit.INTERRUPTED
            assert "Traceback" not in followed.stderr.read()
        finally:
            followed.kill()
            served.kill()
            served.wait(PATIENCE_S)


def drop_counts(lab: Lab, *arguments: str) -> dict[tuple[str, str, str], int]:
    items = lab.json("h1", "drops", *arguments)
    return {(item["host"], item["network"], item["cause"]): item["packets"] for item in items}


def test_a_lie_is_counted_by_its_name(lab: Lab) -> None:
    lab.run("h1", "network", "attach", "web", "a1", "--ip", "10.1.0.21")
    lab.run("h1", "network", "attach", "web", "a2", "--ip", "10.1.0.22")
    before = drop_counts(lab, "h1", "--all")
    assert before["h1", "web", "ip4-spoof"] == 0
    mac = lab.json("h1", "endpoint", "ls", "--network", "web")[1]["mac"]
    lie = ["ip addr add 10.1.0.99/32 dev eth0", f"ip neigh replace 10.1.0.22 lladdr {mac} dev eth0",
           "ping -c1 -W1 -I 10.1.0.99 10.1.0.22", "ip addr del 10.1.0.99/32 dev eth0"]  # fmt: skip
    lab.inside("a1", "sh", "-c", "; ".join(lie))
    assert drop_counts(lab, "h1")["h1", "web", "ip4-spoof"] == 1
    assert {host for host, _, _ in drop_counts(lab)} <= {"h1", "h2"}
    shown = lab.run("h1", "drops", "h1")
    assert ["h1", "default", "web", "ip4-spoof", "1"] in [row[:5] for row in table(shown)]
    assert "Not counted: " in shown


# --- version, completion, pipes ---


def test_versions_of_all_parts(lab: Lab, tmp_path: Path) -> None:
    parts = lab.json("h1", "version")
    assert [(part["part"], part["where"]) for part in parts] == [
        ("client", "here"), ("controller", lab.client.url), ("agent", "h1"), ("agent", "h2"),
        ("runtime", "here"), ("supervisor", "here"),
    ]  # fmt: skip
    assert {part["version"] for part in parts} == {VERSION}
    assert "not reached: the controller is not running" in hawse("--root", str(tmp_path), "--version").stdout


COMPLETED: list[tuple[list[str], set[str]]] = [
    (["netw"], {"network"}),
    (["network", "at"], {"attach"}),
    (["network", "attach", ""], {"web", "blue/web", "red/web"}),
    (["network", "attach", "bl"], {"blue/web"}),
    (["network", "attach", "web", ""], {"a1", "a2", "a3"}),
    (["network", "attach", "web", "--pid", ""], set()),
    (["network", "rm", "web", "r"], {"red/web"}),
    (["endpoint", "ls", "--host", ""], {"h1", "h2"}),
    (["-o", "json", "drops", "h"], {"h1", "h2"}),
    (["tenant", "inspect", "d"], {"default"}),
    (["network", "ls", "-o", "j"], {"json"}),
    (["network", "create", "x", "--sub"], {"--subnet"}),
    (["agent", "--datap"], {"--datapath"}),
    (["host", "drain", ""], {"h1", "h2"}),
    (["doctor", "--host", ""], {"h1", "h2"}),
    (["token", "revoke", ""], {"ann"}),
    (["token", "create", "--tenant", "b"], {"blue"}),
    (["join", "10.0.0.1", ""], set()),
    (["help", "sec"], {"security"}),
    (["help", "host", "d"], {"drain"}),
    (["lab", "exec", "h1", "--", ""], set()),
    (["nonsense", ""], set()),
]


def test_completion_in_a_real_bash(lab: Lab, tmp_path: Path) -> None:
    """All in one shell: what bash would show after TAB, a line for each question."""
    lab.run("h1", "token", "create", "--role", "admin", "--name", "ann")
    program = tmp_path / "hawse"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m sdn.cli.main "$@"\n')
    program.chmod(0o755)
    ask = """
    source <(hawse completion bash)
    complete -p hawse >/dev/null || exit 1
    ask() {
        COMP_WORDS=(hawse "$@"); COMP_CWORD=$#; COMP_LINE="hawse $*"; COMP_POINT=${#COMP_LINE}
        _hawse; echo "${COMPREPLY[*]}"
    }
    """
    questions = "\n".join("ask " + " ".join(f"'{word}'" for word in words) for words, _ in COMPLETED)
    env = environment(HAWSE_ROOT=lab.root("h1"), PATH=f"{tmp_path}:{os.environ['PATH']}")
    shell = ["bash", "--norc", "-c", ask + questions]
    done = subprocess.run(shell, capture_output=True, text=True, env=env, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    answers = [set(line.split()) for line in done.stdout.splitlines()]
    assert dict(zip([" ".join(words) for words, _ in COMPLETED], answers, strict=True)) == {
        " ".join(words): wanted for words, wanted in COMPLETED
    }
    names = hawse("__complete", "lab", "down", "").stdout.split()
    assert lab.directory.name in names
    places = hawse("__complete", "lab", "exec", "--lab", lab.directory.name, "").stdout.split()
    assert set(places) == {"underlay", "h1", "h2", "a1", "a2", "a3", "b1", "b2"}


def test_a_reader_that_leaves_early_is_no_error(lab: Lab) -> None:
    command = " ".join([*COMMAND, "--root", lab.root("h1"), "events", "--since", "0", "--no-follow"])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -1"],
        capture_output=True, text=True, check=False, env=environment(),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


LISTINGS: list[list[str]] = [
    ["network", "ls"], ["tenant", "ls"], ["host", "ls"], ["endpoint", "ls"], ["drops"], ["version"], ["lab", "ls"],
]  # fmt: skip


@pytest.mark.parametrize("words", LISTINGS, ids=" ".join)
def test_every_listing_is_a_document_for_programs(words: list[str], lab: Lab) -> None:
    value: Any = lab.json("h1", *words)
    assert isinstance(value, list)
