"""Secrets offered and acknowledged, in the controller's core: whoever is killed, wherever, one of them is good."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import pytest

from sdn.controller import custody
from sdn.controller.custody import Trust
from sdn.controller.plan_credentials import OFFERED_MAX
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import HostId
from sdn.model.stream import Answer, Credentials, Problem
from tests.unit.controller_harness import Site
from tests.unit.rest_server import Agent

OLD, NEW = "a" * 64, "b" * 64
TRUST = Trust("PEM", (NEW, OLD))


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(custody, "KEEP_S", 5.0)
    return await Site().start()


def sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def host_of(site: Site) -> tuple[HostId, str]:
    """A host h1 and its secret."""
    host, _ = await site.core.create_host("h1", {}, "test")
    return host.id, await site.core.mint_credential("h1", "test")


def good(site: Site, host: HostId, *secrets: str) -> list[bool]:
    """Which of them the controller takes."""
    found = []
    for secret in secrets:
        taken = False
        with contextlib.suppress(HawseError):
            taken = site.core.custody.authenticate(host, secret).id == host
        found.append(taken)
    return found


async def offered(site: Site, agent: Agent) -> tuple[asyncio.Task[object], Credentials]:
    """A rotation that waits for its acknowledgement, and what the host was sent."""
    rotating: asyncio.Task[object] = asyncio.create_task(site.core.custody.rotate("h1", "test"))
    return rotating, await agent.hear(Credentials)


async def test_the_old_one_is_good_until_the_new_one_is_acknowledged(site: Site) -> None:
    host, old = await host_of(site)
    agent = await Agent.connect(site.core, host)
    rotating, sent = await offered(site, agent)
    assert good(site, host, old, sent.secret, "", "x") == [True, True, False, False]
    assert sent.secret not in repr(sent)
    await agent.say(Answer(request=sent.request))
    await rotating
    assert good(site, host, old, sent.secret) == [False, True]
    assert "host.rotated" in [event.kind async for event in site.core.events(0, follow=False)]  # type: ignore[arg-type]


async def test_a_controller_killed_before_it_has_sent_or_heard_takes_either(site: Site) -> None:
    host, old = await host_of(site)
    agent = await Agent.connect(site.core, host)
    _, sent = await offered(site, agent)
    await site.start()
    assert good(site, host, old, sent.secret) == [True, True]
    await Agent.connect(site.core, host, secret_sha256=sha256(old))  # which it was not given, or had no time to keep
    assert good(site, host, old, sent.secret) == [True, True]
    await Agent.connect(site.core, host, secret_sha256=sha256(sent.secret))
    assert good(site, host, old, sent.secret) == [False, True]
    await site.start()
    assert good(site, host, old, sent.secret) == [False, True]


async def test_each_of_many_is_good_until_a_later_one_is_acknowledged(site: Site) -> None:
    host, old = await host_of(site)
    agent = await Agent.connect(site.core, host)
    sent = [await offered(site, agent) for _ in range(3)]
    secrets = [old, *(credentials.secret for _, credentials in sent)]
    assert good(site, host, *secrets) == [True, True, True, True]
    await agent.say(Answer(request=sent[1][1].request))
    await sent[1][0]
    assert good(site, host, *secrets) == [False, False, True, True]
    await agent.say(Answer(request=sent[0][1].request))  # late: it changes nothing
    await sent[0][0]
    assert good(site, host, *secrets) == [False, False, True, True]
    await agent.say(Answer(request=sent[2][1].request))
    await sent[2][0]
    assert good(site, host, *secrets) == [False, False, False, True]


async def test_who_gave_up_waiting_does_not_stop_it(site: Site) -> None:
    host, old = await host_of(site)
    agent = await Agent.connect(site.core, host)
    rotating, sent = await offered(site, agent)
    rotating.cancel()
    await asyncio.gather(rotating, return_exceptions=True)
    await agent.say(Answer(request=sent.request))
    async with asyncio.timeout(30):
        while good(site, host, old) == [True]:  # noqa: ASYNC110 nobody is left to wait for it
            await asyncio.sleep(0)
    assert good(site, host, sent.secret) == [True]


async def test_a_host_that_cannot_is_heard(site: Site) -> None:
    host, old = await host_of(site)
    agent = await Agent.connect(site.core, host)
    rotating, sent = await offered(site, agent)
    await agent.say(Answer(request=sent.request, problem=Problem(kind="unavailable", message="the disk is full")))
    with pytest.raises(HawseError, match="the disk is full"):
        await rotating
    assert good(site, host, old, sent.secret) == [True, True]  # it may have got further than it knows


async def test_a_host_that_goes_away_is_told_of(site: Site) -> None:
    host, old = await host_of(site)
    agent = await Agent.connect(site.core, host)
    rotating, sent = await offered(site, agent)
    agent.close()
    with pytest.raises(HawseError, match="disconnected before it answered"):
        await rotating
    assert good(site, host, old, sent.secret) == [True, True]
    with pytest.raises(HawseError, match="h1 is not connected"):
        await site.core.custody.rotate("h1", "test")


async def test_a_host_that_never_answers_does_not_fill_the_store(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    host, old = await host_of(site)
    await Agent.connect(site.core, host)
    monkeypatch.setattr(custody, "KEEP_S", 0.01)
    for _ in range(OFFERED_MAX):
        with pytest.raises(HawseError, match="did not answer"):
            await site.core.custody.rotate("h1", "test")
    with pytest.raises(HawseError, match="acknowledged none of the last") as caught:
        await site.core.custody.rotate("h1", "test")
    assert caught.value.kind is Kind.EXHAUSTED
    assert good(site, host, old) == [True]


async def test_a_secret_given_by_hand_voids_all(site: Site) -> None:
    host, old = await host_of(site)
    agent = await Agent.connect(site.core, host)
    rotating, sent = await offered(site, agent)
    new = await site.core.mint_credential("h1", "test")
    assert good(site, host, old, sent.secret, new) == [False, False, True]
    with pytest.raises(HawseError):
        await rotating
    assert site.core.state.trusts == {}


async def test_of_a_host_that_is_forgotten_nothing_is_left(site: Site) -> None:
    host, old = await host_of(site)
    agent = await Agent.connect(site.core, host, authorities=(OLD,))
    rotating, sent = await offered(site, agent)
    await site.core.forget_host("h1", True, "test")
    with pytest.raises(HawseError):
        await rotating
    assert good(site, host, old, sent.secret) == [False, False]
    assert site.core.state.trusts == {}


async def test_hosts_are_told_of_authorities_and_remembered_to_have_them(site: Site) -> None:
    host, _ = await host_of(site)
    site.core.custody.entrust(Trust("OLD PEM", (OLD,)))
    agent = await Agent.connect(site.core, host, authorities=(OLD,))
    assert site.core.custody.lacking() == []
    (telling,) = site.core.custody.entrust(TRUST, "ann")
    sent = await agent.hear(Credentials)
    assert (sent.authority, sent.secret) == ("PEM", "")
    assert [one.name for one in site.core.custody.lacking()] == ["h1"]
    await agent.say(Answer(request=sent.request))
    await telling
    assert site.core.custody.lacking() == []
    assert site.core.custody.entrust(TRUST) == []
    await site.start()  # it is remembered
    site.core.custody.entrust(TRUST)
    assert site.core.custody.lacking() == []


async def test_what_a_hello_lacks_is_sent_after_it_and_who_is_silent_is_left_alone(site: Site) -> None:
    host, _ = await host_of(site)
    site.core.custody.entrust(TRUST)
    agent = await Agent.connect(site.core, host, authorities=(OLD,))
    assert (await agent.hear(Credentials)).authority == "PEM"
    await Agent.connect(site.core, host, authorities=(NEW, OLD))
    assert site.core.custody.lacking() == []
    silent = await Agent.connect(site.core, host)
    assert site.core.custody.lacking() == []  # it is taken to have what it had
    rotating, sent = await offered(site, silent)
    assert sent.authority == "PEM"
    await silent.say(Answer(request=sent.request))
    await rotating
