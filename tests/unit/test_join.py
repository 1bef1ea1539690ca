"""A machine becomes a host by a token, once; leaves; and comes back as another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sdn.controller import call
from sdn.controller.specs import JoinSpec, TenantSpec, TokenSpec
from sdn.model.codec import encode_msgpack
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import EndpointId, HostId
from sdn.model.stream import (
    Answer,
    Delta,
    Detached,
    DetachRequest,
    Failed,
    Hello,
    Refused,
    Report,
    Sync,
    Welcome,
    down_decoder,
    unpack_frame,
)
from sdn.model.token import TokenKind, parse_token, token_id
from tests.unit.controller_harness import refused
from tests.unit.remote_server import Remote
from tests.unit.rest_server import Agent
from tests.unit.test_controller_laws import two_controllers

FINGERPRINT = "ab" * 32


async def join(tcp: Remote, word: str, name: str = "h1", **more: Any) -> Any:
    return await tcp.ask("POST", "/v1/join", {"token": word, "name": name, **more})


async def test_a_token_makes_a_host(tcp: Remote) -> None:
    made = await tcp.token(name="for-h1")
    joined = await join(tcp, made["word"], labels={"rack": "1"}, vtep4="192.0.2.1", version="1.2")
    assert joined.status == 201
    given = joined.body
    assert given["name"] == "h1"
    assert (given["fingerprint"], given["authority"]) == (tcp.served.edge.fingerprint, tcp.served.edge.authority)
    assert given["controllers"] == list(tcp.served.edge.controllers)
    shown = (await tcp.served.ask("GET", "/v1/hosts/h1")).body
    assert (shown["id"], shown["vtep4"], shown["labels"]) == (given["host"], "192.0.2.1", {"rack": "1"})
    assert (await tcp.ask("GET", "/v1/stream", bearer=f"{given['host']}:{given['secret']}")).status == 426
    token = (await tcp.served.ask("GET", "/v1/tokens/for-h1")).body
    assert (token["state"], token["used_by"]) == ("used", "h1")
    again = await join(tcp, made["word"], "h2")
    assert again.status == 401
    assert "was used by host h1 at 20" in again.body["detail"]
    text = (await tcp.served.ask("GET", "/v1/events?since=0&follow=0")).body.decode()
    assert "event: token.used" in text
    assert '"actor":"token:for-h1"' in text


async def test_a_wrong_token_joins_nothing(tcp: Remote) -> None:
    word = (await tcp.token())["word"]
    token = parse_token(word, TokenKind.JOIN)
    altered = (token._replace(secret="00" * 16), token._replace(id=token_id(1)), token._replace(fingerprint="cd" * 32))
    for one in altered:
        answer = await join(tcp, str(one))
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    for text in (word[:-1] + ("0" if word[-1] != "0" else "2"), word[:-7], await tcp.user(), "", "x"):
        answer = await join(tcp, text)
        assert (answer.status, answer.body["kind"]) == (400, "invalid")
    expired = await join(tcp, (await tcp.token(ttl_s=0.001))["word"])
    assert (expired.status, "expired at" in expired.body["detail"]) == (401, True)
    revoked = await tcp.token()
    await tcp.served.ask("DELETE", f"/v1/tokens/{revoked['id']}")
    assert "was revoked at" in (await join(tcp, revoked["word"])).body["detail"]
    assert tcp.served.core.state.hosts == {}
    assert (await join(tcp, word)).status == 201, "nothing of that has used it up"


@pytest.mark.parametrize("declared", [True, False])
async def test_a_stranger_can_send_little(tcp: Remote, declared: bool) -> None:
    raw = b'{"token": "' + b"x" * call.STRANGER_BODY_BYTES_MAX + b'"}'

    async def parts() -> AsyncIterator[bytes]:
        yield raw

    url, headers = f"https://{tcp.served.address}/v1/join", {"Content-Type": "application/json"}
    async with tcp.session.post(url, data=raw if declared else parts(), headers=headers) as response:
        problem = await response.json(content_type=None)
    assert (problem["status"], problem["facts"]["limit"]) == (413, call.STRANGER_BODY_BYTES_MAX)


async def test_a_name_or_vtep_that_is_anothers(tcp: Remote) -> None:
    await join(tcp, (await tcp.token())["word"], vtep4="192.0.2.1", vtep6="2001:db8::1")
    word = (await tcp.token())["word"]
    name = await join(tcp, word, vtep4="192.0.2.2")
    assert name.status == 409
    assert "joins as h1 (192.0.2.2) finds h1 (192.0.2.1, 2001:db8::1)" in name.body["detail"]
    for vteps in ({"vtep4": "192.0.2.1"}, {"vtep6": "2001:db8:0::1"}):
        vtep = await join(tcp, word, "h2", **vteps)
        assert (vtep.status, vtep.body["facts"]["hosts"]) == (409, ["h2", "h1"])
    wrongs: tuple[dict[str, Any], ...]
    wrongs = ({"vtep4": "2001:db8::1"}, {"vtep6": "x"}, {"name": "a b"}, {"labels": {"": "x"}}, {"version": "\n"})
    for wrong in wrongs:
        assert (await join(tcp, word, **{"name": "h2", **wrong})).status == 400
    assert (await join(tcp, word, "h2", vtep4="192.0.2.2")).status == 201


async def test_of_many_with_one_token_one_wins(tcp: Remote) -> None:
    word = (await tcp.token())["word"]
    answers = await asyncio.gather(*(join(tcp, word, f"h{number}") for number in range(8)))
    assert sorted(answer.status for answer in answers) == [201, *[401] * 7]
    assert len(tcp.served.core.state.hosts) == 1


async def test_of_two_controllers_with_one_token_one_wins() -> None:
    one, rival, other = await two_controllers()
    token, _, _ = await one.core.admission.create_token(TokenSpec(), FINGERPRINT, "test")
    await other.core.create_tenant(TenantSpec(name="red"), "test")  # now the other one has read of the token
    rival.rival = lambda: one.core.admission.join(JoinSpec(token=str(token), name="h8"), FINGERPRINT)
    error = await refused(Kind.DENIED, other.core.admission.join(JoinSpec(token=str(token), name="h9"), FINGERPRINT))
    assert "was used by host h8" in error.message
    assert "h9" not in other.core.state.names.hosts


# --- leaving, and coming back ---


async def socket_of(tcp: Remote, given: dict[str, Any], vtep4: str = "192.0.2.1") -> Any:
    socket = await tcp.session.ws_connect(
        f"https://{tcp.served.address}/v1/stream",
        headers={"Authorization": f"Bearer {given['host']}:{given['secret']}"},
    )
    hello = Hello(host=given["host"], incarnation="boot:1", mtu_bytes=1500, vtep4=vtep4)
    await socket.send_bytes(encode_msgpack(hello))
    messages: list[Any] = []
    while not any(isinstance(message, Sync) for message in messages):
        messages += [down_decoder.msgpack(raw) for raw in unpack_frame(await socket.receive_bytes(timeout=10))]
    assert isinstance(messages[0], Welcome)
    return socket


async def last_words(socket: Any) -> list[Any]:
    """What still comes on a stream until it is closed."""
    async with asyncio.timeout(10):
        return [down_decoder.msgpack(raw) async for message in socket for raw in unpack_frame(message.data)]


async def test_a_host_leaves_by_itself(tcp: Remote) -> None:
    given = (await join(tcp, (await tcp.token())["word"])).body
    bearer = f"{given['host']}:{given['secret']}"
    socket = await socket_of(tcp, given)
    answer = await tcp.ask("POST", "/v1/leave", bearer=bearer)
    assert (answer.status, int(answer.headers["hawse-revision"]) > 0) == (204, True)
    (refused,) = await last_words(socket)
    assert isinstance(refused, Refused)
    assert "forgotten" in refused.problem.message
    assert tcp.served.core.state.hosts == {}
    assert (await tcp.ask("POST", "/v1/leave", bearer=bearer)).status == 401
    assert [key for key in tcp.served.core.state.credentials if key == given["host"]] == []


async def test_who_comes_back_is_another_host(tcp: Remote) -> None:
    core = tcp.served.core
    await tcp.served.ask("POST", "/v1/networks", {"name": "web"})
    old = (await join(tcp, (await tcp.token())["word"])).body
    before = await Agent.connect(core, old["host"])
    left = (await before.attach("web", "c1")).endpoint
    late = core.connect(HostId(old["host"]))  # a connection that was under way
    assert (await tcp.ask("POST", "/v1/leave", bearer=f"{old['host']}:{old['secret']}")).status == 204
    assert core.state.endpoints == {}
    new = (await join(tcp, (await tcp.token())["word"])).body
    assert new["host"] != old["host"]
    agent = await Agent.connect(core, new["host"])
    kept = (await agent.attach("web", "c1")).endpoint
    assert kept.id != left.id
    revision = core.revision
    detach = DetachRequest(session=before.session, request=9, endpoints=(EndpointId(kept.id), EndpointId(left.id)))
    for message in (detach, Report(session=before.session, revision=revision, failures={})):
        await before.say(message)
    await late.receive(encode_msgpack(Hello(host=HostId(old["host"]), incarnation="boot:old", mtu_bytes=1500)))
    assert (core.revision, list(core.state.endpoints)) == (revision, [kept.id])
    assert core.status().hosts[0].applied_revision == 0
    with pytest.raises(HawseError) as caught:
        core.custody.authenticate(HostId(old["host"]), old["secret"])
    assert caught.value.kind is Kind.DENIED
    await agent.say(DetachRequest(session=agent.session, request=10, endpoints=(EndpointId(left.id),)))
    await agent.hear(Detached)
    assert list(core.state.endpoints) == [kept.id], "a late release of what was before is of nothing"
    agent.close()


async def test_a_host_speaks_for_itself_alone(tcp: Remote) -> None:
    core = tcp.served.core
    await tcp.served.ask("POST", "/v1/networks", {"name": "web"})
    ids = [(await join(tcp, (await tcp.token())["word"], "a")).body["host"]]
    ids.append((await join(tcp, (await tcp.token())["word"], "b", vtep4="192.0.2.2")).body["host"])
    early = core.connect(HostId(ids[0]))
    early_hello = Hello(host=HostId(ids[0]), incarnation="boot:x", mtu_bytes=1500, vtep4="192.0.2.2")
    await early.receive(encode_msgpack(early_hello))
    message = down_decoder.msgpack(await early.outgoing() or b"")
    assert isinstance(message, Refused), "b has it from its join on, not from its first hello on"
    assert "which is the VTEP of host b" in message.problem.message
    victim = await Agent.connect(core, ids[1], vtep4="192.0.2.2")
    theirs = (await victim.attach("web", "c1")).endpoint

    async def refusal(stream: Any) -> str:
        message = down_decoder.msgpack(await stream.outgoing())
        assert isinstance(message, Refused), message
        return message.problem.message

    impostor = core.connect(HostId(ids[0]))
    await impostor.receive(encode_msgpack(Hello(host=HostId(ids[1]), incarnation="boot:x", mtu_bytes=1500)))
    assert "the credential is of host" in await refusal(impostor)
    claim = core.connect(HostId(ids[0]))
    hello = Hello(host=HostId(ids[0]), incarnation="boot:x", mtu_bytes=1500, vtep4="192.0.2.2")
    await claim.receive(encode_msgpack(hello))
    assert "host a says that its VTEP is 192.0.2.2, which is the VTEP of host b" in await refusal(claim)

    agent = await Agent.connect(core, ids[0], vtep4="192.0.2.1")
    await agent.say(DetachRequest(session=agent.session, request=1, endpoints=(EndpointId(theirs.id),)))
    await agent.hear(Detached)
    assert list(core.state.endpoints) == [theirs.id]
    await agent.say(Report(session=victim.session + 5, revision=1, failures={}))
    assert core.state.hosts[HostId(ids[0])].session == agent.session
    victim.close()  # away, and its endpoints are where they were: its VTEP is still its own
    away = core.connect(HostId(ids[0]))
    await away.receive(encode_msgpack(hello))
    assert "which is the VTEP of host b" in await refusal(away)


async def test_a_host_reads_its_own_topics_alone(tcp: Remote) -> None:
    """Whatever it says that it has already."""
    core = tcp.served.core
    await tcp.served.ask("POST", "/v1/networks", {"name": "web"})
    own, other = [(await join(tcp, (await tcp.token())["word"], name)).body["host"] for name in ("a", "b")]
    victim = await Agent.connect(core, other, vtep4="192.0.2.2")
    endpoint = (await victim.attach("web", "c1")).endpoint
    foreign = {f"network/{endpoint.network}", f"tenant/{endpoint.tenant}", f"host/{other}", "", "network/../x"}
    for revision in (0, 1, core.revision, 1 << 62):
        stream = core.connect(HostId(own))
        claimed = dict.fromkeys([*foreign, f"host/{own}"], revision)
        hello = Hello(host=HostId(own), incarnation="boot:x", mtu_bytes=1500, vtep4="192.0.2.1", topics=claimed)
        await stream.receive(encode_msgpack(hello))
        said: list[Any] = []
        while not said or not isinstance(said[-1], Sync):
            said.append(down_decoder.msgpack(await stream.outgoing() or b""))
        assert {message.topic for message in said if isinstance(message, Delta)} <= {f"host/{own}"}
        session = core.state.hosts[HostId(own)].session
        for number, message in enumerate((
            Answer(request=1, value="what nobody asked"),
            DetachRequest(session=session, request=1, endpoints=(EndpointId(endpoint.id),)),
            Report(session=session, revision=1 << 62, failures={f"endpoint/{endpoint.id}": "no"}),
        )):  # fmt: skip
            await stream.receive(encode_msgpack(message))
            assert core.state.endpoints[EndpointId(endpoint.id)].host == other, number
        states = {state.id: state for state in core.status().hosts}
        assert (states[HostId(other)].failures, states[HostId(own)].applied_revision) == ({}, core.revision)
        await stream.receive(encode_msgpack(Report(session=victim.session + 100, revision=1)))
        last: Any = None
        while (raw := await stream.outgoing()) is not None:
            last = down_decoder.msgpack(raw)
        assert isinstance(last, Refused), "a session of another stream ends this one"
    assert core.status().hosts[1].connected
    victim.close()


async def test_a_drained_host_keeps_what_it_has(tcp: Remote) -> None:
    core = tcp.served.core
    await tcp.served.ask("POST", "/v1/networks", {"name": "web"})
    host = (await join(tcp, (await tcp.token())["word"])).body["host"]
    agent = await Agent.connect(core, host)
    endpoint = (await agent.attach("web", "c1")).endpoint
    drained = await tcp.ask("PUT", "/v1/hosts/h1/drain", bearer=await tcp.user(name="ann"))
    assert (drained.status, drained.body["drained_by"]) == (200, "token:ann")
    assert (await tcp.served.ask("PUT", "/v1/hosts/h1/drain")).body["drained_by"] == "token:ann", "it is so already"
    refused = await agent.attach("web", "c2")
    assert isinstance(refused, Failed)
    assert refused.problem.kind == "conflict"
    assert "takes no further attachments: token:ann drains it" in refused.problem.message
    assert "hawse host drain h1 --undo" in refused.problem.hint
    assert (await agent.attach("web", "c1")).endpoint.id == endpoint.id, "what is there is answered with itself"
    agent.close()
    again = await Agent.connect(core, host)
    assert core.state.hosts[HostId(host)].drained_by, "a hello ends nothing of it"
    await again.say(DetachRequest(session=again.session, request=5, endpoints=(endpoint.id,)))
    await again.hear(Detached)
    assert core.state.endpoints == {}
    assert (await tcp.served.ask("DELETE", "/v1/hosts/h1/drain")).body["drained_by"] == ""
    assert (await again.attach("web", "c2")).endpoint.container == "c2"
    again.close()
