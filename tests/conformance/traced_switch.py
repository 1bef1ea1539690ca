"""An Open vSwitch whose ports are made up: it is programmed as a host of a state, and asked what it does with frames.

Ports are of the type `dummy`: no devices, frames come and go by the control socket and by capture files. Everything
else is the switch as it always is.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from plugin.kernel.unixctl import Control
from sdn.model.address import family_of
from sdn.model.resources import Endpoint
from sdn.openflow import lower, pipeline
from sdn.openflow.connection import Connection
from sdn.openflow.connection import connect as connect_openflow
from sdn.openflow.cookies import TAG, TAG_MASK, Kind, cause_of, split
from sdn.openflow.decode import Entry, decode_entries
from sdn.openflow.encode import encode_add, encode_delete_all
from sdn.openflow.expand import adds_of
from sdn.openflow.messages import Configuration
from sdn.openflow.objects import TUNNEL
from sdn.openflow.tables import FRAGMENTS_WITH_PORTS
from sdn.reconcile.datapath import Key, Object
from sdn.reconcile.state import Feed, State
from sdn.reconcile.world import World
from tests.conformance.vswitch_process import VswitchProcess

TUNNEL_PORT: Final = 1
FIRST_PORT: Final = 10
PORTS: Final = 8
OPTIONS: Final = ("--enable-dummy",)
"""Of ovs-vswitchd, so that it knows such ports."""


def port_name(endpoint: Endpoint) -> str:
    """What the port of an endpoint is called among the objects."""
    return endpoint.container


def lowered(state: State) -> dict[Key, Object]:
    """The objects of a state, as its host has them."""
    world = World(state.here.host)
    world.set_here(state.here.vtep4, state.here.vtep6)
    world.apply(*Feed().snapshot(state))
    objects: dict[Key, Object] = {}
    for unit in world.units():
        objects |= lower.lower(unit, world.context(), port_name)
    return objects


def numbers_of(state: State) -> dict[str, int]:
    """The ports' numbers of a state's host."""
    names = sorted(port_name(endpoint) for endpoint in state.local_endpoints())
    assert len(names) <= PORTS
    return {TUNNEL: TUNNEL_PORT} | {name: number for number, name in enumerate(names, FIRST_PORT)}


@dataclasses.dataclass(frozen=True, slots=True)
class Story:
    """What the switch says that it does with a frame: the cause that counts it, the ports that it leaves by.

    `tunnels`: where to, of those that leave by the tunnel. `steps`: (table, priority, cookie) of the flows on its way.
    """

    cause: str
    ports: tuple[int, ...]
    tunnels: tuple[str, ...]
    steps: tuple[tuple[int, int, int], ...]


class TracedSwitch:
    """One bridge of a process. Made by `open`."""

    def __init__(self, process: VswitchProcess, name: str, control: Control, connection: Connection) -> None:
        self.name = name
        self._process = process
        self._control = control
        self._connection = connection
        self.entries: list[Entry] = []
        """What the switch tells that it has."""

    @classmethod
    async def open(cls, process: VswitchProcess, name: str) -> TracedSwitch:
        """The bridge of that name, made where it is not there."""
        if name not in process.vsctl("list-br").split():
            _make(process, name)
        control = await Control.connect(process.control)
        connection = await connect_openflow(f"unix:{process.directory}/{name}.mgmt", events=_ignore)
        connection.send(Configuration(FRAGMENTS_WITH_PORTS))
        return cls(process, name, control, connection)

    async def close(self) -> None:
        """Hang up; the bridge stays."""
        self._control.close()
        self._connection.close()
        await self._connection.wait_closed()

    async def enter(self, objects: dict[Key, Object], ports: dict[str, int]) -> None:
        """Have the pipeline and the flows of these objects, and no others of ours. Fails where one is refused."""
        groups = [[encode_delete_all(TAG, TAG_MASK)], [encode_add(flow) for flow in pipeline.pipeline(TUNNEL_PORT)]]
        groups += [adds_of(key, value, ports) for key, value in objects.items()]
        refusals = [refusal for refusal in await self._connection.bundle(groups) if refusal is not None]
        assert refusals == []
        self.entries = await self.told()

    async def told(self) -> list[Entry]:
        """Every flow of ours."""
        return [entry for body in await self._connection.flow_stats(TAG, TAG_MASK) for entry in decode_entries(body)]

    async def trace(self, frames: Sequence[tuple[str, bytes]]) -> list[Story]:
        """What it would do with frames, each with its port or its tunnel, as ofproto/trace wants it."""
        asked = [("ofproto/trace", self.name, way, frame.hex()) for way, frame in frames]
        told = await self._control.run_all(asked, timeout_s=20)
        return [_story(_printed(text), len(frame)) for text, (_, frame) in zip(told, frames, strict=True)]

    async def receive(self, port: int, frame: bytes) -> None:
        """Have a frame come in by a port."""
        await self._control.run("netdev-dummy/receive", f"{self.name}-{port}", frame.hex())

    def sent(self, port: int) -> list[bytes]:
        """All frames that left by a port, ever."""
        return _captured(self._process.directory / f"{self.name}-{port}.pcap")


def _make(process: VswitchProcess, name: str) -> None:
    words = ["add-br", name, "--", "set", "bridge", name, "datapath_type=dummy", "fail_mode=secure"]
    words += ["protocols=OpenFlow13,OpenFlow14", "--", "add-port", name, f"{name}-vx", "--", "set", "interface"]
    udp_port = 4789 + len(process.vsctl("list-br").split())  # of two bridges of one process: they must differ
    words += [f"{name}-vx", "type=vxlan", "options:remote_ip=flow", "options:key=flow", f"options:dst_port={udp_port}"]
    words += [f"ofport_request={TUNNEL_PORT}"]
    for number in range(FIRST_PORT, FIRST_PORT + PORTS):
        device = f"{name}-{number}"
        words += ["--", "add-port", name, device, "--", "set", "interface", device, "type=dummy"]
        words += [f"ofport_request={number}", f"options:tx_pcap={process.directory}/{device}.pcap"]
    process.vsctl(*words)


def _ignore(_event: Any) -> None:
    pass


def way_in(port: int) -> str:
    """Of a frame that a port's container sends."""
    return f"in_port={port}"


def way_out_of_tunnel(vni: int, source: str, target: str) -> str:
    """Of a frame that came in a tunnel packet."""
    prefix = "tun_ipv6_" if family_of(source) == 6 else "tun_"
    return f"in_port={TUNNEL_PORT},tun_id={vni},{prefix}src={source},{prefix}dst={target}"


def _printed(text: object) -> str:
    assert isinstance(text, str), text
    return text


_STEP: Final = re.compile(r"^ *(\d+)\. (?:.*, )?priority (\d+)(?:, cookie 0x([0-9a-f]+))?$")
_TUNNEL: Final = re.compile(r"^ *set_field:(\S+)->tun_(?:ipv6_)?dst$")


def _story(text: str, size: int) -> Story:
    """What a trace tells, of a frame of that many bytes: after a comparison of its length the switch tells of both."""
    lines, cause, ports, tunnels, steps = (
        _followed(text, size),
        "",
        list[int](),
        list[str](),
        list[tuple[int, int, int]](),
    )
    arrived = int(re.search(r"in_port=(\d+)", text)[1])  # type: ignore[index]  # it is always said
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if found := _STEP.match(line):
            cookie = int(found[3] or "0", 16)
            steps.append((int(found[1]), int(found[2]), cookie))
            kind, number = split(cookie)
            if kind == Kind.DROP:
                cause = cause_of(number)[0]
        elif found := _TUNNEL.match(line):
            tunnels.append(found[1])
        elif line.strip() == "IN_PORT":
            ports.append(arrived)
        elif line.strip().startswith("output:") and "skipping output to input port" not in after:
            ports.append(int(line.strip().removeprefix("output:")))
    return Story(cause, tuple(ports), tuple(tunnels), tuple(steps))


def _followed(text: str, size: int) -> list[str]:
    """The lines of the way that a frame goes. The longer frames' is told first, indented; then the shorter ones'."""
    first, *later = text.split("\n" + "=" * 79 + "\n")
    lines = first.partition("Final flow:")[0].splitlines()
    compared = [number for number, line in enumerate(lines) if "check_pkt_larger(" in line]
    if not compared:
        return lines
    (at,) = compared
    limit = int(re.search(r"check_pkt_larger\((\d+)\)", lines[at])[1])  # type: ignore[index]  # the line has it
    begins = [number for number, line in enumerate(lines) if line == lines[at + 1]]
    if size <= limit:
        return lines[: at + 1] + lines[begins[1] :]
    return lines[: begins[1]] + [line for part in later for line in part.partition("Final flow:")[0].splitlines()]


def _captured(path: Path) -> list[bytes]:
    """The frames in a capture file (pcap, of this machine's byte order)."""
    data = path.read_bytes()
    frames, at = [], 24
    while at + 16 <= len(data):
        length = struct.unpack_from("=8xI", data, at)[0]
        frames.append(data[at + 16 : at + 16 + length])
        at += 16 + length
    return frames
