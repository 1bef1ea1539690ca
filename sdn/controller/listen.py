"""Addresses to listen on, and the URLs under which hosts find them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sdn.model.address import parse_address
from sdn.model.errors import invalid

PORT_DEFAULT = 4780
OPENFLOW_PORT_DEFAULT = 6653
"""IANA's, and what Open vSwitch takes where none is given."""
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 compared with, not bound


class Address(NamedTuple):
    """An address in text and a TCP port (0: any that is free)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


DEFAULT = Address("127.0.0.1", PORT_DEFAULT)
"""Hosts on other machines need an address that they reach: it has to be chosen, with --listen."""


class OpenflowAddress(NamedTuple):
    """Where switches connect to; `secure`: in TLS."""

    secure: bool
    address: Address

    def __str__(self) -> str:
        return f"{'ssl' if self.secure else 'tcp'}:{self.address}"


def parse_openflow(text: str) -> OpenflowAddress:
    """`ssl:10.0.0.1:6653`, `tcp:[fd00::1]`. Raises: INVALID."""
    kind, colon, address = text.partition(":")
    if kind not in ("ssl", "tcp") or not colon:
        raise invalid(
            f"--openflow {text!r} does not say how switches connect",
            "write ssl:10.0.0.1:6653; or tcp:10.0.0.1:6653, where nobody else is on the wire",
            openflow=text,
        )
    return OpenflowAddress(kind == "ssl", parse_listen(address, OPENFLOW_PORT_DEFAULT))


def parse_listen(text: str, port_default: int = PORT_DEFAULT) -> Address:
    """`10.0.0.1:4780`, `[fd00::1]:4780`, or either without its port. Raises: INVALID."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        wrong = not bracket or colon not in ("", ":")
    else:
        host, colon, port = text.partition(":") if text.count(":") == 1 else (text, "", "")
        wrong = False
    number = int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else -1 if colon else port_default
    if wrong or not 0 <= number < 65536:
        raise invalid(f"{text!r} is not an address to listen on", "write 10.0.0.1:4780 or [fd00::1]:4780", listen=text)
    return Address(parse_address(host), number)


def advertised(chosen: Sequence[str], bound: Sequence[Address]) -> tuple[str, ...]:
    """The URLs that hosts are given: what was chosen, else where the controller listens.

    Raises: INVALID where that is a wildcard or no URL.
    """
    for url in chosen:
        if not url.startswith("https://") or not url.removeprefix("https://").strip("/"):
            raise invalid(f"--advertise {url} is not a URL for hosts", "write https://ADDRESS:4780", url=url)
    if chosen:
        return tuple(url.rstrip("/") for url in chosen)
    for address in bound:
        if address.host in WILDCARDS:
            raise invalid(
                f"listening on {address} does not say where hosts reach the controller",
                f"add --advertise https://ADDRESS:{address.port}",
            )
    return tuple(f"https://{address}" for address in bound)
