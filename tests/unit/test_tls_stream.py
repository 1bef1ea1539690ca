"""A host's stream over real TLS: the pinned certificate, the credential, and messages both ways."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from sdn.controller import stream_endpoint
from sdn.controller.authority import make_authority
from sdn.model.codec import encode_msgpack
from sdn.model.stream import Hello, Sync, Welcome, down_decoder, unpack_frame
from sdn.service.trust import verifying_context
from tests.unit.rest_server import Served, until


async def credential(served: Served, name: str = "h1") -> dict[str, Any]:
    await served.ask("POST", "/v1/hosts", {"name": name})
    body = (await served.ask("POST", f"/v1/hosts/{name}/credential")).body
    assert isinstance(body, dict)
    return body


def bearer(given: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {given['host']}:{given['secret']}"}


async def test_hello_over_tls(served: Served) -> None:
    given = await credential(served)
    url = f"{given['controllers'][0]}/v1/stream"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, ssl=verifying_context(given["authority"]), headers=bearer(given)) as socket,
    ):
        hello = Hello(host=given["host"], incarnation="boot:1", mtu_bytes=1500, vtep4="192.0.2.1")
        await socket.send_bytes(encode_msgpack(hello))
        messages = [down_decoder.msgpack(raw) for raw in unpack_frame(await socket.receive_bytes(timeout=10))]
        welcome = messages[0]
        assert isinstance(welcome, Welcome)
        assert (welcome.name, welcome.resumed) == ("h1", False)
        while not isinstance(messages[-1], Sync):
            messages += [down_decoder.msgpack(raw) for raw in unpack_frame(await socket.receive_bytes(timeout=10))]
        assert (await served.ask("GET", "/v1/hosts/h1")).body["connected"] is True

    async def away() -> bool:
        return not (await served.ask("GET", "/v1/hosts/h1")).body["connected"]

    await until(away)


async def test_a_foreign_certificate_is_refused(served: Served) -> None:
    other = make_authority(time.time()).certificate
    given = await credential(served)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.ws_connect(
                f"https://{served.address}/v1/stream", ssl=verifying_context(other.pem), headers=bearer(given)
            )
    assert served.log.named("stream opened") == []


@pytest.mark.parametrize("wrong", ["secret", "host", "scheme", "missing", "malformed"])
async def test_a_wrong_credential_is_refused(served: Served, wrong: str) -> None:
    given = await credential(served)
    headers = {
        "secret": {"Authorization": f"Bearer {given['host']}:wrong"},
        "host": {"Authorization": f"Bearer nobody:{given['secret']}"},
        "scheme": {"Authorization": f"Basic {given['host']}:{given['secret']}"},
        "missing": {},
        "malformed": {"Authorization": "Bearer x"},
    }[wrong]
    url = f"https://{served.address}/v1/stream"
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(url, ssl=verifying_context(given["authority"]), headers=headers)
        assert caught.value.status == 401
        async with session.get(url, ssl=verifying_context(given["authority"]), headers=headers) as response:
            problem = await response.json(content_type="application/problem+json")
            assert (response.status, problem["kind"]) == (401, "denied")
            assert response.headers["WWW-Authenticate"] == "Bearer"
    assert served.edge.metrics.authentication_failures == 2
    assert given["secret"] not in str(served.log.lines)


async def test_a_minted_secret_voids_the_one_before(served: Served) -> None:
    old = await credential(served)
    new = (await served.ask("POST", "/v1/hosts/h1/credential")).body
    url = f"https://{served.address}/v1/stream"
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(url, ssl=verifying_context(old["authority"]), headers=bearer(old))
        async with session.ws_connect(url, ssl=verifying_context(new["authority"]), headers=bearer(new)):
            pass


async def test_a_stream_is_a_websocket(served: Served) -> None:
    given = await credential(served)
    async with aiohttp.ClientSession(f"https://{served.address}") as session:
        trusted = verifying_context(given["authority"])
        async with session.get("/v1/stream", ssl=trusted, headers=bearer(given)) as response:
            assert response.status == 426


async def test_plain_http_gets_nothing(served: Served) -> None:
    reader, writer = await asyncio.open_connection(served.address.host, served.address.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" not in await reader.read()
    writer.close()


@pytest.mark.parametrize("message", ["text", "garbage", "large"])
async def test_what_is_no_message_ends_the_stream(served: Served, message: str) -> None:
    given = await credential(served)
    url = f"https://{served.address}/v1/stream"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, ssl=verifying_context(given["authority"]), headers=bearer(given)) as socket,
    ):
        if message == "text":
            await socket.send_str("hello")
        elif message == "garbage":
            await socket.send_bytes(b"\xc1")
        else:
            await socket.send_bytes(bytes(stream_endpoint.MESSAGE_BYTES_MAX + 1))
        async with asyncio.timeout(10):
            async for _ in socket:  # a Refused may come first
                pass
    assert (await served.ask("GET", "/v1/hosts/h1")).body["connected"] is False
