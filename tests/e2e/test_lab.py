"""Labs, from outside: what a user types, with the daemons of production and real packets."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import topologies
from runtime.cgroup import Hierarchies, prefix_of
from sdn.service.contract_client import request
from tests.session_janitor import session_name
from topologies import processes
from topologies.containers import place_of
from topologies.record import BASE, Directory, Process, labs

pytestmark = pytest.mark.root

SHIPPED = sorted(Path(topologies.__path__[0]).glob("*.yaml"))
COMMAND = [sys.executable, "-m", "sdn.cli.main"]
PATIENCE_S = 60.0


def hawse(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command; it must end with this exit code, and never with a traceback."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HAWSE_")}
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment
    )
    assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def directory_of(name: str) -> Directory:
    return next(lab for lab in labs() if lab.name == name)


def traces(directory: Directory, members: list[Process]) -> list[str]:
    """What is left of a lab that was there."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{directory.path}/" in line]
    alive = [f"process {member.pid}" for member in members if processes.is_alive(member)]
    groups = [str(path) for host in HOSTS for path in cgroups_of(directory, host)]
    return mounts + alive + groups + ([str(directory.path)] if directory.path.exists() else [])


HOSTS = ("h1", "h2", "h3", "h4", "s1")


def cgroups_of(directory: Directory, host: str) -> list[Path]:
    """A host's containers', and what holds them, on whatever hierarchy."""
    prefix = prefix_of(str(directory.path / host))
    return [path for mount in Hierarchies.detect().all for path in Path(mount).glob(f"{prefix}/**/")]


def members_of(directory: Directory) -> list[Process]:
    """Everybody who lives in a lab: daemons, supervisors and their keepers, and all that runs in containers."""
    inside = processes.inside([*directory.path.glob("ns/*"), *directory.path.glob("*/netns/*")])
    pids = {
        int(pid)
        for host in HOSTS
        for path in cgroups_of(directory, host)
        for pid in (path / "cgroup.procs").read_text().split()
    }
    found = [process for process in map(processes.identify, pids) if process is not None]
    return [*inside, *found]


@pytest.fixture
def name() -> Iterator[str]:
    """A lab's name; whatever has it (or begins with it) afterwards is taken down."""
    chosen = f"{session_name()}-{secrets.token_hex(4)}"
    yield chosen
    for lab in labs():
        if lab.name.startswith(chosen):
            hawse("lab", "down", lab.name)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The quickest lab: one host, two containers."""
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "hosts: h1\nnetworks: {web: {subnets: 10.1.0.0/24}}\n"
        "containers: {a: {networks: web}, b: {networks: web}}\nexpect: [{from: a, to: b}]\n"
    )
    return file


def checked(name: str, code: int = 0) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(hawse("lab", "check", name, "-o", "json", code=code).stdout)
    return report


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: str(path.stem))
def test_a_shipped_topology_comes_up_is_proved_and_goes_without_a_trace(file: Path, name: str) -> None:
    hawse("lab", "up", str(file), "--name", name)
    directory = directory_of(name)
    members = members_of(directory)
    record = directory.read()
    assert record is not None
    daemons = 1 + 4 * len(record.hosts)  # the controller; agent, runtime, keeper and supervisor
    daemons += sum({"openflow": 2, "switch": 1}[datapath] for datapath in record.datapaths.values())  # of Open vSwitch
    assert len(members) >= daemons + len(record.containers)

    report = checked(name)
    assert report["ok"], report
    assert report["spoofs"]
    assert {probe["found"] for probe in report["probes"]} == {"reach", "drop"} or file.stem == "ipv6-underlay"
    assert {probe["protocol"].rstrip("6") for probe in report["probes"]} == {"ping", "tcp", "udp"}

    tenants = list(directory.path.glob("*/netns/*"))
    assert tenants, "the agents' tenant namespaces are pinned below the lab's directory"
    hawse("lab", "down", name)
    assert traces(directory, members) == []


def test_demo_says_what_was_proved_and_leaves_nothing() -> None:
    with subprocess.Popen([*COMMAND, "lab", "demo"], stdout=subprocess.PIPE, text=True) as demo:
        told, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, told
    assert "36 paths proved, 54 proved shut, 10 lies died with a name; all as expected" in told
    assert "ip4-spoof" in told
    assert f"demo-{demo.pid}" not in {lab.name for lab in labs()}


DAEMONS = ("agent", "runtime", "supervisor")


def test_ps_ls_exec_and_the_hosts_own_commands(name: str) -> None:
    hawse("lab", "up", str(next(path for path in SHIPPED if path.stem == "two-hosts")), "--name", name)
    status = json.loads(hawse("lab", "ps", name, "-o", "json").stdout)
    assert [(d["name"], d["daemon"], d["state"]) for d in status["daemons"]] == [
        ("controller", "controller", "running"), *((h, d, "running") for h in ("h1", "h2") for d in DAEMONS),
    ]  # fmt: skip
    assert status["problems"] == []
    addresses = {c["name"]: c["interfaces"][0]["addresses"] for c in status["containers"]}
    assert addresses["blue-1"] == addresses["red-1"] == ["10.1.0.11/24"]
    assert {(c["state"], c["image"]) for c in status["containers"]} == {("running", "host")}
    assert name in hawse("lab", "ls").stdout
    shown = hawse("lab", "ps", name).stdout
    assert re.search(r"^blue-1 +h1 +host +\d+ +running +blue/web +eth0 +10.1.0.11/24$", shown, re.MULTILINE), shown

    inside = hawse("lab", "exec", "--lab", name, "blue-1", "--", "ip", "-4", "-br", "addr", "show", "eth0").stdout
    assert "10.1.0.11/24" in inside
    found = hawse("lab", "exec", "--lab", name, "h2", "--", "sh", "-c", "echo $HAWSE_ROOT; ip -br link").stdout
    assert f"{directory_of(name).path}/h2" in found
    assert "eth0" in found
    networks = hawse("lab", "exec", "--lab", name, "h1", "--", *COMMAND, "network", "ls", "-o", "json").stdout
    assert [network["name"] for network in json.loads(networks)] == ["web", "web"]
    listed = hawse("lab", "exec", "--lab", name, "h1", "--", *COMMAND, "ps").stdout
    assert "blue-1" in listed
    assert "red-2" not in listed
    ping = ["run", "--rm", "--network", "blue/web", "host", "ping", "-c1", "-W5", "10.1.0.13"]
    assert "1 received" in hawse("lab", "exec", "--lab", name, "h1", "--", *COMMAND, *ping).stdout
    assert hawse("lab", "exec", "--lab", name, "red-2", "--", "sh", "-c", "exit 7", code=7).stdout == ""
    assert "no host or container 'blue-9'" in hawse("lab", "exec", "--lab", name, "blue-9", "--", "true", code=3).stderr
    assert "cannot be run" in hawse("lab", "exec", "--lab", name, "h1", "--", "no-such-command", code=3).stderr


def test_what_is_attached_by_hand_is_checked_too(name: str, tiny: Path) -> None:
    tiny.write_text(tiny.read_text().replace("{web:", "{db: {subnets: 10.2.0.0/24}, web:"))
    hawse("lab", "up", str(tiny), "--name", name)
    on_host = ["lab", "exec", "--lab", name, "h1", "--", *COMMAND]
    asked = len(checked(name)["probes"])
    hawse(*on_host, "network", "attach", "db", "a")
    hawse(*on_host, "network", "attach", "db", "b")
    report = checked(name)
    assert report["ok"], report
    assert len(report["probes"]) == 2 * asked
    hawse(*on_host, "network", "detach", "db", "a")
    report = checked(name)
    assert report["ok"], report
    assert [p for p in report["probes"] if p["to"] == "b" and p["network"] == "default/db"]


def namespace_of(name: str, container: str) -> str:
    """Of a lab's container, as a path."""
    directory = directory_of(name)
    record = directory.read()
    assert record is not None
    return str(place_of(directory, record.containers, container))


def enter(name: str, container: str, *command: str) -> None:
    """A command of the machine in a container's network namespace, where it may what the container may not."""
    subprocess.run(["nsenter", f"--net={namespace_of(name, container)}", *command], check=True)


def test_a_restarted_container_is_found_by_all(name: str, tiny: Path) -> None:
    hawse("lab", "up", str(tiny), "--name", name)
    before = namespace_of(name, "b")
    on_host = ["lab", "exec", "--lab", name, "h1", "--", *COMMAND]
    hawse(*on_host, "restart", "b")
    assert namespace_of(name, "b") != before
    report = checked(name)
    assert report["ok"], report
    hawse(*on_host, "kill", "b")
    hawse(*on_host, "wait", "b", code=137)
    assert "b has no network namespace: it is exited" in hawse("lab", "check", name, code=4).stderr
    exited = {
        c["name"]: c["exit_code"] for c in json.loads(hawse("lab", "ps", name, "-o", "json").stdout)["containers"]
    }
    assert exited == {"a": None, "b": 137}
    hawse(*on_host, "start", "b")
    assert checked(name)["ok"]


def test_check_notices_a_cut_wire(name: str, tiny: Path) -> None:
    hawse("lab", "up", str(tiny), "--name", name)
    enter(name, "b", "ip", "link", "set", "eth0", "down")
    report = checked(name, code=10)
    assert not report["ok"]
    wrong = {(p["from"], p["to"]) for p in report["probes"] if not p["ok"]}
    assert wrong == {("a", "b"), ("b", "a")}
    assert "!ping" in hawse("lab", "check", name, code=10).stdout


def test_check_notices_a_hole_and_an_unguarded_port(name: str) -> None:
    """A wire between two containers of different tenants, and no guard: each must show."""
    hawse("lab", "up", str(next(path for path in SHIPPED if path.stem == "two-hosts")), "--name", name)
    directory = directory_of(name)
    blue, red = (namespace_of(name, container) for container in ("blue-1", "red-1"))
    enter(name, "blue-1", "ip", "link", "add", "hole", "type", "veth", "peer", "name", "hole", "netns", red)
    for container in ("blue-1", "red-1"):
        enter(name, container, "ip", "link", "set", "hole", "up")
    # What blue-1 sends on eth0 also goes into the hole: its frames for red-1 now arrive there.
    mirror = "table netdev hole { chain c { type filter hook egress device eth0 priority 0; dup to hole; }; }"
    subprocess.run(["nsenter", f"--net={blue}", "nft", mirror], check=True)
    guards = list(directory.path.glob("h1/netns/t-*"))
    for guard in guards:
        subprocess.run(["nsenter", f"--net={guard}", "nft", "flush", "chain", "bridge", "hawse", "guard"], check=False)
        subprocess.run(["nsenter", f"--net={guard}", "nft", "delete", "table", "bridge", "hawse"], check=True)
    report = checked(name, code=10)
    leaks = {(p["from"], p["to"]) for p in report["probes"] if "must not" in p["why"]}
    assert ("blue-1", "red-1") in leaks
    strangers = [p["why"] for p in report["probes"] if "whom it was not for" in p["why"]]
    assert any("red-1" in why for why in strangers)
    assert any("delivered to blue-2" in spoof["why"] for spoof in report["spoofs"])


def test_two_labs_side_by_side_and_the_name_may_be_left_out_of_one(name: str, tiny: Path) -> None:
    first, second = f"{name}-1", f"{name}-2"
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen([*COMMAND, "lab", "up", str(tiny), "--name", one], stderr=subprocess.DEVNULL)
            )
            for one in (first, second)
        ]
        assert [one.wait(PATIENCE_S) for one in started] == [0, 0]
    assert checked(first)["ok"]
    assert checked(second)["ok"]
    error = hawse("lab", "check", code=5).stderr
    assert first in error
    assert second in error
    again = hawse("lab", "up", str(tiny), "--name", first, code=4).stderr
    assert "there already" in again
    assert "hawse lab down" in again
    hawse("lab", "down", first)
    assert checked(second)["ok"]
    hawse("lab", "down", second)
    assert "no lab" in hawse("lab", "down", second, code=3).stderr


def wait_for_line(stream: Any, wanted: str) -> None:
    """Read until a line says it; the process's own bound is the test's time-out."""
    for line in stream:
        if wanted in line:
            return
    raise AssertionError(f"{wanted!r} was never said")


STAGES = ["1 host", "the controller serves", "1 agent connected", "2 containers"]


@pytest.mark.parametrize("stage", STAGES)
def test_down_removes_what_a_killed_up_has_left(stage: str, name: str, tiny: Path) -> None:
    up = subprocess.Popen([*COMMAND, "lab", "up", str(tiny), "--name", name], stderr=subprocess.PIPE, text=True)
    with up:
        wait_for_line(up.stderr, stage)
        up.kill()
    directory = directory_of(name)
    members = members_of(directory)
    hawse("lab", "ls")
    hawse("lab", "down", name)
    assert traces(directory, members) == []


@pytest.mark.parametrize(
    ("stage", "number"),
    [(STAGES[0], signal.SIGINT), (STAGES[1], signal.SIGTERM), (STAGES[2], signal.SIGINT)],
)
def test_an_interrupted_up_leaves_nothing(stage: str, number: signal.Signals, name: str, tiny: Path) -> None:
    up = subprocess.Popen([*COMMAND, "lab", "up", str(tiny), "--name", name], stderr=subprocess.PIPE, text=True)
    with up:
        wait_for_line(up.stderr, stage)
        directory = directory_of(name)
        members = members_of(directory)
        up.send_signal(number)
        assert up.stderr is not None
        rest = up.stderr.read()
    assert up.returncode == 130
    assert "Traceback" not in rest
    assert traces(directory, members) == []


def test_down_while_up_is_still_at_work(name: str, tiny: Path) -> None:
    up = subprocess.Popen([*COMMAND, "lab", "up", str(tiny), "--name", name], stderr=subprocess.PIPE, text=True)
    with up:
        wait_for_line(up.stderr, STAGES[0])
        directory = directory_of(name)
        hawse("lab", "down", name)
    assert up.returncode == -signal.SIGKILL
    assert traces(directory, []) == []


def test_a_directory_without_a_record_can_be_taken_down(name: str) -> None:
    path = BASE / secrets.token_hex(4)
    (path / "ns").mkdir(parents=True)
    assert "broken" in hawse("lab", "ls").stdout
    hawse("lab", "down", path.name)
    assert not path.exists()


def test_down_after_every_daemon_died(name: str, tiny: Path) -> None:
    hawse("lab", "up", str(tiny), "--name", name)
    directory = directory_of(name)
    members = members_of(directory)
    processes.end(processes.inside([*directory.path.glob("ns/*")]))  # the keeper and the supervisor, too
    shown = hawse("lab", "ps", name)
    assert "running" not in shown.stdout
    assert "the containers of h1 are not known: the runtime is not running" in shown.stderr
    alive = [member for member in members if processes.is_alive(member)]
    assert len(alive) == 2, "containers outlive all that made them"
    assert hawse("lab", "check", name, code=7).stderr
    hawse("lab", "down", name)
    assert traces(directory, members) == []


def unmade(name: str) -> bool:
    return name not in {lab.name for lab in labs()}


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda text: text.replace("networks: {web:", "network: {web:"), 5, "did you mean 'networks'?"),
        (lambda text: text.replace("a: {networks: web}", "a: {networks: web, command: [no-such]}"), 3, "no-such"),
        (lambda text: text.replace("a: {networks: web}", "a: {networks: web, command: [no-such]}"), 3, "container a"),
        (lambda text: text.replace("a: {", "a: {image: ./tiny.yam, "), 5, "did you mean 'tiny.yaml'?"),
        (lambda text: text.replace("a: {", "a: {image: tiny.yaml, "), 5, "tiny.yaml cannot be brought to"),
        (lambda text: text.replace("a: {", "a: {volumes: './d:/d', "), 5, "there is no './d'"),
        (lambda text: text.replace("10.1.0.0/24", "10.1.0.0/24, mtu: 9000"), 5, "1450"),
        (lambda text: text.replace("a: {", "a: {command: ['false', '1'], "), 0, ""),
    ],
)
def test_a_wrong_topology_makes_nothing(
    change: Callable[[str], str], code: int, says: str, name: str, tiny: Path
) -> None:
    tiny.write_text(change(tiny.read_text()))
    done = hawse("lab", "up", str(tiny), "--name", name, code=code)
    assert says in done.stderr
    assert unmade(name) or code == 0


IMAGES = """\
hosts: h1
networks: {web: {subnets: 10.1.0.0/24}}
containers:
  root: {image: ./tree, command: [/bin/busybox, sleep, "9999"], networks: web}
  same: {image: {import: ./tree}, command: [/bin/busybox, sleep, "9999"], networks: web}
  bound:
    command: [sh, -c, 'echo "$WORD $(cat /data/word) $(id -u)" >/shared/said; sleep 9999']
    env: {WORD: hello}
    user: nobody
    memory: 64M
    cpus: 0.5
    pids: 20
    volumes: ["./data:/data:ro", "./shared:/shared", {tmpfs: 8M, target: /cache}]
expect:
  - {from: root, to: same}
"""


def test_images_limits_and_volumes_are_the_containers(name: str, tmp_path: Path) -> None:
    for folder in ("tree/bin", "data", "shared"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", tmp_path / "tree/bin/busybox")
    (tmp_path / "data/word").write_text("world")
    (tmp_path / "shared").chmod(0o777)
    file = tmp_path / "images.yaml"
    file.write_text(IMAGES)
    told = hawse("lab", "up", str(file), "--name", name).stderr
    assert "1 image loaded" in told
    assert checked(name)["ok"]
    on_host = ["lab", "exec", "--lab", name, "h1", "--", *COMMAND]
    bound = json.loads(hawse(*on_host, "inspect", "bound", "-o", "json").stdout)
    assert (bound["spec"]["memory_bytes"], bound["spec"]["cpus"], bound["spec"]["pids"]) == (64 << 20, 0.5, 20)
    images = request(directory_of(name).root("h1").runtime_socket, {"verb": "IMAGE_LS"})["items"]
    assert {name for image in images for name in image["names"]} == {"tree:latest", "host:latest"}
    inside = hawse("lab", "exec", "--lab", name, "root", "--", "/bin/busybox", "ls", "/").stdout.split()
    assert "usr" not in inside
    said = tmp_path / "shared/said"
    deadline = time.monotonic() + PATIENCE_S
    while not said.exists() or not said.read_text():  # a file cannot be awaited
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert said.read_text() == "hello world 65534\n"


def test_a_missing_file_is_not_found() -> None:
    assert "there is no topology" in hawse("lab", "up", "nowhere.yaml", code=3).stderr


def test_the_machines_own_namespace_is_left_alone(name: str, tiny: Path) -> None:
    def links() -> set[str]:
        return set(os.listdir("/sys/class/net"))

    before = links()
    hawse("lab", "up", str(tiny), "--name", name)
    assert links() == before
    named = Path("/run/netns")
    assert not named.exists() or not [entry for entry in named.iterdir() if name in entry.name]
