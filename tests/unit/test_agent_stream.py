"""The agent's end of the stream over real TLS: pinned certificates, credentials, several controllers, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from plugin.agent.configuration import Configuration
from plugin.agent.core import AgentCore, Identity
from plugin.agent.journal import Journal
from plugin.agent.stream import Dialer
from sdn.controller import throttle
from sdn.controller.authority import SERVER_VALID_S, Authority, make_authority
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import HostId
from sdn.model.resources import Datapath
from sdn.reconcile.fake import FakeDatapath
from sdn.store.memory import Disk
from tests.unit.agent_harness import FACTS, FakeNamespaces, add, until
from tests.unit.rest_server import Served, running
from tests.unit.tls_peers import certified, http_reply, identity_reply, peer

SECRET = "s" * 64
NOBODY = "https://127.0.0.1:1"
"""Port 1 is tcpmux: nothing listens there."""


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(throttle, "FREE", 1000.0)
    async with running(tmp_path) as controller:
        await controller.ask("POST", "/v1/networks", {"name": "web"})
        yield controller


async def configured(served: Served, **changes: Any) -> Configuration:
    """What a new host h1 is given."""
    await served.ask("POST", "/v1/hosts", {"name": "h1"})
    given = (await served.ask("POST", "/v1/hosts/h1/credential")).body
    return Configuration(**({**given, "controllers": tuple(given["controllers"])} | changes))


@contextlib.asynccontextmanager
async def agent_of(configuration: Configuration, directory: Path) -> AsyncIterator[AgentCore]:
    """An agent on a fake kernel, once it has met a controller or knows that it cannot."""
    journal, datapath = Journal.open(directory / "journal"), FakeDatapath()
    core = AgentCore(
        Identity(HostId(configuration.host), "boot:1", "1", Datapath.FAKE),
        FACTS,
        dial=Dialer(configuration),
        datapath=datapath,
        namespaces=FakeNamespaces(),
        journal=journal,
        clock=asyncio.get_running_loop(),
        random=lambda: 0.0,
    )
    await core.start()
    task = asyncio.create_task(core.run())
    try:
        async with asyncio.timeout(10):
            await core.first_contact()
        yield core
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        journal.close()


async def refusal(core: AgentCore) -> HawseError:
    """What an ADD is told."""
    assert not core.session.live
    with pytest.raises(HawseError) as caught:
        await core.attachments.add(add("a"), 11)
    return caught.value


async def test_an_attachment(served: Served, tmp_path: Path) -> None:
    async with agent_of(await configured(served), tmp_path) as core:
        result = await core.attachments.add(add("a"), 11)
        (endpoint,) = (await served.ask("GET", "/v1/endpoints")).body["items"]
        assert (endpoint["id"], endpoint["addresses"]) == (result.endpoint, list(result.addresses))


async def test_on_the_controllers_own_machine(served: Served, tmp_path: Path) -> None:
    async with agent_of(await configured(served, controllers=(f"unix:{served.path}",)), tmp_path) as core:
        await core.attachments.add(add("a"), 11)
    assert served.edge.metrics.connections["accepted"] == 0  # over TCP


async def test_the_unix_socket_takes_nobodys_word_for_who_a_host_is(served: Served, tmp_path: Path) -> None:
    given = await configured(served, controllers=(f"unix:{served.path}",), secret="0" * 32)
    async with agent_of(given, tmp_path) as core:
        assert (await refusal(core)).kind is Kind.DENIED
    async with agent_of(msgspec.structs.replace(given, controllers=("unix:/nowhere",)), tmp_path) as core:
        assert (await refusal(core)).kind is Kind.UNAVAILABLE


async def test_another_authority(served: Served, tmp_path: Path) -> None:
    other = make_authority(time.time()).certificate
    changed = await configured(served, authority=other.pem, fingerprint=other.fingerprint)
    async with agent_of(changed, tmp_path) as core:
        error = await refusal(core)
        assert error.kind is Kind.DENIED
        assert "is not the controller that was pinned" in error.message
        assert f"and {other.fingerprint} is trusted" in error.message
        assert served.identity.fingerprint in error.message
        assert "somebody is in between" in error.hint
    assert served.log.named("stream opened") == []


async def test_a_credential_that_is_void(served: Served, tmp_path: Path) -> None:
    configuration = await configured(served)
    await served.ask("POST", "/v1/hosts/h1/credential")
    async with agent_of(configuration, tmp_path) as core:
        error = await refusal(core)
        assert (error.kind, "does not accept this host's credential" in error.message) == (Kind.DENIED, True)
        assert "hawse join" in (error.hint or "")  # what a person can type
        assert configuration.secret not in str(error)


async def test_nobody_there(served: Served, tmp_path: Path) -> None:
    async with agent_of(await configured(served, controllers=(NOBODY,)), tmp_path) as core:
        error = await refusal(core)
        assert (error.kind, f"cannot reach {NOBODY}" in error.message) == (Kind.UNAVAILABLE, True)


async def test_what_is_not_a_controller(served: Served, tmp_path: Path) -> None:
    configuration = await configured(served)
    other = f"{configuration.controllers[0]}/elsewhere"
    async with agent_of(await configured(served, controllers=(other,)), tmp_path) as core:
        error = await refusal(core)
        assert (error.kind, "answered 404 to the stream" in error.message) == (Kind.UNAVAILABLE, True)


async def test_the_first_that_answers_is_taken(served: Served, tmp_path: Path) -> None:
    configuration = await configured(served)
    several = await configured(served, controllers=(NOBODY, *configuration.controllers))
    async with agent_of(several, tmp_path) as core:
        assert core.session.live


async def test_when_one_controller_dies_the_other_is_asked(tmp_path: Path) -> None:
    """Two with one certificate, that know the same: the agent goes from one to the other and attaches there."""
    disk = Disk()
    (tmp_path / "other").mkdir()
    (tmp_path / "tls").mkdir()
    (tmp_path / "other" / "tls").symlink_to(tmp_path / "tls")
    async with running(tmp_path, disk=disk) as first:
        await first.ask("POST", "/v1/networks", {"name": "web"})
        configuration = await configured(first)
    async with contextlib.AsyncExitStack() as dying:
        first = await dying.enter_async_context(running(tmp_path, disk=copy.deepcopy(disk)))
        async with running(tmp_path / "other", disk=disk) as second:
            urls = (f"https://{first.address}", f"https://{second.address}")
            async with agent_of(msgspec.structs.replace(configuration, controllers=urls), tmp_path) as core:
                assert [host.connected for host in first.core.status().hosts] == [True]
                await dying.aclose()
                await until(lambda: core.session.live)
                assert [host.connected for host in second.core.status().hosts] == [True]
                result = await core.attachments.add(add("a"), 11)
                assert list(second.core.state.endpoints) == [result.endpoint]


async def test_a_host_that_is_forgotten_is_told(served: Served, tmp_path: Path) -> None:
    async with agent_of(await configured(served), tmp_path) as core:
        assert (await served.ask("DELETE", "/v1/hosts/h1?force=1")).status == 204
        await until(lambda: not core.session.live)
        error = await refusal(core)
        assert (error.kind, "this host was forgotten" in error.message) == (Kind.DENIED, True)


async def test_a_second_agent_with_the_same_credential_takes_over(served: Served, tmp_path: Path) -> None:
    configuration = await configured(served)
    (tmp_path / "twin").mkdir()
    async with agent_of(configuration, tmp_path) as core, agent_of(configuration, tmp_path / "twin") as twin:
        await until(lambda: not core.session.live)
        assert twin.session.live
        error = await refusal(core)
        assert (error.kind, "started twice" in error.hint) == (Kind.DENIED, True)


async def met(url: str, tmp_path: Path, authority: Authority) -> HawseError:
    """What an agent that trusts that authority says of who is at `url`."""
    given = Configuration(
        controllers=(url,),
        authority=authority.certificate.pem,
        fingerprint=authority.certificate.fingerprint,
        host=HostId("0" * 26),
        secret=SECRET,
    )
    with pytest.raises(HawseError) as caught:
        await Dialer(given)()
    return caught.value


async def test_who_else_may_be_there_is_told_by_name_and_shown_nothing(tmp_path: Path) -> None:
    ours, others = make_authority(time.time()), make_authority(time.time())
    our_one, other_one = ours.certificate.fingerprint, others.certificate.fingerprint
    downgraded = certified(ours, tmp_path)
    downgraded.maximum_version = ssl.TLSVersion.TLSv1_2
    theirs = certified(others, tmp_path)
    late_s = time.time() - SERVER_VALID_S - 60
    for context, reply, kind, says in (
        (theirs, identity_reply(others), Kind.DENIED, f"its authority is {other_one}, and {our_one} is trusted"),
        (theirs, identity_reply(ours), Kind.DENIED, "has not signed, and says it had"),
        (theirs, http_reply("404 Not Found", b""), Kind.DENIED, "and it names no authority"),
        (downgraded, b"", Kind.UNAVAILABLE, "does not speak TLS 1.3"),
        (None, http_reply("400 Bad Request", b""), Kind.UNAVAILABLE, "does not speak TLS 1.3"),
        (certified(ours, tmp_path, late_s), identity_reply(ours), Kind.DENIED, "no longer valid"),
        (certified(ours, tmp_path), http_reply("404 Not Found", b""), Kind.UNAVAILABLE, "answered 404 to the stream"),
    ):
        with peer(context, reply) as other:
            error = await met(other.url, tmp_path, ours)
            assert (error.kind, says in error.message) == (kind, True)
            shown = [sent for sent in other.received if SECRET.encode() in sent]
            assert bool(shown) is ("answered 404" in says)  # that one has a certificate of ours
