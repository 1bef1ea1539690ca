"""What a token or a host's secret has opened ends with it, at once; and no secret is anywhere but with who has it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sdn.client.client import Client
from sdn.client.events import parse_events
from sdn.controller import plan_tokens
from sdn.controller.core import Core
from sdn.controller.options import Options
from sdn.controller.specs import JoinSpec, TokenSpec
from sdn.controller.state import State
from sdn.model.codec import encode_msgpack
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import HostId
from sdn.model.stream import Answer as Reply
from sdn.model.stream import Credentials, Hello, Refused, down_decoder, unpack_frame
from sdn.model.token import Token, TokenKind, parse_token, token_id
from sdn.store.sqlite import SqliteStore
from tests.unit.controller_harness import NOW_S
from tests.unit.remote_server import Remote
from tests.unit.rest_server import Agent, Served

LONG_S = 60.0
"""Longer than any test: what ends within it was ended."""


async def followed(response: aiohttp.ClientResponse) -> list[Any]:
    async with asyncio.timeout(LONG_S):
        return list(parse_events([await response.read()]))


async def revoke(tcp: Remote, made: dict[str, Any]) -> None:
    assert (await tcp.served.ask("DELETE", f"/v1/tokens/{made['id']}")).status == 204


async def remove_tenant(tcp: Remote, made: dict[str, Any]) -> None:
    assert (await tcp.served.ask("DELETE", f"/v1/tenants/{made['tenant']}")).status == 204


async def time_is_up(tcp: Remote, made: dict[str, Any]) -> None:
    """It ends by itself."""


@pytest.mark.parametrize("end", [revoke, remove_tenant, time_is_up])
async def test_followed_events_end_with_their_token(
    tcp: Remote, end: Callable[[Remote, dict[str, Any]], Awaitable[None]]
) -> None:
    await tcp.served.ask("POST", "/v1/tenants", {"name": "blue"})
    ttl_s = 0.5 if end is time_is_up else LONG_S
    made = await tcp.token(kind="user", role="tenant", tenant="blue", ttl_s=ttl_s)
    async with tcp.open("GET", "/v1/events", bearer=made["word"]) as response:
        assert response.status == 200
        await end(tcp, made)
        events = await followed(response)
    assert events[-1]["event"] == "problem"
    assert events[-1]["data"]["status"] == 401
    assert not tcp.served.edge.event_streams
    if end is not time_is_up:  # by this controller's clock it is not: that ticks with each look at it
        assert (await tcp.ask("GET", "/v1/events", bearer=made["word"])).status == 401


async def test_a_program_that_follows_events_is_told_why_they_end(tcp: Remote) -> None:
    made = await tcp.token(kind="user", role="admin")
    client = Client(f"https://{tcp.served.address}", authority=tcp.served.edge.authority, token=made["word"])
    events = await asyncio.to_thread(client.events, since=0)
    seen = [await asyncio.to_thread(next, events) for _ in range(2)]
    assert [event["event"] for event in seen] == ["tenant.created", "token.created"]
    await revoke(tcp, made)
    with pytest.raises(HawseError) as caught:
        await asyncio.to_thread(list, events)
    assert caught.value.kind is Kind.DENIED
    assert "revoked" in caught.value.message


async def test_a_wait_ends_with_its_token_and_others_go_on(tcp: Remote) -> None:
    host = (await tcp.served.ask("POST", "/v1/hosts", {"name": "h1"})).body["id"]
    await tcp.served.ask("POST", "/v1/networks", {"name": "web"})
    agent = await Agent.connect(tcp.served.core, host)
    attached = await agent.attach("web")
    made, other = await tcp.token(kind="user", role="admin"), await tcp.token(kind="user", role="admin")
    path = f"/v1/status?revision={attached.revision}&wait={LONG_S}"
    waiting = [asyncio.create_task(tcp.ask("GET", path, bearer=one["word"])) for one in (made, other)]
    requests = tcp.served.core.admission.requests
    async with asyncio.timeout(10):
        while len(requests) < 2:  # noqa: ASYNC110 the requests are on their way
            await asyncio.sleep(0.01)
    await revoke(tcp, made)
    answer = await asyncio.wait_for(waiting[0], LONG_S)
    assert (answer.status, answer.body["kind"]) == (401, "denied")
    assert not waiting[1].done()
    # a token ends itself, too: the request that does it gets its answer
    assert (await tcp.ask("DELETE", f"/v1/tokens/{other['id']}", bearer=other["word"])).status == 204
    assert (await asyncio.wait_for(waiting[1], LONG_S)).status == 401
    assert len(requests) == 0
    agent.close()


async def mint(tcp: Remote) -> None:
    assert (await tcp.served.ask("POST", "/v1/hosts/h1/credential")).status == 201


async def forget(tcp: Remote) -> None:
    assert (await tcp.served.ask("DELETE", "/v1/hosts/h1?force=1")).status == 204


@pytest.mark.parametrize("end", [mint, forget])
@pytest.mark.parametrize("greeted", [True, False], ids=["live", "before its hello"])
async def test_a_hosts_stream_ends_with_its_secret(
    tcp: Remote, end: Callable[[Remote], Awaitable[None]], greeted: bool
) -> None:
    bearer = await tcp.host("h1")
    url = f"https://{tcp.served.address}/v1/stream"
    async with tcp.session.ws_connect(url, headers={"Authorization": f"Bearer {bearer}"}) as socket:
        if greeted:
            host = bearer.partition(":")[0]
            await socket.send_bytes(encode_msgpack(Hello(host=HostId(host), incarnation="boot:1", mtu_bytes=1500)))
            await socket.receive_bytes(timeout=10)
        await end(tcp)
        async with asyncio.timeout(LONG_S):
            said = [down_decoder.msgpack(raw) async for frame in socket for raw in unpack_frame(frame.data)]
    assert isinstance(said[-1], Refused)
    assert (await tcp.ask("GET", "/v1/stream", bearer=bearer)).status == 401


async def test_a_rotation_ends_what_the_secret_before_has_opened(tcp: Remote) -> None:
    """Who has stolen it may have connected already, and waits with its hello."""
    core = tcp.served.core
    id_ = (await tcp.host("h1")).partition(":")[0]
    agent = await Agent.connect(core, id_)
    stolen = core.connect(HostId(id_))
    rotating = asyncio.create_task(core.custody.rotate("h1", "test"))
    sent = await agent.hear(Credentials)
    await agent.say(Reply(request=sent.request))
    await rotating
    await stolen.receive(encode_msgpack(Hello(host=HostId(id_), incarnation="boot:thief", mtu_bytes=1500)))
    said = await stolen.outgoing()
    assert said is not None
    assert isinstance(down_decoder.msgpack(said), Refused)
    assert await stolen.outgoing() is None
    assert core.state.hosts[HostId(id_)].incarnation == f"boot:{id_}"
    assert core.status().hosts[0].connected
    agent.close()


# --- records ---


def state_with(*records: Any) -> State:
    state = State()
    state.tokens = {record.id: record for record in records}
    return state


def record(number: int, **more: Any) -> Any:
    spec = TokenSpec(kind=TokenKind.JOIN)
    token = Token(TokenKind.JOIN, "ab" * 32, token_id(number), f"{number:032x}")
    plan = plan_tokens.create_token(State(), spec, token, NOW_S, "test")
    return type(plan.result)(**{name: getattr(plan.result, name) for name in plan.result.__struct_fields__} | more)


def test_old_records_are_purged_some_at_a_time() -> None:
    dead = [record(number, used_s=NOW_S, used_by="h") for number in range(100)]
    state = state_with(*dead, record(200), record(201, revoked_s=NOW_S + plan_tokens.KEPT_S))
    token = Token(TokenKind.JOIN, "ab" * 32, token_id(999), "cd" * 16)
    soon = plan_tokens.create_token(state, TokenSpec(), token, NOW_S + 1, "test")
    assert soon.transaction is not None
    assert [write.key for write in soon.transaction.writes] == [f"token/{token.id}"], "who tries is still told why"
    later = plan_tokens.create_token(state, TokenSpec(), token, NOW_S + plan_tokens.KEPT_S + 1, "test")
    assert later.transaction is not None
    gone = {write.key for write in later.transaction.writes} - {f"token/{token.id}"}
    assert len(gone) == plan_tokens.PURGE_MAX
    assert gone <= {f"token/{one.id}" for one in dead}


async def test_a_name_is_one_tokens(tcp: Remote) -> None:
    made = await tcp.token(kind="user", role="admin", name="ann")
    taken = await tcp.served.ask("POST", "/v1/tokens", {"name": "ann"})
    assert (taken.status, made["id"] in taken.body["detail"]) == (409, True)
    await revoke(tcp, made)
    again = await tcp.token(kind="user", role="admin", name="ann")
    assert (await tcp.served.ask("GET", "/v1/tokens/ann")).body["id"] == again["id"]
    assert (await tcp.ask("GET", "/v1/tenants", bearer=again["word"])).status == 200


@pytest.mark.parametrize(
    "spec",
    [
        {"role": "admin"},
        {"tenant": "default"},
        {"kind": "user"},
        {"kind": "user", "role": "tenant"},
        {"kind": "user", "role": "admin", "tenant": "default"},
        {"kind": "user", "role": "root"},
        {"kind": "root"},
        {"ttl_s": 0},
        {"ttl_s": -1},
        {"ttl_s": 1e12},
        {"kind": "user", "role": "admin", "ttl_s": -1},
        {"name": "a b"},
        {"nmae": "x"},
    ],
    ids=str,
)
async def test_tokens_that_cannot_be(served: Served, spec: dict[str, Any]) -> None:
    answer = await served.ask("POST", "/v1/tokens", spec)
    assert (answer.status, answer.body["kind"]) == (400, "invalid")
    assert answer.body["hint"]


async def test_a_time_that_is_too_long_is_told_as_people_say_it(served: Served) -> None:
    answer = await served.ask("POST", "/v1/tokens", {"ttl_s": 99 * 86400})
    assert (answer.body["detail"], answer.body["hint"]) == (
        "a join token cannot be usable for 99 days",
        "more than 0 s, and 30 days at most",
    )


# --- where secrets are not ---


def secrets_of(*words: str) -> list[str]:
    """Every text by which a secret could be told."""
    found: list[str] = []
    for word in words:
        if word.startswith("hawse-"):
            kind = TokenKind(word.split("-")[1])
            found += [word, word[-40:], parse_token(word, kind).secret]
        else:
            found += [word, word.partition(":")[2]]
    return [one for one in found if one]


async def test_no_secret_is_told_anywhere(tcp: Remote, capsys: pytest.CaptureFixture[str]) -> None:
    served = tcp.served
    made, user, host = await tcp.token(), await tcp.user(name="ann"), await tcp.host("h9")
    joined = (await tcp.ask("POST", "/v1/join", {"token": made["word"], "name": "h1"})).body
    secrets = secrets_of(made["word"], user, host, f"{joined['host']}:{joined['secret']}")
    answers = [await tcp.ask("POST", "/v1/join", {"token": made["word"], "name": "h2"})]
    answers += [await tcp.ask("POST", "/v1/join", {"token": made["word"][:-1], "name": "h2"})]
    answers += [await tcp.ask("POST", "/v1/join", {"token": user, "name": "h2"})]
    answers += [await tcp.ask("GET", "/v1/tenants", bearer=word) for word in (user, user[:-2], host, made["word"])]
    answers += [await tcp.ask("GET", "/v1/stream", bearer=word) for word in (user, host, host[:-2])]
    for word in (made["word"], user, host):  # where it does not belong, it is not repeated
        answers += [await served.ask(*asked) for asked in (("DELETE", f"/v1/tokens/{word}"), ("GET", f"/{word}"))]
        answers += [
            await served.ask("GET", f"/v1/networks?tenant={word}"),
            await served.ask("GET", f"/v1/hosts?{word}=1"),
        ]
        answers += [await tcp.ask("POST", "/v1/join", {"token": made["word"][:-1], "name": word})]
    await served.ask("DELETE", "/v1/tokens/ann")
    answers += [await tcp.ask("GET", "/v1/tenants", bearer=user)]
    for path in ("/v1/tokens", "/v1/hosts", "/v1/events?since=0&follow=0", "/metrics", "/openapi.json", "/v1/status"):
        answers.append(await served.ask("GET", path))
    await asyncio.sleep(0.01)  # the audit's lines come a millisecond after
    out, err = capsys.readouterr()
    assert "token.revoked" in out
    for place in (*(f"{answer.headers} {answer.body}" for answer in answers), str(served.log.lines), out, err):
        for secret in secrets:
            assert secret not in place, place


async def test_the_store_has_hashes_alone(tmp_path: Path) -> None:
    path = tmp_path / "controller.db"
    store = await SqliteStore.open(path)
    chance = iter(range(1, 10_000))
    core = await Core.start(
        store,
        clock=time.time,
        random_bits=lambda bits: (0x1234567890ABCDEF1234567890ABCDEF * next(chance)) % (1 << bits),
        options=Options(),
    )
    joining, _, _ = await core.admission.create_token(TokenSpec(name="one"), "ab" * 32, "test")
    _, secret, _ = await core.admission.join(JoinSpec(token=str(joining), name="h1"), "ab" * 32)
    minted = await core.mint_credential("h1", "test")
    await core.close()
    await store.close()
    whole = await asyncio.to_thread(lambda: b"".join(file.read_bytes() for file in tmp_path.iterdir()))
    assert b"h1" in whole
    assert plan_tokens.word_sha256(joining) in whole
    for text in (str(joining), str(joining)[-40:], joining.secret, secret, minted):
        assert text.encode() not in whole
    for text in (joining.secret, secret, minted):
        assert bytes.fromhex(text) not in whole
    with sqlite3.connect(path) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
