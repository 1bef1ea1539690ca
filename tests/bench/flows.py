"""Rows about flows: one encoded, and all of a switch's from the desired state until it has them."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sdn.model.resources import Endpoint, Member, Network, Subnet
from sdn.openflow.connection import Connection, connect
from sdn.openflow.encode import encode_add, encode_delete_all
from sdn.openflow.expand import adds_of, flows_of
from sdn.openflow.fields import Field
from sdn.openflow.flow import Flow, Output, SetField, Term
from sdn.openflow.lower import lower
from sdn.openflow.objects import TUNNEL, rank
from sdn.openflow.template import Kind, Template
from sdn.openflow.text import flow_text
from sdn.reconcile.datapath import Key, Object
from sdn.reconcile.diff import diff
from sdn.reconcile.state import Feed, State
from sdn.reconcile.unit import Context, Here, Unit
from sdn.reconcile.world import World
from tests.bench.janitor import Janitor
from tests.bench.measure import PeerMissingError, Result, compare, interleave, progress
from tests.bench.ovn import Chassis, vswitch
from tests.states.states import BLUE, endpoint, host, member, network

FLOW_MODS = 2000
ENCODE_ROUNDS = 11
NETWORKS, ENDPOINTS = 50, 20
"""ENDPOINTS of each network: half of them here, half on another host."""
LEAST_FLOWS = 10_000
ROUNDS = 11
ANSWER_S = 30.0


def encoding(_: Janitor) -> Iterator[Result]:
    """encode-vs-os-ken: flow-mods with eight fields and four actions, no two of them alike."""
    try:
        from os_ken.ofproto import ofproto_v1_3, ofproto_v1_3_parser
    except ImportError:
        raise PeerMissingError("os-ken is not installed (pip install os-ken)") from None
    slug = "encode-vs-os-ken"
    progress(f"{slug} …")
    switch = type("Switch", (), {"ofproto": ofproto_v1_3, "ofproto_parser": ofproto_v1_3_parser})()
    for number in range(3):
        assert encode_add(_full(number)) == _full_by_os_ken(switch, number)
    flows = [_full(number) for number in range(FLOW_MODS)]
    samples = interleave(
        lambda: _rate(encode_add, flows * 5),
        lambda: _rate(lambda number: _full_by_os_ken(switch, number), range(FLOW_MODS)),
        ENCODE_ROUNDS,
    )
    made = _rate(lambda number: encode_add(_full(number)), range(FLOW_MODS))
    template = Template(_of, port=Kind.PORT, mac=Kind.MAC, address=Kind.IPV4)
    macs = [b"\x0a\xf2" + number.to_bytes(4, "big") for number in range(FLOW_MODS)]
    filled = _rate(lambda mac: template.add(b"\0\0\0\7", mac, b"\x0a\1\0\4"), macs * 10)
    note = f"ours from a Flow, with the Flow made: {made:.0f} k/s; templates, which the datapath uses: {filled:.0f} k/s"
    yield compare(slug, samples, unit="k/s", target=20.0, better="higher", peer_name="os-ken, the same bytes",
                  note=note)  # fmt: skip


def _rate(action: Callable[[Any], object], values: Sequence[Any]) -> float:
    """Thousands a second."""
    begin = time.perf_counter()
    for value in values:
        action(value)
    return len(values) / (time.perf_counter() - begin) / 1000


_IN_PORT, _ETH_SRC, _ETH_DST, _ETH_TYPE = Field.IN_PORT, Field.ETH_SRC, Field.ETH_DST, Field.ETH_TYPE
_IPV4_SRC, _IPV4_DST, _IP_PROTO, _TCP_DST = Field.IPV4_SRC, Field.IPV4_DST, Field.IP_PROTO, Field.TCP_DST


def _full(number: int) -> Flow:
    port, octets = number & 0xFFFF, number.to_bytes(4, "big")
    match = (
        Term(_IN_PORT, port.to_bytes(4, "big")),
        Term(_ETH_SRC, b"\x0a\xf2" + octets),
        Term(_ETH_DST, b"\x0a\xf3" + octets),
        Term(_ETH_TYPE, b"\x08\x00"),
        Term(_IPV4_SRC, octets),
        Term(_IPV4_DST, b"\x0a\0\0\1"),
        Term(_IP_PROTO, b"\x06"),
        Term(_TCP_DST, port.to_bytes(2, "big")),
    )
    actions = (
        SetField(_ETH_SRC, b"\x0a\xf4" + octets),
        SetField(_ETH_DST, b"\x0a\xf5" + octets),
        SetField(_IPV4_DST, octets),
        Output(port),
    )
    return Flow(1, 100, match, actions, None, number)


def _of(port: int, mac: str, address: str) -> Flow:
    flow = _full(port & 0xFFFF)
    terms = {Field.ETH_SRC: bytes.fromhex(mac.replace(":", "")), Field.IN_PORT: port.to_bytes(4, "big")}
    terms[Field.IPV4_SRC] = bytes(map(int, address.split(".")))
    match = tuple(term._replace(value=terms.get(term.field, b"\1" * len(term.value))) for term in flow.match)
    actions = (SetField(Field.ETH_SRC, terms[Field.ETH_SRC]), *_full(1).actions[1:3], Output(port))
    return flow._replace(match=match, actions=actions, cookie=1)


def _full_by_os_ken(switch: Any, number: int) -> bytes:
    parser, protocol = switch.ofproto_parser, switch.ofproto
    port, tail = number & 0xFFFF, number.to_bytes(4, "big").hex(":")
    address = ".".join(str(octet) for octet in number.to_bytes(4, "big"))
    fields = [
        ("in_port", port),
        ("eth_src", f"0a:f2:{tail}"),
        ("eth_dst", f"0a:f3:{tail}"),
        ("eth_type", 0x0800),
        ("ipv4_src", address),
        ("ipv4_dst", "10.0.0.1"),
        ("ip_proto", 6),
        ("tcp_dst", port),
    ]
    actions = [
        parser.OFPActionSetField(eth_src=f"0a:f4:{tail}"),
        parser.OFPActionSetField(eth_dst=f"0a:f5:{tail}"),
        parser.OFPActionSetField(ipv4_dst=address),
        parser.OFPActionOutput(port, 0),
    ]
    message = parser.OFPFlowMod(
        switch,
        cookie=number,
        table_id=1,
        priority=100,
        out_port=protocol.OFPP_ANY,
        out_group=protocol.OFPG_ANY,
        match=parser.OFPMatch(_ordered_fields=fields),
        instructions=[parser.OFPInstructionActions(protocol.OFPIT_APPLY_ACTIONS, actions)],
    )
    message.set_xid(0)
    message.serialize()
    return bytes(message.buf)


class _Order:
    """What the diff asks."""

    def rank(self, key: Key) -> int:
        return rank(key)

    def in_place(self, before: Object, after: Object) -> bool:
        return True


def against_ovs_ofctl(janitor: Janitor) -> Iterator[Result]:
    """flows-vs-ovs-ofctl: from units, in a Python that runs, to acknowledged; theirs from their text, in a process."""
    slug = "flows-vs-ovs-ofctl"
    progress(f"{slug} …")
    world, ports = _world(), {TUNNEL: 1}
    units, context = list(world.units()), world.context()
    ports |= {unit.container: number for number, unit in enumerate(world.local_endpoints(), 10)}
    flows = [flow for key, value in _lowered(units, context).items() for flow in flows_of(key, value, ports)]
    assert len(flows) >= LEAST_FLOWS
    with vswitch(janitor) as switch, asyncio.Runner() as loop:
        bridge = switch.directory / "br0.mgmt"
        switch.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail_mode=secure",
                     "protocols=OpenFlow13,OpenFlow14")  # fmt: skip
        text = switch.directory / "flows"
        text.write_text("".join(f"{flow_text(flow)}\n" for flow in flows))
        connection = loop.run(connect(f"unix:{bridge}", events=lambda _: None))

        def ours() -> float:
            loop.run(_emptied(connection))
            gc.collect()
            begin = time.perf_counter()
            loop.run(_sent(connection, units, context, ports))
            took = time.perf_counter() - begin
            assert loop.run(connection.aggregate()).flows == len(flows)
            return len(flows) / took / 1000

        def peer() -> float:
            loop.run(_emptied(connection))
            begin = time.perf_counter()
            _ofctl(switch, "--bundle", "add-flows", str(bridge), str(text))
            took = time.perf_counter() - begin
            assert loop.run(connection.aggregate()).flows == len(flows)
            return len(flows) / took / 1000

        samples = interleave(ours, peer, ROUNDS, warmup=2)
        connection.close()
        loop.run(connection.wait_closed())
    count = NETWORKS * ENDPOINTS
    note = f"{len(flows)} flows of {count} endpoints in {NETWORKS} networks; ours from units, theirs from their text"
    yield compare(slug, samples, unit="k/s", target=0.8, better="higher", peer_name="ovs-ofctl --bundle add-flows",
                  note=note)  # fmt: skip


async def _sent(connection: Connection, units: list[Unit], context: Context, ports: dict[str, int]) -> None:
    """What the loop and the datapath do of a state that is new to them."""
    wanted = _lowered(units, context)
    operations = diff(wanted, {}, wanted, _Order())
    groups = [adds_of(operation.key, operation.after, ports) for operation in operations]
    refused = [verdict for verdict in await connection.bundle(groups, ANSWER_S) if verdict is not None]
    assert not refused, refused[0].text


async def _emptied(connection: Connection) -> None:
    await connection.bundle([[encode_delete_all()]], ANSWER_S)


def _lowered(units: Iterable[Unit], context: Context) -> dict[Key, Object]:
    wanted: dict[Key, Object] = {}
    for unit in units:
        wanted |= lower(unit, context, _port_name)
    return wanted


def _port_name(which: Endpoint) -> str:
    return which.container


def _ofctl(switch: Chassis, *words: str) -> None:
    subprocess.run(["ovs-ofctl", "-OOpenFlow14", *words], env=switch.environment, check=True, capture_output=True)


def _world() -> World:
    """The networks and their endpoints, as this host is told of them."""
    networks = tuple(_network(number) for number in range(NETWORKS))
    members: tuple[Member, ...] = (member(1), member(2))
    endpoints = tuple(
        _endpoint(one, number, index) for number, one in enumerate(networks) for index in range(ENDPOINTS)
    )
    here = Here(host(1), members[0].vtep4, None)
    state = State(
        "bench", here, (BLUE,), networks, tuple((one.id, each) for one in networks for each in members), endpoints
    )
    world = World(here.host)
    world.set_here(here.vtep4, here.vtep6)
    world.apply(*Feed().snapshot(state))
    return world


def _network(number: int) -> Network:
    four = Subnet(prefix=f"10.{number + 1}.0.0/24", gateway=f"10.{number + 1}.0.1")
    return network(
        number + 1, BLUE, four, Subnet(prefix=f"fd00:{number + 1:x}::/64", gateway=f"fd00:{number + 1:x}::1")
    )


def _endpoint(one: Network, number: int, index: int) -> Endpoint:
    addresses = f"10.{number + 1}.0.{index + 2}/24", f"fd00:{number + 1:x}::{index + 2:x}/64"
    return endpoint(number * ENDPOINTS + index + 1, index % 2 + 1, one, *addresses)
