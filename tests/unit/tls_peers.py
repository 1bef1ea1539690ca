"""Other ends of a connection, as they may be: threads that serve canned replies and remember what they were sent."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from sdn.controller.authority import Authority, issue
from sdn.service.durable import write_durably


class Peer:
    """One that listens on loopback; `received` is all that came over the connections, decrypted."""

    def __init__(self, context: ssl.SSLContext | None, reply: bytes) -> None:
        """Without a context it speaks no TLS; an empty reply is none, and the connection stays open."""
        self._context = context
        self._reply = reply
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self.received: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._over.is_set():
                connection.close()
                return
            connection.settimeout(10)
            with contextlib.suppress(OSError), connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True)
        with connection:
            self.received.append(connection.recv(65536))
            if self._reply:
                connection.sendall(self._reply)
            else:
                connection.recv(65536)  # until the other end has had enough

    def close(self) -> None:
        """End it."""
        self._over.set()
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()


@contextlib.contextmanager
def peer(context: ssl.SSLContext | None, reply: bytes = b"") -> Iterator[Peer]:
    """One, and its end."""
    made = Peer(context, reply)
    try:
        yield made
    finally:
        made.close()


def certified(authority: Authority, directory: Path, now_s: float | None = None) -> ssl.SSLContext:
    """With a certificate of that authority, made at `now_s` (now)."""
    path = directory / f"{authority.certificate.fingerprint}.pem"
    write_durably(path, issue(authority, time.time() if now_s is None else now_s))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def http_reply(status: str, body: bytes, kind: str = "application/json") -> bytes:
    """One HTTP reply."""
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def identity_reply(authority: Authority, time_s: float | None = None) -> bytes:
    """A reply to GET /v1/identity."""
    body = {
        "authority": authority.certificate.pem,
        "fingerprint": authority.certificate.fingerprint,
        "version": "1",
        "time_s": time.time() if time_s is None else time_s,
    }
    return http_reply("200 OK", json.dumps(body).encode())
