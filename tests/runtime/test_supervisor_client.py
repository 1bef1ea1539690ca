"""The daemon's client: on a loop, with answers, descriptors and events, through the supervisor's death."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from runtime.supervisor_answers import SupervisorError
from runtime.supervisor_client import SupervisorClient
from sdn.model.errors import HawseError, Kind
from tests.runtime.supervised import Supervised, process_of, supervised

__all__ = ["supervised"]
pytestmark = pytest.mark.root


async def note_processes(supervised: Supervised, client: SupervisorClient) -> int:
    status = await client.status()
    supervised.processes |= {status["pid"], status["keeper"]}
    return int(status["pid"])


async def test_a_container_from_launch_to_forget(supervised: Supervised):
    async with SupervisorClient(supervised.root) as client:
        await note_processes(supervised, client)
        plan = supervised.plan("c1", "read line; echo $line; exit 3", stdin=True)
        launched = await client.launch(plan)
        assert launched.pid == 0
        network = os.fstat(launched.netns).st_ino
        os.close(launched.netns)
        launched = await client.go("c1")
        assert os.stat(f"/proc/{launched.pid}/ns/net").st_ino == network
        executed = await client.execute("c1", "e1", process_of(plan, ["sh", "-c", "exit 4"], stdin=False))
        followed = await client.follow("c1")
        stdin = await client.input("c1", keep=False)
        await client.freeze("c1", on=True)
        assert [(each.id, each.state) for each in await client.list()] == [("c1", "frozen")]
        await client.freeze("c1", on=False)
        os.write(stdin, b"it\n")
        ends = {}
        async for event in client.events():
            ends[event.what] = event.facts["code"]
            if len(ends) == 2:
                break
        assert ends == {"exited": 3, "executed": 4}
        assert await client.execution("e1") == 4
        assert os.pread(followed.log, 10, 0) == b"it\n"
        for fd in (*executed.descriptors, *followed, stdin):
            assert not os.get_inheritable(fd)
            os.close(fd)
        assert await client.usage(("c1",)) == {}
        await client.forget("c1")
        assert await client.list() == []


async def test_errors_are_sentences_with_a_stage(supervised: Supervised):
    async with SupervisorClient(supervised.root) as client:
        await note_processes(supervised, client)
        with pytest.raises(SupervisorError) as error:
            await client.launch(supervised.plan("c1", ["no-such-command"]), go=True)
        assert (error.value.stage, error.value.kind) == ("command-not-found", Kind.INVALID)
        with pytest.raises(SupervisorError) as error:
            await client.signal("nobody", 9)
        assert error.value.kind is Kind.NOT_FOUND


async def test_many_requests_at_once(supervised: Supervised):
    async with SupervisorClient(supervised.root) as client:
        await note_processes(supervised, client)
        names = [f"c{number}" for number in range(20)]
        await asyncio.gather(*(client.launch(supervised.plan(name, "exit 1"), go=True) for name in names))
        missing = set(names)
        async for event in client.events():
            missing.discard(event.id)
            if not missing:
                break


async def test_it_comes_back_after_a_kill_and_misses_no_exit(supervised: Supervised):
    back = asyncio.Event()
    async with SupervisorClient(supervised.root, reconnected=back.set) as client:
        supervisor = await note_processes(supervised, client)
        await client.launch(supervised.plan("c1", "read line; exit 6", stdin=True), go=True)
        stdin = await client.input("c1", keep=False)
        os.kill(supervisor, signal.SIGKILL)
        os.close(stdin)
        async with asyncio.timeout(20):
            event = await anext(client.events())
            await back.wait()
        assert (event.what, event.id, event.facts["code"]) == ("exited", "c1", 6)
        assert await note_processes(supervised, client) != supervisor


async def test_what_was_asked_when_it_died_fails_at_once(supervised: Supervised):
    async with SupervisorClient(supervised.root) as client:
        supervisor = await note_processes(supervised, client)
        os.kill(supervisor, signal.SIGSTOP)
        asked = asyncio.create_task(client.list())
        await asyncio.sleep(0)  # it is sent
        os.kill(supervisor, signal.SIGKILL)
        with pytest.raises(HawseError) as error:
            async with asyncio.timeout(20):
                await asked
        assert error.value.kind is Kind.UNAVAILABLE
        assert await client.list() == []
        await note_processes(supervised, client)
