"""An Open vSwitch of a test's own: ovsdb-server and ovs-vswitchd in a namespace, with a directory for their sockets."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.packet.namespaces import TestNamespace

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_WAIT_S = 30.0
_PAUSE_S = 0.002


class VswitchProcess:
    """Both daemons, running. `here`: the namespace that they are in, made where none is given. `options`: of vswitchd.

    What its methods stop is started again by others; `close` ends and removes everything.
    """

    def __init__(self, here: TestNamespace | None = None, options: Sequence[str] = ()) -> None:
        self._options = options
        self._undo = contextlib.ExitStack()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        with self._undo:
            self.directory = Path(tempfile.mkdtemp(prefix="ovs-")).absolute()
            self._undo.callback(shutil.rmtree, self.directory)
            if here is None:
                here = TestNamespace()
                self._undo.callback(here.close)
            self.here = here
            self._undo.callback(self._end_all)
            self._environment = os.environ | {
                f"OVS_{name}": str(self.directory) for name in ("RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR")
            }
            self.run("ovsdb-tool", "create", str(self.directory / "conf.db"), str(SCHEMA))
            self.start_database()
            self.vsctl("--no-wait", "init")
            self.start_vswitchd()
            self._undo = self._undo.pop_all()

    @property
    def socket(self) -> Path:
        """Where the database answers."""
        return self.directory / "db.sock"

    @property
    def vswitchd(self) -> int:
        """The switch's process. Raises: KeyError where it does not run."""
        return self._running["ovs-vswitchd"].pid

    def run(self, *command: str, stdin: str = "") -> str:
        """One of Open vSwitch's commands, for this one; its output."""
        done = subprocess.run(
            command, env=self._environment, input=stdin, capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def vsctl(self, *arguments: str) -> str:
        """What `ovs-vsctl` prints."""
        return self.run("ovs-vsctl", f"--db=unix:{self.socket}", "--timeout=10", *arguments)

    def ofctl(self, *arguments: str, stdin: str = "") -> str:
        """What `ovs-ofctl` prints, in OpenFlow 1.3."""
        return self.run("ovs-ofctl", "--timeout=10", "-OOpenFlow13", *arguments, stdin=stdin)

    def appctl(self, *arguments: str) -> str:
        """What `ovs-appctl` prints, asked of ovs-vswitchd."""
        return self.run("ovs-appctl", "--timeout=10", f"--target={self.control}", *arguments)

    @property
    def control(self) -> Path:
        """The switch's control socket."""
        return self.directory / f"ovs-vswitchd.{self.vswitchd}.ctl"

    def trace(self, bridge: str, flow: str) -> str:
        """What the switch says that it would do with a packet (ofproto/trace)."""
        return self.appctl("ofproto/trace", bridge, flow)

    def start_database(self) -> None:
        """Start ovsdb-server; returns when it answers."""
        self._start("ovsdb-server", str(self.directory / "conf.db"), f"--remote=punix:{self.socket}")
        self._until(lambda: _answers(self.socket), "ovsdb-server")

    def start_vswitchd(self) -> None:
        """Start ovs-vswitchd; returns when it has done what the database says."""
        self._start("ovs-vswitchd", f"unix:{self.socket}", "--disable-system", *self._options)
        self._until(lambda: _answers(self.control), "ovs-vswitchd")
        self.vsctl("set", "Open_vSwitch", ".", "external_ids:hawse-test=ready")  # waits for it

    def kill_database(self) -> None:
        """End ovsdb-server as a crash would."""
        self._kill("ovsdb-server")

    def kill_vswitchd(self) -> None:
        """End ovs-vswitchd as a crash would."""
        self._kill("ovs-vswitchd")

    def restart_vswitchd(self) -> None:
        """Kill it and start another."""
        self.kill_vswitchd()
        self.start_vswitchd()

    @contextlib.contextmanager
    def stopped(self, name: str = "ovs-vswitchd") -> Iterator[None]:
        """Have a daemon stand still (SIGSTOP)."""
        process = self._running[name]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End and remove everything."""
        self._undo.close()

    def _start(self, name: str, *arguments: str) -> None:
        command = ["nsenter", f"--net=/run/netns/{self.here.name}", name, *arguments]
        command += ["-vconsole:off", "-vsyslog:off", "--log-file", "--pidfile"]
        self._running[name] = subprocess.Popen(
            command, env=self._environment, cwd=self.directory, stdin=subprocess.DEVNULL
        )

    def _until(self, ready: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + _WAIT_S
        while not ready():
            ended = self._running[name].poll() is not None
            if ended or time.monotonic() > deadline:
                log = self.directory / f"{name}.log"
                raise AssertionError(f"{name} does not start: {log.read_text() if log.exists() else 'no log'}")
            time.sleep(_PAUSE_S)

    def _kill(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def _end_all(self) -> None:
        for name in reversed(list(self._running)):
            self._kill(name)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            asking.connect(str(path))
        except OSError:
            return False
        return True


def wait_until(ready: Callable[[], bool], what: str, timeout_s: float = _WAIT_S) -> None:
    """Look again and again until it is so; fails where it never is."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        select.select([], [], [], _PAUSE_S)


@contextlib.contextmanager
def vswitch_process(here: TestNamespace | None = None, options: Sequence[str] = ()) -> Iterator[VswitchProcess]:
    """One, ended and removed whatever happens."""
    with contextlib.closing(VswitchProcess(here, options)) as process:
        yield process
