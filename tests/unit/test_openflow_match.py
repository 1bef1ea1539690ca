"""Matches are what a switch takes, and flows read as ovs-ofctl writes them."""

from __future__ import annotations

import pytest

from sdn.openflow.fields import Field
from sdn.openflow.flow import CONTROLLER, IN_PORT, LOCAL, CheckLarger, Flow, Move, Output, Resubmit, Term, Track
from sdn.openflow.match import (
    ARP,
    ICMPV6,
    IPV4,
    IPV6,
    TCP,
    UDP,
    arp_op,
    arp_tpa,
    check,
    ct_state,
    eth_dst,
    eth_type,
    icmpv6_type,
    in_port,
    ip_frag,
    ip_proto,
    ipv4_dst,
    ipv4_src,
    ipv6_dst,
    match,
    move,
    nd_target,
    nd_tll,
    put,
    reg,
    tcp_dst,
    term,
    tun_id,
    tun_ipv4_dst,
    udp_dst,
    vlan_any,
    vlan_none,
    vlan_vid,
)
from sdn.openflow.text import flow_text, match_text


def test_terms_come_in_the_canonical_order_and_without_what_does_not_count() -> None:
    terms = match(tun_id(5), ipv4_dst("10.1.2.3/8"), eth_type(IPV4), in_port(3))
    assert [each.field for each in terms] == [Field.IN_PORT, Field.ETH_TYPE, Field.IPV4_DST, Field.TUN_ID]
    assert terms[2] == Term(Field.IPV4_DST, b"\x0a\0\0\0", b"\xff\0\0\0")
    assert ipv4_dst("10.1.2.3/32") == ipv4_dst("10.1.2.3/255.255.255.255") == ipv4_dst("10.1.2.3")
    assert term(Field.ETH_DST, 1, "ff:ff:ff:ff:ff:ff") == eth_dst("00:00:00:00:00:01")


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ((arp_op(1),), "arp_op cannot be matched where eth_type is not matched to be 0x806"),
        ((eth_type(IPV6), arp_op(1)), "arp_op cannot"),
        ((eth_type(IPV4), ip_proto(UDP), tcp_dst(80)), "tcp_dst cannot be matched where nw_proto"),
        ((eth_type(IPV4), ip_proto(ICMPV6), icmpv6_type(135)), "icmpv6_type cannot"),
        ((eth_type(IPV6), ip_proto(ICMPV6), icmpv6_type(133), nd_target("fd00::1")), "nd_target cannot"),
        ((tun_id(5), tun_id(6)), "twice"),
    ],
)
def test_what_a_switch_would_refuse_is_refused_here(terms: tuple[Term, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        match(*terms)


@pytest.mark.parametrize(
    ("field", "value"),
    [(Field.VLAN_VID, 0x2000), (Field.IP_FRAG, 4), (Field.ETH_SRC, b"12345"), (Field.REG0, -1), (Field.TUN_ID, "x")],
)
def test_a_value_that_does_not_fit_is_refused(field: Field, value: int | bytes | str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        term(field, value)


def test_an_action_demands_what_its_field_demands() -> None:
    flow = Flow(0, 0, match(eth_type(IPV4)), (put(ipv4_src("10.0.0.1")),))
    assert check(flow) is flow
    with pytest.raises(ValueError, match="nd_tll cannot be set"):
        check(flow._replace(actions=(put(nd_tll("0a:00:00:00:00:01")),)))
    with pytest.raises(ValueError, match="arp_spa cannot be copied"):
        check(flow._replace(actions=(move(Field.ARP_SPA, Field.IPV4_SRC),)))
    with pytest.raises(ValueError, match="canonical"):
        check(Flow(0, 0, (tun_id(5), in_port(3))))


def test_flows_read_as_ovs_ofctl_writes_them() -> None:
    mac = "0a:f2:0a:01:00:04"
    flows = [
        Flow(0, 5, match(in_port(LOCAL)), cookie=7),
        Flow(0, 5, match(in_port(3), vlan_none(), reg(1, 1, 1)), (put(tun_id(5)),), 10),
        Flow(1, 6, match(eth_type(ARP), arp_tpa("10.0.0.1")), (move(Field.ETH_SRC, Field.ETH_DST), Output(IN_PORT))),
        Flow(2, 6, match(eth_type(IPV6), ip_proto(ICMPV6), icmpv6_type(135), nd_target("fd00::1"))),
        Flow(3, 6, match(eth_dst(mac), tun_id(5)), (put(tun_ipv4_dst("192.0.2.1")), Output(1), Output(CONTROLLER))),
        Flow(3, 7, match(eth_dst("01:00:00:00:00:00/01:00:00:00:00:00")), (Move(Field.TUN_ID, Field.REG1, 32),)),
        Flow(4, 8, match(eth_type(IPV4), ip_proto(TCP), tcp_dst(80), ip_frag("not_later"), ct_state("0x2/0x2"))),
        Flow(4, 8, match(eth_type(IPV6), ip_proto(UDP), udp_dst(53), ipv6_dst("fd00::/64")), (Resubmit(5),)),
        Flow(4, 8, match(eth_type(IPV4), ip_proto(99), vlan_any()), (CheckLarger(86, Field.REG3), Track(6))),
        Flow(4, 8, match(eth_type(0x88CC), vlan_vid(3))),
    ]
    assert [flow_text(flow) for flow in flows] == [
        "cookie=0x7,table=0,priority=5,in_port=LOCAL,actions=drop",
        "cookie=0x0,table=0,priority=5,in_port=3,vlan_vid=0x0,reg1=0x1/0x1,actions=set_field:0x5->tun_id,goto_table:10",
        "cookie=0x0,table=1,priority=6,arp,arp_tpa=10.0.0.1,actions=move:eth_src[]->eth_dst[],IN_PORT",
        "cookie=0x0,table=2,priority=6,icmp6,icmpv6_type=135,nd_target=fd00::1,actions=drop",
        f"cookie=0x0,table=3,priority=6,eth_dst={mac},tun_id=0x5,"
        "actions=set_field:192.0.2.1->tun_dst,output:1,CONTROLLER:65535",
        "cookie=0x0,table=3,priority=7,eth_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=move:tun_id[0..31]->reg1[]",
        "cookie=0x0,table=4,priority=8,tcp,ip_frag=not_later,tcp_dst=80,ct_state=0x2/0x2,actions=drop",
        "cookie=0x0,table=4,priority=8,udp6,ipv6_dst=fd00::/ffff:ffff:ffff:ffff::,udp_dst=53,actions=resubmit(,5)",
        "cookie=0x0,table=4,priority=8,ip,vlan_vid=0x1000/0x1000,nw_proto=99,"
        "actions=check_pkt_larger(86)->reg3[0],ct(table=6)",
        "cookie=0x0,table=4,priority=8,eth_type=0x88cc,vlan_vid=0x1003,actions=drop",
    ]
    assert match_text(()) == ""
