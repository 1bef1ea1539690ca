"""The lab that tests share which leave it as it was: once over an IPv4 underlay, once over an IPv6 one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.sites import make_site, site, switch
from tests.packet.lab import Lab, lab

__all__ = ["make_site", "pair", "site", "switch", "underlay_family"]

PAIR = """\
underlay: {UNDERLAY: auto}
hosts: [h1, h2]
tenants: [blue, red]
networks:
  blue/web: {subnets: [10.1.0.0/24, "fd00:1::/64"]}
  blue/db: {subnets: [10.2.0.0/24, "fd00:2::/64"]}
  red/web: {subnets: [10.1.0.0/24, "fd00:1::/64"]}
containers:
  a1: {host: h1, networks: {network: blue/web, ip: 10.1.0.11, ip6: "fd00:1::11", mac: "0a:00:00:00:00:11"}}
  a2: {host: h1, networks: {network: blue/web, ip: 10.1.0.12, ip6: "fd00:1::12", mac: "0a:00:00:00:00:12"}}
  b1: {host: h2, networks: {network: blue/web, ip: 10.1.0.13, ip6: "fd00:1::13", mac: "0a:00:00:00:00:13"}}
  b2: {host: h2, networks: {network: blue/web, ip: 10.1.0.14, ip6: "fd00:1::14", mac: "0a:00:00:00:00:14"}}
  d1: {host: h1, networks: {network: blue/db, ip: 10.2.0.11, ip6: "fd00:2::11"}}
  d2: {host: h2, networks: {network: blue/db, ip: 10.2.0.12, ip6: "fd00:2::12"}}
  r1: {host: h1, networks: {network: red/web, ip: 10.1.0.11, ip6: "fd00:1::11", mac: "0a:00:00:00:00:11"}}
  r2: {host: h1, networks: {network: red/web, ip: 10.1.0.12, ip6: "fd00:1::12", mac: "0a:00:00:00:00:12"}}
  r3: {host: h2, networks: {network: red/web, ip: 10.1.0.13, ip6: "fd00:1::13", mac: "0a:00:00:00:00:13"}}
"""


@pytest.fixture(scope="session", params=[4, 6], ids=["underlay4", "underlay6"])
def underlay_family(request: pytest.FixtureRequest) -> int:
    """The family of the shared lab's underlay."""
    return int(request.param)


@pytest.fixture(scope="session")
def pair(underlay_family: int) -> Iterator[Lab]:
    """Two hosts, two tenants whose networks `web` are the same to the byte, and a second network of blue."""
    with lab(PAIR.replace("UNDERLAY", f"prefix{underlay_family}")) as up:
        yield up
