"""Templates: filling one is the same as encoding the flow."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdn.openflow import cookies
from sdn.openflow.encode import encode_add, encode_delete
from sdn.openflow.fields import Field
from sdn.openflow.flow import Flow, Output
from sdn.openflow.match import ARP, arp_spa, eth_src, eth_type, in_port, ipv6_src, match, move, put, reg, tun_id
from sdn.openflow.template import Kind, Template


def _made_up(port: int, vni: int, mac: str, address: str, source: str, cookie: int) -> list[Flow]:
    return [
        Flow(0, 9, match(in_port(port)), (put(tun_id(vni)), put(reg(0, vni))), 1, cookie),
        Flow(1, 9, match(in_port(port), eth_src(mac), eth_type(ARP), arp_spa(address)), (Output(port),), None, cookie),
        Flow(2, 9, match(eth_type(0x86DD), ipv6_src(source)), (move(Field.ETH_SRC, Field.ETH_DST),), 3, cookie),
        Flow(3, 9, match(tun_id(vni)), cookie=cookies.of_drop("mac-spoof", vni)),
        Flow(4, 37, match(eth_type(0x2525)), (put(eth_src("25:25:25:25:25:25")),), 37),  # per cents, and no holes
    ]


TEMPLATE = Template(
    _made_up, port=Kind.PORT, vni=Kind.VNI, mac=Kind.MAC, address=Kind.IPV4, source=Kind.IPV6, cookie=Kind.COOKIE
)


@settings(max_examples=100, deadline=None)
@given(st.tuples(*(st.binary(min_size=size, max_size=size) for size in (4, 3, 6, 4, 16, 8))))
def test_filling_is_encoding(values: tuple[bytes, ...]) -> None:
    assert TEMPLATE.add(*values) == [encode_add(flow) for flow in TEMPLATE.flows(*values)]
    assert TEMPLATE.delete(*values) == [encode_delete(flow) for flow in TEMPLATE.flows(*values)]


def test_a_value_that_is_computed_is_refused() -> None:
    with pytest.raises(AssertionError, match="computed of port"):
        Template(lambda port: Flow(0, 0, match(in_port(port ^ 1))), port=Kind.PORT)


def test_the_number_of_values_is_the_number_of_holes() -> None:
    with pytest.raises(ValueError, match="argument"):
        TEMPLATE.flows(b"1234")
