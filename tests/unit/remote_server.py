"""Requests to a running controller over real TLS, with whatever credential."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from tests.unit.rest_server import Answer, Served


def verifying(served: Served) -> ssl.SSLContext:
    """As clients do: the authority is known, names are not looked at."""
    context = ssl.create_default_context(cadata=served.edge.authority)
    context.check_hostname = False
    return context


class Remote:
    """Asks over TCP."""

    def __init__(self, served: Served, session: aiohttp.ClientSession) -> None:
        self.served = served
        self.session = session

    async def ask(self, method: str, path: str, body: Any = None, bearer: str = "", **headers: str) -> Answer:
        """One request; `bearer`: what is shown; header names are given with underscores."""
        async with self.open(method, path, body, bearer, **headers) as response:
            content = await response.read()
            decoded = msgspec.json.decode(content) if "json" in response.content_type and content else content
            return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, decoded)

    @contextlib.asynccontextmanager
    async def open(
        self, method: str, path: str, body: Any = None, bearer: str = "", **headers: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, whose response is to be read by the caller."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if bearer:
            sent["Authorization"] = f"Bearer {bearer}"
        raw = None
        if body is not None:
            raw, sent = msgspec.json.encode(body), {"Content-Type": "application/json", **sent}
        url = URL(f"https://{self.served.address}{path}", encoded=True)
        async with self.session.request(method, url, data=raw, headers=sent) as response:
            yield response

    async def user(self, role: str = "admin", **spec: Any) -> str:
        """The word of a new user token."""
        return str((await self.token(kind="user", role=role, **spec))["word"])

    async def token(self, **spec: Any) -> dict[str, Any]:
        """A new token, as the controller's machine makes it."""
        made = await self.served.ask("POST", "/v1/tokens", spec)
        assert made.status == 201, made.body
        assert isinstance(made.body, dict)
        return made.body

    async def host(self, name: str) -> str:
        """The credential of a new host, as HOST:SECRET."""
        assert (await self.served.ask("POST", "/v1/hosts", {"name": name})).status == 201
        given = (await self.served.ask("POST", f"/v1/hosts/{name}/credential")).body
        return f"{given['host']}:{given['secret']}"


@contextlib.asynccontextmanager
async def remote(served: Served) -> AsyncIterator[Remote]:
    """A session to the controller's TCP port."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=verifying(served))) as session:
        yield Remote(served, session)
