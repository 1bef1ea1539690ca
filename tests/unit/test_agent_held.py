"""An agent that was started before it is known who its host is."""

from __future__ import annotations

import asyncio
import socket

import pytest

from plugin.agent.held import checked_start_fd, wait_told
from sdn.model.errors import HawseError


def pair() -> tuple[socket.socket, socket.socket]:
    """Who starts an agent, and the agent's end."""
    ours, theirs = socket.socketpair()
    checked = checked_start_fd(theirs.detach())
    assert checked is not None
    return ours, checked


async def test_it_says_that_it_is_able_and_begins_when_told():
    ours, theirs = pair()
    with ours:
        waiting = asyncio.create_task(wait_told(theirs, asyncio.Event()))
        ours.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(ours, 1) == b"1"
        assert not waiting.done()
        ours.send(b"1")
        assert await waiting


async def test_who_told_it_before_it_was_able_need_not_listen():
    ours, theirs = pair()
    ours.send(b"1")
    ours.close()
    assert await wait_told(theirs, asyncio.Event())


async def test_it_does_not_begin_for_nobody():
    ours, theirs = pair()
    ours.close()
    assert not await wait_told(theirs, asyncio.Event())


async def test_it_can_be_stopped_while_it_waits():
    ours, theirs = pair()
    stopping = asyncio.Event()
    with ours:
        waiting = asyncio.create_task(wait_told(theirs, stopping))
        stopping.set()
        assert not await waiting


async def test_one_that_is_not_held_begins_at_once():
    assert await wait_told(checked_start_fd(None), asyncio.Event())


def test_what_is_no_socket_is_refused():
    with pytest.raises(HawseError, match="not an open socket"):
        checked_start_fd(99)
