"""Bringing a topology to life: `lab up` from a claimed directory to daemons that start; `building` does the rest.

All daemons are ordered together, of a nursery that has begun to import before anything else was done here; an agent
waits for its `agent.json`, which is filled in as soon as the controller has minted the host's credential; a runtime
needs an agent only once a container is run, but has a supervisor to start, and is born first.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import msgspec

from topologies import processes, vswitch
from topologies.births import Nursery
from topologies.cleanup import destroy
from topologies.daemons import Daemon, LateFile, Say, Started, count
from topologies.images import find_images
from topologies.record import CONTROLLER, RUNTIME, UNDERLAY, Directory, Record, claim, write_whole
from topologies.underlay import make_namespaces
from topologies.values import CONTROLLER_PORT, Datapath, Topology


def bring_up(topology: Topology, file: str, text: bytes, say: Say, nursery: Nursery | None = None) -> Directory:
    """Make the lab; on any error or interruption nothing is left of it. `nursery`: one that was started already.

    Raises: HawseError; KeyboardInterrupt (SIGTERM too).
    """
    images = find_images(topology, file)
    vswitch.require(_with_vswitch(topology))
    record = Record(
        name=topology.name,
        file=os.path.abspath(file),
        phase="building",
        since_s=time.time(),
        hosts=tuple(host.name for host in topology.hosts),
        containers={container.name: container.host for container in topology.containers},
        builder=processes.identify(os.getpid()),
        datapaths={h.name: h.datapath.value for h in topology.hosts if h.datapath is not Datapath.BRIDGE},
    )
    directory = claim(record, text)
    try:
        with contextlib.ExitStack() as stack:
            with _interrupted_by_sigterm():
                nursery = stack.enter_context(nursery or Nursery())
                make_namespaces(directory, topology)
                say(f"{count(len(topology.hosts), 'host')} on the underlay")
                vswitches = stack.enter_context(vswitch.Vswitches(directory, _with_vswitch(topology)))
                started = _start_daemons(directory, topology, nursery, stack)
                from topologies.building import build  # here: what it needs is imported while the daemons are born

                record = msgspec.structs.replace(record, processes=started.processes | vswitches.wait())
                directory.write(record)
            build(directory, topology, Path(record.file).parent, images, started, say)
        directory.write(msgspec.structs.replace(record, phase="up", builder=None))
    except BaseException:
        with _uninterrupted():
            destroy(directory)
        raise
    return directory


def _with_vswitch(topology: Topology) -> list[str]:
    return [host.name for host in topology.hosts if host.datapath.has_vswitch]


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM is KeyboardInterrupt, as SIGINT is."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Cleaning up takes a moment; a second Ctrl-C must not leave half of it."""
    old = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _start_daemons(directory: Directory, topology: Topology, nursery: Nursery, stack: contextlib.ExitStack) -> Started:
    """All but Open vSwitch. What has to be closed is in the stack."""

    def start(name: str, where: str, *arguments: str) -> Daemon:
        directory.root(name).create()
        daemon = Daemon(directory, name, where, arguments, nursery)
        stack.callback(daemon.close)
        return daemon

    runtimes = {host.name: start(host.name, host.name, RUNTIME) for host in topology.hosts}
    listen: list[str] = []
    for address in topology.underlay.controllers:
        listen += ["--listen", f"[{address}]:{CONTROLLER_PORT}" if ":" in address else f"{address}:{CONTROLLER_PORT}"]
    if any(not host.datapath.has_agent for host in topology.hosts):
        from topologies.switches import listening  # here: most labs have no such host

        listen += listening(topology.underlay.controllers)
    started = Started(start(CONTROLLER, UNDERLAY, "controller", *listen), {}, runtimes, {})
    for host in topology.hosts:
        root = directory.root(host.name)
        write_whole(root.client_file, json.dumps({"controller": directory.controller_url}).encode())
        if not host.datapath.has_agent:
            continue
        late = LateFile(root.agent_file)
        stack.callback(late.close)
        started.configurations[host.name] = late
        started.agents[host.name] = start(host.name, host.name, *agent_words(directory, host.name, host.datapath))
    nursery.no_more()
    return started


def agent_words(directory: Directory, host: str, datapath: Datapath) -> list[str]:
    """How a host's agent is started."""
    words = ["agent", "--datapath", datapath.value]
    return [*words, "--ovsdb", str(directory.vswitch(host) / "db.sock")] if datapath.has_vswitch else words


def shipped(name: str) -> Path:
    """A topology file that the package brings along."""
    return Path(__file__).with_name(f"{name}.yaml")
