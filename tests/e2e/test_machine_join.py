"""`hawse join` and `hawse leave`: a second machine, what goes wrong on the way, and what is left afterwards."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from plugin.kernel import namespace
from sdn.model.token import TokenKind, parse_token
from sdn.model.version import VERSION
from tests.e2e.machines import PATIENCE_S, Machine, environment, machines, pings
from tests.runtime.daemons import eventually

pytestmark = pytest.mark.root
FOREVER = ("--stop-signal", "KILL", "host", "sleep", "1000")
NOTHING = {"pids": {}, "files": set(), "kernel": ""}


@pytest.fixture(scope="module")
def fabric() -> Iterator[tuple[Machine, Machine]]:
    """The first machine with its controller, a network, and a second machine that is nothing."""
    with machines(2) as (first, second):
        first.up("--discoverable")
        first.hawse("network", "create", "web", "--subnet", "10.1.0.0/24")
        first.hawse("run", "-d", "--name", "one", "--network", "web", "--ip", "10.1.0.11", *FOREVER)
        yield first, second


@pytest.fixture
def first(fabric: tuple[Machine, Machine]) -> Machine:
    """The first machine."""
    return fabric[0]


@pytest.fixture
def second(fabric: tuple[Machine, Machine]) -> Iterator[Machine]:
    """The second one, which has not joined, and which leaves again."""
    yield fabric[1]
    if fabric[1].root.agent_file.exists():
        fabric[1].hawse("leave", "--force")
    assert state_of(fabric[1]) == NOTHING


@pytest.fixture
def joined(first: Machine, second: Machine) -> Machine:
    """The second one, which has joined."""
    join(second, first)
    return second


def join(machine: Machine, first: Machine, *options: str) -> str:
    """Join with a new token; what is said."""
    return machine.hawse("join", "-d", first.address, "-", "--name", machine.name, *options, stdin=first.token())


def state_of(machine: Machine) -> dict[str, object]:
    """What of a host is there: processes, files that make it one, what is in the kernel."""
    root = machine.root
    files = {
        path.name for path in (root.agent_file, root.machine_file, root.client_file, root.supervisor_socket)
        if path.exists()
    }  # fmt: skip
    files |= {path.name for path in root.netns.glob("*")}
    tables = namespace.run_in(
        machine.here.fd, lambda: subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    )
    return {"pids": machine.pids(), "files": files, "kernel": tables.stdout}


def test_containers_of_both_reach_each_other_and_leaving_takes_all_away(first: Machine, second: Machine):
    said = join(second, first, "--label", "rack=7")
    assert f"host m2 of https://{first.address}:4780" in said
    assert second.root.agent_file.stat().st_mode & 0o777 == 0o600
    host = first.host("m2")
    assert (host["connected"], host["vtep4"], host["labels"]) == (True, second.address, {"rack": "7"})
    second.hawse("run", "-d", "--name", "two", "--network", "web", "--ip", "10.1.0.12", *FOREVER)
    assert pings(second, "two", "10.1.0.11")
    assert pings(first, "one", "10.1.0.12")
    complaint = second.refused("leave", code=4)
    assert "1 container runs on this machine: two" in complaint
    assert "m2" in first.refused("leave", code=4)  # whoever needs this controller is named
    assert "m2 is no host any more" in second.hawse("leave", "--force")
    assert state_of(second) == NOTHING
    assert [host["name"] for host in first.client.items("/v1/hosts")] == ["m1"]
    assert [one["addresses"] for one in first.client.items("/v1/endpoints")] == [["10.1.0.11/24"]]
    assert "nothing to leave" in second.refused("leave", code=3)
    join(second, first)
    again = first.host("m2")
    assert again["id"] != host["id"]
    second.hawse("run", "-d", "--name", "two", "--network", "web", "--ip", "10.1.0.12", *FOREVER)
    assert pings(first, "one", "10.1.0.12")


def test_a_joined_machine_is_stopped_started_and_reboots(first: Machine, joined: Machine):
    assert "host m2 of" in joined.refused("join", first.address, first.token(), code=4)
    assert "has no controller" in joined.refused("up", "-d", "--listen", "10.77.0.2", code=5)
    joined.hawse("run", "-d", "--name", "two", "--network", "web", "--ip", "10.1.0.12", *FOREVER)
    joined.hawse("down", "--keep-containers")
    assert pings(first, "one", "10.1.0.12")  # what is wired stays so
    joined.up()
    assert set(joined.pids()) == {"machine", "agent", "runtime"}
    assert pings(joined, "two", "10.1.0.11")
    for pid in joined.pids().values():
        os.kill(pid, signal.SIGKILL)
    eventually(joined.pids, lambda now: now == {}, "all are dead")
    joined.up()
    assert f"nothing says whom to trust at https://{first.address}:4780" in joined.refused("host", "ls", code=8)
    assert pings(joined, "two", "10.1.0.11")


def test_a_token_is_good_once_and_every_other_word_is_refused(first: Machine, second: Machine):
    word = first.token()
    cut = second.refused("join", first.address, word[:-7], code=5)
    assert "pasted in part" in cut
    assert word[20:-7] not in cut
    assert "altered" in second.refused("join", first.address, word[:-1] + ("0" if word[-1] != "0" else "1"), code=5)
    user = first.client.post("/v1/tokens", {"kind": "user", "role": "admin"}).body["word"]
    assert "a user token, and a join token is wanted" in second.refused("join", first.address, user, code=5)
    token = parse_token(word, TokenKind.JOIN)
    other = str(token._replace(fingerprint="ab" * 32))
    refused = second.refused("join", first.address, other, code=8)
    assert "ab" * 32 in refused  # both are shown
    assert token.fingerprint in refused
    expired = first.client.post("/v1/tokens", {"kind": "join", "ttl_s": 1}).body
    eventually(
        lambda: first.client.get(f"/v1/tokens/{expired['id']}").body["state"],
        lambda now: now == "expired",
        "it expires",
    )
    assert "expired" in second.refused("join", first.address, expired["word"], code=8)
    assert "name" in second.refused("join", first.address, word, "--name", "m1", code=4)
    spec = {"token": first.token(), "name": "twin", "labels": {}, "version": VERSION, "vtep4": second.address}
    first.client.post("/v1/join", spec)
    taken = second.refused("join", first.address, word, "--name", "m2", code=4)
    assert "twin" in taken
    assert "m2" in taken
    first.hawse("host", "forget", "twin")
    elsewhere = second.refused("join", first.address, word, "--name", "m2", "--vtep", first.address, code=5)
    assert f"--vtep {first.address}: this machine does not have that address" in elsewhere
    assert state_of(second) == NOTHING
    second.hawse("join", "-d", first.address, word, "--name", "m2")  # none of all that has used it up
    second.hawse("leave")
    assert "m2" in second.refused("join", first.address, word, code=8)  # used, and by whom


def test_an_address_that_is_no_controller_uses_no_token(first: Machine, second: Machine):
    word = first.token()
    assert "refused" in second.refused("join", f"{first.address}:4782", word, code=7)
    assert "not an address of a controller" in second.refused("join", "http://10.77.0.1", word, code=5)
    assert "needs the controller's address and a token" in second.refused("join", first.address, code=2)
    assert state_of(second) == NOTHING
    second.hawse("join", "-d", f"https://{first.address}:4780", word, "--name", "m2")


def test_a_controller_is_found_on_the_segment_and_the_token_says_which(first: Machine, second: Machine):
    assert "the token alone" in second.refused("join", "--discover", first.address, first.token(), code=2)
    said = second.hawse("join", "-d", "--discover", first.token(), "--name", "m2")
    assert f"host m2 of https://{first.address}:4780" in said


def test_a_machine_that_lacks_what_a_host_needs_uses_no_token(first: Machine, second: Machine):
    word = first.token()
    lacking = second.refused(
        "join", first.address, word, "--name", "m2", code=7, before=("setpriv", "--bounding-set", "-sys_admin")
    )
    assert "cannot make a network namespace" in lacking
    second.hawse("join", "-d", first.address, word, "--name", "m2")


def test_the_token_is_in_no_title(first: Machine, second: Machine):
    word = first.token()
    silent = namespace.socket_in(first.here.fd, socket.AF_INET, socket.SOCK_STREAM, 0)
    with closing(silent):
        silent.bind((first.address, 4781))
        silent.listen()
        process = subprocess.Popen(
            second.words("join", f"{first.address}:4781", word, "--name", "m2"),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
        )  # fmt: skip
        try:
            silent.settimeout(PATIENCE_S)
            connection, _ = silent.accept()  # it has begun, and waits for us
            with connection:
                for path in Path("/proc").glob("[0-9]*"):
                    for name in ("cmdline", "environ"):
                        try:
                            text = (path / name).read_bytes()
                        except OSError:
                            continue
                        mine = int(path.name) == os.getpid()
                        assert mine or word.encode() not in text, f"{path / name}: {text!r}"
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


@pytest.mark.parametrize("mark", ["agent.json", "runtime.sock"])
def test_killed_while_it_joins_the_next_try_works_or_says_what_to_do(first: Machine, second: Machine, mark: str):
    path = second.directory / mark if mark.endswith(".sock") else second.directory / "state" / mark
    word = first.token()
    second.kill_amid(path, "join", first.address, word, "--name", "m2")
    done = second.done("join", "-d", first.address, word, "--name", "m2")
    if done.returncode == 4:  # it has become a host
        assert "up starts it" in done.stderr
        second.hawse("up", "-d")
    elif done.returncode:  # the token was used, and the answer was lost
        assert done.returncode == 8
        assert "m2" in done.stderr
        first.hawse("host", "forget", "m2")
        join(second, first)
    eventually(lambda: first.host("m2")["connected"], bool, "it is connected")


def test_leaving_while_the_controller_is_away(first: Machine, joined: Machine):
    first.hawse("down", "--keep-containers")
    try:
        refused = joined.refused("leave", code=7)
        assert "leave --force" in refused
        assert joined.root.agent_file.exists()
        said = joined.hawse("leave", "--force")
        assert "hawse host forget m2" in said
        assert state_of(joined) == NOTHING
    finally:
        first.up()
    first.hawse("host", "forget", "m2", "--force")


def test_a_host_that_was_forgotten_can_leave_and_join_again(first: Machine, joined: Machine):
    joined.hawse("down")
    first.hawse("host", "forget", "m2")
    said = joined.hawse("up", "-d")  # it is up, and useless: said at once, with what to type
    assert "does not accept this host's credential" in said
    assert "hawse leave" in said
    joined.hawse("leave")
    assert state_of(joined) == NOTHING
    join(joined, first)
