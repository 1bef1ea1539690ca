"""The host's Open vSwitch, as the datapath has hold of it: a real one, and what others may do to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin.datapath.openflow.ports import FIRST_NUMBER, NewPort
from plugin.datapath.openflow.vswitch import Place, Vswitch
from sdn.model.errors import HawseError, Kind
from sdn.openflow import cookies, pipeline
from sdn.openflow.encode import encode_add, encode_delete
from sdn.openflow.flow import Flow, Output
from sdn.openflow.match import eth_src, in_port, match
from tests.conformance.vswitch_process import wait_until
from tests.conformance.vswitch_site import OWNER, VswitchSite, vswitch_site
from tests.packet.namespaces import namespaces

pytestmark = pytest.mark.root


@pytest.fixture
def site() -> Iterator[VswitchSite]:
    """A host with an Open vSwitch that nothing was asked of yet."""
    with vswitch_site() as up:
        yield up


@pytest.fixture
def made(site: VswitchSite) -> VswitchSite:
    """The same with an uplink, a member, a network and two ports."""
    site.here.ip("link add eth0 type veth peer name lan\nlink set eth0 mtu 1550 up\nlink set lan up")
    site.here.ip("addr add 192.0.2.1/24 dev eth0\naddr add 2001:db8::1/64 dev eth0 nodad")
    site.here.ip("route add 198.51.100.0/24 via 192.0.2.254")
    site.vswitch.uplink("192.0.2.1", "2001:db8::1")
    site.vswitch.reaches({"192.0.2.2", "198.51.100.7", "2001:db8::2"}, ())
    site.vswitch.guard_networks({100, 0xFFFFFF})
    for name in ("hwv1", "hwv2"):
        site.veth(name)
    site.add("hwv1", "hwv2")
    site.vswitch.change(add={}, remove=(), networks={100: ("web", "t1")}).wait()
    site.news.clear()
    return site


def _flow(port: int, last: int = 0) -> Flow:
    terms = match(in_port(port), eth_src(f"0a:00:00:00:00:{last:02x}"))
    return Flow(0, 100, terms, (Output(1),), cookie=cookies.of_network(100))


def _links(site: VswitchSite) -> dict[str, tuple[object, ...]]:
    """Those of the way out: MTU, flags that matter, addresses."""
    told = json.loads(site.process.run("ip", "-n", site.here.name, "-j", "addr"))
    return {
        link["ifname"]: (
            link["mtu"], {"UP", "PROMISC"} & set(link["flags"]), sorted(each["local"] for each in link["addr_info"]),
        )
        for link in told
        if link["ifname"] in ("hwu0", "hwu1", "hwphy")
    }  # fmt: skip


def _nft(site: VswitchSite, *words: str) -> str:
    return site.process.run("nsenter", f"--net=/run/netns/{site.here.name}", "nft", *words)


class TestWhatIsMade:
    def test_nothing_before_it_is_needed(self, site: VswitchSite):
        site.vswitch.wait_ready(5)
        assert (site.vswitch.intact(), site.vswitch.dump(), dict(site.vswitch.ports())) == ([], [], {})
        assert site.process.vsctl("list-br") == ""
        assert not Path(f"/proc/{site.process.vswitchd}/net/dev").read_text().count("hwu0")

    def test_everything_then(self, made: VswitchSite):
        assert made.process.vsctl("list-br").split() == ["hwint", "hwphy"]
        assert made.process.vsctl("get-fail-mode", "hwint").strip() == "secure"
        assert made.vswitch.intact() == []
        assert {name: row.number for name, row in made.vswitch.ports().items()} == {
            "hwv1": FIRST_NUMBER, "hwv2": FIRST_NUMBER + 1,
        }  # fmt: skip
        assert made.vswitch.networks() == {100: ("web", "t1")}
        assert made.vswitch.vteps() == ("192.0.2.1", "2001:db8::1")
        assert made.vswitch.guarded() == {100, 0xFFFFFF}
        assert len(made.vswitch.dump()) == len(pipeline.pipeline(1))
        assert not made.news.is_set(), "our own doing is no news"

    def test_what_is_sent_to_members_goes_to_the_next_hop(self, made: VswitchSite):
        listed = _nft(made, "list", "ruleset")
        assert "198.51.100.7 : 192.0.2.254" in listed
        assert "192.0.2.2 : 192.0.2.2" in listed
        routes = made.process.appctl("ovs/route/show")
        assert "User: 198.51.100.7/32 dev hwphy GW 192.0.2.1 SRC 192.0.2.1" in routes
        assert "User: 2001:db8::2/128 dev hwphy GW 2001:db8::1 SRC 2001:db8::1" in routes

    def test_it_follows_the_hosts_routes(self, made: VswitchSite):
        made.here.ip("route replace 198.51.100.0/24 via 192.0.2.253")
        way = made.vswitch._switch._way.splice.table
        hop = bytes((192, 0, 2, 253))
        wait_until(lambda: hop in way.read()["next4"].values(), "the next hop is the new router")
        assert made.vswitch.intact() == []

    def test_a_change_while_it_follows_another_is_followed_too(
        self, made: VswitchSite, monkeypatch: pytest.MonkeyPatch
    ):
        way = made.vswitch._switch._way
        looked, go_on, follow = threading.Event(), threading.Event(), way.follow

        async def slow(session: Any) -> None:
            await follow(session)
            looked.set()
            await asyncio.to_thread(go_on.wait, 10)

        monkeypatch.setattr(way, "follow", slow)
        made.here.ip("route replace 198.51.100.0/24 via 192.0.2.253")
        assert looked.wait(10)
        made.here.ip("route replace 198.51.100.0/24 via 192.0.2.252")
        time.sleep(0.5)  # not a wait for anything: the change is to be noticed while the first one is being followed
        go_on.set()
        hop = bytes((192, 0, 2, 252))
        wait_until(lambda: hop in way.splice.table.read()["next4"].values(), "the next hop is the last router")

    def test_it_follows_the_vtep(self, made: VswitchSite):
        made.here.ip("addr add 192.0.2.9/24 dev eth0")
        made.vswitch.uplink("192.0.2.9", None)
        assert made.vswitch.vteps() == ("192.0.2.9", None)
        assert made.vswitch.intact() == []
        assert "User: 192.0.2.2/32 dev hwphy GW 192.0.2.9 SRC 192.0.2.9" in made.process.appctl("ovs/route/show")

    def test_a_vtep_that_no_link_has_is_told(self, made: VswitchSite):
        made.here.ip("addr del 192.0.2.1/24 dev eth0")
        wait_until(lambda: any("192.0.2.1" in text for text in made.vswitch.intact()), "it is told")

    def test_another_hold_takes_over_what_is_there(self, made: VswitchSite):
        made.vswitch.close()
        again = made.held()
        again.wait_ready(5)
        assert (again.intact(), again.vteps(), again.guarded()) == (
            [], ("192.0.2.1", "2001:db8::1"), {100, 0xFFFFFF},
        )  # fmt: skip
        assert again.ports().keys() == {"hwv1", "hwv2"}

    def test_removed_it_is_gone_and_others_are_not(self, made: VswitchSite):
        made.process.vsctl("add-br", "theirs", "--", "set", "bridge", "theirs", "datapath_type=netdev")
        made.process.ofctl("add-flow", "theirs", "priority=7,actions=drop")
        made.vswitch.purge()
        made.vswitch.purge()
        assert made.process.vsctl("list-br").split() == ["theirs"]
        assert "priority=7" in made.process.ofctl("dump-flows", "theirs")
        assert _nft(made, "list", "tables") == ""
        links = made.process.run("ip", "-n", made.here.name, "-br", "link")
        assert "hwu0" not in links
        assert "hwphy" not in links


class TestPorts:
    def test_one_that_has_no_device_is_refused_and_the_others_are_made(self, made: VswitchSite):
        made.veth("hwv3")
        change = made.vswitch.change(
            add={name: NewPort({"hawse-tenant": "t1"}) for name in ("hwv3", "hwv4")}, remove=(), networks={}
        )
        errors = change.wait()
        assert errors.keys() == {"hwv4"}
        assert "cannot make hwv4 a port of hwint" in errors["hwv4"].message
        assert made.vswitch.ports()["hwv3"].number == change.numbers["hwv3"]
        assert not made.news.is_set(), "who waited for it was told"

    def test_a_device_that_is_made_anew_is_listened_to(self, made: VswitchSite):
        """The switch keeps a device open whose name goes and comes in one step: it would hear nothing."""
        for together in (True, False):
            made.here.ip("link del hwv1")
            made.veth("hwv1")
            if not together:
                made.vswitch.change(add={}, remove=("hwv1",), networks={})
            new = {"hwv1": NewPort({"hawse-tenant": "t1"})}
            change = made.vswitch.change(add=new, remove=("hwv1",) if together else (), networks={})
            assert change.wait() == {}
            assert "PROMISC" in made.process.run("ip", "-n", made.here.name, "link", "show", "hwv1")

    def test_what_it_remembers_can_be_changed(self, made: VswitchSite):
        before = made.vswitch.ports()["hwv1"].number
        change = made.vswitch.change(
            add={"hwv1": NewPort({"hawse-tenant": "t2"})}, remove=("hwv2",), networks={100: None, 7: ("db", "t2")}
        )
        assert change.wait() == {}
        assert change.numbers == {"hwv1": before}
        assert dict(made.vswitch.ports()["hwv1"].external_ids) == {"hawse-tenant": "t2"}
        assert made.vswitch.ports().keys() == {"hwv1"}
        assert made.vswitch.networks() == {7: ("db", "t2")}
        assert not made.news.is_set()

    def test_a_number_that_was_given_up_comes_back_last(self, made: VswitchSite):
        made.vswitch.change(add={}, remove=("hwv1", "hwv2"), networks={}).wait()
        assert made.add("hwv1") == {"hwv1": FIRST_NUMBER + 2}


class TestFlows:
    def test_a_group_that_is_refused_is_left_out(self, made: VswitchSite):
        broken = encode_add(_flow(16, 2)._replace(table=255))
        verdicts = made.vswitch.flows([[encode_add(_flow(16, 1))], [encode_add(_flow(16, 3)), broken], []])
        assert [verdict is None for verdict in verdicts] == [True, False, True]
        assert "hwint" in str(verdicts[1])
        assert len(made.vswitch.counters(cookies.of_network(100), (1 << 64) - 1)) == 1
        assert made.vswitch.flows([[encode_delete(_flow(16, 1))]]) == [None]

    def test_a_full_table_is_told_by_name(self, made: VswitchSite):
        row = made.process.vsctl("--", "--id=@t", "create", "Flow_Table", "flow_limit=3", "overflow_policy=refuse",
                                 "--", "set", "bridge", "hwint", "flow_tables:200=@t")  # fmt: skip
        assert row
        groups = [[encode_add(_flow(16, number)._replace(table=200))] for number in range(5)]
        verdicts = made.vswitch.flows(groups)
        refused = [verdict for verdict in verdicts if verdict is not None]
        assert len(refused) == 2
        assert {error.kind for error in refused} == {Kind.EXHAUSTED}
        assert "TABLE_FULL" in str(refused[0])


class TestOtherHands:
    """Each is noticed, and mended by what `mend` does, or by itself."""

    @pytest.mark.parametrize(
        "deed",
        [
            ("del-br", "hwint"),
            ("del-br", "hwphy"),
            ("del-port", "hwint", "hwvxlan"),
            ("del-port", "hwphy", "hwu1"),
            ("set", "bridge", "hwint", "fail_mode=standalone"),
            ("set", "interface", "hwvxlan", "options:dst_port=4790"),
            ("set-controller", "hwint", "tcp:127.0.0.1:9"),
        ],
        ids=" ".join,
    )
    def test_on_the_database(self, made: VswitchSite, deed: tuple[str, ...]):
        made.process.vsctl("--no-wait", *deed)
        assert made.wait_drift() is None
        with contextlib.suppress(HawseError):  # it may be away for a moment: the bridge it spoke to is gone
            made.vswitch.mend()
        made.wait_intact()

    def test_on_a_port(self, made: VswitchSite):
        made.process.vsctl("del-port", "hwint", "hwv1")
        assert made.wait_drift() == ["t1"]
        assert made.vswitch.ports().keys() == {"hwv2"}

    def test_on_a_ports_device(self, made: VswitchSite):
        made.here.ip("link del hwv2")
        assert made.wait_drift() == ["t1"]

    def test_on_what_is_remembered_of_networks(self, made: VswitchSite):
        made.process.vsctl("remove", "bridge", "hwint", "external_ids", "hawse-vni-100")
        assert made.wait_drift() is None

    def test_on_flows(self, made: VswitchSite):
        made.process.ofctl("del-flows", "hwint")
        assert made.wait_drift() is None
        assert made.vswitch.intact() == ["flows of hwint that belong to nobody are not as they should be"]
        made.vswitch.mend()
        assert made.vswitch.intact() == []

    def test_on_flows_of_the_way_out(self, made: VswitchSite):
        made.process.ofctl("del-flows", "hwphy")
        seen = made.vswitch.intact()
        assert seen == [] or "hwphy has other flows" in seen[0]
        made.vswitch.mend()
        assert made.process.ofctl("dump-flows", "hwphy").count("actions=") == 2
        assert made.vswitch.intact() == []

    def test_flows_of_others_are_left_alone(self, made: VswitchSite):
        made.process.ofctl("add-flow", "hwint", "table=77,priority=7,actions=drop")
        made.vswitch.flows([[encode_add(_flow(16))]])
        assert not made.news.is_set()
        assert "table=77" in made.process.ofctl("dump-flows", "hwint")

    @pytest.mark.parametrize(
        "deed",
        [
            "link del hwu0",
            "link set hwu0 down",
            "link set hwu1 mtu 1400",
            "link set hwphy down",
            "link del hwphy",
            "link del hwint",
            "addr flush dev hwphy",
            "addr add 192.0.2.77/32 dev hwphy",
        ],
    )
    def test_on_links(self, made: VswitchSite, deed: str):
        before = _links(made)
        made.here.ip(deed)
        made.vswitch.mend()
        wait_until(lambda: _links(made) == before, "it is as it was")
        made.wait_intact()

    @pytest.mark.parametrize("table", ["netdev hawse-uplink", "inet hawse-ports", "arp hawse-ports"])
    def test_on_nftables(self, made: VswitchSite, table: str):
        before = _nft(made, "-s", "list", "ruleset")
        _nft(made, f"delete table {table}")
        seen = made.vswitch.intact()
        assert seen == [] or "nftables" in seen[0], "it may have been mended already"
        made.vswitch.mend()
        assert sorted(_nft(made, "-s", "list", "ruleset").splitlines()) == sorted(before.splitlines())
        assert f"table {table}" in _nft(made, "list", "tables")
        assert made.vswitch.intact() == []

    @pytest.mark.parametrize("name", ["set netdev hawse-uplink vni", "map netdev hawse-uplink next4"])
    def test_on_sets_of_nftables(self, made: VswitchSite, name: str):
        before = _nft(made, f"list {name}")
        _nft(made, f"flush {name}")
        made.vswitch.mend()
        assert sorted(_nft(made, f"list {name}").split()) == sorted(before.split())

    def test_a_change_of_sets_that_others_have_changed(self, made: VswitchSite):
        _nft(made, "flush map netdev hawse-uplink next4")
        made.vswitch.reaches({"192.0.2.3"}, {"192.0.2.2"})  # takes out what is not there any more
        assert made.vswitch.intact() == []


class TestNamesThatAreTaken:
    def test_a_bridge(self, site: VswitchSite):
        site.process.vsctl("add-br", "hwint", "--", "set", "bridge", "hwint", "datapath_type=netdev")
        with pytest.raises(HawseError, match=r"a bridge hwint that is not Hawse's.*del-br hwint") as caught:
            site.vswitch.flows([[encode_add(_flow(16))]])
        assert caught.value.kind is Kind.CONFLICT
        assert site.process.vsctl("list-br").split() == ["hwint"]
        with contextlib.closing(Vswitch(Place(site.process.socket, OWNER, site.here.fd))) as another:
            with pytest.raises(HawseError, match="not Hawse's"):
                another.wait_ready(5)
            another.purge()
        assert site.process.vsctl("list-br").split() == ["hwint"]

    def test_by_another_installation(self, site: VswitchSite):
        with contextlib.closing(Vswitch(Place(site.process.socket, "another", site.here.fd))) as other:
            other.uplink(None, None)
            with pytest.raises(HawseError, match=r"another installation's of Hawse \(another\)"):
                site.vswitch.uplink(None, None)
            assert other.intact() == []

    def test_a_port_of_the_switch(self, site: VswitchSite):
        site.process.vsctl("add-br", "theirs", "--", "set", "bridge", "theirs", "datapath_type=netdev",
                           "--", "add-port", "theirs", "hwvxlan", "--", "set", "interface", "hwvxlan", "type=vxlan",
                           "options:remote_ip=192.0.2.9")  # fmt: skip
        with pytest.raises(HawseError, match="a port hwvxlan that is not in hwint") as caught:
            site.vswitch.uplink(None, None)
        assert caught.value.kind is Kind.CONFLICT
        assert site.process.vsctl("list-br").split() == ["theirs"]

    @pytest.mark.parametrize("name", ["hwu0", "hwu1"])
    def test_a_link_of_the_splice(self, site: VswitchSite, name: str):
        site.veth(name)
        with pytest.raises(HawseError, match=f"a link {name} that is not Hawse's") as caught:
            site.vswitch.uplink(None, None)
        assert caught.value.kind is Kind.CONFLICT
        site.here.ip(f"link del {name}")
        site.vswitch.uplink(None, None)
        assert site.vswitch.intact() == []

    @pytest.mark.parametrize("name", ["hwint", "hwphy"])
    def test_a_link_of_a_bridge(self, site: VswitchSite, name: str):
        site.veth(name)
        with pytest.raises(HawseError, match=f"the port {name} of {name} does not work"):
            site.vswitch.uplink(None, None)
        site.here.ip(f"link del {name}")
        site.vswitch.uplink(None, None)
        assert site.vswitch.intact() == []


def test_the_kernel_answers_nothing_that_arrives_at_a_port(made: VswitchSite):
    """But for the guard it would: it has the address."""
    with namespaces(1) as (inside,):
        made.here.ip(f"link add hwv9 type veth peer name eth0 netns {inside.name}\nlink set hwv9 up")
        made.here.ip("addr add 10.9.0.1/24 dev hwv9")
        inside.ip("link set eth0 up\naddr add 10.9.0.2/24 dev eth0")
        made.add("hwv9")
        ping = ("nsenter", f"--net=/run/netns/{inside.name}", "ping", "-c1", "-W1", "10.9.0.1")
        with pytest.raises(AssertionError):
            made.process.run(*ping)
        for family in ("inet", "arp"):
            _nft(made, f"delete table {family} hawse-ports")
        inside.ip("neigh flush dev eth0")  # it is still being asked for, and would soon be held to be unreachable
        assert "1 received" in made.process.run(*ping, "-W10")
