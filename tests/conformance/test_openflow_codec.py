"""What Open vSwitch makes of what it is sent: the same bytes are told; ovs-ofctl makes the same of the same text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sdn.openflow.connection import connect
from sdn.openflow.decode import Entry, decode_entries, entry_of, flow_of
from sdn.openflow.encode import encode_add, encode_delete, encode_delete_all, encode_modify
from sdn.openflow.expand import flows_of
from sdn.openflow.fields import Field
from sdn.openflow.flow import (
    CONTROLLER,
    IN_PORT,
    LOCAL,
    Action,
    CheckLarger,
    Flow,
    Move,
    Output,
    Resubmit,
    SetField,
    Term,
    Track,
)
from sdn.openflow.match import NEEDS, check, ip_frag, match, term, vlan_any, vlan_none
from sdn.openflow.objects import TUNNEL, Gateway, Member, Neighbour, NetworkFlows, Speaker, Station
from sdn.openflow.pipeline import pipeline
from sdn.openflow.text import flow_text
from sdn.reconcile.datapath import Key, Object
from tests.conformance.vswitch_process import VswitchProcess, vswitch_process

pytestmark = pytest.mark.root

_VALUES = {
    Field.IN_PORT: 7,
    Field.ARP_OP: 2,
    Field.ETH_TYPE: 0x88CC,
    Field.VLAN_VID: 0x1003,
    Field.IP_FRAG: 3,
    Field.CT_STATE: 0x22,
}
_UNMASKABLE = {Field.IN_PORT, Field.ETH_TYPE, Field.VLAN_PCP, Field.IP_PROTO, Field.IP_DSCP, Field.IP_ECN, Field.IP_TTL}
_UNMASKABLE |= {Field.ICMPV4_TYPE, Field.ICMPV4_CODE, Field.ICMPV6_TYPE, Field.ICMPV6_CODE, Field.ARP_OP, Field.CT_ZONE}
_UNMASKABLE |= {Field.ND_RESERVED, Field.ND_OPTIONS_TYPE, Field.IP_FRAG}  # the last has words of its own
_UNSETTABLE = {Field.IN_PORT, Field.ETH_TYPE, Field.IP_PROTO, Field.IP_FRAG, Field.CT_STATE, Field.CT_ZONE}
_UNSETTABLE |= {Field.VLAN_VID, Field.VLAN_PCP, Field.CT_MARK, Field.CT_LABEL}  # these, with a tag or a ct() only


@pytest.fixture(scope="module")
def switch() -> Iterator[VswitchProcess]:
    with vswitch_process() as process:
        for name in ("ours", "theirs"):
            process.vsctl("add-br", name, "--", "set", "bridge", name, "datapath_type=netdev", "fail_mode=secure")
            process.vsctl("set", "bridge", name, "protocols=OpenFlow13")
        yield process


async def _told(switch: VswitchProcess, messages: list[bytes], bridge: str = "ours") -> list[Entry]:
    """What the switch tells after these; it takes every one."""
    connection = await connect(f"unix:{switch.directory}/{bridge}.mgmt", events=lambda event: None)
    try:
        verdicts = await connection.bundle([[message] for message in messages])
        refused = [(flow_of(entry_of(each)), no.text) for each, no in zip(messages, verdicts, strict=True) if no]
        assert [f"{no}: {flow_text(flow) if isinstance(flow, Flow) else flow}" for flow, no in refused] == []
        return [entry for body in await connection.flow_stats() for entry in decode_entries(body)]
    finally:
        connection.close()
        await connection.wait_closed()


def _demanded(field: Field) -> list[Term]:
    found: list[Term] = []
    for other, allowed in NEEDS.get(field, ()):
        found += [*_demanded(other), term(other, allowed[0] if allowed else 0x1003)]
    return sorted(found, key=lambda each: each.value == b"\x86\xdd")  # IPv6, where either would do


def _of_a_field(field: Field) -> Iterator[Flow]:
    """One flow each that matches it, matches a part of it, sets it, and copies it."""
    if field in (Field.TUN_FLAGS, Field.CT_STATE):  # not all of their bits are anything: told with a mask always
        yield Flow(0, 0, match(term(field, 1, 1)))
        return
    base = {each.field: each for each in _demanded(field)}
    value = _VALUES.get(field, 0x5A5A5A5A & (1 << field.bits) - 1)
    yield Flow(0, 0, match(*(base | {field: term(field, value)}).values()))
    if field not in _UNMASKABLE:
        yield Flow(0, 0, match(*(base | {field: term(field, 2, 2)}).values()))
    if field not in _UNSETTABLE:
        terms = match(*base.values())
        yield Flow(0, 0, terms, (SetField(field, term(field, value).value),))
        register = Field.METADATA if field is Field.REG5 else Field.REG5
        bits = min(field.bits, register.bits)
        yield Flow(0, 0, terms, (Move(field, register, bits), Move(register, field, bits)), 7)


def _of_actions() -> Iterator[Flow]:
    each: tuple[Action, ...] = (
        Output(7),
        Output(LOCAL),
        Output(IN_PORT),
        Output(CONTROLLER),
        Resubmit(9),
        CheckLarger(86, Field.REG3),
        Track(9),
    )
    packets = match(term(Field.ETH_TYPE, 0x0800))
    for action in each:
        yield Flow(0, 0, packets, (action,))
    yield Flow(0, 0, packets, each, 8)
    for terms in ((vlan_none(),), (vlan_any(),)):
        yield Flow(0, 0, match(*terms))
    for which in ("no", "first", "later", "yes", "not_later"):
        yield Flow(0, 0, match(term(Field.ETH_TYPE, 0x0800), ip_frag(which)))


def _of_the_pipeline() -> Iterator[Flow]:
    mac, ports = "0a:f2:0a:01:00:04", {TUNNEL: 1, "hwv1": 11}
    objects: list[tuple[Key, Object]] = [
        (("network", "7"), NetworkFlows(3)),
        (("gateway", "7", "10.1.0.1"), Gateway("0a:f2:0a:01:00:01", 3)),
        (("gateway", "7", "fd00::1"), Gateway("0a:f2:0a:01:00:01", 3)),
        (("member", "7", "192.0.2.1"), Member()),
        (("member", "7", "2001:db8::1"), Member()),
        (("speaker", "hwv1"), Speaker(7, mac, ("10.1.0.4", "fd00::4"), 99)),
        (("station", "7", mac), Station("hwv1", "", 99)),
        (("station", "7", "0a:f2:0a:01:00:05"), Station("", "192.0.2.1", 98)),
        (("station", "7", "0a:f2:0a:01:00:06"), Station("", "2001:db8::1", 97)),
        (("neighbour", "7", "10.1.0.4"), Neighbour(mac, 99)),
        (("neighbour", "7", "fd00::4"), Neighbour(mac, 99)),
    ]
    yield from pipeline(1)
    for key, value in objects:
        yield from flows_of(key, value, ports)


def _all() -> list[Flow]:
    """Every shape of a flow; those that are not the pipeline's have priorities that tell them apart."""
    made_up = [*(flow for field in Field for flow in _of_a_field(field)), *_of_actions()]
    apart = [flow._replace(table=200, priority=1 + index, cookie=index) for index, flow in enumerate(made_up)]
    apart = [flow._replace(goto=flow.goto and flow.goto + 200) for flow in apart]
    return [check(flow) for flow in (*apart, *_of_the_pipeline())]


async def test_a_switch_tells_what_it_was_sent_byte_for_byte(switch: VswitchProcess) -> None:
    flows = _all()
    told = await _told(switch, [encode_delete_all(), *map(encode_add, flows)])
    by_identity = {(entry.table, entry.priority, entry.match): entry for entry in told}
    for flow in flows:
        sent = entry_of(encode_add(flow))
        found = by_identity.pop((sent.table, sent.priority, sent.match), None)
        assert found is not None, f"not told as it was sent: {flow_text(flow)}"
        assert found._replace(packets=0, bytes=0) == sent, flow_text(flow)
        read = flow_of(found)
        assert read == flow
        assert isinstance(read, Flow)
        assert encode_add(read) == encode_add(flow)  # tuples of other kinds with equal numbers are equal
    assert by_identity == {}


async def test_ovs_ofctl_makes_the_same_of_our_text(switch: VswitchProcess) -> None:
    flows = _all()
    ours = await _told(switch, [encode_delete_all(), *map(encode_add, flows)])
    switch.ofctl("add-flows", str(switch.directory / "theirs.mgmt"), "-", stdin="\n".join(map(flow_text, flows)))
    theirs = await _told(switch, [], "theirs")
    assert {entry._replace(packets=0, bytes=0) for entry in ours} == {
        entry._replace(packets=0, bytes=0) for entry in theirs
    }


async def test_modifying_deleting_and_adding_again_do_what_they_say(switch: VswitchProcess) -> None:
    first, second = Flow(0, 1, (), (Output(1),), cookie=1), Flow(0, 2, (), (Output(1),), cookie=0x4857 << 48)

    async def after(*messages: bytes) -> set[Flow]:
        told = {flow_of(entry) for entry in await _told(switch, list(messages))}
        return {flow for flow in told if isinstance(flow, Flow)}

    assert await after(encode_delete_all(), encode_add(first), encode_add(second)) == {first, second}
    changed = first._replace(actions=(Output(3),), cookie=5)
    assert await after(encode_modify(changed)) == {changed._replace(cookie=1), second}
    assert await after(encode_add(changed)) == {changed, second}
    assert await after(encode_modify(Flow(0, 9, ()))) == {changed, second}
    assert await after(encode_delete_all(0x4857 << 48, 0xFFFF << 48)) == {changed}
    assert await after(encode_delete(changed._replace(cookie=77)), encode_delete(Flow(0, 9, ()))) == set()
