"""Docker as a peer: daemons of their own, in mount, network and process namespaces, nothing of them on the host.

The first process of a daemon's pid namespace takes dockerd, containerd, shims and containers along when it is killed;
what remains are cgroups below a name of its own and a data root on disk, and the janitor removes both.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.janitor import Janitor
from tests.bench.launchers import find
from tests.bench.measure import PeerMissingError
from tests.bench.programs import archive, make_tree
from tests.bench.stand import scratch

IMAGE = "bench:latest"
START_TIMEOUT_S = 60.0
PAUSE_S = 0.05
UNDERLAY = ("10.250.0.1", "10.250.0.2")
OVERLAY, OVERLAY_SUBNET = "ov", "10.40.0.0/16"

BOOT = """
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /opt
mount -t overlay -o lowerdir=/etc,upperdir=etc,workdir=work overlay /etc
ip link set lo up
exec "$@"
"""
"""/run: sockets and locks. /opt: containerd makes a directory there. /etc: dockerd makes itself a key there."""


class Docker:
    """One daemon that runs, and its command. `pid`: of its first process, whose namespaces are the daemon's."""

    def __init__(self, directory: Path, cgroup: str, janitor: Janitor, stack: ExitStack) -> None:
        self._socket = directory / "docker.sock"
        self._docker = find("docker", "docker.io")
        self._log = directory / "dockerd.log"
        arguments = [
            *(find("dockerd", "docker.io"), "--host", f"unix://{self._socket}", "--data-root", str(directory / "data")),
            *("--exec-root", str(directory / "exec"), "--pidfile", str(directory / "docker.pid"), "--group", "root"),
            *("--cgroup-parent", f"/{cgroup}"),
        ]
        for name in ("etc", "work"):
            (directory / name).mkdir()
        spaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with self._log.open("wb") as log:
            starter = subprocess.Popen(
                [*spaces, "sh", "-ec", BOOT, "sh", *arguments],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        stack.callback(starter.wait)
        stack.enter_context(janitor.keep("process", starter.pid))
        self._starter = starter
        self._wait_ready()
        self.pid = int(Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().split()[0])
        stack.enter_context(janitor.keep("process", self.pid))  # before the starter, which reaps it

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._starter.poll() is None and time.monotonic() < deadline:
            if subprocess.run(self.command("version"), capture_output=True, check=False).returncode == 0:
                return
            time.sleep(PAUSE_S)
        last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        raise PeerMissingError(f"dockerd does not start: {' '.join(last) or 'it said nothing'}")

    def command(self, *arguments: str) -> list[str]:
        """What the command would be called as."""
        return [self._docker, "--host", f"unix://{self._socket}", *arguments]

    def __call__(self, *arguments: str) -> str:
        """Run the command; its output. Raises: PeerMissingError."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerMissingError(f"docker {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def load(self, archived: bytes) -> None:
        """Make the image of a tar archive. Raises: PeerMissingError."""
        done = subprocess.run(self.command("import", "-", IMAGE), input=archived, capture_output=True, check=False)
        if done.returncode:
            raise PeerMissingError(f"docker import failed: {done.stderr.decode().strip()}")


@contextmanager
def dockers(janitor: Janitor, count: int) -> Iterator[list[Docker]]:
    """So many daemons that have the image. Raises: PeerMissingError, with what they said."""
    if not Path("/usr/sbin/iptables").exists():
        raise PeerMissingError("iptables is not installed, and dockerd needs it (Debian: iptables)")
    with ExitStack() as stack:
        archived = archive(make_tree(stack.enter_context(scratch(janitor)) / "tree"))
        daemons = []
        for _ in range(count):
            directory = stack.enter_context(scratch(janitor))
            cgroup = f"hwt-docker-{os.urandom(3).hex()}"
            stack.enter_context(janitor.keep("cgroup", cgroup))
            daemons.append(Docker(directory, cgroup, janitor, stack))
            daemons[-1].load(archived)
        yield daemons


def join_swarm(first: Docker, second: Docker) -> None:
    """Two daemons on a veth pair, one swarm, an overlay network on it. Raises: PeerMissingError."""
    add = ["ip", "link", "add", "u0", "netns", str(first.pid), "type", "veth", "peer", "name", "u0"]
    subprocess.run([*add, "netns", str(second.pid)], check=True)
    for daemon, address in zip((first, second), UNDERLAY, strict=True):
        for line in (f"addr add {address}/24 dev u0", "link set u0 up"):
            subprocess.run(["nsenter", f"--net=/proc/{daemon.pid}/ns/net", "ip", *line.split()], check=True)
    first("swarm", "init", "--advertise-addr", UNDERLAY[0])
    token = first("swarm", "join-token", "-q", "worker")
    second("swarm", "join", "--token", token, "--advertise-addr", UNDERLAY[1], f"{UNDERLAY[0]}:2377")
    first("network", "create", "--driver", "overlay", "--attachable", "--subnet", OVERLAY_SUBNET, OVERLAY)
