"""What the agent reads about its host, and from its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plugin.agent.configuration import parse_configuration, read_configuration
from plugin.agent.facts import HostFacts, read_facts, read_incarnation, resolve_host
from plugin.kernel.route import Uplink
from sdn.controller.authority import make_authority
from sdn.model.errors import HawseError, Kind

AUTHORITY = make_authority(1e9).certificate
GOOD: dict[str, Any] = {
    "controllers": ["https://192.0.2.9:4780", "https://[2001:db8::9]:4780"],
    "authority": AUTHORITY.pem,
    "fingerprint": AUTHORITY.fingerprint.upper(),
    "host": "0" * 26,
    "name": "h1",
    "secret": "hush",
}


class FakeUnderlay:
    def __init__(self, ways: dict[str, Uplink], own: dict[str, Uplink]) -> None:
        self._ways = ways
        self._own = own

    def uplink_to(self, address: str) -> Uplink | None:
        return self._ways.get(address)

    def uplink_of(self, address: str) -> Uplink | None:
        return self._own.get(address)

    def prefixes(self) -> tuple[str, ...]:
        return ("192.0.2.0/24",)


def facts(ways: dict[str, Uplink], own: dict[str, Uplink] | None = None, **changes: Any) -> HostFacts:
    configuration = parse_configuration(json.dumps({**GOOD, **changes}).encode())
    return read_facts(configuration, FakeUnderlay(ways, own or {}), resolve_host)


WAY4 = {"192.0.2.9": Uplink("192.0.2.1", "eth0", 1500)}
WAY6 = {"2001:db8::9": Uplink("2001:db8::1", "eth1", 1400)}


def test_a_vtep_per_family_that_leads_to_a_controller() -> None:
    assert facts(WAY4 | WAY6) == HostFacts("192.0.2.1", "2001:db8::1", 1400, ("192.0.2.0/24",))
    assert facts(WAY4) == HostFacts("192.0.2.1", None, 1500, ("192.0.2.0/24",))
    assert facts({}) == HostFacts(None, None, 1500, ("192.0.2.0/24",))


def test_a_given_vtep_is_taken_with_its_own_uplink() -> None:
    own = {"198.51.100.1": Uplink("198.51.100.1", "eth2", 9000)}
    assert facts(WAY4, own, vtep4="198.51.100.1").mtu_bytes == 9000
    assert facts(WAY4, own, vtep4="198.51.100.1").vtep4 == "198.51.100.1"
    assert facts(WAY4, own, vtep4="198.51.100.2").vtep4 == "198.51.100.2"


def test_a_controller_on_the_same_host() -> None:
    ways = {"192.0.2.9": Uplink("192.0.2.9", "lo", 65536), "2001:db8::9": Uplink("::1", "lo", 65536)}
    own = {"192.0.2.9": Uplink("192.0.2.9", "eth0", 1500)}
    assert facts(ways, own) == HostFacts("192.0.2.9", None, 1500, ("192.0.2.0/24",))


def test_names_and_incarnation() -> None:
    assert resolve_host("2001:DB8::9") == ["2001:db8::9"]
    assert "127.0.0.1" in resolve_host("localhost")
    boot, _, cookie = read_incarnation().partition(":")
    assert len(boot) == 36
    assert int(cookie) > 0
    assert read_incarnation() == read_incarnation()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"controllers": []}, "`controllers` is empty"),
        ({"controllers": ["http://a:1"]}, "not an https URL"),
        ({"controllers": ["https://a:99999"]}, "not a URL"),
        ({"controllers": ["unix:controller.sock"]}, "no absolute path"),
        ({"fingerprint": "ab"}, "`fingerprint`: .* not a SHA-256"),
        ({"fingerprint": "ab" * 32}, "which no certificate in `authority` has"),
        ({"authority": "text"}, "`authority`: it holds no certificate"),
        ({"vtep4": "2001:db8::1"}, "belongs in vtep4"),
        ({"vtep6": "192.0.2.1"}, "belongs in vtep4"),
        ({"vtep4": "x"}, "not an IP address"),
        ({"secrt": "typo"}, "unknown field `secrt`"),
        ({"secret": 5}, r"\$\.secret"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "agent.json").write_text(json.dumps({**GOOD, **changes}))
    with pytest.raises(HawseError, match=sentence) as caught:
        read_configuration(tmp_path / "agent.json")
    assert caught.value.kind is Kind.INVALID
    assert str(tmp_path) in caught.value.message


def test_a_good_file_and_none(tmp_path: Path) -> None:
    configuration = parse_configuration(json.dumps(GOOD).encode())
    assert configuration.fingerprint == AUTHORITY.fingerprint
    assert "hush" not in repr(configuration)
    with pytest.raises(HawseError, match="cannot read the agent's configuration") as caught:
        read_configuration(tmp_path / "agent.json")
    assert caught.value.kind is Kind.NOT_FOUND
