"""Default MACs: made from the address, so that an address that is used again has the MAC that neighbours remember."""

from __future__ import annotations

import hashlib

from sdn.model.address import address_bytes, format_mac

FIRST_BYTE = b"\x0a"
"""Unicast and locally administered (IEEE 802, bit 1), and unlike what Docker (02) and libvirt (52) make."""


def default_mac(network_id: str, address4: str | None, address6: str | None = None, salt: int = 0) -> str:
    """The MAC of an endpoint by its addresses (without prefix length); the same for the same network and addresses.

    `0a`, 8 bits of a hash of the network's id, the IPv4 address: unique in a network by itself. Without an IPv4
    address, or with a salt: `0a` and 40 bits of a hash of network, address and salt; a caller whose MAC is taken
    raises the salt.
    """
    if address4 is not None and salt == 0:
        return format_mac(FIRST_BYTE + _hash(network_id.encode(), 1) + address_bytes(address4))
    address = address4 or address6
    assert address is not None, "an endpoint has at least one address"
    return format_mac(FIRST_BYTE + _hash(f"{network_id} {address} {salt}".encode(), 5))


def _hash(data: bytes, size: int) -> bytes:
    return hashlib.blake2s(data, digest_size=size, person=b"hawsemac").digest()
