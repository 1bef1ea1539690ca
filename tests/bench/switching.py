"""Rows about the OpenFlow datapath: an attachment beside the bridge's, and a switch that lost everything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from plugin.kernel import ovsdb
from sdn.model.errors import HawseError
from sdn.openflow.connection import Connection, connect
from tests.bench.attach import attacher
from tests.bench.fill import ghosts
from tests.bench.janitor import Janitor
from tests.bench.measure import Result, compare, interleave, progress, timed
from tests.bench.stand import Attacher, Lab, Sandboxes, lab

LOCAL = 33
"""With the samples' own, which stay until the end, the median attachment finds 40 ports."""
ROUNDS = 15
WAIT_S = 30.0
ONE_HOST = """\
name: NAME
hosts:
  h1: {datapath: DATAPATH}
networks:
  alone: {subnets: [10.201.0.0/16]}
containers: {}
"""

NETWORKS = 20
REMOTE = 49
"""Of each network, beside one here: 1000 in all."""
RESYNC_ROUNDS = 7
LOOK_EVERY_S = 0.002


def against_bridge(janitor: Janitor) -> Iterator[Result]:
    """attach-openflow-vs-bridge."""
    slug = "attach-openflow-vs-bridge"
    progress(f"{slug} …")
    with (
        lab(janitor, ONE_HOST.replace("DATAPATH", "openflow")) as switched,
        lab(janitor, ONE_HOST.replace("DATAPATH", "bridge")) as bridged,
        attacher(switched, "h1", "alone") as (ours, many),
        attacher(bridged, "h1", "alone") as (peer, few),
    ):
        for client, sandboxes in ((ours, many), (peer, few)):
            for _ in range(LOCAL):
                client.add(sandboxes.make(), 0)
        samples = interleave(lambda: _attached(ours, many), lambda: _attached(peer, few), ROUNDS, warmup=2)
        alone = vswitchd_alone(switched)
    note = f"of ours, {alone:.2f} ms are Open vSwitch's own: a port of a ready veth, from the database to its number"
    yield compare(slug, samples, unit="ms", target=8.0, peer_name="the same on the bridge datapath", note=note)


def _attached(client: Attacher, sandboxes: Sandboxes) -> float:
    fd = sandboxes.make()
    return timed(lambda: client.add(fd, 0))


def vswitchd_alone(one: Lab) -> float:
    """Milliseconds, the median: from the transaction that adds a ready veth to the number that its port gets."""
    host = Path(one.host_namespace("h1"))
    names = [f"bench{number}" for number in range(ROUNDS)]
    for name in names:
        _ip(host, f"link add {name} type veth peer name {name}x")
        _ip(host, f"link set {name} up")
    try:
        return statistics.median(asyncio.run(_ports(_switch(one), names)))
    finally:
        for name in names:
            _vsctl(_switch(one), "--if-exists", "del-port", "hwint", name)
            _ip(host, f"link del {name}")


async def _ports(place: Path, names: list[str]) -> list[float]:
    numbered = asyncio.Event()

    def changed(rows: list[ovsdb.RowChange]) -> None:
        if any(row.after and row.after.get("ofport") and row.after.get("name") == name for row in rows):
            numbered.set()

    columns = {"Bridge": ("name", "ports"), "Interface": ("name", "ofport")}
    name, samples = "", []
    database = await ovsdb.Database.connect(place / "db.sock", columns, changed, lambda _: None)
    found = database.find("Bridge", "hwint")
    assert found is not None
    try:
        for name in names:
            numbered.clear()
            begin = time.perf_counter()
            database.begin(
                [
                    ovsdb.insert("Interface", {"name": name}, "interface"),
                    ovsdb.insert("Port", {"name": name, "interfaces": ovsdb.named("interface")}, "port"),
                    ovsdb.mutate("Bridge", found[0], ("ports", "insert", ovsdb.encode_set([ovsdb.named("port")]))),
                ]
            )
            await numbered.wait()
            samples.append((time.perf_counter() - begin) * 1000)
    finally:
        database.close()
    return samples


def _ip(netns: Path, command: str) -> None:
    subprocess.run(["nsenter", f"--net={netns}", "ip", *command.split()], check=True, capture_output=True)


def _switch(one: Lab) -> Path:
    return one.directory / "h1" / "ovs"


def resync(janitor: Janitor) -> Iterator[Result]:
    """resync: ovs-vswitchd is killed and started; from its hello until it has as many flows as before."""
    slug = "resync"
    progress(f"{slug}: filling …")
    names = [f"n{number}" for number in range(NETWORKS)]
    networks = "".join(f"  {name}: {{subnets: [10.210.{number}.0/24]}}\n" for number, name in enumerate(names))
    topology = ONE_HOST.replace("DATAPATH", "openflow").replace("containers:", f"{networks}containers:")
    with lab(janitor, topology) as one, contextlib.ExitStack() as stack:
        for number, name in enumerate(names):
            ghosts(one, name, number, number + 1, REMOTE)
            client, sandboxes = stack.enter_context(attacher(one, "h1", name))
            client.add(sandboxes.make(), 0)
        progress(f"{slug} …")
        samples = [asyncio.run(_restored(one)) for _ in range(RESYNC_ROUNDS)]
    mine, theirs, flows = zip(*samples, strict=True)
    note = f"{flows[-1]} flows, {NETWORKS * (REMOTE + 1)} endpoints in {NETWORKS} networks, {NETWORKS} of them here"
    yield compare(slug, (mine, theirs), unit="ms", target=300.0, peer_name="ovs-ofctl --bundle add-flows of the dump",
                  absolute=True, note=note)  # fmt: skip


async def _restored(one: Lab) -> tuple[float, float, int]:
    """Milliseconds of ours and of ovs-ofctl, and how many flows there are."""
    place = _switch(one)
    before = await _settled(place)
    dump = _ofctl(place, "--no-names", "--no-stats", "dump-flows", "hwint")
    _restart_vswitchd(one)
    connection = await _hello(place)
    begin = time.perf_counter()
    try:
        while (await connection.aggregate()).flows < before:
            if time.perf_counter() - begin > WAIT_S:
                raise RuntimeError(f"of {before} flows not all are back after {WAIT_S:g} s")
            await asyncio.sleep(LOOK_EVERY_S)
        ours = (time.perf_counter() - begin) * 1000
    finally:
        connection.close()
    return ours, _added(place, dump), before


async def _settled(place: Path) -> int:
    """The flows, once they do not grow any more."""
    connection = await _hello(place)
    try:
        seen, now = -1, (await connection.aggregate()).flows
        while now != seen:
            await asyncio.sleep(0.3)
            seen, now = now, (await connection.aggregate()).flows
        return now
    finally:
        connection.close()


async def _hello(place: Path) -> Connection:
    """A connection of our own, as soon as the switch takes one."""
    deadline = time.perf_counter() + WAIT_S
    while True:
        try:
            return await connect(f"unix:{place}/hwint.mgmt", events=lambda _: None)
        except HawseError:
            if time.perf_counter() > deadline:
                raise
            await asyncio.sleep(LOOK_EVERY_S / 2)


def _restart_vswitchd(one: Lab) -> None:
    """Kill it, and start it as it was started, in the host's namespace."""
    place = _switch(one)
    pid = int((place / "ovs-vswitchd.pid").read_text())
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists() and _state(pid) != "Z":
        time.sleep(LOOK_EVERY_S)
    netns = one.host_namespace("h1")
    subprocess.run(["nsenter", f"--net={netns}", *words], env=_environment(place), check=True, capture_output=True)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "Z"


def _added(place: Path, dump: str) -> float:
    """Milliseconds that ovs-ofctl takes for the same flows, on a bridge of its own."""
    file = place / "bench-flows"
    file.write_text("".join(f"{line.strip()}\n" for line in dump.splitlines() if "actions=" in line))
    kind = ["datapath_type=netdev", "fail_mode=secure"]
    _vsctl(place, "add-br", "hwbench", "--", "set", "bridge", "hwbench", *kind)
    try:
        return timed(lambda: _ofctl(place, "--bundle", "add-flows", "hwbench", str(file)))
    finally:
        _vsctl(place, "del-br", "hwbench")
        file.unlink()


def _vsctl(place: Path, *arguments: str) -> None:
    subprocess.run(["ovs-vsctl", f"--db=unix:{place}/db.sock", *arguments], env=_environment(place), check=True,
                   capture_output=True)  # fmt: skip


def _ofctl(place: Path, *arguments: str) -> str:
    return subprocess.run(["ovs-ofctl", "-OOpenFlow13", *arguments], env=_environment(place), check=True,
                          capture_output=True, text=True).stdout  # fmt: skip


def _environment(place: Path) -> dict[str, str]:
    return {**os.environ, **{f"OVS_{kind}DIR": str(place) for kind in ("RUN", "LOG", "DB", "SYSCONF")}}
