"""The authority, the certificate and a host's secret are replaced while its stream lives: real TLS, both real ends."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from plugin.agent import keeper as keeper_module
from plugin.agent.configuration import Configuration, read_configuration
from plugin.agent.core import AgentCore, Identity
from plugin.agent.journal import Journal
from plugin.agent.keeper import Keeper
from plugin.agent.stream import Dialer
from sdn.controller import custody, throttle
from sdn.model.certificate import parse_certificates
from sdn.model.errors import HawseError
from sdn.model.ids import HostId
from sdn.model.resources import Datapath
from sdn.model.stream import Credentials
from sdn.reconcile.fake import FakeDatapath
from sdn.service.durable import write_durably
from tests.unit.agent_harness import FACTS, FakeNamespaces, add, until
from tests.unit.rest_server import Served, running


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(throttle, "FREE", 1000.0)
    async with running(tmp_path) as controller:
        await controller.ask("POST", "/v1/networks", {"name": "web"})
        yield controller


async def given(served: Served, path: Path) -> Configuration:
    """A host h1's agent.json, written as `hawse join` would."""
    await served.ask("POST", "/v1/hosts", {"name": "h1"})
    body = (await served.ask("POST", "/v1/hosts/h1/credential")).body
    write_durably(path, json.dumps(body).encode())
    return read_configuration(path)


@dataclasses.dataclass
class Host:
    """An agent on a fake kernel that has read its file, and attaches one container after another."""

    core: AgentCore
    keeper: Keeper
    dialer: Dialer
    numbers: Any = dataclasses.field(default_factory=lambda: itertools.count(1))

    async def attach(self) -> None:
        """Another container; what it was given is committed when this returns."""
        number = next(self.numbers)
        assert (await self.core.attachments.add(add(f"c{number}"), number)).endpoint


@contextlib.asynccontextmanager
async def agent(path: Path) -> AsyncIterator[Host]:
    """Start one by its file, and end it without a word, as a kill would."""
    configuration = read_configuration(path)
    dialer = Dialer(configuration)
    keeper = Keeper(path, configuration, dialer.use)
    journal = Journal.open(path.with_name("journal"))
    core = AgentCore(
        Identity(HostId(configuration.host), "boot:1", "1", Datapath.FAKE),
        FACTS,
        dial=dialer,
        datapath=FakeDatapath(),
        namespaces=FakeNamespaces(),
        journal=journal,
        clock=asyncio.get_running_loop(),
        random=lambda: 0.0,
        keeper=keeper,
    )
    await core.start()
    task = asyncio.create_task(core.run())
    try:
        async with asyncio.timeout(10):
            await core.first_contact()
        yield Host(core, keeper, dialer)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        journal.close()


def is_good(served: Served, host: str, secret: str) -> bool:
    """Whether the controller takes that secret."""
    with contextlib.suppress(HawseError):
        return served.core.custody.authenticate(HostId(host), secret).name == "h1"
    return False


def trusts(served: Served) -> tuple[str, ...]:
    """What the controller knows that h1 trusts."""
    (record,) = served.core.state.trusts.values()
    return record.authorities


@pytest.fixture
def output() -> Any:
    """Everything that both ends log."""
    text, before = io.StringIO(), structlog.get_config()
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()], logger_factory=structlog.PrintLoggerFactory(text)
    )
    yield text
    structlog.configure(**before)


async def test_nothing_is_refused_and_nobody_reconnects(served: Served, tmp_path: Path, output: io.StringIO) -> None:
    """Three rounds of all three while containers are attached all the time."""
    path = tmp_path / "agent.json"
    first = await given(served, path)
    secrets, bundles, over = [first.secret], [first.authority], asyncio.Event()
    async with agent(path) as host:
        session = host.core.session.number

        async def attaching() -> None:
            while not over.is_set():
                await host.attach()

        working = asyncio.create_task(attaching())
        for _ in range(3):
            before = served.identity.server
            view = (await served.ask("POST", "/v1/certificates/rotate?server=1")).body
            assert served.identity.server != before
            assert view["items"][-1]["fingerprint"] == served.identity.server.fingerprint
            view = (await served.ask("POST", "/v1/certificates/rotate")).body
            assert [item["part"] for item in view["items"]] == ["authority", "authority-before", "server"]
            assert view["lacking"] == []
            assert read_configuration(path).authority == served.identity.bundle
            assert (await served.ask("POST", "/v1/hosts/h1/rotate")).status == 200
            secrets.append(read_configuration(path).secret)
            assert [is_good(served, first.host, one) for one in secrets] == [False] * (len(secrets) - 1) + [True]
            assert (await served.ask("POST", "/v1/certificates/retire")).status == 200
            bundles.append(read_configuration(path).authority)
            assert bundles[-1] == served.identity.bundle
            assert trusts(served) == (served.identity.fingerprint,)
        over.set()
        await working
        assert len(set(secrets)) == len(set(bundles)) == 4
        assert (host.core.session.live, host.core.session.number) == (True, session)
        assert len(served.core.state.endpoints) == next(host.numbers) - 1 > 3
    async with agent(path) as host:
        assert host.core.session.live
        assert (await host.core.attachments.add(add("another"), 9999)).endpoint
    for secret, authority, said in (
        (secrets[0], bundles[-1], "does not accept this host's credential"),
        (secrets[-1], bundles[0], "is not the controller that was pinned"),
        (secrets[-1], bundles[-2], "is not the controller that was pinned"),
    ):
        stale = {**json.loads(path.read_text()), "secret": secret, "authority": authority}
        stale["fingerprint"] = parse_certificates(authority)[0].fingerprint
        write_durably(tmp_path / "stale.json", json.dumps(stale).encode())
        async with agent(tmp_path / "stale.json") as refused:
            assert said in refused.core.session.away.message
    logged = output.getvalue() + str(served.log.lines)
    assert "host.rotated" in logged
    assert '"event": "kept"' in logged
    assert not [secret for secret in secrets if secret in logged]
    assert "PRIVATE" not in logged


async def test_a_host_that_was_away_is_told_when_it_comes_back(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    await given(served, path)
    async with agent(path):
        first = trusts(served)
    view = (await served.ask("POST", "/v1/certificates/rotate")).body
    assert view["lacking"] == ["h1"]
    refused = await served.ask("POST", "/v1/certificates/retire")
    assert (refused.status, refused.body["facts"]) == (409, {"hosts": ["h1"]})
    assert "1 of 1 hosts have not said that they trust the new authority" in refused.body["detail"]
    async with agent(path):  # it trusts the one before, and that is enough
        await until(lambda: trusts(served) != first)
        assert read_configuration(path).authority == served.identity.bundle
    retired = await served.ask("POST", "/v1/certificates/retire")
    assert (retired.status, retired.body["lacking"]) == (200, [])
    async with agent(path) as host:  # it trusts both, and is told of the one that is left
        await until(lambda: read_configuration(path).authority == served.identity.bundle)
        assert host.core.session.live


async def test_a_host_that_is_cut_off_by_force_says_why(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    configuration = await given(served, path)
    await served.ask("POST", "/v1/certificates/rotate")
    forced = await served.ask("POST", "/v1/certificates/retire?force=1")
    assert (forced.status, forced.body["lacking"]) == (200, ["h1"])
    async with agent(path) as host:
        message = host.core.session.away.message
        assert configuration.fingerprint in message
        assert served.identity.fingerprint in message


async def test_twice_is_refused_and_the_rest_stays(served: Served) -> None:
    assert (await served.ask("POST", "/v1/certificates/retire")).status == 200  # there is none before it
    first = (await served.ask("POST", "/v1/certificates/rotate")).body["items"]
    again = await served.ask("POST", "/v1/certificates/rotate")
    assert (again.status, again.body["hint"]) == (409, "retire that first: hawse certificate retire")
    assert (await served.ask("GET", "/v1/certificates")).body["items"] == first


async def test_a_host_that_cannot_keep_its_secret_has_the_one_before(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent.json"
    configuration = await given(served, path)

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    async with agent(path) as host:
        with monkeypatch.context() as patched:
            patched.setattr(keeper_module, "write_durably", full)
            refused = await served.ask("POST", "/v1/hosts/h1/rotate")
            assert (refused.status, "No space left" in refused.body["detail"]) == (503, True)
            view = (await served.ask("POST", "/v1/certificates/rotate")).body
            assert view["lacking"] == ["h1"]
        assert host.keeper.configuration == read_configuration(path) == configuration
        assert is_good(served, configuration.host, configuration.secret)
        assert (await served.ask("POST", "/v1/hosts/h1/rotate")).status == 200
        assert not is_good(served, configuration.host, configuration.secret)
    async with agent(path) as host:
        assert host.core.session.live


async def test_who_is_not_connected_cannot_be_given_a_secret(served: Served, tmp_path: Path) -> None:
    configuration = await given(served, tmp_path / "agent.json")
    refused = await served.ask("POST", "/v1/hosts/h1/rotate")
    assert (refused.status, "h1 is not connected" in refused.body["detail"]) == (503, True)
    assert (await served.ask("POST", "/v1/hosts/h9/rotate")).status == 404
    assert is_good(served, configuration.host, configuration.secret)


@pytest.mark.parametrize(
    "moment", ["before it writes", "once it has written", "before it uses it", "before it answers"]
)
async def test_an_agent_killed_at_any_step_has_a_secret_that_is_good(
    moment: str, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(custody, "KEEP_S", 0.2)
    path = tmp_path / "agent.json"
    configuration = await given(served, path)
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    async with agent(path) as host:
        keep = host.keeper.keep

        async def dying(credentials: Credentials) -> None:
            if moment == "before it writes":
                await hang()
            if moment == "once it has written":
                write_durably(path, json.dumps({**json.loads(path.read_text()), "secret": credentials.secret}).encode())
                await hang()
            if moment == "before it uses it":
                monkeypatch.setattr(host.keeper, "_use", lambda _: None)
            await keep(credentials)
            await hang()

        monkeypatch.setattr(host.keeper, "keep", dying)
        refused = await served.ask("POST", "/v1/hosts/h1/rotate")
        assert (refused.status, "did not answer within" in refused.body["detail"]) == (503, True)
        assert reached.is_set()
        kept = read_configuration(path)
        assert (kept.secret == configuration.secret) is (moment == "before it writes")
        assert is_good(served, configuration.host, configuration.secret)  # nothing was acknowledged
        assert is_good(served, configuration.host, kept.secret)
    async with agent(path) as host:
        assert host.core.session.live
        assert is_good(served, configuration.host, kept.secret)
        assert is_good(served, configuration.host, configuration.secret) is (kept.secret == configuration.secret)
        assert (await served.ask("POST", "/v1/hosts/h1/rotate")).status == 200
        assert not is_good(served, configuration.host, kept.secret)
        assert is_good(served, configuration.host, read_configuration(path).secret)


def killed_at(count: int, work: Callable[[], None]) -> bool:
    """Whether a child that is killed at its `count`-th system call of those that change files got to the end before."""
    child = os.fork()
    if child == 0:
        left = itertools.count(count, -1)

        def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
            def called(*arguments: Any, **more: Any) -> Any:
                if next(left) == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **more)

            return called

        for name in ("open", "fchmod", "fsync", "replace", "rename", "close", "unlink"):
            setattr(os, name, deadly(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_file_of_a_writer_killed_anywhere_is_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    for count in itertools.count():
        write_durably(path, b"old")
        over = killed_at(count, lambda: write_durably(path, b"new"))
        assert path.read_bytes() in ((b"new",) if over else (b"old", b"new"))
        assert len(os.listdir(tmp_path)) <= 2
        if over:
            break
    assert count > 5
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(b"new").digest()
    assert os.listdir(tmp_path) == ["agent.json"]
