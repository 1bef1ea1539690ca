"""The OpenFlow datapath's explanations, on a real switch: whole they pass, damaged by hand they name the very flow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from plugin.datapath.openflow.datapath import OpenflowDatapath
from plugin.datapath.veth.ports import port_name
from sdn.model.errors import HawseError, Kind
from sdn.model.explanation import Outcome, Question, Stage, arrives, passes
from sdn.reconcile.journey import journey
from tests.conformance.host_site import write_state
from tests.conformance.openflow_site import OpenflowSite
from tests.conformance.test_bridge_explain import MEMBER_OF, STATE
from tests.conformance.vswitch_process import VswitchProcess, vswitch_process
from tests.packet.lab import eventually
from tests.states.states import C1, C2, C3, WEB

pytestmark = pytest.mark.root

VNI = WEB.vni
PORT = port_name(C1.id)


@pytest.fixture(scope="module")
def switch() -> Iterator[VswitchProcess]:
    with vswitch_process() as process:
        process.here.ip("link add uplink type bridge\naddress add 192.0.2.1/24 dev uplink\nlink set uplink up\n")
        yield process


@pytest.fixture
def datapath(switch: VswitchProcess) -> Iterator[OpenflowDatapath]:
    with contextlib.closing(OpenflowSite(switch)) as site, contextlib.closing(site.datapath()) as made:
        for each in STATE.local_endpoints():
            made.offer(each, site.sandbox(each))
        assert write_state(made, STATE) == {}
        yield made


def question(source: str, target: str) -> Question:
    """Of h1: a packet from one of its endpoints, or (source c3, which is on h2) one that arrives."""
    ends = {"c1": C1, "c2": C2, "c3": C3}
    one, other = ends[source], ends[target]
    address, to = (end.addresses[0].partition("/")[0] for end in (one, other))
    way = journey(one, WEB, MEMBER_OF, address=address, to=to, target=other)
    return way.questions[-1 if source == "c3" else 0][1]


def test_what_is_whole_passes_by_flows_that_are_named(datapath: OpenflowDatapath) -> None:
    here, there, back = datapath.explain([question("c1", "c2"), question("c1", "c3"), question("c3", "c1")]).decisions
    assert arrives(here)
    assert [each.row.table for each in here] == ["address", "answer", "forward", "port"]
    assert passes(there)
    assert there[-1].row.action == "set_field:192.0.2.2->tun_dst,output:hwvxlan"
    assert arrives(back)
    assert back[0].row.match == f"in_port=hwvxlan,tun_id={VNI:#x},tun_src=192.0.2.2"


DAMAGES = {
    "classification": ("c1", "c2", f"table=0,in_port={PORT}", Stage.SOURCE, "classify"),
    "MAC": ("c1", "c2", f"table=10,in_port={PORT}", Stage.SOURCE, "source"),
    "address": ("c1", "c2", "table=30,ip,nw_src=10.1.0.2", Stage.SOURCE, "address"),
    "the pipeline": ("c1", "c2", "table=80", Stage.SOURCE, "policy"),
    "answer": ("c1", "c2", "table=90,arp,arp_tpa=10.1.0.3", Stage.RESOLVE, "answer"),
    "station here": ("c1", "c2", f"table=120,dl_dst={C2.mac}", Stage.FORWARD, "forward"),
    "station elsewhere": ("c1", "c3", f"table=120,dl_dst={C3.mac}", Stage.FORWARD, "forward"),
    "member": ("c3", "c1", "table=0,tun_src=192.0.2.2", Stage.ADMIT, "classify"),
    "station at the end": ("c3", "c1", f"table=120,dl_dst={C1.mac}", Stage.FORWARD, "forward"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_very_flow_is_named(switch: VswitchProcess, datapath: OpenflowDatapath, damage: str) -> None:
    source, target, match, stage, table = DAMAGES[damage]
    switch.ofctl("del-flows", "hwint", match.replace(PORT, str(datapath_port(switch, PORT))))
    last = datapath.explain([question(source, target)]).decisions[0][-1]
    assert (last.stage, last.outcome, last.missing, last.row.table) == (stage, Outcome.DROP, True, table), last


def datapath_port(switch: VswitchProcess, name: str) -> int:
    """Its number in the switch."""
    return int(switch.vsctl("get", "Interface", name, "ofport"))


def test_a_flow_that_leads_elsewhere_is_astray(switch: VswitchProcess, datapath: OpenflowDatapath) -> None:
    elsewhere = f"table=120,tun_id={VNI},dl_dst={C2.mac},actions=output:{datapath_port(switch, PORT)}"
    switch.ofctl("mod-flows", "hwint", elsewhere)
    last = datapath.explain([question("c1", "c2")]).decisions[0][-1]
    assert (last.stage, last.outcome, last.row.action) == (Stage.FORWARD, Outcome.ASTRAY, f"output:{PORT}")


def test_a_switch_that_is_away_is_said(switch: VswitchProcess, datapath: OpenflowDatapath) -> None:
    switch.kill_vswitchd()
    try:
        with pytest.raises(HawseError) as caught:
            datapath.explain([question("c1", "c2")])
        assert caught.value.kind is Kind.UNAVAILABLE
    finally:
        switch.start_vswitchd()
    eventually(lambda: is_heard(datapath), bool, "the switch, back")


def is_heard(datapath: OpenflowDatapath) -> bool:
    """Whether the switch answers."""
    with contextlib.suppress(HawseError):
        return bool(datapath.explain([]) is not None)
    return False


def test_rows_have_names_for_numbers(datapath: OpenflowDatapath) -> None:
    rows = datapath.flows()
    mine = [row for row in rows if row.endpoint == C1.id]
    assert {row.network for row in mine} == {WEB.id}
    assert any(row.match == f"in_port={PORT}" for row in mine)
    assert {row.cause for row in rows if row.cause} >= {"ip4-spoof", "foreign-vtep", "no-router"}
