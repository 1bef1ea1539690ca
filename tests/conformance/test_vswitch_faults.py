"""An Open vSwitch that is not there, goes away, stands still or talks nonsense: sentences, bounds, and a way back."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plugin.datapath.openflow.vswitch import NewPort, Place, Vswitch
from sdn.model.errors import HawseError, Kind
from sdn.openflow import cookies
from sdn.openflow.encode import encode_add
from sdn.openflow.flow import Flow, Output
from sdn.openflow.match import in_port, match
from tests.conformance.vswitch_process import wait_until
from tests.conformance.vswitch_site import VswitchSite, vswitch_site
from tests.packet.namespaces import namespaces

pytestmark = pytest.mark.root

FLOW = [encode_add(Flow(0, 100, match(in_port(16)), (Output(1),), cookie=cookies.of_network(1)))]
Talk = Callable[[socket.socket], None]


@pytest.fixture
def made() -> Iterator[VswitchSite]:
    """A host with an Open vSwitch, all that is needed in it, and a port."""
    with vswitch_site() as site:
        site.here.ip("link add eth0 type veth peer name lan\nlink set eth0 up\nlink set lan up")
        site.here.ip("addr add 192.0.2.1/24 dev eth0")
        site.vswitch.uplink("192.0.2.1", None)
        site.vswitch.reaches({"192.0.2.2"}, ())
        site.veth("hwv1")
        site.add("hwv1")
        assert site.vswitch.flows([FLOW]) == [None]
        site.news.clear()
        yield site


@contextlib.contextmanager
def served(path: Path, talk: Talk) -> Iterator[None]:
    """Somebody who is no Open vSwitch answers on its socket."""
    path.unlink(missing_ok=True)
    made: list[socket.socket] = []
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    made.append(client)
                    threading.Thread(target=answer, args=(client,), daemon=True).start()

        def answer(client: socket.socket) -> None:
            with contextlib.suppress(OSError):
                talk(client)

        threading.Thread(target=serve, daemon=True).start()
        undo.callback(_close_all, made)
        undo.callback(listener.shutdown, socket.SHUT_RDWR)
        undo.callback(path.unlink, missing_ok=True)
        yield


def _close_all(clients: list[socket.socket]) -> None:
    for client in clients:
        client.close()


def refusal(call: Callable[[], object]) -> HawseError:
    """The error of a call that fails."""
    with pytest.raises(HawseError) as caught:
        call()
    return caught.value


def hold(path: Path) -> contextlib.closing[Vswitch]:
    """A hold of what is at a socket, in no namespace of its own: it is not got that far."""
    return contextlib.closing(Vswitch(Place(path, "a test", None)))


class TestNothingThere:
    def test_not_installed(self, tmp_path: Path):
        with (
            namespaces(1) as (here,),
            contextlib.closing(Vswitch(Place(tmp_path / "db.sock", "t", here.fd))) as vswitch,
        ):
            for call in (lambda: vswitch.wait_ready(5), vswitch.dump, vswitch.intact, lambda: vswitch.flows([FLOW])):
                error = refusal(call)
                assert error.kind is Kind.UNAVAILABLE
                assert f"no socket {tmp_path}/db.sock" in error.message
                assert "apt-get install openvswitch-switch" in error.hint
            assert (vswitch.ports(), vswitch.networks()) == ({}, {})
            error = refusal(vswitch.purge)
            assert "no socket" in error.message

    def test_nobody_listens(self, tmp_path: Path):
        path = tmp_path / "db.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
            left.bind(str(path))
        with hold(path) as vswitch:
            error = refusal(lambda: vswitch.wait_ready(5))
            assert str(path) in error.message
            assert "systemctl" in error.hint

    def test_closed_it_says_so(self, tmp_path: Path):
        with hold(tmp_path / "db.sock") as vswitch:
            vswitch.close()
            assert "closed" in refusal(vswitch.dump).message


def _schema_error(client: socket.socket) -> None:
    request = json.loads(client.recv(65536))
    error = {"error": "syntax error", "details": "no column mac_in_use"}
    client.sendall(json.dumps({"id": request["id"], "error": error, "result": None}).encode())
    client.recv(1)


def _no_rows(client: socket.socket) -> None:
    request = json.loads(client.recv(65536))
    client.sendall(json.dumps({"id": request["id"], "error": None, "result": {}}).encode())
    client.recv(1)


def _another_shape(client: socket.socket) -> None:
    request = json.loads(client.recv(65536))
    result = {"Bridge": {"u": {"new": {"ports": ["what", 1]}}}}
    client.sendall(json.dumps({"id": request["id"], "error": None, "result": result}).encode())
    client.recv(1)


@pytest.mark.parametrize(
    ("talk", "says"),
    [
        (lambda client: client.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n"), "speaks no JSON-RPC"),
        (lambda client: client.sendall(b'{"id": }'), "no JSON"),
        (lambda client: client.sendall(b'{"neither": 1}'), "neither a call nor an answer"),
        (lambda client: client.close(), "hung up"),
        (_schema_error, "no column mac_in_use"),
        (_no_rows, "not initialised"),
        (_another_shape, "answers what it should not"),
        (lambda client: client.recv(65536) and client.recv(1), "does not answer"),
    ],
    ids=["http", "no-json", "no-call", "hangs-up", "schema", "empty", "shape", "silent"],
)
def test_something_else_answers_as_the_database(tmp_path: Path, talk: Talk, says: str):
    path = tmp_path / "db.sock"
    with served(path, talk), hold(path) as vswitch:
        error = refusal(lambda: vswitch.wait_ready(5))
        assert error.kind is Kind.UNAVAILABLE
        assert says in str(error)


class TestGoingAway:
    def test_the_switch_is_killed_and_comes_back(self, made: VswitchSite):
        made.process.kill_vswitchd()
        wait_until(lambda: _is_away(made), "it is noticed")
        assert "systemctl status openvswitch-switch" in refusal(lambda: made.vswitch.flows([FLOW])).hint
        made.process.start_vswitchd()
        assert made.wait_drift() is None
        made.wait_intact()
        assert not [entry for entry in made.vswitch.dump() if entry.cookie == cookies.of_network(1)]
        assert made.vswitch.flows([FLOW]) == [None]
        assert "User: 192.0.2.2/32 dev hwphy" in made.process.appctl("ovs/route/show")
        assert "192.0.2.1" in made.process.appctl("tnl/neigh/show")

    def test_the_database_is_killed_and_comes_back(self, made: VswitchSite):
        made.process.kill_database()
        wait_until(lambda: _is_away(made), "it is noticed")
        refusal(lambda: made.add("hwv1"))
        made.process.start_database()
        assert made.wait_drift() is None
        made.wait_intact()
        found = [entry for entry in made.vswitch.dump() if entry.cookie == cookies.of_network(1)]
        assert len(found) == 1, "nothing was flushed"

    def test_nothing_there_at_first(self, made: VswitchSite):
        made.process.kill_vswitchd()
        made.process.kill_database()
        with contextlib.closing(Vswitch(Place(made.process.socket, "a test", made.here.fd))) as late:
            refusal(lambda: late.wait_ready(5))
            made.process.start_database()
            made.process.start_vswitchd()
            wait_until(lambda: _answers(late), "it has come")
            assert late.intact() == []

    @pytest.mark.parametrize("name", ["ovs-vswitchd", "ovsdb-server"])
    def test_one_that_stands_still(self, made: VswitchSite, name: str):
        made.veth("hwv2")
        with made.process.stopped(name):
            error = refusal(lambda: (made.add("hwv2"), made.vswitch.flows([FLOW])))
            assert error.kind is Kind.UNAVAILABLE
            assert "does not" in error.message
            again = refusal(lambda: made.vswitch.flows([FLOW]))
            assert again.kind is Kind.UNAVAILABLE
        wait_until(lambda: _answers(made.vswitch), "it goes on")
        made.wait_intact()

    def test_stopped_amid_a_change(self, made: VswitchSite):
        made.veth("hwv2")
        with made.process.stopped():
            change = made.vswitch.change(add={"hwv2": NewPort({"hawse-tenant": "t1"})}, remove=(), networks={})
            assert change.numbers.keys() == {"hwv2"}
            assert refusal(change.wait).kind is Kind.UNAVAILABLE
        wait_until(lambda: _answers(made.vswitch), "it goes on")
        wait_until(lambda: made.vswitch.ports()["hwv2"].number == change.numbers["hwv2"], "it was made after all")


def _is_away(site: VswitchSite) -> bool:
    try:
        site.vswitch.dump()
    except HawseError:
        return True
    return False


def _answers(vswitch: Vswitch) -> bool:
    with contextlib.suppress(HawseError):
        vswitch.dump()
        return True
    return False


_HELLO = struct.pack("!BBHI", 4, 0, 8, 1)


def _features_and_nothing_else(client: socket.socket) -> None:
    client.sendall(_HELLO)
    buffer = b""
    while data := client.recv(65536):
        buffer += data
        while len(buffer) >= 8:
            _, kind, length, xid = struct.unpack_from("!BBHI", buffer)
            buffer = buffer[length:]
            if kind == 5:  # FEATURES_REQUEST
                client.sendall(struct.pack("!BBHI", 4, 6, 32, xid) + struct.pack("!QIBB2xII", 1, 0, 254, 0, 0, 0))


def _stay(client: socket.socket, *data: bytes) -> None:
    for some in data:
        client.sendall(some)
    while client.recv(65536):
        pass


@pytest.mark.parametrize(
    ("talk", "says"),
    [
        (lambda client: client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 4), "hwint.mgmt"),
        (lambda client: _stay(client, _HELLO[:5]), "in 2 s"),
        (_stay, "in 2 s"),
        (lambda client: _stay(client, struct.pack("!BBHI", 1, 0, 8, 1)), "speaks OpenFlow 1.0, and Hawse 1.3"),
        (_features_and_nothing_else, "does not"),
        (lambda client: client.close(), "hwint.mgmt"),
    ],
    ids=["garbage", "half", "silent", "old", "no-answers", "hangs-up"],
)
def test_something_else_answers_as_the_switch(made: VswitchSite, talk: Talk, says: str):
    made.process.kill_vswitchd()
    with served(made.process.directory / "hwint.mgmt", talk):
        wait_until(lambda: _is_away(made), "it is noticed")
        wait_until(lambda: says in str(refusal(lambda: made.vswitch.flows([FLOW]))), f"it says: {says}")
        error = refusal(lambda: made.vswitch.flows([FLOW]))
        assert "hwint.mgmt" in error.message
        assert error.hint.startswith("'systemctl") or "protocols=OpenFlow13" in error.hint
    made.process.start_vswitchd()
    wait_until(lambda: _answers(made.vswitch), "it is back")
    made.wait_intact()
