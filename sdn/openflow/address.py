"""Where a switch is, or is waited for: `unix:/path`, `tcp:host:port`, `ssl:host:port`, as Open vSwitch writes it."""

from __future__ import annotations

import ssl
from typing import NamedTuple, Self

from sdn.model.errors import invalid


class Address(NamedTuple):
    """`path` for unix, `host` and `port` for the others."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """From what a person writes; an IPv6 address is in brackets. Raises: INVALID."""
        scheme, _, rest = text.partition(":")
        if scheme == "unix" and rest.startswith("/"):
            return cls(scheme, path=rest)
        host, _, port = rest.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if scheme not in ("tcp", "ssl") or not host or not (port.isascii() and port.isdigit() and int(port) <= 0xFFFF):
            raise invalid(f"{text!r} is no place of a switch", "write unix:/PATH, tcp:HOST:PORT or ssl:HOST:PORT")
        return cls(scheme, host, int(port))

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"{self.scheme}:{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def at(self, port: int) -> Self:
        """The same with another port."""
        return self._replace(port=port)

    def context(self, tls: ssl.SSLContext | None) -> ssl.SSLContext | None:
        """What TLS is done with. Raises: INVALID where ssl has no context, or tcp has one."""
        if (self.scheme == "ssl") != (tls is not None):
            raise invalid(f"{self} {'needs' if tls is None else 'has no use for'} a certificate and an authority")
        return tls
