"""The attach contract from a client's side: an asyncio client, and a container's interfaces all or none."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from runtime.daemon.records import Attachment
from sdn.model.codec import Decoder, encode_json
from sdn.model.container import ContainerSpec, Interface, NetworkWish
from sdn.model.contract import AddRequest, AddResult, DelRequest, GcRequest, Request
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.model.ids import is_id
from sdn.service.framing import LENGTH, MESSAGE_BYTES_MAX, frame

CLIENT = "runtime"
ANSWER_S = 15.0
"""The agent's own bound for an ADD is 10 s."""
DEFAULT_TENANT = "default"

_added: Decoder[AddResult] = Decoder(AddResult, "an ADD's result")


class Agent:
    """The agent of this root. Every request has a connection of its own: they are served side by side."""

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)

    async def add(self, request: AddRequest, namespace_fd: int) -> AddResult:
        """Raises: HawseError, the agent's; UNAVAILABLE (it does not run)."""
        return _added.json(json.dumps(await self._ask(request, namespace_fd)))

    async def delete(self, container: str, ifname: str) -> None:
        """Detach; absent is fine. Raises: UNAVAILABLE."""
        await self._ask(DelRequest(client=CLIENT, container=container, ifname=ifname))

    async def collect(self, valid: Sequence[tuple[str, str]]) -> None:
        """Release every attachment of the runtime's but these (container, ifname). Raises: UNAVAILABLE."""
        await self._ask(GcRequest(client=CLIENT, valid=tuple(valid)))

    async def _ask(self, request: Request, descriptor: int | None = None) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            async with asyncio.timeout(ANSWER_S):
                try:
                    await loop.sock_connect(connection, self._path)
                except OSError as error:
                    raise unavailable(
                        f"the agent is not running: nobody listens on {self._path} ({error.strerror or error})",
                        "start it with 'hawse up -d'",
                        socket=self._path,
                    ) from None
                data = frame(encode_json(request))
                rights = [] if descriptor is None else [_rights(descriptor)]
                sent = connection.sendmsg([data], rights)  # the buffer of a new socket takes it
                await loop.sock_sendall(connection, data[sent:])
                return await _receive(loop, connection)
        except TimeoutError:
            raise unavailable(f"the agent did not answer within {ANSWER_S:g} s", "look at its log") from None
        except (OSError, ValueError) as error:
            raise unavailable(f"the conversation with the agent broke: {error}", "look at its log") from None
        finally:
            connection.close()


def _rights(descriptor: int) -> tuple[int, int, array.array[int]]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor])


async def _receive(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> dict[str, Any]:
    data = bytearray()
    wanted = LENGTH.size
    while len(data) < wanted:
        part = await loop.sock_recv(connection, MESSAGE_BYTES_MAX)
        if not part:
            raise ConnectionResetError("it was closed")
        data += part
        if wanted == LENGTH.size and len(data) >= wanted:
            wanted += LENGTH.unpack_from(data)[0]
    reply = json.loads(data[LENGTH.size : wanted])
    if "error" not in reply:
        return dict(reply["result"])
    error = reply["error"]
    raise HawseError(
        Kind(error.get("kind", "internal")),
        str(error.get("msg", "")),
        hint=str(error.get("details", "")),
        facts=error.get("facts") or {},
    )


def planned(spec: ContainerSpec, names: Sequence[str]) -> tuple[Attachment, ...]:
    """What will be asked for: recorded before it is."""
    return tuple(Attachment(network=w.network, ifname=n) for w, n in zip(spec.networks, names, strict=True))


def requests_of(spec: ContainerSpec, container: str, name: str, names: Sequence[str]) -> list[AddRequest]:
    """One ADD for each network; the first one of each tenant carries the container's name."""
    tenants: set[str] = set()
    requests = []
    for wish, ifname in zip(spec.networks, names, strict=True):
        tenant = tenant_of(wish)
        requests.append(
            AddRequest(
                client=CLIENT,
                container=container,
                ifname=ifname,
                network=wish.network,
                addresses=wish.addresses,
                mac=wish.mac,
                name="" if tenant in tenants else name,
                aliases=wish.aliases,
                labels=spec.labels,
            )
        )
        tenants.add(tenant)
    return requests


def tenant_of(wish: NetworkWish) -> str:
    """As the reference says; of a network by id nobody here knows, so it is one of its own."""
    tenant, slash, _ = wish.network.rpartition("/")
    return tenant if slash else (wish.network if is_id(wish.network) else DEFAULT_TENANT)


async def attach(agent: Agent, requests: Sequence[AddRequest], namespace_fd: int) -> tuple[Interface, ...]:
    """One after the other: where subnets overlap, the kernel takes the route that came first, and so does the user.

    Raises: HawseError that names the network; then none of them is under way any more.
    """
    return tuple([await _add(agent, request, namespace_fd) for request in requests])


async def _add(agent: Agent, request: AddRequest, namespace_fd: int) -> Interface:
    try:
        result = await _add_named(agent, request, namespace_fd)
    except HawseError as error:
        raise HawseError(
            error.kind,
            f"cannot attach {request.ifname} to network {request.network}: {error.message}",
            hint=error.hint,
            facts={**error.facts, "network": request.network, "ifname": request.ifname},
        ) from None
    return Interface(
        network=request.network,
        ifname=result.ifname,
        endpoint=result.endpoint,
        mac=result.mac,
        addresses=result.addresses,
        gateways=result.gateways,
    )


async def _add_named(agent: Agent, request: AddRequest, namespace_fd: int) -> AddResult:
    """With the container's name where it is free in the tenant, else without one."""
    try:
        return await agent.add(request, namespace_fd)
    except HawseError as error:
        if error.kind is not Kind.CONFLICT or not request.name:
            raise
    return await agent.add(msgspec.structs.replace(request, name=""), namespace_fd)


async def detach(agent: Agent, container: str, attachments: Sequence[Attachment]) -> HawseError | None:
    """Give all back, side by side. Returns why not all could be."""
    results = await asyncio.gather(
        *(agent.delete(container, attachment.ifname) for attachment in attachments), return_exceptions=True
    )
    problem: HawseError | None = None
    for result in results:
        if isinstance(result, HawseError):
            problem = result
        elif isinstance(result, BaseException):
            raise result
    return problem
