"""What is announced and what is heard, without a wire; `tests/e2e/test_discovery` has one."""

from __future__ import annotations

import importlib.util
import socket

import pytest
from zeroconf import ServiceInfo

from sdn.model.errors import HawseError, Kind
from sdn.service import discovery
from sdn.service.discovery import SERVICE, Heard, announced, discover, nothing_found, parse_announcement

FINGERPRINT = "0123456789abcdef" * 4
PREFIX = FINGERPRINT[:16]


def service(prefix: str = PREFIX, port: int = 4780, addresses: tuple[str, ...] = ("10.0.0.1",)) -> ServiceInfo:
    return ServiceInfo(
        SERVICE, f"x.{SERVICE}", port=port, parsed_addresses=list(addresses),
        properties={"fingerprint": prefix, "version": "1"},
    )  # fmt: skip


def test_addresses_that_others_reach_are_announced_by_port():
    urls = ["https://10.0.0.1:4780", "https://[fd00::1]:4780", "https://10.0.0.1:4790", "https://127.0.0.1:4780",
            "https://controller.example:4780", "https://[fe80::1]:4780"]  # fmt: skip
    assert announced(urls) == {4780: ["10.0.0.1", "fd00::1"], 4790: ["10.0.0.1"]}


@pytest.mark.parametrize("url", ["https://127.0.0.1:4780", "https://[::1]:4780", "https://name.example:4780"])
def test_who_cannot_be_reached_is_not_announced(url):
    with pytest.raises(HawseError, match="nothing to announce") as raised:
        announced([url])
    assert raised.value.kind is Kind.INVALID
    assert url in raised.value.message


def test_what_is_announced_is_what_is_heard():
    info = discovery._service(FINGERPRINT, 4780, ["10.0.0.1", "fd00::1"])
    heard = parse_announcement(info)
    assert heard is not None
    assert heard.prefix == PREFIX
    assert heard.addresses == ("10.0.0.1:4780", "[fd00::1]:4780")


@pytest.mark.parametrize(
    "info",
    [
        service(prefix=PREFIX[:-1]),
        service(prefix=PREFIX.upper()),
        service(prefix="\x1b[31m" + PREFIX[5:]),
        service(prefix=""),
        service(port=0),
        service(addresses=()),
        service(addresses=("127.0.0.1", "fe80::1")),
        ServiceInfo(SERVICE, f"x.{SERVICE}", port=1, addresses=[socket.inet_aton("10.0.0.1")], properties={}),
    ],
)
def test_what_is_no_announcement_of_ours_is_not_heard(info):
    assert parse_announcement(info) is None


def test_other_controllers_are_named():
    others = [Heard("f" * 16, "0.1.0", ("10.0.0.9:4780",)), Heard("e" * 16, "0.1.0", ("10.0.0.8:4780",))]
    error = nothing_found(FINGERPRINT, 3, others)
    assert error.kind is Kind.NOT_FOUND
    for said in (PREFIX, "f" * 16, "e" * 16, "10.0.0.9:4780", "10.0.0.8:4780", "2 other controllers announce", "3 s"):
        assert said in error.message
    assert "hawse join ADDRESS TOKEN" in error.hint


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HawseError, match="zeroconf, which is not installed") as raised:
        discover(FINGERPRINT, 1)
    assert "discovery" in raised.value.hint
