"""Thousands of endpoints: some real ones on the measured host, many on hosts that exist on the stream alone."""

from __future__ import annotations

import asyncio
import collections
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp

from sdn.client.client import Client
from sdn.model.codec import encode_msgpack
from sdn.model.stream import Attached, AttachRequest, Failed, Hello, Report, Sync, Welcome, down_decoder, unpack_frame
from sdn.service.trust import verifying_context
from tests.bench.attach import ROUNDS, attacher
from tests.bench.measure import progress
from tests.bench.stand import Inside, Lab

REMOTE_HOSTS = 10
REMOTE_PER_HOST = 1000
LOCAL = 1000 - ROUNDS - 10
"""The samples of the row themselves bring the host to its limit of 1000."""
WINDOW = 50
"""Requests of one ghost that are under way at once."""


@contextmanager
def filled(lab: Lab) -> Iterator[None]:
    """10 000 remote endpoints and nearly 1000 local ones in the network `web`."""
    progress("filling a network: 10 000 remote endpoints …")
    ghosts(lab, "web", 0, REMOTE_HOSTS)
    progress(f"filling a network: {LOCAL} local endpoints …")
    with attacher(lab, "h1", "web") as (local, sandboxes):
        for _ in range(LOCAL):
            local.add(sandboxes.make(), 0)
        yield


def ghosts(lab: Lab, network: str, first: int, end: int, each: int = REMOTE_PER_HOST) -> None:
    """Hosts that exist on the stream alone, by number, with so many endpoints each in a network."""
    client = Client(f"unix:{lab.directory / 'controller' / 'controller.sock'}")
    credentials = {number: _credential(client, f"ghost{number}") for number in range(first, end)}
    inside = Inside(lab.host_namespace("h1"))
    try:
        inside.do(lambda: asyncio.run(_attach_all(credentials, network, each)))
    finally:
        inside.close()


def _credential(client: Client, name: str) -> dict[str, Any]:
    client.post("/v1/hosts", {"name": name})
    credential: dict[str, Any] = client.post(f"/v1/hosts/{name}/credential").body
    return credential


async def _attach_all(credentials: dict[int, dict[str, Any]], network: str, each: int) -> None:
    async with asyncio.TaskGroup() as group:
        for number, credential in credentials.items():
            group.create_task(_ghost(number, credential, network, each))


async def _ghost(number: int, credential: dict[str, Any], network: str, each: int) -> None:
    """A host that attaches its share and reports what it is sent as applied."""
    url = next(url for url in credential["controllers"] if "[" not in url)
    trusted = verifying_context(credential["authority"])
    headers = {"Authorization": f"Bearer {credential['host']}:{credential['secret']}"}
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{url}/v1/stream", ssl=trusted, headers=headers, max_msg_size=0) as socket,
    ):
        hello = Hello(
            host=credential["host"],
            incarnation=f"ghost:{number}",
            vtep4=f"100.64.0.{200 + number}",
            mtu_bytes=1500,
            version="ghost",
        )
        await socket.send_bytes(encode_msgpack(hello))
        session, done, asked = 0, 0, 0
        received: collections.deque[bytes] = collections.deque()
        while done < each:
            if not received:
                received.extend(unpack_frame(await socket.receive_bytes()))
            message = down_decoder.msgpack(received.popleft())
            match message:
                case Welcome():
                    session = message.session
                case Sync(revision=revision):
                    await socket.send_bytes(encode_msgpack(Report(session=session, revision=revision)))
                case Attached():
                    done += 1
                case Failed(problem=problem):
                    raise RuntimeError(json.dumps(problem.facts) + problem.message)
                case _:
                    continue
            while session and asked < each and asked - done < WINDOW:
                asked += 1
                await socket.send_bytes(encode_msgpack(_request(session, asked, network)))


def _request(session: int, number: int, network: str) -> AttachRequest:
    return AttachRequest(
        session=session,
        request=number,
        client="bench",
        scope="",
        container=f"g{number}",
        ifname="eth0",
        sandbox=number,
        network=network,
    )
