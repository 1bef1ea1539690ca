"""Who may call what over TCP: every route, with every sort of credential, and every way in which one can be wrong."""

from __future__ import annotations

import dataclasses
import itertools
import re

import pytest

from sdn.controller import plan_tokens, throttle
from sdn.controller.principal import Access, Principal, Role
from sdn.controller.route import all_routes
from sdn.model.ids import HostId, TenantId
from sdn.model.token import Token, TokenKind, parse_token, token_id
from tests.unit.remote_server import Remote

WATCHES = {
    "/healthz": Access.ANYONE,
    "/readyz": Access.TENANT,
    "/openapi.json": Access.TENANT,
    "/metrics": Access.ADMIN,
}
CALLERS = {
    "nobody": Principal("nobody"),
    "host": Principal("h", host=HostId("h")),
    "tenant": Principal("t", Role.TENANT, TenantId("t")),
    "admin": Principal("a", Role.ADMIN),
}
REFUSED = (401, 403)


async def words(tcp: Remote) -> dict[str, str]:
    await tcp.served.ask("POST", "/v1/tenants", {"name": "blue"})
    return {
        "nobody": "",
        "host": await tcp.host("h1"),
        "tenant": await tcp.user("tenant", tenant="blue"),
        "admin": await tcp.user(),
    }


def everything() -> list[tuple[str, str, Access]]:
    routes = [(route.method, route.path, route.access) for route in all_routes()]
    routes += [*(("GET", path, access) for path, access in WATCHES.items()), ("GET", "/v1/stream", Access.HOST)]
    return sorted(routes, key=lambda route: route[1] == "/v1/leave")  # afterwards the host's credential is nobody's


async def test_every_route_with_every_credential(tcp: Remote) -> None:
    """What is refused is refused before anything else is looked at; what is not gets to its own checks."""
    shown = await words(tcp)
    for (method, path, access), (caller, principal) in itertools.product(everything(), CALLERS.items()):
        asked = re.sub(r"{\w+}", "nothing", path)
        # A body that no route takes: whoever is let in learns that (or that nothing is there), and nothing changes.
        async with tcp.open(method, asked, {"no such field": 1}, shown[caller]) as answer:
            status, problem = answer.status, answer.headers.get("Content-Type", "")
        about = f"{caller}: {method} {path} gave {status}"
        if principal.may(access):
            assert status not in REFUSED or (access is Access.ANYONE and status == 401), about
            assert status < 500, about
        else:
            assert status == (401 if caller == "nobody" else 403), about
            assert problem == "application/problem+json", about


def test_who_may_what_is_said_for_each_route() -> None:
    """What nobody thought about is closed. A new route that is open belongs into this list, after some thought."""
    opened = {(route.method, route.path) for route in all_routes() if route.access is Access.ANYONE}
    assert opened <= {("GET", "/v1/identity"), ("POST", "/v1/join")}
    hosts = {(route.method, route.path) for route in all_routes() if route.access is Access.HOST}
    assert hosts <= {("POST", "/v1/leave")}
    resources = ("networks", "endpoints", "allocations", "tenants", "events", "status", "drops", "hosts", "why")
    for route in all_routes():
        if route.access is Access.TENANT:
            assert route.path.startswith(tuple(f"/v1/{resource}" for resource in resources)), route.path
            assert route.method == "GET" or not route.path.startswith(("/v1/hosts", "/v1/tenants")), route.path
    default = next(field for field in dataclasses.fields(type(all_routes()[0])) if field.name == "access").default
    assert default is Access.ADMIN


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer x", "Bearer x:y", "bearer hawse-user-x", "Bearer :", "Digest"],
)
async def test_what_is_no_credential(tcp: Remote, header: str) -> None:
    answer = (
        await tcp.ask("GET", "/v1/tenants", Authorization=header) if header else await tcp.ask("GET", "/v1/tenants")
    )
    assert (answer.status, answer.body["kind"]) == (401, "denied")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.body["detail"]
    assert answer.body["hint"]
    assert tcp.served.edge.metrics.authentication_failures == 1


async def refusal(tcp: Remote, word: str) -> str:
    answer = await tcp.ask("GET", "/v1/tenants", bearer=word)
    assert (answer.status, answer.body["kind"]) == (401, "denied"), answer.body
    assert word not in str(answer.body)
    return str(answer.body["detail"])


async def test_each_part_of_a_token_counts(tcp: Remote) -> None:
    word = await tcp.user(name="ann")
    assert (await tcp.ask("GET", "/v1/tenants", bearer=word)).status == 200
    token = parse_token(word, TokenKind.USER)
    secret = await refusal(tcp, str(token._replace(secret="00" * 16)))
    unknown = await refusal(tcp, str(token._replace(id=token_id(1))))
    assert secret == unknown == "this user token is not known here"
    other = await refusal(tcp, str(token._replace(fingerprint="ab" * 32)))
    assert "ab" * 32 in other
    assert tcp.served.edge.fingerprint in other
    assert "altered" in await refusal(tcp, word[:-1] + ("0" if word[-1] != "0" else "2"))
    assert "a join token, and a user token is wanted" in await refusal(tcp, str(token._replace(kind=TokenKind.JOIN)))
    assert "pasted in part" in await refusal(tcp, word[:-4])
    assert (await tcp.ask("GET", "/v1/tenants", bearer=word)).status == 200


async def test_another_clusters_token_names_both(tcp: Remote) -> None:
    foreign = Token(TokenKind.USER, "cd" * 32, token_id(77), "ef" * 16)
    told = await refusal(tcp, str(foreign))
    assert "another controller's" in told
    assert "cd" * 32 in told
    assert tcp.served.edge.fingerprint in told


async def test_a_genuine_token_says_why_it_is_refused(tcp: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    expired = await tcp.user(ttl_s=0.001)
    assert re.search(r"expired at 20\d\d-\d\d-\d\d .* UTC; here it is", await refusal(tcp, expired))
    revoked = await tcp.token(kind="user", role="admin", name="old")
    assert (await tcp.served.ask("DELETE", f"/v1/tokens/{revoked['id']}")).status == 204
    assert "was revoked at 20" in await refusal(tcp, revoked["word"])
    await tcp.served.ask("POST", "/v1/tenants", {"name": "blue"})
    orphan = await tcp.user("tenant", tenant="blue")
    assert (await tcp.served.ask("DELETE", "/v1/tenants/blue")).status == 204
    await tcp.served.ask("POST", "/v1/tenants", {"name": "blue"})  # another tenant of that name is none of its business
    assert "of a tenant that was removed" in await refusal(tcp, orphan)
    (line,) = [one for one in (await tcp.served.ask("GET", "/v1/tokens")).body["items"] if one["tenant"]]
    assert line["state"] == "tenant-removed"


async def test_the_wrong_credential_for_the_thing(tcp: Remote) -> None:
    shown = await words(tcp)
    host = await tcp.ask("GET", "/v1/networks", bearer=shown["host"])
    assert (host.status, "for users" in host.body["detail"]) == (403, True)
    stream = await tcp.ask("GET", "/v1/stream", bearer=shown["admin"])
    assert (stream.status, "for a host" in stream.body["detail"]) == (403, True)
    confined = await tcp.ask("POST", "/v1/tokens", {"kind": "user", "role": "admin"}, bearer=shown["tenant"])
    assert confined.status == 403
    assert "for administrators; this token is of tenant blue" in confined.body["detail"]
    swapped = shown["host"].partition(":")
    other = await tcp.host("h2")
    assert (await tcp.ask("GET", "/v1/stream", bearer=f"{other.partition(':')[0]}:{swapped[2]}")).status == 401


async def test_guesses_are_slowed_and_a_good_credential_is_not(tcp: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "FREE", 3.0)
    monkeypatch.setattr(throttle, "ANSWERED", 3.0)
    word = await tcp.user()
    wrong = str(parse_token(word, TokenKind.USER)._replace(secret="00" * 16))
    revoked = await tcp.token(kind="user", role="admin")
    await tcp.served.ask("DELETE", f"/v1/tokens/{revoked['id']}")
    for _ in range(6):  # genuine ones are no guesses, and nothing is nothing
        assert (await tcp.ask("GET", "/v1/tenants", bearer=revoked["word"])).status == 401
        assert (await tcp.ask("GET", "/v1/tenants")).status == 401
    statuses = [(await tcp.ask("GET", "/v1/tenants", bearer=wrong)).status for _ in range(5)]
    assert (statuses[0], statuses[-1]) == (401, 429)
    assert (await tcp.ask("GET", "/v1/tenants", bearer="x:y")).status == 429
    assert (await tcp.ask("GET", "/v1/tenants", bearer=word)).status == 200


async def test_the_actor_is_named_in_events(tcp: Remote) -> None:
    await tcp.ask("POST", "/v1/tenants", {"name": "red"}, await tcp.user(name="ann"))
    unnamed = await tcp.token(kind="user", role="admin")
    await tcp.ask("POST", "/v1/tenants", {"name": "green"}, unnamed["word"])
    text = (await tcp.served.ask("GET", "/v1/events?since=0&follow=0")).body.decode()
    assert '"actor":"token:ann"' in text
    assert f'"actor":"token:{unnamed["id"]}"' in text


def test_a_records_hash_is_of_the_whole_word() -> None:
    token = Token(TokenKind.USER, "ab" * 32, token_id(1), "cd" * 16)
    changed = (
        token._replace(kind=TokenKind.JOIN),
        token._replace(fingerprint="ac" * 32),
        token._replace(id=token_id(2)),
    )
    hashes = {plan_tokens.word_sha256(one) for one in (token, *changed, token._replace(secret="ce" * 16))}
    assert len(hashes) == 5
