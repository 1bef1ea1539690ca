"""What the controller makes of a question why: whom is meant, what the hosts say, and how it ends in one sentence."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from plugin.agent.answering import answer_about_packets
from sdn.controller import why as why_module
from sdn.controller.finding import find_container, parse_protocol
from sdn.controller.flows import flows
from sdn.controller.principal import Access
from sdn.controller.route import all_routes
from sdn.controller.scope import Scope
from sdn.controller.why_view import WhyView
from sdn.model.errors import Kind
from sdn.model.ids import HostId
from sdn.model.resources import Endpoint, Member, Network
from sdn.model.stream import Answer, Query
from sdn.reconcile.fake import FakeDatapath
from tests.unit.controller_harness import Agent, refused
from tests.unit.test_scope import House
from tests.unit.test_why import fabric

ADDRESSES = "10.1.0.0/24"


class Fleet:
    """Two hosts whose kernels are fakes, two tenants with the same subnet, and a controller that asks them."""

    def __init__(self) -> None:
        self.house = House()
        self.agents: list[Agent] = []
        self.kernels: dict[HostId, FakeDatapath] = {}
        self.silent: set[HostId] = set()
        self.asked: list[Query] = []
        self.nonsense: Any = msgspec.UNSET
        """What is answered instead."""

    async def begin(self) -> Fleet:
        await self.house.begin()
        site = self.house.site
        for tenant in ("acme", "globex"):
            await site.network("web", ADDRESSES, tenant=tenant)
        await site.network("db", "10.2.0.0/24", tenant="acme")
        self.agents = [await site.agent(f"h{number}", number) for number in (1, 2)]
        one, two = self.agents
        await one.attach("c1", "acme/web", name="web-1")
        await two.attach("c2", "acme/web", name="db-1")
        await one.attach("c3", "acme/db")
        await one.attach("g1", "globex/web", name="web-1")
        await two.attach("g2", "globex/web", name="vault")
        await self.wire()
        return self

    async def wire(self) -> None:
        """The kernels become what the state says."""
        state = self.house.site.core.state
        members = {
            host.id: Member(host=host.id, name=host.name, vtep4=host.vtep4, vtep6=host.vtep6)
            for host in state.hosts.values()
        }
        networks: dict[str, Network] = {network.id: network for network in state.networks.values()}
        tenants = tuple(state.tenants.values())
        self.kernels = dict(await fabric(tuple(state.endpoints.values()), members, networks, tenants))
        for agent in self.agents:
            await agent.take()
            await agent.report()

    def scope(self, tenant: str = "") -> Scope:
        return self.house.scope(tenant)

    def endpoint(self, name: str, tenant: str = "acme") -> Endpoint:
        (found,) = find_container(self.house.site.core.state, name, self.house.tenants[tenant])
        return found

    async def why(self, source: str, to: str, protocol: str = "", tenant: str = "") -> WhyView:
        """The answer, while the hosts answer what they are asked."""
        answer: WhyView = await self.served(self.scope(tenant).why(source, to, protocol))
        return answer

    async def served(self, question: Any) -> Any:
        asking = asyncio.ensure_future(question)
        while not asking.done():
            await asyncio.sleep(0)
            for agent in self.agents:
                if agent.stream.phase.value == "live":
                    await self._serve(agent)
        return await asking

    async def _serve(self, agent: Agent) -> None:
        for message in await agent.take():
            if isinstance(message, Query) and agent.host not in self.silent:
                self.asked.append(message)
                value = self.nonsense
                if value is msgspec.UNSET:
                    value = msgspec.to_builtins(answer_about_packets(self.kernels[agent.host], message))
                await agent.say(Answer(request=message.request, value=value))


@pytest.fixture
async def fleet() -> Fleet:
    return await Fleet().begin()


def stages(answer: WhyView) -> list[tuple[str, str]]:
    return [(stage.host, stage.stage) for stage in answer.legs[0].stages]


async def test_a_packet_that_arrives(fleet: Fleet) -> None:
    answer = await fleet.why("acme/web-1", "db-1", "tcp/80")
    assert (answer.arrives, answer.agrees, answer.verdict.arrives) == (True, True, True)
    assert answer.conclusion == "It arrives and the answer comes back: both are in network acme/web."
    assert stages(answer) == [
        ("h1", "source"), ("h1", "resolve"), ("h1", "forward"), ("h2", "admit"), ("h2", "forward"), ("h2", "deliver"),
    ]  # fmt: skip
    assert [leg.direction for leg in answer.legs] == ["there", "back"]
    assert answer.path.vteps == ("192.0.2.1", "192.0.2.2")
    assert (answer.path.hosts, answer.path.family, answer.path.mtu_bytes) == (("h1", "h2"), 4, 1450)
    assert len(fleet.asked) == 2, "each host is asked once, whatever there is to ask"


@pytest.mark.parametrize("reference", ["acme/web-1", "c1", "acme/c1", "h1:c1", "ID"])
async def test_every_word_for_a_container(fleet: Fleet, reference: str) -> None:
    wanted = fleet.endpoint("web-1")
    answer = await fleet.why(wanted.id if reference == "ID" else reference, "10.1.0.1")
    assert answer.source.endpoint == wanted.id
    assert (answer.arrives, answer.verdict.reason[:22]) == (True, "it is the gateway of a")


@pytest.mark.parametrize("to", ["c2", "ADDRESS", "MAC"])
async def test_every_word_for_a_target(fleet: Fleet, to: str) -> None:
    target = fleet.endpoint("db-1")
    words = {"ADDRESS": target.addresses[0].partition("/")[0], "MAC": target.mac.upper()}
    answer = await fleet.why("c1", words.get(to, to))
    assert answer.destination is not None
    assert (answer.destination.endpoint, answer.arrives) == (target.id, True)


async def test_who_is_not_known_and_who_is_several(fleet: Fleet) -> None:
    error = await refused(Kind.NOT_FOUND, fleet.why("acme/web-2", "c2"))
    assert "acme/web-1" in error.hint
    error = await refused(Kind.CONFLICT, fleet.why("web-1", "c2"))
    assert "h1:c1" in error.hint
    assert "h1:g1" in error.hint
    await refused(Kind.NOT_FOUND, fleet.why("h9:c1", "c2"))
    await refused(Kind.NOT_FOUND, fleet.why("c1", "nobody"))
    for wrong in ("tcp/0", "tcp/65536", "tcp/x", "sctp/5", "icmp/8", "tcp/"):
        await refused(Kind.INVALID, fleet.why("c1", "c2", wrong))
    assert [parse_protocol(text) for text in ("", "TCP/080", "udp", "icmp")] == ["", "tcp/80", "udp", "icmp"]


OTHERS = {
    ("c1", "c3"): "they are in different networks",
    ("c1", "g2"): "they belong to different tenants",
    ("c1", "10.1.0.99"): "nobody in acme/web has it",
    ("c1", "8.8.8.8"): "it is outside of acme/web, and networks are internal",
    ("c1", "0a:00:00:00:00:99"): "nobody in acme/web has it",
    ("c1", "fd00::1"): "it has no IPv6 address",
    ("c1", "224.0.0.1"): "networks carry no broadcast and no multicast",
}


@pytest.mark.parametrize("pair", OTHERS, ids=" to ".join)
async def test_what_does_not_arrive_and_should_not(fleet: Fleet, pair: tuple[str, str]) -> None:
    answer = await fleet.why(*pair)
    assert (answer.arrives, answer.agrees) == (False, True)
    assert answer.conclusion.startswith(f"It does not arrive: {OTHERS[pair]}")
    assert answer.hint


async def test_an_address_that_is_another_ones_here(fleet: Fleet) -> None:
    """The other tenant's vault has the address that db-1 has here."""
    answer = await fleet.why("c1", "g2")
    assert "the address is acme/db-1's" in answer.conclusion
    assert answer.destination is not None
    assert answer.destination.name == "globex/vault"


async def test_itself_and_a_reserved_protocol(fleet: Fleet) -> None:
    answer = await fleet.why("c1", "c1")
    assert (answer.arrives, answer.legs) == (True, [])
    answer = await fleet.why("c1", "c2", "udp/68")
    assert (answer.arrives, answer.agrees, answer.verdict.cause) == (False, True, "dhcp-server")


async def test_what_was_changed_by_hand_is_said_loudly(fleet: Fleet) -> None:
    source, target = fleet.endpoint("web-1"), fleet.endpoint("db-1")
    address = target.addresses[0].partition("/")[0]
    fleet.kernels[source.host].kernel.disturb(("neighbour", source.tenant, source.network, address))
    answer = await fleet.why("c1", "c2")
    assert (answer.arrives, answer.agrees, answer.verdict.arrives) == (False, False, True)
    wanted = f"The packet should arrive, but h1 drops it at 'resolve': nothing answers for {address}."
    assert answer.conclusion == wanted
    assert "hawse flow ls h1" in answer.hint
    last = answer.legs[0].stages[-1]
    assert (last.host, last.table, last.match, last.missing) == ("h1", "neighbour", address, True)
    back = await fleet.why("c2", "c1")
    assert back.conclusion.startswith("It arrives, but the answer does not: h1 drops it at 'resolve'")
    assert not back.arrives


async def test_what_a_host_could_not_set_up_is_told(fleet: Fleet) -> None:
    target = fleet.endpoint("db-1")
    fleet.kernels[target.host].kernel.disturb(("port", target.tenant, target.id))
    await fleet.agents[1].report(failures={f"endpoint/{target.id}": "no descriptor is left"})
    answer = await fleet.why("c1", "c2")
    assert "no descriptor is left" in answer.hint
    assert not answer.agrees


async def test_a_host_that_is_away_is_said_and_not_waited_for(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(why_module, "ANSWER_S", 0.01)
    fleet.silent.add(fleet.agents[1].host)
    answer = await fleet.why("c1", "c2")
    assert [(away.host, away.why) for away in answer.away] == [("h2", "the host did not answer within 0.01 s")]
    assert answer.conclusion == "It should arrive: both are in network acme/web. But h2 could not be asked."
    assert [leg.arrives for leg in answer.legs] == [None, None]
    assert stages(answer) == [("h1", "source"), ("h1", "resolve"), ("h1", "forward")]
    fleet.agents[1].stream.closed()
    answer = await fleet.why("c1", "c2")
    assert [away.why for away in answer.away] == ["host h2 is not connected"]
    fleet.agents[0].stream.closed()
    answer = await fleet.why("c1", "c3")
    assert (answer.arrives, answer.agrees) == (False, True), "the verdict stands without any host"


@pytest.mark.parametrize("nonsense", [None, 7, {"decisions": "x"}, {"decisions": []}, {"decisions": [[{}], []]}])
async def test_a_host_that_answers_nonsense_is_one_that_is_away(fleet: Fleet, nonsense: Any) -> None:
    fleet.nonsense = nonsense
    answer = await fleet.why("c1", "c2")
    assert [away.host for away in answer.away] == ["h1", "h2"]


async def test_a_tenants_user_is_told_of_its_own_alone(fleet: Fleet) -> None:
    answer = await fleet.why("web-1", "db-1", tenant="acme")
    assert answer.arrives
    assert {leg.arrives for leg in answer.legs} == {True}
    shown = msgspec.json.encode(answer).decode()
    assert "192.0.2." not in shown
    assert answer.path.vni == 0
    assert all((stage.table, stage.match, stage.action) == ("", "", "") for leg in answer.legs for stage in leg.stages)
    target = fleet.endpoint("db-1")
    fleet.kernels[target.host].kernel.disturb(("peer", target.tenant, target.network, "192.0.2.1"))
    answer = await fleet.why("web-1", "db-1", tenant="acme")
    assert answer.conclusion == (
        "The packet should arrive, but h2 drops it at 'admit': what comes from the other host."
    )
    assert "192.0.2." not in msgspec.json.encode(answer).decode()


@pytest.mark.parametrize("reference", ["globex/vault", "vault", "g2", "h2:g2", "ID"])
async def test_what_is_anothers_is_not_there(fleet: Fleet, reference: str) -> None:
    if reference == "ID":
        reference = fleet.endpoint("vault", "globex").id
    for pair in ((reference, "web-1"), ("web-1", reference)):
        error = await refused(Kind.NOT_FOUND, fleet.why(*pair, tenant="acme"))
        assert "vault" not in error.hint
        source, target = ("nothing" if word == reference else word for word in pair)
        never = await refused(Kind.NOT_FOUND, fleet.why(source, target, tenant="acme"))
        if ":" not in reference and "/" not in reference:
            assert str(error).replace(reference, "nothing") == str(never)


async def test_a_hosts_tables_have_names(fleet: Fleet) -> None:
    core, host = fleet.house.site.core, fleet.scope().host("h1")
    whole = await fleet.served(flows(core, host, None, None, False))
    assert {"acme/web-1", "acme/db-1", "globex/vault"} <= {row.owner for row in whole.items}
    mine = await fleet.served(flows(core, host, None, "h2:c2", False))
    assert {row.owner for row in mine.items} == {"acme/db-1"}
    web = await fleet.served(flows(core, host, "globex/web", None, False))
    assert {(row.tenant, row.network) for row in web.items} == {("globex", "web")}
    await refused(Kind.NOT_FOUND, flows(core, host, "acme/nothing", None, False))


async def test_a_tenants_token_gets_no_tables(fleet: Fleet) -> None:
    (route,) = (route for route in all_routes() if route.path.endswith("/flows"))
    assert route.access is Access.ADMIN
