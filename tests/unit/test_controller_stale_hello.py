"""A hello that was long under way: the agent that said it is dead, and its successor has been welcomed."""

from __future__ import annotations

from sdn.model.codec import encode_msgpack
from sdn.model.stream import Hello, Refused, down_decoder
from tests.unit.controller_harness import Site


async def test_it_neither_ends_the_successors_session_nor_releases_what_was_attached_since() -> None:
    site = await Site().start()
    await site.network("web")
    agent = await site.agent("h1")
    old = site.core.connect(agent.host)  # the host restarts before this one's hello arrives
    await agent.hello(incarnation="boot:2")
    endpoint = await agent.attach("c1")
    session = agent.session
    await old.receive(encode_msgpack(Hello(host=agent.host, **agent.facts | {"incarnation": "boot:1"})))
    answer = down_decoder.msgpack(await old.outgoing() or b"")
    assert isinstance(answer, Refused)
    assert "newer connection" in answer.problem.message
    assert list(site.core.state.endpoints) == [endpoint.id]
    assert (await agent.attach("c2")).addresses != endpoint.addresses
    assert agent.session == session


async def test_nor_after_the_successor_has_gone() -> None:
    site = await Site().start()
    await site.network("web")
    agent = await site.agent("h1")
    old = site.core.connect(agent.host)
    await agent.hello(incarnation="boot:2")
    endpoint = await agent.attach("c1")
    agent.stream.closed()
    await old.receive(encode_msgpack(Hello(host=agent.host, **agent.facts | {"incarnation": "boot:1"})))
    assert list(site.core.state.endpoints) == [endpoint.id]
    await agent.hello(resume=True)
    assert agent.topics == agent.expected()
