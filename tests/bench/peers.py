"""The peers: the Go CNI plugins, and `ip -batch` processes, each doing one attachment in namespaces of their own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CNI_PATH = "/usr/lib/cni"
SUBNET = "10.201.0.0/16"


@contextmanager
def namespace(prefix: str) -> Iterator[str]:
    """A named network namespace; its path."""
    name = f"hwt-{prefix}-{os.urandom(3).hex()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield f"/run/netns/{name}"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


class Containers:
    """Empty namespaces, made ahead of the clock."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def make(self) -> str:
        """The path of a new namespace."""
        name = f"hwt-b-{os.urandom(4).hex()}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        self._names.append(name)
        return f"/run/netns/{name}"

    def remove(self) -> None:
        """All of them."""
        batch = "".join(f"netns del {name}\n" for name in self._names)
        subprocess.run(["ip", "-force", "-batch", "-"], input=batch, text=True, check=False)
        self._names.clear()


class GoBridge:
    """`bridge` with `host-local`, as containerd or podman run it, in a host namespace of its own."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._folder = tempfile.TemporaryDirectory(prefix="hawse-bench-")
        self._count = 0
        config = {
            "cniVersion": "1.0.0",
            "name": "bench",
            "type": "bridge",
            "bridge": "clpbr0",
            "isGateway": True,
            "ipam": {"type": "host-local", "subnet": SUBNET, "dataDir": self._folder.name},
        }
        self._config = json.dumps(config).encode()
        # The process is started in the host's namespace: what `nsenter` costs must not count for the peer.
        self._namespace = os.open(host, os.O_RDONLY | os.O_CLOEXEC)

    def add(self, netns: str) -> None:
        """One ADD."""
        self._count += 1
        environment = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": f"bench{self._count}",
            "CNI_NETNS": netns,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": CNI_PATH,
            "PATH": os.environ["PATH"],
        }
        subprocess.run([f"{CNI_PATH}/bridge"], input=self._config, env=environment, check=True, capture_output=True)

    def close(self) -> None:
        """Forget its addresses."""
        os.close(self._namespace)
        self._folder.cleanup()


class IpBatch:
    """Two `ip -batch` processes per attachment: no allocation, no guard, nothing central."""

    def __init__(self, host: str) -> None:
        self._host = Path(host).name
        self._count = 0
        setup = f"link add br0 type bridge\nlink set br0 up\naddr add {SUBNET.replace('.0.0/', '.0.1/')} dev br0\n"
        subprocess.run(["ip", "-n", self._host, "-batch", "-"], input=setup, text=True, check=True)

    def add(self, netns: str) -> None:
        """One attachment."""
        self._count += 1
        number, name = self._count, Path(netns).name
        mac = f"0a:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        outside = f"link add v{number} master br0 up type veth peer name eth0 address {mac} netns {name}\n"
        inside = (
            f"link set lo up\nlink set eth0 up\naddr add 10.201.{1 + (number >> 8)}.{number & 255}/16 dev eth0\n"
            "route add default via 10.201.0.1\n"
        )
        subprocess.run(["ip", "-n", self._host, "-batch", "-"], input=outside, text=True, check=True)
        subprocess.run(["ip", "-n", name, "-batch", "-"], input=inside, text=True, check=True)

    def add_all(self, paths: list[str]) -> None:
        """One after the other."""
        for path in paths:
            self.add(path)
