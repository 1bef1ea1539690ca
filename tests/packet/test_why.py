"""`hawse why` says what packets do: for every pair and every address, and when an entry was taken away by hand."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from plugin.datapath.bridge.datapath import BridgeDatapath
from plugin.datapath.bridge.objects import carrier_name
from plugin.datapath.openflow.datapath import OpenflowDatapath
from plugin.datapath.veth.ports import port_name
from sdn.client.client import resource
from sdn.model.explanation import Decision, Outcome, Stage
from sdn.model.ids import HostId
from sdn.model.resources import Endpoint, Host, Network
from sdn.reconcile.datapath import Datapath
from sdn.reconcile.journey import Journey, journey
from tests.packet.frames import forgeries
from tests.packet.lab import Lab, eventually
from tests.packet.talk import ping, pings
from tests.packet.test_underlay_wire import send

pytestmark = pytest.mark.root

NETWORK = "blue/web"
WRONG_MAC = "0a:99:00:00:00:01"


def why(lab: Lab, source: str, destination: str, protocol: str | None = None) -> dict[str, Any]:
    """As the controller answers."""
    return dict(lab.client.get("/v1/why", source=source, destination=destination, protocol=protocol).body)


def everywhere(lab: Lab, family: int) -> list[str]:
    """Every address that somebody has in some network, the gateways, and one that nobody has."""
    texts = {str(text).partition("/")[0] for each in lab.endpoints() for text in each["addresses"]}
    subnets = [subnet for network in lab.client.items("/v1/networks") for subnet in network["subnets"]]
    texts |= {subnet["gateway"] for subnet in subnets} | {"10.1.0.99", "fd00:1::99"}
    return sorted(text for text in texts if (":" in text) == (family == 6))


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_what_it_says_is_what_packets_do(pair: Lab, family: int) -> None:
    """From a container of each network to all addresses that there are."""
    asked = [(source, to) for source in ("a1", "b1", "d1", "r1") for to in everywhere(pair, family)]
    said = {(source, to): why(pair, source, to) for source, to in asked}
    assert [(key, answer["conclusion"]) for key, answer in said.items() if not answer["agrees"]] == []
    assert [(key, answer["away"]) for key, answer in said.items() if answer["away"]] == []
    wait_s = {key: 5.0 if answer["arrives"] else 0.3 for key, answer in said.items()}
    done = pings(pair, [(source, to, wait_s[source, to]) for source, to in asked])
    assert {key: answer["arrives"] for key, answer in said.items()} == dict(zip(asked, done, strict=True))
    assert {True, False} == set(done)


def test_every_pair_has_its_verdict(pair: Lab) -> None:
    """Containers by name, across networks and tenants, whose addresses and MACs are the same to the byte."""
    ends = {each["container"]: (each["tenant_name"], each["network_name"]) for each in pair.endpoints()}
    for source in ends:
        for target in ends:
            answer = why(pair, source, target)
            assert answer["arrives"] is (ends[source] == ends[target]), answer["conclusion"]
            assert answer["agrees"]
            assert [leg["arrives"] for leg in answer["legs"] if leg["direction"] == "back" and not leg["arrives"]] == []


def test_the_way_and_its_counters(pair: Lab, underlay_family: int) -> None:
    before = why(pair, "a1", "b1", "icmp")
    vteps = {host["name"]: host[f"vtep{underlay_family}"] for host in pair.client.items("/v1/hosts")}
    assert before["path"]["vteps"] == [vteps["h1"], vteps["h2"]]
    assert before["path"]["family"] == underlay_family
    assert before["path"]["vni"] == pair.client.get(resource("networks", NETWORK)).body["vni"]
    there = before["legs"][0]["stages"]
    assert [(stage["host"], stage["stage"]) for stage in there] == [
        ("h1", "source"), ("h1", "resolve"), ("h1", "forward"), ("h2", "admit"), ("h2", "forward"), ("h2", "deliver"),
    ]  # fmt: skip
    assert ping(pair, "a1", pair.address("b1", 4), count=5)
    counted = [stage["packets"] is not None and stage["stage"] != "resolve" for stage in there]  # asked once is known
    assert {"source", "forward", "admit", "deliver"} <= {
        s["stage"] for s, seen in zip(there, counted, strict=True) if seen
    }

    def risen() -> list[int]:
        now = why(pair, "a1", "b1", "icmp")["legs"][0]["stages"]
        both = [(old, new) for old, new, seen in zip(there, now, counted, strict=True) if seen]
        return [new["packets"] - old["packets"] for old, new in both]

    eventually(risen, lambda seen: min(seen) >= 5, "the packets, counted at each stage")


def test_a_lie_is_among_the_drops(pair: Lab) -> None:
    me, victim = pair.station("a1"), pair.station("b1")
    lies = [forgery.frame for forgery in forgeries(me, victim) if forgery.cause == "ip4-spoof"]

    def dropped() -> int:
        pair.gather_counts("h1")
        drops = why(pair, "a1", "b1")["drops"]
        return sum(drop["packets"] for drop in drops if (drop["host"], drop["cause"]) == ("h1", "ip4-spoof"))

    before = dropped()
    send(pair, "a1", lies)
    eventually(dropped, lambda seen: seen == before + len(lies), "the lies, counted")


def test_the_command(pair: Lab) -> None:
    text = pair.hawse("why", "a1", "b1", "tcp/80")
    lines = text.splitlines()
    assert lines[0].startswith("blue/a1 (10.1.0.11, fd00:1::11) on h1  ->  blue/b1 ")
    assert lines[-1] == "It arrives and the answer comes back: both are in network blue/web."
    rows = [line.split()[:3] for line in lines if line.startswith(("h1  ", "h2  "))]
    assert [row[1] for row in rows] == ["source", "resolve", "forward", "admit", "forward", "deliver"]
    assert {row[2] for row in rows} == {"pass"}
    assert json.loads(pair.hawse("-o", "json", "why", "h1:a1", "10.1.0.1"))["arrives"] is True
    table = pair.hawse("flow", "ls", "h2", "--endpoint", "a1").splitlines()
    assert table[0].split() == ["TABLE", "NETWORK", "OWNER", "PACKETS", "BYTES", "MATCH", "ACTION"]
    assert len(table) > 2
    assert all("blue/web  blue/a1" in line for line in table[1:])
    drops = json.loads(pair.hawse("-o", "json", "flow", "ls", "h1", "--drops", "--network", NETWORK))["items"]
    assert {"ip4-spoof", "foreign-vtep"} <= {row["cause"] for row in drops}


# --- damage -----------------------------------------------------------------------------------------------------------


class Surgery:
    """One host, its agent standing still, and another datapath object that is asked meanwhile."""

    def __init__(self, lab: Lab, host: str) -> None:
        self.lab = lab
        self.host = host
        self.vni = int(lab.client.get(resource("networks", NETWORK)).body["vni"])
        self.openflow = lab.client.get(resource("hosts", host)).body["datapath"] == "openflow"
        run, fd = lab.directory.root(host).run, lab.fd(host)
        if self.openflow:
            self.datapath: Datapath = OpenflowDatapath(run, fd, lab.directory.vswitch(host) / "db.sock")
        else:
            self.datapath = BridgeDatapath(run, fd)

    def explain(self, source: str, target: str, place: int) -> list[Decision]:
        """What this host, the `place`th on the way, does with a packet over IPv4."""
        return list(self.datapath.explain([way(self.lab, source, target).questions[place][1]]).decisions[0])

    def in_tenant(self, *command: str) -> None:
        self.lab.run_tenant(self.host, "blue", *command)

    def del_flow(self, match: str) -> None:
        socket = f"unix:{self.lab.directory.vswitch(self.host) / 'hwint.mgmt'}"
        self.lab.run(self.host, "ovs-ofctl", "-OOpenFlow13", "del-flows", socket, match)

    def draw_attention(self) -> None:
        """The kernel tells of no change of a guard's sets; a stray neighbour has the agent look at all of it."""
        if not self.openflow:
            stray = ("10.1.0.250", "lladdr", WRONG_MAC, "dev", proxy(self), "nud", "permanent")
            self.in_tenant("ip", "neigh", "replace", *stray)


def way(lab: Lab, source: str, target: str) -> Journey:
    """What hosts are asked about a packet."""
    ends = [msgspec.convert(lab.endpoint(name), Endpoint) for name in (source, target)]
    network = msgspec.convert(lab.client.get(resource("networks", ends[0].network)).body, Network)
    hosts = {HostId(each["id"]): msgspec.convert(each, Host) for each in lab.client.items("/v1/hosts")}
    address, to = lab.address(source, 4), lab.address(target, 4)
    return journey(ends[0], network, hosts, address=address, to=to, target=ends[1])


@contextlib.contextmanager
def standing_still(lab: Lab, host: str) -> Iterator[Surgery]:
    """Its agent is stopped meanwhile; afterwards it puts right what it finds."""
    pid = lab.processes()[host].pid
    surgery = Surgery(lab, host)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield surgery
    finally:
        os.kill(pid, signal.SIGCONT)
        surgery.datapath.close()


def no_neighbour(at: Surgery) -> None:
    if at.openflow:
        at.del_flow(f"table=90,arp,tun_id={at.vni},arp_tpa={at.lab.address('b1', 4)}")
    else:
        at.in_tenant("ip", "neigh", "del", at.lab.address("b1", 4), "dev", proxy(at))


def proxy(at: Surgery) -> str:
    """The VXLAN device that answers."""
    names = at.lab.run_tenant(at.host, "blue", "ls", "/proc/sys/net/ipv4/conf").split()
    return next(name for name in (carrier_name(at.vni, family) for family in (4, 6)) if name in names)


def no_tunnel(at: Surgery) -> None:
    mac = at.lab.endpoint("b1")["mac"]
    if at.openflow:
        at.del_flow(f"table=120,tun_id={at.vni},dl_dst={mac}")
    else:
        at.in_tenant("bridge", "fdb", "del", mac, "dev", proxy(at), "self")


def no_right_to_speak(at: Surgery) -> None:
    end = at.lab.endpoint("a1")
    address = at.lab.address("a1", 4)
    if at.openflow:
        at.del_flow(f"table=30,ip,nw_src={address}")
    else:
        name = port_name(end["id"])
        at.in_tenant("nft", f"delete element bridge hawse e4 {{ {name} . {end['mac']} . {address} }}")


def no_member(at: Surgery) -> None:
    vtep = next(host for host in at.lab.client.items("/v1/hosts") if host["name"] == "h1")
    vtep4, vtep6 = vtep.get("vtep4"), vtep.get("vtep6")
    if at.openflow:
        source = f"tun_src={vtep4}" if vtep4 else f"tun_ipv6_src={vtep6}"
        at.del_flow(f"table=0,tun_id={at.vni},{source}")
    else:
        name, address = ("member4", vtep4) if vtep4 else ("member6", vtep6)
        at.lab.run(at.host, "nft", f"delete element inet hawse {name} {{ {at.vni} . {address} }}")


def no_port(at: Surgery) -> None:
    mac = at.lab.endpoint("b1")["mac"]
    if at.openflow:
        at.del_flow(f"table=120,tun_id={at.vni},dl_dst={mac}")
    else:
        at.in_tenant("bridge", "fdb", "del", mac, "dev", port_name(at.lab.endpoint("b1")["id"]), "master")


DAMAGES: dict[str, tuple[str, int, Callable[[Surgery], None], Stage]] = {
    "neighbour": ("h1", 0, no_neighbour, Stage.RESOLVE),
    "tunnel": ("h1", 0, no_tunnel, Stage.FORWARD),
    "guard element": ("h1", 0, no_right_to_speak, Stage.SOURCE),
    "member": ("h2", 1, no_member, Stage.ADMIT),
    "forwarding entry": ("h2", 1, no_port, Stage.FORWARD),
}


def is_asked_anew(lab: Lab) -> None:
    """The container forgets what it knows of its neighbours."""
    lab.run("a1", "ip", "neigh", "flush", "dev", "eth0")


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_entry_that_is_missing_is_named_and_packets_miss_it(pair: Lab, damage: str) -> None:
    host, place, harm, stage = DAMAGES[damage]
    address = pair.address("b1", 4)
    with standing_still(pair, host) as at:
        healthy = at.explain("a1", "b1", place)
        assert all(decision.outcome is Outcome.PASSES for decision in healthy)
        harm(at)
        last = at.explain("a1", "b1", place)[-1]
        assert (last.stage, last.outcome, last.missing) == (stage, Outcome.DROP, True), last
        named = next(decision for decision in healthy if decision.stage is stage).row
        assert (last.row.table, last.row.match) == (named.table, named.match)
        is_asked_anew(pair)
        assert not ping(pair, "a1", address, wait_s=0.2)
    at.draw_attention()
    eventually(lambda: why(pair, "a1", "b1")["arrives"], bool, "the agent puts it right")
    is_asked_anew(pair)
    assert ping(pair, "a1", address)


def test_a_neighbour_with_another_mac_leads_astray(pair: Lab) -> None:
    with standing_still(pair, "h1") as at:
        if at.openflow:
            at.del_flow(f"table=90,arp,tun_id={at.vni},arp_tpa={pair.address('b1', 4)}")
            wanted = Outcome.DROP
        else:
            at.in_tenant("ip", "neigh", "replace", pair.address("b1", 4), "lladdr", WRONG_MAC, "dev", proxy(at))
            wanted = Outcome.ASTRAY
        last = at.explain("a1", "b1", 0)[-1]
        assert (last.stage, last.outcome) == (Stage.RESOLVE, wanted)
        assert wanted is Outcome.DROP or WRONG_MAC in last.row.action
        answer = why(pair, "a1", "b1")
        assert [away["host"] for away in answer["away"]] == ["h1"]
        assert "could not be asked" in answer["conclusion"]
    eventually(lambda: why(pair, "a1", "b1"), lambda answer: answer["arrives"] and not answer["away"], "all is well")


def test_the_command_says_loudly_what_was_changed(pair: Lab) -> None:
    """On a bridge, a guard's element can be missed for a while; a switch's flow is back before anybody asks."""
    at = Surgery(pair, "h2")
    with contextlib.closing(at.datapath):
        no_member(at)
        answer = why(pair, "a1", "b1")
        if not at.openflow:
            assert (answer["arrives"], answer["agrees"], answer["verdict"]["arrives"]) == (False, False, True)
            assert answer["conclusion"].startswith("The packet should arrive, but h2 drops it at 'admit': ")
            assert "hawse flow ls h2" in answer["hint"]
            back = why(pair, "b1", "a1")
            assert back["conclusion"].startswith("It arrives, but the answer does not: h2 drops it at 'admit'")
        at.draw_attention()
        eventually(lambda: why(pair, "a1", "b1"), lambda seen: seen["arrives"] and seen["agrees"], "all is well")
