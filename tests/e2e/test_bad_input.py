"""Every command, used wrongly: one sentence with what to do, the right exit code, and nothing changed.

Elsewhere: the 1001st endpoint (tests/unit/test_controller_attach.py), interrupted and killed `lab up`s and wrong
topologies (tests/e2e/test_lab.py, tests/unit/test_topology_schema.py), a kernel without a feature, part by part
(tests/unit/test_agent_features.py), daemons that cannot start (tests/e2e/test_controller_process.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdn.cli.exits import Exit
from sdn.controller.authority import make_authority
from sdn.model.errors import HawseError, Kind
from sdn.service.contract_client import request
from tests.e2e.standing_lab import COMMAND, PATIENCE_S, TOPOLOGY, Lab, environment, hawse, standing_lab
from topologies import processes

pytestmark = pytest.mark.root

LONG = "x" * 300


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """`full` is full, a1 holds 10.1.0.50 as eth0 of `web`, and both blue and red have an endpoint `db`."""
    with standing_lab() as up:
        up.run("h1", "network", "create", "full", "--subnet", "10.9.0.0/29", "--reserve", "10.9.0.6")
        for _ in range(4):
            up.run("h2", "network", "attach", "full", "b2")
        up.run(
            "h1",
            "network",
            "attach",
            "web",
            "a1",
            "--ip",
            "10.1.0.50",
            "--mac",
            "0a:00:00:00:00:50",
            "--ifname",
            "eth0",
        )
        up.run("h1", "network", "attach", "blue/web", "a2", "--name", "db")
        up.run("h2", "network", "attach", "red/web", "b1", "--name", "db")
        yield up


Row = tuple[str, Exit, tuple[str, ...]]
REFUSED: list[Row] = [
    # references
    ("network attach wbe a3", Exit.NOT_FOUND, ("no network 'wbe'", "did you mean web?")),
    ("network attach nowhere/web a3", Exit.NOT_FOUND, ("no tenant 'nowhere'", "there are: blue, default, red")),
    ("network attach web a9", Exit.NOT_FOUND, ("no container 'a9'", "hawse ps --all")),
    ("network attach web b1", Exit.NOT_FOUND, ("no container 'b1'",)),
    ("network inspect blue", Exit.NOT_FOUND, ("no network 'blue'", "did you mean blue/web?")),
    ("network inspect a/b/c", Exit.NOT_FOUND, ("no tenant 'a/b'",)),
    (f"network inspect {LONG}", Exit.NOT_FOUND, ("no network",)),
    ("network update wbe --label a=b", Exit.NOT_FOUND, ("did you mean web?",)),
    ("network create nowhere/web", Exit.NOT_FOUND, ("no tenant 'nowhere'",)),
    ("network ls --tenant nowhere", Exit.NOT_FOUND, ("no tenant 'nowhere'",)),
    ("endpoint ls --network wbe", Exit.NOT_FOUND, ("did you mean web?",)),
    ("endpoint ls --host h3", Exit.NOT_FOUND, ("no host 'h3'", "there are: h1, h2")),
    ("endpoint inspect nobody", Exit.NOT_FOUND, ("no endpoint 'nobody'", "there are: blue/db, red/db")),
    ("endpoint inspect db", Exit.CONFLICT, ("2 tenants have an endpoint named db", "say which: blue/db, red/db")),
    ("tenant inspect bleu", Exit.NOT_FOUND, ("did you mean blue?",)),
    ("host inspect h9", Exit.NOT_FOUND, ("no host 'h9'",)),
    ("drops h9", Exit.NOT_FOUND, ("no host 'h9'",)),
    ("events --since 99999 --no-follow", Exit.INVALID, ("revision 99999 does not exist yet", "the last one is")),
    ("events --since soon --no-follow", Exit.INVALID, ("'soon' is neither a revision nor an event's id",)),
    ("endpoint ls --label nonsense", Exit.INVALID, ("label=nonsense is not a label",)),
    # addresses
    ("network attach full a3", Exit.EXHAUSTED,
     ("10.9.0.0/29 is full: 4 used, 4 reserved, 0 free of 8", "held by endpoints on h2 (4)", "add a subnet")),
    ("network attach web a3 --ip 10.1.0.50", Exit.CONFLICT,
     ("10.1.0.50 of network web is taken by endpoint {a1}:eth0 on host h1",)),
    ("network attach web a3 --ip 10.2.0.50", Exit.INVALID,
     ("10.2.0.50 is outside of network web, which has 10.1.0.0/24",)),
    ("network attach web a3 --ip fd00::1", Exit.INVALID, ("fd00::1 is outside of network web",)),
    ("network attach web a3 --ip 10.1.0.1", Exit.INVALID, ("10.1.0.1 is the gateway of 10.1.0.0/24",)),
    ("network attach web a3 --ip 10.1.0.255", Exit.INVALID, ("10.1.0.255 is the broadcast address of 10.1.0.0/24",)),
    ("network attach web a3 --ip 10.1.0.0", Exit.INVALID, ("10.1.0.0 is the network address of 10.1.0.0/24",)),
    ("network attach full a3 --ip 10.9.0.6", Exit.INVALID, ("10.9.0.6 is a reserved address of 10.9.0.0/29",)),
    ("network attach web a3 --ip 10.1.0.2 --ip 10.1.0.3", Exit.INVALID,
     ("both of the subnet 10.1.0.0/24", "one address per subnet")),
    ("network attach web a3 --ip 10.1.0.2/24", Exit.INVALID, ("'10.1.0.2/24' is not an IP address",)),
    ("network attach web a3 --ip banana", Exit.INVALID, ("'banana' is not an IP address", "write 10.1.0.2")),
    ("network attach web a3 --mac 0a:00:00:00:00:50", Exit.CONFLICT,
     ("0a:00:00:00:00:50 of network web is taken by endpoint {a1}:eth0",)),
    ("network attach web a3 --mac 01:00:5e:00:00:01", Exit.INVALID, ("not a unicast MAC",)),
    ("network attach web a3 --mac banana", Exit.INVALID, ("'banana' is not a MAC address",)),
    # keys and names
    ("network attach blue/web a1 --ifname eth0", Exit.CONFLICT,
     ("eth0 of container {a1} is attached to network web, not blue/web",)),
    ("network attach web a1 --ifname eth0 --ip 10.1.0.60", Exit.CONFLICT,
     ("eth0 of container {a1} is attached already, as 10.1.0.50/24", "it cannot become 10.1.0.60", "detach it first")),
    ("network attach web a1 --ifname eth0 --mac 0a:00:00:00:00:51", Exit.CONFLICT,
     ("it cannot become 0a:00:00:00:00:51",)),
    ("network attach blue/web a3 --name db", Exit.CONFLICT, ("tenant blue has an endpoint db already, on host h1",)),
    ("network attach web a3 --name a/b", Exit.INVALID, ("'a/b' is not a name for an endpoint",)),
    ("network attach web a3 --alias _", Exit.INVALID, ("'_' is not a name for an endpoint",)),
    ("network attach web a3 --ifname lo", Exit.INVALID, ("'lo' is not a name for an interface",)),
    ("network attach web a3 --ifname a/b", Exit.INVALID, ("'a/b' is not a name for an interface",)),
    (f"network attach web a3 --ifname {LONG}", Exit.INVALID, ("use up to 15 characters",)),
    ("network attach web a3 --label novalue", Exit.INVALID, ("'novalue' is not a label", "write it as key=value")),
    ("network create web --subnet 10.50.0.0/24", Exit.CONFLICT, ("tenant default has a network web already",)),
    ("tenant create blue", Exit.CONFLICT, ("there is a tenant blue already",)),
    ("tenant create a/b", Exit.INVALID, ("'a/b' is not a name for a tenant", "use up to 63")),
    (f"network create {LONG}", Exit.INVALID, ("not a name for a network", "use up to 63")),
    ("network create 01m82anbqr53v1gehr89dbjgn4", Exit.INVALID, ("looks like an id",)),
    # subnets
    ("network create n --subnet 10.1.0.128/25", Exit.CONFLICT,
     ("10.1.0.128/25 overlaps 10.1.0.0/24 of network web in tenant default", "choose another subnet")),
    ("network update full --subnet 10.1.0.0/16", Exit.CONFLICT, ("overlaps 10.1.0.0/24 of network web",)),
    ("network create n --subnet 10.50.0.0/24 --subnet 10.50.0.0/25", Exit.CONFLICT, ("of one network overlap",)),
    ("network create n --subnet 10.50.0.1/24", Exit.INVALID, ("has host bits set", "did you mean 10.50.0.0/24?")),
    ("network create n --subnet 10.50.0.0", Exit.INVALID, ("'10.50.0.0' is not a prefix", "write it as")),
    ("network create n --subnet 10.50.0.0/33", Exit.INVALID, ("prefix length above 32",)),
    ("network create n --subnet 10.50.0.0/32", Exit.INVALID, ("too small for a subnet", "use /8 to /31")),
    ("network create n --subnet 0.0.0.0/0", Exit.INVALID, ("too large for a subnet",)),
    ("network create n --subnet 224.0.0.0/24", Exit.INVALID, ("multicast", "use private addresses")),
    ("network create n --subnet 127.0.0.0/24", Exit.INVALID, ("loopback",)),
    ("network create n --subnet fe80::/64", Exit.INVALID, ("link-local",)),
    ("network create n --subnet 10.50.0.0/24 --gateway 10.50.0.0", Exit.INVALID, ("is the network address",)),
    ("network create n --subnet 10.50.0.0/24 --gateway 10.50.0.255", Exit.INVALID, ("is the broadcast address",)),
    ("network create n --subnet 10.50.0.0/24 --gateway 10.51.0.1", Exit.INVALID, ("lies in none of the subnets",)),
    ("network create n --gateway 10.51.0.1", Exit.INVALID, ("give its subnet with --subnet",)),
    ("network create n --subnet 10.50.0.0/24 --range 10.50.0.9-10.50.0.2", Exit.INVALID,
     ("ends before it begins", "did you mean 10.50.0.2-10.50.0.9?")),
    ("network create n --subnet 10.50.0.0/24 --range 10.50.0.9-10.51.0.2", Exit.INVALID, ("outside of the subnet",)),
    ("network create n --subnet 10.50.0.0/24 --reserve 10.50.0.1", Exit.INVALID, ("is the gateway",)),
    ("network create n --subnet 10.50.0.0/24 --reserve banana", Exit.INVALID, ("'banana' is not an address",)),
    ("network create n --no-ipv4", Exit.INVALID, ("without an address family", "ask for IPv4, IPv6 or both")),
    # MTU
    ("network create n --mtu 1451", Exit.INVALID,
     ("1451", "host h1 can carry: its underlay has 1500, less 50 for VXLAN is 1450", "use 1450 or less")),
    ("network create n --mtu 1000", Exit.INVALID, ("cannot have an MTU of 1000", "use 1280 to")),
    ("network create n --mtu 99999999999999999999", Exit.INVALID, ("cannot have an MTU",)),
    # what is in use, what cannot go
    ("network rm web", Exit.CONFLICT, ("network web has 1 endpoint: {a1}:eth0", "detach them first")),
    ("tenant rm blue", Exit.CONFLICT, ("tenant blue has 1 network: web", "remove them first")),
    ("tenant rm default", Exit.CONFLICT, ("tenant default cannot be removed",)),
    ("host forget h2", Exit.CONFLICT, ("host h2 is connected", "hawse leave", "hawse host forget --force h2")),
    ("network detach full b2", Exit.NOT_FOUND, ("no container 'b2'",)),
    # namespaces
    ("network attach web --pid 4194303", Exit.NOT_FOUND,
     ("'/proc/4194303/ns/net' (process 4194303)", "still running?")),
    ("network attach web --netns /nowhere", Exit.NOT_FOUND, ("no network namespace '/nowhere'",)),
    ("network attach web --netns /etc/passwd", Exit.INVALID, ("not of a network namespace", "open /proc/PID/ns/net")),
    ("network attach web --netns /proc/self/ns/mnt", Exit.INVALID, ("not of a network namespace",)),
    ("network attach web --netns /", Exit.INVALID, ("not of a network namespace",)),
    ("network detach web --pid 4194303", Exit.NOT_FOUND, ("process 4194303",)),
    # usage
    ("network attach web", Exit.USAGE, ("no container is named",)),
    ("network attach web a1 --pid 1", Exit.USAGE, ("more than one container",)),
    ("network attach web --pid zero", Exit.USAGE, ("'zero' is not the id of a process",)),
    ("network update web", Exit.USAGE, ("nothing to change",)),
    ("network create n --wait=0", Exit.USAGE, ("'0' is not a number of seconds between 0 and 3600",)),
    ("network create n --subnets 10.0.0.0/8", Exit.USAGE, ("did you mean --subnet?",)),
    ("network ls -o yaml", Exit.USAGE, ("invalid choice: 'yaml'",)),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "says"), REFUSED, ids=[row[0][:60] for row in REFUSED])
def test_a_refused_command_says_why_and_changes_nothing(line: str, code: Exit, says: tuple[str, ...], lab: Lab) -> None:
    with lab.unchanged():
        complaint = lab.run("h1", *line.split(), code=code)
    wanted = [phrase.replace("{a1}", lab.info("a1")["id"]) for phrase in says]
    assert not [phrase for phrase in wanted if phrase not in complaint], complaint
    assert len(complaint.splitlines()) <= 2, "one sentence, and what to do"


@pytest.mark.parametrize("text", ["", "\x1b[2J", "a\nb", "ä", "a b", "..", "-"])
def test_names_that_would_hurt_are_refused_and_do_not_reach_the_terminal(text: str, lab: Lab) -> None:
    with lab.unchanged():
        for words in (["tenant", "create", "--"], ["network", "create", "--"]):
            complaint = lab.run("h1", *words, text, code=Exit.INVALID)
            assert "not a name for a" in complaint
            assert "\x1b" not in complaint
        complaint = lab.run("h1", "network", "inspect", "--", text, code=Exit.NOT_FOUND)
        assert "\x1b" not in complaint


def test_of_several_that_are_removed_each_is_told(lab: Lab) -> None:
    lab.run("h1", "network", "create", "idle")
    done = hawse("--root", lab.root("h1"), "network", "rm", "idle", "web", "nowhere", code=Exit.CONFLICT)
    assert done.stdout.splitlines()[0] == "idle"
    assert "no network 'nowhere': nothing to remove" in done.stdout
    assert "network web has 1 endpoint" in done.stderr


def test_a_container_that_does_not_run_has_no_namespace_to_attach(lab: Lab) -> None:
    lab.run("h1", "run", "--name", "brief", "host", "true")
    for verb in ("attach", "detach"):
        with lab.unchanged():
            complaint = lab.run("h1", "network", verb, "web", "brief", code=Exit.CONFLICT)
        assert "container brief has no network namespace: it is exited" in complaint
        assert "hawse start brief" in complaint
    lab.run("h1", "rm", "brief")


# --- namespaces that go ---


def sleeper() -> subprocess.Popen[bytes]:
    """A process in a network namespace of its own, which goes with it."""
    process = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def attach_message(container: str = "") -> dict[str, str]:
    return {"verb": "ADD", "client": "cli", "network": "web", "container": container}


def test_a_process_that_dies_between_open_and_attach_leaves_nothing(lab: Lab) -> None:
    """The descriptor keeps its namespace; when that is closed too, what was attached to it is released."""
    socket = f"{lab.root('h1')}/agent.sock"
    before = lab.state()[1:]
    dying = sleeper()
    fd = os.open(f"/proc/{dying.pid}/ns/net", os.O_RDONLY)
    dying.kill()
    dying.wait(PATIENCE_S)
    try:
        result = request(socket, attach_message(), fd)
    finally:
        os.close(fd)
    since = result["revision"]
    for event in lab.client.events(since=since):
        if event["event"] == "endpoint.released":
            assert event["data"]["id"] == result["endpoint"]
            assert "namespace is gone" in event["data"]["reason"]
            break
    assert lab.client.get("/v1/status", revision=lab.revision(), wait="10").body["settled"]
    assert lab.state()[1:] == before


def test_a_descriptor_that_is_no_namespace_and_none_at_all(lab: Lab) -> None:
    socket = f"{lab.root('h1')}/agent.sock"
    with lab.unchanged():
        with pytest.raises(HawseError, match="came without the container's namespace"):
            request(socket, attach_message())
        reading, writing = os.pipe()
        try:
            with pytest.raises(HawseError, match="not of a network namespace"):
                request(socket, attach_message(), reading)
        finally:
            os.close(reading)
            os.close(writing)


def test_a_name_that_the_container_uses_itself_is_refused_afterwards(lab: Lab) -> None:
    """Hawse cannot know before it tries: what it had allocated is released, and the interface is left alone."""
    lab.inside("a3", "ip", "link", "add", "mine", "type", "bridge")
    before = lab.state()[1:]
    complaint = lab.run("h1", "network", "attach", "web", "a3", "--ifname", "mine", code=Exit.CONFLICT)
    assert "has an interface mine already, which Hawse did not make" in complaint
    assert lab.client.get("/v1/status", revision=lab.revision(), wait="10").body["settled"]
    assert lab.state()[1:] == before
    assert lab.inside("a3", "ip", "link", "del", "mine").returncode == 0


# --- who, where, and daemons that are away ---

AS_NOBODY = """
import os, sys
import sdn.cli.main, sdn.cli.network, sdn.cli.attach, sdn.cli.nearest, sdn.client.client, sdn.service.contract_client
import topologies.commands, topologies.lab, topologies.schema, plugin.agent.main, sdn.controller.main
import sdn.controller.listen, sdn.controller.options, sdn.ipam.subnet
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(sdn.cli.main.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("network ls", "no permission to use the controller's socket"),
        ("network attach web a1", "you may not open"),
        ("network attach web --pid 1", "cannot be opened: Permission denied"),
        ("agent", "hawse agent needs root"),
        ("controller", "cannot make"),
        ("lab up somewhere.yaml", "a lab needs root"),
        ("lab check", "a lab needs root"),
        ("lab ls", "a lab needs root"),
        ("lab down", "a lab needs root"),
        ("lab demo", "a lab needs root"),
    ],
)
def test_without_root(line: str, says: str, lab: Lab) -> None:
    root = Path(lab.root("h1"))
    if line == "controller":
        root = root / "deeper"
    command = [sys.executable, "-c", AS_NOBODY, "--root", str(root), *line.split()]
    with lab.unchanged():
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment()
        )
    assert done.returncode == Exit.DENIED, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("network ls", "149 bytes"),
        ("controller", "149 bytes"),
        ("agent", "bytes; a unix socket's path has at most 107"),
        ("network attach web --pid {pid}", "bytes; a unix socket's path has at most 107"),
    ],
)
def test_a_root_too_long_for_sockets(line: str, says: str) -> None:
    root = "/nowhere/" + "x" * (149 - len("/nowhere//controller.sock"))
    complaint = hawse("--root", root, *line.format(pid=os.getpid()).split(), code=Exit.INVALID).stderr
    assert says in complaint
    assert "shorter" in complaint
    assert not Path("/nowhere").exists()


def test_daemons_that_are_not_running(tmp_path: Path) -> None:
    on_root = ["--root", str(tmp_path)]
    for words in (["network", "ls"], ["events"], ["drops"], ["network", "rm", "x"], ["tenant", "create", "x"]):
        complaint = hawse(*on_root, *words, code=Exit.UNAVAILABLE).stderr
        assert f"the controller is not running: nothing answers on {tmp_path}/controller.sock" in complaint
        assert "start it with: hawse up -d" in complaint
    complaint = hawse(*on_root, "network", "attach", "web", "--pid", str(os.getpid()), code=Exit.UNAVAILABLE).stderr
    assert "the agent is not running" in complaint
    assert "start it with 'hawse up -d'" in complaint
    assert not list(tmp_path.iterdir())


def test_addresses_of_controllers_that_are_none(tmp_path: Path) -> None:
    for url in ("http://h1", "unix:", "nonsense", "unix:/a\x01b"):
        code = Exit.UNAVAILABLE if url.startswith("unix:/") else Exit.INVALID
        assert "\x01" not in hawse("--controller", url, "network", "ls", code=code).stderr
    (tmp_path / "client.json").write_text("[]")
    assert "client.json" in hawse("--root", str(tmp_path), "network", "ls", code=Exit.INVALID).stderr


def test_with_its_controller_away_a_host_goes_on_and_says_what_it_cannot(tmp_path: Path) -> None:
    with standing_lab(TOPOLOGY.replace("a1: {host: h1}", "a1: {host: h1, networks: web}")) as lab:
        processes.end([lab.daemon("controller")])
        complaint = lab.run("h1", "network", "attach", "web", "a2", code=Exit.UNAVAILABLE)
        assert "controller" in complaint
        assert "try again" in complaint
        assert "the controller is not running" in lab.run("h1", "network", "ls", code=Exit.UNAVAILABLE)
        assert lab.run("h1", "network", "detach", "web", "a1").startswith("eth0  10.1.0.2/24")
        assert "eth0" not in lab.interfaces()["a1"]
        processes.end([lab.daemon("h1")])
        assert "the agent is not running" in lab.run("h1", "network", "attach", "web", "a2", code=Exit.UNAVAILABLE)
        assert "the agent is not running" in lab.run("h1", "network", "detach", "web", "a2", code=Exit.UNAVAILABLE)


# --- a machine that lacks something ---


@pytest.fixture
def agent_root(tmp_path: Path) -> Path:
    """A root with an agent's identity; its controller does not exist."""
    authority = make_authority(time.time()).certificate
    identity = {
        "controllers": ["https://127.0.0.1:1"], "authority": authority.pem, "fingerprint": authority.fingerprint,
        "host": "01m82anbrsfmazdv9tm7sp54d2", "name": "h", "secret": "s",
    }  # fmt: skip
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "agent.json").write_text(json.dumps(identity))
    return tmp_path


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        (
            ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"],
            "veth pairs (Operation not permitted)",
        ),
        (["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"], "cannot make a network namespace"),
        (
            ["sh", "-c", 'mount --bind /dev/null "$0" && exec "$@"', "LIBRARY"],
            "nftables in the bridge and inet families",
        ),
    ],
    ids=["no-net-admin", "no-sys-admin", "no-libnftables"],
)
def test_an_agent_says_what_the_machine_cannot(prefix: list[str], says: str, agent_root: Path) -> None:
    found = sorted(Path("/usr/lib").glob("*/libnftables.so.1")) + sorted(Path("/usr/lib").glob("libnftables.so.1"))
    prefix = [str(found[0].resolve()) if word == "LIBRARY" else word for word in prefix]
    alone = ["unshare", "--mount", "--net", "--propagation", "private"]
    command = [*alone, *prefix, *COMMAND, "agent", "--root", str(agent_root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment())
    assert done.returncode == Exit.UNAVAILABLE, done.stderr
    complaint = [line for line in done.stderr.splitlines() if line.startswith("hawse: ")]
    assert len(complaint) == 1
    assert says in complaint[0]
    assert "Traceback" not in done.stderr
    assert [path.name for path in agent_root.iterdir()] == ["state"]
    assert [path.name for path in (agent_root / "state").iterdir()] == ["agent.json"]


@pytest.mark.parametrize("daemon", ["agent", "controller"])
def test_a_daemon_whose_files_cannot_be(daemon: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    complaint = hawse(daemon, "--root", str(tmp_path / "r"), "--log", "/nowhere/log", code=Exit.INVALID).stderr
    assert "the log '/nowhere/log' cannot be opened: No such file or directory" in complaint
    complaint = hawse(daemon, "--root", str(tmp_path / "file"), code=Exit.UNAVAILABLE).stderr
    assert "choose another --root DIR" in complaint
    hawse("--root", str(tmp_path / "file"), "network", "ls", code=Exit.UNAVAILABLE)
    on_none = ["--root", str(tmp_path / "file"), "network", "attach", "web", "a1"]
    assert "the runtime is not running" in hawse(*on_none, code=Exit.UNAVAILABLE).stderr


def test_an_agent_without_or_with_a_broken_identity(tmp_path: Path) -> None:
    assert "agent.json: No such file" in agent_complaint(tmp_path, Exit.NOT_FOUND)
    for text, says in (("{", "not the agent's configuration"), ('{"controllers": []}', "missing required field")):
        (tmp_path / "state" / "agent.json").write_text(text)
        assert says in agent_complaint(tmp_path, Exit.INVALID)


def agent_complaint(root: Path, code: Exit) -> str:
    command = [*COMMAND, "agent", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment())
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


# --- Ctrl-C ---


def test_a_second_ctrl_c_does_not_stop_the_cleaning(tmp_path: Path) -> None:
    file = tmp_path / f"hwt-{os.getpid()}.yaml"
    file.write_text(TOPOLOGY)
    up = subprocess.Popen([*COMMAND, "lab", "up", str(file)], stderr=subprocess.PIPE, text=True, env=environment())
    with up:
        assert up.stderr is not None
        for line in up.stderr:
            if "the controller serves" in line:
                break
        for _ in range(3):
            with contextlib.suppress(ProcessLookupError):
                up.send_signal(signal.SIGINT)
        rest = up.stderr.read()
    left = file.stem in hawse("lab", "ls").stdout
    if left:
        hawse("lab", "down", file.stem)
    assert not left
    assert up.returncode == Exit.INTERRUPTED
    assert "Traceback" not in rest


def test_an_error_of_the_daemon_keeps_its_kind_and_numbers(lab: Lab) -> None:
    """What a front end gets: the code of CNI, the kind and the facts of the house."""
    with open(lab.place("a3")) as opened, pytest.raises(HawseError) as refused:
        request(f"{lab.root('h1')}/agent.sock", {**attach_message("a3"), "network": "full"}, opened.fileno())
    assert refused.value.kind is Kind.EXHAUSTED
    facts = refused.value.facts
    assert (facts["used"], facts["reserved"], facts["free"], facts["code"]) == (4, 4, 0, 102)
