"""Requests made of the API's own description, right and wrong ones, and what every answer to them has to be."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jsonschema
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.unit.rest_server import Agent, Served, running

NAMES = ("web", "db", "acme", "acme/web", "default", "h1", "one", "alice", "x", "acme/one", "..", "%2F")
TIMEOUT_S = 20.0
PROBLEM = {"type", "title", "status", "detail", "kind", "hint", "facts"}


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("hawse", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


class Api:
    """A served controller with a few things in it, for callers of other threads."""

    def __init__(self, served: Served, loop: asyncio.AbstractEventLoop) -> None:
        self.served = served
        self.loop = loop
        self.token = ""

    async def furnish(self) -> None:
        """Two tenants, networks of one name, a host with endpoints of both."""
        ask = self.served.ask
        await ask("POST", "/v1/tenants", {"name": "acme"})
        for tenant in ("acme", "default"):
            subnets = [{"prefix": "10.1.0.0/24"}]
            await ask("POST", "/v1/networks", {"name": "web", "tenant": tenant, "subnets": subnets})
        host = await ask("POST", "/v1/hosts", {"name": "h1"})
        agent = await Agent.connect(self.served.core, host.body["id"])
        for tenant in ("acme", "default"):
            await agent.attach(f"{tenant}/web", f"{tenant}-c1", name="one")
        agent.close()  # nobody would answer what is asked of it, and that is waited for
        made = await ask("POST", "/v1/tokens", {"kind": "user", "name": "alice", "role": "tenant", "tenant": "acme"})
        self.token = made.body["word"]

    def local(self) -> http.client.HTTPConnection:
        """As an administrator."""
        return UnixConnection(self.served.path)

    def remote(self) -> http.client.HTTPConnection:
        """Over TLS; who is at the other end is of no interest here."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        address = self.served.address
        return http.client.HTTPSConnection(address.host, address.port, timeout=TIMEOUT_S, context=context)


@contextlib.contextmanager
def serving_api(directory: Path) -> Iterator[Api]:
    """A controller in a thread of its own."""
    ready: threading.Event = threading.Event()
    found: list[Api] = []
    stop = asyncio.Event()

    async def serve() -> None:
        async with running(directory) as served:
            api = Api(served, asyncio.get_running_loop())
            await api.furnish()
            found.append(api)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield found[0]
    finally:
        found[0].loop.call_soon_threadsafe(stop.set)
        thread.join(30)


class Exchange:
    """Sends what was generated over a kept connection, and checks what comes back."""

    def __init__(
        self, connect: Callable[[], http.client.HTTPConnection], document: dict[str, Any], headers: dict[str, str]
    ) -> None:
        self._connect = connect
        self._connection = connect()
        self._document = document
        self._headers = headers
        self.statuses: set[int] = set()

    def send(self, method: str, path: str, template: str, body: bytes, headers: dict[str, str]) -> int:
        """One request; its answer has to be as the description says."""
        try:
            self._connection.request(method, path, body=body or None, headers=self._headers | headers)
            response = self._connection.getresponse()
        except (ConnectionError, http.client.HTTPException):  # the server closed a kept connection: once more
            self._connection.close()
            self._connection = self._connect()
            self._connection.request(method, path, body=body or None, headers=self._headers | headers)
            response = self._connection.getresponse()
        content = response.read()
        what = f"{method} {path} {body!r} {headers} -> {response.status} {content[:500]!r}"
        assert response.status < 500 or response.status == 503, what
        assert b"Traceback" not in content, what
        self.statuses.add(response.status)
        self._fits(method, template, response.status, response.headers.get_content_type(), content, what)
        return response.status

    def _fits(self, method: str, template: str, status: int, media: str, content: bytes, what: str) -> None:
        operation = self._document["paths"][template].get(method.lower())
        if operation is None or str(status) not in operation["responses"]:
            assert status >= 400, what
            assert (media, set(json.loads(content))) == ("application/problem+json", PROBLEM), what
            return
        described = operation["responses"][str(status)].get("content")
        if described is None:
            assert content == b"", what
            return
        assert list(described) == [media], what
        if media == "application/json":
            schema = {**described[media]["schema"], "components": self._document["components"]}
            jsonschema.validate(json.loads(content), schema)


def operations(document: dict[str, Any]) -> list[Any]:
    """Those of the description."""
    found: list[Any] = list(schemathesis.openapi.from_dict(document).get_all_operations())
    return [result.ok() for result in found]


def fuzz(operation: Any, exchange: Exchange, examples: int) -> None:
    """Send an operation right and wrong requests."""
    modes = [operation.as_strategy(generation_mode=mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]
    named = st.sampled_from((*NAMES, None, None))

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(modes), named)
    def requests(case: Any, name: str | None) -> None:
        path, headers = operation.path, {}
        for parameter, value in (case.path_parameters or {}).items():
            text = str(value) if name is None else quote(name, safe="")  # what is generated is quoted
            path = path.replace("{" + parameter + "}", text or "x")
        query = dict(case.query or {})
        if operation.path == "/v1/events":
            query["follow"] = 0
        if "wait" in query:
            query["wait"] = "0.01" if isinstance(query["wait"], int | float) else query["wait"]
        encoded = urlencode(query, doseq=True, errors="replace")
        for key, value in (case.headers or {}).items():
            if key.lower() == "authorization":  # who asks is not what is tried here, and wrong ones have to wait
                continue
            with contextlib.suppress(UnicodeEncodeError):
                text = str(value).encode("latin-1").decode("latin-1")
                headers[key] = "".join(character for character in text if character.isprintable())
        body = b""
        if isinstance(case.body, bytes):
            body = case.body
        elif not isinstance(case.body, schemathesis.core.NotSet):
            body = json.dumps(case.body).encode()
        if body:
            headers.setdefault("Content-Type", case.media_type or "application/json")
        exchange.send(
            operation.method.upper(), path + (f"?{encoded}" if encoded else ""), operation.path, body, headers
        )

    requests()
