"""agent.json: who this host is and where its controllers are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from sdn.model.address import parse_address
from sdn.model.certificate import parse_certificates, parse_fingerprint
from sdn.model.codec import Decoder
from sdn.model.errors import HawseError, invalid, not_found
from sdn.model.ids import HostId

T = TypeVar("T")


class Configuration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`controllers`: https URLs, in order of preference; `authority`: PEM of every authority that is trusted.

    On the controller's own machine one may be `unix:PATH`, of its socket: then VTEPs have to be given, for nothing can
    be learned from a route. `fingerprint`: SHA-256 of the DER of the newest authority, in hex.

    A VTEP is the source address of the route to a controller of its family unless it is given here.
    """

    controllers: tuple[str, ...]
    authority: str
    fingerprint: str
    host: HostId
    secret: str
    name: str = ""
    vtep4: str | None = None
    vtep6: str | None = None

    def __repr__(self) -> str:
        return f"Configuration(host={self.host!r}, name={self.name!r})"  # the secret stays out of logs


_decoder: Decoder[Configuration] = Decoder(Configuration, "the agent's configuration")


def read_configuration(path: Path) -> Configuration:
    """Raises: NOT_FOUND (no such file), INVALID (with the place that is wrong)."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise not_found(
            f"cannot read the agent's configuration {path}: {error.strerror}",
            "let the controller mint one: POST /v1/hosts/NAME/credential; or give --config FILE",
        ) from None
    try:
        return parse_configuration(text)
    except HawseError as error:
        raise invalid(f"{path}: {error.message}", error.hint) from None


def parse_configuration(text: bytes) -> Configuration:
    """Raises: INVALID."""
    configuration = _decoder.json(text)
    if not configuration.controllers:
        raise invalid("`controllers` is empty", "name at least one, as https://ADDRESS:PORT")
    for url in configuration.controllers:
        if local_socket(url) is None:
            controller_address(url)
    fingerprint = _told("fingerprint", parse_fingerprint, configuration.fingerprint)
    trusted = _told("authority", parse_certificates, configuration.authority)
    if fingerprint not in [one.fingerprint for one in trusted]:
        raise invalid(
            f"`fingerprint` is {fingerprint}, which no certificate in `authority` has", "mint the credential again"
        )
    return msgspec.structs.replace(
        configuration,
        fingerprint=fingerprint,
        vtep4=_vtep(configuration.vtep4, ipv6=False),
        vtep6=_vtep(configuration.vtep6, ipv6=True),
    )


def local_socket(url: str) -> str | None:
    """The path of a controller's socket on this machine, where the URL means one. Raises: INVALID (not absolute)."""
    if not url.startswith("unix:"):
        return None
    path = url.removeprefix("unix:")
    if not path.startswith("/"):
        raise invalid(f"{url!r} names no absolute path", "write it as unix:/run/hawse/controller.sock")
    return path


def controller_address(url: str) -> tuple[str, int]:
    """The address (or name) and port of a controller's URL. Raises: INVALID."""
    try:
        parts = urlsplit(url)
        port = parts.port or 4780
    except ValueError:
        raise invalid(f"{url!r} is not a URL", "write it as https://ADDRESS:PORT") from None
    if parts.scheme != "https" or not parts.hostname:
        raise invalid(f"{url!r} is not an https URL", "write it as https://ADDRESS:PORT")
    return parts.hostname, port


def _told(field: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except HawseError as error:
        raise invalid(f"`{field}`: {error.message}", "see the credential's reply") from None


def _vtep(text: str | None, *, ipv6: bool) -> str | None:
    if text is None:
        return None
    address = parse_address(text)
    if (":" in address) != ipv6:
        raise invalid(
            f"`vtep{'6' if ipv6 else '4'}` is {text}", "an IPv4 address belongs in vtep4, an IPv6 one in vtep6"
        )
    return address
