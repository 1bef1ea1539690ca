"""Where a switch is, as text."""

from __future__ import annotations

import pytest

from sdn.model.errors import HawseError, Kind
from sdn.openflow.address import Address


@pytest.mark.parametrize(
    "text", ["", "unix:relative", "tcp:host", "tcp::6653", "tcp:h:65536", "ssl:h:x", "udp:h:1", "tcp:h:²"]
)
def test_what_is_no_address_is_refused(text) -> None:
    with pytest.raises(HawseError, match="is no place of a switch") as caught:
        Address.parse(text)
    assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize(
    "text", ["unix:/run/x.mgmt", "tcp:192.0.2.1:6653", "ssl:[2001:db8::1]:6653", "tcp:host.example:1"]
)
def test_an_address_is_written_as_it_is_read(text) -> None:
    assert str(Address.parse(text)) == text
