"""How who holds nothing but a token comes to trust a controller.

pem = fetch_authority(address, token.fingerprint)
reply = Client(controller_url(address), authority=pem).post("/v1/join", {…})     # shows no credential
"""

from __future__ import annotations

from sdn.client.remote import CONNECT_S, fetch, parse_address
from sdn.model.certificate import parse_fingerprint


def controller_url(address: str) -> str:
    """`10.0.0.1`, `[fd00::1]:4780`, `name:4780` or `https://…` as `https://HOST:PORT`. Raises: INVALID."""
    return parse_address(address)[0]


def fetch_authority(address: str, fingerprint: str, timeout_s: float = CONNECT_S) -> str:
    """The certificate, in PEM, with that fingerprint (SHA-256 in hex), as the controller at `address` tells it.

    Raises: INVALID (address, fingerprint); UNAVAILABLE, naming refused, timed out, unreachable, or not a controller;
    DENIED, with both fingerprints, where the controller has another authority.
    """
    return fetch(controller_url(address), parse_fingerprint(fingerprint), timeout_s)
