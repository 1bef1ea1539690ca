"""What the client says where no controller answers, or something else does."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from sdn.client.client import Client, quote, resource, with_query
from sdn.model.errors import HawseError, Kind


def test_not_running_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(HawseError, match="not running") as caught:
        Client(f"unix:{tmp_path}/controller.sock").get("/v1/networks")
    assert caught.value.kind is Kind.UNAVAILABLE
    assert caught.value.hint == "start it with: hawse up -d"


def test_a_socket_nobody_listens_on_is_not_running(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    with pytest.raises(HawseError, match="not running"):
        Client(f"unix:{tmp_path}/s").get("/v1/networks")


@pytest.mark.parametrize("url", ["http://10.0.0.1:4780", "unix:relative", "/run/x.sock", ""])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(HawseError, match="not an address of a controller"):
        Client(url)


def test_a_path_too_long_is_refused_with_its_length() -> None:
    with pytest.raises(HawseError, match="108 bytes") as caught:
        Client("unix:/" + "x" * 107)
    assert caught.value.facts == {"bytes": 108, "limit": 107}


def _answer_once(path: Path, raw: bytes | None) -> threading.Thread:
    """A server for one connection that reads a request and answers with `raw` (None: never)."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(65536)
            if raw is None:
                connection.recv(1)  # until the client gives up
            else:
                connection.sendall(raw)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("raw", "kind", "sentence"),
    [
        (None, Kind.UNAVAILABLE, "did not answer within"),
        (b"garbage\r\n\r\n", Kind.UNAVAILABLE, "failed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", Kind.UNAVAILABLE, "ended in the middle"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{",
            Kind.UNAVAILABLE,
            "failed",
        ),
        (b"HTTP/1.1 503 No\r\nContent-Type: text/plain\r\n\r\nlater", Kind.UNAVAILABLE, "status 503: later"),
        (b"HTTP/1.1 404 No\r\n\r\n", Kind.NOT_FOUND, "status 404"),
        (b"HTTP/1.1 502 No\r\n\r\n", Kind.INTERNAL, "status 502"),
        (
            b"HTTP/1.1 409 No\r\nContent-Type: application/problem+json\r\n\r\n"
            b'{"kind":"exhausted","detail":"full","hint":"add a subnet","facts":{"used":253}}',
            Kind.EXHAUSTED,
            "^full; add a subnet$",
        ),
    ],
)
def test_bad_answers_become_sentences(tmp_path: Path, raw: bytes | None, kind: Kind, sentence: str) -> None:
    thread = _answer_once(tmp_path / "s", raw)
    try:
        with pytest.raises(HawseError, match=sentence) as caught:
            Client(f"unix:{tmp_path}/s", timeout_s=0.2 if raw is None else 10).get("/v1/networks")
    finally:
        thread.join()
    assert caught.value.kind is kind


def test_paths_and_queries() -> None:
    assert quote("blue/web ä") == "blue%2Fweb%20%C3%A4"
    assert resource("networks", "blue/web", "subnets") == "/v1/networks/blue%2Fweb/subnets"
    query = {"label": ["a=1", "b=2"], "tenant": None, "force": True, "limit": 3}
    assert with_query("/v1/x", query) == "/v1/x?label=a%3D1&label=b%3D2&force=1&limit=3"
    assert with_query("/v1/x?a=1", {"b": 2}) == "/v1/x?a=1&b=2"
