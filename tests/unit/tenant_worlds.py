"""Worlds that are alike for one tenant, and what its user gets to see of them, in words that do not depend on chance.

What may differ, and is therefore put into words that are the same in both: ids (by what they are of), MACs (of own
endpoints), revisions (how many of the tenant's own came before) and times. An id that is not of something that the
user may know stays as it is, and so shows up as a difference.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import re
import types
from typing import Any, cast
from unittest import mock

import msgspec
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from sdn.controller import application
from sdn.controller.authentication import PRINCIPAL
from sdn.controller.edge import Edge
from sdn.controller.options import Options
from sdn.controller.principal import Access, Principal, Role
from sdn.controller.problem import RefusedError
from sdn.controller.rest.events import parse_event_id
from sdn.controller.scope import Scope
from sdn.controller.specs import NetworkSpec, SubnetSpec, TenantSpec
from sdn.controller.sse import event_bytes
from sdn.model.errors import HawseError
from sdn.model.ids import Revision, TenantId
from sdn.store.memory import Disk, MemoryStore
from tests.unit.controller_harness import Agent, Site, start
from tests.unit.rest_server import Log

FIRST_REVISION = 10_000_000
"""So that a number of eight digits is a revision wherever it stands."""
CHANCE = re.compile(
    r'(?P<revision>\b1\d{7}\b)|(?P<time>"time_s":[0-9.e+]+)|[0-7][0-9a-z]{25}|\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b'
)
HOSTS = 3
OWN = "acme"
FOREIGN = ("globex", "default")


class Directory(Site):
    """A site whose revisions begin high. `seed`: so that no id is the same in two of them."""

    def __init__(self, seed: int) -> None:
        super().__init__(Options(settle_s=60.0))
        self.seed = seed
        self.disk = Disk(head=Revision(FIRST_REVISION), floor=Revision(FIRST_REVISION + 1))

    async def start(self) -> Site:
        self.store = MemoryStore(self.disk)
        self.core = await start(self.store, self.options, self.seed)
        return self


class World:
    """One controller with three hosts and a spare one; tenant `acme` is the user's."""

    def __init__(self, seed: int) -> None:
        self.site = Directory(seed)
        self.agents: list[Agent] = []
        self.muted: set[int] = set()
        self.spare = f"spare{seed}"
        """One more host, which only others use."""
        self.failures: list[dict[str, str]] = [{} for _ in range(HOSTS + 1)]
        self.names: dict[str, str] = {}
        """id or MAC -> the word for it."""
        self.own: list[int] = []
        """The revisions of what concerns the tenant, or the hosts."""
        self.foreign: list[int] = []
        self.containers: dict[tuple[str, int, str], str] = {}

    async def begin(self) -> None:
        await self.site.start()
        self.core = self.site.core
        self.tenant = (await self.core.create_tenant(TenantSpec(name=OWN), "test"))[0].id
        self.names[self.tenant] = "<acme>"
        for number in range(HOSTS):
            agent = await self.site.agent(f"h{number}", number + 1)
            self.names[agent.host] = f"<h{number}>"
            self.agents.append(agent)
        self.agents.append(await self.site.agent(self.spare, HOSTS + 1))
        self.own += range(FIRST_REVISION + 1, self.core.revision + 1)
        nobody: Any = types.SimpleNamespace(authority=types.SimpleNamespace(trusted=()), bundle="", fingerprint="")
        self.edge = Edge(self.core, nobody, Log())
        self.principal = Principal("alice", Role.TENANT, TenantId(self.tenant))
        self.application = application.rest_application(self.edge)
        self.application.pre_freeze()

    # --- what happens ---

    async def step(self, tenant: str, operation: tuple[Any, ...]) -> None:
        """Do it; what it changed is known as the tenant's or another's."""
        before = self.core.revision
        with contextlib.suppress(HawseError):  # a wish that cannot be granted
            await getattr(self, f"_{operation[0]}")(tenant, *operation[1:])
        (self.own if tenant == OWN else self.foreign).extend(range(before + 1, self.core.revision + 1))
        for number, agent in enumerate(self.agents):
            await agent.take()
            if number not in self.muted:
                await agent.report(failures=self.failures[number])
        self._learn()

    def _learn(self) -> None:
        state = self.core.state
        for kind, found in (("network", state.networks), ("endpoint", state.endpoints)):
            for id_, thing in sorted(cast(dict[str, Any], found).items()):
                if thing.tenant == self.tenant and id_ not in self.names:
                    label = f"<{kind} {sum(name.startswith(f'<{kind}') for name in self.names.values())}>"
                    self.names[id_] = label
                    if kind == "endpoint":
                        self.names.setdefault(thing.mac, f"<mac of {label}>")

    async def _found(self, tenant: str) -> None:
        if tenant != OWN:
            await self.core.create_tenant(TenantSpec(name=tenant), "test")

    async def _create(self, tenant: str, name: str, prefix: str) -> None:
        await self._found_once(tenant)
        subnets = (SubnetSpec(prefix=prefix),) if prefix else ()
        await self.core.create_network(NetworkSpec(name=name, tenant=tenant, subnets=subnets), "test")

    async def _found_once(self, tenant: str) -> None:
        if tenant not in self.core.state.names.tenants:
            await self._found(tenant)

    async def _subnet(self, tenant: str, name: str, prefix: str) -> None:
        await self.core.add_subnet(f"{tenant}/{name}", SubnetSpec(prefix=prefix), "test")

    async def _remove(self, tenant: str, name: str) -> None:
        await self.core.delete_network(f"{tenant}/{name}", "test")

    async def _attach(self, tenant: str, host: int, container: str, network: str, name: str) -> None:
        endpoint = await self.agents[host].attach(f"{tenant}-{container}", f"{tenant}/{network}", name=name)
        self.containers[tenant, host, container] = endpoint.id

    async def _detach(self, tenant: str, host: int, container: str) -> None:
        if id_ := self.containers.pop((tenant, host, container), None):
            await self.agents[host].detach(id_)

    async def _fail(self, tenant: str, host: int) -> None:
        """Everything of the tenant that the host has fails from now on."""
        state = self.core.state
        if (owner := state.names.tenants.get(tenant)) is None:
            return
        things = [f"endpoint/{e.id}" for e in state.endpoints_of(host=self.agents[host].host) if e.tenant == owner]
        things += [f"network/{network.id}" for network in state.networks.values() if network.tenant == owner]
        self.failures[host] |= dict.fromkeys([*things, f"tenant/{owner}"], f"of {tenant}: VNI 77 is taken")

    async def _mute(self, tenant: str, host: int) -> None:
        if tenant == OWN:
            self.muted ^= {host}

    async def _bounce(self, tenant: str, host: int) -> None:
        """The host is gone for a moment: whoever waited for it counts it as late."""
        if tenant == OWN:
            self.agents[host].stream.closed()
            await self.agents[host].hello(resume=True)

    # --- what the user sees ---

    async def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> str:
        """The answer, in words."""
        raw = b"" if body is None else self.fill(msgspec.json.encode(body).decode()).encode()
        before = self.core.revision
        response = await self.application._handle(request_of(method, self.fill(path), raw, headers or {}))
        self.own += range(before + 1, self.core.revision + 1)
        self._learn()
        assert isinstance(response, web.Response)
        assert response.status < 500, (method, path, self.edge.log.lines)
        kept = {name: value for name, value in response.headers.items() if name.lower() in ("hawse-revision", "etag")}
        content = response.body.decode() if isinstance(response.body, bytes) else ""
        return self.words(f"{response.status} {kept} {content}")

    async def events(self, since: str) -> list[tuple[str, str]]:
        """The events after a revision or an event's id: the id of each, and all of it in words."""
        events = Scope(self.edge, self.principal).events(*parse_event_id(self.fill(since)), False)
        return [(event.id, self.words(event_bytes(event).decode())) async for event in events]

    def fill(self, text: str) -> str:
        """`{network 0}` is the id of `<network 0>`, `{r3}` the third of the own revisions."""
        for id_, name in self.names.items() if "{" in text else ():
            text = text.replace("{" + name[1:-1] + "}", id_)
        return re.sub(r"\{r(\d+)\}", lambda found: str(self.own[int(found[1])]), text)

    def words(self, text: str) -> str:
        """Without what chance decides."""

        def word(found: re.Match[str]) -> str:
            if found["revision"]:
                return f"R{bisect.bisect_right(self.own, int(found[0]))}"
            return '"time_s":TIME' if found["time"] else self.names.get(found[0], found[0])

        return CHANCE.sub(word, text)

    def foreign_references(self) -> list[str]:
        """Everything that another tenant's things are called."""
        state = self.core.state
        found = [self.spare, self.agents[HOSTS].host]
        for tenant in state.tenants.values():
            if tenant.id != self.tenant:
                found += [tenant.id, tenant.name]
        for network in state.networks.values():
            if network.tenant != self.tenant:
                found += [network.id, f"{state.tenants[network.tenant].name}/{network.name}"]
        for endpoint in state.endpoints.values():
            if endpoint.tenant != self.tenant:
                found += [endpoint.id, f"{state.tenants[endpoint.tenant].name}/{endpoint.name}", endpoint.container]
        return found


def request_of(method: str, path: str, body: bytes, headers: dict[str, str]) -> web.Request:
    """A request without a connection: thousands of them are asked."""
    loop = asyncio.get_running_loop()
    payload = StreamReader(BaseProtocol(loop), 1 << 16, loop=loop)
    payload.feed_data(body)
    payload.feed_eof()
    json = {"Content-Type": "application/json", "Content-Length": str(len(body))} if body else {}
    sent = CIMultiDictProxy(CIMultiDict({"Host": "hawse"} | json | headers))
    message = RawRequestMessage(
        method, path, HttpVersion11, sent, (), False, None, False, False, URL(path, encoded=True)
    )
    protocol: Any = types.SimpleNamespace(ssl_context=None, peername=None, sockname=None, transport=None)
    task: Any = asyncio.current_task()
    return web.Request(message, payload, protocol, cast(Any, None), task, loop)


@contextlib.contextmanager
def as_tenant(worlds: list[World]) -> Any:
    """Requests are the tenant's user's, whoever the socket says."""

    async def admit(edge: Edge, request: web.Request, access: Access, what: str) -> Principal:
        (principal,) = (world.principal for world in worlds if world.edge is edge)
        request[PRINCIPAL] = principal
        if not principal.may(access):
            raise RefusedError(403, f"{what} is for administrators", "")
        return principal

    with mock.patch.object(application, "admit", admit):
        yield
