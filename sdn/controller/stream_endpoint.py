"""A host's stream over WebSocket: bytes between the connection and the core's `HostStream`, nothing else."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import WSCloseCode, WSMsgType, web

from sdn.controller.edge import Edge
from sdn.controller.plan_hosts import name_of
from sdn.controller.problem import RefusedError
from sdn.controller.session import HostStream
from sdn.model.ids import HostId
from sdn.model.stream import FRAME_BYTES_MAX, FRAME_MESSAGES_MAX, pack_frame

MESSAGE_BYTES_MAX = 4 << 20
"""Of an agent; a report of a thousand failures has a tenth of it."""
HEARTBEAT_S = 10.0
"""A ping this often; a host that does not answer within half of it is gone."""
CONTROLS_MAX = 32
"""Pings and pongs of a host in the time of a heartbeat; an agent sends two. A flood of them would be all we do."""
TURN_MESSAGES = 32
"""Of one host that are handled before others get their turn: what has arrived already is read without waiting."""
CLOSE_TIMEOUT_S = 2.0
LOOP_TURNS_TO_REPLY = 2
"""From a commit to the replies that follow from it: waited out, they leave in the frame of their deltas."""


async def serve_stream(edge: Edge, request: web.Request, host: HostId) -> web.StreamResponse:
    """Carry the messages of an authenticated host both ways until either end closes. Raises: 426."""
    socket = web.WebSocketResponse(
        heartbeat=HEARTBEAT_S, max_msg_size=MESSAGE_BYTES_MAX, compress=False, timeout=CLOSE_TIMEOUT_S, autoping=False
    )
    if not socket.can_prepare(request).ok:
        raise RefusedError(426, "this is a WebSocket", "open it as one (RFC 6455)", headers={"Upgrade": "websocket"})
    stream = edge.core.connect(host)  # at once: what ends the credential from here on ends the stream
    name = name_of(edge.core.state, host)
    try:
        await socket.prepare(request)
        edge.log.info("stream opened", host=name, peer=str(request.remote))
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(_write(socket, stream))
            await _read(socket, stream)
            writer.cancel()
    except* ConnectionError:
        pass  # lost while writing: the reader's end says the same
    finally:
        stream.closed()
        edge.log.info("stream closed", host=name, code=socket.close_code)
        await socket.close()
    return socket


async def _write(socket: web.WebSocketResponse, stream: HostStream) -> None:
    """The only one who sends; a full send buffer holds it up here, and the core coalesces what waits."""
    while (message := await stream.outgoing()) is not None:
        frame, size = [message], len(message)
        for _ in range(LOOP_TURNS_TO_REPLY):
            await asyncio.sleep(0)
        while size < FRAME_BYTES_MAX and len(frame) < FRAME_MESSAGES_MAX and (message := stream.ready()) is not None:
            frame.append(message)
            size += len(message)
        await socket.send_bytes(pack_frame(frame))
    await socket.close()


async def _read(socket: web.WebSocketResponse, stream: HostStream) -> None:
    loop = asyncio.get_running_loop()
    turn, controls, since_s = 0, 0, loop.time()
    async for message in socket:
        turn += 1
        if turn % TURN_MESSAGES == 0:
            await asyncio.sleep(0)
        if message.type is WSMsgType.BINARY:
            await stream.receive(message.data)
            continue
        if message.type is WSMsgType.PING or message.type is WSMsgType.PONG:
            if loop.time() - since_s > HEARTBEAT_S:
                controls, since_s = 0, loop.time()
            controls += 1
            if controls <= CONTROLS_MAX:
                if message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                continue
            code, reason = WSCloseCode.POLICY_VIOLATION, b"too many pings"
        else:
            code, reason = WSCloseCode.UNSUPPORTED_DATA, b"binary messages only"
        with contextlib.suppress(ConnectionError):
            await socket.close(code=code, message=reason)
        return
