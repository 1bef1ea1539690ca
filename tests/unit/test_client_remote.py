"""The client over TLS: whom it trusts, what it shows to whom, and what it says of who is no controller."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdn.client.client import Client
from sdn.client.trust import controller_url, fetch_authority
from sdn.controller.authority import SERVER_VALID_S, make_authority
from sdn.model.errors import HawseError, Kind
from tests.unit.rest_server import Served, running
from tests.unit.tls_peers import certified, http_reply, identity_reply, peer

SECRET = "hawse-user-secret"
OURS, OTHERS = make_authority(time.time()), make_authority(time.time())


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running(tmp_path) as controller:
        yield controller


async def user_token(served: Served) -> str:
    made = await served.ask("POST", "/v1/tokens", {"kind": "user", "role": "admin"})
    assert made.status == 201
    return str(made.body["word"])


async def test_requests_and_events(served: Served) -> None:
    url, token = f"https://{served.address}", await user_token(served)

    def use(client: Client, name: str) -> None:
        assert client.post("/v1/tenants", {"name": name}).status == 201
        assert name in [tenant["name"] for tenant in client.items("/v1/tenants")]
        assert "tenant.created" in [event["event"] for event in client.events(since=0, follow=0)]

    await asyncio.to_thread(use, Client(url, token=token, authority=served.identity.bundle), "a")
    await asyncio.to_thread(use, Client(url, token=token, fingerprint=served.identity.fingerprint), "b")


async def test_who_shows_nothing_is_refused_and_may_see_the_identity(served: Served) -> None:
    client = Client(f"https://{served.address}", authority=served.identity.bundle)
    with pytest.raises(HawseError, match="no credential") as caught:
        await asyncio.to_thread(client.get, "/v1/networks")
    assert caught.value.kind is Kind.DENIED
    shown = (await asyncio.to_thread(client.get, "/v1/identity")).body
    assert (shown["authority"], shown["fingerprint"]) == (served.identity.bundle, served.identity.fingerprint)
    assert abs(shown["time_s"] - time.time()) < 60


async def test_a_fingerprint_is_enough_to_fetch_the_authority_also_while_there_are_two(served: Served) -> None:
    address, first = str(served.address), served.identity.fingerprint
    assert await asyncio.to_thread(fetch_authority, address, first.upper()) == served.identity.bundle
    await served.identity.rotate()
    old = await asyncio.to_thread(fetch_authority, address, first)
    new = await asyncio.to_thread(fetch_authority, address, served.identity.fingerprint)
    assert new + old == served.identity.bundle
    for authority in (old, new):
        assert (await asyncio.to_thread(Client(controller_url(address), authority=authority).get, "/healthz")).body
    await served.identity.retire()
    with pytest.raises(HawseError, match="is not the controller that was pinned") as caught:
        await asyncio.to_thread(fetch_authority, address, first)
    assert caught.value.facts == {"pinned": [first], "shown": served.identity.fingerprint}
    client = Client(controller_url(address), authority=old, token=SECRET)
    with pytest.raises(HawseError, match=f"its authority is {served.identity.fingerprint}, and {first} is trusted"):
        await asyncio.to_thread(client.get, "/v1/networks")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("10.0.0.1", "https://10.0.0.1:4780"),
        ("10.0.0.1:1", "https://10.0.0.1:1"),
        ("[fd00::1]", "https://[fd00::1]:4780"),
        ("https://name:4781/", "https://name:4781"),
        (" name ", "https://name:4780"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert controller_url(text) == url


@pytest.mark.parametrize(
    "text", ["", "http://a", "https://", "a:x", "a:0", "a:70000", "fd00::1", "u@a", "a/path", "https://[fd00::1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(HawseError, match="not an address of a controller") as caught:
        controller_url(text)
    assert caught.value.kind is Kind.INVALID


def refusal(url: str, authority: str = OURS.certificate.pem, timeout_s: float = 30.0) -> HawseError:
    """What a request with a token fails with, and (alike, but for what was shown) one who knows a fingerprint alone."""
    with pytest.raises(HawseError) as caught:
        Client(url, timeout_s, authority=authority, token=SECRET).get("/v1/networks")
    return caught.value


def fetching(url: str, timeout_s: float = 30.0) -> HawseError:
    """What fetching our authority there fails with."""
    with pytest.raises(HawseError) as caught:
        fetch_authority(url, OURS.certificate.fingerprint, timeout_s)
    return caught.value


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"https://127.0.0.1:{closed.getsockname()[1]}"
    for error in (refusal(url), fetching(url)):
        assert (error.kind, "the connection was refused" in error.message) == (Kind.UNAVAILABLE, True)


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (TimeoutError(), "did not answer within 5 s"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "there is no way to .*No route to host"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "there is no way to"),
        (OSError(errno.EACCES, "Permission denied"), "cannot be reached: Permission denied"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "there is no machine named"),
    ],
)
def test_ways_not_to_get_there(reason: OSError, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> socket.socket:
        raise reason

    monkeypatch.setattr(socket, "create_connection", fail)
    for error in (refusal("https://192.0.2.1:4780"), fetching("https://192.0.2.1:4780")):
        assert error.kind is Kind.UNAVAILABLE
        assert re.search(sentence, error.message)


def test_who_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        for error in (refusal(url, timeout_s=0.1), fetching(url, timeout_s=0.1)):
            assert (error.kind, "did not answer in TLS within 0.1 s" in error.message) == (Kind.UNAVAILABLE, True)
    with peer(certified(OURS, tmp_path)) as silent_later:
        for ask in (refusal, fetching):
            for timeout_s in (0.2, 2.0, 20.0):  # on a busy machine TLS itself may take longer than the first
                message = ask(silent_later.url, timeout_s=timeout_s).message
                if "in TLS" not in message:
                    break
            assert f"did not answer within {timeout_s:g} s" in message


def test_plain_http_gets_no_token() -> None:
    with peer(None, http_reply("200 OK", b"{}")) as plain:
        for error in (refusal(plain.url), fetching(plain.url)):
            assert error.kind is Kind.UNAVAILABLE
            assert "is not a controller: it does not speak TLS 1.3" in error.message
        assert not any(SECRET.encode() in sent for sent in plain.received)


def test_an_older_tls_is_refused(tmp_path: Path) -> None:
    old = certified(OURS, tmp_path)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with peer(old, identity_reply(OURS)) as downgraded:
        for error in (refusal(downgraded.url), fetching(downgraded.url)):
            assert "it does not speak TLS 1.3" in error.message
        assert downgraded.received == []


def test_another_web_server(tmp_path: Path) -> None:
    other = certified(OTHERS, tmp_path)
    with peer(other, http_reply("404 Not Found", b"<html>", "text/html")) as web:
        error = fetching(web.url)
        assert (error.kind, "it answers /v1/identity with 404" in error.message) == (Kind.UNAVAILABLE, True)
        error = refusal(web.url)
        assert error.kind is Kind.DENIED
        assert "it names no authority" in error.message
        assert OURS.certificate.fingerprint in error.message
    with peer(other, b"220 mail ready\r\n\r\n") as mail:
        assert "it speaks TLS, but no HTTP" in fetching(mail.url).message


def test_another_controller_is_named_with_both_fingerprints_and_told_nothing(tmp_path: Path) -> None:
    with peer(certified(OTHERS, tmp_path), identity_reply(OTHERS)) as other:
        for error in (refusal(other.url), fetching(other.url)):
            assert error.kind is Kind.DENIED
            assert "is not the controller that was pinned" in error.message
            assert OURS.certificate.fingerprint in error.message
            assert OTHERS.certificate.fingerprint in error.message
        assert not any(SECRET.encode() in sent for sent in other.received)


def test_somebody_in_between_who_passes_our_identity_on_is_told_nothing(tmp_path: Path) -> None:
    with peer(certified(OTHERS, tmp_path), identity_reply(OURS)) as between:
        authority = fetch_authority(between.url, OURS.certificate.fingerprint)  # it is public
        assert authority == OURS.certificate.pem
        error = refusal(between.url, authority)
        assert error.kind is Kind.DENIED
        assert "somebody is in between" in error.hint
        assert not any(SECRET.encode() in sent for sent in between.received)


@pytest.mark.parametrize(
    ("made_s", "says", "clock_s", "hint"),
    [
        (-SERVER_VALID_S - 60, "no longer valid", -SERVER_VALID_S, "set the clock"),
        (2 * 86400, "not valid yet", 2 * 86400, "set the clock"),
        (-SERVER_VALID_S - 60, "no longer valid", 0, "the clocks agree: restart the controller"),
    ],
)
def test_clocks(made_s: float, says: str, clock_s: float, hint: str, tmp_path: Path) -> None:
    now_s = time.time()
    with peer(certified(OURS, tmp_path, now_s + made_s), identity_reply(OURS, now_s + clock_s)) as mistimed:
        error = refusal(mistimed.url)
        assert (error.kind, hint in error.hint) == (Kind.DENIED, True)
        assert f"is {says} (" in error.message
        assert "by this machine's clock, which says" in error.message
        assert "the controller's says" in error.message


def test_an_hour_between_the_clocks_hurts_nobody(tmp_path: Path) -> None:
    for off_s in (-3600, 3600):
        with peer(certified(OURS, tmp_path, time.time() + off_s), http_reply("200 OK", b"[]")) as late:
            assert Client(late.url, authority=OURS.certificate.pem).get("/v1/networks").body == []


def test_nothing_to_verify_by() -> None:
    with pytest.raises(HawseError, match="nothing says whom to trust") as caught:
        Client("https://192.0.2.1:4780")
    assert "hawse login" in caught.value.hint
    with pytest.raises(HawseError, match="no certificate"):
        Client("https://192.0.2.1:4780", authority="text")


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'{"authority": 1}', b'{"authority": "x"}', b"[" * 100_000])
def test_an_identity_that_is_none(body: bytes, tmp_path: Path) -> None:
    with peer(certified(OTHERS, tmp_path), http_reply("200 OK", body)) as odd:
        assert "it answers /v1/identity with 200" in fetching(odd.url).message


def test_a_certificate_that_makes_no_sense(tmp_path: Path) -> None:
    """What the other end shows is only ever read to be told of, whatever it is."""
    from sdn.service.trust import sighting_of

    for length in range(0, 400, 7):
        assert sighting_of(OTHERS.certificate.pem.encode()[:length], b"").server is None
